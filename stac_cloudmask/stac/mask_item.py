"""Build the STAC item of a mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac
from shapely.geometry import shape

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.assets import (
    ASSETS,
    OWN,
    Json,
    carried_assets,
    extensions_of,
    file_name_of,
    license_links,
    renders,
    scene_properties,
    self_href,
    unsigned,
)
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.metadata import number, numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import Sources


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """A model that was used: its name, its roles (``cloud``, ``shadow``), its checksum and its MLM item."""

    name: str
    roles: tuple[str, ...]
    sha256: str
    href: str


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """A mask and its provenance.

    Attributes:
        settings: What the user asked for.
        sources: The source's assets that were read.
        source_id: Id of the item that was masked, where the source given may be a part of it.
        collection_id: The item's collection.
        models: The models that were used.
        grid: Grid of all written rasters.
        counts: Pixels by code of the class map, see ``class_counts``.
        files: Size and checksum of the written files by asset key (`ASSETS`), see ``file_fields``; ``cloud_mask`` is
            always among them.
        parameters: Thresholds and sizes of the merge policy as they were applied, by name.
        fingerprint: Hash of inputs, model hashes, settings and version.
        created: When the mask was made, in STAC's format.
        software: Versions of this package and what else decides the result, by name.
        lineage: One or two sentences in plain language.
        notes: Decisions made during processing that users may want to know.
        seconds: Wall time by stage, up to the writing of the item.
    """

    settings: Settings
    sources: Sources
    source_id: str
    collection_id: str
    models: tuple[ModelUse, ...]
    grid: Grid
    counts: Mapping[int, int]
    files: Mapping[str, Json]
    parameters: Mapping[str, float | str | None]
    fingerprint: str
    created: str
    software: Mapping[str, str]
    lineage: str
    notes: tuple[str, ...]
    seconds: Mapping[str, float]


def file_fields(path: Path) -> Json:
    """Return the fields of the file extension for a file on disk: its size in bytes and its multihash in hex."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    # a multihash: 12 is SHA-256, 20 are its 32 bytes
    return {"file:size": path.stat().st_size, "file:checksum": f"1220{digest.hexdigest()}"}


def cover_of(counts: Mapping[int, int]) -> dict[str, float]:
    """Return percent of the valid pixels by class name, and of all pixels for nodata."""
    total = sum(counts.values())
    valid = total - counts.get(CloudClass.NODATA, 0)
    whole = {info.code: total if info.code == CloudClass.NODATA else valid for info in CLASSES}
    return {info.name: round(100 * counts.get(info.code, 0) / max(whole[info.code], 1), 4) for info in CLASSES}


def class_counts(class_map: NDArray[np.uint8]) -> dict[int, int]:
    """Return the number of pixels by code, for every class; ``class_map`` is ``(y, x)`` uint8."""
    return {int(info.code): int(np.count_nonzero(class_map == info.code)) for info in CLASSES}


SUFFIX: Final = "cloudmask"
DEFAULT_COLLECTION: Final = "sentinel-2-l2a"
"""Assumed collection of a source without one."""
JSON_TYPE: Final = "application/json"
ITEM_TYPE: Final = "application/geo+json"
CATALOG_TITLE: Final = "Cloud and cloud-shadow masks"


def output_id(source_id: str) -> str:
    """Return the id of the output item.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_id)}_{SUFFIX}"


def output_collection(source_collection: str | None) -> str:
    """Return the id of the collection that the output item goes to.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_collection or DEFAULT_COLLECTION, what='collection')}-{SUFFIX}"


def collection_title(collection_id: str) -> str:
    """Return the title of a collection of masks, unless its owner has given it another."""
    return f"Cloud and cloud-shadow masks for {collection_id.removesuffix(f'-{SUFFIX}')}"


