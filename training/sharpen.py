"""Choose how sharp the student's probabilities are, so that its masks are most like the default's, and write that.

The policy asks for more than two thresholds: a trace of cloud supports the product's clouds, and a cell is certain of
cloud by its mean. A student that is less sure than its teacher misses these, though its classes are right. Its logits
are multiplied, and those of cloud shifted, the same for all scenes. No label is used. Run in the environment of
stac_cloudmask on the item of the file that training.export wrote::

    python -m training.sharpen ../shared/data models/fast/fast.json
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.predict import PERCENT_NODATA
from training.scores import items, mask_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.votes import Evidence

    Codes = NDArray[np.uint8]

SHARPER: Final = (1.0, 2.0, 3.0, 4.0)
"""Factors of logits that are tried."""
SHIFTS: Final = (-0.5, 0.0, 0.5)
"""What is added to the logits of cloud that is tried; for those of shadow it changes next to nothing."""
LEAST: Final = 0.004
"""Probability in place of none: less than half a percent."""


@dataclass(frozen=True)
class Scene:
    """What the student says of a scene, and the default's classes."""

    name: str
    evidence: Evidence
    wanted: Codes


def changed(evidence: Evidence, factor: float, shift: float) -> Evidence:
    """What the student would say with its logits multiplied and those of cloud shifted."""
    cloud, shadow = (layer.astype(np.float32) / 100 for layer in (evidence.cloud, evidence.shadow))
    shares = np.stack([1 - cloud - shadow, cloud, shadow]).clip(LEAST, 1)
    powers = shares**factor * np.exp(np.array([0, shift, 0], np.float32))[:, None, None]
    percents = np.rint(100 * powers / powers.sum(0)).astype(np.uint8)
    empty = evidence.cloud == PERCENT_NODATA
    percents[:, empty] = PERCENT_NODATA
    return replace(evidence, cloud=percents[1], shadow=percents[2])


def agreement(scene: Scene, factor: float, shift: float) -> float:
    """Share of the pixels of the same class as the default's."""
    classes = decide(changed(scene.evidence, factor, shift), Settings()).class_map
    return float((classes == scene.wanted)[scene.wanted != CloudClass.NODATA].mean())


def rewrite(path: Path, factor: float, shift: float) -> None:
    """Multiply and shift the logits that a file gives: those of four pixels each, by class."""
    model = onnx.load(path)
    [head] = [node for node in model.graph.node if node.name.startswith("/head/")]
    added = np.repeat(np.array([0, shift, 0], np.float32), 4)
    for tensor in model.graph.initializer:
        if tensor.name in head.input[1:]:
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values + added if values.ndim == 1 else values, tensor.name))
    onnx.save(model, path)


def main(root: Path, item: Path) -> None:
    """Print the mean and the least agreement of each choice, and take the best of their sums."""
    student = Settings(cloud_model=(str(item),), shadow_model=str(item))
    scenes = [
        Scene(one.id, mask_of(one, student).evidence, mask_of(one, Settings()).decision.class_map)
        for one in items(root)
    ]
    scores = {}
    for factor, shift in product(SHARPER, SHIFTS):
        same = [agreement(scene, factor, shift) for scene in scenes]
        scores[factor, shift] = float(np.mean(same)) + min(same)
        print(f"logits times {factor}, cloud {shift:+}: mean {np.mean(same):.4f} least {min(same):.4f}", flush=True)
    rewrite(item.with_suffix(".onnx"), *max(scores, key=scores.__getitem__))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
