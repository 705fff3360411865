"""Where words go: progress and tables to stderr, results to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from json import dumps
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from stac_cloudmask.results import Result

stderr: Final = Console(stderr=True, highlight=False)

STYLES: Final[Mapping[str, str]] = {"done": "green", "up-to-date": "cyan", "failed": "red", "planned": "yellow"}


def put(line: str) -> None:
    """One line of result on stdout; control characters in names from outside are shown, not obeyed."""
    sys.stdout.write("".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line) + "\n")
    sys.stdout.flush()


def put_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    put(dumps(value, ensure_ascii=True, allow_nan=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, on_stdout: bool = False) -> None:
    """A table; columns whose name ends in a unit or a sign are set flush right."""
    grid = Table(title=escape(title), title_justify="left", header_style="bold")
    for column in columns:
        numeric = column.endswith(("%", "s", "bytes", "F1"))
        grid.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(cell) for cell in row))
    (Console(highlight=False) if on_stdout else stderr).print(grid)


def progress(*, quiet: bool) -> Progress:
    """Bars with count and time left on stderr; nothing where stderr is not a terminal."""
    return _bars(MofNCompleteColumn(), TimeElapsedColumn(), quiet=quiet)


def downloads() -> Progress:
    """Bars of bytes with rate and time left on stderr; nothing where stderr is not a terminal."""
    return _bars(DownloadColumn(), TransferSpeedColumn(), quiet=False)


def _bars(*columns: ProgressColumn, quiet: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeRemainingColumn(compact=True),
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # or results meant for a file or a pipe would go to the terminal
    )


def result_line(result: Result) -> str:
    """One item in one line: status, id, then the cover or what went wrong."""
    if result.status == "failed":
        return f"failed      {result.item_id}  {result.error}"
    cover = "  ".join(f"{name} {percent:.1f} %" for name, percent in result.cover.items() if name != "clear")
    return f"{result.status:<11} {result.item_id}  {cover}  {result.output or ''}".rstrip()


def result_table(results: Sequence[Result]) -> None:
    """All items of a run at a glance, on stderr."""
    rows = []
    for result in results:
        color = STYLES[result.status]
        cover = {name: f"{percent:.1f}" for name, percent in result.cover.items()}
        product = "" if result.product_cover is None else f"{result.product_cover:.1f}"
        seconds = f"{sum(result.seconds.values()):.1f}" if result.seconds else ""
        rows.append((result, color, cover, product, seconds))
    grid = Table(header_style="bold")
    for name in ("item", "status"):
        grid.add_column(name, overflow="fold")
    for name in ("cloud %", "product's %", "shadow %", "no data %", "seconds"):
        grid.add_column(name, justify="right")
    for result, color, cover, product, seconds in rows:
        grid.add_row(
            escape(result.item_id),
            f"[{color}]{result.status}[/]",
            cover.get("cloud", ""),
            product,
            cover.get("cloud_shadow", ""),
            cover.get("nodata", ""),
            seconds,
        )
    stderr.print(grid)


def put_results(results: Iterable[Result], *, json: bool) -> Iterator[Result]:
    """Pass results on, each with its line on stdout."""
    for result in results:
        if json:
            put_json(result.to_dict())
        else:
            put(result_line(result))
        yield result


def plain(value: object, *, between: str = ", ") -> str:
    """A value for a table: a list's parts with something between them, None as nothing."""
    if isinstance(value, list | tuple):
        return between.join(map(plain, value))
    return "" if value is None else str(value)
