"""What a coarse pass, refined only where it is unsure, would save and change: why there is none.

    python -m benchmarks.coarse [--data ../shared/data] [--blocks 256 128 64]

Every scene is asked at its own pixel size and at twice that. Blocks of pixels in which, margins included, the coarse
answer has a probability of cloud or shadow between 2 and 98 % take the fine answer, all others the coarse one; both go
through the default merge. The cost is that of the coarse pass and of the refined blocks with their margins, as a share
of a fine pass over everything. Takes two minutes on two cores.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.accuracy import DATA, scenes
from stac_cloudmask.config import Settings
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.metrics import agreement
from stac_cloudmask.core.pixels import repeat
from stac_cloudmask.core.predict import PERCENT_NODATA, ROLES
from stac_cloudmask.pipeline.mask import Mask, make_mask
from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference
from stac_cloudmask.stac.warp import read_labels

if TYPE_CHECKING:
    import pystac

FINER = 2
SURE = 2, 98
MARGIN = 16
"""Pixels around a block on which its answer depends."""
OVERHEAD = 1.15
"""Pixels that a fine pass computes for each pixel of a scene."""


class Row(NamedTuple):
    """Shares in percent, and the largest fall of an F1."""

    refined: float
    cost: float
    same: float
    fall: float


def main() -> None:
    """Print a row for each scene and size of block."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with a catalog.json")
    parser.add_argument("--blocks", type=int, nargs="+", default=[256, 128, 64], help="pixels")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| scene | block | refined, % | cost, % | same class, % | largest fall of F1 |\n|" + " --- |" * 6)
    for item in scenes(given.data):
        settings = Settings(missing_scl="fail" if "scl" in item.assets else "model-only")
        fine = make_mask(item, settings=settings)
        coarse = upsampled(make_mask(item, settings=replace(settings, resolution=FINER * fine.grid.gsd)), fine)
        for block in given.blocks:
            row = compared(item, fine, coarse, block)
            print(f"| {item.id} | {block} | {row.refined:.0f} | {row.cost:.0f} | {row.same:.2f} | {row.fall:.4f} |")


def upsampled(coarse: Mask, fine: Mask) -> dict[str, np.ndarray]:
    """Percents by role on the fine grid; nodata is where the fine answer has it."""
    window = Window(0, 0, *fine.grid.shape)
    layers = {}
    for role in ROLES:
        wide = repeat(getattr(coarse.evidence, role), FINER, window=window)
        layers[role] = np.where(getattr(fine.evidence, role) == PERCENT_NODATA, np.uint8(PERCENT_NODATA), wide)
    return layers


def compared(item: pystac.Item, fine: Mask, coarse: dict[str, np.ndarray], block: int) -> Row:
    """A scene refined in blocks beside the same scene asked finely everywhere."""
    unsure = np.logical_or.reduce([(layer >= SURE[0]) & (layer < SURE[1]) for layer in coarse.values()])
    refine = np.zeros(fine.grid.shape, bool)
    asked = []
    for top in range(0, fine.grid.height, block):
        for left in range(0, fine.grid.width, block):
            near = (slice(max(start - MARGIN, 0), start + block + MARGIN) for start in (top, left))
            asked.append(bool(unsure[tuple(near)].any()))
            refine[top : top + block, left : left + block] = asked[-1]
    layers = {role: np.where(refine, getattr(fine.evidence, role), layer) for role, layer in coarse.items()}
    reference = decide(fine.evidence, Settings()).class_map
    mixed = decide(replace(fine.evidence, **layers), Settings()).class_map
    before, after = scores(item, fine, reference), scores(item, fine, mixed)
    share = float(np.mean(asked))
    cost = 1 / FINER**2 + share * ((block + 2 * MARGIN) / block) ** 2 / OVERHEAD
    fall = max((one - other for one, other in zip(before, after, strict=True)), default=0.0)
    return Row(100 * share, 100 * cost, 100 * float((mixed == reference).mean()), fall)


def scores(item: pystac.Item, mask: Mask, classes: np.ndarray) -> list[float]:
    """F1 of all classes that the item's labels judge."""
    found = []
    for key in (key for key in item.assets if key.startswith("reference")):
        meaning = meaning_of(parse_reference(key), item.assets[key].to_dict())
        labels = read_labels(item.assets[key].href, mask.grid, meaning)
        judged = judged_classes(meaning)
        counts = agreement(classes, labels, judged=judged, gsd=mask.grid.gsd)
        found += [counts.scores(code).f1 for code in judged]
    return found


if __name__ == "__main__":
    main()
