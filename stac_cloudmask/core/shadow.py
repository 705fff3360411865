"""Find the dark places that a scene's clouds can shade, by the sun's direction, and the clouds without a shadow.

Grids are whole scenes of cells ``(row, col)``; rows count southwards. The azimuth is used as grid azimuth: UTM's
meridian convergence of at most 3 degrees moves the shadow of a cloud at 2 km by less than 100 m at common
elevations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import cos, hypot, radians, sin, tan
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.grid import in_order
from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.core.votes import Sun

if TYPE_CHECKING:
    from stac_cloudmask.core.merge_calibrated import Rules
    from stac_cloudmask.core.pixels import Scalar

BoolGrid = NDArray[np.bool_]
Shift = tuple[int, int]

LEAST_TANGENT: Final = 1e-6
"""Minimum tangent of the sun's elevation: below it every shadow leaves the scene, and lengths would overflow."""
MATCHED_BITS: Final = 16
"""Low bits of a packed window sum: windows of up to 255 cells along a side fit."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A scene in cells in which shadows of clouds are searched.

    Attributes:
        cloud: True where a cell is cloud.
        dark: True where most of a cell looks like shadow.
        valid: True where a cell has data.
        sun: Position of the sun, above the horizon.
        cell: Side of a cell in meters.
        rules: Constants of the policy.
        threads: Number of worker threads.
    """

    cloud: BoolGrid
    dark: BoolGrid
    valid: BoolGrid
    sun: Sun
    cell: float
    rules: Rules
    threads: int = 1

    @cached_property
    def lengths(self) -> tuple[float, ...]:
        """Shadow lengths to try, in cells, ascending from the lowest cloud to the highest or the size of the scene."""
        longest = hypot(*self.cloud.shape)
        lengths = [min(max(self.length(self.rules.lowest), 1.0), longest + 1)]
        while lengths[-1] < min(self.length(self.rules.highest), longest):
            lengths.append(lengths[-1] + max(1.0, self.rules.step * lengths[-1]))
        return tuple(lengths)

    def length(self, height: float) -> float:
        """Return the distance in cells from a cloud at this height in meters to its shadow."""
        return height / max(tan(radians(self.sun.elevation)), LEAST_TANGENT) / self.cell

    def explained(self, length: float) -> NDArray[np.float32]:
        """Return how well clouds at this length explain the dark cells around each cell that they would shade, 0..1.

        This is the share of the dark cells in a window that are in the shadow of a cloud; cells whose cloud would be
        outside the data are left out. The share is regularized toward that of the whole scene, to prevent chance
        matches of a few cells with a cloud on their sunny side. -1 where no cloud would shade the cell.
        """
        shift = shadow_shift(self.sun, length)
        below = shifted(self.cloud, shift)
        shaded = below & self.dark
        known = self.dark & shifted(self.valid, shift)
        width = min(max(3, int(self.rules.window / self.cell) | 1), 255)
        sums = window_sum(known * np.uint32(1 << MATCHED_BITS) + shaded * np.uint32(1), width)
        scene = int(np.count_nonzero(shaded)) / max(1, int(np.count_nonzero(known)))
        prior = self.rules.prior / self.cell**2
        share = (sums & ((1 << MATCHED_BITS) - 1)).astype(np.float32)
        share += np.float32(prior * scene)
        share /= (sums >> MATCHED_BITS).astype(np.float32) + np.float32(prior)
        share[~below] = -1
        return share


def reachable(search: Search) -> BoolGrid:
    """Return the cells that may be shadow: those in the shadow of clouds that explain the dark ground there.

    A dark object counts as a whole if most of it is in such shadow, or if clouds outside the data could shade it at
    the median height of those found. This prevents the edge of the data from cutting a shadow.
    """
    best = np.full(search.cloud.shape, -1, np.float32)
    length = np.zeros(search.cloud.shape, np.float32)
    shares = in_order(search.explained, search.lengths, threads=search.threads)
    for tried, share in zip(search.lengths, shares, strict=True):
        better = share > best
        best[better], length[better] = share[better], tried
    matched = best >= search.rules.explained
    heights = length[matched & search.dark]
    common = float(np.median(heights)) if heights.size else 0.0
    reached = dilate(matched, radius=max(1.0, search.rules.slack / search.cell))
    wide = reached.copy()
    for tried in search.lengths:
        if tried <= common:
            wide |= shifted(~search.valid, shadow_shift(search.sun, tried), fill=1)
    labels, _ = ndimage.label(search.dark)
    return reached | kept_objects(labels, wide, share=search.rules.overlap)


def shadowless(search: Search, labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return, by label, the clouds whose shadow is missing although it would be visible: roofs, sand, quarries.

    Large clouds are excluded, as are those whose shadow would not be visible at the usual height of clouds: outside the
    data, or below a cloud.
    """
    size = np.bincount(labels.ravel())
    bare = size * search.cell**2 < search.rules.small
    bare[0] = False
    some = np.isin(labels, np.flatnonzero(bare))
    near_dark = dilate(search.dark, radius=1)
    for length in search.lengths:
        south, east = shadow_shift(search.sun, length)
        seen = some & shifted(near_dark & ~search.cloud, (-south, -east))
        bare &= np.bincount(labels[seen], minlength=size.size) < search.rules.explained * size
    south, east = shadow_shift(search.sun, min(search.length(search.rules.usual), hypot(*search.cloud.shape)))
    in_sight = some & shifted(search.valid & ~search.cloud, (-south, -east))
    return bare & (np.bincount(labels[in_sight], minlength=size.size) >= size / 2)


def shadow_shift(sun: Sun, length: float) -> Shift:
    """Return the rows and columns from a cloud to its shadow of ``length`` cells, away from the sun."""
    azimuth = radians(sun.azimuth)
    return round(length * cos(azimuth)), round(-length * sin(azimuth))


def shifted(grid: NDArray[Scalar], shift: Shift, *, fill: int = 0) -> NDArray[Scalar]:
    """Return the grid shifted by ``shift`` rows and columns, filled with ``fill`` from outside."""
    out = np.full(grid.shape, fill, grid.dtype)
    (to_rows, of_rows), (to_cols, of_cols) = (_moved(n, size) for n, size in zip(shift, grid.shape, strict=True))
    out[to_rows, to_cols] = grid[of_rows, of_cols]
    return out


def _moved(by: int, size: int) -> tuple[slice, slice]:
    """Return the target and source slices of a shift along an axis."""
    by = max(-size, min(by, size))
    return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))


def window_sum(grid: NDArray[np.uint32], width: int) -> NDArray[np.uint32]:
    """Return sums over windows of ``width`` (odd) cells; cells outside count 0. Exact while a sum fits 32 bits."""
    half = width // 2
    run = np.pad(grid, ((half + 1, half), (half + 1, half)))
    for above, row in pairwise(run):  # six times faster than NumPy's cumulative sum of that axis
        np.add(above, row, out=row)
    lines = np.cumsum(run[width:] - run[:-width], axis=1, dtype=np.uint32)
    return lines[:, width:] - lines[:, :-width]


def kept_objects(labels: NDArray[np.int32], where: BoolGrid, *, share: float) -> BoolGrid:
    """Return the labeled objects in which ``where`` is True for at least this share of cells; 0 is background."""
    size = np.bincount(labels.ravel())
    inside = np.bincount(labels[where], minlength=size.size)
    keep = inside >= share * size
    keep[0] = False
    return keep[labels]
