"""Read JSON, parse items, and walk static catalogs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
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

if TYPE_CHECKING:
    from types import TracebackType

Json = dict[str, Any]

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


def broken(message: str) -> ReadError:
    """A read error that the same input will give again."""
    error = ReadError(message)
    error.retryable = False
    return error


class MissingError(ReadError):
    """There is no such file or object, or no such page."""

    retryable = False


class StatusError(ReadError):
    """A server answered with a status other than success."""

    def __init__(self, message: str, status: int, after: float | None) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = status in PASSING
        self.retry_after = after


class JsonReader:
    """Reads JSON documents over one connection.

    Args:
        connection: How.
        home: URL of the catalog; the headers of the connection are sent to its server only.
    """

    def __init__(self, connection: Connection = DEFAULT_CONNECTION, *, home: str | None = None) -> None:
        self.rule = connection.rule
        self._connection = connection
        self._home = None if home is None or not is_remote(home) else httpx2.URL(home)
        self._client = httpx2.Client(follow_redirects=False, timeout=httpx2.Timeout(60.0, connect=CONNECT_SECONDS))

    def __enter__(self) -> JsonReader:
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
        return check_href(str(local_path(href).absolute()) if own else href, base=base, rule=self.rule)

    def read(self, href: str, *, base: str | None = None) -> tuple[Json, str]:
        """A document and its absolute href, which `locate` takes likewise.

        Raises:
            UnsupportedItemError: The rule refuses the href, or one that it redirects to.
            ReadError: It cannot be read, or is not a JSON object.
        """
        where = self.locate(href, base=base)
        return json_object(self.fetch(where, base=base), where), where

    def fetch(self, where: str, *, base: str | None = None) -> bytes:
        """What lies at an absolute href that the rule allows.

        Raises:
            MissingError: Nothing does.
            ReadError: It cannot be read.
        """
        if where.startswith(("http://", "https://")):
            return self.send("GET", where, base=base or where)
        return _stored(where) if is_remote(where) else _local(where)

    def send(self, method: str, href: str, *, base: str, body: Json | None = None, final: Iterable[int] = ()) -> bytes:
        """What a server answers; it is asked again while that can help.

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
            if not answer.has_redirect_location:
                break
            place = check_href(str(answer.url.join(answer.headers["location"])), base=base, rule=self.rule)
            method, body = ("GET", None) if answer.status_code == SEE_OTHER else (method, body)
        else:
            raise broken(f"{redact(href)} redirects more than {MAX_REDIRECTS} times")
        if answer.is_success:
            return content
        said = " ".join(content[:300].decode(errors="replace").split())
        hint = "; does it need a login? Give its header" if answer.status_code in LOGIN else ""
        shown = self._without_secrets(f"{redact(place)} answers with status {answer.status_code} {said}{hint}".strip())
        if answer.status_code in GONE:
            raise MissingError(shown)
        error = StatusError(shown, answer.status_code, retry_after(answer.headers))
        error.retryable &= answer.status_code not in final
        raise error

    def _exchange(self, method: str, href: str, body: Json | None) -> tuple[httpx2.Response, bytes]:
        try:
            url = httpx2.URL(href)
            headers = dict(self._connection.headers) if self._is_home(url) else None
            with self._client.stream(method, url, json=body, headers=headers) as answer:
                parts, size = [], 0
                for part in answer.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > MAX_BYTES:
                        raise broken(f"{redact(href)} is larger than {MAX_BYTES} bytes")
                return answer, b"".join(parts)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ReadError(f"{redact(href)} cannot be reached: {redact(str(error)) or type(error).__name__}") from None
        except (ValueError, UnicodeError):  # of a header
            raise ConfigError(f"a header for {redact(href)} has characters that HTTP does not allow") from None

    def _is_home(self, url: httpx2.URL) -> bool:
        home = self._home
        return home is not None and (url.scheme, url.host, url.port) in {
            (home.scheme, home.host, home.port),
            ("https", home.host, None),
        }

    def _without_secrets(self, text: str) -> str:
        for secret in filter(None, self._connection.headers.values()):
            text = text.replace(secret, "***")
        return text


def read_json(href: str, *, base: str | None = None, connection: Connection = DEFAULT_CONNECTION) -> tuple[Json, str]:
    """One document and its absolute href, see `JsonReader.read`."""
    with JsonReader(connection, home=base or href) as reader:
        return reader.read(href, base=base)


