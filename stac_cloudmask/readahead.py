"""Rows of a scene, read just ahead of their use and never twice."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.windows import Window

Read = Callable[[int, int], "NDArray[np.uint16]"]
"""``read(row_off, height)`` gives ``(band, height, x)``."""


class RowStream:
    """Gives any window, as long as windows only move down.

    Holds the blocks of rows that the last window touches, or what is left of them. While that one is worked on, another
    thread reads the block that a window right below would need, if it is not held: a scene takes little more memory
    than its windows.
    """

    def __init__(self, read: Read, *, height: int, block: int, pool: ThreadPoolExecutor) -> None:
        self._read, self._height, self._block, self._pool = read, height, block, pool
        self._held: deque[NDArray[np.uint16]] = deque()
        self._first = self._end = self._start = 0
        self._ahead: Future[NDArray[np.uint16]] | None = None
        self._read_to(1)

    def window(self, window: Window) -> NDArray[np.uint16]:
        """The pixels of a window of at least one row, ``(band, y, x)``; not to be written to."""
        start, stop = window.rows.start, window.rows.stop
        if start < self._start:
            raise ValueError(f"rows only move down: {start} asked for after {self._start}")
        if stop > self._height:
            raise ValueError(f"the scene has only {self._height} rows, {stop} asked for")
        self._start = start
        self._let_go(start)
        while self._end < stop:
            self._read_to(stop)
            self._take()
            self._let_go(start)
        self._read_to(2 * stop - start)
        wanted = [
            block[:, max(start - first, 0) : max(stop - first, 0), window.cols] for first, block in self._blocks()
        ]
        wanted = [rows for rows in wanted if rows.shape[1]]
        return wanted[0] if len(wanted) == 1 else np.concatenate(wanted, axis=1)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        first = self._first
        for block in self._held:
            yield first, block
            first += block.shape[1]

    def _let_go(self, start: int) -> None:
        while self._held and self._first + self._held[0].shape[1] <= start:
            self._first += self._held.popleft().shape[1]
        passed = start - self._first
        if self._held and 2 * passed >= self._held[0].shape[1]:  # most of it: what is left is worth a copy
            self._held[0] = self._held[0][:, passed:].copy()
            self._first = start

    def _read_to(self, stop: int) -> None:
        """Have the next block read, unless that is under way or there are rows up to ``stop``."""
        if self._ahead is None and self._end < min(stop, self._height):
            count = min(self._block, self._height - self._end)
            self._ahead = self._pool.submit(self._read, self._end, count)

    def _take(self) -> None:
        if self._ahead is not None:
            block = self._ahead.result()
            self._ahead = None
            self._held.append(block)
            self._end += block.shape[1]


@contextmanager
def row_stream(read: Read, *, height: int, block: int) -> Iterator[RowStream]:
    """A `RowStream` whose reading thread ends with the block."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        yield RowStream(read, height=height, block=block, pool=pool)
