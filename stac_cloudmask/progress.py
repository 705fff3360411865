"""How a run is shown while it goes on: bars in a terminal, a bar in a notebook, or a function of the user's."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, Final, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stac_cloudmask.pipeline.result import Result

SPEED_SECONDS: Final = 3600.0
"""The time left is estimated from the items of the last hour: one can take minutes."""
WORDS: Final = {
    "done": "done",
    "up-to-date": "up to date",
    "skipped": "skipped",
    "planned": "planned",
    "failed": "failed",
}


class Stage(NamedTuple):
    """What is being done with an item (``infer``, ``merge``, ``write``), and how much of it is done, of how much."""

    name: str
    done: int
    total: int


Listener = Callable[[Result | Stage], None]
"""Called with each stage of an item, where it runs in this process, and with the result of each item."""


def counted(counts: Counter[str]) -> str:
    """Return how many items of each kind there are, in words."""
    return ", ".join(f"{counts[status]} {word}" for status, word in WORDS.items() if counts[status]) or "starting"


class Board:
    """Counts the results of a run and shows nothing; the root of those that do."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.total: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Show nothing any more."""

    def expect(self, total: int) -> None:
        """Learn how many items there will be."""
        self.total = total

    def stage(self, name: str, done: int, total: int) -> None:
        """Show what is being done with an item."""

    def result(self, result: Result) -> None:
        """Show that an item is finished."""

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Pass results on and count them."""
        for result in results:
            self.counts[result.status] += 1
            self.result(result)
            yield result


class Bars(Board):
    """Bars in a terminal, one for the items and one for what is being done with the present one."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        super().__init__()
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(
            *columns,
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),  # or results meant for a file or a pipe would go to the terminal
            speed_estimate_period=SPEED_SECONDS,
        )
        self._items = self._bars.add_task(counted(self.counts), total=None, rate="")
        self._stage = self._bars.add_task("", total=None, rate="", visible=False)

    def stage(self, name: str, done: int, total: int) -> None:
        """Show what is being done with an item, and how much of it is done."""
        self._bars.update(self._stage, description=name, completed=done, total=total, visible=True)

    def result(self, result: Result) -> None:  # noqa: ARG002  (the counts say it)
        """Show how many items are finished, and how fast."""
        finished = self.counts.total()
        elapsed = next(task.elapsed for task in self._bars.tasks if task.id == self._items)
        rate = f"{60 * finished / elapsed:.3g}/min" if elapsed else ""
        words = counted(self.counts)
        self._bars.update(self._items, description=words, completed=finished, total=self.total, rate=rate)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


class NotebookBar(Board):
    """A bar in the output of a notebook's cell; it needs no widgets and stays in the stored notebook."""

    def __init__(self, display: Callable[..., Any]) -> None:
        super().__init__()
        self._stage = Stage("", 0, 1)
        self._handle = display({"text/html": self._html()}, raw=True, display_id=True)

    def stage(self, name: str, done: int, total: int) -> None:
        """Show what is being done with an item."""
        self._stage = Stage(name, done, total)
        self._update()

    def result(self, result: Result) -> None:  # noqa: ARG002  (the counts say it)
        """Show how many items are finished."""
        self._stage = Stage("", 0, 1)
        self._update()

    def _update(self) -> None:
        self._handle.update({"text/html": self._html()}, raw=True)

    def _html(self) -> str:
        stage = self._stage
        finished = self.counts.total() + stage.done / max(stage.total, 1)
        share = f' value="{finished / self.total:.3f}"' if self.total else ""
        words = f"{counted(self.counts)}{f' of {self.total}' if self.total else ''} {stage.name}"
        return f"<progress{share}></progress> {escape(words)}"


class Told(Board):
    """A function of the user's that is called."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener

    def stage(self, name: str, done: int, total: int) -> None:
        """Call it with a stage."""
        self._listener(Stage(name, done, total))

    def result(self, result: Result) -> None:
        """Call it with a result."""
        self._listener(result)


@contextmanager
def shown(progress: bool | Listener, *, total: int | None = None) -> Iterator[Board]:  # noqa: FBT001  (users give it)
    """Show a run as Python's ``progress`` asks for it, for as long as the block lasts.

    Args:
        progress: False for nothing, True for what suits a terminal or a notebook, or a function.
        total: How many items there are, where that is known.
    """
    console = Console(stderr=True)
    if callable(progress):
        board: Board = Told(progress)
    elif progress and console.is_jupyter:
        from IPython.display import display  # noqa: PLC0415  (there in a notebook only)

        board = NotebookBar(display)
    else:
        board = Bars(console, quiet=not progress)
    if total is not None:
        board.expect(total)
    with board:
        yield board