def json_object(text: bytes, where: str) -> Json:
    """The JSON object that a text is.

    Raises:
        ReadError: It is not one.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "is a GeoTIFF, not the JSON of an item" if text[:2] in {b"II", b"MM"} else "is not JSON"
        raise broken(f"{redact(where)} {kind}: {str(error)[:100]}") from None
    if not isinstance(body, dict):
        raise broken(f"{redact(where)} is not a JSON object but a {type(body).__name__}")
    return body


def _local(path: str) -> bytes:
    file = Path(path)
    try:
        if not file.is_file():
            raise MissingError(f"there is no file {path}")
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
        raise MissingError(f"there is no object {href}") from None
    except Exception as error:  # noqa: BLE001  (stores raise errors of their own libraries)
        raise ReadError(f"{href} cannot be read: {redact(str(error))[:200]}") from None
    return content


DROPPED: Final = frozenset({"root", "parent", "self"})
"""Relations that pystac would follow by itself, or that are set here."""


def items_in(body: Json, href: str, *, rule: HrefRule = DEFAULT_RULE) -> Iterator[pystac.Item]:
    """The items of a document: itself, or those of a FeatureCollection or payload.

    Raises:
        UnsupportedItemError: The document, or one in it, is not an item.
    """
    if isinstance(body.get("features"), list):
        for feature in body["features"]:
            yield parse_item(feature, origin=own_href(feature, href, rule), rule=rule)
    else:
        yield parse_item(body, origin=href, rule=rule)


def own_href(body: object, found: str | None, rule: HrefRule) -> str | None:
    """Where an item that came with others lives: its self link, else ``found``, where they were read from.

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
    """An item with absolute hrefs, times in UTC and a footprint within -180 to 180 degrees, that reads nothing itself.

    Hrefs that the rule refuses stay as they are: a band with one is an error when it is resolved.

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
    kept["links"] = [_link(link, origin) for link in kept["links"]]
    kept["links"] += [{"rel": "canonical", "href": href, "type": "application/geo+json"} for href in canonical]
    kept["assets"] = {
        key: asset | {"href": _href(asset["href"], origin, rule)} for key, asset in kept["assets"].items()
    }
    kept["collection"] = kept.get("collection") or collection
    kept["properties"] = _in_utc(kept, place)
    return parsed(kept | _placed(kept), href=origin)


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
    except (pystac.STACError, pystac.STACTypeError, *BROKEN) as error:
        place = "memory" if href is None else redact(href)
        raise UnsupportedItemError(f"item {_shown(body)} of {place} is not a valid item: {error}") from None
    return item


def _shown(body: Mapping[str, object]) -> str:
    return repr(str(body.get("id"))[:80])


def _checked(body: object, place: str) -> Json:
    """A shallow copy of an item's JSON that has all that pystac takes for granted; assets that are null are absent."""
    if not isinstance(body, dict) or body.get("type") != "Feature":
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise UnsupportedItemError(f"{place} holds {str(kind)[:40]!r} rather than an item; a catalog goes to catalog=")
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
    """Geometry and bbox of an item that states no geometry, or one that crosses the antimeridian."""
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


def _link(link: Mapping[str, Any], origin: str | None) -> Json:
    return {**link, "href": absolute(link["href"], origin)}


def _href(href: str, origin: str | None, rule: HrefRule) -> str:
    try:
        return check_href(href, base=origin, rule=rule)
    except UnsupportedItemError:
        return href


def links_of(body: object, rel: str) -> list[str]:
    """Hrefs of the links of one relation."""
    links = body.get("links") if isinstance(body, dict) else None
    return [link["href"] for link in (links if isinstance(links, list) else []) if is_link(link) and link["rel"] == rel]


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

    def items(self, body: Json, href: str) -> Iterator[pystac.Item | Failure]:
        """The items of a catalog in the order of its links, those of a collection before its children.

        Raises:
            ConfigError: At the end, if a wanted collection is not there.
        """
        self._read.add(href)
        yield from self._walk(body, href, depth=0)
        if missing := sorted(self._wanted - self._collections):
            there = ", ".join(sorted(self._collections)) or "none"
            raise ConfigError(f"{redact(href)} has no collection {missing[0]!r}; it has {there}")

    def _walk(self, body: Json, href: str, *, depth: int) -> Iterator[pystac.Item | Failure]:
        name = str(body.get("id")) if body.get("type") == "Collection" else None
        if name is not None:
            self._collections.add(name)
        if name is None or not self._wanted or name in self._wanted:
            for link in filter(self._is_named, links_of(body, "item")):
                yield from self._chosen(self._linked(link, href, name), listed_by=name)
        for link in links_of(body, "child") if depth < MAX_DEPTH else []:
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
                yield parse_item(body, origin=where, collection=collection, rule=self._reader.rule)
        except StacCloudmaskError as error:
            yield Failure(ref=redact(link), error=error)

    def _chosen(
        self, items: Iterator[pystac.Item | Failure], *, listed_by: str | None = None
    ) -> Iterator[pystac.Item | Failure]:
        """Those of the wanted collections."""
        for item in items:
            stated = None if isinstance(item, Failure) else listed_by or item.collection_id
            if stated is not None:
                self._collections.add(stated)
            if isinstance(item, Failure) or not self._wanted or stated in self._wanted:
                yield item

    def _once(self, link: str, base: str) -> tuple[Json | None, str]:
        """A document that has not been read yet, and its href; None for one that has."""
        where = self._reader.locate(link, base=base)
        if where in self._read:
            return None, where
        self._read.add(where)
        return self._reader.read(where, base=base)
