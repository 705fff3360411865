"""Search STAC APIs and static catalogs, and load items by id, URL or path."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.stac_api_io import StacApiIO

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, StacCloudmaskWarning, redact
from stac_cloudmask.stac.connection import DEFAULT_CONNECTION, BrokenError, Connection, Json, JsonReader, StatusError
from stac_cloudmask.stac.geometry import MALFORMED, Area, asked_box, read_area, touches
from stac_cloudmask.stac.hrefs import check_href, is_remote, local_path
from stac_cloudmask.stac.mask_item import DEFAULT_COLLECTION
from stac_cloudmask.stac.metadata import MGRS, Version, is_mask, number, period, tile_of, times_of, version_of
from stac_cloudmask.stac.parse import Failure, Found, items_in, link_of, links_of, listed_item, parse_item

TimeSpan = tuple[datetime | None, datetime | None]

PAGE_ITEMS: Final = 100
"""Items per page of an API."""
FEWEST: Final = 10
"""Minimum number of items per page; a failing page of this size is not retried with a smaller size."""
TOO_MUCH: Final = frozenset({500, 502, 504})
"""Statuses that servers return for pages that are too large for them."""
API_ITEM: Final = re.compile(r"/collections/[^/]+/items/[^/]+$")
MAX_DEPTH: Final = 16
"""Maximum number of links from a static catalog to a collection; deeper ones are not followed."""
COMPARED: Final = 1000
"""Maximum number of named items that are checked for duplicate ids before the first is masked."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Query:
    """A search of a STAC API or of a static catalog.

    Attributes:
        collection: Ids of the collections to search, or a single id; empty for all.
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        intersects: An area as well-known text, GeoJSON, a vector file or a geometry; with ``bbox``, both must match.
        datetime: A time or ``A/B``; ends may be open (``../B``) and times short (``2023-08`` is all of August).
        max_cloud_cover: Largest ``eo:cloud_cover`` in percent; an item that does not state it does not match.
        tile: MGRS tile, as in ``33TWL``.
        ids: Ids that match; none for any.
        max_items: Maximum number of items.
    """

    collection: str | Sequence[str] | None = None
    bbox: Sequence[float] | None = None
    intersects: Area | None = None
    datetime: str | None = None
    max_cloud_cover: float | None = None
    tile: str | None = None
    ids: Sequence[str] = ()
    max_items: int | None = None

    def __post_init__(self) -> None:
        """Reject parameters that cannot match anything."""
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:  # noqa: PLR2004
            raise ConfigError(f"max_cloud_cover is a percentage of 0 to 100, got {self.max_cloud_cover}")
        if self.max_items is not None and self.max_items < 1:
            raise ConfigError(f"max_items must be at least 1, got {self.max_items}")
        if self.tile is not None and MGRS.fullmatch(self.tile.upper().removeprefix("T")) is None:
            raise ConfigError(f"tile is an MGRS tile such as 33TWL, got {self.tile!r}")
        _ = self.interval, self.area

    @cached_property
    def collections(self) -> tuple[str, ...]:
        """Ids of the collections; none for all."""
        return (self.collection,) if isinstance(self.collection, str) else tuple(self.collection or ())

    @cached_property
    def interval(self) -> TimeSpan:
        """First and last time, both included; None is open."""
        if self.datetime is None:
            return None, None
        first, slash, last = self.datetime.partition("/")
        ends = (first, last if slash else first)
        with suppress(ValueError, OverflowError):
            start, end = (None if one in {"", ".."} else period(one)[index] for index, one in enumerate(ends))
            if (start or end) and not (start and end and start > end):
                return start, end
        raise ConfigError(
            "datetime is a time, or A/B with open ends as '..', such as 2023-08 or 2023-08-01/.., "
            f"got {self.datetime!r}"
        )

    @cached_property
    def area(self) -> shapely.Geometry | None:
        """Area that items must intersect; None for anywhere."""
        box = None if self.bbox is None else asked_box(self.bbox)
        if self.intersects is None:
            return box
        area = read_area(self.intersects)
        return area if box is None else shapely.intersection(area, box)

    @property
    def mgrs(self) -> str | None:
        """The tile with two digits for its zone."""
        return None if self.tile is None else self.tile.upper().removeprefix("T").removeprefix("MGRS-").zfill(5)

    def hint(self) -> str:
        """Return a hint on what to check if nothing was found."""
        parts = []
        if self.bbox is not None:
            place = "longitude {0:g} to {2:g}, latitude {1:g} to {3:g}".format(*self.bbox)
            parts.append(f"bbox is west south east north, here {place}")
        bounds = self.area.bounds if self.area is not None and self.bbox is None else ()
        stated = {
            "collection": " ".join(self.collections), "datetime": self.datetime, "tile": self.mgrs,
            "ids": " ".join(self.ids), "intersects": " ".join(map(str, bounds)),
        }  # fmt: skip
        parts += [f"{name} is {text}" for name, text in stated.items() if text]
        if self.max_cloud_cover is not None:
            parts.append(f"max_cloud_cover is {self.max_cloud_cover:g}; items that state no cloud cover do not match")
        return "; ".join(parts) or "the catalog lists none"

    def matches(self, item: pystac.Item) -> bool:
        """Return whether an item matches."""
        cover = number(item.properties.get("eo:cloud_cover"))
        return (
            (not self.ids or item.id in self.ids)
            and (self.max_cloud_cover is None or (cover is not None and cover <= self.max_cloud_cover))
            and (self.datetime is None or _overlaps(self.interval, item))
            and (self.mgrs is None or tile_of(item) == self.mgrs)
            and (self.area is None or touches(item, self.area))
        )


