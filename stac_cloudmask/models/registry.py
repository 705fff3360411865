"""Find models by name or path, find or download their weights, and copy their items for outputs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pooch
import requests

from stac_cloudmask.core.predict import Role
from stac_cloudmask.errors import ChecksumError, ConfigError, ModelError, WriteError
from stac_cloudmask.models.spec import SHA256_MULTIHASH, ModelSpec, read_model_item, weights_asset
from stac_cloudmask.retry import DEFAULT_POLICY, RETRY_STATUSES, RetryPolicy, retry_after, retrying

PACKAGE: Final = "package://"
WEB: Final = ("https://", "http://")
CATALOG_HREF: Final = "package://stac_cloudmask/models/catalog"
"""Prefix of the shipped items' hrefs in outputs, independent of the machine."""
INT8_RANGES: Final = "int8-ranges.json"
"""File of the catalog with the ranges of features by the SHA-256 of the weights; `training/ranges.py` makes it."""
WITHIN_CATALOG: Final = frozenset({"root", "parent", "self", "collection", "item", "child"})
"""Link relations to other documents of the model's own catalog, which the copy's catalog does not have."""
TIMEOUT: Final = 60.0
"""Timeout in seconds without a byte."""
HEAD: Final = 512
"""Number of bytes from which the kind of a file is recognized."""
OTHER_KINDS: Final = {
    (b"version https://git-lfs.github.com/spec/",): (
        "a Git LFS pointer, not the weights it stands for; run `git lfs pull`, or `stac-cloudmask models fetch`"
    ),
    (b"<!doctype", b"<html", b"<?xml", b"<error"): (
        "a web page or an error page, not weights; check the address, a login page may have come instead"
    ),
    (b"{", b"["): "JSON, not weights; an MLM item has a name that ends in .json",
    (b"pk\x03\x04", b"\x1f\x8b"): "an archive or a PyTorch checkpoint, not ONNX; unpack or export it first",
}
"""The kinds of files that are given in place of weights, with a remedy, by their first bytes in lower case."""


def catalog_folder() -> Path:
    """Return the folder of the shipped STAC catalog of models."""
    package = Path(__file__).parent
    shipped = package / "catalog"
    return shipped if shipped.is_dir() else package.parents[1] / "models"


def list_models() -> list[ModelSpec]:
    """Return the models of the shipped catalog in its order."""
    document = json.loads((catalog_folder() / "catalog.json").read_text(encoding="utf-8"))
    hrefs = [link["href"].removeprefix("./") for link in document["links"] if link["rel"] == "item"]
    return [replace(read_model_item(catalog_folder() / href), item_href=f"{CATALOG_HREF}/{href}") for href in hrefs]


def find_model(name_or_path: str | Path, *, role: Role | None = None) -> ModelSpec:
    """Return a model by its name in the shipped catalog, or by the path of its MLM item or of a FarmVibes.AI file.

    An .onnx file is recognized as a model of FarmVibes.AI by its name (``cloud_model1_cpu.onnx`` to ``5``,
    ``shadow.onnx``): it gets that model's contract with its own weights.

    Raises:
        ModelError: There is no such model, or it does not have the role.
    """
    known = list_models()
    spec = _find(str(name_or_path), known)
    if role is not None and role not in spec.roles:
        able = ", ".join(one.name for one in known if role in one.roles)
        raise ModelError(f"model {spec.name!r} gives {' and '.join(spec.roles)}, not {role}; these do: {able}")
    return spec


def _find(wanted: str, known: list[ModelSpec]) -> ModelSpec:
    by_name, by_file = {spec.name: spec for spec in known}, {spec.file_name: spec for spec in known}
    path = Path(wanted)
    if wanted in by_name:
        return by_name[wanted]
    if path.suffix == ".json":
        return read_model_item(path)
    if path.suffix != ".onnx":
        raise ModelError(f"no model {wanted!r}; there are {', '.join(by_name)}, or the path of an MLM item (.json)")
    if path.name not in by_file:
        raise ModelError(
            f"{wanted}: an ONNX file does not state which bands it needs; give the path of an MLM item that names the "
            f"file instead (see models/README.md), or a file named {', '.join(sorted(by_file))}"
        )
    return with_weights(by_file[path.name], path)


def with_weights(spec: ModelSpec, path: str | Path) -> ModelSpec:
    """Return the same contract for another file, whose size and checksum are unknown."""
    path = Path(path).absolute()
    title = f"{path.name}, used as {spec.name}"
    return replace(spec, name=path.stem, title=title, href=path.as_posix(), sha256=None, file_size=None)


def is_followable(spec: ModelSpec) -> bool:
    """Return whether other machines can read the model's item by its link."""
    return spec.item_href.startswith((*WEB, "s3://"))


