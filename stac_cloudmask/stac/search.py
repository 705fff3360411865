"""Search STAC APIs and static catalogs, and load items by id, URL or path."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import httpx2
import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.stac_api_io import StacApiIO

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, StacCloudmaskWarning, redact
from stac_cloudmask.stac.connection import DEFAULT_CONNECTION, BrokenError, Connection, JsonReader, StatusError
from stac_cloudmask.stac.hrefs import check_href, is_remote, local_path
from stac_cloudmask.stac.mask_item import DEFAULT_COLLECTION
from stac_cloudmask.stac.metadata import baseline, is_mask, own_property
from stac_cloudmask.stac.query import Query
from stac_cloudmask.stac.static import (
    Failure,
    Found,
    Json,
    Walk,
    items_in,
    link_of,
    links_of,
    listed_item,
    or_failure,
    parse_item,
)

if TYPE_CHECKING:
    from stac_cloudmask.stac.geometry import Area

Versions = Literal["newest", "all"]
Version = tuple[float, str, str]

PAGE: Final = 100
"""Items per page of an API."""
FEWEST: Final = 10
"""Minimum number of items per page; a failing page of this size is not retried with a smaller size."""
TOO_MUCH: Final = frozenset({500, 502, 504})
"""Statuses that servers return for pages that are too large for them."""
API_ITEM: Final = re.compile(r"/collections/[^/]+/items/[^/]+$")
BATCH: Final = 1000
"""Maximum number of named items that are checked for duplicate ids before the first is masked."""
BROKEN: Final = (
    ClientTypeError, pystac.STACError, pystac.STACTypeError, ValueError, TypeError, AttributeError, LookupError,
    RecursionError, NotImplementedError,
)  # fmt: skip
"""Exceptions of pystac-client for documents that violate the specification."""

logger = logging.getLogger(__name__)


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
        catalog: URL or path of a landing page, catalog, collection or FeatureCollection, also of one page of an API.
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


EVERYTHING: Final = Query()


def find(catalog: str, query: Query = EVERYTHING, *, connection: Connection = DEFAULT_CONNECTION) -> Iterator[Found]:
    """Find items like `search`, but yield a `Failure` for a listed item that cannot be read, and continue."""
    return islice(_matching(catalog, query, connection), query.max_items)


def _item_or_error(found: Found) -> pystac.Item:
    if isinstance(found, Failure):
        raise found.error
    return found


def _matching(catalog: str, query: Query, connection: Connection) -> Iterator[Found]:
    with JsonReader(connection, home=catalog) as reader:
        folder = not is_remote(catalog) and local_path(catalog).is_dir()
        body, href = reader.read(str(local_path(catalog) / "catalog.json") if folder else catalog)
        for item in _listed(reader, body, href, query):
            if isinstance(item, Failure) or query.matches(item):
                yield item


def _listed(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """Yield the items of a document, filtered as far as its server can."""
    if link_of(body, "search"):
        yield from _Api(reader, href).search(query)
    elif body.get("type") == "Collection" and links_of(body, "items"):
        yield from _of_collection(reader, body, href, query)
    elif body.get("type") in {"Catalog", "Collection"}:
        yield from _static(reader, body, href, query)
    else:
        for item in _Api(reader, href).pages(body):
            if isinstance(item, Failure) or not query.collections or item.collection_id in query.collections:
                yield item


def _of_collection(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """Yield the items of an API's collection: by the search of its root, else page by page."""
    for root in links_of(body, "root"):
        landing, place = reader.read(root, base=href)
        if link_of(landing, "search"):
            yield from _Api(reader, place).search(replace(query, collection=query.collections or str(body.get("id"))))
            return
    page, place = reader.read(links_of(body, "items")[0], base=href)
    yield from _Api(reader, place).pages(page)


