"""Score masks against reference labels."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.metrics import OUTCOMES, Agreement, agreement, colored, outcomes
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.review.layers import MASK, MaskLayers
from stac_cloudmask.stac.catalog import existing_catalog
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.item import SUFFIX
from stac_cloudmask.stac.labels import FIELD, Meaning, is_vector, plain_word, raster_labels, vector_labels
from stac_cloudmask.stac.metadata import mask_grid
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.warp import Views

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.core.metrics import Agreement

    Codes = NDArray[np.uint8]
    Json = Mapping[str, Any]

CLASS_WORDS: Final[Mapping[str, int]] = MappingProxyType(
    {info.name: int(info.code) for info in CLASSES}
    | dict.fromkeys(("thick_cloud", "thin_cloud", "cirrus", "cloud_medium_probability", "cloud_high_probability"), 1)
    | dict.fromkeys(("shadow", "cloud_shadows"), 2)
    | dict.fromkeys(("no_data", "unlabeled", "unlabelled", "ignore", "outside"), 255)
)
"""Code by the class's name, as others spell it; any other name (water, snow, land, ...) is clear."""
OWN_CODES: Final[Mapping[str, int]] = MappingProxyType({str(int(info.code)): int(info.code) for info in CLASSES})
CONVENTIONS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        "shadow": MappingProxyType({"1": int(CloudClass.CLOUD_SHADOW), "255": int(CloudClass.NODATA)}),
        "cloud": MappingProxyType({"1": int(CloudClass.CLOUD), "255": int(CloudClass.NODATA)}),
    }
)
"""By the end of the asset key, as in ``reference-shadow``: 1 is that class, 255 has no label."""
SCL_VALUES: Final[Mapping[str, int]] = MappingProxyType(
    {"0": int(CloudClass.NODATA)}
    | {str(code): int(CloudClass.CLOUD) for code in Settings.scl_cloud}
    | {str(code): int(CloudClass.CLOUD_SHADOW) for code in Settings.scl_shadow}
)
"""What the product's own mask means, as a run takes it by default; all else is clear."""


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Labels to judge by.

    Attributes:
        source: Key of an asset of the items, or path of a raster, GeoJSON or GeoPackage file for all of them.
        values: Class code by the label's value, as the user says; empty where the source itself tells.
        field: Property of a vector's features that holds the class.
    """

    source: str
    values: Mapping[str, int]
    field: str = FIELD

    @property
    def is_file(self) -> bool:
        """Whether the source is a file rather than an asset."""
        return is_vector(self.source) or self.source.lower().endswith((".tif", ".tiff")) or Path(self.source).exists()


def parse_reference(text: str) -> LabelSource:
    """A reference from ``SOURCE`` or ``SOURCE::VALUE=CLASS,...``; ``field=NAME`` names a vector's property.

    Raises:
        ConfigError: It is none.
    """
    source, _, meanings = text.partition("::")
    pairs = [pair.partition("=") for pair in meanings.split(",") if pair]
    if not source or not all(value and sign and name for value, sign, name in pairs):
        raise ConfigError(
            f"{text!r} is not a reference; write SOURCE or SOURCE::VALUE=CLASS,..., as labels.tif::1=cloud"
        )
    said = {value.strip().lower(): name.strip() for value, _, name in pairs}
    field = said.pop("field", FIELD)
    if unknown := [name for name in said.values() if name.lower() not in CLASS_WORDS]:
        raise ConfigError(f"{text!r}: no class {unknown[0]!r}; there are {', '.join(info.name for info in CLASSES)}")
    return LabelSource(
        source=source, values={value: CLASS_WORDS[name.lower()] for value, name in said.items()}, field=field
    )


def meaning_of(reference: LabelSource, asset: Mapping[str, Any]) -> Meaning:
    """What its values mean: by the user, else by the class table of the asset, else by its key, else as our own codes.

    Args:
        reference: As the user named it.
        asset: The JSON of the asset; empty for a file.
    """
    if reference.values:
        return Meaning(values=reference.values, otherwise=int(CloudClass.CLEAR))
    classes = asset.get("classification:classes")
    if isinstance(classes, list) and classes:
        entries = [entry for entry in classes if isinstance(entry, dict)]
        named = {str(entry.get("value")): plain_word(str(entry.get("name"))) for entry in entries}
        return Meaning(values={value: CLASS_WORDS.get(name, int(CloudClass.CLEAR)) for value, name in named.items()})
    if is_vector(reference.source):
        return Meaning(values={**CLASS_WORDS, **OWN_CODES})
    endings = (
        values for ending, values in CONVENTIONS.items() if reference.source.endswith(("-" + ending, "_" + ending))
    )
    convention = next(endings, None)
    return (
        Meaning(values=OWN_CODES) if convention is None else Meaning(values=convention, otherwise=int(CloudClass.CLEAR))
    )


def judged_classes(meaning: Meaning) -> tuple[int, ...]:
    """The classes that labels of this meaning tell from the rest."""
    return tuple(sorted(set(meaning.values.values()) - {int(CloudClass.CLEAR), int(CloudClass.NODATA)}))


def read_labels(reference: LabelSource, href: str, grid: Grid, meaning: Meaning) -> NDArray[np.uint8]:
    """The labels on the grid of a mask, ``(y, x)`` class codes; 255 where there is none."""
    if is_vector(href):
        return vector_labels(Path(href), grid, meaning, field=reference.field)
    return raster_labels(href, grid, meaning)


PICTURE_SIDE, LEAST_SIDE = 1000, 480
"""Longest side of an agreement map in pixels; small ones are enlarged by a whole number up to the second."""
MARGIN: Final = 24
"""Pixels of the mask around the labels that an agreement map shows."""
LEGEND_LINE: Final = 20
"""Height of a line of the legend in pixels."""
DIMMED, PAINTED = 0.45, 0.7
"""Brightness of what is not judged, and opacity of what is painted over the scene."""
Z: Final = 1.959964
"""Of the normal distribution, for 95 %."""
NAMES: Final = {int(info.code): info.name for info in CLASSES}
COLUMNS: Final = (
    "scene", "class", "labels", "mask", "PA %", "PA 95 %", "UA %", "UA 95 %", "F1 %", "IoU %", "F1 tol. %",
)  # fmt: skip
"""Pixels of the class in the labels and in the mask, producer's and user's accuracy with their 95 % intervals, F1,
intersection over union, and F1 that forgives the tolerance."""
SHORT: Final = MappingProxyType({int(CloudClass.CLOUD): "cloud", int(CloudClass.CLOUD_SHADOW): "shadow"})


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """How one mask agrees with one reference.

    Attributes:
        item_id: Of the mask's item.
        reference: As the user named it.
        agreement: The counts.
        pair: Mask and labels, for the picture.
    """

    item_id: str
    reference: str
    agreement: Agreement
    pair: Pair


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Scores of masks against references.

    Attributes:
        masks: The catalog that the masks come from.
        mask: Asset key of what was judged.
        tolerance: Meters that the tolerant F1 forgives.
        scenes: One for each pair of mask and reference with labels in common.
        skipped: Why other pairs were left out.
    """

    masks: str
    mask: str
    tolerance: float
    scenes: tuple[SceneScore, ...]
    skipped: tuple[str, ...] = ()

    def overall(self) -> dict[str, Agreement]:
        """The pooled counts of all scenes, by reference."""
        references = dict.fromkeys(scene.reference for scene in self.scenes)
        return {name: reduce(add, self._agreements(name)) for name in references}

    def mean_f1(self, reference: str) -> dict[str, float | None]:
        """Mean F1 over the scenes by class, each scene with the same weight; scenes without the class are left out."""
        agreements = self._agreements(reference)
        means = {}
        for code in agreements[0].codes[1:]:
            found = [f1 for one in agreements if (f1 := one.scores(code).f1) is not None]
            means[NAMES[code]] = sum(found) / len(found) if found else None
        return means

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; accuracies in 0..1, None where there was nothing to judge."""
        return {
            "masks": self.masks,
            "mask": self.mask,
            "tolerance": self.tolerance,
            "scenes": [
                {"item": scene.item_id, "reference": scene.reference, **_plain(scene.agreement)}
                for scene in self.scenes
            ],
            "overall": [
                {
                    "reference": name,
                    "scenes": len(self._agreements(name)),
                    "mean_f1": self.mean_f1(name),
                    **_plain(total),
                }
                for name, total in self.overall().items()
            ],
            "skipped": list(self.skipped),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """The table under `COLUMNS`, in percent: a row per scene, reference and class, then those of all scenes."""
        pooled = self.overall()
        listed = [(scene.item_id.removesuffix(f"_{SUFFIX}"), scene.reference, scene.agreement) for scene in self.scenes]
        if len(self.scenes) > len(pooled):
            listed += [("all scenes", name, total) for name, total in pooled.items()]
        titled = [(scene if len(pooled) == 1 else f"{scene}, {name}", counts) for scene, name, counts in listed]
        return [_row(title, counts, code) for title, counts in titled for code in counts.codes[1:]]

    def write_pictures(self, folder: Path | str) -> list[Path]:
        """Write the agreement map of every scene as PNG into ``folder``, made if need be; the paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for scene in self.scenes:
            source = Path(scene.reference.partition("::")[0]).name
            name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{scene.item_id}.{source}")
            paths.append(target / f"{name}.png")
            _picture(scene.pair).save(paths[-1], optimize=True)
        return paths

    def _agreements(self, reference: str) -> list[Agreement]:
        return [scene.agreement for scene in self.scenes if scene.reference == reference]


