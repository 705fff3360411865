"""The report of an evaluation: scores per scene and overall, as values, table rows and pictures."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from PIL import Image, ImageDraw

from stac_cloudmask.core.agreement_map import OUTCOMES, colored, outcomes
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.stac.items import SUFFIX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stac_cloudmask.core.metrics import Agreement

PICTURE_SIDE: Final = 1000
"""A picture is made smaller by a whole number, while it stays longer than this many pixels, without its legend."""
LEGEND_LINE: Final = 16
"""Height of a line of the legend in pixels."""
NAMES: Final = {int(info.code): info.name for info in CLASSES}
COLUMNS: Final = ("scene", "class", "PA %", "UA %", "F1 %", "IoU %", "BA %", "F1 tol. %")
"""Producer's and user's accuracy, F1, intersection over union, balanced accuracy, F1 that forgives the tolerance."""
SHORT: Final = MappingProxyType({int(CloudClass.CLOUD): "cloud", int(CloudClass.CLOUD_SHADOW): "shadow"})


class Rasters(Protocol):
    """A mask and its labels."""

    @property
    def judged(self) -> tuple[int, ...]:
        """Class codes that the labels tell from the rest."""

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Class maps of both, ``(y, x)``."""


@dataclass(frozen=True, kw_only=True)
class SceneScore:
    """How one mask agrees with one reference.

    Attributes:
        item_id: Of the mask's item.
        reference: As the user named it.
        agreement: The counts.
        pair: The rasters, for the picture.
    """

    item_id: str
    reference: str
    agreement: Agreement
    pair: Rasters


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """Scores of masks against references.

    Attributes:
        masks: The catalog that the masks come from.
        mask: Asset key of what was judged.
        tolerance: Metres that the tolerant F1 forgives.
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
        "classes": {NAMES[code]: asdict(counts.scores(code)) for code in judged},
    }


def _row(title: str, counts: Agreement, code: int) -> tuple[str, ...]:
    found = counts.scores(code)
    values = (
        found.producers_accuracy, found.users_accuracy, found.f1, found.iou, found.balanced_accuracy, found.tolerant_f1,
    )  # fmt: skip
    percents = ("" if value is None else f"{100 * value:.1f}" for value in values)
    return title, SHORT[code], *percents


def _picture(pair: Rasters) -> Image.Image:
    """The agreement map, made smaller if it is large, with its legend below."""
    mask, labels = pair.read()
    step = max(1, max(mask.shape) // PICTURE_SIDE)
    found = Image.fromarray(colored(outcomes(mask[::step, ::step], labels[::step, ::step], judged=pair.judged)))
    width = max(found.width, 200)
    picture = Image.new("RGB", (width, found.height + LEGEND_LINE * len(OUTCOMES)), OUTCOMES[0].rgb)
    picture.paste(found)
    draw = ImageDraw.Draw(picture)
    for line, outcome in enumerate(OUTCOMES):
        top = found.height + line * LEGEND_LINE
        draw.rectangle((4, top + 3, 22, top + LEGEND_LINE - 3), fill=outcome.rgb, outline=(90, 90, 90))
        draw.text((28, top + 2), outcome.name, fill=(20, 20, 20))
    return picture
