"""Collections of masks, and their export to NDJSON and stac-geoparquet."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pystac
from pystac.summaries import Summarizer, SummaryStrategy
from pystac.utils import datetime_to_str

from stac_cloudmask.errors import ConfigError, UnsupportedItemError, WriteError
from stac_cloudmask.stac.assets import ASSETS, Json, extensions_of, renders
from stac_cloudmask.stac.geometry import without_heights
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.mask_item import CATALOG_TITLE, ITEM_TYPE, SUFFIX, collection_title, json_link
from stac_cloudmask.stac.metadata import numbers, period, times_of
from stac_cloudmask.stac.store import whole_file

CATALOG_ID: Final = "stac-cloudmask"
SENTINEL_LICENSE: Final = "https://sentinel.esa.int/documents/247904/690755/Sentinel_Data_Legal_Notice"
ESA: Final[Json] = {
    "name": "ESA",
    "description": "Producer of the Sentinel-2 L2A products that the masks are made from.",
    "roles": ["producer", "licensor"],
    "url": "https://sentinels.copernicus.eu",
}
PROCESSOR: Final[Json] = {
    "name": "stac_cloudmask",
    "description": "The software that made the masks; who ran it and who hosts them is for the owner to say.",
    "roles": ["processor"],
}
CONFIGURABLE: Final = {
    **dict.fromkeys(("id", "title", "description", "license"), str),
    **dict.fromkeys(("keywords", "providers", "links"), list),
}
"""Fields of a collection that its owner can set, and their types."""
SUMMARIES: Final = {
    **dict.fromkeys(("platform", "constellation", "instruments", "gsd", "processing:level"), SummaryStrategy.ARRAY),
    **dict.fromkeys(("proj:code", "grid:code"), SummaryStrategy.ARRAY),
    **dict.fromkeys(("eo:cloud_cover", "s2:cloud_shadow_percentage"), SummaryStrategy.RANGE),
}
"""Properties that the collection summarizes by their values or range."""
OF_ONE_FILE: Final = (
    "href", "created", "updated", "file:", "proj:", "alternate", "view:", "processing:version", "classification:",
)  # fmt: skip
"""Fields of a carried asset that differ from item to item."""
ALL_LONGITUDES: Final = (-180.0, 180.0)
MAX_LISTED: Final = 1000
"""Maximum number of items that one file lists."""


def read_config(config: str) -> Json:
    """Read the owner's fields for a collection: a partial collection, as JSON or the path of a JSON file.

    Raises:
        ConfigError: It is not a JSON object, or sets fields other than `CONFIGURABLE`.
    """
    inline = config.lstrip().startswith("{")
    name = "the collection's configuration" if inline else config
    try:
        body = json.loads(config if inline else Path(config).read_bytes())
    except (OSError, ValueError) as error:
        why = "it is not text" if isinstance(error, UnicodeError) else getattr(error, "strerror", error)
        raise ConfigError(f"{name} cannot be read as JSON: {why}") from error
    settable = ", ".join(sorted(CONFIGURABLE))
    if not isinstance(body, dict):
        raise ConfigError(f"{name} is not a JSON object; it is part of a collection: {settable}")
    if unknown := sorted(body.keys() - CONFIGURABLE):
        raise ConfigError(f"{name} sets {', '.join(unknown)}; it can set {settable}")
    _check_config(body, name)
    return body


def _check_config(body: Json, name: str) -> None:
    for key, value in body.items():
        if not isinstance(value, CONFIGURABLE[key]):
            raise ConfigError(f"{name}: {key} is {value!r}, not a {'list' if CONFIGURABLE[key] is list else 'text'}")
    for link in body.get("links", []):
        if not isinstance(link, dict) or not {"rel", "href"} <= link.keys():
            raise ConfigError(f"{name}: {link!r} is not a link with rel and href")
    try:
        safe_id(body.get("id", CATALOG_ID), what="collection")
    except UnsupportedItemError as error:
        raise ConfigError(f"{name}: {error}") from error


def configured(collection: Json, config: Mapping[str, Any]) -> Json:
    """Return the collection with its owner's fields; ESA is kept as producer unless the owner names another."""
    given = {key: value for key, value in config.items() if key not in {"id", "links"}}
    if "providers" in given and not any("producer" in part.get("roles", ()) for part in given["providers"]):
        given["providers"] = [ESA, *given["providers"]]
    replaced = {link["rel"] for link in config.get("links", [])} & {"license", "about", "cite-as"}
    mine = [link for link in collection["links"] if link["rel"] not in replaced and link not in config.get("links", [])]
    return collection | given | {"links": [*mine, *config.get("links", [])]}


