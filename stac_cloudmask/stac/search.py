"""Search STAC APIs and static catalogs, and load items by id, URL or path."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import chain, islice
from math import isfinite
from pathlib import Path
from typing import Any, Final, Literal

import httpx2
import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.stac_api_io import StacApiIO

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, StacCloudmaskWarning
from stac_cloudmask.stac.geometry import Area, bbox_area, footprint, read_area
from stac_cloudmask.stac.hrefs import check_href, is_remote, local_path, redact
from stac_cloudmask.stac.metadata import MGRS, baseline, is_mask, number, own_property, period, tile_of, times_of
from stac_cloudmask.stac.static import (
    DEFAULT_CONNECTION,
    Connection,
    Failure,
    Json,
    JsonReader,
    StatusError,
    Walk,
    broken,
    links_of,
    own_href,
    parse_item,
)

__all__ = ["Connection", "Failure", "Query", "find", "load_items", "search"]

Interval = tuple[datetime | None, datetime | None]
Found = pystac.Item | Failure
Versions = Literal["newest", "all"]

PAGE: Final = 100
"""Items per page of an API."""
FEWEST: Final = 10
"""A page that fails with this many items is not asked for in a smaller size."""
TOO_MUCH: Final = frozenset({500, 502, 504})
"""What servers answer to a page that is too large for them."""
API_ITEM: Final = re.compile(r"/collections/[^/]+/items/[^/]+$")
DEFAULT_COLLECTION: Final = "sentinel-2-l2a"
BATCH: Final = 1000
"""Named items among which two products of one id are noticed before the first is masked."""
BROKEN: Final = (
    ClientTypeError, pystac.STACError, pystac.STACTypeError, ValueError, TypeError, AttributeError, LookupError,
    RecursionError, NotImplementedError,
)  # fmt: skip
"""What pystac-client makes of documents that are not what the specification says."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a search asks for, of a STAC API or of a static catalog.

    Attributes:
        collection: Ids of the collections whose items are wanted; none for all. One may be given as a text.
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        intersects: An area as well-known text, GeoJSON, a vector file or a geometry; with ``bbox``, both must match.
        datetime: A time or ``A/B``; ends may be open (``../B``) and times short (``2023-08`` is all of August).
        max_cloud_cover: Largest ``eo:cloud_cover`` in percent; an item that does not state it does not match.
        tile: MGRS tile, as in ``33TWL``.
        ids: Ids that match; none for any.
        max_items: Most items to give.
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
        """Refuse what cannot match anything."""
        if self.bbox is not None:
            _check_bbox(self.bbox)
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
    def interval(self) -> Interval:
        """First and last time, both included; None is open."""
        return (None, None) if self.datetime is None else _interval(self.datetime)

    @cached_property
    def area(self) -> shapely.Geometry | None:
        """Where items must lie; None for anywhere."""
        box = None if self.bbox is None else bbox_area(self.bbox)
        if self.intersects is None:
            return box
        area = read_area(self.intersects)
        return area if box is None else shapely.intersection(area, box)

    @property
    def mgrs(self) -> str | None:
        """The tile with two digits for its zone."""
        return None if self.tile is None else self.tile.upper().removeprefix("T").removeprefix("MGRS-").zfill(5)

    def hint(self) -> str:
        """What to look at where nothing was found."""
        parts = []
        if self.bbox is not None:
            west, south, east, north = self.bbox
            parts.append(
                f"bbox is west south east north, here longitude {west:g} to {east:g}, latitude {south:g} to {north:g}"
            )
        stated = {
            "collection": self.collections, "datetime": self.datetime, "tile": self.mgrs, "ids": self.ids,
            "intersects": self.area.bounds if self.area is not None and self.bbox is None else None,
        }  # fmt: skip
        parts += [f"{name} is {_text(value)}" for name, value in stated.items() if value]
        if self.max_cloud_cover is not None:
            parts.append("items that state no cloud cover do not match max_cloud_cover")
        return "; ".join(parts) or "the catalog lists none"

    def matches(self, item: pystac.Item) -> bool:
        """Whether an item is asked for."""
        return (
            (not self.ids or item.id in self.ids)
            and self._matches_cover(item)
            and (self.datetime is None or _overlaps(self.interval, item))
            and (self.mgrs is None or tile_of(item) == self.mgrs)
            and (self.area is None or _touches(self.area, item))
        )

    def _matches_cover(self, item: pystac.Item) -> bool:
        cover = number(item.properties.get("eo:cloud_cover"))
        return self.max_cloud_cover is None or (cover is not None and cover <= self.max_cloud_cover)