def mask_item(source: pystac.Item, facts: MaskFacts) -> Json:
    """Return the JSON of the item of a finished mask.

    Links to collection and catalog are relative, as are the hrefs of all written files; hrefs of the source's files
    are absolute and unsigned. Nothing is fetched.

    Args:
        source: The item that the mask was made from, its asset hrefs absolute, with a footprint.
        facts: The mask and its provenance.

    Raises:
        UnsupportedItemError: The id of the source or its collection is not valid for an output.
    """
    assets: dict[str, Json] = {}
    if not facts.settings.mask_only:
        carried = carried_assets(source, facts.sources, choice=facts.settings.boa_offset)
        assets = {_source_key(key, facts): asset for key, asset in carried.items()}
    assets |= {key: _asset(key, facts) for key in ASSETS if key in facts.files}
    properties = _properties(source, facts)
    item: Json = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions_of(properties, *assets.values(), declared=source.stac_extensions),
        "id": output_id(source.id),
        "collection": facts.collection_id,
        "geometry": source.geometry,
        "bbox": source.bbox if numbers(source.bbox, (4, 6)) else list(shape(source.geometry).bounds),
        "properties": properties,
        "links": _links(source, facts),
        "assets": assets,
    }
    whole = pystac.Item.from_dict(item, preserve_dict=False, migrate=False)
    return whole.to_dict(include_self_link=False, transform_hrefs=False)


def _source_key(key: str, facts: MaskFacts) -> str:
    """Return the key of a source's asset beside the mask's own, because a corrected ``scl`` takes the source's key."""
    return f"source_{key}" if key in facts.files else key


def _properties(source: pystac.Item, facts: MaskFacts) -> Json:
    """Return what holds for source and mask, what describes the mask, and what it takes to understand and repeat it."""
    scl = facts.sources.scl
    return {
        **scene_properties(source, with_assets=not facts.settings.mask_only),
        "title": f"Cloud and cloud-shadow mask for {source.id}",
        "created": facts.created,
        "updated": facts.created,
        "gsd": facts.grid.gsd,
        **_cover(facts.counts),
        "processing:level": "L4",
        "processing:datetime": facts.created,
        "processing:lineage": facts.lineage,
        "processing:software": dict(facts.software),
        **_projection(facts.grid),
        "proj:bbox": list(facts.grid.bounds),
        "renders": renders(facts.files),
        f"{OWN}source": {"id": facts.source_id, "collection": source.collection_id},
        f"{OWN}fingerprint": facts.fingerprint,
        f"{OWN}merge": {"policy": facts.settings.merge, **facts.parameters},
        f"{OWN}product_mask": scl and _source_key(scl.asset_key, facts),
        f"{OWN}boa_offset": {
            band.asset_key: {"offset": band.offset.dn, "reason": band.offset.reason, "doubtful": band.offset.doubtful}
            for band in facts.sources.bands
        },
        f"{OWN}models": [
            {"name": model.name, "roles": list(model.roles), "sha256": model.sha256} for model in facts.models
        ],
        f"{OWN}settings": facts.settings.fingerprint_fields(),
        f"{OWN}notes": list(facts.notes),
        f"{OWN}seconds": dict(facts.seconds),
    }


def _cover(counts: Mapping[int, int]) -> Json:
    """Return the cover over the valid pixels; the source's own values are kept on the link to it."""
    shares = cover_of(counts)
    nodata = {"s2:nodata_pixel_percentage": shares["nodata"]}
    if counts.get(CloudClass.NODATA, 0) == sum(counts.values()):
        return nodata
    return {"eo:cloud_cover": shares["cloud"], "s2:cloud_shadow_percentage": shares["cloud_shadow"], **nodata}