def _static(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """Yield all items; if ids are requested, those whose links contain one first, others only if one is missing."""
    missing = set(query.ids)
    for item in Walk(reader, collections=query.collections, named=query.ids or None).items(body, href):
        missing.discard(item.id if isinstance(item, pystac.Item) else "")
        yield item
    for item in Walk(reader, collections=query.collections).items(body, href) if missing else ():
        if isinstance(item, Failure) or item.id in missing:
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
        except BROKEN as error:
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
        if how != "POST" and parameters:
            where, parameters = str(httpx2.URL(where).copy_merge_params(parameters)), None
        asked = json.dumps([how, where, parameters], sort_keys=True)
        if method is not None and asked in self._asked:
            raise BrokenError(f"{redact(where)} returns the same page repeatedly")
        self._asked.add(asked)
        self._last = where
        return self._page(how, where, parameters).decode()

    def _page(self, method: str, href: str, body: Json | None) -> bytes:
        smaller = _smaller(href, body)
        final, sent = TOO_MUCH if smaller else (), body if method == "POST" else None
        try:
            return self._reader.send(method, href, base=self._href, body=sent, final=final)
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
    filters = _filters(client, query) if client.conforms_to("QUERY") else {}
    areal = query.intersects is not None
    return client.search(
        method=_method(client),
        collections=list(query.collections) or None,
        ids=sorted(query.ids) or None,
        bbox=None if areal or query.bbox is None else tuple(query.bbox),
        intersects=json.loads(shapely.to_geojson(query.area)) if areal else None,
        datetime=query.interval if query.datetime else None,
        query=filters or None,
        limit=min(PAGE, query.max_items or PAGE),
    ).items_as_dicts()


def _method(client: Client) -> str:
    posts = any(link.extra_fields.get("method") == "POST" for link in client.get_links("search"))
    return "POST" if posts else "GET"


def _filters(client: Client, query: Query) -> Json:
    """Return filters of the query extension; the property for the tile is that of the collection's first item."""
    filters: Json = {} if query.max_cloud_cover is None else {"eo:cloud_cover": {"lte": query.max_cloud_cover}}
    if query.mgrs is None or len(query.collections) != 1:  # other collections may use another property
        return filters
    first = client.search(method=_method(client), collections=list(query.collections), max_items=1, limit=1)
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
    versions: Versions = "newest",
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
        while batch := list(islice(found, BATCH)):
            yield from _distinct(batch, versions)


def _named(ref: str | pystac.Item, reader: JsonReader, known: Mapping[str, Found]) -> Iterator[Found]:
    if isinstance(ref, pystac.Item):
        yield or_failure(ref.id, _as_given, ref, reader)
    elif not _is_href(ref):
        yield known[ref]
    else:
        try:
            body, href = reader.read(ref)
            yield from _Api(reader, href).pages(body)
        except StacCloudmaskError as error:
            yield Failure(ref=redact(ref), error=error)


def _is_href(ref: str) -> bool:
    return "/" in ref or ref.endswith((".json", ".geojson"))


def _as_given(item: pystac.Item, reader: JsonReader) -> pystac.Item:
    """Return a copy of the user's item.

    An item with a root elsewhere is local only if its own file exists. Paths in an item of an API, which serves URLs,
    are those of downloaded files; as a remote item may not refer to local files, they are refused when needed.
    """
    body = item.to_dict(include_self_link=True, transform_hrefs=False)
    own, root = item.get_self_href(), item.get_single_link("root")
    giver = root.get_href(transform_href=False) if root is not None else None
    if giver is not None and is_remote(giver) and (own is None or not (is_remote(own) or _holds(own, item.id, reader))):
        own = giver
    if own is not None and is_remote(own) and (own == giver or API_ITEM.search(own)):
        for asset in body["assets"].values():
            asset["href"] = asset["href"] if is_remote(asset["href"]) else f"file://{asset['href']}"
    return parse_item(body, origin=own, rule=reader.rule)


def _holds(href: str, item_id: str, reader: JsonReader) -> bool:
    found = or_failure(href, reader.read, href)
    return not isinstance(found, Failure) and found[0].get("id") == item_id


def _by_id(query: Query, catalog: str | None, connection: Connection) -> dict[str, Found]:
    """Return the item or failure for each id; an id that is in several collections is a failure."""
    if catalog is None:
        return {name: Failure(ref=name, error=_not_an_item(name)) for name in query.ids}
    found: dict[str, Found] = {}
    place = redact(catalog) + (f", collection {', '.join(query.collections)!r}" if query.collections else "")
    try:
        for item in find(catalog, query, connection=connection):
            if isinstance(item, pystac.Item):
                found[item.id] = _ambiguous(item, found[item.id]) if item.id in found else item
    except StacCloudmaskError as error:
        return {name: Failure(ref=name, error=error) for name in query.ids} | found
    missing = {name: Failure(ref=name, error=ConfigError(f"{place} has no item {name!r}")) for name in query.ids}
    return missing | found


def _not_an_item(name: str) -> ConfigError:
    if Path(name).is_dir():
        return ConfigError("this is a folder; name the JSON of an item, or give the folder as the catalog")
    return ConfigError("an id needs a catalog to look it up in; an href or path needs a slash or .json")


def _ambiguous(item: pystac.Item, first: Found) -> Failure:
    other = first.collection_id if isinstance(first, pystac.Item) else "others"
    error = ConfigError(f"{item.id!r} is in collections {other!r} and {item.collection_id!r}; say which")
    return Failure(ref=item.id, error=error)


def _distinct(found: Sequence[Found], versions: Versions) -> Iterator[Found]:
    """Yield the items; if several products share an id, only those that ``versions`` selects."""
    products: dict[tuple[str, str], dict[Version, pystac.Item]] = {}
    for item in found:
        if isinstance(item, pystac.Item):
            products.setdefault(place_of(item), {}).setdefault(version_of(item), item)
    for item in found:
        several = {} if isinstance(item, Failure) else products[place_of(item)]
        if isinstance(item, Failure) or len(several) == 1:
            yield item
        elif versions == "all":
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
    """Return collection and id, which determine where the mask of an item is written."""
    return item.collection_id or DEFAULT_COLLECTION, item.id


def version_of(item: pystac.Item) -> Version:
    """Return the baseline, time of generation and time of the last change of an item; newer items compare greater."""
    return (
        baseline(item) or 0.0,
        str(own_property(item, "generation_time", "product_generation_time") or ""),
        str(item.properties.get("updated") or ""),
    )


def _with_version(item: pystac.Item, several: Mapping[Version, pystac.Item]) -> pystac.Item:
    number_, generated, updated = version_of(item)
    by_baseline = len({version[0] for version in several}) == len(several)
    label = f"N{number_:05.2f}" if by_baseline else generated or updated
    renamed = item.clone()
    renamed.id = f"{item.id}_{''.join(filter(str.isalnum, label))}"
    renamed.set_self_href(item.get_self_href())
    return renamed
