"""A look ahead along a search while its first items are masked already: how many there are is known early."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

AHEAD: Final = 1000
"""Most items that wait; each has some 20 kB."""
PATIENCE: Final = 0.2
"""Seconds after which a producer that cannot go on looks whether anybody still wants it to."""

T = TypeVar("T")


class LookAhead(Generic[T]):
    """Gives what ``source`` gives, read by another thread as far ahead as `AHEAD`.

    Attributes:
        total: How many there are in all; None as long as that is not known.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self._source = source
        self._waiting: queue.Queue[tuple[T] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self.total: int | None = None

    def __iter__(self) -> Iterator[T]:
        """Start to read; an error of the source is raised once all before it was given."""
        threading.Thread(target=self._read, daemon=True, name="look-ahead").start()
        try:
            while (entry := self._waiting.get()) is not None:
                yield entry[0]
        finally:
            self._stopped.set()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        count = 0
        try:
            for item in self._source:
                count += 1
                if not self._put((item,)):
                    return
        except BaseException as error:  # noqa: BLE001  (raised again where the items are taken)
            self._error = error
        else:
            self.total = count
        self._put(None)

    def _put(self, entry: tuple[T] | None) -> bool:
        """Whether anybody still wants it."""
        while not self._stopped.is_set():
            try:
                self._waiting.put(entry, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False
