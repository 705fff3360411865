"""MLM items as they can stand beside the masks that their models made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.fetch import WEB, locate, weights_sha256
from stac_cloudmask.models.metadata import SHA256_MULTIHASH, weights_asset
from stac_cloudmask.models.registry import CATALOG_HREF, catalog_folder

if TYPE_CHECKING:
    from stac_cloudmask.models.metadata import ModelSpec

    Json = dict[str, Any]

HIERARCHY: Final = frozenset({"root", "parent", "self", "collection", "item", "child"})
"""Relations to other documents of the model's own catalog, which are not there where the copy goes."""
REMOTE: Final = ("https://", "http://", "s3://")


def is_followable(spec: ModelSpec) -> bool:
    """Whether the model's item says where others can read it."""
    return spec.item_href.startswith(REMOTE)


def model_document(spec: ModelSpec) -> Json:
    """The model's item without links into its own catalog, and with size and checksum of the weights that were used.

    Raises:
        ModelError: The item or the weights are not there any more.
    """
    path = _path(spec)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a model item any more: {error}") from error
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
