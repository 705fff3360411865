"""Which shadows the clouds of a scene can cast, from the sun's direction and the length that fits best.

Grids are whole scenes of cells ``(row, col)``; rows count southwards. The azimuth is taken for grid azimuth: the
meridian convergence of UTM, some 3 degrees at most, moves the shadow of a cloud at 2 km by less than 100 m at common
elevations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import cos, hypot, radians, sin, tan
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.merge import strips
from stac_cloudmask.core.morphology import EIGHT_CONNECTED, dilate
from stac_cloudmask.core.strips import in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stac_cloudmask.core.calibrated import Reach
    from stac_cloudmask.core.votes import Sun

BoolGrid = NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)
Shift = tuple[int, int]
Rows = tuple[int, int]
"""First and one past the last."""

DARK_BITS: Final = 20
"""Low bits of a packed window sum; they hold percents of shadow of up to 100 x 100 cells."""
MOST: Final = 50
"""Percent from which most of a cell looks like shadow."""
LEAST_TANGENT: Final = 1e-6
"""Of the sun's elevation: below it every shadow leaves the scene, and lengths would overflow."""
STRIP: Final = 128
"""Rows of cells judged at once: all lengths of a strip of a tile that is all cloud take 58 MB."""
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

    @cached_property
    def visible(self) -> BoolGrid:
        """True where a shadow could be seen: data, and no cloud above it."""
        return self.valid & ~self.cloud

    def moved_back(self, length: float, rows: Rows) -> tuple[BoolGrid, NDArray[np.uint8]]:
        """For some rows of cells: True on cloud whose shadow of this length would be seen, and how dark it is there."""
        south, east = shadow_shift(self.sun, length)
        seen = shifted(self.visible, (-south, -east), rows=rows)
        seen &= self.cloud[slice(*rows)]
        dark = shifted(self.shadow, (-south, -east), rows=rows)
        dark *= seen
        return seen, dark

    def common_fit(self, length: float) -> np.float32:
        """What a length's fit is drawn towards: the share of all shadow of that length that looks like shadow."""
        seen, dark = self.moved_back(length, (0, self.cloud.shape[0]))
        doubt = np.float32(self.reach.doubt / self.cell**2)
        return np.float32(dark.sum(dtype=np.int64) / 100 / (np.count_nonzero(seen) + doubt))

    def fits(self, rows: Rows, common: Sequence[np.float32]) -> NDArray[np.float32]:
        """How well each length fits the cloudy cells of some rows, ``(length, cell)`` 0..1; -1: unknown.

        The fit is the share of the clouds' shadow, where its place is seen, that looks like shadow, by all cloud in a
        window around each cell. With few cells to judge by, it is drawn towards the same share over the whole scene,
        and with few in the scene towards none.

        Args:
            rows: First and one past the last; cells come in the order of ``cloud[rows].nonzero()``.
            common: The ``common_fit`` of each length.
        """
        width = min(max(3, int(self.reach.window / self.cell) | 1), WIDEST)
        wide = max(rows[0] - width // 2, 0), min(rows[1] + width // 2, self.cloud.shape[0])
        inner = slice(rows[0] - wide[0], rows[1] - wide[0])
        at = np.flatnonzero(self.cloud[slice(*rows)])
        enough = self.reach.seen * window_sum(self.cloud[slice(*wide)].astype(np.uint32), width)[inner].take(at)
        prior = np.float32(self.reach.prior / self.cell**2)
        fits = np.empty((len(common), at.size), np.float32)
        for i, (length, towards) in enumerate(zip(self.lengths(), common, strict=True)):
            seen, dark = self.moved_back(length, wide)
            packed = seen.astype(np.uint32)
            packed <<= DARK_BITS
            packed += dark
            sums = window_sum(packed, width)[inner].take(at)
            count = sums >> DARK_BITS
            sums &= (1 << DARK_BITS) - 1
            fit = np.float32(0.01) * sums.astype(np.float32) + prior * towards
            fit /= count.astype(np.float32) + prior
            fit[count < enough] = -1
            fits[i] = fit
        return fits


def reachable(search: Search) -> BoolGrid:
    """Where the clouds of a scene can cast shadow, at the lengths that fit; True also on cells that are cloud."""
    reached = cast(search)
    return with_touching(reached, search.shadow >= MOST, overlap=search.reach.overlap)


def cast(search: Search) -> BoolGrid:
    """Where the clouds cast shadow at each length that fits about as well as the best, without dark objects as such.

    A wide cloud, or a tall one, fits its shadow at many lengths; it then casts all of it. Clouds beyond the data float
    as high as the median of those seen; where none is, none is assumed.
    """
    reached = np.zeros(search.cloud.shape, np.bool_)
    lengths = search.lengths()
    common = list(in_order(search.common_fit, lengths, threads=search.threads))

    def cast_rows(rows: Rows) -> NDArray[np.float64]:
        """The best lengths of the clouds that cast; strips of other threads may set the same cells, to the same."""
        fits = search.fits(rows, common)
        score = fits.max(axis=0)
        convincing = score >= search.reach.agreement
        ys, xs = np.nonzero(search.cloud[slice(*rows)])
        fitting = convincing & (fits >= score - np.float32(search.reach.nearly))
        for length, casting in zip(lengths, fitting, strict=True):
            _set_moved(reached, ys[casting] + rows[0], xs[casting], shadow_shift(search.sun, length))
        best: NDArray[np.float64] = np.take(lengths, fits.argmax(axis=0)[convincing])
        return best

    over = strips(search.cloud.shape[0], STRIP)
    found = np.concatenate(list(in_order(cast_rows, over, threads=search.threads)))
    height = float(np.median(found)) if found.size else 0.0
    for length in lengths:
        if length <= height:
            reached |= shifted(~search.valid, shadow_shift(search.sun, length), fill=1)
    return dilate(reached, radius=max(1.0, search.reach.slack / search.cell))


def _set_moved(grid: BoolGrid, ys: NDArray[np.intp], xs: NDArray[np.intp], shift: Shift) -> None:
    """Set cells to True, moved by ``shift`` rows and columns, as far as they stay inside."""
    ys, xs = ys + shift[0], xs + shift[1]
    inside = (ys >= 0) & (ys < grid.shape[0]) & (xs >= 0) & (xs < grid.shape[1])
    grid[ys[inside], xs[inside]] = True


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


def shifted(grid: NDArray[Scalar], shift: Shift, *, fill: int = 0, rows: Rows | None = None) -> NDArray[Scalar]:
    """The grid, or some of its rows, moved by ``shift`` rows and columns; ``fill`` comes in from outside."""
    height, width = grid.shape
    start, stop = rows or (0, height)
    out = np.full((stop - start, width), fill, grid.dtype)
    south, east = (max(-size, min(size, n)) for n, size in zip(shift, grid.shape, strict=True))
    first, last = max(start, south), min(stop, height + south)
    if first < last:
        to, of = slice(max(east, 0), width + min(east, 0)), slice(max(-east, 0), width - max(east, 0))
        out[first - start : last - start, to] = grid[first - south : last - south, of]
    return out


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
