"""All items of a catalog in one file, for loading in bulk: NDJSON for pypgstac, stac-geoparquet for analysis."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stac_cloudmask.errors import ConfigError, WriteError
from stac_cloudmask.stac.temporary import new_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Json = dict[str, Any]


def write_ndjson(items: Iterable[Json], path: Path) -> int:
    """Write one item a line; hrefs should be absolute, as ``OutputCatalog.items`` gives them.

    Returns:
        The number of items.

    Raises:
        WriteError: The file cannot be written; one that was there is kept.
    """
    count = 0
    with _whole(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for item in items:
            lines.write(json.dumps(item, separators=(",", ":"), allow_nan=False) + "\n")
            count += 1
    return count


def write_geoparquet(items: Iterable[Json], path: Path) -> int:
    """Write a table with one row an item, by the stac-geoparquet specification; all items are held in memory.

    Returns:
        The number of items.

    Raises:
        ConfigError: The extra ``geoparquet`` is not installed.
        WriteError: There are no items, or the file cannot be written; one that was there is kept.
    """
    try:
        import rustac  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ConfigError(f"{path}: needs the extra: pip install 'stac-cloudmask[geoparquet]'") from error
    rows = list(items)
    if not rows:
        raise WriteError(f"{path}: there are no items, and the columns of a table come from its items")
    with _whole(path) as temporary:
        try:
            rustac.write_sync(str(temporary), rows, format="geoparquet")
        except rustac.RustacError as error:
            raise WriteError(f"{path}: cannot be written: {error}") from error
    return len(rows)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end."""
    temporary = path.with_name(f".{new_name()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise error if isinstance(error, WriteError) else WriteError(f"{path}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
