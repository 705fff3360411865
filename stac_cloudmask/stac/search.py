"""Search STAC APIs and static catalogs, and load items by id, URL or path."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urljoin

import pystac
import shapely
from pystac_client import Client
from pystac_client.errors import ClientTypeError
from pystac_client.exceptions import APIError
from pystac_client.item_search import ItemSearch
from pystac_client.stac_api_io import StacApiIO
from shapely.errors import ShapelyError
from shapely.geometry import box, shape
from urllib3 import Retry

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, check_addresses, check_href, is_remote, redact
from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.static import AGAIN, TRIES, Documents, Failure, Walk, broken, items_in, make_item, own_href

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from requests import Response

    from stac_cloudmask.stac.static import Json

Bbox = tuple[float, float, float, float]
Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a search asks of an item, as a STAC API understands it.

    Attributes:
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        interval: First and last time, both included; None is open.
        max_cloud_cover: Largest ``eo:cloud_cover`` in percent; an item that does not state it does not match.
        ids: Ids that match; None for any.
    """

    bbox: Bbox | None = None
    interval: Interval = (None, None)
    max_cloud_cover: float | None = None
    ids: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot match anything."""
        if self.bbox is not None:
            _check_bbox(self.bbox)
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:  # noqa: PLR2004
            raise ConfigError(f"max_cloud_cover is a percentage of 0 to 100, got {self.max_cloud_cover}")

    def matches(self, item: pystac.Item) -> bool:
        """Whether an item is asked for."""
        return (
            (self.ids is None or item.id in self.ids)
            and self._matches_cover(item)
            and _overlaps(self.interval, _times(item))
            and (self.bbox is None or _touches(self.bbox, item))
        )

    def _matches_cover(self, item: pystac.Item) -> bool:
        cover = number(item.properties.get("eo:cloud_cover"))
        return self.max_cloud_cover is None or (cover is not None and cover <= self.max_cloud_cover)


def parse_interval(stated: str | None) -> Interval:
    """Times of ``A/B`` with open ends as ``..``, both RFC 3339 in full, or of one time."""
    if stated is None:
        return None, None
    first, _, last = stated.partition("/")
    return _time(first), _time(last or first)


def _time(stated: str) -> datetime | None:
    if stated in {"", ".."}:
        return None
    found = datetime.fromisoformat(stated)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _check_bbox(bbox: Bbox) -> None:
    west, south, east, north = bbox
    fits = all(map(math.isfinite, bbox)) and -180 <= west <= 180 and -180 <= east <= 180  # noqa: PLR2004
    if not (fits and -90 <= south <= north <= 90):  # noqa: PLR2004
        raise ConfigError(f"bbox is west south east north in degrees, got {' '.join(f'{value:g}' for value in bbox)}")


def _times(item: pystac.Item) -> Interval:
    if item.datetime is not None:
        return item.datetime, item.datetime
    common = item.common_metadata
    return common.start_datetime, common.end_datetime


def _overlaps(asked: Interval, given: Interval) -> bool:
    starts_in_time = asked[1] is None or given[0] is None or _aware(given[0]) <= asked[1]
    ends_in_time = asked[0] is None or given[1] is None or _aware(given[1]) >= asked[0]
    return starts_in_time and ends_in_time


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _touches(bbox: Bbox, item: pystac.Item) -> bool:
    west, south, east, north = bbox
    halves = (
        [box(west, south, east, north)]
        if west <= east
        else [box(west, south, 180, north), box(-180, south, east, north)]
    )
    footprint = _footprint(item)
    return footprint is not None and any(footprint.intersects(half) for half in halves)


def _footprint(item: pystac.Item) -> shapely.Geometry | None:
    """The geometry, or the bbox of an item whose geometry is missing or broken."""
    try:
        if item.geometry is not None:
            return shape(item.geometry)
        if item.bbox is None:
            return None
        values = [float(value) for value in item.bbox]
        west, south, east, north = values if len(values) == 4 else (values[0], values[1], values[3], values[4])  # noqa: PLR2004
        if west <= east:
            return box(west, south, east, north)
        return shapely.union(box(west, south, 180, north), box(-180, south, east, north))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, ShapelyError):
        return None


BROKEN: Final = (
    ClientTypeError, pystac.STACError, pystac.STACTypeError, ValueError, TypeError, AttributeError, LookupError,
    RecursionError, NotImplementedError,
)  # fmt: skip
"""What pystac-client makes of documents that are not what the specification says."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an API is asked for; what it cannot filter by itself is left to the caller.

    Attributes:
        collection: Id of the only collection; None for all.
        wanted: Ids, bbox and cloud cover.
        datetime: In full, see ``in_full``.
        page: Items per page.
    """

    collection: str | None
    wanted: Filter
    datetime: str | None
    page: int


def features(href: str, asked: Asked, *, rule: HrefRule) -> Iterator[Json]:
    """Item dicts of the API whose landing page is at ``href``, page by page.

    Raises:
        ReadError: The API fails or refuses.
        UnsupportedItemError: It leads where the rule does not let it.
    """
    try:
        for feature in _pages(Client.open(href, stac_io=_GuardedIO(href, rule)), asked):
            if not isinstance(feature, dict):
                raise broken(f"{redact(href)} lists {str(feature)[:40]!r}, which is no item")
            yield feature
    except APIError as error:
        raise _failure(error, href) from None
    except StacCloudmaskError:
        raise
    except BROKEN as error:
        raise broken(f"{redact(href)} is no valid STAC API: {redact(str(error))[:200]}") from None


def _pages(client: Client, asked: Asked) -> Iterator[Json]:
    wanted = asked.wanted
    filters = wanted.max_cloud_cover is not None and client.conforms_to("QUERY")
    posts = any(link.extra_fields.get("method") == "POST" for link in client.get_links("search"))
    return client.search(
        method="POST" if posts else "GET",
        collections=None if asked.collection is None else [asked.collection],
        ids=None if wanted.ids is None else sorted(wanted.ids),
        bbox=wanted.bbox,
        datetime=asked.datetime,
        query={"eo:cloud_cover": {"lte": wanted.max_cloud_cover}} if filters else None,
        limit=asked.page,
    ).items_as_dicts()


def _failure(error: APIError, href: str) -> StacCloudmaskError:
    """What an error of pystac-client means: its own, or ours that it has wrapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, StacCloudmaskError):
            return cause
        cause = cause.__cause__ or cause.__context__
    failure = ReadError(f"search of {redact(href)} failed: {redact(str(error))[:300]}")
    status = getattr(error, "status_code", None)  # set by some of its ways only
    failure.retryable = status is None or status in AGAIN
    return failure


