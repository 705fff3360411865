"""Measure the ranges that the provider `openvino-int8` needs, on windows of the real scenes.

Run in the environment of stac_cloudmask after training.data::

    python -m training.ranges ukis-csmask-4b-l2a training-data models/int8-ranges.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
import onnxruntime

from stac_cloudmask.models.graph import load_graph
from stac_cloudmask.models.registry import find_model, locate, weights_sha256

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stac_cloudmask.models.spec import ModelSpec

SEED: Final = 3
WINDOWS: Final = 50
SIDE: Final = 320
TAIL: Final = 1e-4
"""Share of a window's values that may lie beyond each end of a range."""
FEWEST: Final = 8
"""Channels of a convolution's input below which 8 bits are no faster and cost most: the bands."""
KEPT: Final = ("_se_", "_blocks.0/", "_blocks.1/", "_blocks.2/")
"""Parts of the names of convolutions that stay as they are: those of squeeze-and-excitation are small, and in the first
blocks 8 bits save 1 % of the time and add 0.5 points of cloud under haze."""


def windows(folder: Path, spec: ModelSpec) -> Iterator[NDArray[np.float32]]:
    """Scaled windows ``(1, band, y, x)`` of the scenes that are not altered, one scene after the other."""
    rng = np.random.default_rng(SEED)
    files = [path for path in sorted(folder.glob("*.npy")) if "-" not in path.stem.split("--")[1]]
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    for number in range(WINDOWS):
        layers = np.load(files[number % len(files)], mmap_mode="r")
        row, column = (rng.integers(0, max(side - SIDE, 0) + 1) for side in layers.shape[1:])
        window = layers[:4, row : row + SIDE, column : column + SIDE]
        height, width = (side // 32 * 32 for side in window.shape[1:])
        yield ((window[:, :height, :width].astype(np.float32) / 10_000 - mean) / std)[None]


def inputs(model: onnx.ModelProto) -> list[str]:
    """Tensors that convolutions over all channels are given."""
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    groups = {id(node): attribute.i for node in model.graph.node for attribute in node.attribute
              if attribute.name == "group"}  # fmt: skip
    found = [
        node.input[0]
        for node in model.graph.node
        if node.op_type == "Conv" and not any(part in node.name for part in KEPT)
        if groups.get(id(node), 1) == 1 and shapes[node.input[1]][1] >= FEWEST
    ]
    return list(dict.fromkeys(found))


def measure(name: str, data: Path, file: Path) -> None:
    """Add the ranges of a model's features to a file."""
    spec = find_model(name)
    model = onnx.load_model_from_string(load_graph(locate(spec), spec, local_means=True, transposed=False))
    names = inputs(model)
    del model.graph.output[1:]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    ends = []
    for window in windows(data, spec):
        features = session.run(names, {session.get_inputs()[0].name: window})
        ends.append([np.quantile(values[..., ::3, ::3], [TAIL, 1 - TAIL]) for values in features])
    low, high = np.array(ends)[..., 0].min(0), np.array(ends)[..., 1].max(0)
    ranges = {tensor: [float(f"{end:.6g}") for end in pair] for tensor, *pair in zip(names, low, high, strict=True)}
    known = json.loads(file.read_text()) | {weights_sha256(spec): ranges}
    parts = [f"{json.dumps(sha256)}: {{\n{_lines(pairs)}\n}}" for sha256, pairs in known.items()]
    file.write_text("{" + ",\n".join(parts) + "}\n")


def _lines(pairs: dict[str, list[float]]) -> str:
    return ",\n".join(f"  {json.dumps(name)}: {json.dumps(pair)}" for name, pair in pairs.items())


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
