"""Terminal output: progress and notes on stderr, results on stdout."""

from __future__ import annotations

import logging
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
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
"""Exit code of an interrupted command, by shell convention."""


def note(text: str, style: str = "") -> None:
    """Write one line to stderr, without wrapping."""
    stderr.print(text, style=style, markup=False, soft_wrap=True)


def put(line: str) -> None:
    """Write one line of results to stdout; control characters in external names are escaped."""
    shown = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
    encoding = sys.stdout.encoding or "utf-8"
    shown = shown.encode(encoding, "backslashreplace").decode(encoding)
    if isinstance(sys.stdout, FileProxy):  # print above the progress bars, and keep a path on one line for copying
        note(shown)
    else:
        typer.echo(shown)


def put_json(value: object) -> None:
    """Write a JSON value to stdout on one line."""
    put(dumps(value, ensure_ascii=True, allow_nan=False))


def fields(title: object, facts: Mapping[str, object]) -> None:
    """Write names and values to stdout, one per line without wrapping; a list has one line per entry."""
    put(str(title))
    for name, value in facts.items():
        entries = value if isinstance(value, list | tuple) and any(" " in str(entry) for entry in value) else [value]
        for at, entry in enumerate(entries):
            put(f"  {name.replace('_', ' ') if at == 0 else '':<20}  {plain(entry)}".rstrip())


def put_columns(rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout with aligned columns and one line per row, however long; the first row is the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


class _Notes(logging.Handler):
    """A log handler that writes records to stderr, above the progress bars and without secrets."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, see ``logging.Handler``."""
        style = "red" if record.levelno >= logging.ERROR else "yellow" if record.levelno >= logging.WARNING else "dim"
        note(redact(self.format(record)), style)


def log(*, verbose: bool) -> None:
    """Show warnings of this package and errors of others; with ``verbose``, all log records of this package."""
    others = logging.WARNING if verbose else logging.ERROR
    handler = _Notes()  # some packages set their own levels low
    handler.addFilter(lambda record: record.name.startswith(OURS) or record.levelno >= others)
    logging.basicConfig(handlers=[handler], force=True, format="%(message)s")
    logging.getLogger(OURS).setLevel(logging.DEBUG if verbose else logging.WARNING)


@contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block cleanly."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        note("stopped; run the same command again to finish the rest", "yellow")
        raise typer.Exit(STOPPED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def put_result(result: Result, *, json: bool) -> Result:
    """Write a result to stdout, on its own line, and return it."""
    if json:
        put_json(result.to_dict())
    else:
        put(f"{result.status:<11} {_outcome(result)}".rstrip())
    return result


def _outcome(result: Result) -> str:
    """Return the id and the cover and location of the mask, the expected effort, or the error."""
    if result.status == "skipped":
        return "; ".join(result.notes)  # notes name the item
    if result.estimate is not None:
        return f"{result.item_id}  {_cost(result.estimate)}"
    return f"{result.item_id}  {result.error or _cover(result) + (result.output or '')}"


def _cover(result: Result) -> str:
    """Return the classes' percentages of the valid pixels, and the percentage that is valid."""
    if not result.cover:
        return ""
    stated = "" if result.product_cover is None else f" (source: {result.product_cover:.1f} %)"
    cloud, shadow, nodata = (result.cover[name] for name in ("cloud", "cloud_shadow", "nodata"))
    return f"cloud {cloud:.1f} %{stated}, shadow {shadow:.1f} % of valid pixels, {100 - nodata:.1f} % valid  "


def _cost(estimate: Estimate) -> str:
    size = "unknown bytes" if estimate.bytes is None else decimal(estimate.bytes)
    windows = f"{plural(estimate.windows, 'window')} (computed {estimate.computed / estimate.pixels:.2f} times)"
    return f"{estimate.pixels / 1e6:.1f} Mpx  {size} to read  {windows}"


def sum_up(results: Sequence[Result]) -> None:
    """Write the expected effort of a dry run to stderr and, on a terminal, the number of items of each status."""
    planned = [result.estimate for result in results if result.estimate is not None]
    if planned:
        sizes = [estimate.bytes for estimate in planned if estimate.bytes is not None]
        rest = len(planned) - len(sizes)
        unknown = f" and {plural(rest, 'item')} of unknown size" if rest else ""
        pixels = sum(estimate.pixels for estimate in planned) / 1e6
        items = plural(len(planned), "item")
        note(f"total: {items} to process, {pixels:.1f} Mpx, {decimal(sum(sizes))}{unknown} to read")
    if results and stderr.is_terminal:
        note(counted(Counter(result.status for result in results)))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, which has an s unless it is one."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plain(value: object) -> str:
    """Return a value as text: a list separated by commas, None as a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "-"
    return "-" if value is None else str(value)
