"""Read JSON, parse items, and walk static catalogs."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import fsspec
import httpx
import pystac

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, absolute, check_addresses, check_href, is_remote, redact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType


Json = dict[str, Any]

MAX_BYTES: Final = 2**28
"""Larger documents are refused."""

TRIES: Final = 5
AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_WAIT: Final = 30.0
"""Seconds between two tries, whatever the server asks for."""
MAX_REDIRECTS: Final = 5


def broken(message: str) -> ReadError:
    """A read error that the same input will give again."""
    error = ReadError(message)
    error.retryable = False
    return error


class Documents:
    """Reads JSON documents; failing servers are asked again.

    Args:
        rule: Which hrefs may be read.
        delay: Seconds before the second try, doubled before each further one.
    """

    def __init__(self, *, rule: HrefRule = DEFAULT_RULE, delay: float = 0.5) -> None:
        self.rule = rule
        self._delay = delay
        self._client = httpx.Client(follow_redirects=False, timeout=60.0)

    def __enter__(self) -> Documents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def locate(self, href: str, *, base: str | None = None) -> str:
        """The absolute form of an href.

        Args:
            href: As given by the user, or by the document at ``base``.
            base: Where the href was found; None for the user's own.

        Raises:
            UnsupportedItemError: The rule refuses it.
        """
        own = base is None and not is_remote(href)
        return check_href(str(Path(href).absolute()) if own else href, base=base, rule=self.rule)

    def read(self, href: str, *, base: str | None = None) -> tuple[Json, str]:
        """A document and its absolute href.

        Args:
            href: See ``locate``.
            base: See ``locate``.

        Raises:
            UnsupportedItemError: The rule refuses the href, or one that it redirects to.
            ReadError: It cannot be read, or is no JSON object.
        """
        where = self.locate(href, base=base)
        if where.startswith(("http://", "https://")):
            text = self._http(where, base or where)
        else:
            text = _stored(where) if is_remote(where) else _local(where)
        try:
            body = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise broken(f"{redact(where)} is no JSON: {str(error)[:100]}") from None
        if not isinstance(body, dict):
            raise broken(f"{redact(where)} is no JSON object but a {type(body).__name__}")
        return body, where

    def _http(self, href: str, base: str) -> bytes:
        for number in range(TRIES):
            try:
                answer, content = self._follow(href, base)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = ReadError(f"{redact(href)} cannot be reached: {redact(str(error)) or type(error).__name__}")
            else:
                if answer.is_success:
                    return content
                failure = ReadError(f"{redact(href)} answers with status {answer.status_code}")
                failure.retryable = answer.status_code in AGAIN
            if not failure.retryable or number == TRIES - 1:
                raise failure
            time.sleep(min(self._delay * 2**number, LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _follow(self, href: str, base: str) -> tuple[httpx.Response, bytes]:
        for _ in range(MAX_REDIRECTS):
            check_addresses(href, base=base, rule=self.rule)
            answer, content = self._get(href)
            if not answer.has_redirect_location:
                return answer, content
            href = check_href(str(answer.url.join(answer.headers["location"])), base=base, rule=self.rule)
        raise broken(f"{redact(href)} redirects more than {MAX_REDIRECTS} times")

    def _get(self, href: str) -> tuple[httpx.Response, bytes]:
        with self._client.stream("GET", href) as answer:
            parts, size = [], 0
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise broken(f"{redact(href)} is larger than {MAX_BYTES} bytes")
            return answer, b"".join(parts)


def _local(path: str) -> bytes:
    file = Path(path)
    try:
        if not file.is_file():
            raise broken(f"there is no file {path}")
        if file.stat().st_size > MAX_BYTES:
            raise broken(f"{path} is larger than {MAX_BYTES} bytes")
        return file.read_bytes()
    except OSError as error:
        if isinstance(error, StacCloudmaskError):
            raise
        raise broken(f"{path} cannot be read: {error.strerror}") from None


def _stored(href: str) -> bytes:
    try:
        with fsspec.open(href, "rb") as file:
            content: bytes = file.read(MAX_BYTES)
    except ImportError as error:
        raise ConfigError(f"{href}: {error}; for s3:// install the extra: pip install 'stac-cloudmask[s3]'") from None
    except FileNotFoundError:
        raise broken(f"there is no object {href}") from None
    except Exception as error:  # noqa: BLE001  (stores raise errors of their own libraries)
        raise ReadError(f"{href} cannot be read: {redact(str(error))[:200]}") from None
    return content


DROPPED: Final = frozenset({"root", "parent", "self"})
"""Relations that pystac would follow behind our back, or that are set anew."""


def items_in(body: Json, href: str, *, rule: HrefRule = DEFAULT_RULE) -> Iterator[pystac.Item]:
    """The items of a document: itself, or those of a FeatureCollection or payload.

    Raises:
        UnsupportedItemError: The document, or one in it, is no item.
    """
    if isinstance(body.get("features"), list):
        for feature in body["features"]:
            yield make_item(feature, origin=own_href(feature, href, rule), rule=rule)
    else:
        yield make_item(body, origin=href, rule=rule)


def own_href(body: object, found: str, rule: HrefRule) -> str:
    """Where an item that came with others lives: its self link, if whoever gave it may name that, else ``found``."""
    links = body.get("links") if isinstance(body, dict) else None
    for link in links if isinstance(links, list) else []:
        if _is_link(link) and link["rel"] == "self" and is_remote(link["href"]) >= is_remote(found):
            try:
                return check_href(link["href"], base=found, rule=rule)
            except UnsupportedItemError:
                break
    return found


def make_item(
    body: object, *, origin: str | None, collection: str | None = None, rule: HrefRule = DEFAULT_RULE
) -> pystac.Item:
    """An item whose hrefs are absolute, whose self href is ``origin``, and which never reads anything by itself.

    Hrefs that the rule refuses stay as they are: a band with one is an error when it is resolved.

    Args:
        body: The item's JSON, which is not changed.
        origin: Where it was read from, which decides what its hrefs may lead to; None if it was made in memory.
        collection: Id of the collection that lists it, for an item that does not say.
        rule: Which hrefs may be read.

    Raises:
        UnsupportedItemError: It is no item.
    """
    place = "memory" if origin is None else redact(origin)
    kept = _checked(body, place)
    kept["links"] = [_link(link, origin) for link in kept["links"]]
    kept["assets"] = {
        key: asset | {"href": _href(asset["href"], origin, rule)} for key, asset in kept["assets"].items()
    }
    kept["collection"] = kept.get("collection") or collection
    return parsed(kept, href=origin)


def parsed(body: Json, *, href: str | None) -> pystac.Item:
    """What pystac makes of an item's JSON, whose hrefs stay as they are.

    Args:
        body: The item's JSON.
        href: Its self href; None for none.

    Raises:
        UnsupportedItemError: It makes nothing of it.
    """
    try:
        item = pystac.Item.from_dict(body, href=href, migrate=False)
        _ = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    except (
        pystac.STACError,
        pystac.STACTypeError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        place = "memory" if href is None else redact(href)
        raise UnsupportedItemError(f"item {str(body.get('id'))[:80]!r} of {place} is no valid item: {error}") from None
    return item


def _checked(body: object, place: str) -> Json:
    """A shallow copy of an item's JSON that has all that pystac takes for granted."""
    if not isinstance(body, dict) or body.get("type") != "Feature":
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise UnsupportedItemError(f"{place} holds no item but {str(kind)[:40]!r}; a catalog goes to catalog=")
    found = {"stac_version": "1.0.0", "links": [], "stac_extensions": [], **body}
    wrong = [
        name
        for name, kind in (("id", str), ("properties", dict), ("assets", dict), ("links", list))
        if not isinstance(found.get(name), kind)
    ]
    assets = found.get("assets")
    if isinstance(assets, dict):
        wrong += [f"assets.{key}" for key, asset in assets.items() if not _is_asset(asset)]
    if not isinstance(found.get("collection"), str | None):
        wrong.append("collection")
    if wrong:
        raise UnsupportedItemError(f"item {str(body.get('id'))[:80]!r} of {place} has no valid {', '.join(wrong)}")
    found["links"] = [link for link in found["links"] if _is_link(link) and link["rel"] not in DROPPED]
    return found


def _is_asset(asset: object) -> bool:
    return isinstance(asset, dict) and _parses(asset.get("href"))


def _is_link(link: object) -> bool:
    return isinstance(link, dict) and isinstance(link.get("rel"), str) and _parses(link.get("href"))


def _parses(href: object) -> bool:
    if not isinstance(href, str) or not href:
        return False
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _link(link: Mapping[str, Any], origin: str | None) -> Json:
    return {**link, "href": absolute(link["href"], origin)}


def _href(href: str, origin: str | None, rule: HrefRule) -> str:
    try:
        return check_href(href, base=origin, rule=rule)
    except UnsupportedItemError:
        return href


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