def model_document(spec: ModelSpec) -> dict[str, Any]:
    """Return a model's item without links into its own catalog, with size and checksum of the weights that were used.

    Raises:
        ModelError: The item or the weights no longer exist.
    """
    path = Path(spec.item_href.replace(CATALOG_HREF, str(catalog_folder())))
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can no longer be read as a model item: {error}") from error
    body.pop("collection", None)
    body["id"] = spec.name
    body["properties"] |= {"title": spec.title, "mlm:name": spec.name}
    body["links"] = [link for link in body.get("links", ()) if link["rel"] not in WITHIN_CATALOG]
    asset = weights_asset(body["assets"])
    asset |= {"href": spec.href, "file:checksum": SHA256_MULTIHASH + weights_sha256(spec)}
    if not spec.href.startswith(WEB):
        asset["file:size"] = locate(spec).stat().st_size
    return body


def int8_ranges(spec: ModelSpec, cache: Path | None = None) -> dict[str, tuple[float, float]]:
    """Return the minimum and maximum values of a model's features, which 8-bit inference needs.

    Raises:
        ConfigError: The ranges were not measured for these weights.
    """
    measured = json.loads((catalog_folder() / INT8_RANGES).read_text(encoding="utf-8"))
    ranges = measured.get(weights_sha256(spec, cache))
    if ranges is None:
        raise ConfigError(f"provider 'openvino-int8': no ranges are known for model {spec.name!r}; use 'openvino'")
    return {name: (low, high) for name, (low, high) in ranges.items()}


def diagnose(head: bytes) -> str | None:
    """Return the kind of a file and a remedy, by its first bytes; None if it may be a model."""
    text = head.lstrip().lower()
    kinds = (kind for starts, kind in OTHER_KINDS.items() if text.startswith(starts))
    return next(kinds, None) if head else "an empty file; fetch it again"


def mismatch(data: bytes, spec: ModelSpec) -> str | None:
    """Return how bytes differ from the size and checksum of an item; None if they match."""
    found = hashlib.sha256(data).hexdigest()
    if found == spec.sha256:
        return None
    if spec.file_size is not None and len(data) != spec.file_size:
        cut = "cut off" if len(data) < spec.file_size else "another file"
        return f"has {len(data)} bytes, but its item promises {spec.file_size}: {cut}"
    return None if spec.sha256 is None else f"has SHA-256 {found}, but its item promises {spec.sha256}"


def cached_path(spec: ModelSpec, cache: Path | None = None) -> Path:
    """Return the path of downloaded weights; the checksum in the name distinguishes releases."""
    folder, version = cache or Path(pooch.os_cache("stac-cloudmask")) / "models", (spec.sha256 or "unverified")[:12]
    return folder / spec.name / f"{version}-{spec.file_name}"


def locate(spec: ModelSpec, cache: Path | None = None) -> Path:
    """Return the local file with the weights, without network access.

    Raises:
        ModelError: They are not installed; the message says how to get them.
    """
    if spec.href.startswith(PACKAGE):
        package, _, inner = spec.href.removeprefix(PACKAGE).partition("/")
        path, remedy = _in_package(spec.name, package, inner), f"install {package} again"
    elif spec.href.startswith(WEB):
        name = spec.name if spec.item_href.startswith(PACKAGE) else spec.item_href
        path, remedy = cached_path(spec, cache), f"run `stac-cloudmask models fetch {name}`"
    elif "://" in spec.href:
        raise ModelError(f"model {spec.name!r}: weights at {spec.href!r} cannot be read; download them beside the item")
    else:
        path, remedy = Path(spec.href), "check the href of its item"
    with suppress(OSError):  # a name that no file can have
        if path.is_file():
            return path
    raise ModelError(f"model {spec.name!r}: no weights at {path}; {remedy}")


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


def is_here(spec: ModelSpec, cache: Path | None = None) -> bool:
    """Return whether the weights are installed."""
    with suppress(ModelError):
        return locate(spec, cache).is_file()
    return False


def weights_sha256(spec: ModelSpec, cache: Path | None = None) -> str:
    """Return the checksum in hex that the weights have, or must have to be used."""
    return spec.sha256 or _sha256(path := locate(spec, cache), path.stat().st_mtime_ns, path.stat().st_size)


@lru_cache(maxsize=64)
def _sha256(path: Path, _modified: int, _size: int) -> str:
    return str(pooch.file_hash(str(path)))


def fetch_model(
    spec: ModelSpec, *, cache: Path | None = None, progress: object = None, policy: RetryPolicy = DEFAULT_POLICY
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
        failure.retryable = answer is None or answer.status_code in RETRY_STATUSES
        if answer is not None:
            failure.retry_after = retry_after(answer.headers)
            answer.close()
        raise failure from error
    data = file.read_bytes()
    if found := mismatch(data, spec):
        other = diagnose(data[:HEAD])
        what = f"is {other}" if other else found
        raise ChecksumError(f"model {spec.name!r}: what {spec.href} gave {what}; nothing was kept")
