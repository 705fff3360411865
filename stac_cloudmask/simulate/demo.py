"""Demonstrate the workflow on a scene with known truth: simulate, mask, publish, score, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from stac_cloudmask.config import Settings
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.review.evaluate import EvaluationReport, evaluate
from stac_cloudmask.review.layers import MASK
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import DEFAULT, REFERENCE, Recipe, write_simulated_item
from stac_cloudmask.stac.mask_item import output_id
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.search import load_items


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The outputs and scores of a demo.

    Attributes:
        item: JSON file of the simulated item.
        result: The outcome of the item.
        product: Scores of the item's own mask, its SCL.
        improved: Scores of the new mask.
        report: HTML report of the mask.
    """

    item: Path
    result: Result
    product: EvaluationReport
    improved: EvaluationReport
    report: Path


def demo(out: Path, *, recipe: Recipe = DEFAULT) -> Demo:
    """Simulate a scene, mask it, score the mask and draw it; nothing is downloaded.

    Args:
        out: Folder for the catalog of the scene, ``source``, that of its mask, ``masks``, and ``report.html``.
        recipe: Parameters of the scene.

    Raises:
        StacCloudmaskError: The scene could not be masked.
    """
    item, masks = write_simulated_item(out / "source", recipe), out / "masks"
    (result,) = run(load_items([str(item)]), settings=Settings(), out=str(masks))
    if result.error is not None:
        raise StacCloudmaskError(result.error)
    product, improved = (_scores(masks, item, mask) for mask in (SCL, MASK))
    report = build_report(masks, out / "report.html")
    return Demo(item=item, result=result, product=product, improved=improved, report=report)


def _scores(masks: Path, item: Path, mask: str) -> EvaluationReport:
    """Return the scores of a mask of this item; the catalog may also hold those of earlier demos."""
    report = evaluate(masks, references=[REFERENCE], mask=mask)
    scenes = tuple(scene for scene in report.scenes if scene.item_id == output_id(item.stem))
    return replace(report, scenes=scenes)
