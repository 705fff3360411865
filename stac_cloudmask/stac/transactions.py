"""Publishing to a STAC API with the transaction extension."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote

import httpx2

from stac_cloudmask.errors import ConfigError, PublishError, WriteError
from stac_cloudmask.stac.collection import covering
from stac_cloudmask.stac.hrefs import is_remote, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from stac_cloudmask.stac.collection import Entry

    Json = dict[str, Any]

logger = logging.getLogger(__name__)

Outcome = Literal["created", "updated"]

DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT})
HIERARCHY: Final = frozenset({"root", "parent", "collection", "self", "items", "item", "child"})
"""Links that the API sets by itself."""
LONGEST_WAIT: Final = 60.0
"""Seconds that a ``Retry-After`` is obeyed at most."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often a request is sent when the server is busy or out of reach, and how long is waited in between.

    ``pause`` is in seconds before the second attempt; it doubles before each further one and is drawn at random
    between half and all of it. What the server asks for in ``Retry-After`` comes first. The timeout is in seconds.
    """

    attempts: int = 6
    pause: float = 1.0
    timeout: float = 60.0


class StacApi:
    """A STAC API that takes transactions; used as a context manager, as it keeps its connection.

    Headers are sent with every request and appear in no message. Redirects are not followed, as they could carry the
    headers to another host.
    """

    def __init__(self, url: str, *, headers: Mapping[str, str] | None = None, patience: Patience | None = None) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigError(f"{redact(url)} is no address of a STAC API; it starts with https:// or http://")
        self._url = url.rstrip("/")
        self._secrets = tuple(value for value in (headers or {}).values() if value)
        self._patience = patience or Patience()
        try:
            self._http = httpx2.Client(headers=dict(headers or {}), timeout=self._patience.timeout)
        except (ValueError, UnicodeError) as error:
            raise ConfigError(f"a header for {redact(url)} has characters that HTTP does not allow") from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the connection."""
        self._http.close()

    def item_href(self, collection_id: str, item_id: str) -> str:
        """Where the API serves an item."""
        return f"{self._collection_href(collection_id)}/items/{quote(item_id, safe='')}"

    def ensure_collection(self, collection: Json, *, create: bool = True) -> None:
        """Make sure that a collection is there; one that is there stays as it is.

        Args:
            collection: The collection as it would be created.
            create: Whether a missing one may be created.

        Raises:
            WriteError: It is missing and may not or cannot be created.
        """
        href = self._collection_href(collection["id"])
        if self._send("GET", href, also=(HTTPStatus.NOT_FOUND,)).status_code != HTTPStatus.NOT_FOUND:
            return
        if not create:
            raise PublishError(f"{self._shown(href)} does not exist, and creating collections was not allowed")
        body = collection | {"links": _foreign_links(collection)}
        self._send("POST", f"{self._url}/collections", body, also=(HTTPStatus.CONFLICT,))

    def put_item(self, item: Json) -> Outcome:
        """Create an item or replace it; its collection must be there, as pgSTAC answers a bare 500 without.

        Raises:
            WriteError: The server is out of reach or refuses it, or an asset of its own has a relative href.
        """
        _require_absolute(item)
        collection_id = item["collection"]
        href = self.item_href(collection_id, item["id"])
        body = item | {"links": [*_foreign_links(item), *self._hierarchy(collection_id)]}
        for _ in range(self._patience.attempts):
            if self._send("PUT", href, body, also=(HTTPStatus.NOT_FOUND,)).status_code != HTTPStatus.NOT_FOUND:
                return "updated"
            created = self._send(
                "POST", f"{self._collection_href(collection_id)}/items", body, also=(HTTPStatus.CONFLICT,)
            )
            if created.status_code != HTTPStatus.CONFLICT:
                return "created"
        raise WriteError(f"{self._shown(href)} is there and is not there, again and again; try later")

    def cover(self, collection_id: str, entries: Sequence[Entry]) -> None:
        """Widen the extent and the summaries of a collection to these items, where the API lets collections change."""
        href = self._collection_href(collection_id)
        found = self._send("GET", href).json()
        wider = covering(found, entries)
        if wider == found:
            return
        try:
            self._send("PUT", href, wider | {"links": _foreign_links(wider)})
        except PublishError as error:
            logger.warning("the extent of collection %r was left as it is: %s", collection_id, error)

    def _collection_href(self, collection_id: str) -> str:
        return f"{self._url}/collections/{quote(collection_id, safe='')}"

    def _hierarchy(self, collection_id: str) -> list[Json]:
        """The links that an item with a collection must have, absolute."""
        collection = self._collection_href(collection_id)
        hrefs = {"root": self._url, "parent": collection, "collection": collection}
        return [{"rel": rel, "href": href, "type": "application/json"} for rel, href in hrefs.items()]

    def _send(self, method: str, href: str, body: Json | None = None, *, also: tuple[int, ...] = ()) -> httpx2.Response:
        """A request, sent again while the server is busy; answers other than success and ``also`` are errors."""
        trouble, asked = "", 0.0
        for pause in _pauses(self._patience):
            time.sleep(max(pause, asked))
            try:
                response = self._http.request(method, href, json=body)
            except httpx2.TransportError as error:
                trouble, asked = type(error).__name__, 0.0
                continue
            if response.status_code in DONE or response.status_code in also:
                return response
            trouble, asked = self._reason(response), _asked_for(response)
            if response.status_code != HTTPStatus.TOO_MANY_REQUESTS and not response.is_server_error:
                raise PublishError(f"{method} {self._shown(href)}: {trouble}")
            logger.info("%s %s: %s; trying again", method, self._shown(href), trouble)
        raise WriteError(f"{method} {self._shown(href)}: {trouble}, {self._patience.attempts} times; try again later")

    def _reason(self, response: httpx2.Response) -> str:
        """Status and the beginning of what the server says, without anything secret."""
        hint = ""
        if response.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            hint = "; does the API want a header such as 'Authorization: Bearer ...'?"
        if response.is_redirect:
            hint = f"; it leads to {redact(response.headers.get('location', ''))}: give that address"
        if response.status_code in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_FOUND):
            hint = "; does the API have the transaction extension?"
        said = " ".join(response.text.split())[:200]
        return self._shown(f"{response.status_code} {response.reason_phrase} {said}".rstrip() + hint)

    def _shown(self, text: str) -> str:
        """Text without the values of the headers, which servers like to repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)


def _pauses(patience: Patience) -> Iterator[float]:
    """The seconds to wait before each attempt."""
    yield 0.0
    for repetition in range(patience.attempts - 1):
        yield patience.pause * 2**repetition * random.uniform(0.5, 1)  # noqa: S311  (not a secret)


def _asked_for(response: httpx2.Response) -> float:
    """Seconds that the server asks to wait; dates, which the header may have too, are not worth the clocks' quarrel."""
    stated = response.headers.get("retry-after", "")
    return min(float(stated), LONGEST_WAIT) if stated.isdigit() else 0.0


def _foreign_links(body: Json) -> list[Json]:
    return [link for link in body.get("links", []) if link["rel"] not in HIERARCHY and is_remote(str(link["href"]))]


def _require_absolute(item: Json) -> None:
    relative = sorted(key for key, asset in item["assets"].items() if asset["href"].startswith("."))
    if relative:
        raise WriteError(f"item {item['id']!r}: assets {', '.join(relative)} have relative hrefs, which an API breaks")
