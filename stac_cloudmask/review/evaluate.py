"""Score masks against reference labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.metrics import OUTCOMES, Agreement, ClassScores, agreement, colored, outcomes
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.review.layers import CLASS_NAMES, MASK, U8, MaskLayers, Product
from stac_cloudmask.stac.catalog import existing_catalog
from stac_cloudmask.stac.mask_item import SUFFIX
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.warp import FIELD, Meaning, Views, is_vector, plain_word, read_labels

CLASS_WORDS: Final[dict[str, int]] = {
    **{info.name: info.code for info in CLASSES},
    **dict.fromkeys(("thick_cloud", "thin_cloud", "cirrus"), CloudClass.CLOUD),
    **dict.fromkeys(("cloud_medium_probability", "cloud_high_probability"), CloudClass.CLOUD),
    **dict.fromkeys(("shadow", "cloud_shadows"), CloudClass.CLOUD_SHADOW),
    **dict.fromkeys(("no_data", "unlabeled", "unlabelled", "ignore", "outside"), CloudClass.NODATA),
}
"""Code by common spellings of the class's name; any other name (water, snow, land, ...) is clear."""
OWN_CODES: Final = {str(int(info.code)): info.code for info in CLASSES}
SCL_VALUES: Final[dict[str, int]] = {
    "0": CloudClass.NODATA,
    **dict.fromkeys(map(str, Settings.scl_cloud), CloudClass.CLOUD),
    **dict.fromkeys(map(str, Settings.scl_shadow), CloudClass.CLOUD_SHADOW),
}
"""Default meaning of the product's own mask; all other codes are clear."""


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A source of reference labels.

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
        named = is_vector(self.source) or self.source.lower().endswith((".tif", ".tiff")) or "/" in self.source
        return named or Path(self.source).is_file()


