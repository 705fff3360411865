"""From a mask to its STAC item."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac
from shapely.errors import ShapelyError
from shapely.geometry import shape

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.assets import (
    ASSETS,
    OWN,
    carried_assets,
    class_list,
    extensions_of,
    license_links,
    renders,
    scene_properties,
    self_href,
    unsigned,
)
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource

    Json = dict[str, Any]

CHUNK = 1 << 20
"""Bytes or pixels looked at in one go."""


@dataclass(frozen=True, kw_only=True)
class AssetFile:
    """A file that was written for an asset: its name beside the item, its size in bytes, its SHA-256 in hex."""

    name: str
    size: int
    sha256: str

    @property
    def checksum(self) -> str:
        """The multihash that ``file:checksum`` wants: 12 = SHA-256, 20 = 32 bytes, in hex."""
        return f"1220{self.sha256}"


@dataclass(frozen=True, kw_only=True)
class ModelUse:
    """A model that had a say: its name, what it was used for (``cloud``, ``shadow``), its bytes and its MLM item."""

    name: str
    roles: tuple[str, ...]
    sha256: str
    href: str | None = None


@dataclass(frozen=True, kw_only=True)
class MaskFacts:
    """A mask and how it came about.

    Attributes:
        grid: Grid of the class map and of every other raster that was written.
        counts: Pixels by code of the class map, see ``class_counts``.
        files: The written files by asset key (`ASSETS`); ``cloud_mask`` is always among them.
        fingerprint: Hash of inputs, model hashes, settings and version.
        created: When the mask was made; timezone-aware.
        version: Version of this package.
        software: Versions of what else decides the result, by name.
        lineage: One or two sentences for people.
        models: The models that had a say.
        bands: The source's bands that were read, and what was added to their digital numbers.
        product_mask: Asset key of the source's own mask, None where the mask comes from the models alone.
        policy: Name of the merge policy.
        parameters: Its thresholds and sizes as they were applied, by name.
        settings: What the user asked for, by name.
        mask_only: Leave the source's assets out of the item.
        collection_id: The item's collection; by default it is named after the source's.
        source_id: Id of the item that was masked, where the source given is a part of it.
        notes: What was decided on the way that users may want to know.
        seconds: Wall time by stage, up to the writing of the item.
    """

    grid: Grid
    counts: Mapping[int, int]
    files: Mapping[str, AssetFile]
    fingerprint: str
    created: datetime
    version: str
    software: Mapping[str, str] = field(default_factory=dict)
    lineage: str
    models: tuple[ModelUse, ...] = ()
    bands: tuple[BandSource, ...] = ()
    product_mask: str | None
    policy: str
    parameters: Mapping[str, float | str | None] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    mask_only: bool = False
    collection_id: str | None = None
    source_id: str | None = None
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def valid(self) -> int:
        """Pixels that have data."""
        return valid_pixels(self.counts)


def file_facts(path: Path) -> AssetFile:
    """Name, size and hash of a file as it lies on the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
        size = stream.tell()
    return AssetFile(name=path.name, size=size, sha256=digest.hexdigest())


def valid_pixels(counts: Mapping[int, int]) -> int:
    """Pixels that have data, of those counted by code."""
    return sum(count for code, count in counts.items() if code != CloudClass.NODATA)


def cover(counts: Mapping[int, int], code: CloudClass) -> float | None:
    """Percent of the pixels with data that have this class; None where no pixel is valid."""
    valid = valid_pixels(counts)
    return round(100 * counts.get(code, 0) / valid, 4) if valid else None


def timestamp(time: datetime) -> str:
    """A timezone-aware time as items state it: UTC, whole seconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def class_counts(class_map: NDArray[np.uint8]) -> dict[int, int]:
    """Pixels by code, for every class of the table; ``class_map`` is ``(y, x)`` uint8.

    In strips, as numpy's count would hold eight bytes a pixel.
    """
    rows = max(1, CHUNK // max(1, class_map.shape[1]))
    total = np.zeros(256, np.int64)
    for top in range(0, class_map.shape[0], rows):
        total += np.bincount(class_map[top : top + rows].ravel(), minlength=256)
    return {int(info.code): int(total[info.code]) for info in CLASSES}


SUFFIX: Final = "cloudmask"
DEFAULT_COLLECTION: Final = "sentinel-2-l2a"
"""Taken for the source's collection where the source has none."""
JSON_TYPE: Final = "application/json"
ITEM_TYPE: Final = "application/geo+json"
SIDECAR_TYPE: Final = "application/xml"
CATALOG_TITLE: Final = "Cloud and cloud-shadow masks"


def output_id(source_id: str) -> str:
    """The id of the output item.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_id)}_{SUFFIX}"


def output_collection(source_collection: str | None) -> str:
    """The id of the collection that the output item goes to.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_collection or DEFAULT_COLLECTION, what='collection')}-{SUFFIX}"