def _text(value: object) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_bbox(bbox: Sequence[float]) -> None:
    stated = " ".join(f"{value:g}" for value in bbox)
    if len(bbox) != 4:  # noqa: PLR2004
        raise ConfigError(f"bbox has 4 numbers, west south east north, got {stated}")
    west, south, east, north = bbox
    fits = all(map(isfinite, bbox)) and -180 <= west <= 180 and -180 <= east <= 180  # noqa: PLR2004
    if not (fits and -90 <= south <= north <= 90):  # noqa: PLR2004
        raise ConfigError(f"bbox is west south east north in degrees, longitude before latitude, got {stated}")


def _interval(stated: str) -> Interval:
    first, slash, last = stated.partition("/")
    ends = (first, last if slash else first)
    try:
        start, end = (None if one in {"", ".."} else period(one)[index] for index, one in enumerate(ends))
        if (start or end) and not (start and end and start > end):
            return start, end
    except (ValueError, OverflowError):
        pass
    raise ConfigError(
        f"datetime is a time, or A/B with open ends as '..', such as 2023-08 or 2023-08-01/.., got {stated!r}"
    )


def _overlaps(asked: Interval, item: pystac.Item) -> bool:
    try:
        start, end = times_of(item.properties)
    except ValueError:
        return False
    return (asked[1] is None or start <= asked[1]) and (asked[0] is None or end >= asked[0])


def _touches(area: shapely.Geometry, item: pystac.Item) -> bool:
    lies = footprint(item.geometry, item.bbox)
    return lies is not None and bool(lies.intersects(area))


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
    """Items of a STAC API or a static catalog, remote or local, as they are found.

    Both are filtered in the same way: by geometry, by times with both ends included, and by ``eo:cloud_cover``, which
    an item must state to match. Items have absolute, unsigned hrefs and never read anything by themselves.

    Args:
        catalog: URL or path of a landing page, catalog, collection or FeatureCollection, also of one page of an API.
        collection: See `Query`, as for all that follow.
        bbox: West, south, east, north in degrees.
        intersects: An area.
        datetime: A time or ``A/B``.
        max_cloud_cover: In percent, included.
        tile: MGRS tile, as in ``33TWL``.
        ids: Ids that match.
        max_items: Most items to give.
        headers: For a catalog with a login, such as ``Authorization``: sent to its server only, and never shown.

    Raises:
        ConfigError: An option cannot match anything, or a static catalog has no such collection.
        ReadError: The catalog cannot be read.
        UnsupportedItemError: It lists what is not an item, or leads where the rule does not let it.
    """
    query = Query(
        collection=collection, bbox=bbox, intersects=intersects, datetime=datetime, max_cloud_cover=max_cloud_cover,
        tile=tile, ids=ids, max_items=max_items,
    )  # fmt: skip
    return map(_item_or_error, find(catalog, query, connection=Connection(headers=headers or {})))


EVERYTHING: Final = Query()


def find(catalog: str, query: Query = EVERYTHING, *, connection: Connection = DEFAULT_CONNECTION) -> Iterator[Found]:
    """As `search`, but what is listed and cannot be had is a ``Failure``, and the search goes on."""
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
    """What a document lists, as far as whoever serves it can filter."""
    if _searches(body):
        yield from _Api(reader, href).search(query)
    elif body.get("type") == "Collection" and links_of(body, "items"):
        yield from _of_collection(reader, body, href, query)
    elif body.get("type") in {"Catalog", "Collection"}:
        yield from _static(reader, body, href, query)
    else:
        for item in _Api(reader, href).pages(body):
            if isinstance(item, Failure) or not query.collections or item.collection_id in query.collections:
                yield item