def _plain(counts: Agreement) -> dict[str, Any]:
    judged = counts.codes[1:]
    rest = NAMES[counts.codes[0]] if len(judged) == len(SHORT) else "other"
    return {
        "pixels": counts.pixels,
        "overall_accuracy": counts.overall_accuracy,
        "balanced_overall_accuracy": counts.balanced_overall_accuracy,
        "confusion": {"classes": [rest, *(NAMES[code] for code in judged)], "reference_by_mask": counts.counts},
        "classes": {NAMES[code]: asdict(counts.scores(code)) | _intervals(counts, code) for code in judged},
    }


def _row(title: str, counts: Agreement, code: int) -> tuple[str, ...]:
    found, bounds = counts.scores(code), _intervals(counts, code)
    values = (found.producers_accuracy, found.users_accuracy, found.f1, found.iou, found.tolerant_f1)
    producers, users, *others = ("" if value is None else f"{100 * value:.1f}" for value in values)
    within = ["" if two is None else f"{100 * two[0]:.1f}-{100 * two[1]:.1f}" for two in list(bounds.values())[2:]]
    pixels = (f"{bounds['reference_pixels']}", f"{bounds['mask_pixels']}")
    return title, SHORT[code], *pixels, producers, within[0], users, within[1], *others


def _intervals(counts: Agreement, code: int) -> dict[str, Any]:
    """How many pixels of a class were judged, and the 95 % intervals of both accuracies.

    They are those of pixels that are independent of each other; neighbors are not, so the truth is wider.
    """
    at = counts.codes.index(code)
    wanted, flagged = sum(counts.counts[at]), sum(row[at] for row in counts.counts)
    both = counts.counts[at][at]
    return {
        "reference_pixels": wanted,
        "mask_pixels": flagged,
        "producers_accuracy_95": wilson(both, wanted),
        "users_accuracy_95": wilson(both, flagged),
    }