class _GuardedIO(StacApiIO):
    """Asks failing servers again, and checks every href and redirect."""

    def __init__(self, base: str, rule: HrefRule) -> None:
        again = Retry(TRIES, backoff_factor=0.5, status_forcelist=AGAIN, allowed_methods=None, raise_on_status=False)
        super().__init__(timeout=60.0, max_retries=again)
        self._base, self._rule = base, rule
        self._asked: set[str] = set()
        self.session.hooks["response"].append(self._check)

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        """As the base class, for hrefs that may be read; pages that lead around in circles end in an error."""
        asked = json.dumps([href, method, parameters], sort_keys=True)
        if method is not None and asked in self._asked:
            raise broken(f"{redact(href)} gives the same page again and again")
        self._asked.add(asked)
        allowed = check_href(href, base=self._base, rule=self._rule)
        check_addresses(allowed, base=self._base, rule=self._rule)
        return super().request(allowed, method, headers, parameters)

    def _check(self, answer: Response, **_: object) -> None:
        if answer.is_redirect:
            check_href(urljoin(answer.url, answer.headers["location"]), base=self._base, rule=self._rule)


def in_full(datetime: str | None) -> str | None:
    """A time or interval with every part: ``2023-08`` is from the first to the last second of the month.

    Raises:
        ConfigError: It is neither.
    """
    if datetime is None:
        return None
    try:
        stated = str(ItemSearch("https://unused.invalid", datetime=datetime).get_parameters()["datetime"])
        first, last = parse_interval(stated)
        fits = (first or last) and not (first and last and first > last)
    except Exception:  # noqa: BLE001  (that is what pystac-client raises)
        fits = False
    if not fits:
        raise ConfigError(
            f"datetime is a time, or A/B with open ends as '..', such as 2023-08 or 2023-08-01/.., got {datetime!r}"
        )
    return stated