def parse_reference(text: str) -> LabelSource:
    """Parse ``SOURCE`` or ``SOURCE::VALUE=CLASS,...``; ``field=NAME`` names a property of a vector's features.

    Raises:
        ConfigError: The text is not a reference.
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
    values = {value: CLASS_WORDS[name.lower()] for value, name in said.items()}
    return LabelSource(source=source, values=values, field=field)


def meaning_of(reference: LabelSource, asset: Mapping[str, Any]) -> Meaning:
    """Return the meaning of its values: by the user, the asset's class table, its key, or else this package's codes.

    Args:
        reference: Reference as named by the user.
        asset: The JSON of the asset; empty for a file.
    """
    if reference.values:
        return Meaning(values=reference.values, otherwise=CloudClass.CLEAR)
    classes = asset.get("classification:classes")
    if isinstance(classes, list) and classes:
        words = {str(entry.get("value")): plain_word(entry.get("name")) for entry in classes if isinstance(entry, dict)}
        return Meaning(values={value: CLASS_WORDS.get(word, CloudClass.CLEAR) for value, word in words.items()})
    if is_vector(reference.source):
        return Meaning(values=CLASS_WORDS | OWN_CODES)
    for ending, code in (("shadow", CloudClass.CLOUD_SHADOW), ("cloud", CloudClass.CLOUD)):
        if reference.source.endswith((f"-{ending}", f"_{ending}")):  # as in reference-shadow, which holds 1 and 0
            return Meaning(values={"1": code, "255": CloudClass.NODATA}, otherwise=CloudClass.CLEAR)
    return Meaning(values=OWN_CODES)


def judged_classes(meaning: Meaning) -> tuple[int, ...]:
    """Return the classes that labels of this meaning distinguish."""
    return tuple(sorted(set(meaning.values.values()) - {CloudClass.CLEAR, CloudClass.NODATA}))


MAP_SIDE, LEAST_MAP_SIDE = 1000, 480
"""Maximum side of an agreement map in pixels; small ones are enlarged by a whole factor up to the second number."""
AROUND: Final = 24
"""Pixels of the mask around the labels that an agreement map shows."""
LEGEND_LINE: Final = 20
"""Height of a line of the legend in pixels."""
GRAY: Final = (128, 128, 128)
"""Background of an agreement map without a picture of the scene."""
DIMMED, PAINTED = 0.45, 0.7
"""Brightness of pixels that are not judged, and opacity of outcomes over the scene."""
COLUMNS: Final = (
    "scene", "class", "labels", "mask", "PA %", "PA 95 %", "UA %", "UA 95 %", "F1 %", "IoU %", "F1 tol. %",
)  # fmt: skip
"""Pixels of the class in the labels and in the mask, producer's and user's accuracy with their 95 % intervals, F1,
intersection over union, and F1 within the tolerance."""
SHORT: Final = {int(CloudClass.CLOUD): "cloud", int(CloudClass.CLOUD_SHADOW): "shadow"}


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """The agreement of one mask with one reference.

    Attributes:
        item_id: Id of the mask's item.
        reference: Reference as named by the user.
        agreement: The counts.
        layers: The assets of the mask's item.
        read: Reads the class maps of the mask and of the labels again, ``(y, x)`` on the mask's grid.
    """

    item_id: str
    reference: str
    agreement: Agreement
    layers: MaskLayers
    read: Callable[[], tuple[U8, U8]]


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Scores of masks against references.

    Attributes:
        masks: The catalog that the masks come from.
        mask: Asset key of the judged class map.
        tolerance: Tolerance in meters of the tolerant F1.
        scenes: One for each pair of mask and reference with labels in common.
        skipped: Reasons why other pairs were left out.
    """

    masks: str
    mask: str
    tolerance: float
    scenes: tuple[SceneScore, ...]
    skipped: tuple[str, ...] = ()

    def overall(self) -> dict[str, Agreement]:
        """Return the pooled counts of all scenes, by reference."""
        references = dict.fromkeys(scene.reference for scene in self.scenes)
        return {name: reduce(add, self._agreements(name)) for name in references}

    def mean_f1(self, reference: str) -> dict[str, float | None]:
        """Return the mean F1 of all scenes by class, each with the same weight; scenes without the class do not count.

        Args:
            reference: Reference as named by the user.
        """
        agreements = self._agreements(reference)
        means = {}
        for code in agreements[0].codes[1:]:
            found = [f1 for one in agreements if (f1 := one.scores(code).f1) is not None]
            means[CLASS_NAMES[code]] = sum(found) / len(found) if found else None
        return means

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; accuracies in 0..1, None where undefined."""
        scenes = [{"item": one.item_id, "reference": one.reference, **_plain(one.agreement)} for one in self.scenes]
        overall = [
            {"reference": name, "scenes": len(self._agreements(name)), "mean_f1": self.mean_f1(name), **_plain(total)}
            for name, total in self.overall().items()
        ]
        about = {"masks": self.masks, "mask": self.mask, "tolerance": self.tolerance}
        return {**about, "scenes": scenes, "overall": overall, "skipped": list(self.skipped)}

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table's rows, see `COLUMNS`, in percent: by scene, reference and class, then over all scenes."""
        pooled = self.overall()
        listed = [(scene.item_id.removesuffix(f"_{SUFFIX}"), scene.reference, scene.agreement) for scene in self.scenes]
        if len(self.scenes) > len(pooled):
            listed += [("all scenes", name, total) for name, total in pooled.items()]
        titled = [(scene if len(pooled) == 1 else f"{scene}, {name}", counts) for scene, name, counts in listed]
        return [_row(title, code, counts.scores(code)) for title, counts in titled for code in counts.codes[1:]]

    def write_pictures(self, folder: Path | str) -> list[Path]:
        """Write the agreement map of every scene as PNG to ``folder``, created if needed, and return the paths."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for scene in self.scenes:
            source, *meaning = scene.reference.partition("::")
            name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{scene.item_id}.{Path(source).name}{''.join(meaning)}")
            paths.append(target / f"{name}.png")
            _picture(scene).save(paths[-1], optimize=True)
        return paths

    def _agreements(self, reference: str) -> list[Agreement]:
        return [scene.agreement for scene in self.scenes if scene.reference == reference]


def _plain(counts: Agreement) -> dict[str, Any]:
    judged = counts.codes[1:]
    rest = CLASS_NAMES[counts.codes[0]] if len(judged) == len(SHORT) else "other"
    return {
        "pixels": counts.pixels,
        "overall_accuracy": counts.overall_accuracy,
        "balanced_overall_accuracy": counts.balanced_overall_accuracy,
        "confusion": {"classes": [rest, *(CLASS_NAMES[code] for code in judged)], "reference_by_mask": counts.counts},
        "classes": {CLASS_NAMES[code]: asdict(counts.scores(code)) for code in judged},
    }


def _row(title: str, code: int, scores: ClassScores) -> tuple[str, ...]:
    cells = [title, SHORT[code], str(scores.reference_pixels), str(scores.mask_pixels)]
    producers, users = scores.producers_accuracy, scores.users_accuracy
    for accuracy, within in (producers, scores.producers_accuracy_95), (users, scores.users_accuracy_95):
        cells += [_percent(accuracy), "-".join(map(_percent, within or ()))]
    return *cells, *map(_percent, (scores.f1, scores.iou, scores.tolerant_f1))


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _picture(score: SceneScore) -> Image.Image:
    """Draw scene and agreement map side by side, around the labels, with a legend below."""
    mask, labels = score.read()
    rows, cols = (_around(np.flatnonzero((labels != CloudClass.NODATA).any(axis))) for axis in (1, 0))
    part = score.layers.grid.cut(Window(rows.start, cols.start, *mask[rows, cols].shape))
    step = max(1, -(-max(part.shape) // MAP_SIDE))
    judged = score.agreement.codes[1:]
    found = outcomes(mask[rows, cols][::step, ::step], labels[rows, cols][::step, ::step], judged=judged)
    rgb = score.layers.picture(part.coarsen(step))
    scene = np.broadcast_to(GRAY if rgb is None else rgb, (*found.shape, 3)).astype(np.float32)
    shown = scene.copy()
    shown[found == 0] *= DIMMED
    wrong = found > 1
    shown[wrong] = (1 - PAINTED) * scene[wrong] + PAINTED * colored(found)[wrong]
    both = np.concatenate((scene, shown), axis=1).round().astype(np.uint8)
    times = max(1, LEAST_MAP_SIDE // max(found.shape))
    return _with_legend(Image.fromarray(both.repeat(times, 0).repeat(times, 1)))


def _around(places: NDArray[np.intp]) -> slice:
    return slice(max(int(places[0]) - AROUND, 0), int(places[-1]) + 1 + AROUND)


def _with_legend(found: Image.Image) -> Image.Image:
    lines: list[tuple[str, tuple[int, int, int] | None]] = [
        ("left: the scene; right: the mask against the labels", None),
        *list(OUTCOMES.items())[2:],
        ("dark: not judged; bright: clear in both", None),
    ]
    picture = Image.new("RGB", (max(found.width, 340), found.height + LEGEND_LINE * len(lines) + 8), (245, 245, 245))
    picture.paste(found)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for line, (text, rgb) in enumerate(lines):
        top = found.height + 4 + line * LEGEND_LINE
        if rgb is not None:
            draw.rectangle((6, top + 3, 24, top + LEGEND_LINE - 4), fill=rgb, outline=(90, 90, 90))
        draw.text((6 if rgb is None else 32, top + 1), text, fill=(20, 20, 20), font=font)
    return picture


TOLERANCE: Final = 20.0
"""Default tolerance in meters: one pixel of the SCL."""
LARGEST_TOLERANCE: Final = 1000.0
"""Largest tolerance in meters: each pixel of it costs time, and at such a distance everything agrees."""


def evaluate(
    masks: str | Path, *, references: Sequence[str], tolerance: float = TOLERANCE, mask: str = MASK
) -> EvaluationReport:
    """Score masks against labels, on the grid of each mask.

    Args:
        masks: An output catalog of this package.
        references: Asset keys of its items, or label files (GeoTIFF, GeoJSON, GeoPackage) that hold for all of them,
            each with ``::VALUE=CLASS,...`` if the labels do not state their meaning.
        tolerance: Meters by which a boundary may be off for the tolerant F1.
        mask: Asset key of what is judged: ``cloud_mask``, or ``scl`` to see what the product's own mask scores.

    Raises:
        ConfigError: There is nothing to judge, or the meaning of labels is unknown.
        ReadError: A mask or labels cannot be read.
    """
    if not 0 <= tolerance <= LARGEST_TOLERANCE:
        raise ConfigError(f"tolerance is 0 to {LARGEST_TOLERANCE:g} m, got {tolerance:g}")
    parsed = {text: parse_reference(text) for text in references}
    values = Meaning(values=SCL_VALUES, otherwise=CloudClass.CLEAR) if mask == SCL else Meaning(values=OWN_CODES)
    scenes: list[SceneScore] = []
    skipped: list[str] = []
    for item in existing_catalog(masks).items():
        key = Product.of(item["properties"]).key or mask if mask == SCL else mask
        for text, reference in parsed.items():
            needed = [MASK, key, *([] if reference.is_file else [reference.source])]
            missing = [key for key in needed if key not in item["assets"]]
            if missing:
                skipped.append(f"{item['id']}: no asset {missing[0]!r}")
                continue
            meaning = meaning_of(reference, {} if reference.is_file else item["assets"][reference.source])
            layers = MaskLayers.of(item, Views())
            read = partial(_read, layers, key, values, reference, meaning)
            gsd = layers.grid.gsd
            counts = agreement(*read(), judged=judged_classes(meaning), gsd=gsd, tolerance=tolerance)
            if counts.pixels:
                score = SceneScore(item_id=item["id"], reference=text, agreement=counts, layers=layers, read=read)
                scenes.append(score)
            else:
                skipped.append(f"{item['id']}: it contains no label of {text!r}")
    if not scenes:
        what = "; ".join(skipped[:5]) or ("the catalog lists no mask" if references else "no reference was given")
        raise ConfigError(f"{masks}: there is nothing to judge: {what}")
    return EvaluationReport(
        masks=str(masks), mask=mask, tolerance=tolerance, scenes=tuple(scenes), skipped=tuple(skipped)
    )


def _read(layers: MaskLayers, key: str, values: Meaning, reference: LabelSource, meaning: Meaning) -> tuple[U8, U8]:
    """Read the class maps of a mask and of its labels, ``(y, x)``."""
    mask = read_labels(layers.href(key), layers.grid, values)
    href = reference.source if reference.is_file else layers.href(reference.source)
    return mask, read_labels(href, layers.grid, meaning, field=reference.field)