def _projection(grid: Grid) -> Json:
    return {"proj:code": grid.code, "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}


def _asset(key: str, facts: MaskFacts) -> Json:
    asset: Json = {"href": f"./{file_name_of(key)}", **ASSETS[key], "created": facts.created}
    if asset["type"] != "application/xml":  # QGIS and GDAL modify sidecars
        asset |= facts.files[key]
    if "bands" not in asset:
        return asset
    asset |= {"gsd": facts.grid.gsd, "raster:spatial_resolution": facts.grid.gsd}
    models = [unsigned(model.href) for model in facts.models]
    asset["processing:expression"] = {"format": "stac-mlm", "expression": models[0] if len(models) == 1 else models}
    if key == "cloud_mask":
        asset["classification:classes"] = _counted(asset["classification:classes"], facts.counts)
    return asset | _projection(facts.grid)


def _counted(classes: list[Json], counts: Mapping[int, int]) -> list[Json]:
    """Return classes with their counts of pixels and their percentages of the valid pixels; nodata has a count only.

    The percentages add up to 100 and agree with ``eo:cloud_cover``.
    """
    valid = max(1, sum(counts.values()) - counts.get(CloudClass.NODATA, 0))
    counted = [info | {"count": counts.get(info["value"], 0)} for info in classes]
    return [
        info if "nodata" in info else info | {"percentage": round(100 * info["count"] / valid, 6)} for info in counted
    ]


def _links(source: pystac.Item, facts: MaskFacts) -> list[Json]:
    """Return the links of an item at COLLECTION/ITEM/ITEM.json below its catalog, and those of its provenance."""
    title = collection_title(facts.collection_id)
    links = [
        json_link("root", "../../catalog.json", CATALOG_TITLE),
        json_link("parent", "../collection.json", title),
        json_link("collection", "../collection.json", title),
    ]
    if (href := self_href(source)) is not None:
        names = ("eo:cloud_cover", "s2:cloud_shadow_percentage")
        stated = {name: value for name in names if (value := number(source.properties.get(name))) is not None}
        links.append(_derived_from(href, f"Source item {facts.source_id}", stated))
    links += [
        _derived_from(unsigned(model.href), f"Model {model.name}", {"mlm:name": model.name}) for model in facts.models
    ]
    return links + license_links(source)


def json_link(rel: str, href: str, title: str) -> Json:
    """Return a link to a catalog or collection."""
    return {"rel": rel, "href": href, "type": JSON_TYPE, "title": title}


def _derived_from(href: str, title: str, stated: Json) -> Json:
    return {"rel": "derived_from", "href": href, "type": ITEM_TYPE, "title": title, **stated}


def source_ids(mask: Json) -> tuple[str, str]:
    """Return the ids of the collection and of the item that a mask was made from."""
    stated = mask["properties"][f"{OWN}source"]
    return stated["collection"] or DEFAULT_COLLECTION, stated["id"]


ATTACHED: Final = f"{OWN}attached"
"""Property of a source item that lists the added assets, by the id of the mask."""


def attached(source: Json, mask: Json) -> Json:
    """Return a source item with a mask's files added as assets; nothing else changes.

    Args:
        source: The JSON of the item.
        mask: The JSON of its mask, its hrefs absolute. The assets of a mask of a part have the hash of the area in
            their keys, so that an item can hold the masks of several areas.

    Raises:
        UnsupportedItemError: An asset of the source has the name of one of the mask's.
    """
    bare = detached(source, mask)
    area = mask["id"].removeprefix(source["id"]).removesuffix(SUFFIX).strip("_")
    added = {}
    for key, asset in mask["assets"].items():
        if key in ASSETS and asset.get("title") == ASSETS[key]["title"]:  # an SCL may be the source's
            # the source may have a thumbnail and an SCL of its own
            name = key if key.startswith(("cloud_", "shadow_", "mask_")) else f"cloud_mask_{key}"
            title = f"{asset['title']}, area {area}" if area else asset["title"]
            roles = [role for role in asset["roles"] if role != "thumbnail"]
            added[f"{name}_{area}" if area else name] = asset | {"title": title, "roles": roles}
    taken = sorted(added.keys() & bare["assets"].keys())
    if taken:
        raise UnsupportedItemError(f"item {source['id']!r} has assets {', '.join(taken)} of its own already")
    known, noted = bare.get("stac_extensions") or [], bare["properties"].get(ATTACHED, {})
    of_source = set(known) - _schemas(noted)
    schemas = [schema for schema in extensions_of(*added.values()) if schema not in of_source]
    noted = {**noted, mask["id"]: {"assets": sorted(added), "stac_extensions": schemas}}
    return bare | {
        "assets": bare["assets"] | added,
        "stac_extensions": [*known, *(schema for schema in schemas if schema not in known)],
        "properties": bare["properties"] | {ATTACHED: noted},
    }


def detached(source: Json, mask: Json) -> Json:
    """Return a source item as it was before `attached`; masks of other areas stay."""
    noted = dict(source["properties"].get(ATTACHED) or {})
    mine = noted.pop(mask["id"], {"assets": [], "stac_extensions": []})
    unused = set(mine["stac_extensions"]) - _schemas(noted)
    properties = {name: value for name, value in source["properties"].items() if name != ATTACHED}
    return source | {
        "assets": {key: asset for key, asset in source["assets"].items() if key not in mine["assets"]},
        "stac_extensions": [schema for schema in source.get("stac_extensions") or [] if schema not in unused],
        "properties": properties | ({ATTACHED: noted} if noted else {}),
    }


def _schemas(noted: Json) -> set[str]:
    return {schema for one in noted.values() for schema in one["stac_extensions"]}
