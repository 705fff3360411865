"""Find models by name or path, and copy their items for outputs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ConfigError, ModelError
from stac_cloudmask.models.spec import SHA256_MULTIHASH, ModelSpec, read_model_item, weights_asset
from stac_cloudmask.models.weights import WEB, locate, weights_sha256

if TYPE_CHECKING:
    from stac_cloudmask.models.spec import ModelSpec

    Json = dict[str, Any]
    from stac_cloudmask.core.predict import Role

HIERARCHY: Final = frozenset({"root", "parent", "self", "collection", "item", "child"})
"""Link relations to other documents of the model's own catalog, which the copy's catalog does not have."""
REMOTE: Final = ("https://", "http://", "s3://")


def is_followable(spec: ModelSpec) -> bool:
    """Return whether other machines can read the model's item by its link."""
    return spec.item_href.startswith(REMOTE)


def model_document(spec: ModelSpec) -> Json:
    """Return a model's item without links into its own catalog, with size and checksum of the weights that were used.

    Raises:
        ModelError: The item or the weights no longer exist.
    """
    path = _path(spec)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can no longer be read as a model item: {error}") from error
    body.pop("collection", None)
    body["id"] = spec.name
    body["properties"] |= {"title": spec.title, "mlm:name": spec.name}
    body["links"] = [link for link in body.get("links", ()) if link["rel"] not in HIERARCHY]
    stated: Json = {"href": spec.href, "file:checksum": SHA256_MULTIHASH + weights_sha256(spec)}
    if not spec.href.startswith(WEB):
        stated["file:size"] = locate(spec).stat().st_size
    weights_asset(body["assets"]).update(stated)
    return dict(body)


def _path(spec: ModelSpec) -> Path:
    inner = spec.item_href.removeprefix(f"{CATALOG_HREF}/")
    return Path(spec.item_href) if inner == spec.item_href else catalog_folder() / inner


CATALOG_HREF: Final = "package://stac_cloudmask/models/catalog"
"""Prefix of the shipped items' hrefs in outputs, independent of the machine."""


INT8_RANGES: Final = "int8-ranges.json"
"""File of the catalog with the ranges of features by the SHA-256 of the weights; `training/ranges.py` makes it."""


def catalog_folder() -> Path:
    """Return the folder of the shipped STAC catalog of models."""
    package = Path(__file__).parent
    shipped = package / "catalog"
    return shipped if shipped.is_dir() else package.parents[1] / "models"


def list_models(catalog: Path | None = None) -> list[ModelSpec]:
    """Return the models of a catalog in its order; by default the shipped catalog."""
    folder = catalog or catalog_folder()
    document = json.loads((folder / "catalog.json").read_text(encoding="utf-8"))
    hrefs = [link["href"].removeprefix("./") for link in document["links"] if link["rel"] == "item"]
    return [replace(read_model_item(folder / href), item_href=f"{CATALOG_HREF}/{href}") for href in hrefs]


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


def find_model(name_or_path: str | Path, *, role: Role | None = None) -> ModelSpec:
    """Return a model by its name in the shipped catalog, or by the path of its MLM item or of a FarmVibes.AI file.

    An .onnx file is recognized as a model of FarmVibes.AI by its name (``cloud_model1_cpu.onnx`` to ``5``,
    ``shadow.onnx``): it gets that model's contract with its own weights.

    Raises:
        ModelError: There is no such model, or it does not have the role.
    """
    spec = _find(str(name_or_path))
    if role is not None and role not in spec.roles:
        able = ", ".join(known.name for known in list_models() if role in known.roles)
        raise ModelError(f"model {spec.name!r} gives {' and '.join(spec.roles)}, not {role}; these do: {able}")
    return spec


def with_weights(spec: ModelSpec, path: str | Path) -> ModelSpec:
    """Return the same contract for another file, whose size and checksum are unknown."""
    path = Path(path).absolute()
    return replace(
        spec,
        name=path.stem,
        title=f"{path.name}, used as {spec.name}",
        href=path.as_posix(),
        sha256=None,
        file_size=None,
    )


def _find(wanted: str) -> ModelSpec:
    known = {spec.name: spec for spec in list_models()}
    if wanted in known:
        return known[wanted]
    path = Path(wanted)
    if path.suffix == ".json":
        return read_model_item(path)
    by_file = {spec.file_name: spec for spec in known.values()}
    if path.suffix == ".onnx" and path.name in by_file:
        return with_weights(by_file[path.name], path)
    if path.suffix == ".onnx":
        raise ModelError(
            f"{wanted}: an ONNX file does not state which bands it needs; give the path of an MLM item that names the "
            f"file instead (see models/README.md), or one of FarmVibes.AI's files: {', '.join(sorted(by_file))}"
        )
    raise ModelError(f"no model {wanted!r}; there are {', '.join(known)}, or the path of an MLM item (.json)")
