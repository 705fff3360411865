"""Rows of a scene, read one block ahead of their use and never twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Read = Callable[[int, int], "NDArray[np.uint16]"]
"""``read(row_off, height)`` gives ``(band, height, x)``."""


class RowStream:
    """Gives any window of rows, as long as windows only move down.

    Holds the rows from the last window's first row on, and one block that another thread is reading meanwhile.
    """

    def __init__(self, read: Read, *, height: int, block: int, pool: ThreadPoolExecutor) -> None:
        self._read, self._height, self._block, self._pool = read, height, block, pool
        self._held: NDArray[np.uint16] | None = None
        self._first = 0
        self._next = 0
        self._ahead: Future[NDArray[np.uint16]] | None = None
        self._submit()

    def rows(self, start: int, stop: int) -> NDArray[np.uint16]:
        """Rows ``start`` to ``stop``, at least one, as ``(band, stop - start, x)``; valid until the next call."""
        if start < self._first:
            raise ValueError(f"rows only move down: {start} asked for after {self._first}")
        parts = [] if self._held is None else [self._held[:, start - self._first :]]
        end = self._first + (0 if self._held is None else self._held.shape[1])
        while end < stop:
            part = self._take()
            parts.append(part[:, max(0, start - end) :])
            end += part.shape[1]
        self._held = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        self._first = start
        return self._held[:, : stop - start]

    def _take(self) -> NDArray[np.uint16]:
        if self._ahead is None:
            raise ValueError(f"the scene has only {self._height} rows")
        part = self._ahead.result()
        self._submit()
        return part

    def _submit(self) -> None:
        count = min(self._block, self._height - self._next)
        self._ahead = self._pool.submit(self._read, self._next, count) if count > 0 else None
        self._next += count


@contextmanager
def row_stream(read: Read, *, height: int, block: int) -> Iterator[RowStream]:
    """A `RowStream` whose reading thread ends with the block."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        yield RowStream(read, height=height, block=block, pool=pool)
