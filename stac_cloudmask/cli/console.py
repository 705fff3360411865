"""Where words go: progress and tables to stderr, results to stdout."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.file_proxy import FileProxy
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

from stac_cloudmask.errors import StacCloudmaskError, redact

if TYPE_CHECKING:
    from stac_cloudmask.pipeline.result import Estimate, Result
    from stac_cloudmask.stac.query import Query

stderr: Final = Console(stderr=True, highlight=False)

_NAME: Final = TextColumn("{task.description}", markup=False)
_LEFT: Final = TimeRemainingColumn(compact=True)

OURS: Final = "stac_cloudmask"
STOPPED: Final = 130
"""Exit code of a command that was stopped, by the custom of shells."""


def put(line: str) -> None:
    """One line of result on stdout; control characters in names from outside are shown, not obeyed."""
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
    encoding = sys.stdout.encoding or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    if isinstance(sys.stdout, FileProxy):  # bars are below: they move on, and a path stays on its line to be copied
        stderr.print(shown, markup=False, soft_wrap=True)
        return
    sys.stdout.write(shown + "\n")
    sys.stdout.flush()


def put_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    put(dumps(value, ensure_ascii=True, allow_nan=False))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A title and rows on stdout, a line for each row however narrow the terminal is."""
    put(title)
    put_columns([columns, *rows])


def fields(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Names and values on stdout, a line for each, which is never wrapped; a list has a line for each entry."""
    put(title)
    for name, value in rows:
        entries = value if isinstance(value, list | tuple) and any(" " in str(entry) for entry in value) else [value]
        for number, entry in enumerate(entries):
            put(f"  {name if number == 0 else '':<20}  {plain(entry)}".rstrip())


def put_columns(rows: Sequence[Sequence[str]]) -> None:
    """Rows with their cells below each other, a line for each row however long; the first row has the names."""
    cells = [[cell.replace("\n", "; ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def progress(*, quiet: bool) -> Progress:
    """Bars with count and time left on stderr; nothing where stderr is not a terminal."""
    return bars(_NAME, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), _LEFT, quiet=quiet)


def downloads() -> Progress:
    """Bars of bytes with rate and time left on stderr; nothing where stderr is not a terminal."""
    return bars(_NAME, BarColumn(), DownloadColumn(), TransferSpeedColumn(), _LEFT, quiet=False)


def bars(*columns: ProgressColumn, quiet: bool, speed_estimate_period: float = 30.0) -> Progress:
    """Bars with these columns on stderr; nothing where stderr is not a terminal."""
    return Progress(
        *columns,
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # or results meant for a file or a pipe would go to the terminal
        speed_estimate_period=speed_estimate_period,
    )


class LogHandler(logging.Handler):
    """Puts log records on stderr, above the bars and without secrets: all of this package, few of others."""

    def __init__(self, *, others: int) -> None:
        super().__init__()
        self._others = others

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is of this package, or of the level ``others``; some packages set their own levels low."""
        return record.name.startswith(OURS) or record.levelno >= self._others

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
        stderr.print(redact(self.format(record)), style=style, markup=False, soft_wrap=True)


def log(*, verbose: bool) -> None:
    """Show warnings of this package and errors of others; or, ``verbose``, all that this package tells."""
    handler = LogHandler(others=logging.WARNING if verbose else logging.ERROR)
    logging.basicConfig(handlers=[handler], force=True, format="%(message)s")
    logging.getLogger(OURS).setLevel(logging.DEBUG if verbose else logging.WARNING)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block in good order."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        stderr.print("stopped; run the same command again to finish the rest", style="yellow")
        raise typer.Exit(STOPPED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def result_line(result: Result) -> str:
    """One item in one line: status, id, then the cover or what went wrong."""
    if result.status == "failed":
        return f"failed      {result.item_id}  {result.error}"
    if result.status == "skipped":
        return f"skipped     {'; '.join(result.notes)}"
    if result.estimate is not None:
        return f"planned     {result.item_id}  {cost_line(result.estimate)}"
    return f"{result.status:<11} {result.item_id}  {_cover(result)}{result.output or ''}".rstrip()


def _cover(result: Result) -> str:
    """Shares of the valid pixels, and how many those are."""
    if not {"cloud", "cloud_shadow", "nodata"} <= set(result.cover):
        return ""
    stated = "" if result.product_cover is None else f" (source: {result.product_cover:.1f} %)"
    cloud, shadow, nodata = (result.cover[name] for name in ("cloud", "cloud_shadow", "nodata"))
    return f"cloud {cloud:.1f} %{stated}, shadow {shadow:.1f} % of valid pixels, {100 - nodata:.1f} % valid  "


def put_results(results: Iterable[Result], *, json: bool) -> Iterator[Result]:
    """Pass results on, each with its line on stdout."""
    for result in results:
        if json:
            put_json(result.to_dict())
        else:
            put(result_line(result))
        yield result


def nothing_found(query: Query) -> None:
    """Say that a search found nothing, and what to look at.

    Raises:
        StacCloudmaskError: Always.
    """
    raise StacCloudmaskError(f"no items found: {query.hint()}")


def plain(value: object) -> str:
    """A value as text: a list's entries with commas between them, None as a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "-"
    return "-" if value is None else str(value)


def cost_line(estimate: Estimate) -> str:
    """Return what one mask would take, in a line."""
    times = estimate.computed / estimate.pixels
    return (
        f"{estimate.pixels / 1e6:.1f} Mpx  {_size(estimate.bytes)} to read  "
        f"{estimate.windows} windows (computed {times:.2f} times)"
    )


def costs_of_all(results: Sequence[Result]) -> str | None:
    """Return what all masks of a dry run would take, in a line; None where there are none to make."""
    planned = [result.estimate for result in results if result.estimate is not None]
    if not planned:
        return None
    sizes = [estimate.bytes for estimate in planned if estimate.bytes is not None]
    unknown = f" and {len(planned) - len(sizes)} items of unknown size" if len(sizes) < len(planned) else ""
    pixels = sum(estimate.pixels for estimate in planned) / 1e6
    plural = "item" if len(planned) == 1 else "items"
    return f"total: {len(planned)} {plural} to process, {pixels:.1f} Mpx, {_size(sum(sizes))}{unknown} to read"


def _size(count: int | None) -> str:
    if count is None:
        return "unknown bytes"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004  (the unit)
