"""The whole way on a scene whose truth is known: simulate, mask, publish, score, look."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.review.evaluate import evaluate
from stac_cloudmask.review.layers import MASK
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import DEFAULT, REFERENCE, Recipe, write_simulated_item
from stac_cloudmask.stac.item import output_id
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.search import load_items

if TYPE_CHECKING:
    from stac_cloudmask.pipeline.result import Result
    from stac_cloudmask.pipeline.run import Engine
    from stac_cloudmask.review.evaluate import EvaluationReport

SOURCE, MASKS = "source", "masks"
"""Folders of the two catalogs."""
REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What a demo made and found.

    Attributes:
        item: JSON file of the simulated item.
        masks: Folder of the output catalog.
        result: What became of the item.
        product: Scores of the item's own mask, its SCL; None where it has none.
        improved: Scores of the new mask.
        report: HTML file to look at the mask.
    """

    item: Path
    masks: Path
    result: Result
    product: EvaluationReport | None
    improved: EvaluationReport
    report: Path


def demo(
    out: str | Path, *, recipe: Recipe = DEFAULT, settings: Settings | None = None, engine: Engine | None = None
) -> Demo:
    """Simulate a scene, mask it, score the mask and draw it; nothing is downloaded.

    Args:
        out: Folder for the catalog of the scene, ``source``, that of its mask, ``masks``, and ``report.html``.
        recipe: What the scene is made from.
        settings: How the mask is made; ``mask_only`` would leave out the truth that the mask is scored by.
        engine: What carries out the run; this process by default.

    Raises:
        ConfigError: ``settings`` has ``mask_only``.
        StacCloudmaskError: The scene could not be masked.
    """
    settings = settings or Settings()
    if settings.mask_only:
        raise ConfigError("the demo scores the mask by the item's reference, which mask_only leaves out")
    item = write_simulated_item(Path(out) / SOURCE, recipe)
    masks = Path(out) / MASKS
    (result,) = run(load_items([str(item)]), settings=settings, out=str(masks), engine=engine)
    if result.error is not None:
        raise StacCloudmaskError(result.error)
    return Demo(
        item=item,
        masks=masks,
        result=result,
        product=_scores(masks, item, SCL) if recipe.scl else None,
        improved=_scores(masks, item, MASK),
        report=build_report(masks, Path(out) / REPORT),
    )


def _scores(masks: Path, item: Path, mask: str) -> EvaluationReport:
    """Scores of a mask of this item; the catalog may hold those of earlier demos, too."""
    report = evaluate(masks, references=[REFERENCE], mask=mask)
    scenes = tuple(scene for scene in report.scenes if scene.item_id == output_id(item.stem))
    return replace(report, scenes=scenes)