PAGE: Final = 100
"""Items per page of an API."""

Found = pystac.Item | Failure

__all__ = ["Failure", "find", "load_items", "search"]


def search(
    catalog: str,
    *,
    collection: str | None = None,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    max_cloud_cover: float | None = None,
    max_items: int | None = None,
    rule: HrefRule = DEFAULT_RULE,
) -> Iterator[pystac.Item]:
    """Items of a STAC API or a static catalog, remote or local, as they are found.

    Both are filtered alike: by geometry, by times with both ends included, and by ``eo:cloud_cover``, which an item
    must state to match. Items have absolute, unsigned hrefs and never read anything by themselves.

    Args:
        catalog: URL or path of a landing page, catalog, collection or FeatureCollection.
        collection: Id of the only collection whose items are wanted.
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        datetime: A time or ``A/B``; ends may be open (``../B``) and times short (``2023-08`` is all of August).
        max_cloud_cover: In percent, included.
        max_items: Most items to give.
        rule: Which hrefs may be read.

    Raises:
        ConfigError: An option cannot match anything, or a static catalog has no such collection.
        ReadError: The catalog cannot be read.
        UnsupportedItemError: It lists what is no item, or leads where the rule does not let it.
    """
    found = find(
        catalog,
        collection=collection,
        bbox=bbox,
        datetime=datetime,
        max_cloud_cover=max_cloud_cover,
        max_items=max_items,
        rule=rule,
    )
    return map(_item_or_error, found)


def find(
    catalog: str,
    *,
    collection: str | None = None,
    bbox: Sequence[float] | None = None,
    datetime: str | None = None,
    max_cloud_cover: float | None = None,
    max_items: int | None = None,
    rule: HrefRule = DEFAULT_RULE,
) -> Iterator[Found]:
    """As ``search``, but what is listed and cannot be had is a ``Failure``, and the search goes on."""
    when = in_full(datetime)
    wanted = Filter(bbox=_four(bbox), interval=parse_interval(when), max_cloud_cover=max_cloud_cover)
    if max_items is not None and max_items < 1:
        raise ConfigError(f"max_items must be at least 1, got {max_items}")
    query = _Query(catalog=catalog, collection=collection, wanted=wanted, datetime=when, max_items=max_items, rule=rule)
    return islice(query.run(), max_items)


def load_items(
    refs: Iterable[str | pystac.Item],
    *,
    catalog: str | None = None,
    collection: str | None = None,
    rule: HrefRule = DEFAULT_RULE,
) -> Iterator[Found]:
    """Items by id, href, path of a JSON file, or as they are; what cannot be had is a ``Failure``.

    Args:
        refs: A text with a slash or ending in ``.json`` is an href or path, and may hold several items; any other is
            an id, to be looked up in ``catalog``.
        catalog: See ``search``.
        collection: Id of the collection to look in; needed where an id is in several.
        rule: Which hrefs may be read.
    """
    refs = list(refs)
    ids = [ref for ref in refs if isinstance(ref, str) and not _is_href(ref)]
    known = _by_id(ids, catalog, collection, rule) if ids else {}
    with Documents(rule=rule) as documents:
        for ref in refs:
            if isinstance(ref, pystac.Item):
                yield from _guarded(ref.id, _as_given(ref, rule))
            elif _is_href(ref):
                yield from _guarded(ref, _in_document(ref, documents))
            else:
                yield known[ref]


def _item_or_error(found: Found) -> pystac.Item:
    if isinstance(found, Failure):
        raise found.error
    return found


def _is_href(ref: str) -> bool:
    return "/" in ref or ref.endswith((".json", ".geojson"))


def _guarded(ref: str, items: Iterator[pystac.Item]) -> Iterator[Found]:
    try:
        yield from items
    except StacCloudmaskError as error:
        yield Failure(ref=redact(ref), error=error)


def _in_document(ref: str, documents: Documents) -> Iterator[pystac.Item]:
    body, href = documents.read(ref)
    yield from items_in(body, href, rule=documents.rule)


