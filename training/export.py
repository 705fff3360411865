"""Calibrate the trained student and write it as ONNX, with its scores beside what is wanted.

::

    python -m training.export training-data training-run models/fast/fast.onnx
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from training.model import CLASSES, DEVIATION, MEAN, Student

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    F32 = NDArray[np.float32]

THRESHOLDS: Final = (0.3, 0.6)
"""Probabilities of cloud and of shadow from which on the merge policy believes a model."""
STEP: Final = 32
SAMPLE: Final = 16
"""One in this many pixels is calibrated with."""
LARGE: Final = 1000
"""Weights of a tensor from which on it is stored in 16 bits."""


def originals(folder: Path) -> Iterator[tuple[str, F32, F32, NDArray[np.bool_]]]:
    """Name, scaled bands, the wanted probabilities and where there is data, of each scene that is not altered."""
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in (MEAN, DEVIATION))
    for path in sorted(folder.glob("*.npy")):
        collection, name = path.stem.split("--")
        if "-" not in name:
            layers = np.load(path)
            layers = layers[:, : layers.shape[1] // STEP * STEP, : layers.shape[2] // STEP * STEP]
            given = layers[:6].astype(np.float32) / 10_000
            yield f"{collection} {name}", (given[:4] - mean) / deviation, given[4:], layers[6] > 0


def answers(net: Student, folder: Path) -> Iterator[tuple[str, F32, F32]]:
    """Name, logits ``(class, pixel)`` and the wanted probabilities ``(class, pixel)`` of each scene."""
    for name, pixels, given, valid in originals(folder):
        with torch.inference_mode():
            logits = net(torch.from_numpy(pixels)[None])[0].numpy()
        yield name, logits[:, valid], np.concatenate([1 - given.sum(0, keepdims=True), given])[:, valid]


def softmax(logits: F32) -> F32:
    """Probabilities of logits ``(class, ...)``."""
    powers = np.exp(logits - logits.max(0))
    return powers / powers.sum(0)


def calibrate(logits: list[F32], taught: list[F32]) -> F32:
    """What to add to the logits so that as many pixels as are wanted exceed each threshold, all scenes alike."""
    bias = np.zeros(CLASSES, np.float32)
    for _ in range(30):
        for place, threshold in zip((1, 2), THRESHOLDS, strict=True):
            wanted = np.mean([(one[place] > threshold).mean() for one in taught])
            found = np.mean([(softmax(one + bias[:, None])[place] > threshold).mean() for one in logits])
            bias[place] += np.clip(np.log((wanted + 1e-4) / (found + 1e-4)), -0.3, 0.3)
    return bias


def narrow(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store large weights in 16 bits; they are computed with in 32."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) > LARGE:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_wide", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model


def write(net: Student, path: Path) -> None:
    """Write the net as ONNX with free height and width."""
    file = io.BytesIO()
    axes = {name: {0: "batch", 2: "height", 3: "width"} for name in ("input", "output")}
    example = torch.zeros(1, len(MEAN), 2 * STEP, 2 * STEP)
    torch.onnx.export(net, (example,), file, input_names=["input"], output_names=["output"], dynamic_axes=axes,
                      opset_version=17, dynamo=False)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(narrow(onnx.load_model_from_string(file.getvalue())), path)


def main(data: Path, run: Path, path: Path) -> None:
    """Calibrate, write, and print what the student makes of each scene."""
    torch.set_num_threads(2)
    net = Student().eval()
    net.load_state_dict(torch.load(run / "checkpoint.pt")["net"])
    names, logits, taught = zip(*answers(net, data), strict=True)
    bias = calibrate([one[:, ::SAMPLE] for one in logits], [one[:, ::SAMPLE] for one in taught])
    with torch.no_grad():
        net.head.bias += torch.from_numpy(np.repeat(bias, 4))
    write(net, path)
    print(f"added to the logits of cloud and shadow: {bias[1]:.3f} and {bias[2]:.3f}; {path.stat().st_size} bytes")
    print("scene | same class | cloud (wanted) | shadow (wanted), in %")
    for name, found, wanted in zip(names, logits, taught, strict=True):
        p = softmax(found + bias[:, None])
        same = 100 * (p.argmax(0) == wanted.argmax(0)).mean()
        cloud, shadow = (
            f"{100 * (p[k] > t).mean():.1f} ({100 * (wanted[k] > t).mean():.1f})"
            for k, t in zip((1, 2), THRESHOLDS, strict=True)
        )
        print(f"{name} | {same:.1f} | {cloud} | {shadow}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
