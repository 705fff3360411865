"""Collections of masks, and their export to NDJSON and stac-geoparquet."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pystac
from pystac.summaries import Summarizer, SummaryStrategy

from stac_cloudmask.errors import ConfigError, UnsupportedItemError, WriteError
from stac_cloudmask.stac.assets import ASSETS, extensions_of, renders
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.item import CATALOG_TITLE, ITEM_TYPE, JSON_TYPE, SUFFIX, collection_title
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Json = dict[str, Any]

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
CONFIGURABLE: Final = frozenset({"id", "title", "description", "license", "keywords", "providers", "links"})
"""What the owner of a collection can set."""
SUMMARIES: Final = {
    **dict.fromkeys(("platform", "constellation", "instruments", "gsd", "processing:level"), SummaryStrategy.ARRAY),
    **dict.fromkeys(("proj:code", "grid:code"), SummaryStrategy.ARRAY),
    **dict.fromkeys(("eo:cloud_cover", "s2:cloud_shadow_percentage"), SummaryStrategy.RANGE),
}
"""Properties whose values, or range of values, the collection states."""
OF_ONE_FILE: Final = (
    "href",
    "created",
    "updated",
    "file:",
    "proj:",
    "alternate",
    "view:",
    "processing:version",
    "classification:",
)
"""Fields of a carried asset that differ from item to item."""
BOXES: Final = (4, 6)
"""Numbers of a bbox, without heights and with."""
WORLD: Final = (-180.0, 180.0)
PAGE: Final = 1000
"""Most items that one file lists."""


def read_config(config: str) -> Json:
    """What the owner of a collection says of it: a partial collection, as JSON or the path of a JSON file.

    Raises:
        ConfigError: It is not a JSON object, or sets something else than `CONFIGURABLE`.
    """
    name = "the collection's configuration" if config.lstrip().startswith("{") else config
    try:
        body = json.loads(config if name != config else Path(config).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name} is not JSON that can be read: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"{name} is not a JSON object; it is part of a collection: {', '.join(sorted(CONFIGURABLE))}")
    return _checked_config(body, name)


def _checked_config(config: Json, name: str) -> Json:
    """The configuration of a collection, as it was given."""
    unknown = sorted(set(config) - CONFIGURABLE)
    if unknown:
        raise ConfigError(f"{name} sets {', '.join(unknown)}; it can set {', '.join(sorted(CONFIGURABLE))}")
    for key, value in config.items():
        wanted = list if key in {"keywords", "providers", "links"} else str
        if not isinstance(value, wanted):
            raise ConfigError(f"{name}: {key} is {value!r}, not a {'list' if wanted is list else 'text'}")
    for link in config.get("links", []):
        if not isinstance(link, dict) or not {"rel", "href"} <= link.keys():
            raise ConfigError(f"{name}: {link!r} is not a link with rel and href")
    if "id" in config:
        try:
            safe_id(config["id"], what="collection")
        except UnsupportedItemError as error:
            raise ConfigError(f"{name}: {error}") from error
    return config


def configured(collection: Json, config: Mapping[str, Any]) -> Json:
    """The collection as its owner wants it; ESA stays named as producer unless the owner names another."""
    if not config:
        return collection
    given = {key: value for key, value in config.items() if key not in {"id", "links"}}
    if "providers" in given and not any("producer" in part.get("roles", ()) for part in given["providers"]):
        given["providers"] = [ESA, *given["providers"]]
    replaced = {link["rel"] for link in config.get("links", [])} & {"license", "about", "cite-as"}
    mine = [link for link in collection["links"] if link["rel"] not in replaced and link not in config.get("links", [])]
    return collection | given | {"links": [*mine, *config.get("links", [])]}


def new_catalog() -> Json:
    """The root catalog, without children."""
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": CATALOG_ID,
        "title": CATALOG_TITLE,
        "description": "Cloud and cloud-shadow masks for Sentinel-2 L2A scenes, made by stac_cloudmask.",
        "links": [{"rel": "root", "href": "./catalog.json", "type": JSON_TYPE, "title": CATALOG_TITLE}],
    }


def new_collection(collection_id: str) -> Json:
    """A collection without items; STAC requires an extent, so it is not a valid collection until it has items."""
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
            {"rel": "root", "href": "../catalog.json", "type": JSON_TYPE, "title": CATALOG_TITLE},
            {"rel": "parent", "href": "../catalog.json", "type": JSON_TYPE, "title": CATALOG_TITLE},
            {"rel": "license", "href": SENTINEL_LICENSE, "title": "Terms of Sentinel data"},
        ],
    }
    return body | {"stac_extensions": extensions_of(body)}


def new_page(collection: Json, number: int) -> Json:
    """A catalog below a collection that lists more of its items, beside ``collection.json``."""
    title = f"Items of {collection['title']}, part {number}"
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": f"{collection['id']}-items-{number}",
        "title": title,
        "description": title,
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": JSON_TYPE, "title": CATALOG_TITLE},
            {"rel": "parent", "href": "./collection.json", "type": JSON_TYPE, "title": collection["title"]},
        ],
    }


def listing(body: Json, hrefs: Iterable[str]) -> Json:
    """A collection or page with these items listed as far as there is room; what it lists already stays as it is."""
    listed = [link["href"] for link in body["links"] if link["rel"] == "item"]
    new = [href for href in dict.fromkeys(hrefs) if href not in set(listed)][: max(0, PAGE - len(listed))]
    links = [{"rel": "item", "href": href, "type": ITEM_TYPE, "title": href.split("/")[1]} for href in new]
    return body | {"links": [*body["links"], *links]}


def with_child(body: Json, href: str, title: str) -> Json:
    """A catalog or collection with a child listed, once."""
    if any(link["rel"] == "child" and link["href"] == href for link in body["links"]):
        return body
    return body | {"links": [*body["links"], {"rel": "child", "href": href, "type": JSON_TYPE, "title": title}]}


def with_asset(collection: Json, key: str, asset: Json) -> Json:
    """A collection with an asset of its own."""
    return collection | {"assets": {**collection.get("assets", {}), key: asset}}


def item_href(item: Json) -> str:
    """Where an item lies, as seen from its collection."""
    return f"./{item['id']}/{item['id']}.json"


def require_place_and_time(item: Json) -> None:
    """Check that a collection could cover an item.

    Raises:
        UnsupportedItemError: It states no box or no time.
    """
    bbox = item.get("bbox")
    try:
        if isinstance(bbox, list) and len(bbox) in BOXES and None not in map(number, bbox):
            extent = pystac.Extent.from_items([_place_and_time(item)])
            if extent.temporal.intervals[0][0] and extent.temporal.intervals[0][1]:
                return
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        pass
    raise UnsupportedItemError(f"item {str(item.get('id'))[:80]!r} has no valid bbox or datetime")


def covering(collection: Json, items: Sequence[Json]) -> Json:
    """The collection with extent, summaries and descriptions of assets widened to these items.

    Adding the same items again changes nothing; their order does not matter to what is covered.
    """
    if not items:
        return collection
    summaries = pystac.Summaries(deepcopy(collection.get("summaries") or {}), maxcount=2**31)
    summaries.combine(Summarizer(SUMMARIES).summarize([_place_and_time(item) for item in items]))
    for name in summaries.lists.keys() & SUMMARIES.keys():
        summaries.lists[name] = sorted(dict.fromkeys(summaries.lists[name]), key=str)
    wider = collection | {
        "extent": _extent(collection["extent"], items),
        "summaries": dict(sorted(summaries.to_dict().items())),
        "item_assets": {**_carried(items), **(collection.get("item_assets") or {})},
    }
    known = collection.get("stac_extensions") or []
    used = extensions_of(wider["item_assets"])
    return wider | {"stac_extensions": [*known, *(schema for schema in used if schema not in known)]}


def _extent(known: Json, items: Sequence[Json]) -> Json:
    """The extent of a collection and of these items; one box across the antimeridian makes it go around the world."""
    parts = [_place_and_time(item) for item in items]
    if known["spatial"]["bbox"]:
        start, end = known["temporal"]["interval"][0]
        times = {"datetime": None, "start_datetime": start or end, "end_datetime": end or start}
        bbox = list(known["spatial"]["bbox"][0])
        parts.append(_place_and_time({"id": "known", "bbox": bbox, "properties": times}))
    extent = pystac.Extent.from_items(parts).to_dict()
    if any(part.bbox[0] > part.bbox[2] for part in parts if part.bbox):
        extent["spatial"]["bbox"][0][::2] = WORLD
    return extent


def _place_and_time(item: Json) -> pystac.Item:
    """An item without anything but what a collection sums up; heights left out."""
    bbox = item["bbox"]
    half = len(bbox) // 2
    names = {"datetime", "start_datetime", "end_datetime", *SUMMARIES}
    properties = {name: value for name, value in item["properties"].items() if name in names and value is not None}
    body: Json = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": item["id"],
        "geometry": None,
        "bbox": [*bbox[:2], *bbox[half : half + 2]],
        "properties": {"datetime": None, **properties},
        "links": [],
        "assets": {},
    }
    return pystac.Item.from_dict(body, migrate=False)


def _carried(items: Sequence[Json]) -> Json:
    """Descriptions of the assets that items carry from their sources."""
    return {
        key: {name: value for name, value in asset.items() if not name.startswith(OF_ONE_FILE)}
        for item in items
        for key, asset in item.get("assets", {}).items()
        if key not in ASSETS
    }


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
    rows = [_without_empty(item) for item in items]
    if not rows:
        raise WriteError(f"{path}: there are no items, and the columns of a table come from its items")
    with _whole(path) as temporary:
        try:
            rustac.write_sync(str(temporary), rows, format="geoparquet")
        except rustac.RustacError as error:
            raise WriteError(f"{path}: cannot be written: {error}") from error
    return len(rows)


def _without_empty(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    """JSON without empty objects, which Parquet does not have."""
    if isinstance(value, dict):
        pairs = ((key, _without_empty(inner)) for key, inner in value.items())
        return {key: inner for key, inner in pairs if inner != {}}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end."""
    temporary = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise error if isinstance(error, WriteError) else WriteError(f"{path}: cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
