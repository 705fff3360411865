"""How dark ground is beside the lit ground nearby: near infrared tells shadow, as skylight has little of it."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from stac_cloudmask.core.cells import Cells
    from stac_cloudmask.core.rules import Rules

BoolGrid = NDArray[np.bool_]
FloatGrid = NDArray[np.float32]

SMOOTHINGS: Final = ((4.0, 0.01), (1.0, 0.05))
"""Width of the smoothing relative to ``Rules.background``, and the share of lit ground in it from which it is used:
the scene's median gives way to the wider surroundings, these to the closer ones."""


def darkness(cells: Cells, nir: FloatGrid, cloudy: BoolGrid, *, cell: float, rules: Rules) -> FloatGrid | None:
    """Near infrared as a share of the lit, dry, clear ground nearby, ``(y, x)``; None where no such ground is seen.

    Args:
        cells: The scene.
        nir: Near-infrared reflectance of its cells, NaN = nodata: these take the value of the nearest known cell, so
            that the edge of a scene looks neither dark nor lit.
        cloudy: True where a cell is cloud.
        cell: Side of a cell in metres.
        rules: The constants.
    """
    lit = cells.valid & cells.clean & ~cloudy & (nir > rules.water)
    if not lit.any():
        return None
    ground = np.full(cloudy.shape, np.median(nir[lit]), np.float32)
    values = np.where(lit, nir, np.float32(0))
    for relative, enough in SMOOTHINGS:
        sigma = relative * rules.background / cell
        weight = smooth(lit.astype(np.float32), sigma)
        np.divide(smooth(values, sigma), weight, out=ground, where=weight > enough)
    return _filled(nir / ground)


def smooth(grid: FloatGrid, sigma: float) -> FloatGrid:
    """Three box filters in a row: nearly a Gaussian of this standard deviation in cells, at a cost free of it."""
    width = round((sqrt(4 * sigma**2 + 1) - 1) / 2) * 2 + 1
    for _ in range(3):
        grid = ndimage.uniform_filter(grid, width, mode="reflect")
    return grid


def bilinear(grid: FloatGrid, rows: NDArray[np.intp], cols: NDArray[np.intp], factor: int) -> FloatGrid:
    """The grid between the centers of its cells, at pixels of ``factor`` per cell; constant beyond the outermost."""
    top, bottom, down = _between(factor, grid.shape[0], step=grid.shape[1])
    left, right, across = _between(factor, grid.shape[1], step=1)
    one, other, weight = left.take(cols), right.take(cols), across.take(cols)

    def along(row: NDArray[np.intp]) -> FloatGrid:
        first = grid.take(row + one)
        blend: FloatGrid = first + weight * (grid.take(row + other) - first)
        return blend

    upper = along(top.take(rows))
    value: FloatGrid = upper + down.take(rows) * (along(bottom.take(rows)) - upper)
    return value


def _between(factor: int, size: int, *, step: int) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatGrid]:
    """For each pixel along an axis the cells on either side of its center, and the weight of the second.

    Args:
        factor: Pixels per cell.
        size: Cells.
        step: From one cell to the next in the flat grid.
    """
    at = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    first = at.astype(np.intp)
    weight: FloatGrid = (at - first).astype(np.float32)
    return first * step, np.minimum(first + 1, size - 1) * step, weight


def _filled(grid: FloatGrid) -> FloatGrid:
    unknown = np.isnan(grid)
    if not unknown.any():
        return grid
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    filled: FloatGrid = grid[tuple(nearest)]
    return filled
