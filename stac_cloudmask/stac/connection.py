"""Read JSON documents from a server, a file or an object store, and report errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import fsspec
import httpx2

from stac_cloudmask.errors import ConfigError, ReadError, redact
from stac_cloudmask.retry import DEFAULT_POLICY, RETRY_STATUSES, RetryPolicy, retry_after, retrying
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, check_href, is_file, is_folder, is_remote, local_path

Json = dict[str, Any]

MAX_BYTES: Final = 2**28
"""Larger documents are refused."""
MAX_REDIRECTS: Final = 5
HTTP_TIMEOUT: Final = httpx2.Timeout(60.0, connect=5.0)
GONE: Final = frozenset({404, 410})
LOGIN: Final = frozenset({401, 403})


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The settings for reading catalogs.

    Attributes:
        rule: Which hrefs may be read.
        policy: Retry settings for a failing server.
        headers: Sent to the server of the catalog, such as ``Authorization``; to no other, and never shown.
    """

    rule: HrefRule = DEFAULT_RULE
    policy: RetryPolicy = DEFAULT_POLICY
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


DEFAULT_CONNECTION: Final = Connection()


class BrokenError(ReadError):
    """A document is not valid, and reading it again will not help."""

    retryable = False


class MissingError(BrokenError):
    """A file, object or page does not exist."""

    status = 404


class StatusError(ReadError):
    """A server answered with an error status, which is retryable unless it is one of ``final``."""

    def __init__(self, message: str, answer: httpx2.Response, final: Iterable[int]) -> None:
        super().__init__(message)
        self.status = answer.status_code
        self.retryable = self.status in RETRY_STATUSES and self.status not in final
        self.retry_after = retry_after(answer.headers)


class JsonReader:
    """A reader of JSON documents over one connection.

    Args:
        connection: The settings for reading.
        home: URL of the catalog; the headers of the connection are sent to its server only.
    """

    def __init__(self, connection: Connection = DEFAULT_CONNECTION, *, home: str | None = None) -> None:
        texts = [text for header in connection.headers.items() for text in header]
        if not all(text.isascii() and text.isprintable() for text in texts):
            raise ConfigError(f"a header for {redact(home or '')} has characters that HTTP does not allow")
        self.rule = connection.rule
        self._connection = connection
        self._home = None if home is None or not is_remote(home) else httpx2.URL(home)
        self._client = httpx2.Client(follow_redirects=False, timeout=HTTP_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def locate(self, href: str, *, base: str | None = None) -> str:
        """Return the absolute form of an href.

        Args:
            href: Href given by the user, or in the document at ``base``.
            base: Document in which the href was found; None for the user's own.

        Raises:
            UnsupportedItemError: The rule refuses it.
        """
        if base is None and not is_remote(href):
            path = local_path(href)
            href = str(path.resolve() if ".." in path.parts else path.absolute())  # it is kept as a link
        return check_href(href, base=base, rule=self.rule)

    def read(self, href: str, *, base: str | None = None) -> tuple[Json, str]:
        """Return a document and its absolute href; for the arguments see `locate`.

        Raises:
            UnsupportedItemError: The rule refuses the href or a redirect.
            ReadError: The document cannot be read, or is not a JSON object.
        """
        where = self.locate(href, base=base)
        return json_object(self.fetch(where, base=base), where), where

    def fetch(self, where: str, *, base: str | None = None) -> bytes:
        """Return the content of an absolute href that the rule allows.

        Raises:
            MissingError: It does not exist.
            ReadError: It cannot be read.
        """
        if where.startswith(("http://", "https://")):
            return self.send("GET", where, base=base or where)
        return _stored(where)

    def send(self, method: str, href: str, *, base: str, body: Json | None = None, final: Iterable[int] = ()) -> bytes:
        """Return a server's answer; the request is repeated while that can help.

        Args:
            method: ``GET``, ``POST`` or ``PUT``.
            href: An absolute URL.
            base: Where it was found, which decides what redirects may lead to.
            body: JSON to send.
            final: Statuses for which the request is not repeated.
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
            if answer.status_code == httpx2.codes.SEE_OTHER:
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
        """Return the target of a redirect that is followed; None for any other answer."""
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
        """Return text without the values of the headers, which servers may echo."""
        for secret in filter(None, self._connection.headers.values()):
            text = text.replace(secret, "***")
        return redact(text)

    def _is_home(self, url: httpx2.URL) -> bool:
        """Return whether a URL is on the catalog's server, or on the same host's HTTPS port."""
        home = self._home
        if home is None or url.host != home.host:
            return False
        return (url.scheme, url.port) in {(home.scheme, home.port), ("https", None)}


def read_json(href: str, *, base: str | None = None, connection: Connection = DEFAULT_CONNECTION) -> tuple[Json, str]:
    """Return one document and its absolute href, see `JsonReader.read`."""
    with JsonReader(connection, home=base or href) as reader:
        return reader.read(href, base=base)


def json_object(text: bytes, where: str) -> Json:
    """Parse a JSON object.

    Raises:
        ReadError: The text is not a JSON object.
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


def _stored(href: str) -> bytes:
    """Return the content of a local file, or of an object in a store."""
    if not is_remote(href) and not is_file(href):
        folder = f"{href} is a folder; name the JSON of an item, or give the folder as the catalog"
        raise MissingError(folder if is_folder(href) else f"there is no file {href}")
    try:
        with fsspec.open(href, "rb") if is_remote(href) else Path(href).open("rb") as file:
            content: bytes = file.read(MAX_BYTES + 1)
    except ImportError as error:
        raise ConfigError(f"{href}: {error}; for s3:// install the extra: pip install 'stac-cloudmask[s3]'") from None
    except FileNotFoundError:
        raise MissingError(f"there is no object {href}") from None
    except Exception as error:  # noqa: BLE001  (stores raise errors of their own libraries)
        if not is_remote(href) and isinstance(error, OSError):
            raise BrokenError(f"{href} cannot be read: {error.strerror}") from None
        raise ReadError(f"{href} cannot be read: {redact(str(error))[:200]}") from None
    if len(content) > MAX_BYTES:
        raise BrokenError(f"{redact(href)} is larger than {MAX_BYTES} bytes")
    return content
