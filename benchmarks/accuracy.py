"""Reproduce the accuracy tables: four masks of every real scene against what is known of it, hard cases first.

    python benchmarks/accuracy.py [--data DIR ... | --simulated N] [--markdown FILE] [--json FILE] [--pictures DIR]
                                   [--provider NAME]

Scenes with boxes drawn by eye, ``eye-labels/ITEM.json`` in a folder above them, show how much of each kind of box is
found. Scenes with another ``reference*`` asset are scored, the others show how much of them is flagged. Others are
scored by the same code: put them into a catalog, with an asset ``reference-shadow`` or ``reference-cloud``.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import pystac
from numpy.typing import NDArray
from PIL import Image

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.metrics import agreement, colored, outcomes
from stac_cloudmask.errors import StacCloudmaskWarning
from stac_cloudmask.pipeline.mask import Mask, make_mask
from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.warp import read_labels

Codes = NDArray[np.uint8]
Box = tuple[int, int, int, int, str, str]

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SEED = {"cloud_thr": 0.3, "shadow_thr": 0.2, "buffer": 50.0}
"""FarmVibes.AI's thresholds, and its dilation of 5 pixels of 10 m in meters."""
MEANING = {
    "clear": CloudClass.CLEAR, "cloud": CloudClass.CLOUD, "thin": CloudClass.CLOUD, "shadow": CloudClass.CLOUD_SHADOW,
}  # fmt: skip
"""The class that each label of a box stands for."""
CLASS_NAMES = {int(CloudClass.CLOUD): "cloud", int(CloudClass.CLOUD_SHADOW): "shadow"}


def main() -> None:
    """Score all scenes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[DATA / "hard", DATA], help="folders with a catalog.json"
    )
    parser.add_argument("--simulated", type=int, metavar="N", help="score N simulated scenes instead")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    parser.add_argument("--json", type=Path, help="write all scores here")
    parser.add_argument("--pictures", type=Path, help="write agreement maps here")
    parser.add_argument("--provider", default="cpu", help="runtime of the model, as `process --provider`")
    given = parser.parse_args()
    warnings.simplefilter("ignore", StacCloudmaskWarning)
    with TemporaryDirectory() as folder:
        folders = [simulated(Path(folder), given.simulated)] if given.simulated else given.data
        for data in folders:
            if not (data / "catalog.json").is_file():
                parser.error(f"{data} has no catalog.json; --data names the folders with the real scenes")
        rows = [row for data in folders for item in scenes(data) for row in judge(item, given.pictures, given.provider)]
    table = markdown(rows)
    print(table)
    if given.markdown:
        given.markdown.write_text(table + "\n")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def simulated(folder: Path, count: int) -> Path:
    """A catalog of simulated scenes with seeds from 0 on."""
    for seed in range(count):
        write_simulated_item(folder, Recipe(seed=seed, bands=("blue", "green", "red", "nir")))
    return folder


def scenes(data: Path) -> Iterator[pystac.Item]:
    """All items of the catalog in a fixed order, their asset hrefs absolute."""
    items = pystac.Catalog.from_file(str(data / "catalog.json")).get_items(recursive=True)
    for item in sorted(items, key=lambda item: item.id):
        item.make_asset_hrefs_absolute()
        yield item


def write_tables(description: str | None, tables: Callable[[Iterator[pystac.Item]], list[str]]) -> None:
    """What a benchmark on the items of ``--data`` prints, and writes where ``--markdown`` says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with a catalog.json")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    given = parser.parse_args()
    warnings.simplefilter("ignore", StacCloudmaskWarning)
    text = "\n".join(tables(scenes(given.data)))
    print(text)
    if given.markdown:
        given.markdown.write_text(text + "\n")