def _searches(body: Json) -> bool:
    """Whether a document is the landing page of an API that can be searched."""
    return _link(body, "search") is not None


def _link(body: Json, rel: str) -> Json | None:
    """The first link of a relation, whatever it leads to."""
    links = body.get("links")
    listed = links if isinstance(links, list) else ()
    return next((link for link in listed if isinstance(link, dict) and link.get("rel") == rel), None)


def _of_collection(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """A collection of an API: by the search of its root, else page by page."""
    own = replace(query, collection=query.collections or str(body.get("id")))
    for root in links_of(body, "root"):
        landing, place = reader.read(root, base=href)
        if _searches(landing):
            yield from _Api(reader, place).search(own)
            return
    page, place = reader.read(links_of(body, "items")[0], base=href)
    yield from _Api(reader, place).pages(page)


def _static(reader: JsonReader, body: Json, href: str, query: Query) -> Iterator[Found]:
    """All items; if ids are wanted, those whose links name one first, and the others if any is then missing."""
    missing = set(query.ids)
    if query.ids:
        for item in Walk(reader, collections=query.collections, named=query.ids).items(body, href):
            missing.discard(item.id if isinstance(item, pystac.Item) else "")
            yield item
    if not query.ids or missing:
        for item in Walk(reader, collections=query.collections).items(body, href):
            if not query.ids or isinstance(item, Failure) or item.id in missing:
                yield item


class _Api(StacApiIO):
    """pystac-client's searches and pages over a connection of ours, which checks hrefs and asks failing servers again.

    Pages that are too large for a server are asked for in a smaller size; those that lead around in circles end.
    """

    def __init__(self, reader: JsonReader, href: str) -> None:
        super().__init__(max_retries=None)
        self._reader, self._href, self._last = reader, href, href
        self._asked: set[str] = set()

    def search(self, query: Query) -> Iterator[Found]:
        """Items of the API whose landing page this is, page by page."""
        for feature in self._named(lambda: _searched(Client.open(self._href, stac_io=self), query)):
            there = f"{self._href.rstrip('/')}/collections/{feature.get('collection')}/items/{feature.get('id')}"
            yield from self._item(feature, there)

    def pages(self, body: Json) -> Iterator[Found]:
        """The items of a document, and of the pages that follow it."""
        if not isinstance(body.get("features"), list):
            yield parse_item(body, origin=self._href, rule=self._reader.rule)
            return
        link = _link(body, "next") if is_remote(self._href) else None
        later: Iterator[Json] = iter(())
        if link is not None:
            later = self.get_pages(str(link.get("href")), method=link.get("method", "GET"), parameters=link.get("body"))
        for page in chain([body], self._named(lambda: later)):
            for feature in page["features"] if isinstance(page.get("features"), list) else ():
                yield from self._item(feature, self._href)

    def _item(self, feature: object, found: str) -> Iterator[Found]:
        """The item of a page, which may fail without the others."""
        name = str(feature.get("id"))[:80] if isinstance(feature, dict) else str(feature)[:40]
        rule = self._reader.rule
        yield from guarded(name, lambda: [parse_item(feature, origin=own_href(feature, found, rule), rule=rule)])

    def _named(self, start: Any) -> Iterator[Json]:  # noqa: ANN401  (a function without arguments)
        """What pystac-client gives, its errors by the name of the API."""
        place = redact(self._href)
        try:
            for found in start():
                if not isinstance(found, dict):
                    raise broken(f"{place} lists {str(found)[:40]!r}, which is not an item")
                yield found
        except StacCloudmaskError:
            raise
        except BROKEN as error:
            raise broken(f"{place} is not a valid STAC API: {redact(str(error))[:200]}") from None

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,  # noqa: ARG002  (those of a link could be anything)
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """As the base class, over the connection of the search."""
        how = (method or "GET").upper()
        where = check_href(href, base=self._last, rule=self._reader.rule)
        if how != "POST" and parameters:
            where, parameters = str(httpx2.URL(where).copy_merge_params(parameters)), None
        asked = json.dumps([how, where, parameters], sort_keys=True)
        if method is not None and asked in self._asked:
            raise broken(f"{redact(where)} gives the same page again and again")
        self._asked.add(asked)
        self._last = where
        return self._page(how, where, parameters).decode()

    def _page(self, method: str, href: str, body: Json | None) -> bytes:
        smaller = _smaller(href, body)
        try:
            return self._reader.send(
                method,
                href,
                base=self._href,
                body=body if method == "POST" else None,
                final=TOO_MUCH if smaller else (),
            )
        except StatusError as error:
            if smaller is None or error.status not in TOO_MUCH:
                raise
            logger.warning("%s; asking for a smaller page", error)
            return self._page(method, *smaller)


def _smaller(href: str, body: Json | None) -> tuple[str, Json | None] | None:
    """The same request for a quarter of the items; None where it is small enough or names no size."""
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
        datetime=_stated(query.interval),
        query=filters or None,
        limit=min(PAGE, query.max_items or PAGE),
    ).items_as_dicts()


