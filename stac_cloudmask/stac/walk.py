"""Items of a static catalog, found by following its links, no sooner than they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.intake import items_in, make_item

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pystac

    from stac_cloudmask.stac.documents import Documents, Json

MAX_DEPTH: Final = 16
"""Links from the catalog to a collection; deeper ones are not followed."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An item that was asked for or listed, and could not be had.

    Attributes:
        ref: As it was asked for or listed, without secrets.
        error: Why.
    """

    ref: str
    error: StacCloudmaskError


class Walk:
    """A walk through a static catalog: each document is read once, and only when it is needed.

    Args:
        documents: Reads them.
        collection: The only collection whose items are wanted; None for all. Items count by the collection that lists
            them, else by what they say.
        named: Only items whose link contains one of these ids are read; None for all.
    """

    def __init__(self, documents: Documents, *, collection: str | None, named: Iterable[str] | None = None) -> None:
        self._documents = documents
        self._named = named
        self._collection = collection
        self._read: set[str] = set()
        self._collections: set[str] = set()

    def items(self, body: Json, href: str) -> Iterator[pystac.Item | Failure]:
        """The items of a catalog in the order of its links, those of a collection before its children.

        Raises:
            ConfigError: At the end, if there is no such collection.
        """
        if body.get("type") not in {"Catalog", "Collection"}:
            yield from self._own(items_in(body, href, rule=self._documents.rule))
            return
        self._read.add(href)
        yield from self._walk(body, href, depth=0)
        if self._collection is not None and self._collection not in self._collections:
            there = ", ".join(sorted(self._collections)) or "none"
            raise ConfigError(f"{redact(href)} has no collection {self._collection!r}; it has {there}")

    def _walk(self, body: Json, href: str, *, depth: int) -> Iterator[pystac.Item | Failure]:
        name = str(body.get("id")) if body.get("type") == "Collection" else None
        if name is not None:
            self._collections.add(name)
        if name is None or self._collection in {None, name}:
            for link in filter(self._is_named, _links(body, "item")):
                yield from self._own(self._linked(link, href, name), listed_by=name)
        for link in _links(body, "child") if depth < MAX_DEPTH else []:
            try:
                child, where = self._once(link, href)
            except StacCloudmaskError as error:
                yield Failure(ref=redact(link), error=error)
                continue
            if child is not None:
                yield from self._walk(child, where, depth=depth + 1)

    def _is_named(self, link: str) -> bool:
        return self._named is None or any(name in link for name in self._named)

    def _linked(self, link: str, href: str, collection: str | None) -> Iterator[pystac.Item | Failure]:
        try:
            body, where = self._once(link, href)
            if body is not None:
                yield make_item(body, origin=where, collection=collection, rule=self._documents.rule)
        except StacCloudmaskError as error:
            yield Failure(ref=redact(link), error=error)

    def _own(
        self, items: Iterator[pystac.Item | Failure] | Iterator[pystac.Item], *, listed_by: str | None = None
    ) -> Iterator[pystac.Item | Failure]:
        """Those of the wanted collection."""
        for item in items:
            stated = None if isinstance(item, Failure) else listed_by or item.collection_id
            if stated is not None:
                self._collections.add(stated)
            if isinstance(item, Failure) or self._collection in {None, stated}:
                yield item

    def _once(self, link: str, base: str) -> tuple[Json | None, str]:
        """A document that has not been read yet, and its href; None for one that has."""
        where = self._documents.locate(link, base=base)
        if where in self._read:
            return None, where
        self._read.add(where)
        return self._documents.read(where, base=base)


def _links(body: dict[str, Any], rel: str) -> list[str]:
    """Hrefs of the links of one relation."""
    links = body.get("links")
    return [
        link["href"]
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("rel") == rel and isinstance(link.get("href"), str)
    ]
