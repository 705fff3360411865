"""Masks against references: which pairs there are, and how each agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.core.metrics import Agreement, agreement
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.references import OWN_CODES, SCL_VALUES, judged_classes, meaning_of, parse_reference, read_labels
from stac_cloudmask.scores import EvaluationReport, SceneScore
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, check_href
from stac_cloudmask.stac.labels import Meaning, raster_labels
from stac_cloudmask.stac.metadata import mask_grid
from stac_cloudmask.stac.transport import check_redirects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.references import Reference

    Codes = NDArray[np.uint8]
    Json = Mapping[str, Any]

MASK: Final = "cloud_mask"
SCL: Final = "scl"
TOLERANCE: Final = 20.0
"""Metres: one pixel of the SCL."""


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
    """

    grid: Grid
    mask_href: str
    mask_meaning: Meaning
    reference: Reference
    href: str
    meaning: Meaning

    @property
    def judged(self) -> tuple[int, ...]:
        """Class codes that the labels tell from the rest."""
        return judged_classes(self.meaning)

    def read(self) -> tuple[Codes, Codes]:
        """Class maps of the mask and of the labels, ``(y, x)``."""
        mask = raster_labels(self.mask_href, self.grid, self.mask_meaning)
        return mask, read_labels(self.reference, self.href, self.grid, self.meaning)

    def compare(self, tolerance: float) -> Agreement:
        """Their agreement; ``tolerance`` in metres."""
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
        tolerance: Metres by which a boundary may be off for the tolerant F1.
        mask: Asset key of what is judged: ``cloud_mask``, or ``scl`` to see what the product's own mask scores.

    Raises:
        ConfigError: There is nothing to judge, or labels have no meaning.
        ReadError: A mask or labels cannot be read.
    """
    parsed = {text: parse_reference(text) for text in references}
    scenes: list[SceneScore] = []
    skipped: list[str] = []
    for item in OutputCatalog(masks).items():
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


def _needed(reference: Reference, mask: str) -> list[str]:
    return [MASK, mask] if reference.is_file else [MASK, mask, reference.source]


def _pair(item: Json, reference: Reference, mask: str) -> Pair:
    asset = {} if reference.is_file else item["assets"][reference.source]
    return Pair(
        grid=mask_grid(item, MASK),
        mask_href=_href(item, mask),
        mask_meaning=Meaning(values=SCL_VALUES, otherwise=0) if mask == SCL else Meaning(values=OWN_CODES),
        reference=reference,
        href=reference.source if reference.is_file else _href(item, reference.source),
        meaning=meaning_of(reference, asset),
    )


def _href(item: Json, key: str) -> str:
    home = next(link["href"] for link in item["links"] if link["rel"] == "self")
    href = check_href(item["assets"][key]["href"], base=home)
    check_redirects(href, base=home, rule=DEFAULT_RULE)
    return href