def judge(item: pystac.Item, pictures: Path | None, provider: str) -> Iterator[dict[str, Any]]:
    """One row for each class that a reference of the item judges, or one that tells how much is flagged."""
    start = perf_counter()
    masks, grid = masks_of(item, provider)
    print(f"{item.id}: {perf_counter() - start:.1f} s", file=sys.stderr)
    keys = [key for key in item.assets if key.startswith("reference") and key != "reference-eye"]
    if boxes := boxes_of(item):
        found = {name: recall(codes, boxes) for name, codes in masks.items()}
        yield {"scene": item.id, "class": "boxes", "masks": found}
    if not keys and not boxes:
        yield {"scene": item.id, "class": "flagged", "masks": {name: flagged(codes) for name, codes in masks.items()}}
    for key in keys:
        reference = parse_reference(key)
        meaning = meaning_of(reference, item.assets[key].to_dict())
        labels = read_labels(item.assets[key].href, grid, meaning)
        judged = judged_classes(meaning)
        counts = {name: agreement(codes, labels, judged=judged, gsd=grid.gsd) for name, codes in masks.items()}
        for code in judged:
            scores = {name: one.scores(code) for name, one in counts.items()}
            found = {
                name: {
                    "f1": one.f1,
                    "producers_accuracy": one.producers_accuracy,
                    "users_accuracy": one.users_accuracy,
                    "flagged": flagged(masks[name])["all"],
                }
                for name, one in scores.items()
            }
            yield {"scene": item.id, "class": CLASS_NAMES[code], "masks": found}
        if pictures is not None:
            draw(pictures, f"{item.id}.{key}", masks, labels, judged)


def boxes_of(item: pystac.Item) -> list[Box]:
    """Boxes that people drew: first row and column, one past the last row and column, label, what it is."""
    places = [folder / "eye-labels" / f"{item.id}.json" for folder in Path(item.get_self_href() or "").parents]
    file = next((place for place in places if place.is_file()), None)
    return [] if file is None else [tuple(box) for box in json.loads(file.read_text())["boxes"]]


def recall(codes: Codes, boxes: list[Box]) -> dict[str, list[int]]:
    """By label: how many pixels of its boxes have its class, and how many with data there are."""
    found = {label: [0, 0] for label in MEANING}
    for top, left, bottom, right, label, _ in boxes:
        box = codes[top:bottom, left:right]
        found[label][0] += int(np.count_nonzero(box == MEANING[label]))
        found[label][1] += int(np.count_nonzero(box != CloudClass.NODATA))
    return found


def masks_of(item: pystac.Item, provider: str) -> tuple[dict[str, Codes], Any]:
    """The class maps that are compared, by name, and their grid; SCL where the item has one."""
    has_scl = any(key.lower() == "scl" for key in item.assets)
    common = {"missing_scl": "fail" if has_scl else "model-only", "provider": provider}
    union = make_mask(item, settings=Settings(merge="union", **SEED, **common))
    calibrated = make_mask(item, settings=Settings(merge="calibrated", **common))
    product = {"SCL": from_scl(union)} if has_scl else {}
    models = {"ukis argmax": most_likely(union), "union": union.decision.class_map}
    return product | models | {"calibrated": calibrated.decision.class_map}, union.grid


def from_scl(mask: Mask) -> Codes:
    """The product's own mask as a class map."""
    product = mask.evidence.product
    codes = product.classes(0, mask.grid.height)
    out = np.zeros(codes.shape, np.uint8)
    out[np.isin(codes, product.cloud_codes)] = CloudClass.CLOUD
    out[np.isin(codes, product.shadow_codes)] = CloudClass.CLOUD_SHADOW
    return without(out, mask)


def most_likely(mask: Mask) -> Codes:
    """The class of the highest probability, from whole percents."""
    cloud, shadow = (percents.astype(np.int16) for percents in (mask.evidence.cloud, mask.evidence.shadow))
    best = np.argmax([100 - cloud - shadow, cloud, shadow], axis=0).astype(np.uint8)
    return without(best, mask)


def without(class_map: Codes, mask: Mask) -> Codes:
    """The class map with nodata where the finished masks have it, so that all are judged on the same pixels."""
    class_map[mask.decision.class_map == CloudClass.NODATA] = CloudClass.NODATA
    return class_map


