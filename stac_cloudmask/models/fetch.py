"""Where a model's weights are on this machine, and how they get there."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pooch

from stac_cloudmask.errors import ModelError, WriteError
from stac_cloudmask.models.download import download

if TYPE_CHECKING:
    from stac_cloudmask.models.download import Progress
    from stac_cloudmask.models.metadata import ModelSpec

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
