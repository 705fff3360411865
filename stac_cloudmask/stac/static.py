"""Read JSON documents, parse items, and walk static catalogs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self, TypeVar, TypeVarTuple
from urllib.parse import urlsplit

import fsspec
import httpx2
import pystac
import shapely
from shapely.geometry import shape

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.retry import DEFAULT_POLICY, PASSING, RetryPolicy, retry_after, retrying
from stac_cloudmask.stac.geometry import BROKEN, bbox_of, footprint
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, absolute, check_href, is_remote, local_path, redact
from stac_cloudmask.stac.metadata import utc

Json = dict[str, Any]
Given = TypeVarTuple("Given")
Made = TypeVar("Made")

MEMBERS: Final = MappingProxyType(
    {"id": str, "properties": dict, "assets": dict, "links": list, "collection": str | None},
)
"""Members of an item that are relied on, and their types."""

MAX_BYTES: Final = 2**28
"""Larger documents are refused."""
MAX_REDIRECTS: Final = 5
CONNECT_SECONDS: Final = 5.0
SEE_OTHER: Final = 303
GONE: Final = frozenset({404, 410})
LOGIN: Final = frozenset({401, 403})


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How catalogs are read.

    Attributes:
        rule: Which hrefs may be read.
        policy: How long a failing server is asked again.
        headers: Sent to the server of the catalog, such as ``Authorization``; to no other, and never shown.
    """

    rule: HrefRule = DEFAULT_RULE
    policy: RetryPolicy = DEFAULT_POLICY
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


DEFAULT_CONNECTION: Final = Connection()


class BrokenError(ReadError):
    """What was read is not what it should be, and reading it again will not help."""

    retryable = False


class MissingError(BrokenError):
    """There is no such file or object, or no such page."""

    status = 404


class StatusError(ReadError):
    """A server answered with a status other than success; those of ``final`` are not worth asking again for."""

    def __init__(self, message: str, answer: httpx2.Response, final: Iterable[int]) -> None:
        super().__init__(message)
        self.status = answer.status_code
        self.retryable = self.status in PASSING and self.status not in final
        self.retry_after = retry_after(answer.headers)