def collection_title(collection_id: str) -> str:
    """The title of a collection of masks, unless its owner has given it another."""
    return f"Cloud and cloud-shadow masks for {collection_id.removesuffix(f'-{SUFFIX}')}"


def mask_item(source: pystac.Item, facts: MaskFacts) -> pystac.Item:
    """The item of a finished mask.

    Links to collection and catalog are relative, as is the href of every file that was written; everything that the
    source owns is referred to absolutely and unsigned. Nothing is fetched.

    Args:
        source: The item that the mask was made from, its asset hrefs absolute.
        facts: The mask and how it came about.

    Raises:
        UnsupportedItemError: The source's id or its collection's cannot name an output, or it has no footprint.
    """
    assets: dict[str, Json] = {}
    if not facts.mask_only:
        bands = {band.asset_key: band for band in facts.bands}
        assets = carried_assets(source, bands=bands, choice=str(facts.settings.get("boa_offset", "auto")))
    assets |= {key: _asset(key, facts) for key in ASSETS if key in facts.files}
    properties = _properties(source, facts)
    collection = facts.collection_id or output_collection(source.collection_id)
    item: Json = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions_of(properties, *assets.values(), declared=source.stac_extensions),
        "id": output_id(source.id),
        "collection": collection,
        "geometry": _footprint(source),
        "bbox": _bbox(source),
        "properties": properties,
        "links": [*_structure(collection), *_provenance(source, facts), *license_links(source)],
        "assets": assets,
    }
    return pystac.Item.from_dict(item, preserve_dict=False, migrate=False)


def _footprint(source: pystac.Item) -> Json:
    geometry = source.geometry
    if not geometry:
        raise UnsupportedItemError(f"item {source.id!r} has no geometry; STAC APIs need a footprint to publish it")
    try:
        if _is_numeric(geometry) and not shape(geometry).is_empty:
            return geometry
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, ShapelyError):
        pass
    raise UnsupportedItemError(f"item {source.id!r} has no valid geometry: {str(geometry)[:80]}; correct the item")


def _is_numeric(geometry: Json) -> bool:
    """Whether all coordinates are finite numbers: GEOS takes texts for numbers."""
    waiting = [part["coordinates"] for part in geometry.get("geometries", [geometry])]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting.extend(part)
        elif number(part) is None:
            return False
    return True


def _bbox(source: pystac.Item) -> list[float]:
    """The source's bounding box; that of its footprint where it has none, or none that can be."""
    stated = source.bbox
    if isinstance(stated, list) and len(stated) in {4, 6} and None not in map(number, stated):
        return stated
    return list(shape(_footprint(source)).bounds)


def _properties(source: pystac.Item, facts: MaskFacts) -> Json:
    created = timestamp(facts.created)
    return {
        **scene_properties(source, with_assets=not facts.mask_only),
        "title": f"Cloud and cloud-shadow mask for {source.id}",
        "created": created,
        "updated": created,
        "gsd": facts.grid.gsd,
        **_cover(facts),
        "processing:level": "L4",
        "processing:datetime": created,
        "processing:lineage": facts.lineage,
        "processing:software": {"stac_cloudmask": facts.version, **facts.software},
        **_projection(facts),
        "proj:bbox": list(facts.grid.bounds),
        "renders": renders(facts.files),
        f"{OWN}source": {"id": facts.source_id or source.id, "collection": source.collection_id},
        **_decisions(facts),
    }


def _cover(facts: MaskFacts) -> Json:
    """Cover over the valid pixels; the source's own values go to the link back to it."""
    total = max(1, sum(facts.counts.values()))
    stated = {
        "eo:cloud_cover": cover(facts.counts, CloudClass.CLOUD),
        "s2:cloud_shadow_percentage": cover(facts.counts, CloudClass.CLOUD_SHADOW),
        "s2:nodata_pixel_percentage": round(100 * (total - facts.valid) / total, 4),
    }
    return {name: value for name, value in stated.items() if value is not None}


