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
from stac_cloudmask.core.threads import in_order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stac_cloudmask.core.evidence import Sun
    from stac_cloudmask.core.rules import Reach

BoolGrid = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)
Shift = tuple[int, int]

DARK_BITS: Final = 20
"""Low bits of a packed window sum; they hold percents of shadow of up to 100 x 100 cells."""
MOST: Final = 50
"""Percent from which most of a cell looks like shadow."""
LEAST_TANGENT: Final = 1e-6
"""Of the sun's elevation: below it every shadow leaves the scene, and lengths would overflow."""
WIDEST: Final = 63
"""Cells along the side of a window whose packed sum still fits 32 bits."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A scene in which shadows of clouds are looked for, in cells.

    Attributes:
        cloud: True where a cell is cloud.
        shadow: Percent of each cell that looks like shadow, uint8.
        valid: True where a cell has data.
        sun: Where the sun stands, above the horizon.
        cell: Side of a cell in metres.
        reach: The constants.
        threads: That look at once.
    """

    cloud: BoolGrid
    shadow: NDArray[np.uint8]
    valid: BoolGrid
    sun: Sun
    cell: float
    reach: Reach
    threads: int = 1

    def lengths(self) -> tuple[float, ...]:
        """Lengths of shadow to try, in cells."""
        return shadow_lengths(self.sun, self.reach, cell=self.cell, longest=hypot(*self.cloud.shape))

    def fits(self) -> Iterator[NDArray[np.float32]]:
        """For each length how well it fits the cloudy cells, 0..1, in the order of ``array[cloud]``; -1: unknown.

        The fit is the share of the clouds' shadow, where its place is seen, that looks like shadow, by all cloud in a
        window around each cell. With few cells to judge by, it is drawn towards the same share over the whole scene,
        and with few in the scene towards none.
        """
        width = min(max(3, int(self.reach.window / self.cell) | 1), WIDEST)
        prior, doubt = (np.float32(area / self.cell**2) for area in (self.reach.prior, self.reach.doubt))
        at = np.flatnonzero(self.cloud)
        enough = self.reach.seen * window_sum(self.cloud.astype(np.uint32), width).take(at)
        visible = self.valid & ~self.cloud

        def fit_of(length: float) -> NDArray[np.float32]:
            rows, cols = shadow_shift(self.sun, length)
            seen = shifted(visible, (-rows, -cols)) & self.cloud
            dark = shifted(self.shadow, (-rows, -cols)) * seen
            expected = prior * np.float32(dark.sum(dtype=np.int64) / 100 / (np.count_nonzero(seen) + doubt))
            packed = seen.astype(np.uint32)
            packed <<= DARK_BITS
            packed += dark
            sums = window_sum(packed, width).take(at)
            count = sums >> DARK_BITS
            sums &= (1 << DARK_BITS) - 1
            fit: NDArray[np.float32] = np.float32(0.01) * sums.astype(np.float32) + expected
            fit /= count.astype(np.float32) + prior
            fit[count < enough] = -1
            return fit

        return in_order(fit_of, self.lengths(), threads=self.threads)


def reachable(search: Search) -> BoolGrid:
    """Where the clouds of a scene can cast shadow, at the lengths that fit; True also on cells that are cloud."""
    reached = cast(search)
    return with_touching(reached, search.shadow >= MOST, overlap=search.reach.overlap)


def cast(search: Search) -> BoolGrid:
    """Where the clouds cast shadow at each length that fits about as well as the best, without dark objects as such.

    A wide cloud, or a tall one, fits its shadow at many lengths; it then casts all of it. Clouds beyond the data float
    as high as the median of those seen; where none is, none is assumed.
    """
    lengths, best, score = _best(search)
    convincing = score >= search.reach.agreement
    common = float(np.median(lengths[best[convincing]])) if convincing.any() else 0.0
    reached = np.zeros(search.cloud.shape, np.bool_)
    casting = np.zeros(search.cloud.shape, np.bool_)
    for length, fit in zip(lengths, search.fits(), strict=True):
        shift = shadow_shift(search.sun, length)
        casting[search.cloud] = convincing & (fit >= score - np.float32(search.reach.nearly))
        reached |= shifted(casting, shift)
        if length <= common:
            reached |= shifted(~search.valid, shift, fill=1)
    return dilate(reached, radius=max(1.0, search.reach.slack / search.cell))


def _best(search: Search) -> tuple[NDArray[np.float64], NDArray[np.int16], NDArray[np.float32]]:
    """The lengths, and for each cloudy cell which of them fits best, and how well."""
    best = np.zeros(np.count_nonzero(search.cloud), np.int16)
    score = np.full(best.shape, -1, np.float32)
    for i, fit in enumerate(search.fits()):
        better = fit > score
        score[better], best[better] = fit[better], i
    return np.asarray(search.lengths()), best, score


def shadow_lengths(sun: Sun, reach: Reach, *, cell: float, longest: float) -> tuple[float, ...]:
    """Shadow lengths to try, in cells, ascending from the lowest cloud to the highest or to ``longest``."""
    per_metre = 1 / max(tan(radians(sun.elevation)), LEAST_TANGENT) / cell
    lengths = [min(max(reach.lowest * per_metre, 1.0), longest + 1)]
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


def window_sum(grid: NDArray[np.uint32], width: int) -> NDArray[np.uint32]:
    """Sums over windows of ``width`` (odd) cells around each; outside counts 0. Exact while a sum fits 32 bits.

    Down the rows a sum moves along row by row, six times faster than numpy's cumulative sum of that axis.
    """
    height, across = grid.shape
    half = width // 2
    run = np.zeros((height, across + width), np.uint32)
    inner = run[:, half + 1 : half + 1 + across]
    total = grid[:half].sum(axis=0, dtype=np.uint32)
    for row in range(height):
        if row + half < height:
            total += grid[row + half]
        if row > half:
            total -= grid[row - half - 1]
        np.cumsum(total, out=inner[row])
    run[:, half + 1 + across :] = inner[:, -1:]
    sums: NDArray[np.uint32] = run[:, width:] - run[:, :-width]
    return sums


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