class JsonReader:
    """Reads JSON documents over one connection.

    Args:
        connection: How.
        home: URL of the catalog; the headers of the connection are sent to its server only.
    """

    def __init__(self, connection: Connection = DEFAULT_CONNECTION, *, home: str | None = None) -> None:
        texts = [text for header in connection.headers.items() for text in header]
        if not all(text.isascii() and text.isprintable() for text in texts):
            raise ConfigError(f"a header for {redact(home or '')} has characters that HTTP does not allow")
        self.rule = connection.rule
        self._connection = connection
        self._home = None if home is None or not is_remote(home) else httpx2.URL(home)
        self._client = httpx2.Client(follow_redirects=False, timeout=httpx2.Timeout(60.0, connect=CONNECT_SECONDS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def locate(self, href: str, *, base: str | None = None) -> str:
        """Return the absolute form of an href.

        Args:
            href: As given by the user, or by the document at ``base``.
            base: Where the href was found; None for the user's own.

        Raises:
            UnsupportedItemError: The rule refuses it.
        """
        own = base is None and not is_remote(href)
        return check_href(str(local_path(href).absolute()) if own else href, base=base, rule=self.rule)

    def read(self, href: str, *, base: str | None = None) -> tuple[Json, str]:
        """Return a document and its absolute href; for the arguments see `locate`.

        Raises:
            UnsupportedItemError: The rule refuses the href, or one that it redirects to.
            ReadError: It cannot be read, or is not a JSON object.
        """
        where = self.locate(href, base=base)
        return json_object(self.fetch(where, base=base), where), where

    def fetch(self, where: str, *, base: str | None = None) -> bytes:
        """Return what lies at an absolute href that the rule allows.

        Raises:
            MissingError: Nothing does.
            ReadError: It cannot be read.
        """
        if where.startswith(("http://", "https://")):
            return self.send("GET", where, base=base or where)
        return _stored(where) if is_remote(where) else _local(Path(where))

    def send(self, method: str, href: str, *, base: str, body: Json | None = None, final: Iterable[int] = ()) -> bytes:
        """Return what a server answers; it is asked again while that can help.

        Args:
            method: ``GET`` or ``POST``.
            href: An absolute URL.
            base: Where it was found, which decides what redirects may lead to.
            body: JSON to post.
            final: Statuses that are not worth asking again for.
        """
        return retrying(lambda: self._answer(method, href, base, body, final), policy=self._connection.policy)

    def _answer(self, method: str, href: str, base: str, body: Json | None, final: Iterable[int]) -> bytes:
        place = href
        for _ in range(MAX_REDIRECTS + 1):
            answer, content = self._exchange(method, place, body)
            target = self._target(answer, base)
            if target is None:
                break
            place = target
            if answer.status_code == SEE_OTHER:
                method, body = "GET", None
        else:
            raise BrokenError(f"{redact(href)} redirects more than {MAX_REDIRECTS} times")
        if answer.is_success:
            return content
        said = " ".join(content[:300].decode(errors="replace").split())
        hint = "; does it need a login? Give its header" if answer.status_code in LOGIN else ""
        if answer.has_redirect_location:
            hint = f"; it leads to {redact(answer.headers['location'])}: give that address"
        shown = self._shown(f"{redact(place)} answers with status {answer.status_code} {said}{hint}".strip())
        raise MissingError(shown) if answer.status_code in GONE else StatusError(shown, answer, final)

    def _target(self, answer: httpx2.Response, base: str) -> str | None:
        """Return where a redirect is followed to; None for any other answer."""
        if not answer.has_redirect_location:
            return None
        return check_href(str(answer.url.join(answer.headers["location"])), base=base, rule=self.rule)

    def _exchange(self, method: str, href: str, body: Json | None) -> tuple[httpx2.Response, bytes]:
        content = bytearray()
        try:
            url = httpx2.URL(href)
            headers = dict(self._connection.headers) if self._is_home(url) else None
            with self._client.stream(method, url, json=body, headers=headers) as answer:
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > MAX_BYTES:
                        raise BrokenError(f"{redact(href)} is larger than {MAX_BYTES} bytes")
                return answer, bytes(content)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            reason = self._shown(str(error)) or type(error).__name__
            raise ReadError(f"{redact(href)} cannot be reached: {reason}") from None

    def _shown(self, text: str) -> str:
        """Return text without the values of the headers, which servers like to repeat."""
        for secret in filter(None, self._connection.headers.values()):
            text = text.replace(secret, "***")
        return redact(text)

    def _is_home(self, url: httpx2.URL) -> bool:
        """Return whether a URL is of the catalog's server, or of the same host by its encrypted port."""
        home = self._home
        if home is None or url.host != home.host:
            return False
        return (url.scheme, url.port) in {(home.scheme, home.port), ("https", None)}


def read_json(href: str, *, base: str | None = None, connection: Connection = DEFAULT_CONNECTION) -> tuple[Json, str]:
    """Return one document and its absolute href, see `JsonReader.read`."""
    with JsonReader(connection, home=base or href) as reader:
        return reader.read(href, base=base)


def json_object(text: bytes, where: str) -> Json:
    """Return the JSON object that a text is.

    Raises:
        ReadError: It is not one.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "is a GeoTIFF, not the JSON of an item" if text[:2] in {b"II", b"MM"} else "is not JSON"
        why = f": {str(error)[:100]}" if kind == "is not JSON" and not isinstance(error, UnicodeError) else ""
        raise BrokenError(f"{redact(where)} {kind}{why}") from None
    if not isinstance(body, dict):
        raise BrokenError(f"{redact(where)} is not a JSON object but a {type(body).__name__}")
    return body


def _local(path: Path) -> bytes:
    try:
        content = path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise BrokenError(f"{path} cannot be read: {error.strerror}") from None
    if content is None:
        if path.is_file():
            raise BrokenError(f"{path} is larger than {MAX_BYTES} bytes")
        folder = f"{path} is a folder; name the JSON of an item, or give the folder as the catalog"
        raise MissingError(folder if path.is_dir() else f"there is no file {path}")
    return content


def _stored(href: str) -> bytes:
    try:
        with fsspec.open(href, "rb") as file:
            content: bytes = file.read(MAX_BYTES)
    except ImportError as error:
        raise ConfigError(f"{href}: {error}; for s3:// install the extra: pip install 'stac-cloudmask[s3]'") from None
    except FileNotFoundError:
        raise MissingError(f"there is no object {href}") from None
    except Exception as error:  # noqa: BLE001  (stores raise errors of their own libraries)
        raise ReadError(f"{href} cannot be read: {redact(str(error))[:200]}") from None
    return content


DROPPED: Final = frozenset({"root", "parent", "self"})
"""Relations that pystac would follow by itself, or that are set here."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An item that was asked for or listed, and could not be had.

    Attributes:
        ref: As it was asked for or listed, without secrets.
        error: Why.
    """

    ref: str
    error: StacCloudmaskError


Found = pystac.Item | Failure


def attempt(ref: str, make: Callable[[*Given], Made], *given: *Given) -> Made | Failure:
    """Return what ``make`` makes of what is given; where that fails, a `Failure`."""
    try:
        return make(*given)
    except StacCloudmaskError as error:
        return Failure(ref=redact(ref), error=error)


def items_in(body: Json, href: str, *, rule: HrefRule = DEFAULT_RULE) -> Iterator[Found]:
    """Yield the items of a document: itself, or those of a FeatureCollection or payload.

    Raises:
        UnsupportedItemError: The document is not an item.
    """
    features = body.get("features")
    if isinstance(features, list):
        for feature in features:
            yield listed_item(feature, href, rule)
    else:
        yield parse_item(body, origin=href, rule=rule)


def listed_item(feature: object, found: str, rule: HrefRule) -> Found:
    """Return an item that came with others, which may fail without them; see `own_href`."""
    name = str(feature.get("id"))[:80] if isinstance(feature, dict) else str(feature)[:40]
    return attempt(name, lambda: parse_item(feature, origin=own_href(feature, found, rule), rule=rule))


def own_href(body: object, found: str | None, rule: HrefRule) -> str | None:
    """Return where an item that came with others lives: its self link, else ``found``, where they were read from.

    A link decides nothing about trust: it is local or remote as ``found`` is; None is the user's own word.
    """
    link = next(iter(links_of(body, "self")), None)
    if link is not None and (found is None or is_remote(link) == is_remote(found)):
        try:
            return check_href(link, base=found, rule=rule)
        except UnsupportedItemError:
            pass
    return found


def parse_item(
    body: object, *, origin: str | None, collection: str | None = None, rule: HrefRule = DEFAULT_RULE
) -> pystac.Item:
    """Return an item with absolute hrefs, times in UTC and a footprint within -180 to 180 degrees.

    It reads nothing by itself. Hrefs that the rule refuses stay as they are: a band with one is an error when it is
    resolved.

    Args:
        body: The item's JSON, which is not changed.
        origin: Where it was read from, which decides what its hrefs may lead to; None if it was made in memory.
        collection: Id of the collection that lists it, for an item that does not say.
        rule: Which hrefs may be read.

    Raises:
        UnsupportedItemError: It is not an item.
    """
    place = "memory" if origin is None else redact(origin)
    kept = _checked(body, place)
    canonical = [href for href in links_of(body, "self") if is_remote(href) and not is_remote(origin or "")]
    kept["links"] = [link | {"href": absolute(link["href"], origin)} for link in kept["links"]]
    kept["links"] += [{"rel": "canonical", "href": href, "type": "application/geo+json"} for href in canonical]
    kept["assets"] = {
        key: asset | {"href": _href(asset["href"], origin, rule)} for key, asset in kept["assets"].items()
    }
    kept["collection"] = kept.get("collection") or collection
    kept["properties"] = _in_utc(kept, place)
    return parsed(kept | _placed(kept), href=origin)


def parsed(body: Json, *, href: str | None) -> pystac.Item:
    """Return what pystac makes of an item's JSON, whose hrefs stay as they are.

    Args:
        body: The item's JSON.
        href: Its self href; None for none.

    Raises:
        UnsupportedItemError: It makes nothing of it.
    """
    try:
        item = pystac.Item.from_dict(body, href=href, migrate=False)
        _ = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    except (pystac.STACError, pystac.STACTypeError, *BROKEN) as error:
        place = "memory" if href is None else redact(href)
        raise UnsupportedItemError(f"item {_shown(body)} of {place} is not a valid item: {error}") from None
    return item


def _shown(body: Mapping[str, object]) -> str:
    return repr(str(body.get("id"))[:80])


def _checked(body: object, place: str) -> Json:
    """Return a shallow copy of an item's JSON with all that pystac takes for granted, without assets that are null."""
    if not isinstance(body, dict) or body.get("type") != "Feature":
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise UnsupportedItemError(
            f"{place} holds {str(kind)[:40]!r} rather than an item; a catalog is given by --catalog, in Python catalog="
        )
    found = {"stac_version": "1.0.0", "links": [], "stac_extensions": [], **body}
    if wrong := wrong_members(found):
        raise UnsupportedItemError(f"item {_shown(body)} of {place} has no valid {', '.join(wrong)}")
    found["links"] = [link for link in found["links"] if is_link(link) and link["rel"] not in DROPPED]
    found["assets"] = {key: asset for key, asset in found["assets"].items() if is_asset(asset)}
    return found


def wrong_members(body: Json) -> list[str]:
    """Return the names of an item's members that are missing or of another type than STAC's."""
    return [name for name, kind in MEMBERS.items() if not isinstance(body.get(name), kind)]


def _in_utc(body: Json, place: str) -> Json:
    properties = dict(body["properties"])
    for name in ("datetime", "start_datetime", "end_datetime"):
        stated = properties.get(name)
        if stated is None:
            continue
        try:
            properties[name] = utc(stated, last=name.startswith("end"))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise UnsupportedItemError(
                f"item {_shown(body)} of {place}: {name} {str(stated)[:40]!r} is not a time such as "
                "2023-08-18T10:08:08Z; correct the item"
            ) from None
    return properties


def _placed(body: Json) -> Json:
    """Return geometry and bbox of an item that states no geometry, or one that crosses the antimeridian."""
    stated, bbox = body.get("geometry"), body.get("bbox")
    lies = footprint(stated, bbox)
    if lies is None:
        return {}
    box = bbox_of(lies)
    if stated and box[0] <= box[2] and shapely.equals_exact(lies, shape(stated)):
        return {}
    return {"geometry": json.loads(shapely.to_geojson(lies)), "bbox": box}


def is_asset(asset: object) -> bool:
    """Return whether JSON is an asset with an href that can be parsed."""
    return isinstance(asset, dict) and _parses(asset.get("href"))


def is_link(link: object) -> bool:
    """Return whether JSON is a link with a relation and an href that can be parsed."""
    return isinstance(link, dict) and isinstance(link.get("rel"), str) and _parses(link.get("href"))


def _parses(href: object) -> bool:
    if not isinstance(href, str) or not href:
        return False
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _href(href: str, origin: str | None, rule: HrefRule) -> str:
    try:
        return check_href(href, base=origin, rule=rule)
    except UnsupportedItemError:
        return href


def links_of(body: object, rel: str) -> list[str]:
    """Return the hrefs of the links of one relation."""
    return [link["href"] for link in _links(body) if is_link(link) and link["rel"] == rel]


def link_of(body: object, rel: str) -> Json | None:
    """Return the first link of a relation, whatever it leads to."""
    return next((link for link in _links(body) if isinstance(link, dict) and link.get("rel") == rel), None)


def _links(body: object) -> list[Any]:
    links = body.get("links") if isinstance(body, dict) else None
    return links if isinstance(links, list) else []


MAX_DEPTH: Final = 16
"""Links from the catalog to a collection; deeper ones are not followed."""


class Walk:
    """A walk through a static catalog: each document is read once, and only when it is needed.

    Args:
        reader: Reads them.
        collections: The only collections whose items are wanted; none for all. Items count by the collection that
            lists them, else by what they say.
        named: Only items whose link contains one of these ids are read; None for all.
    """

    def __init__(
        self, reader: JsonReader, *, collections: Iterable[str] = (), named: Iterable[str] | None = None
    ) -> None:
        self._reader = reader
        self._named = named
        self._wanted = set(collections)
        self._read: set[str] = set()
        self._collections: set[str] = set()

    def items(self, body: Json, href: str) -> Iterator[Found]:
        """Yield the items of a catalog in the order of its links, those of a collection before its children.

        Raises:
            ConfigError: At the end, if a wanted collection is not there.
        """
        self._read.add(href)
        yield from self._walk(body, href, depth=0)
        if missing := sorted(self._wanted - self._collections):
            there = ", ".join(sorted(self._collections)) or "none"
            raise ConfigError(f"{redact(href)} has no collection {missing[0]!r}; it has {there}")

    def _walk(self, body: Json, href: str, *, depth: int) -> Iterator[Found]:
        name = str(body.get("id")) if body.get("type") == "Collection" else None
        for link in links_of(body, "item") if self._wants(name) or name is None else []:
            if self._named is None or any(wanted in link for wanted in self._named):
                item = attempt(link, self._item, link, href, name)
                if isinstance(item, Failure) or (item is not None and self._wants(name or item.collection_id)):
                    yield item
        for link in links_of(body, "child") if depth < MAX_DEPTH else []:
            child = attempt(link, self._once, link, href)
            if isinstance(child, Failure):
                yield child
            elif child is not None:
                yield from self._walk(*child, depth=depth + 1)

    def _wants(self, collection: str | None) -> bool:
        """Return whether items of a collection are wanted, which is noted as one that is there."""
        if collection is not None:
            self._collections.add(collection)
        return not self._wanted or collection in self._wanted

    def _item(self, link: str, href: str, collection: str | None) -> pystac.Item | None:
        found = self._once(link, href)
        if found is None:
            return None
        return parse_item(found[0], origin=found[1], collection=collection, rule=self._reader.rule)

    def _once(self, link: str, base: str) -> tuple[Json, str] | None:
        """Return a document and its href; None for one that has been read already."""
        where = self._reader.locate(link, base=base)
        if where in self._read:
            return None
        self._read.add(where)
        return self._reader.read(where, base=base)