def _projection(facts: MaskFacts) -> Json:
    grid = facts.grid
    return {"proj:code": grid.code, "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}


def _decisions(facts: MaskFacts) -> Json:
    """What was decided on the way, so that a mask can be understood and made again."""
    return {
        f"{OWN}fingerprint": facts.fingerprint,
        f"{OWN}merge": {"policy": facts.policy, **facts.parameters},
        f"{OWN}product_mask": facts.product_mask,
        f"{OWN}boa_offset": {
            band.asset_key: {"offset": band.offset.dn, "reason": band.offset.reason, "doubtful": band.offset.doubtful}
            for band in facts.bands
        },
        f"{OWN}models": [
            {"name": model.name, "roles": list(model.roles), "sha256": model.sha256} for model in facts.models
        ],
        f"{OWN}settings": dict(facts.settings),
        f"{OWN}notes": list(facts.notes),
        f"{OWN}seconds": dict(facts.seconds),
    }


def _asset(key: str, facts: MaskFacts) -> Json:
    file = facts.files[key]
    asset: Json = {"href": f"./{file.name}", **ASSETS[key], "created": timestamp(facts.created)}
    if asset["type"] != SIDECAR_TYPE:  # QGIS and GDAL write to theirs
        asset |= {"file:size": file.size, "file:checksum": file.checksum}
    if "bands" not in asset:
        return asset
    asset |= {"gsd": facts.grid.gsd, "raster:spatial_resolution": facts.grid.gsd}
    models = [unsigned(model.href) for model in facts.models if model.href]
    if models:
        asset["processing:expression"] = {"format": "stac-mlm", "expression": models[0] if len(models) == 1 else models}
    if key == "cloud_mask":
        asset["classification:classes"] = class_list(facts.counts)
    return asset | _projection(facts)


def _structure(collection: str) -> list[Json]:
    """Links of an item that lies at COLLECTION/ITEM/ITEM.json below its catalog."""
    return [
        {"rel": "root", "href": "../../catalog.json", "type": JSON_TYPE, "title": CATALOG_TITLE},
        {"rel": "parent", "href": "../collection.json", "type": JSON_TYPE, "title": collection_title(collection)},
        {"rel": "collection", "href": "../collection.json", "type": JSON_TYPE, "title": collection_title(collection)},
    ]


def _provenance(source: pystac.Item, facts: MaskFacts) -> list[Json]:
    links: list[Json] = []
    href = self_href(source)
    if href:
        link = {
            "rel": "derived_from",
            "href": href,
            "type": ITEM_TYPE,
            "title": f"Source item {facts.source_id or source.id}",
        }
        stated = ("eo:cloud_cover", "s2:cloud_shadow_percentage")
        covers = {name: number(source.properties.get(name)) for name in stated}
        links.append(link | {name: value for name, value in covers.items() if value is not None})
    links += [
        {
            "rel": "derived_from",
            "href": unsigned(model.href),
            "type": ITEM_TYPE,
            "title": f"Model {model.name}",
            "mlm:name": model.name,
        }
        for model in facts.models
        if model.href
    ]
    return links


def source_ids(mask: Json) -> tuple[str, str]:
    """Ids of the collection and of the item that a mask was made from."""
    stated = mask["properties"].get(f"{OWN}source") or {}  # masks before 0.2 do not state it
    collection = stated.get("collection") or str(mask["collection"]).removesuffix(f"-{SUFFIX}")
    return collection, stated.get("id") or str(mask["id"]).removesuffix(f"_{SUFFIX}")


ATTACHED: Final = f"{OWN}attached"
"""Property of a source item that lists what was added to it, by the id of the mask."""


def attached(source: Json, mask: Json) -> Json:
    """A source item with the mask's own files as assets of its own; nothing else of it changes.

    Args:
        source: The JSON of the item.
        mask: The JSON of its mask, its hrefs absolute.

    Raises:
        UnsupportedItemError: An asset of the source has the name of one of the mask's.
    """
    bare = detached(source, mask)
    added = {_attached_key(key): dict(asset) for key, asset in mask["assets"].items() if key in ASSETS}
    taken = sorted(added.keys() & bare["assets"].keys())
    if taken:
        raise UnsupportedItemError(f"item {source['id']!r} has assets {', '.join(taken)} of its own already")
    for asset in added.values():
        asset["roles"] = [role for role in asset["roles"] if role != "thumbnail"]
    known = bare.get("stac_extensions") or []
    schemas = [schema for schema in extensions_of(*added.values()) if schema not in known]
    noted = {**bare["properties"].get(ATTACHED, {}), mask["id"]: {"assets": sorted(added), "stac_extensions": schemas}}
    return bare | {
        "assets": bare["assets"] | added,
        "stac_extensions": [*known, *schemas],
        "properties": bare["properties"] | {ATTACHED: noted},
    }


def detached(source: Json, mask: Json) -> Json:
    """A source item as it was before `attached`."""
    noted = dict(source["properties"].get(ATTACHED) or {})
    mine = noted.pop(mask["id"], {"assets": [], "stac_extensions": []})
    properties = {name: value for name, value in source["properties"].items() if name != ATTACHED}
    return source | {
        "assets": {key: asset for key, asset in source["assets"].items() if key not in mine["assets"]},
        "stac_extensions": [
            each for each in source.get("stac_extensions") or [] if each not in mine["stac_extensions"]
        ],
        "properties": properties | ({ATTACHED: noted} if noted else {}),
    }


def _attached_key(key: str) -> str:
    """The name of an asset among those of the source, which may have a thumbnail and an SCL, too."""
    return key if key.startswith(("cloud_", "shadow_", "mask_")) else f"cloud_mask_{key}"