def _method(client: Client) -> str:
    posts = any(link.extra_fields.get("method") == "POST" for link in client.get_links("search"))
    return "POST" if posts else "GET"


def _stated(interval: Interval) -> str | None:
    if interval == (None, None):
        return None
    ends = [".." if end is None else end.isoformat().replace("+00:00", "Z") for end in interval]
    return ends[0] if ends[0] == ends[1] else "/".join(ends)


def _filters(client: Client, query: Query) -> Json:
    """What the query extension is to filter by; the tile of one collection by the property that its first item has."""
    filters: Json = {}
    if query.max_cloud_cover is not None:
        filters["eo:cloud_cover"] = {"lte": query.max_cloud_cover}
    if query.mgrs is None or len(query.collections) != 1:  # other collections may have it in another property
        return filters
    first = client.search(
        method=_method(client), collections=list(query.collections) or None, max_items=1, limit=1
    ).items_as_dicts()
    properties = next(iter(first), {}).get("properties", {})
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
    """Items by id, href, path of a JSON file, or as they are; what cannot be had is a ``Failure``.

    Args:
        refs: A text with a slash or ending in ``.json`` is an href or path, and may hold several items; any other is
            an id, to be looked up in ``catalog``.
        catalog: See ``search``.
        collection: Ids of the collections to look in; needed where an id is in several.
        connection: How.
        versions: Of several products of one id, the ``newest`` by baseline and times, or ``all``, with their baseline
            or time in their ids.
    """
    refs = list(refs)
    ids = [ref for ref in refs if isinstance(ref, str) and not _is_href(ref)]
    query = Query(collection=collection, ids=tuple(ids))
    known = _by_id(query, catalog, connection) if ids else {}
    with JsonReader(connection, home=catalog) as reader:
        found = (item for ref in refs for item in _named(ref, reader, known))
        while batch := list(islice(found, BATCH)):
            yield from _distinct(batch, versions)


def _named(ref: str | pystac.Item, reader: JsonReader, known: Mapping[str, Found]) -> Iterator[Found]:
    if isinstance(ref, pystac.Item):
        yield from guarded(ref.id, lambda: [_as_given(ref, reader)])
    elif _is_href(ref):
        yield from guarded(ref, lambda: _in_document(ref, reader))
    else:
        yield known[ref]


def _is_href(ref: str) -> bool:
    return "/" in ref or ref.endswith((".json", ".geojson"))


def guarded(ref: str, start: Any) -> Iterator[Found]:  # noqa: ANN401  (a function without arguments)
    """What ``start`` gives; where it fails, a ``Failure``."""
    try:
        yield from start()
    except StacCloudmaskError as error:
        yield Failure(ref=redact(ref), error=error)


def _in_document(ref: str, reader: JsonReader) -> Iterator[Found]:
    body, href = reader.read(ref)
    yield from _Api(reader, href).pages(body)


