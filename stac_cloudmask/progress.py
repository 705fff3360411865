"""Progress of a run: bars in a terminal, a bar in a notebook, or calls of a user's function."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stac_cloudmask.pipeline.result import Result, Status

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

SPEED_SECONDS: Final = 3600.0
"""Seconds of history for the estimate of the remaining time: an item can take minutes."""


class Stage(NamedTuple):
    """The current step of an item (``infer``, ``merge``, ``write``), how much of it is done, and its total."""

    name: str
    done: int
    total: int


Listener = Callable[[Result | Stage], None]
"""A function called with each stage of an item that runs in this process, and with the result of each item."""


class Board:
    """A counter of the results of a run that forwards results and stages to a listener."""

    def __init__(self, listener: Listener) -> None:
        self.counts: Counter[str] = Counter()
        self.total: int | None = None
        self._listener = listener

    def expect(self, total: int) -> None:
        """Set the total number of items."""
        self.total = total

    def stage(self, name: str, done: int, total: int) -> None:
        """Report the current step of an item, and how much of it is done."""
        self._listener(Stage(name, done, total))

    def count(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield results, counting each and passing it to the listener."""
        for result in results:
            self.counts[result.status] += 1
            self._listener(result)
            yield result


def counted(counts: Counter[str]) -> str:
    """Return how many items of each status there are, in words."""
    words = (f"{counts[status]} {status.replace('-', ' ')}" for status in get_args(Status) if counts[status])
    return ", ".join(words) or "starting"


def bars(console: Console, *columns: ProgressColumn, quiet: bool = False, seconds: float = 30.0) -> Progress:
    """Return progress bars with these columns, which are shown if the console is a terminal.

    Args:
        console: Console to draw on.
        columns: Columns between the bar and the remaining time.
        quiet: Show nothing.
        seconds: Seconds of history from which the speed is estimated.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # otherwise results meant for a file or pipe would go to the terminal
        speed_estimate_period=seconds,
    )


@contextmanager
def terminal(console: Console, *, quiet: bool = False) -> Iterator[Board]:
    """Show two bars, one for the items and one for the current step of the current item."""
    columns = (MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    shown = bars(console, *columns, quiet=quiet, seconds=SPEED_SECONDS)
    items = shown.add_task("starting", total=None, rate="")
    stage = shown.add_task("", total=None, rate="", visible=False)

    def show(event: Result | Stage) -> None:
        if isinstance(event, Stage):
            shown.update(stage, description=event.name, completed=event.done, total=event.total, visible=True)
            return
        finished, elapsed = board.counts.total(), shown.tasks[items].elapsed
        rate = f"{60 * finished / elapsed:.3g}/min" if elapsed else ""
        shown.update(items, description=counted(board.counts), completed=finished, total=board.total, rate=rate)

    board = Board(show)
    with shown:
        yield board


def notebook(display: Callable[..., Any]) -> Board:
    """Show a bar in the output of a notebook's cell; it needs no widgets and stays in the stored notebook."""

    def html(stage: Stage) -> dict[str, str]:
        finished = board.counts.total() + stage.done / max(stage.total, 1)
        share = f' value="{finished / board.total:.3f}"' if board.total else ""
        words = f"{counted(board.counts)}{f' of {board.total}' if board.total else ''} {stage.name}"
        return {"text/html": f"<progress{share}></progress> {escape(words)}"}

    idle = Stage("", 0, 1)
    board = Board(lambda event: handle.update(html(event if isinstance(event, Stage) else idle), raw=True))
    handle = display(html(idle), raw=True, display_id=True)
    return board


def reporting(progress: bool | Listener) -> AbstractContextManager[Board]:  # noqa: FBT001  (users give it)
    """Show the progress of a run during the block, see ``progress`` of `process`.

    Args:
        progress: False for nothing, True for what suits a terminal or a notebook, or a function.
    """
    console = Console(stderr=True)
    if callable(progress):
        return nullcontext(Board(progress))
    if progress and console.is_jupyter:
        from IPython.display import display  # noqa: PLC0415  (there in a notebook only)

        return nullcontext(notebook(display))
    return terminal(console, quiet=not progress)