def wilson(found: int, of: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a share, after Wilson; None of nothing."""
    if not of:
        return None
    share, spread = found / of, Z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def _picture(pair: Pair) -> Image.Image:
    """Scene and agreement map side by side, as far as there are labels, with a legend below."""
    mask, labels = pair.read()
    rows, cols = (_around(np.flatnonzero((labels != CloudClass.NODATA).any(axis))) for axis in (1, 0))
    part = pair.grid.cut(Window(rows.start, cols.start, *mask[rows, cols].shape))
    step = max(1, -(-max(part.shape) // PICTURE_SIDE))
    found = outcomes(mask[rows, cols][::step, ::step], labels[rows, cols][::step, ::step], judged=pair.judged)
    rgb = pair.layers.picture(part.coarsen(step))
    scene = np.full((*found.shape, 3), 128, np.float32) if rgb is None else rgb.astype(np.float32)
    shown = scene.copy()
    shown[found == 0] *= DIMMED
    wrong = found > 1
    shown[wrong] = (1 - PAINTED) * scene[wrong] + PAINTED * colored(found)[wrong]
    both = np.concatenate((scene, shown), axis=1).round().astype(np.uint8)
    times = max(1, LEAST_SIDE // max(found.shape))
    return _with_legend(Image.fromarray(both.repeat(times, 0).repeat(times, 1)))


def _around(places: NDArray[np.intp]) -> slice:
    return slice(max(int(places[0]) - MARGIN, 0), int(places[-1]) + 1 + MARGIN)


def _with_legend(found: Image.Image) -> Image.Image:
    lines = ["left: the scene; right: the mask against the labels", *(outcome.name for outcome in OUTCOMES[2:])]
    lines.append("dark: not judged; bright: clear in both")
    picture = Image.new("RGB", (max(found.width, 340), found.height + LEGEND_LINE * len(lines) + 8), (245, 245, 245))
    picture.paste(found)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for line, text in enumerate(lines):
        top = found.height + 4 + line * LEGEND_LINE
        if 0 < line < len(lines) - 1:
            draw.rectangle((6, top + 3, 24, top + LEGEND_LINE - 4), fill=OUTCOMES[line + 1].rgb, outline=(90, 90, 90))
        draw.text((32 if 0 < line < len(lines) - 1 else 6, top + 1), text, fill=(20, 20, 20), font=font)
    return picture


TOLERANCE: Final = 20.0
"""Meters: one pixel of the SCL."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A mask and the labels to judge it by, on the mask's grid; rasters are read when asked for.

    Attributes:
        grid: Of the comparison.
        mask_href: Of the raster that is judged.
        mask_meaning: Of its values.
        reference: As the user named it.
        href: Of the labels.
        meaning: Of their values.
        layers: Reads the scene below.
    """

    grid: Grid
    mask_href: str
    mask_meaning: Meaning
    reference: LabelSource
    href: str
    meaning: Meaning
    layers: MaskLayers

    @property
    def judged(self) -> tuple[int, ...]:
        """Class codes that the labels tell from the rest."""
        return judged_classes(self.meaning)

    def read(self) -> tuple[Codes, Codes]:
        """Class maps of the mask and of the labels, ``(y, x)``."""
        mask = raster_labels(self.mask_href, self.grid, self.mask_meaning)
        return mask, read_labels(self.reference, self.href, self.grid, self.meaning)

    def compare(self, tolerance: float) -> Agreement:
        """Their agreement; ``tolerance`` in meters."""
        mask, labels = self.read()
        return agreement(mask, labels, judged=self.judged, gsd=self.grid.gsd, tolerance=tolerance)


def evaluate(
    masks: str | Path, *, references: Sequence[str], tolerance: float = TOLERANCE, mask: str = MASK
) -> EvaluationReport:
    """Judge masks by references, on the grid of each mask.

    Args:
        masks: An output catalog of this package.
        references: Asset keys of its items, or label files (GeoTIFF, GeoJSON, GeoPackage) that hold for all of them,
            each with ``::VALUE=CLASS,...`` where the labels do not tell themselves what they mean.
        tolerance: Meters by which a boundary may be off for the tolerant F1.
        mask: Asset key of what is judged: ``cloud_mask``, or ``scl`` to see what the product's own mask scores.

    Raises:
        ConfigError: There is nothing to judge, or labels have no meaning.
        ReadError: A mask or labels cannot be read.
    """
    parsed = {text: parse_reference(text) for text in references}
    scenes: list[SceneScore] = []
    skipped: list[str] = []
    for item in existing_catalog(masks).items():
        for text, reference in parsed.items():
            missing = [key for key in _needed(reference, mask) if key not in item["assets"]]
            if missing:
                skipped.append(f"{item['id']}: no asset {missing[0]!r}")
                continue
            pair = _pair(item, reference, mask)
            counts = pair.compare(tolerance)
            if counts.pixels:
                scenes.append(SceneScore(item_id=item["id"], reference=text, agreement=counts, pair=pair))
            else:
                skipped.append(f"{item['id']}: no label of {text!r} lies in it")
    if not scenes:
        what = "; ".join(skipped[:5]) or f"{'the catalog lists no mask' if references else 'no reference was given'}"
        raise ConfigError(f"{masks}: there is nothing to judge: {what}")
    return EvaluationReport(
        masks=str(masks), mask=mask, tolerance=tolerance, scenes=tuple(scenes), skipped=tuple(skipped)
    )


def _needed(reference: LabelSource, mask: str) -> list[str]:
    return [MASK, mask] if reference.is_file else [MASK, mask, reference.source]


def _pair(item: Json, reference: LabelSource, mask: str) -> Pair:
    asset = {} if reference.is_file else item["assets"][reference.source]
    return Pair(
        grid=mask_grid(item, MASK),
        mask_href=_href(item, mask),
        mask_meaning=Meaning(values=SCL_VALUES, otherwise=0) if mask == SCL else Meaning(values=OWN_CODES),
        reference=reference,
        href=reference.source if reference.is_file else _href(item, reference.source),
        meaning=meaning_of(reference, asset),
        layers=MaskLayers.of(item, Views()),
    )


def _href(item: Json, key: str) -> str:
    home = next(link["href"] for link in item["links"] if link["rel"] == "self")
    return check_href(item["assets"][key]["href"], base=home)
