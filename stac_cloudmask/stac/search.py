"""Finding items: in STAC APIs, in static catalogs, by id, href, path, or as they are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pystac

from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.stac.client import Asked, features, in_full
from stac_cloudmask.stac.documents import Documents
from stac_cloudmask.stac.filters import Bbox, Filter, parse_interval
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, is_remote, redact
from stac_cloudmask.stac.intake import items_in, make_item, own_href
from stac_cloudmask.stac.walk import Failure, Walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stac_cloudmask.stac.documents import Json

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
