"""Pixels reduced to cells of some 60 m, on which a whole scene can be surveyed at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.evidence import Evidence, Vote
from stac_cloudmask.core.merge import Thresholds, strips, vote
from stac_cloudmask.core.threads import in_order

if TYPE_CHECKING:
    from stac_cloudmask.core.rules import Rules

BoolGrid = NDArray[np.bool_]

SCL_CIRRUS: Final = 10
"""The cloud code of the product that can cover a whole clear scene."""
STRIP_ROWS: Final = 192
"""Rows of pixels reduced at once, about."""
CLOUD_MODEL: Final = np.uint8(Vote.CLOUD_MODEL)
SHADOW_MODEL: Final = np.uint8(Vote.SHADOW_MODEL)
PRODUCT_CLOUD: Final = np.uint8(Vote.PRODUCT_CLOUD)
PRODUCT_SHADOW: Final = np.uint8(Vote.PRODUCT_SHADOW)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A scene on the grid of cells; all ``(y, x)``, bool unless said otherwise.

    Attributes:
        valid: At least half of the cell has data.
        certain: The model is certain of cloud: the cell's mean is at least ``Rules.seed``.
        hint: Some pixel has more than ``Rules.hint`` percent cloud.
        cloud_any: Some pixel is a candidate for cloud.
        cloud_most: At least half are.
        product_any: Some pixel is cloud by the product, thin cirrus left out.
        product_most: At least half are.
        shadow: Percent, uint8, of the pixels that are candidates for shadow and not rather cloud.
        deep: Nearly all of the cell is shadow to the model.
        clean: The model sees next to no cloud and no shadow.
    """

    valid: BoolGrid
    certain: BoolGrid
    hint: BoolGrid
    cloud_any: BoolGrid
    cloud_most: BoolGrid
    product_any: BoolGrid
    product_most: BoolGrid
    shadow: NDArray[np.uint8]
    deep: BoolGrid
    clean: BoolGrid


@dataclass(frozen=True)
class Candidates:
    """Pixels that may be flagged: ``(y, x)`` bool.

    Attributes:
        cloud: The model says cloud, or sees some where the product says cirrus.
        product: The product says cloud, thin cirrus left out.
        shadow: The model says shadow, or sees some where the product says so.
    """

    cloud: BoolGrid
    product: BoolGrid
    shadow: BoolGrid


def candidates(evidence: Evidence, start: int, stop: int, votes: NDArray[np.uint8], rules: Rules) -> Candidates:
    """The candidates of rows ``start`` to ``stop``, whose ``Vote`` bits are given; never where nodata."""
    cloud = (votes & CLOUD_MODEL) > 0
    shadow = (votes & SHADOW_MODEL) > 0
    product = (votes & PRODUCT_CLOUD) > 0
    if evidence.product is not None and (votes & (PRODUCT_CLOUD | PRODUCT_SHADOW)).any():
        shadow |= ((votes & PRODUCT_SHADOW) > 0) & (evidence.shadow[start:stop] > rules.product_shadow)
        cirrus = product & (evidence.product.classes(start, stop) == SCL_CIRRUS)
        product &= ~cirrus
        cloud |= cirrus & (evidence.cloud[start:stop] > rules.cirrus)
    return Candidates(cloud, product, shadow)


def reduce_scene(evidence: Evidence, thresholds: Thresholds, rules: Rules, *, threads: int = 1) -> Cells:
    """The scene in cells of ``rules.cell_factor`` pixels; a last, partial cell is filled by repeating its edge."""
    factor = rules.cell_factor(evidence.gsd)
    rows = max(1, STRIP_ROWS // factor) * factor

    def reduced(strip: tuple[int, int]) -> Cells:
        return _reduce_rows(evidence, *strip, thresholds, rules)

    parts = list(in_order(reduced, strips(evidence.shape[0], rows), threads=threads))
    return Cells(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Cells)})


def _reduce_rows(evidence: Evidence, start: int, stop: int, thresholds: Thresholds, rules: Rules) -> Cells:
    factor = rules.cell_factor(evidence.gsd)
    area = factor * factor
    votes, valid = vote(evidence, start, stop, thresholds)
    p_cloud, p_shadow = (layer[start:stop] * valid for layer in (evidence.cloud, evidence.shadow))
    found = candidates(evidence, start, stop, votes, rules)
    clouds, products = block_sum(found.cloud, factor), block_sum(found.product, factor)
    cloud_percent, shadow_percent = block_sum(p_cloud, factor), block_sum(p_shadow, factor)
    rather_shadow = found.shadow & ~(found.cloud & (p_cloud >= p_shadow))
    return Cells(
        valid=2 * block_sum(valid, factor) >= area,
        certain=cloud_percent >= rules.seed * area,
        hint=block_sum(p_cloud > rules.hint, factor) > 0,
        cloud_any=clouds > 0,
        cloud_most=2 * clouds >= area,
        product_any=products > 0,
        product_most=2 * products >= area,
        shadow=(100 * block_sum(rather_shadow, factor) // area).astype(np.uint8),
        deep=shadow_percent >= rules.deep * area,
        clean=(cloud_percent < rules.clean * area) & (shadow_percent < rules.clean * area),
    )


def block_sum(pixels: NDArray[np.bool_] | NDArray[np.uint8], factor: int) -> NDArray[np.uint32]:
    """Sums of blocks of ``factor`` x ``factor``, ``(y, x)``; a last, partial block repeats its edge pixels.

    Adds whole rows, then columns: many times faster than a sum over the axes of a reshaped array.
    """
    height, width = pixels.shape
    whole = pixels.view(np.uint8)
    if height % factor or width % factor:
        whole = np.pad(whole, ((0, -height % factor), (0, -width % factor)), mode="edge")
    lines = whole[::factor].astype(np.uint16)
    for row in range(1, factor):
        lines += whole[row::factor]
    total = lines[:, ::factor].astype(np.uint32)
    for col in range(1, factor):
        total += lines[:, col::factor]
    return total
