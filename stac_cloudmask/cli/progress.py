"""What a terminal shows of a run: how many items are done, skipped and failed, how fast, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stac_cloudmask.cli import console

if TYPE_CHECKING:
    from types import TracebackType

    from stac_cloudmask.pipeline.result import Result

SPEED_SECONDS: Final = 3600.0
"""The time left is reckoned from the items of the last hour: one can take minutes."""
WORDS: Final = {
    "done": "done",
    "up-to-date": "up to date",
    "skipped": "skipped",
    "planned": "planned",
    "failed": "failed",
}


def counted(counts: Counter[str]) -> str:
    """How many items of each kind, in words."""
    return ", ".join(f"{counts[status]} {word}" for status, word in WORDS.items() if counts[status]) or "starting"


class Board:
    """Bars on stderr, one for the items and one for what is done with the present one; nothing without a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self.counts: Counter[str] = Counter()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        more = (TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(compact=True))
        self._bars: Progress = console.bars(*columns, *more, quiet=quiet, speed_estimate_period=SPEED_SECONDS)
        self._items = self._bars.add_task(counted(self.counts), total=None, rate="")
        self._stage = self._bars.add_task("", total=None, rate="", visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """What is being done with an item, and how much of it is done."""
        self._bars.update(self._stage, description=stage, completed=done, total=total, visible=True)

    def expect(self, total: int) -> None:
        """Show how many items there will be."""
        self._bars.update(self._items, total=total)

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on and count them."""
        for result in results:
            self.counts[result.status] += 1
            finished = self.counts.total()
            elapsed = next(task.elapsed for task in self._bars.tasks if task.id == self._items)
            rate = f"{60 * finished / elapsed:.3g}/min" if elapsed else ""
            words = counted(self.counts)
            self._bars.update(self._items, description=words, completed=finished, rate=rate)
            yield result
