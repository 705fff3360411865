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
    top, bottom, down = _between(rows, factor, grid.shape[0])
    left, right, across = _between(cols, factor, grid.shape[1])
    upper, lower = (grid[row, left] + across * (grid[row, right] - grid[row, left]) for row in (top, bottom))
    value: FloatGrid = upper + down * (lower - upper)
    return value


def _between(
    positions: NDArray[np.intp], factor: int, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], FloatGrid]:
    """Cells on either side of a pixel's center, and the weight of the second."""
    at = np.clip((positions + 0.5) / factor - 0.5, 0, size - 1)
    first = at.astype(np.intp)
    weight: FloatGrid = (at - first).astype(np.float32)
    return first, np.minimum(first + 1, size - 1), weight


def _filled(grid: FloatGrid) -> FloatGrid:
    unknown = np.isnan(grid)
    if not unknown.any():
        return grid
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    filled: FloatGrid = grid[tuple(nearest)]
    return filled