def _as_given(item: pystac.Item, rule: HrefRule) -> Iterator[pystac.Item]:
    """A copy of the user's item; one that an API gave counts as remote whatever its self link says."""
    body = item.to_dict(include_self_link=True, transform_hrefs=False)
    root = item.get_single_link("root")
    giver = root.get_href(transform_href=False) if root is not None else None
    own = item.get_self_href()
    if giver is not None and is_remote(giver):
        own = own_href(body, giver, rule)
    yield make_item(body, origin=own, rule=rule)


def _by_id(ids: Sequence[str], catalog: str | None, collection: str | None, rule: HrefRule) -> dict[str, Found]:
    """What each id stands for; an id that is in several collections stands for none."""
    if catalog is None:
        error = ConfigError("an id needs a catalog to look it up in; an href or path needs a slash or .json")
        return {name: Failure(ref=name, error=error) for name in ids}
    query = _Query(catalog=catalog, collection=collection, wanted=Filter(ids=frozenset(ids)), rule=rule)
    found: dict[str, Found] = {}
    try:
        for item in query.run():
            if isinstance(item, pystac.Item):
                found[item.id] = _ambiguous(item, found[item.id]) if item.id in found else item
    except StacCloudmaskError as error:
        return {name: Failure(ref=name, error=error) for name in ids} | found
    place = redact(catalog) + (f", collection {collection!r}" if collection else "")
    missing = {name: ConfigError(f"{place} has no item {name!r}") for name in ids if name not in found}
    return found | {name: Failure(ref=name, error=error) for name, error in missing.items()}


def _ambiguous(item: pystac.Item, first: Found) -> Failure:
    other = first.collection_id if isinstance(first, pystac.Item) else "others"
    error = ConfigError(f"{item.id!r} is in collections {other!r} and {item.collection_id!r}; say which")
    return Failure(ref=item.id, error=error)


@dataclass(frozen=True, kw_only=True)
class _Query:
    """A search, whatever the catalog is."""

    catalog: str
    collection: str | None
    wanted: Filter
    datetime: str | None = None
    max_items: int | None = None
    rule: HrefRule

    def run(self) -> Iterator[Found]:
        """What matches, and what is listed and cannot be had."""
        with Documents(rule=self.rule) as documents:
            folder = not is_remote(self.catalog) and Path(self.catalog).is_dir()
            body, href = documents.read(f"{self.catalog}/catalog.json" if folder else self.catalog)
            for item in self._api(href) if _is_api(body) else self._static(documents, body, href):
                if isinstance(item, Failure) or self.wanted.matches(item):
                    yield item

    def _static(self, documents: Documents, body: Json, href: str) -> Iterator[Found]:
        """All items; if ids are wanted, those whose links name one first, and the others if any is then missing."""
        ids = self.wanted.ids
        missing = set(ids or ())
        if ids is not None:
            for item in Walk(documents, collection=self.collection, named=ids).items(body, href):
                missing.discard(item.id if isinstance(item, pystac.Item) else "")
                yield item
        if ids is None or missing:
            for item in Walk(documents, collection=self.collection).items(body, href):
                if ids is None or isinstance(item, Failure) or item.id in missing:
                    yield item

    def _api(self, href: str) -> Iterator[Found]:
        asked = Asked(
            collection=self.collection,
            wanted=self.wanted,
            datetime=self.datetime,
            page=min(PAGE, self.max_items or PAGE),
        )
        for feature in features(href, asked, rule=self.rule):
            yield from _guarded(str(feature.get("id"))[:80], _of_api(feature, href, self.rule))


def _is_api(body: Json) -> bool:
    links = body.get("links")
    listed = links if isinstance(links, list) else []
    return any(isinstance(link, dict) and link.get("rel") == "search" for link in listed)


def _of_api(feature: Json, href: str, rule: HrefRule) -> Iterator[pystac.Item]:
    there = f"{href.rstrip('/')}/collections/{feature.get('collection')}/items/{feature.get('id')}"
    yield make_item(feature, origin=own_href(feature, there, rule), rule=rule)


def _four(bbox: Sequence[float] | None) -> Bbox | None:
    if bbox is None:
        return None
    if len(bbox) != 4:  # noqa: PLR2004
        raise ConfigError(f"bbox has 4 numbers, west south east north, got {len(bbox)}")
    west, south, east, north = map(float, bbox)
    return west, south, east, north
