"""Publishing to a STAC API with the transaction extension."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote

import httpx2

from stac_cloudmask.errors import ConfigError, PublishError, ReadError, StacCloudmaskError, WriteError
from stac_cloudmask.retry import DEFAULT_POLICY, PASSING, RetryPolicy, retry_after, retrying
from stac_cloudmask.stac.collection import covering
from stac_cloudmask.stac.hrefs import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Json = dict[str, Any]

logger = logging.getLogger(__name__)

Outcome = Literal["created", "updated"]

DONE: Final = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT})
HIERARCHY: Final = frozenset({"root", "parent", "collection", "self", "items", "item", "child"})
"""Links that the API sets by itself."""
TIMEOUT: Final = 60.0
"""Seconds that an answer may take."""
REDIRECTS: Final = 5
LOGIN: Final = "; does the API want a header such as 'Authorization: Bearer ...'?"
NO_TRANSACTIONS: Final = "; does the API have the transaction extension?"
HINTS: Final = {401: LOGIN, 403: LOGIN, 404: NO_TRANSACTIONS, 405: NO_TRANSACTIONS}
"""What would help, by status."""
PUTS: Final = 3
"""How often an item that seems to be there and not to be there is written; others may delete it in between."""


class StacApi:
    """A STAC API that takes transactions; used as a context manager, as it keeps its connection.

    Headers are sent with every request and appear in no message. Redirects are followed on the same host only, and only
    those that keep the method (307 and 308): any other could carry the headers to another host or lose what is sent.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, retry: RetryPolicy = DEFAULT_POLICY
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigError(f"{redact(url)} is not the address of a STAC API; it starts with https:// or http://")
        self._url = url.rstrip("/")
        self._secrets = tuple(value for value in (headers or {}).values() if value)
        self._retry = retry
        try:
            self._http = httpx2.Client(headers=dict(headers or {}), timeout=TIMEOUT)
        except (ValueError, UnicodeError) as error:
            raise ConfigError(f"a header for {redact(url)} has characters that HTTP does not allow") from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close the connection."""
        self._http.close()

    def item_href(self, collection_id: str, item_id: str) -> str:
        """Return where the API serves an item."""
        return f"{self._collection_href(collection_id)}/items/{quote(item_id, safe='')}"

    def ensure_collection(self, collection: Json) -> None:
        """Make sure that a collection is there, as it is or else as it is given.

        Raises:
            WriteError: It is missing and cannot be created.
        """
        href = self._collection_href(collection["id"])
        if self._send("GET", href, also=(HTTPStatus.NOT_FOUND,)).status_code != HTTPStatus.NOT_FOUND:
            return
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
        for _ in range(PUTS):
            if self._send("PUT", href, body, also=(HTTPStatus.NOT_FOUND,)).status_code != HTTPStatus.NOT_FOUND:
                return "updated"
            created = self._send(
                "POST", f"{self._collection_href(collection_id)}/items", body, also=(HTTPStatus.CONFLICT,)
            )
            if created.status_code != HTTPStatus.CONFLICT:
                return "created"
        raise WriteError(f"{self._shown(href)} seems to be there and not to be there; does somebody else change it?")

    def item(self, collection_id: str, item_id: str) -> Json:
        """Return the JSON of an item as the API holds it.

        Raises:
            ReadError: It is not there.
        """
        href = self.item_href(collection_id, item_id)
        response = self._send("GET", href, also=(HTTPStatus.NOT_FOUND,))
        if response.status_code == HTTPStatus.NOT_FOUND:
            raise ReadError(f"{self._shown(href)} is not there; copy the source item to this API first")
        body: Json = response.json()
        return body

    def cover(self, collection_id: str, items: Sequence[Json]) -> None:
        """Widen the extent and the summaries of a collection to these items, where the API lets collections change."""
        href = self._collection_href(collection_id)
        try:
            found = self._send("GET", href).json()
            wider = covering(found, items)
            if wider != found:
                self._send("PUT", href, wider | {"links": _foreign_links(wider)})
        except StacCloudmaskError as error:
            logger.warning("the extent of collection %r was left as it is: %s", collection_id, error)

    def _collection_href(self, collection_id: str) -> str:
        return f"{self._url}/collections/{quote(collection_id, safe='')}"

    def _hierarchy(self, collection_id: str) -> list[Json]:
        """Return the links that an item with a collection must have, absolute."""
        collection = self._collection_href(collection_id)
        hrefs = {"root": self._url, "parent": collection, "collection": collection}
        return [{"rel": rel, "href": href, "type": "application/json"} for rel, href in hrefs.items()]

    def _send(self, method: str, href: str, body: Json | None = None, *, also: tuple[int, ...] = ()) -> httpx2.Response:
        """Send a request, again while the server is busy; answers other than success and ``also`` are errors."""
        return retrying(lambda: self._once(method, href, body, also), policy=self._retry)

    def _once(self, method: str, href: str, body: Json | None, also: tuple[int, ...]) -> httpx2.Response:
        try:
            response = self._answer(method, href, body)
        except httpx2.TransportError as error:
            raise WriteError(f"{method} {self._shown(href)}: {type(error).__name__}; try again later") from error
        if response.status_code in DONE or response.status_code in also:
            return response
        passing = response.status_code in PASSING or response.is_server_error
        trouble = f"{method} {self._shown(href)}: {self._reason(response)}"
        failure = WriteError(f"{trouble}; try again later") if passing else PublishError(trouble)
        failure.retry_after = retry_after(response.headers)
        raise failure

    def _answer(self, method: str, href: str, body: Json | None) -> httpx2.Response:
        """Return what the server answers, on the way of its own redirects."""
        response = self._http.request(method, href, json=body)
        for _ in range(REDIRECTS):
            if response.next_request is None or not _keeps_all(response, response.next_request.url):
                break
            response = self._http.send(response.next_request)
        return response

    def _reason(self, response: httpx2.Response) -> str:
        """Return the status and the beginning of what the server says, without anything secret."""
        hint = HINTS.get(response.status_code, "")
        if response.is_redirect:
            hint = f"; it leads to {redact(response.headers.get('location', ''))}: give that address"
        said = " ".join(response.text.split())[:200]
        return self._shown(f"{response.status_code} {response.reason_phrase} {said}".rstrip() + hint)

    def _shown(self, text: str) -> str:
        """Return text without the values of the headers, which servers like to repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return redact(text)


def _keeps_all(response: httpx2.Response, target: httpx2.URL) -> bool:
    """Return whether a redirect keeps the method, the host and the encryption."""
    keeps_method = response.status_code in (HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT)
    return keeps_method and target.host == response.url.host and target.scheme in {response.url.scheme, "https"}


def _foreign_links(body: Json) -> list[Json]:
    return [link for link in body.get("links", []) if link["rel"] not in HIERARCHY]


def _require_absolute(item: Json) -> None:
    relative = sorted(key for key, asset in item["assets"].items() if asset["href"].startswith("."))
    relative += sorted(link["rel"] for link in _foreign_links(item) if link["href"].startswith("."))
    if relative:
        raise PublishError(f"item {item['id']!r}: {', '.join(relative)} have relative hrefs, which an API breaks")
