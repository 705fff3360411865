"""Compare the masks of a model or runtime with those of the default, scene by scene, and with what is labeled.

::

    python -m training.scores ../shared/data [--model fast] [--provider cpu] [--pictures DIR]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac
from PIL import Image

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.metrics import agreement
from stac_cloudmask.pipeline.mask import make_mask
from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference
from stac_cloudmask.stac.warp import read_labels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stac_cloudmask.pipeline.mask import Mask

    Codes = NDArray[np.uint8]

WANTED: Final = {"clear": (CloudClass.CLEAR,), "cloud": (CloudClass.CLOUD,), "thin": (CloudClass.CLOUD,),
                 "shadow": (CloudClass.CLOUD_SHADOW,)}  # fmt: skip
"""Class that a box drawn by eye should get, by its label."""
COLORS: Final = np.array([[0, 0, 0], [255, 60, 60], [70, 90, 255]], np.uint8)


def items(root: Path) -> Iterator[pystac.Item]:
    """All scenes of both catalogs."""
    for path in sorted([*root.glob("*/*/*.json"), *root.glob("hard/*/*/*.json")]):
        if json.loads(path.read_text()).get("type") == "Feature":
            item = pystac.Item.from_file(path)
            item.make_asset_hrefs_absolute()
            yield item


def mask_of(item: pystac.Item, settings: Settings) -> Mask:
    """The mask of an item, from the models alone where it has no SCL."""
    has_scl = any(key.lower() == "scl" for key in item.assets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_mask(item, settings=settings if has_scl else replace(settings, missing_scl="model-only"))


def f1(item: pystac.Item, mask: Mask) -> dict[str, float]:
    """F1 by class where a reference of whole areas judges it."""
    found = {}
    for key in ("reference-cloud", "reference-shadow"):
        if key in item.assets:
            reference = parse_reference(key)
            meaning = meaning_of(reference, item.assets[key].to_dict())
            labels = read_labels(item.assets[key].href, mask.grid, meaning)
            judged = judged_classes(meaning)
            counts = agreement(mask.decision.class_map, labels, judged=judged, gsd=mask.grid.gsd)
            found |= {CloudClass(code).name: counts.scores(code).f1 or 0.0 for code in judged}
    return found


def boxes(item: pystac.Item, root: Path, class_map: Codes) -> dict[str, tuple[int, int]]:
    """Pixels of boxes drawn by eye that are of the right class, and all, by label."""
    path = root / "hard" / "eye-labels" / f"{item.id}.json"
    counts: dict[str, tuple[int, int]] = {}
    if path.exists():
        for top, left, bottom, right, label, _ in json.loads(path.read_text())["boxes"]:
            part = class_map[top:bottom, left:right]
            good, total = counts.get(label, (0, 0))
            counts[label] = (good + int(np.isin(part, WANTED[label]).sum()), total + part.size)
    return counts


def picture(mask: Mask, other: Mask) -> Image.Image:
    """The scene, and over it the default's mask and the other's, side by side."""
    scene = mask.quicklook
    panels = [scene]
    for one in (mask, other):
        classes = one.decision.class_map
        rows, columns = (np.arange(n) * full // n for n, full in zip(scene.shape[:2], classes.shape, strict=True))
        codes = classes[rows][:, columns]
        flagged = np.isin(codes, (1, 2))[..., None]
        panels.append(np.where(flagged, scene // 2 + COLORS[np.minimum(codes, 2)] // 2, scene))
    return Image.fromarray(np.concatenate(panels, axis=1).astype(np.uint8))


def sum_up(
    same: list[float], scores: dict[str, list[tuple[float, float]]], hits: dict[str, list[tuple[int, int, int]]]
) -> None:
    """Print means over the scenes."""
    print(f"same class: mean {100 * np.mean(same):.1f}, least {100 * min(same):.1f}")
    for key, pairs in scores.items():
        print(f"F1 of {key.lower()}: {np.mean(pairs, 0).round(3)} (default, other)")
    for label, counts in hits.items():
        good, right, total = np.sum(counts, 0)
        print(f"boxes, {label}: {good / total:.3f}, {right / total:.3f} (default, other)")


def main() -> None:
    """Print a row for each scene, and means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--pictures", type=Path)
    given = parser.parse_args()
    names = {"cloud_model": (given.model,), "shadow_model": given.model} if given.model else {}
    other = Settings(provider=given.provider, **names)
    same: list[float] = []
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    hits: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    print("scene | same class % | cloud % default, other | shadow % default, other | F1 default, other")
    for item in items(given.root):
        before, after = mask_of(item, Settings()), mask_of(item, other)
        one, two = before.decision.class_map, after.decision.class_map
        valid = one != CloudClass.NODATA
        same.append(float((one == two)[valid].mean()))
        shares = " | ".join(", ".join(f"{100 * (m == code)[valid].mean():.1f}" for m in (one, two)) for code in (1, 2))
        found = {key: (value, f1(item, after)[key]) for key, value in f1(item, before).items()}
        text = "; ".join(f"{key.lower()} {a:.3f}, {b:.3f}" for key, (a, b) in found.items())
        print(f"{item.id} | {100 * same[-1]:.1f} | {shares} | {text}", flush=True)
        for key, pair in found.items():
            scores[key].append(pair)
        right = boxes(item, given.root, two)
        for label, (good, total) in boxes(item, given.root, one).items():
            hits[label].append((good, right[label][0], total))
        if given.pictures:
            given.pictures.mkdir(parents=True, exist_ok=True)
            picture(before, after).save(given.pictures / f"{item.id}.png")
    sum_up(same, scores, hits)


if __name__ == "__main__":
    main()
