"""Where words go: progress and tables to stderr, results to stdout."""

from __future__ import annotations

import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from json import dumps
from typing import TYPE_CHECKING, Final

import typer
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.filesize import decimal

from stac_cloudmask.errors import redact
from stac_cloudmask.progress import counted

if TYPE_CHECKING:
    from stac_cloudmask.pipeline.result import Estimate, Result

stderr: Final = Console(stderr=True, highlight=False)

OURS: Final = "stac_cloudmask"
STOPPED: Final = 130
"""Exit code of a command that was stopped, by the custom of shells."""


def note(text: str, style: str = "") -> None:
    """One line on stderr, which is never wrapped."""
    stderr.print(text, style=style, markup=False, soft_wrap=True)


def put(line: str) -> None:
    """One line of result on stdout; control characters in names from outside are shown, not obeyed."""
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
    encoding = sys.stdout.encoding or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    if isinstance(sys.stdout, FileProxy):  # bars are below: they move on, and a path stays on its line to be copied
        note(shown)
    else:
        sys.stdout.write(shown + "\n")
        sys.stdout.flush()


def put_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    put(dumps(value, ensure_ascii=True, allow_nan=False))


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


class _Notes(logging.Handler):
    """Puts log records on stderr, above the bars and without secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
        note(redact(self.format(record)), style)


def log(*, verbose: bool) -> None:
    """Show warnings of this package and errors of others; or, ``verbose``, all that this package tells."""
    others = logging.WARNING if verbose else logging.ERROR
    handler = _Notes()  # some packages set their own levels low
    handler.addFilter(lambda record: record.name.startswith(OURS) or record.levelno >= others)
    logging.basicConfig(handlers=[handler], force=True, format="%(message)s")
    logging.getLogger(OURS).setLevel(logging.DEBUG if verbose else logging.WARNING)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block in good order."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; run the same command again to finish the rest", "yellow")
        raise typer.Exit(STOPPED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def put_result(result: Result, *, json: bool) -> Result:
    """Put a result on stdout, in a line of its own, and return it."""
    if json:
        put_json(result.to_dict())
    else:
        put(f"{result.status:<11} {_outcome(result)}".rstrip())
    return result


def _outcome(result: Result) -> str:
    """The id, then the cover and where the mask is, what it would take, or what went wrong."""
    if result.status == "skipped":
        return "; ".join(result.notes)  # they name the item
    if result.estimate is not None:
        return f"{result.item_id}  {_cost(result.estimate)}"
    return f"{result.item_id}  {result.error or _cover(result) + (result.output or '')}"


def _cover(result: Result) -> str:
    """Shares of the valid pixels, and how many those are."""
    if not {"cloud", "cloud_shadow", "nodata"} <= set(result.cover):
        return ""
    stated = "" if result.product_cover is None else f" (source: {result.product_cover:.1f} %)"
    cloud, shadow, nodata = (result.cover[name] for name in ("cloud", "cloud_shadow", "nodata"))
    return f"cloud {cloud:.1f} %{stated}, shadow {shadow:.1f} % of valid pixels, {100 - nodata:.1f} % valid  "


def _cost(estimate: Estimate) -> str:
    size = "unknown bytes" if estimate.bytes is None else decimal(estimate.bytes)
    return (
        f"{estimate.pixels / 1e6:.1f} Mpx  {size} to read  "
        f"{estimate.windows} windows (computed {estimate.computed / estimate.pixels:.2f} times)"
    )


def sum_up(results: Sequence[Result]) -> None:
    """Say on stderr what masks of a dry run would take, and on a terminal how many items of each status there are."""
    planned = [result.estimate for result in results if result.estimate is not None]
    if planned:
        sizes = [estimate.bytes for estimate in planned if estimate.bytes is not None]
        unknown = f" and {len(planned) - len(sizes)} items of unknown size" if len(sizes) < len(planned) else ""
        pixels = sum(estimate.pixels for estimate in planned) / 1e6
        items = "1 item" if len(planned) == 1 else f"{len(planned)} items"
        note(f"total: {items} to process, {pixels:.1f} Mpx, {decimal(sum(sizes))}{unknown} to read")
    if results and stderr.is_terminal:
        note(counted(Counter(result.status for result in results)))


def plain(value: object) -> str:
    """A value as text: a list's entries with commas between them, None as a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "-"
    return "-" if value is None else str(value)
