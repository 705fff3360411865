"""Weights of models: where they are kept, how they are downloaded, what a file is that holds none."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx
import pooch

from stac_cloudmask.errors import ChecksumError, ModelError, WriteError

if TYPE_CHECKING:
    from stac_cloudmask.models.spec import ModelSpec

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
HEAD: Final = 512
"""Bytes that suffice to recognise a stranger."""


def recognise(head: bytes) -> str | None:
    """What a file is and what would help, by its first bytes; None where it may well be a model."""
    text = head.lstrip().lower()
    if not head:
        return "an empty file; fetch it again"
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the weights it stands for; run `git lfs pull`, or `stac-cloudmask models fetch`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<error")):
        return "a web page or an error page, not weights; check the address, a login page may have come instead"
    if text.startswith((b"{", b"[")):
        return "JSON, not weights; an MLM item has a name that ends in .json"
    if head.startswith((b"PK\x03\x04", b"\x1f\x8b")):
        return "an archive or a PyTorch checkpoint, not ONNX; unpack or export it first"
    return None


def mismatch(data: bytes, *, sha256: str | None, file_size: int | None) -> str | None:
    """How bytes differ from what an item promises; None where they do not."""
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found == sha256:
        return None
    if file_size is not None and len(data) != file_size:
        cut = "cut off" if len(data) < file_size else "another file"
        return f"has {len(data)} bytes, but its item promises {file_size}: {cut}"
    return None if sha256 is None else f"has SHA-256 {found}, but its item promises {sha256}"


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


PACKAGE: Final = "package://"
WEB: Final = ("https://", "http://")


def default_cache() -> Path:
    """The user's cache directory for weights."""
    return Path(pooch.os_cache("stac-cloudmask")) / "models"


def cached_path(spec: ModelSpec, cache: Path | None = None) -> Path:
    """Where fetched weights are kept: the checksum in the name keeps releases apart."""
    version = (spec.sha256 or "unverified")[:12]
    return (cache or default_cache()) / spec.name / f"{version}-{spec.file_name}"


def locate(spec: ModelSpec, cache: Path | None = None) -> Path:
    """The file with the weights, on this machine; no network.

    Raises:
        ModelError: They are not here; the message says how to get them.
    """
    path, remedy = _place(spec, cache)
    with suppress(OSError):  # a name that no file can have
        if path.is_file():
            return path
    raise ModelError(f"model {spec.name!r}: no weights at {path}; {remedy}")


def is_here(spec: ModelSpec, cache: Path | None = None) -> bool:
    """Whether the weights are on this machine."""
    try:
        return locate(spec, cache).is_file()
    except ModelError:
        return False


def fetch_model(
    spec: ModelSpec, *, cache: Path | None = None, progress: Progress | None = None, pause: float = 1.0
) -> Path:
    """Download weights into the cache, unless they are here; what is not exactly them leaves nothing behind.

    A download that breaks off leaves what has come in a file ``.part``, and the next one goes on from there.

    Args:
        spec: The model; models whose weights are local or in a package are here already.
        cache: Directory; the user's cache when None.
        progress: Told of the bytes that have come.
        pause: Seconds before the second attempt, doubled before the third.

    Raises:
        ChecksumError: The server gave something else; the message says what.
        ModelError: The server refused, or could not be reached in three attempts.
        WriteError: The cache directory cannot be written.
    """
    if not spec.href.startswith(WEB):
        return locate(spec, cache)
    if spec.sha256 is None:
        raise ModelError(f"model {spec.name!r}: its item has no file:checksum, so a download could not be trusted")
    target = cached_path(spec, cache)

    partial = target.with_name(f"{target.name}.part")

    def fill(_url: str, output_file: str, _pooch: object) -> None:
        download(spec, Path(output_file), partial=partial, progress=progress, pause=pause)

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(spec.href, f"sha256:{spec.sha256}", target.name, target.parent, downloader=fill)
    except OSError as error:
        raise WriteError(f"model {spec.name!r}: cannot be kept at {target}: {error}") from error
    return target


def _place(spec: ModelSpec, cache: Path | None) -> tuple[Path, str]:
    """Where the weights ought to be, and what to do if they are not."""
    if spec.href.startswith(PACKAGE):
        package, _, inner = spec.href.removeprefix(PACKAGE).partition("/")
        return _in_package(spec.name, package, inner), f"install {package} again"
    if spec.href.startswith(WEB):
        name = spec.name if spec.item_href.startswith(PACKAGE) else spec.item_href
        return cached_path(spec, cache), f"run `stac-cloudmask models fetch {name}`"
    if "://" in spec.href:
        raise ModelError(f"model {spec.name!r}: weights at {spec.href!r} cannot be read; download them beside the item")
    return Path(spec.href), "check the href of its item"


def _in_package(name: str, package: str, inner: str) -> Path:
    """A file of an installed package, found without importing it."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"model {name!r}: its weights come with the package {package!r}; run `pip install {package}`")
    folder = Path(found.submodule_search_locations[0]).resolve()
    path = (folder / inner).resolve()
    if not path.is_relative_to(folder):
        raise ModelError(f"model {name!r}: {inner!r} leaves the package {package!r}")
    return path


def weights_sha256(spec: ModelSpec, cache: Path | None = None) -> str:
    """The checksum in hex that the weights have, or must have to be used: what a mask's provenance names."""
    return spec.sha256 or _sha256(path := locate(spec, cache), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    return str(pooch.file_hash(str(path)))