def _as_given(item: pystac.Item, reader: JsonReader) -> pystac.Item:
    """A copy of the user's item.

    One with a root elsewhere is local only if its own file is there. Paths in an item of an API, which gives URLs, are
    of files that were downloaded; as a remote item may not name local files, they are refused when they are needed.
    """
    body = item.to_dict(include_self_link=True, transform_hrefs=False)
    own, root = item.get_self_href(), item.get_single_link("root")
    giver = root.get_href(transform_href=False) if root is not None else None
    if giver is not None and is_remote(giver) and (own is None or not (is_remote(own) or _holds(own, item.id, reader))):
        own = giver
    if own is not None and is_remote(own):
        from_api = own == giver or API_ITEM.search(own) is not None
        for asset in body["assets"].values():
            asset["href"] = f"file://{asset['href']}" if from_api and not is_remote(asset["href"]) else asset["href"]
    return parse_item(body, origin=own, rule=reader.rule)


def _holds(href: str, item_id: str, reader: JsonReader) -> bool:
    try:
        return reader.read(href)[0].get("id") == item_id
    except StacCloudmaskError:
        return False


def _not_an_item(name: str) -> ConfigError:
    if Path(name).is_dir():
        return ConfigError("this is a folder; name the JSON of an item, or give the folder as the catalog")
    return ConfigError("an id needs a catalog to look it up in; an href or path needs a slash or .json")


def _by_id(query: Query, catalog: str | None, connection: Connection) -> dict[str, Found]:
    """What each id stands for; an id that is in several collections stands for none."""
    ids = query.ids
    if catalog is None:
        return {name: Failure(ref=name, error=_not_an_item(name)) for name in ids}
    found: dict[str, Found] = {}
    try:
        for item in find(catalog, query, connection=connection):
            if isinstance(item, pystac.Item):
                found[item.id] = _ambiguous(item, found[item.id]) if item.id in found else item
    except StacCloudmaskError as error:
        return {name: Failure(ref=name, error=error) for name in ids} | found
    place = redact(catalog) + (f", collection {', '.join(query.collections)!r}" if query.collections else "")
    missing = {name: ConfigError(f"{place} has no item {name!r}") for name in ids if name not in found}
    return found | {name: Failure(ref=name, error=error) for name, error in missing.items()}


def _ambiguous(item: pystac.Item, first: Found) -> Failure:
    other = first.collection_id if isinstance(first, pystac.Item) else "others"
    error = ConfigError(f"{item.id!r} is in collections {other!r} and {item.collection_id!r}; say which")
    return Failure(ref=item.id, error=error)


def _distinct(found: Sequence[Found], versions: Versions) -> Iterator[Found]:
    """The items, where several products have one id only those of ``versions``."""
    products: dict[tuple[str, str], dict[tuple[object, ...], pystac.Item]] = {}
    for item in found:
        if isinstance(item, pystac.Item):
            products.setdefault(place_of(item), {}).setdefault(version_of(item), item)
    for item in found:
        several = {} if isinstance(item, Failure) else products[place_of(item)]
        if len(several) < 2 or isinstance(item, Failure):  # noqa: PLR2004
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
    """What a search found without the masks of this package, which a catalog may list beside their sources."""
    masks = 0
    for item in found:
        if isinstance(item, Failure) or not is_mask(item.properties):
            yield item
        else:
            masks += 1
    if masks:
        logger.warning("%d items are masks of stac_cloudmask already and are left out", masks)


def place_of(item: pystac.Item) -> tuple[str, str]:
    """Collection and id, which decide where the mask of an item is written."""
    return item.collection_id or DEFAULT_COLLECTION, item.id


def version_of(item: pystac.Item) -> tuple[float, str, str]:
    """Baseline, time of generation and time of the last change of an item: the larger, the newer."""
    return (
        baseline(item) or 0.0,
        str(own_property(item, "generation_time", "product_generation_time") or ""),
        str(item.properties.get("updated") or ""),
    )


def _with_version(item: pystac.Item, several: Mapping[tuple[object, ...], pystac.Item]) -> pystac.Item:
    number_, generated, updated = version_of(item)
    by_baseline = len({version[0] for version in several}) == len(several)
    label = f"N{number_:05.2f}" if by_baseline else generated or updated
    renamed = item.clone()
    renamed.id = f"{item.id}_{''.join(filter(str.isalnum, label))}"
    renamed.set_self_href(item.get_self_href())
    return renamed