def _overlaps(asked: TimeSpan, item: pystac.Item) -> bool:
    try:
        start, end = times_of(item.properties)
    except ValueError:
        return False
    return (asked[1] is None or start <= asked[1]) and (asked[0] is None or end >= asked[0])


def search(
    catalog: str,
    *,
    collection: str | Sequence[str] | None = None,
    bbox: Sequence[float] | None = None,
    intersects: Area | None = None,
    datetime: str | None = None,
    max_cloud_cover: float | None = None,
    tile: str | None = None,
    ids: Sequence[str] = (),
    max_items: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[pystac.Item]:
    """Search a STAC API or a static catalog, remote or local, and yield items as they are found.

    Both are filtered in the same way: by geometry, by time with both ends included, and by ``eo:cloud_cover``, which
    an item must state to match. Items have absolute, unsigned hrefs and never read files by themselves.

    Args:
        catalog: URL or path of a landing page, catalog, collection or FeatureCollection, also of one page of an API, or
            a folder with a catalog or collection.
        collection: See `Query`, as for all that follow.
        bbox: West, south, east, north in degrees.
        intersects: Area that items must intersect.
        datetime: A time or ``A/B``.
        max_cloud_cover: In percent, included.
        tile: MGRS tile, as in ``33TWL``.
        ids: Ids that match.
        max_items: Maximum number of items.
        headers: For a catalog with a login, such as ``Authorization``: sent to its server only, and never shown.

    Raises:
        ConfigError: An option cannot match anything, or a static catalog has no such collection.
        ReadError: The catalog cannot be read.
        UnsupportedItemError: A listed document is not an item, or a link is not allowed by the rule.
    """
    query = Query(
        collection=collection, bbox=bbox, intersects=intersects, datetime=datetime, max_cloud_cover=max_cloud_cover,
        tile=tile, ids=ids, max_items=max_items,
    )  # fmt: skip
    return map(_item_or_error, find(catalog, query, connection=Connection(headers=headers or {})))


def _item_or_error(found: Found) -> pystac.Item:
    if isinstance(found, Failure):
        raise found.error
    return found


def find(catalog: str, query: Query, *, connection: Connection = DEFAULT_CONNECTION) -> Iterator[Found]:
    """Find items like `search`, but yield a `Failure` for a listed item that cannot be read, and continue."""
    with JsonReader(connection, home=catalog) as reader:
        if not is_remote(catalog) and (folder := local_path(catalog)).is_dir():
            alone = (folder / "collection.json").exists() and not (folder / "catalog.json").exists()
            catalog = str(folder / ("collection.json" if alone else "catalog.json"))
        body, href = reader.read(catalog)
        listed = _listed(reader, body, href, query)
        matching = (item for item in listed if isinstance(item, Failure) or query.matches(item))
        yield from islice(matching, query.max_items)


def _listed(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """Yield the items of a document, filtered as far as its server can."""
    if body.get("type") == "Collection" and links_of(body, "items") and not link_of(body, "search"):  # of an API
        roots = (reader.read(root, base=href) for root in links_of(body, "root"))
        landing = next((root for root in roots if link_of(root[0], "search")), None)
        if landing is not None:
            query = replace(query, collection=query.collections or str(body.get("id")))
        body, href = landing or reader.read(links_of(body, "items")[0], base=href)
    if link_of(body, "search"):
        yield from _Api(reader, href).search(query)
    elif body.get("type") in {"Catalog", "Collection"}:
        yield from _Walk(reader, collections=query.collections, ids=query.ids).items(body, href)
    else:
        for item in _Api(reader, href).pages(body):
            if isinstance(item, Failure) or not query.collections or item.collection_id in query.collections:
                yield item


class _Walk:
    """A walk through a static catalog: each document is read once, and only when it is needed.

    Args:
        reader: Reader of the documents.
        collections: Collections whose items are requested; empty for all. An item belongs to the collection that
            lists it, otherwise to the one that it states.
        ids: Items that are requested; empty for all. Those whose links contain one of these ids are read first, others
            only if one is missing then.
    """

    def __init__(self, reader: JsonReader, *, collections: Iterable[str], ids: Iterable[str]) -> None:
        self._reader = reader
        self._wanted = set(collections)
        self._ids = set(ids)
        self._read: set[str] = set()
        self._collections: set[str] = set()
        self._postponed: list[Iterator[Found]] = []

    def items(self, body: Json, href: str) -> Iterator[Found]:
        """Yield the items of a catalog in the order of its links, those of a collection before its children.

        Raises:
            ConfigError: Raised at the end if a requested collection does not exist.
        """
        self._read.add(href)
        missing = set(self._ids)
        for item in self._walk(body, href, depth=0):
            missing.discard(item.id if isinstance(item, pystac.Item) else "")
            yield item
        if unknown := sorted(self._wanted - self._collections):
            there = ", ".join(sorted(self._collections)) or "none"
            raise ConfigError(f"{redact(href)} has no collection {unknown[0]!r}; it has {there}")
        if missing:
            yield from chain.from_iterable(self._postponed)

    def _walk(self, body: Json, href: str, *, depth: int) -> Iterator[Found]:
        name = str(body.get("id")) if body.get("type") == "Collection" else None
        for link in links_of(body, "item") if self._wants(name) or name is None else []:
            found = self._follow(link, href, partial(self._item, collection=name))
            if not self._ids or any(wanted in link for wanted in self._ids):
                yield from found
            else:
                self._postponed.append(found)
        for link in links_of(body, "child") if depth < MAX_DEPTH else []:
            yield from self._follow(link, href, partial(self._walk, depth=depth + 1))

    def _wants(self, collection: str | None) -> bool:
        """Return whether items of a collection are requested, and record that the collection exists."""
        if collection is not None:
            self._collections.add(collection)
        return not self._wanted or collection in self._wanted

    def _follow(self, link: str, base: str, items: Callable[[Json, str], Iterator[Found]]) -> Iterator[Found]:
        """Yield the items of a document, or its failure; nothing if it has been read already."""
        try:
            where = self._reader.locate(link, base=base)
            if where not in self._read:
                self._read.add(where)
                yield from items(*self._reader.read(where, base=base))
        except StacCloudmaskError as error:
            yield Failure(ref=redact(link), error=error)

    def _item(self, body: Json, href: str, *, collection: str | None) -> Iterator[Found]:
        item = parse_item(body, origin=href, collection=collection, rule=self._reader.rule)
        if self._wants(collection or item.collection_id):
            yield item


class _Api(StacApiIO):
    """pystac-client's search and paging over this package's connection, which checks hrefs and retries requests.

    Pages that are too large for a server are requested in a smaller size; circular paging is an error.
    """

    def __init__(self, reader: JsonReader, href: str) -> None:
        super().__init__(max_retries=None)
        self._reader, self._href, self._last = reader, href, href
        self._asked: set[str] = set()

    def search(self, query: Query) -> Iterator[Found]:
        """Yield the items of the API with this landing page, page by page."""
        with self._named_errors():
            for feature in _searched(Client.open(self._href, stac_io=self), query):
                place = f"{self._href.rstrip('/')}/collections/{feature.get('collection')}/items/{feature.get('id')}"
                yield listed_item(feature, place, self._reader.rule)

    def pages(self, body: Json) -> Iterator[Found]:
        """Yield the items of a document, and of the pages that follow it."""
        yield from items_in(body, self._href, rule=self._reader.rule)
        link = link_of(body, "next") if is_remote(self._href) else None
        if link is not None:
            method, sent = link.get("method", "GET"), link.get("body")
            with self._named_errors():
                for page in self.get_pages(str(link.get("href")), method=method, parameters=sent):
                    yield from items_in(page, self._href, rule=self._reader.rule)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Turn pystac-client's exceptions for invalid documents into an error that names the API."""
        try:
            yield
        except StacCloudmaskError:
            raise
        except (*MALFORMED, NotImplementedError, ClientTypeError, pystac.STACError, pystac.STACTypeError) as error:
            raise BrokenError(f"{redact(self._href)} is not a valid STAC API: {str(error)[:200]}") from None

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,  # noqa: ARG002  (those of a link could be anything)
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """Send a request like the base class, but over the connection of the search."""
        how = (method or "GET").upper()
        where = check_href(href, base=self._last, rule=self._reader.rule)
        if how != "POST":
            where, parameters = str(httpx2.URL(where).copy_merge_params(parameters)) if parameters else where, None
        asked = json.dumps([how, where, parameters], sort_keys=True)
        if method is not None and asked in self._asked:
            raise BrokenError(f"{redact(where)} returns the same page repeatedly")
        self._asked.add(asked)
        self._last = where
        return self._page(how, where, parameters).decode()

    def _page(self, method: str, href: str, body: Json | None) -> bytes:
        smaller = _smaller(href, body)
        try:
            return self._reader.send(method, href, base=self._href, body=body, final=TOO_MUCH if smaller else ())
        except StatusError as error:
            if smaller is None or error.status not in TOO_MUCH:
                raise
            logger.warning("%s; asking for a smaller page", error)
            return self._page(method, *smaller)


def _smaller(href: str, body: Json | None) -> tuple[str, Json | None] | None:
    """Return the same request for a quarter of the items; None if it is small enough or states no size."""
    url = httpx2.URL(href)
    stated = str((body or {}).get("limit") or url.params.get("limit", ""))
    if not stated.isdecimal() or int(stated) <= FEWEST:
        return None
    fewer = int(stated) // 4
    if body and "limit" in body:
        return href, body | {"limit": fewer}
    return str(url.copy_set_param("limit", fewer)), body


def _searched(client: Client, query: Query) -> Iterator[Json]:
    method = "POST" if any(link.extra_fields.get("method") == "POST" for link in client.get_links("search")) else "GET"
    filters = _filters(client, query, method) if client.conforms_to("QUERY") else {}
    areal = query.intersects is not None
    return client.search(
        method=method,
        collections=list(query.collections) or None,
        ids=sorted(query.ids) or None,
        bbox=None if areal or query.bbox is None else tuple(query.bbox),
        intersects=json.loads(shapely.to_geojson(query.area)) if areal else None,
        datetime=query.interval if query.datetime else None,
        query=filters or None,
        limit=min(PAGE_ITEMS, query.max_items or PAGE_ITEMS),
    ).items_as_dicts()


def _filters(client: Client, query: Query, method: str) -> Json:
    """Return filters of the query extension; the property for the tile is that of the collection's first item."""
    filters: Json = {} if query.max_cloud_cover is None else {"eo:cloud_cover": {"lte": query.max_cloud_cover}}
    if query.mgrs is None or len(query.collections) != 1:  # other collections may use another property
        return filters
    first = client.search(method=method, collections=list(query.collections), max_items=1, limit=1)
    properties = next(first.items_as_dicts(), {}).get("properties", {})
    for name, prefix in (("grid:code", "MGRS-"), ("s2:mgrs_tile", "")):
        if name in properties:
            spelled = sorted({f"{prefix}{query.mgrs}", f"{prefix}{query.mgrs.lstrip('0')}"})
            return filters | {name: {"in": spelled} if len(spelled) > 1 else {"eq": spelled[0]}}
    if "mgrs:utm_zone" in properties:
        zone, band, square = int(query.mgrs[:2]), query.mgrs[2], query.mgrs[3:]
        return filters | {
            "mgrs:utm_zone": {"eq": zone}, "mgrs:latitude_band": {"eq": band}, "mgrs:grid_square": {"eq": square},
        }  # fmt: skip
    return filters


def load_items(
    refs: Iterable[str | pystac.Item],
    *,
    catalog: str | None = None,
    collection: str | Sequence[str] | None = None,
    connection: Connection = DEFAULT_CONNECTION,
    versions: Literal["newest", "all"] = "newest",
) -> Iterator[Found]:
    """Load items by id, href or path of a JSON file, or take them as given; yield a `Failure` for those that fail.

    Args:
        refs: A text with a slash or ending in ``.json`` is an href or path, and may hold several items; any other is
            an id, to be looked up in ``catalog``.
        catalog: See ``search``.
        collection: Ids of the collections to look in; needed where an id is in several.
        connection: Connection to read through.
        versions: Of several products of one id, the ``newest`` by baseline and times, or ``all``, with their baseline
            or time in their ids.
    """
    refs = list(refs)
    ids = [ref for ref in refs if isinstance(ref, str) and not _is_href(ref)]
    known = _by_id(Query(collection=collection, ids=tuple(ids)), catalog, connection) if ids else {}
    with JsonReader(connection, home=catalog) as reader:
        found = (item for ref in refs for item in _named(ref, reader, known))
        yield from distinct(found, versions)


def distinct(found: Iterator[Found], versions: Literal["newest", "all"]) -> Iterator[Found]:
    """Yield items of which several may be products of one id: the newest, or all under ids of their own."""
    while batch := list(islice(found, COMPARED)):
        yield from _distinct(batch, every=versions == "all")


def _named(ref: str | pystac.Item, reader: JsonReader, known: Mapping[str, list[Found]]) -> Iterator[Found]:
    try:
        if isinstance(ref, pystac.Item):
            yield _as_given(ref, reader)
        elif _is_href(ref):
            body, href = reader.read(ref)
            yield from _Api(reader, href).pages(body)
        else:
            yield from known[ref]
    except StacCloudmaskError as error:
        yield Failure(ref=redact(ref if isinstance(ref, str) else ref.id), error=error)


def _is_href(ref: str) -> bool:
    return "/" in ref or ref.endswith((".json", ".geojson"))


def _as_given(item: pystac.Item, reader: JsonReader) -> pystac.Item:
    """Return a copy of the user's item.

    An item with a root elsewhere is local only if its own file exists. Paths in an item of an API, which serves URLs,
    are those of downloaded files; as a remote item may not refer to local files, they are refused when needed.
    """
    body = item.to_dict(include_self_link=True, transform_hrefs=False)
    own, giver = item.get_self_href(), next(iter(links_of(body, "root")), None)
    if giver is not None and is_remote(giver) and (own is None or not (is_remote(own) or _holds(own, item.id, reader))):
        own = giver
    if own is not None and is_remote(own) and (own == giver or API_ITEM.search(own)):
        for asset in body["assets"].values():
            asset["href"] = asset["href"] if is_remote(asset["href"]) else f"file://{asset['href']}"
    return parse_item(body, origin=own, rule=reader.rule)


def _holds(href: str, item_id: str, reader: JsonReader) -> bool:
    try:
        return bool(reader.read(href)[0].get("id") == item_id)
    except StacCloudmaskError:
        return False


def _by_id(query: Query, catalog: str | None, connection: Connection) -> dict[str, list[Found]]:
    """Return the products or the failure of each id; an id that is in several collections is a failure."""
    found: dict[str, list[Found]] = {name: [] for name in query.ids}
    failed: StacCloudmaskError | None = None
    try:
        for item in find(catalog, query, connection=connection) if catalog is not None else ():
            if isinstance(item, Failure):
                failed = item.error
                continue
            first = next(iter(found[item.id]), item)
            if isinstance(first, Failure) or place_of(first) != place_of(item):
                found[item.id] = [_ambiguous(item, first)]
            else:
                found[item.id].append(item)
    except StacCloudmaskError as error:
        failed = error
    missing = ((name, failed or _missing(name, query, catalog)) for name, items in found.items() if not items)
    return found | {name: [Failure(ref=name, error=error)] for name, error in missing}


def _missing(name: str, query: Query, catalog: str | None) -> ConfigError:
    if catalog is not None:
        place = redact(catalog) + (f", collection {', '.join(query.collections)!r}" if query.collections else "")
        return ConfigError(f"{place} has no item {name!r}")
    if Path(name).is_dir():
        return ConfigError("this is a folder; name the JSON of an item, or give the folder as the catalog")
    return ConfigError("an id needs a catalog to look it up in; an href or path needs a slash or .json")


def _ambiguous(item: pystac.Item, first: Found) -> Failure:
    other = first.collection_id if isinstance(first, pystac.Item) else "others"
    error = ConfigError(f"{item.id!r} is in collections {other!r} and {item.collection_id!r}; say which")
    return Failure(ref=item.id, error=error)


def _distinct(found: Sequence[Found], *, every: bool) -> Iterator[Found]:
    """Yield the items; if several products share an id, all under ids of their own, or only the newest."""
    products: dict[tuple[str, str], dict[Version, pystac.Item]] = {}
    for item in found:
        if isinstance(item, pystac.Item):
            products.setdefault(place_of(item), {}).setdefault(version_of(item), item)
    for item in found:
        several = {} if isinstance(item, Failure) else products[place_of(item)]
        if isinstance(item, Failure) or len(several) == 1:
            yield item
        elif every:
            yield _with_version(item, several)
        elif version_of(item) == max(several):
            yield item
        else:
            warnings.warn(
                f"item {item.id!r}: of {len(several)} products of this id the newest is masked, not that of baseline "
                f"{version_of(item)[0]:05.2f}; versions 'all' masks each",
                StacCloudmaskWarning, stacklevel=2,
            )  # fmt: skip


def without_masks(found: Iterable[Found]) -> Iterator[Found]:
    """Yield found items without the masks of this package, which a catalog may list beside their sources."""
    masks = 0
    for item in found:
        if isinstance(item, Failure) or not is_mask(item.properties):
            yield item
        else:
            masks += 1
    if masks:
        logger.warning("left out masks of stac_cloudmask among the items found: %d", masks)


def place_of(item: pystac.Item) -> tuple[str, str]:
    """Return collection and id, which determine where the mask of an item is written without a collection's config."""
    return item.collection_id or DEFAULT_COLLECTION, item.id


def _with_version(item: pystac.Item, several: Mapping[Version, pystac.Item]) -> pystac.Item:
    number_, generated, updated = version_of(item)
    by_baseline = len({version[0] for version in several}) == len(several)
    label = f"N{number_:05.2f}" if by_baseline else generated or updated
    renamed = item.clone()
    renamed.id = f"{item.id}_{''.join(filter(str.isalnum, label))}"
    renamed.set_self_href(item.get_self_href())
    return renamed
