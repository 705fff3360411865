"""Change every constant of the default policy, one at a time, and score all labeled scenes anew.

    python -m benchmarks.sensitivity [--data DIR ...] [--markdown FILE]

The models run once for each scene. A score is the recall in boxes (clear, cloud, thin, shadow), the mean shadow F1, the
mean cloud F1, and percent of the clear city that is flagged.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from benchmarks.accuracy import DATA, MEANING, Box, boxes_of, recall, scenes
from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import POLICIES, Policy, merge
from stac_cloudmask.core.merge_calibrated import RULES, Rules, Survey
from stac_cloudmask.errors import StacCloudmaskWarning
from stac_cloudmask.pipeline.mask import mask_pixels, resolve_sources, sun_of
from stac_cloudmask.stac.reader import open_scene

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.core.votes import Evidence

POLICY = POLICIES["calibrated"]
FACTORS = (0.5, 1.5)
SHARES = {"certain": 98, "deep": 98, "dim": 0.98, "overlap": 0.98, "explained": 0.98}
"""Shares and percents stay below 1 and 100."""
FIXED = {"cell", "veil"}
"""Constants that are no number, or set the size of blocks that are read."""
CITY = "bolzano"


@dataclass(frozen=True)
class Scene:
    """A scene after its models ran, and what is known of it."""

    name: str
    evidence: Evidence
    boxes: list[Box]
    labels: NDArray[np.uint8] | None
    code: CloudClass


def prepared(item: pystac.Item) -> Scene | None:
    """Run the models on a scene that has labels, or is the clear city."""
    key = next((key for key in item.assets if key in {"reference-shadow", "reference-cloud"}), None)
    boxes = boxes_of(item)
    if key is None and not boxes and not item.id.startswith(CITY):
        return None
    settings = Settings(missing_scl="fail" if any(name.lower() == "scl" for name in item.assets) else "model-only")
    sources = resolve_sources(item, settings=settings)
    scene = open_scene(sources)
    evidence, _, _ = mask_pixels(
        scene,
        scl=scene.scl(),
        sun=sun_of(sources),
        settings=settings,
    )
    labels = None
    if key is not None:
        with rasterio.open(item.assets[key].href) as file:
            labels = file.read(1)
    return Scene(
        item.id, evidence, boxes, labels, CloudClass.CLOUD_SHADOW if key == "reference-shadow" else CloudClass.CLOUD
    )


def score(known: list[Scene], rules: Rules = RULES, policy: Policy = POLICY) -> str:
    """All scores with these rules."""
    boxes = {label: np.zeros(2) for label in MEANING}
    f1: dict[CloudClass, list[float]] = {CloudClass.CLOUD_SHADOW: [], CloudClass.CLOUD: []}
    city = 0.0
    for scene in known:
        found = Survey(scene.evidence, policy, rules, threads=2)
        codes, _ = merge(scene.evidence, policy, found.select, shadow_before_buffer=found.sun is not None, threads=2)
        for label, counts in recall(codes, scene.boxes).items():
            boxes[label] += counts
        valid = codes != CloudClass.NODATA
        if scene.labels is not None:
            judged = valid & (scene.labels != CloudClass.NODATA)
            flagged, truth = (codes == scene.code) & judged, (scene.labels == 1) & judged
            f1[scene.code].append(2 * (flagged & truth).sum() / max(flagged.sum() + truth.sum(), 1))
        if scene.name.startswith(CITY):
            city = 100 * float((codes[valid] != CloudClass.CLEAR).mean())
    means = [f"{counts[0] / counts[1]:.3f}" if counts[1] else "-" for counts in boxes.values()]
    means += [f"{np.mean(values):.3f}" if values else "-" for values in f1.values()]
    return f"{' / '.join(means[:4])}, {means[4]}, {means[5]}, {city:.2f}"


def variants() -> Iterator[tuple[str, float, Rules, Policy]]:
    """Yield each constant with a new value: its name, the value, the rules, the policy."""
    owners: tuple[tuple[Any, list[str]], ...] = (
        (POLICY, ["cloud_thr", "shadow_thr", "cloud_buffer"]),
        (RULES, [field.name for field in fields(Rules) if field.name not in FIXED]),
    )
    for owner, names in owners:
        for name in names:
            for factor in FACTORS:
                before = getattr(owner, name)
                value = min(before * factor, SHARES.get(name, np.inf))
                value = round(value) if isinstance(before, int) else value
                changed = replace(owner, **{name: value})
                yield name, value, *((RULES, changed) if owner is POLICY else (changed, POLICY))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[DATA / "hard", DATA], help="folders with a catalog.json"
    )
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    given = parser.parse_args()
    warnings.simplefilter("ignore", StacCloudmaskWarning)
    known = [one for folder in given.data for item in scenes(folder) if (one := prepared(item)) is not None]
    lines = [
        "| constant | value | boxes: clear / cloud / thin / shadow, shadow F1, cloud F1, city % |",
        "| --- | --- | --- |",
    ]
    lines.append(f"| as they are | | {score(known)} |")
    print("\n".join(lines))
    for name, value, rules, policy in variants():
        lines.append(f"| {name} | {value:g} | {score(known, rules, policy)} |")
        print(lines[-1], flush=True)
    if given.markdown:
        given.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
