"""Find and download the weights of models, and diagnose files that are not weights."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pooch
import requests

from stac_cloudmask.errors import ChecksumError, ModelError, WriteError
from stac_cloudmask.retry import DEFAULT_POLICY, PASSING, RetryPolicy, retry_after, retrying

if TYPE_CHECKING:
    from stac_cloudmask.models.spec import ModelSpec

LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
HEAD: Final = 512
"""Number of bytes from which the kind of a file is recognized."""


def diagnose(head: bytes) -> str | None:
    """Return the kind of a file and a remedy, by its first bytes; None if it may be a model."""
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
    """Return how bytes differ from the size and checksum of an item; None if they match."""
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found == sha256:
        return None
    if file_size is not None and len(data) != file_size:
        cut = "cut off" if len(data) < file_size else "another file"
        return f"has {len(data)} bytes, but its item promises {file_size}: {cut}"
    return None if sha256 is None else f"has SHA-256 {found}, but its item promises {sha256}"


TIMEOUT: Final = 60.0
"""Timeout in seconds without a byte."""


PACKAGE: Final = "package://"
WEB: Final = ("https://", "http://")


def default_cache() -> Path:
    """Return the user's cache directory for weights."""
    return Path(pooch.os_cache("stac-cloudmask")) / "models"


def cached_path(spec: ModelSpec, cache: Path | None = None) -> Path:
    """Return the path of downloaded weights; the checksum in the name distinguishes releases."""
    version = (spec.sha256 or "unverified")[:12]
    return (cache or default_cache()) / spec.name / f"{version}-{spec.file_name}"


def locate(spec: ModelSpec, cache: Path | None = None) -> Path:
    """Return the local file with the weights, without network access.

    Raises:
        ModelError: They are not installed; the message says how to get them.
    """
    path, remedy = _place(spec, cache)
    with suppress(OSError):  # a name that no file can have
        if path.is_file():
            return path
    raise ModelError(f"model {spec.name!r}: no weights at {path}; {remedy}")


def is_here(spec: ModelSpec, cache: Path | None = None) -> bool:
    """Return whether the weights are installed."""
    try:
        return locate(spec, cache).is_file()
    except ModelError:
        return False


def fetch_model(
    spec: ModelSpec,
    *,
    cache: Path | None = None,
    progress: object = None,
    policy: RetryPolicy = DEFAULT_POLICY,
) -> Path:
    """Download weights into the cache, unless they are installed; files with a wrong checksum are discarded.

    Args:
        spec: The model; weights that are local or in a package are installed already.
        cache: Cache directory; None for the user's cache.
        progress: A bar as pooch moves it along, with ``total``, ``update``, ``reset`` and ``close``.
        policy: Retry settings for a failing server.

    Raises:
        ChecksumError: The server sent something else; the message says what.
        ModelError: The server refused the request, or could not be reached.
        WriteError: The cache directory cannot be written.
    """
    if not spec.href.startswith(WEB):
        return locate(spec, cache)
    if spec.sha256 is None:
        raise ModelError(f"model {spec.name!r}: its item has no file:checksum, so a download could not be verified")
    target = cached_path(spec, cache)

    def fill(_url: str, file: str, _pooch: object) -> None:
        retrying(lambda: _download(spec, Path(file), progress), policy=policy)

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(spec.href, f"sha256:{spec.sha256}", target.name, target.parent, downloader=fill)
    except OSError as error:
        raise WriteError(f"model {spec.name!r}: cannot be kept at {target}: {error}") from error
    return target


def _download(spec: ModelSpec, file: Path, progress: object) -> None:
    try:
        pooch.HTTPDownloader(progressbar=progress or False, timeout=TIMEOUT)(spec.href, str(file), None)
    except requests.RequestException as error:
        failure = ModelError(f"model {spec.name!r}: {spec.href}: {error}; nothing was kept")
        answer = error.response
        failure.retryable = answer is None or answer.status_code in PASSING
        if answer is not None:
            failure.retry_after = retry_after(answer.headers)
            answer.close()
        raise failure from error
    data = file.read_bytes()
    if found := mismatch(data, sha256=spec.sha256, file_size=spec.file_size):
        other = diagnose(data[:HEAD])
        what = f"is {other}" if other else found
        raise ChecksumError(f"model {spec.name!r}: what {spec.href} gave {what}; nothing was kept")


def _place(spec: ModelSpec, cache: Path | None) -> tuple[Path, str]:
    """Return the path where the weights should be, and a remedy if they are missing."""
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
    """Return the path of a file in an installed package, without importing the package."""
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise ModelError(f"model {name!r}: its weights come with the package {package!r}; run `pip install {package}`")
    folder = Path(found.submodule_search_locations[0]).resolve()
    path = (folder / inner).resolve()
    if not path.is_relative_to(folder):
        raise ModelError(f"model {name!r}: {inner!r} leaves the package {package!r}")
    return path


def weights_sha256(spec: ModelSpec, cache: Path | None = None) -> str:
    """Return the checksum in hex that the weights have, or must have to be used."""
    return spec.sha256 or _sha256(path := locate(spec, cache), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    return str(pooch.file_hash(str(path)))