def flagged(class_map: Codes) -> dict[str, float]:
    """Percent of the valid pixels that are cloud, shadow, and either."""
    valid = max(np.count_nonzero(class_map != CloudClass.NODATA), 1)
    shares = {name: 100 * np.count_nonzero(class_map == code) / valid for code, name in CLASS_NAMES.items()}
    return shares | {"all": sum(shares.values())}


def draw(folder: Path, name: str, masks: Mapping[str, Codes], labels: Codes, judged: tuple[int, ...]) -> None:
    """Agreement maps of all masks side by side."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = [colored(outcomes(codes, labels, judged=judged)) for codes in masks.values()]
    Image.fromarray(np.concatenate(maps, axis=1)).save(folder / f"{name}.png", optimize=True)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables: recall in boxes; F1 with producer's and user's accuracy, and its means; percent flagged."""
    names = list(dict.fromkeys(name for row in rows for name in row["masks"]))
    names.sort(key=["SCL", "ukis argmax", "union", "calibrated"].index)
    head = [f"| scene | class | {' | '.join(names)} |", f"| --- | --- |{' --- |' * len(names)}"]
    boxed = [row for row in rows if row["class"] == "boxes"]
    lines = [*box_lines(boxed, names), "", *head] if boxed else head
    scored = [row for row in rows if row["class"] not in {"flagged", "boxes"}]
    for row in scored:
        cells = [score_cell(row["masks"].get(name)) for name in names]
        lines.append(f"| {row['scene']} | {row['class']} F1 (PA / UA) | {' | '.join(cells)} |")
    for kind in dict.fromkeys(row["class"] for row in scored):
        means = [mean_cell([row["masks"].get(name) for row in scored if row["class"] == kind]) for name in names]
        lines.append(f"| **mean** | {kind} F1 | {' | '.join(means)} |")
    for row in rows:
        if row["class"] == "flagged":
            cells = [flag_cell(row["masks"].get(name)) for name in names]
            lines.append(f"| {row['scene']} | % cloud / shadow | {' | '.join(cells)} |")
    return "\n".join(lines)


def box_lines(rows: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Share of the pixels of all boxes of a label that have its class, by scene and over all."""
    pooled = {
        name: {
            label: np.sum([row["masks"][name][label] for row in rows if name in row["masks"]], axis=0)
            for label in MEANING
        }
        for name in names
    }
    lines = [f"| {'/'.join(MEANING)} | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for scene, masks in [*((row["scene"], row["masks"]) for row in rows), ("**all boxes**", pooled)]:
        cells = [box_cell(masks.get(name)) for name in names]
        lines.append(f"| {scene} | {' | '.join(cells)} |")
    return lines


def box_cell(found: Mapping[str, Any] | None) -> str:
    """Recall by label; a dash where there are no boxes."""
    if found is None:
        return "-"
    return "/".join(f"{found[label][0] / found[label][1]:.3f}" if found[label][1] else "-" for label in MEANING)


def score_cell(found: Mapping[str, float | None] | None) -> str:
    """F1, with producer's and user's accuracy in brackets."""
    if found is None or found["f1"] is None:
        return "-"
    rates = (found["producers_accuracy"], found["users_accuracy"])
    return f"{found['f1']:.3f} ({'/'.join('-' if rate is None else f'{rate:.2f}' for rate in rates)})"


def mean_cell(found: list[Mapping[str, float | None] | None]) -> str:
    """Mean F1 of the scenes, where every one has it."""
    values = [one["f1"] for one in found if one is not None and one["f1"] is not None]
    return f"**{sum(values) / len(values):.3f}**" if len(values) == len(found) else "-"


def flag_cell(found: Mapping[str, float] | None) -> str:
    """Percent of cloud and of shadow."""
    return "-" if found is None else f"{found['cloud']:.2f}/{found['shadow']:.2f}"


if __name__ == "__main__":
    main()
