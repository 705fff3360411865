"""The grid of a scene, and its division into windows for models and into strips for threads."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, TypeVar

import numpy as np

from stac_cloudmask.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A north-up grid of square pixels.

    ``left`` and ``top`` are the outer corner of the first pixel, in the units of the CRS; ``gsd`` is the side of a
    pixel in the same units (meters for every UTM zone).
    """

    epsg: int
    left: float
    top: float
    gsd: float
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.height, self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """``(left, bottom, right, top)`` in the CRS."""
        return self.left, self.top - self.height * self.gsd, self.left + self.width * self.gsd, self.top

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients in the order of rasterio and of ``proj:transform``."""
        return self.gsd, 0.0, self.left, 0.0, -self.gsd, self.top

    @property
    def code(self) -> str:
        """The CRS as ``proj:code`` spells it."""
        return f"EPSG:{self.epsg}"

    def coarsen(self, factor: int) -> Grid:
        """Return the grid of blocks of ``factor`` x ``factor`` pixels; a last, partial block counts as a pixel."""
        height, width = -(-self.height // factor), -(-self.width // factor)
        return replace(self, gsd=self.gsd * factor, height=height, width=width)

    def cut(self, window: Window) -> Grid:
        """Return the grid of a window's pixels."""
        left, top = self.left + window.col_off * self.gsd, self.top - window.row_off * self.gsd
        return replace(self, left=left, top=top, height=window.height, width=window.width)


FARMVIBES_SIZE: Final = 512
"""Side in pixels of FarmVibes.AI's windows."""
FARMVIBES_OVERLAP: Final = 0.25
"""Minimum fraction of a window that neighbors share in FarmVibes.AI."""

Span = tuple[int, int]
"""Start of a window along an axis, and its side."""


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels of a scene."""

    row_off: int
    col_off: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """The rows of the scene that the window covers."""
        return slice(self.row_off, self.row_off + self.height)

    @property
    def cols(self) -> slice:
        """The columns of the scene that the window covers."""
        return slice(self.col_off, self.col_off + self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        """``(rows, cols)``, to index the last two axes of a scene."""
        return self.rows, self.cols

    def overlap(self, other: Window) -> Window:
        """Return the intersection of two windows that touch."""
        top, left = max(self.row_off, other.row_off), max(self.col_off, other.col_off)
        bottom, right = min(self.rows.stop, other.rows.stop), min(self.cols.stop, other.cols.stop)
        return Window(top, left, bottom - top, right - left)

    def within(self, outer: Window) -> Window:
        """Return the same window, relative to the first pixel of ``outer``."""
        return Window(self.row_off - outer.row_off, self.col_off - outer.col_off, self.height, self.width)


@dataclass(frozen=True)
class Chip:
    """The windows of one model call: its input ``read``, and the part ``write`` of it that is used.

    The ``write`` windows of a plan cover the scene. Where they overlap, results are blended.
    """

    read: Window
    write: Window

    @property
    def inner(self) -> Window:
        """``write``, relative to the first pixel of ``read``."""
        return self.write.within(self.read)


def plan_chips(height: int, width: int, *, size: int, overlap: int, multiple: int) -> list[list[Chip]]:
    """Return rows of evenly spaced chips that cover a scene; each chip's whole window is used.

    An axis shorter than a window gets one window as long as the axis. The last window may end beyond the scene, where
    the model pads it.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        size: Longest side of a window, in pixels.
        overlap: Pixels that neighbors share at least, rounded down to a multiple.
        multiple: Windows start at multiples of this, and their side is the smallest multiple that needs no more
            windows; 0 means that the side is ``size``, for models with a fixed input.
    """
    rows, cols = (_evenly_spread(side, size=size, overlap=overlap, multiple=multiple) for side in (height, width))
    return [[Chip(window, window) for window in row] for row in _windows(rows, cols)]


def farmvibes_chips(height: int, width: int, *, size: int, overlap_fraction: float) -> list[list[Chip]]:
    """Return rows of chips exactly like FarmVibes.AI's ``ChipDataset``, for bit-identical results.

    ``ChipDataset`` raises for an axis shorter than ``size``; here that axis gets one window.
    """
    step = int(size * (1 - overlap_fraction))
    if not 1 <= step <= size:
        raise ConfigError(f"overlap must lie in [0, 1) and leave a step of a pixel, got {overlap_fraction} of {size}")
    rows, cols = _farmvibes_axis(height, size, step), _farmvibes_axis(width, size, step)
    read, write = _windows(rows, cols), _windows(_cuts(rows), _cuts(cols))
    return [list(map(Chip, *pair)) for pair in zip(read, write, strict=True)]


def _evenly_spread(length: int, *, size: int, overlap: int, multiple: int) -> list[Span]:
    step = multiple or 1
    padded = math.ceil(length / step) * step
    if padded <= size:
        return [(0, length)]
    shared = overlap // step * step
    count = math.ceil((padded - shared) / (size - shared))
    side = math.ceil((padded + (count - 1) * shared) / (count * step)) * step if multiple else size
    free = (padded - side) // step
    starts = (i * free // (count - 1) * step for i in range(count))
    return [(start, min(side, length - start)) for start in starts]


def _farmvibes_axis(length: int, size: int, step: int) -> list[Span]:
    if length <= size:
        return [(0, length)]
    count = max(math.ceil((length - size) / step) + 1, 2)
    return [(int(start), size) for start in np.round(np.linspace(0, length - size, count))]


def _windows(rows: list[Span], cols: list[Span]) -> list[list[Window]]:
    return [[Window(top, left, height, width) for left, width in cols] for top, height in rows]


def _cuts(spans: list[Span]) -> list[Span]:
    """Return the part of each span that is used if neighbors are cut in the middle of their overlap."""
    inner = [(start + side + following) // 2 for (start, side), (following, _) in pairwise(spans)]
    last_start, last_side = spans[-1]
    return [(start, stop - start) for start, stop in pairwise([0, *inner, last_start + last_side])]


STRIP_HEIGHT: Final = 96
"""Rows of a strip, which a thread works on at once."""
Piece = TypeVar("Piece")
Outcome = TypeVar("Outcome")


def strips(height: int, rows: int = STRIP_HEIGHT) -> Iterator[tuple[int, int]]:
    """Return the first and one past the last row of each strip."""
    return ((start, min(start + rows, height)) for start in range(0, height, rows))


def in_order(
    work: Callable[[Piece], Outcome], over: Iterable[Piece], *, threads: int, ahead: int = 1
) -> Iterator[Outcome]:
    """Yield the results of ``work`` in order of the inputs; at most ``threads``, or ``ahead``, are in work or waiting.

    NumPy releases the interpreter lock while it computes, so threads work on pieces of a scene at the same time.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="parts") as pool:
        waiting: deque[Future[Outcome]] = deque()
        for one in over:
            waiting.append(pool.submit(work, one))
            if len(waiting) == max(threads, ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
