"""How much the accuracy depends on each constant of the `calibrated` policy, and on what a scene lacks.

    python benchmarks/sensitivity.py [--data ../shared/data] [--markdown FILE]

The models run once for each scene; the merge is then repeated with one constant changed at a time, with random settings
of the most telling ones (leave one date out), with a wrong sun, and without the product mask, the sun or near infrared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from accuracy import write_tables
from numpy.typing import NDArray

from stac_cloudmask.config import Settings
from stac_cloudmask.core.calibrated import calibrated
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import Cleanup, Thresholds, merge
from stac_cloudmask.core.policy import POLICIES, RULES
from stac_cloudmask.core.reflectance import block_mean
from stac_cloudmask.core.votes import Evidence
from stac_cloudmask.pipeline.mask import make_mask

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.core.calibrated import Rules

POLICY = POLICIES["calibrated"]
FACTORS = (0.5, 0.75, 1.25, 1.5)
HIGHEST = {"seed": 98, "deep": 98, "dim": 0.98, "overlap": 0.98, "shadow": 98}
"""Shares and percents stay below 1 and 100."""
CHOICES: dict[str, tuple[float, ...]] = {
    "shadow": (50, 60, 70, 80), "halfway": (0.4, 0.5, 0.6), "background": (500.0, 1000.0, 1500.0),
    "slack": (60.0, 100.0, 150.0), "overlap": (0.5, 0.75, 0.95), "nearly": (0.02, 0.05, 0.1),
    "window": (750.0, 1000.0, 2000.0),
}  # fmt: skip
"""What the leave-one-date-out search draws from."""
DRAWS = 50


@dataclass(frozen=True)
class Scene:
    """A scene after its models ran: evidence, near infrared at full resolution, and labels where there are any."""

    name: str
    evidence: Evidence
    nir: NDArray[np.uint16]
    labels: NDArray[np.uint8] | None
    code: CloudClass


@dataclass(frozen=True)
class Scores:
    """Shadow F1 by date, cloud F1 by chip, and percent of the city that is flagged."""

    dates: tuple[float, ...]
    chips: tuple[float, ...]
    city: float

    def __str__(self) -> str:
        """Mean shadow F1, worst date, mean cloud F1; and the city where it is not clear."""
        flagged = f" ({self.city:.2f} %)" if self.city >= 0.005 else ""
        return f"{np.mean(self.dates):.3f} {min(self.dates):.3f} {np.mean(self.chips):.3f}{flagged}"


Change = Callable[[Evidence], Evidence]


def tables(items: Iterator[pystac.Item]) -> list[str]:
    """All tables, for the items that have labels."""
    known = [scene for item in items if (scene := ask(item)) is not None]
    return [*constants(known), "", *missing(known), "", *suns(known), "", *left_out(known)]


def ask(item: pystac.Item) -> Scene | None:
    """Run the models on a scene that has labels, or is the clear city."""
    key = next((key for key in item.assets if key.startswith("reference-")), None)
    if key is None and not item.id.startswith("bolzano"):
        return None
    has_scl = any(name.lower() == "scl" for name in item.assets)
    mask = make_mask(item, settings=Settings(missing_scl="fail" if has_scl else "model-only"))
    nir = read(item.assets["nir" if "nir" in item.assets else "B08"].href)
    labels = None if key is None else read(item.assets[key].href)
    code = CloudClass.CLOUD_SHADOW if key == "reference-shadow" else CloudClass.CLOUD
    return Scene(item.id, mask.evidence, nir, labels, code)


def read(href: str) -> NDArray[Any]:
    """The first band."""
    with rasterio.open(href) as source:
        return source.read(1)


def score(known: list[Scene], rules: Rules = RULES, change: Change = lambda e: e, **policy: float) -> Scores:
    """All scores with these rules; ``policy`` changes thresholds and buffer."""
    dates, chips, city = [], [], 0.0
    for scene in known:
        class_map = masked(change(blocked(scene, rules)), rules, **policy)
        valid = class_map != CloudClass.NODATA
        if scene.labels is None:
            city = 100 * float((class_map[valid] != CloudClass.CLEAR).mean())
            continue
        judged = valid & (scene.labels != 255)
        found, truth = (class_map == scene.code) & judged, (scene.labels == 1) & judged
        f1 = 2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1)
        (dates if scene.code == CloudClass.CLOUD_SHADOW else chips).append(float(f1))
    return Scores(tuple(dates), tuple(chips), city)


def blocked(scene: Scene, rules: Rules) -> Evidence:
    """The evidence with near infrared in the blocks that the rules want; these scenes have no offset."""
    factor = rules.cell_factor(scene.evidence.gsd)
    mean = block_mean(scene.nir, factor)
    nir = np.where(mean > 0, mean * np.float32(1e-4), np.float32(np.nan))
    return replace(scene.evidence, nir=nir, nir_factor=factor)


def masked(
    evidence: Evidence, rules: Rules, *, cloud: float = POLICY.cloud, shadow: float = POLICY.shadow,
    buffer: float = POLICY.cloud_buffer,
) -> NDArray[np.uint8]:  # fmt: skip
    """The class map."""
    thresholds = Thresholds(cloud=round(cloud), shadow=round(shadow))
    found = calibrated(evidence, rules, thresholds)
    clean = Cleanup(
        cloud_buffer=buffer, shadow_buffer=0, min_area=0, hole_area=0, shadow_before_buffer=found.sunlit
    )  # fmt: skip
    return merge(evidence, thresholds=thresholds, select=found.select, clean=clean).class_map


def changed(known: list[Scene], values: dict[str, float]) -> Scores:
    """All scores with some constants changed, wherever they live."""
    policy = {name: values[name] for name in values.keys() & {"cloud", "shadow", "buffer"}}
    reach = {name: values[name] for name in values.keys() & asdict(RULES.reach).keys()}
    rules = {name: values[name] for name in values.keys() - policy.keys() - reach.keys()}
    return score(known, replace(RULES, **rules, reach=replace(RULES.reach, **reach)), **policy)


def constants(known: list[Scene]) -> Iterator[str]:
    """One constant at a time."""
    own: dict[str, float] = {"cloud": POLICY.cloud, "shadow": POLICY.shadow, "buffer": POLICY.cloud_buffer}
    own |= {name: value for name, value in asdict(RULES).items() if name != "reach"} | asdict(RULES.reach)
    yield f"Defaults: {score(known)} (mean shadow F1, worst date, mean cloud F1; % of the clear city flagged)"
    yield ""
    yield f"| constant | value | {' | '.join(f'x {factor:g}' for factor in FACTORS)} |"
    yield "| --- " * (2 + len(FACTORS)) + "|"
    for name, value in own.items():
        cells = []
        for factor in FACTORS:
            other = min(value * factor, HIGHEST.get(name, np.inf))
            other = round(other) if isinstance(value, int) else other
            cells.append(f"{other:g}: {changed(known, {name: other})}")
        yield f"| {name} | {value:g} | {' | '.join(cells)} |"


def missing(known: list[Scene]) -> Iterator[str]:
    """What a scene may lack."""
    yield "| without | mean shadow F1, worst date, mean cloud F1 |"
    yield "| --- | --- |"
    lacks: dict[str, dict[str, None]] = {
        "nothing": {}, "product mask": {"product": None}, "sun": {"sun": None}, "near infrared": {"nir": None},
        "product mask and sun": {"product": None, "sun": None},
        "all three": {"product": None, "sun": None, "nir": None},
    }  # fmt: skip
    for name, lack in lacks.items():
        yield f"| {name} | {score(known, change=lambda e, lack=lack: replace(e, **lack))} |"


def suns(known: list[Scene]) -> Iterator[str]:
    """A sun that stands elsewhere."""
    yield "| sun off by (azimuth, elevation) | mean shadow F1, worst date, mean cloud F1 |"
    yield "| --- | --- |"
    for azimuth, elevation in ((-10, 0), (-5, 0), (5, 0), (10, 0), (0, -3), (0, 3), (90, 0), (180, 0)):

        def turn(evidence: Evidence, by: tuple[float, float] = (azimuth, elevation)) -> Evidence:
            if evidence.sun is None:
                return evidence
            sun = replace(evidence.sun, azimuth=evidence.sun.azimuth + by[0], elevation=evidence.sun.elevation + by[1])
            return replace(evidence, sun=sun)

        yield f"| {azimuth:+d}, {elevation:+d} | {score(known, change=turn)} |"


def left_out(known: list[Scene]) -> Iterator[str]:
    """The best of random settings on all dates but one, on that date."""
    draw = random.Random(1)  # noqa: S311  (no secret)
    dates = [scene for scene in known if scene.code == CloudClass.CLOUD_SHADOW]
    tried = [{name: draw.choice(values) for name, values in CHOICES.items()} for _ in range(DRAWS)]
    found = np.array([changed(dates, values).dates for values in tried])
    own = score(dates).dates
    yield f"{DRAWS} random settings: mean of the dates {found.mean(1).min():.3f} to {found.mean(1).max():.3f}, "
    yield f"no date below {found.min():.3f}."
    yield ""
    yield "| date left out | best setting of the others | defaults | best possible |"
    yield "| --- | --- | --- | --- |"
    for i, scene in enumerate(dates):
        best = np.delete(found, i, axis=1).mean(1).argmax()
        yield f"| {scene.name} | {found[best, i]:.3f} | {own[i]:.3f} | {found[:, i].max():.3f} |"


if __name__ == "__main__":
    write_tables(__doc__, tables)