def new_catalog() -> Json:
    """Return the root catalog, without children."""
    description = "Cloud and cloud-shadow masks for Sentinel-2 L2A scenes, made by stac_cloudmask."
    return _catalog(CATALOG_ID, CATALOG_TITLE, description, [json_link("root", "./catalog.json", CATALOG_TITLE)])


def new_page(collection: Json, number: int) -> Json:
    """Return a catalog below a collection that lists more of its items, beside ``collection.json``."""
    title = f"Items of {collection['title']}, part {number}"
    root = json_link("root", "../catalog.json", CATALOG_TITLE)
    parent = json_link("parent", "./collection.json", collection["title"])
    return _catalog(f"{collection['id']}-items-{number}", title, title, [root, parent])


def _catalog(identifier: str, title: str, description: str, links: list[Json]) -> Json:
    head = {"type": "Catalog", "stac_version": "1.1.0", "id": identifier}
    return head | {"title": title, "description": description, "links": links}


def new_collection(collection_id: str) -> Json:
    """Return a collection without items, which is not valid yet: STAC requires an extent."""
    source = collection_id.removesuffix(f"-{SUFFIX}")
    body: Json = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "id": collection_id,
        "title": collection_title(collection_id),
        "description": (
            "Masks of cloud and cloud shadow for Sentinel-2 L2A scenes: ONNX models merged with the scene "
            f"classification of the product. One item per item of {source}."
        ),
        "keywords": ["sentinel-2", "cloud mask", "cloud shadow", "machine learning"],
        "license": "other",
        "providers": [ESA, PROCESSOR],
        "extent": {"spatial": {"bbox": []}, "temporal": {"interval": []}},
        "summaries": {},
        "item_assets": {key: dict(fields) for key, fields in ASSETS.items()},
        "renders": renders(),
        "links": [
            json_link("root", "../catalog.json", CATALOG_TITLE),
            json_link("parent", "../catalog.json", CATALOG_TITLE),
            {"rel": "license", "href": SENTINEL_LICENSE, "title": "Terms of Sentinel data"},
        ],
    }
    return body | {"stac_extensions": extensions_of(body)}


def listing(body: Json, hrefs: Iterable[str]) -> Json:
    """Return a collection or page that also lists these items, up to its maximum."""
    listed = [link["href"] for link in body["links"] if link["rel"] == "item"]
    new = [href for href in dict.fromkeys(hrefs) if href not in set(listed)][: max(0, MAX_LISTED - len(listed))]
    links = [{"rel": "item", "href": href, "type": ITEM_TYPE, "title": href.split("/")[1]} for href in new]
    return body | {"links": [*body["links"], *links]}


def with_child(body: Json, href: str, title: str) -> Json:
    """Return a catalog or collection with a child listed, once."""
    if any(link["rel"] == "child" and link["href"] == href for link in body["links"]):
        return body
    return body | {"links": [*body["links"], json_link("child", href, title)]}


def item_href(item: Json) -> str:
    """Return the href of an item relative to its collection."""
    return f"./{item['id']}/{item['id']}.json"


def place_and_time(item: Json) -> tuple[list[float], datetime, datetime]:
    """Return the bounding box of an item, without heights, and its first and last moment in UTC.

    Raises:
        UnsupportedItemError: It has no valid bounding box or time, which a collection needs.
    """
    try:
        bbox, times = item["bbox"], times_of(item["properties"])
        if numbers(bbox, (4, 6)):
            return without_heights(bbox), *times
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        pass
    raise UnsupportedItemError(f"item {str(item.get('id'))[:80]!r} has no valid bbox or datetime")


