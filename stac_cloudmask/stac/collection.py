"""Collections of masks, and their export to NDJSON and stac-geoparquet."""

from __future__ import annotations

import json
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ConfigError, UnsupportedItemError, WriteError
from stac_cloudmask.stac.assets import ASSETS, extensions_of, renders
from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.store import new_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Json = dict[str, Any]
    from collections.abc import Iterator

CATALOG_ID: Final = "stac-cloudmask"
JSON_TYPE: Final = "application/json"
ITEM_TYPE: Final = "application/geo+json"
SENTINEL_LICENSE: Final = "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice"
SUMMARIES: Final = ("platform", "constellation", "instruments", "gsd", "processing:level", "processing:version")
"""Properties whose values the collection lists."""
BOXES: Final = (4, 6)
"""Numbers of a bbox, without heights and with."""
WORLD: Final = (-180.0, 180.0)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a collection has to know of one of its items: ``href`` relative to it, WGS 84 box, first and last time."""

    href: str
    bbox: tuple[float, float, float, float]
    start: str
    end: str
    values: tuple[tuple[str, str | float], ...]

    @classmethod
    def of(cls, item: Json) -> Entry:
        """The entry of an item's JSON.

        Raises:
            UnsupportedItemError: It states no box or no time.
        """
        properties = item["properties"]
        stated = item.get("bbox")
        bbox = stated if isinstance(stated, list) else []
        moment = properties.get("datetime")
        start, end = (properties.get(f"{name}_datetime") or moment for name in ("start", "end"))
        known = len(bbox) in BOXES and None not in map(number, bbox)
        if not known or not isinstance(start, str) or not isinstance(end, str):
            raise UnsupportedItemError(f"item {item['id'][:80]!r} has no valid bbox or datetime")
        half = len(bbox) // 2
        return cls(
            href=f"./{item['id']}/{item['id']}.json",
            bbox=(bbox[0], bbox[1], bbox[half], bbox[half + 1]),
            start=start,
            end=end,
            values=tuple((name, v) for name in SUMMARIES for v in _listed(properties.get(name))),
        )


def _listed(value: object) -> list[Any]:
    return [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str | int | float)]


def new_catalog() -> Json:
    """The root catalog, without children."""
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": CATALOG_ID,
        "title": "Cloud and cloud-shadow masks",
        "description": "Cloud and cloud-shadow masks for Sentinel-2 L2A scenes, made by stac_cloudmask.",
        "links": [{"rel": "root", "href": "./catalog.json", "type": JSON_TYPE}],
    }


def new_collection(collection_id: str) -> Json:
    """A collection without items; STAC wants an extent all the same, so it is no collection yet without entries."""
    source = collection_id.removesuffix("-cloudmask")
    body: Json = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": collection_id,
        "title": f"Cloud and cloud-shadow masks for {source}",
        "description": (
            "Masks of cloud and cloud shadow for Sentinel-2 L2A scenes: ONNX models merged with the scene "
            f"classification of the product. One item per item of {source}."
        ),
        "keywords": ["sentinel-2", "cloud mask", "cloud shadow", "machine learning"],
        "license": "other",
        "providers": [{"name": "ESA", "roles": ["producer", "licensor"], "url": "https://sentinels.copernicus.eu"}],
        "extent": {"spatial": {"bbox": []}, "temporal": {"interval": []}},
        "summaries": {},
        "item_assets": {key: dict(fields) for key, fields in ASSETS.items()},
        "renders": renders(),
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": JSON_TYPE},
            {"rel": "parent", "href": "../catalog.json", "type": JSON_TYPE},
            {"rel": "license", "href": SENTINEL_LICENSE},
        ],
    }
    return body | {"stac_extensions": extensions_of(body, *body["item_assets"].values())}


def with_entries(collection: Json, entries: Sequence[Entry]) -> Json:
    """The collection with these items listed; those that it lists already are not listed twice.

    Adding the same entries again changes nothing; the order of ``entries`` does not matter to what is covered.
    """
    linked = {link["href"] for link in collection["links"] if link["rel"] == "item"}
    new = dict.fromkeys(entry.href for entry in entries if entry.href not in linked)
    links = [{"rel": "item", "href": href, "type": ITEM_TYPE} for href in new]
    return covering(collection, entries) | {"links": [*collection["links"], *links]}


def covering(collection: Json, entries: Sequence[Entry]) -> Json:
    """The collection with extent and summaries widened to these items."""
    if not entries:
        return collection
    extent = collection["extent"]
    changed = {
        "extent": {
            "spatial": {"bbox": [_box([*extent["spatial"]["bbox"][:1], *(e.bbox for e in entries)])]},
            "temporal": {"interval": [_interval(extent["temporal"]["interval"][:1], entries)]},
        },
        "summaries": _summaries(collection.get("summaries") or {}, entries),
    }
    return collection | changed


def _box(boxes: Iterable[Sequence[float]]) -> list[float]:
    """The box around all; one that crosses the antimeridian makes it go around the world."""
    listed = list(boxes)
    west, east = min(box[0] for box in listed), max(box[2] for box in listed)
    if any(box[0] > box[2] for box in listed):
        west, east = WORLD
    return [west, min(box[1] for box in listed), east, max(box[3] for box in listed)]


def _interval(known: Sequence[Sequence[str | None]], entries: Sequence[Entry]) -> list[str | None]:
    starts = [entry.start for entry in entries] + [part[0] for part in known if part[0]]
    ends = [entry.end for entry in entries] + [part[1] for part in known if part[1]]
    return [min(starts, key=_time), max(ends, key=_time)]


def _time(text: str) -> datetime:
    """Times are compared as times, as providers write fractions of seconds or leave them out."""
    return datetime.fromisoformat(text)


def _summaries(known: Json, entries: Sequence[Entry]) -> Json:
    summaries = {name: list(values) for name, values in known.items() if name in SUMMARIES}
    for name, value in (pair for entry in entries for pair in entry.values):
        if value not in summaries.setdefault(name, []):
            summaries[name].append(value)
    return known | {name: sorted(values) for name, values in sorted(summaries.items())}


def with_child(catalog: Json, collection: Json) -> Json:
    """The catalog with a collection listed."""
    href = f"./{collection['id']}/collection.json"
    if any(link["rel"] == "child" and link["href"] == href for link in catalog["links"]):
        return catalog
    link = {"rel": "child", "href": href, "type": JSON_TYPE, "title": collection["title"]}
    return catalog | {"links": [*catalog["links"], link]}


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
