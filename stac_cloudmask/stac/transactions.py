"""Publishing to a STAC API with the transaction extension."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final, Literal
from urllib.parse import quote

import httpx2

from stac_cloudmask.errors import ConfigError, PublishError, ReadError, StacCloudmaskError, WriteError, redact
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.collection import covering
from stac_cloudmask.stac.connection import Connection, Json, JsonReader, MissingError, StatusError, json_object

logger = logging.getLogger(__name__)

Written = Literal["created", "updated"]

SET_BY_API: Final = frozenset({"root", "parent", "collection", "self", "items", "item", "child"})
"""Links that the API sets by itself."""
SAME_METHOD: Final = frozenset({HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT})
NOT_THERE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
NO_TRANSACTIONS: Final = "; does the API have the transaction extension?"
PUTS: Final = 3
"""Number of attempts to write an item that is reported as existing and missing; others may delete it in between."""


class StacApi(JsonReader):
    """A STAC API with transactions; it keeps its connection and is used as a context manager.

    Headers are sent with every request and never appear in messages. Only redirects to the same host that keep the
    method (307 and 308) are followed: any other could send the headers to another host or lose the body.
    """

    def __init__(
        self, url: str, *, headers: Mapping[str, str] | None = None, retry: RetryPolicy = DEFAULT_POLICY
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigError(f"{redact(url)} is not the address of a STAC API; it starts with https:// or http://")
        super().__init__(Connection(policy=retry, headers=headers or {}), home=url)
        self._url = url.rstrip("/")

    def item_href(self, collection_id: str, item_id: str) -> str:
        """Return the URL of an item."""
        return f"{self._collection_href(collection_id)}/items/{quote(item_id, safe='')}"

    def ensure_collection(self, collection: Json) -> None:
        """Create a collection unless it exists.

        Raises:
            WriteError: It is missing and cannot be created.
        """
        href = self._collection_href(collection["id"])
        if self._send("GET", href, but=HTTPStatus.NOT_FOUND) is None:
            body = collection | {"links": _foreign_links(collection)}
            self._send("POST", f"{self._url}/collections", body, but=HTTPStatus.CONFLICT)

    def put_item(self, item: Json) -> Written:
        """Create or replace an item with absolute hrefs; pgSTAC answers with a bare 500 if its collection is missing.

        Raises:
            WriteError: The server cannot be reached or refuses the item.
        """
        collection_id = item["collection"]
        href = self.item_href(collection_id, item["id"])
        body = item | {"links": [*_foreign_links(item), *self._hierarchy(collection_id)]}
        for _ in range(PUTS):
            if self._send("PUT", href, body, but=HTTPStatus.NOT_FOUND) is not None:
                return "updated"
            items = f"{self._collection_href(collection_id)}/items"
            if self._send("POST", items, body, but=HTTPStatus.CONFLICT) is not None:
                return "created"
        raise WriteError(f"{self._shown(href)} exists and is missing in turn; is another process changing it?")

    def item(self, collection_id: str, item_id: str) -> Json:
        """Return the JSON of an item as the API holds it.

        Raises:
            ReadError: The item does not exist.
        """
        href = self.item_href(collection_id, item_id)
        content = self._send("GET", href, but=HTTPStatus.NOT_FOUND)
        if content is None:
            raise ReadError(f"{self._shown(href)} does not exist; copy the source item to this API first")
        return json_object(content, href)

    def cover(self, collection_id: str, items: Sequence[Json]) -> None:
        """Widen the extent and the summaries of a collection to these items, if the API allows changing collections."""
        href = self._collection_href(collection_id)
        try:
            found = json_object(self._send("GET", href) or b"", href)
            wider = covering(found, items)
            if wider != found:
                self._send("PUT", href, wider | {"links": _foreign_links(wider)})
        except StacCloudmaskError as error:
            logger.warning("the extent of collection %r was not changed: %s", collection_id, error)

    def _collection_href(self, collection_id: str) -> str:
        return f"{self._url}/collections/{quote(collection_id, safe='')}"

    def _hierarchy(self, collection_id: str) -> list[Json]:
        """Return the links that an item with a collection must have, absolute."""
        collection = self._collection_href(collection_id)
        hrefs = {"root": self._url, "parent": collection, "collection": collection}
        return [{"rel": rel, "href": href, "type": "application/json"} for rel, href in hrefs.items()]

    def _send(self, method: str, href: str, body: Json | None = None, *, but: int | None = None) -> bytes | None:
        """Return the server's answer, repeating the request while it is busy; None for the status ``but``.

        Raises:
            PublishError: The server refuses the request.
            WriteError: It cannot be reached, or is busy for too long.
        """
        try:
            return self.send(method, href, base=self._url, body=body)
        except ReadError as error:
            status = error.status if isinstance(error, MissingError | StatusError) else None
            if status is not None and status == but:
                return None
            text = f"{method} {error}{NO_TRANSACTIONS if status in NOT_THERE else ''}"
            raise WriteError(f"{text}; try again later") if error.retryable else PublishError(text) from None

    def _target(self, answer: httpx2.Response, base: str) -> str | None:  # noqa: ARG002  (that of the base class)
        """Return the target of a redirect that keeps the method, the host and the encryption."""
        if answer.next_request is None or answer.status_code not in SAME_METHOD:
            return None
        target = answer.next_request.url
        safe = target.host == answer.url.host and target.scheme in {answer.url.scheme, "https"}
        return str(target) if safe else None


def _foreign_links(body: Json) -> list[Json]:
    return [link for link in body.get("links", []) if link["rel"] not in SET_BY_API]
