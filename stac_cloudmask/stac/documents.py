"""JSON documents, local or remote, read under the rule of ``hrefs``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import fsspec
import httpx

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, check_addresses, check_href, is_remote, redact

if TYPE_CHECKING:
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
