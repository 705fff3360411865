"""Weights from a server: taken up again where they broke off, and believed only when their checksum is right."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx

from stac_cloudmask.errors import ChecksumError, ModelError
from stac_cloudmask.models.strangers import HEAD, mismatch, recognise

if TYPE_CHECKING:
    from stac_cloudmask.models.metadata import ModelSpec

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3
TIMEOUT: Final = 60.0
"""Seconds without a byte."""
PASSING: Final = frozenset({408, 425, 429})
"""Refusals that may be none a little later; all from 500 on, too."""


class Progress(Protocol):
    """Told of the bytes that have come."""

    def __call__(self, done: int, total: int | None) -> None:
        """``done`` bytes are here of ``total``, where the server says how many there are."""


def download(spec: ModelSpec, target: Path, *, partial: Path, progress: Progress | None, pause: float) -> None:
    """Fill an empty file with a model's weights.

    Args:
        spec: The model; its ``href`` is on the web.
        target: The file; nobody else writes to it.
        partial: Where an interrupted download leaves what has come, and where the next one takes it up.
        progress: Told of the bytes that have come.
        pause: Seconds before the second attempt, doubled before the third.

    Raises:
        ChecksumError: The server gave something else; the message says what.
        ModelError: The server refused, or could not be reached in three attempts.
    """
    with suppress(FileNotFoundError):
        partial.replace(target)
    taken_up = target.stat().st_size > 0
    found = _filled(spec, target, partial, progress, pause)
    if found and taken_up:
        logger.warning("%s: what was there from an earlier attempt %s; starting over", spec.href, found)
        target.write_bytes(b"")
        found = _filled(spec, target, partial, progress, pause)
    if found:
        raise ChecksumError(f"model {spec.name!r}: what {spec.href} gave {found}; nothing was kept")


def _filled(spec: ModelSpec, target: Path, partial: Path, progress: Progress | None, pause: float) -> str | None:
    """What is wrong with the bytes that have come; where they broke off, they go to ``partial``."""
    whole = False
    try:
        _persist(spec, target, progress, pause)
        whole = True
    finally:
        if not whole and target.stat().st_size:
            target.replace(partial)
    data = target.read_bytes()
    found = mismatch(data, sha256=spec.sha256, file_size=spec.file_size)
    stranger = recognise(data[:HEAD]) if found else None
    return f"is {stranger}" if stranger else found


def _persist(spec: ModelSpec, target: Path, progress: Progress | None, pause: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(spec, target, progress)
        except httpx.HTTPError as error:
            code = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            if attempt == ATTEMPTS or (400 <= code < 500 and code not in PASSING):  # noqa: PLR2004
                there = target.stat().st_size
                kept = f"{there} bytes are kept, the same command goes on from there" if there else "nothing was kept"
                raise ModelError(f"model {spec.name!r}: {spec.href}: {error}; {kept}") from error
            logger.warning("%s: %s; trying again", spec.href, error)
            time.sleep(pause * 2 ** (attempt - 1))
        else:
            return


def _stream(spec: ModelSpec, target: Path, progress: Progress | None) -> None:
    """Add what is missing to a file; a server that does not give parts starts it over."""
    start = target.stat().st_size
    asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with httpx.stream("GET", spec.href, headers=asked, follow_redirects=True, timeout=TIMEOUT) as response:
        continued = response.headers.get("content-range", "").startswith(f"bytes {start}-")
        if response.status_code == httpx.codes.PARTIAL_CONTENT and not continued:
            target.write_bytes(b"")
            raise httpx.RemoteProtocolError("the server gave another part than it was asked for")
        if start and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            target.write_bytes(b"")
            raise httpx.RemoteProtocolError("the server has fewer bytes than have come already")
        response.raise_for_status()
        length = response.headers.get("content-length", "")
        with target.open("ab" if continued else "wb") as file:
            total = file.tell() + int(length) if length.isdigit() else spec.file_size
            for chunk in response.iter_bytes():
                file.write(chunk)
                if spec.file_size is not None and file.tell() > spec.file_size:
                    break
                if progress:
                    progress(file.tell(), total)
