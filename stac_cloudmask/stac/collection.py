"""Collection and catalog of the outputs, as values: what they say, and what adding items changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.definitions import ASSETS, extensions_of, renders
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Json = dict[str, Any]

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