def covering(collection: Json, items: Sequence[Json]) -> Json:
    """Return the collection with extent, summaries and descriptions of assets widened to these items.

    Adding the same items again changes nothing, and the extent does not depend on their order.
    """
    if not items:
        return collection
    summaries = pystac.Summaries(deepcopy(collection.get("summaries") or {}), maxcount=2**31)
    summaries.combine(Summarizer(SUMMARIES).summarize(map(_summarized, items)))
    for name in summaries.lists.keys() & SUMMARIES.keys():
        summaries.lists[name] = sorted(dict.fromkeys(summaries.lists[name]), key=str)
    wider = collection | {
        "extent": _extent(collection["extent"], items),
        "summaries": dict(sorted(summaries.to_dict().items())),
        "item_assets": {**_carried(items), **(collection.get("item_assets") or {})},
    }
    schemas = [*(collection.get("stac_extensions") or []), *extensions_of(wider["item_assets"])]
    return wider | {"stac_extensions": list(dict.fromkeys(schemas))}


def _summarized(item: Json) -> pystac.Item:
    """Return only the parts of an item that a collection summarizes."""
    stated = {name: value for name, value in item["properties"].items() if name in SUMMARIES and value is not None}
    return pystac.Item(item["id"], None, None, place_and_time(item)[1], stated)


def _extent(known: Json, items: Sequence[Json]) -> Json:
    """Return the extent of a collection and of items; a box across the antimeridian extends it around the world."""
    spans = [place_and_time(item) for item in items]
    boxes = [*map(without_heights, known["spatial"]["bbox"][:1]), *(bbox for bbox, *_ in spans)]
    times = [period(stated)[0] for stated in chain(*known["temporal"]["interval"][:1]) if stated]
    times += [moment for _, *moments in spans for moment in moments]
    wests, souths, easts, norths = zip(*boxes, strict=True)
    is_around = any(west > east for west, _, east, _ in boxes)
    west, east = ALL_LONGITUDES if is_around else (min(wests), max(easts))
    return {
        "spatial": {"bbox": [[west, min(souths), east, max(norths)]]},
        "temporal": {"interval": [[datetime_to_str(min(times)), datetime_to_str(max(times))]]},
    }


def _carried(items: Sequence[Json]) -> Json:
    """Return the descriptions of the assets that items carry from their sources."""
    return {
        key: {name: value for name, value in asset.items() if not name.startswith(OF_ONE_FILE)}
        for item in items
        for key, asset in item.get("assets", {}).items()
        if key not in ASSETS
    }


def write_ndjson(items: Iterable[Json], path: Path) -> int:
    """Write one item per line; hrefs should be absolute, as in ``OutputCatalog.items``.

    Returns:
        The number of items.

    Raises:
        WriteError: The file cannot be written; an existing file is kept.
    """
    count = 0
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for item in items:
            lines.write(json.dumps(item, separators=(",", ":"), allow_nan=False) + "\n")
            count += 1
    return count


def write_geoparquet(items: Iterable[Json], path: Path) -> int:
    """Write a stac-geoparquet table with one row per item; all items are held in memory.

    Returns:
        The number of items.

    Raises:
        ConfigError: The extra ``geoparquet`` is not installed.
        WriteError: There are no items, or the file cannot be written; an existing file is kept.
    """
    try:
        import rustac  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ConfigError(f"{path}: needs the extra: pip install 'stac-cloudmask[geoparquet]'") from error
    rows = [_without_empty(item) for item in items]
    if not rows:
        raise WriteError(f"{path}: there are no items, and the columns of a table come from its items")
    with whole_file(path, rustac.RustacError) as temporary:
        rustac.write_sync(str(temporary), rows, format="geoparquet")
    return len(rows)


def _without_empty(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON without empty objects, which Parquet does not support."""
    if isinstance(value, dict):
        pairs = ((key, _without_empty(inner)) for key, inner in value.items())
        return {key: inner for key, inner in pairs if inner != {}}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value
