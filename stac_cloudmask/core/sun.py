"""Which shadows the clouds of a scene can cast, from the sun's direction and the length that fits best.

Grids are whole scenes of cells ``(row, col)``; rows count southwards. The azimuth is taken for grid azimuth: the
meridian convergence of UTM, some 3 degrees at most, moves the shadow of a cloud at 2 km by less than 100 m at common
elevations.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, radians, sin, tan
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.cleanup import EIGHT_CONNECTED, dilate

if TYPE_CHECKING:
    from stac_cloudmask.core.evidence import Sun
    from stac_cloudmask.core.rules import Reach

BoolGrid = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)
Shift = tuple[int, int]

DARK_BITS: Final = 20
"""Low bits of a packed window sum; they hold percents of shadow of up to 100 x 100 cells."""
WIDEST: Final = 63
"""Cells along the side of a window whose packed sum still fits 32 bits."""
NOTHING: Final = -1
"""Instead of a length: this cell casts nothing."""


@dataclass(frozen=True)
class Match:
    """Lengths of shadow, in cells, and which of them fits: ``(y, x)`` int16 indexes, `NOTHING` elsewhere."""

    lengths: tuple[float, ...]
    best: NDArray[np.int16]


def reachable(
    cloud: BoolGrid, shadow: NDArray[np.uint8], valid: BoolGrid, sun: Sun, *, cell: float, reach: Reach
) -> BoolGrid:
    """Where the clouds of a scene can cast shadow, at the heights at which their shadows are found.

    Args:
        cloud: True where a cell is cloud.
        shadow: Percent of each cell that looks like shadow.
        valid: True where a cell has data.
        sun: Where the sun stands, above the horizon.
        cell: Side of a cell in metres.
        reach: The constants.
    """
    match = match_lengths(cloud, shadow, valid & ~cloud, sun, cell=cell, reach=reach)
    return with_touching(cast(match, ~valid, sun, cell=cell, reach=reach), shadow >= 50, overlap=reach.overlap)  # noqa: PLR2004 (most of the cell)


def shadow_lengths(sun: Sun, reach: Reach, *, cell: float, longest: float) -> tuple[float, ...]:
    """Shadow lengths to try, in cells, ascending from the lowest cloud to the highest or to ``longest``."""
    per_metre = 1 / tan(radians(sun.elevation)) / cell
    lengths = [max(reach.lowest * per_metre, 1.0)]
    while lengths[-1] < min(reach.highest * per_metre, longest):
        lengths.append(lengths[-1] + max(1.0, reach.step * lengths[-1]))
    return tuple(lengths)


def shadow_shift(sun: Sun, length: float) -> Shift:
    """Rows and columns from a cloud to its shadow of ``length`` cells: away from the sun."""
    azimuth = radians(sun.azimuth)
    return round(length * cos(azimuth)), round(-length * sin(azimuth))


def shifted(grid: NDArray[Scalar], shift: Shift, *, fill: int = 0) -> NDArray[Scalar]:
    """The grid moved by ``shift`` rows and columns; ``fill`` comes in from outside."""
    out = np.full_like(grid, fill)
    (to_row, from_row), (to_col, from_col) = (_overlap(n, size) for n, size in zip(shift, grid.shape, strict=True))
    out[to_row, to_col] = grid[from_row, from_col]
    return out


def _overlap(n: int, size: int) -> tuple[slice, slice]:
    n = max(-size, min(size, n))
    return slice(max(n, 0), size + min(n, 0)), slice(max(-n, 0), size - max(n, 0))


def match_lengths(
    cloud: BoolGrid, shadow: NDArray[np.uint8], visible: BoolGrid, sun: Sun, *, cell: float, reach: Reach
) -> Match:
    """Find the shadow length that fits best for each cloudy cell, by the clouds in a window around it.

    The fit is the share of the clouds' shadow, where its place is visible, that looks like shadow; with few cells to
    judge by, it is drawn towards the same share over the whole scene, and with few in the scene towards none.
    """
    lengths = shadow_lengths(sun, reach, cell=cell, longest=hypot(*cloud.shape))
    width = min(max(3, int(reach.window / cell) | 1), WIDEST)
    prior, doubt = np.float32(reach.prior / cell**2), np.float32(reach.doubt / cell**2)
    enough = reach.seen * window_sum(cloud.astype(np.uint32), width)[cloud]
    best = np.full(enough.shape, NOTHING, np.int16)
    score = np.full(enough.shape, reach.agreement, np.float32)
    for i, length in enumerate(lengths):
        rows, cols = shadow_shift(sun, length)
        seen = shifted(visible, (-rows, -cols)) & cloud
        dark = shifted(shadow, (-rows, -cols)) * seen
        expected = prior * np.float32(dark.sum(dtype=np.int64) / 100 / (np.count_nonzero(seen) + doubt))
        packed = seen.astype(np.uint32)
        packed <<= DARK_BITS
        packed += dark
        sums = window_sum(packed, width)[cloud]
        count = sums >> DARK_BITS
        fit = (np.float32(0.01) * (sums & ((1 << DARK_BITS) - 1)).astype(np.float32) + expected) / (count + prior)
        better = (count >= enough) & (fit > score)
        score[better], best[better] = fit[better], i
    grid = np.full(cloud.shape, NOTHING, np.int16)
    grid[cloud] = best
    return Match(lengths, grid)


def window_sum(grid: NDArray[np.uint32], width: int) -> NDArray[np.uint32]:
    """Sums over windows of ``width`` (odd) cells around each; outside counts 0. Exact while a sum fits 32 bits."""
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (width // 2 + 1, width // 2)
        run = np.cumsum(np.pad(grid, pad), axis=axis, dtype=np.uint32)
        grid = run[width:] - run[:-width] if axis == 0 else run[:, width:] - run[:, :-width]
    return grid


def cast(match: Match, outside: BoolGrid, sun: Sun, *, cell: float, reach: Reach) -> BoolGrid:
    """Where the clouds can cast shadow, at about the lengths that fit; True also on cells that are cloud themselves.

    Clouds beyond the data (``outside``) are taken to float as high as the median of those seen; none seen, none there.
    """
    lengths = np.asarray(match.lengths)
    found = match.best[match.best != NOTHING]
    common = float(np.median(lengths[found])) if found.size else 0.0
    near = np.abs(lengths[:, None] - lengths) <= np.maximum(reach.tolerance * lengths, 1)
    near = np.pad(near, ((0, 0), (0, 1)))
    reached = np.zeros(outside.shape, np.bool_)
    for length, ours in zip(match.lengths, near, strict=True):
        shift = shadow_shift(sun, length)
        reached |= shifted(ours[match.best], shift)
        if length <= common:
            reached |= shifted(outside, shift, fill=1)
    return dilate(reached, radius=max(1.0, reach.slack / cell))


def with_touching(reached: BoolGrid, dark: BoolGrid, *, overlap: float) -> BoolGrid:
    """``reached``, and the whole of each dark object that lies in it by the share ``overlap``."""
    labels, _ = ndimage.label(dark)
    return reached | kept_objects(labels, reached, share=overlap)


def kept_objects(labels: NDArray[np.int32], where: BoolGrid, *, share: float) -> BoolGrid:
    """The labelled objects of which at least this share of the cells has ``where`` True; 0 is no object."""
    size = np.bincount(labels.ravel())
    inside = np.bincount(labels[where], minlength=size.size)
    keep = inside >= share * size
    keep[0] = False
    kept: BoolGrid = keep[labels]
    return kept


def objects(layer: BoolGrid) -> NDArray[np.int32]:
    """Labels of the eight-connected objects of a layer, from 1."""
    labels: NDArray[np.int32] = ndimage.label(layer, EIGHT_CONNECTED)[0]
    return labels
