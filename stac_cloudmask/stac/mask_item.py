"""Build the STAC item of a mask, with what it carries over from its source."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import pystac
from numpy.typing import NDArray
from shapely.geometry import shape

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import UnsupportedItemError, redact
from stac_cloudmask.stac.assets import ASSETS, OWN, Json, extensions_of, file_name_of, renders
from stac_cloudmask.stac.bands import BandSource, Sources, asset_band, boa_offset, scale_of
from stac_cloudmask.stac.hrefs import check_href, is_remote, safe_id, unsigned
from stac_cloudmask.stac.metadata import asset_epsg, baseline, number, numbers, sun_angles, tile_of


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
        carried = _carried_assets(source, facts.sources, choice=facts.settings.boa_offset)
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
        **_scene_properties(source, with_assets=not facts.settings.mask_only),
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
    used = [(unsigned(model.href), model.name) for model in facts.models]
    links += [_derived_from(href, f"Model {name}", {"mlm:name": name}) for href, name in used]
    return links + _license_links(source)


def json_link(rel: str, href: str, title: str) -> Json:
    """Return a link to a catalog or collection."""
    return {"rel": rel, "href": href, "type": JSON_TYPE, "title": title}


def _derived_from(href: str, title: str, stated: Json) -> Json:
    return {"rel": "derived_from", "href": href, "type": ITEM_TYPE, "title": title, **stated}


CARRIED: Final = re.compile(
    r"(start_|end_)?datetime|license|providers|platform|constellation|instruments|eo:snow_cover"
    r"|(auth|eopf|grid|mgrs|product|sat|view):.+|storage:schemes"
    r"|s2:(product_uri|tile_id|datatake_id|datatake_type|datastrip_id|reflectance_conversion_factor)"
)
"""Properties of the source that also apply to its mask. Left out are the class percentages of the product's own mask,
which the new mask contradicts; fields that the Sentinel-2 extension lacks or has deprecated; and storage fields of
the storage extension's first version, which would wrongly describe the mask's own files."""
BAND_PREFIXES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("common_name", "center_wavelength", "full_width_half_max", "solar_illumination"), "eo:"),
    **dict.fromkeys(("scale", "offset", "spatial_resolution", "sampling", "bits_per_sample", "histogram"), "raster:"),
}
"""Fields of ``eo:bands`` and ``raster:bands``, where STAC 1.0 kept bands, that have a prefix since STAC 1.1."""
REPLACED: Final = frozenset({"alternate", "bands", "eo:bands", "raster:bands", "proj:epsg"})
"""Fields that are carried over in another form."""
OF_VALUES: Final = re.compile(r"raster:.+|data_type|nodata|unit|statistics")
"""Fields that describe a band's values; they belong to the asset if it has one band."""

RASTER_TYPES: Final = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
ESA_ID: Final = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6}")


def mapped(value: object, change: Callable[[Any], object]) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON with all texts, numbers and constants in it changed."""
    if isinstance(value, dict):
        return {key: mapped(inner, change) for key, inner in value.items()}
    return [mapped(inner, change) for inner in value] if isinstance(value, list) else change(value)


def _without_secrets(value: object) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON with its texts redacted, and without NaN and infinity."""
    return mapped(value, _without_secret)


def _without_secret(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scene_properties(item: pystac.Item, *, with_assets: bool) -> Json:
    """Return the source's properties that also apply to its mask: time, platform, orbit, product, tile and angles.

    Args:
        item: The source.
        with_assets: Whether its assets are carried over as well.
    """
    dropped = () if with_assets else ("auth:", "storage:")  # access to the source's files
    taken = {
        name: _without_secrets(value)
        for name, value in item.properties.items()
        if CARRIED.fullmatch(name) and not name.startswith(dropped) and value is not None
    }
    taken.setdefault("datetime", None)
    for name in ("platform", "constellation"):
        if isinstance(taken.get(name), str):
            taken[name] = re.sub(r"[ _]", "-", taken[name].lower())
    if isinstance(taken.get("instruments"), list):
        taken["instruments"] = [str(name).lower() for name in taken["instruments"]]
    if (sun := sun_angles(item)) is not None:
        taken |= {"view:sun_azimuth": sun[0], "view:sun_elevation": sun[1]}
    if (tile := tile_of(item)) is not None:  # with two digits for its zone, as its standard and most providers write it
        taken["grid:code"] = f"MGRS-{tile}"
    names = (item.id, item.properties.get("sentinel:product_id"), item.properties.get("s2:product_title"))
    if (product := next(filter(ESA_ID.fullmatch, map(str, names)), None)) is not None:
        taken["s2:product_uri"] = f"{product}.SAFE"
    return taken


def self_href(item: pystac.Item) -> str | None:
    """Return the absolute, unsigned href of the source item; a URL if its self or canonical link is one."""
    links = (link.get_href(transform_href=False) for link in item.links if link.rel == "canonical")
    hrefs = sorted(filter(None, (item.get_self_href(), *links)), key=is_remote, reverse=True)
    return next(filter(None, (_checked(href, None) for href in hrefs)), None)


def _license_links(item: pystac.Item) -> list[Json]:
    """Return the source's licenses, if their hrefs can be resolved."""
    hrefs = {link.get_href(transform_href=False) or "" for link in item.links if link.rel == "license"}
    return [
        {"rel": "license", "href": unsigned(href), "title": "License of the source"}
        for href in sorted(hrefs)
        if href.startswith(("https://", "http://"))
    ]


def _carried_assets(item: pystac.Item, sources: Sources, *, choice: str) -> dict[str, Json]:
    """Return the source's rasters by absolute, unsigned href, otherwise as the source describes them, in STAC 1.1.

    Scale and offset of reflectance are those of this package's rule, whatever the source declares: a reader that
    applies them gets the reflectance that the mask was made from. Hrefs that must not be read are left out.

    Args:
        item: The source.
        sources: Its assets that were read.
        choice: The setting ``boa_offset``, for the bands that were not read.
    """
    found = baseline(item)
    level = {"processing:level": "L2A"} | ({} if found is None else {"processing:version": f"{found:05.2f}"})
    read = {source.asset_key for source in sources.assets}
    bands = {band.asset_key: band for band in sources.bands}
    carried = {}
    for key, asset in item.assets.items():
        href = _checked(asset.href, item.get_self_href())
        if href and (key in read or _is_raster(asset)):
            described = _modern(item, key) | level | {"href": href} | _alternate(asset, item)
            carried[key] = described | _reflectance(item, key, bands.get(key), choice)
    return carried


def _checked(href: str, base: str | None) -> str | None:
    try:
        return unsigned(check_href(href, base=base))
    except UnsupportedItemError:
        return None


def _is_raster(asset: pystac.Asset) -> bool:
    kind, name = str(asset.media_type or "").lower(), urlsplit(asset.href).path.lower()
    if {"thumbnail", "overview"} & set(map(str, _listed(asset.roles))):  # for display, not for computation
        return False
    return kind.startswith(RASTER_TYPES) or (not kind and name.endswith((".tif", ".tiff", ".jp2")))


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _alternate(asset: pystac.Asset, item: pystac.Item) -> Json:
    """Return alternate hrefs of the same file, absolute and unsigned."""
    stated = asset.extra_fields.get("alternate")
    kept = {
        name: _without_secrets(other) | {"href": href}
        for name, other in (stated.items() if isinstance(stated, dict) else ())
        if isinstance(other, dict) and (href := _checked(str(other.get("href", "")), item.get_self_href()))
    }
    return {"alternate": kept} if kept else {}


def _reflectance(item: pystac.Item, key: str, band: BandSource | None, choice: str) -> Json:
    """Return ``raster:scale`` and ``raster:offset`` of a reflectance band; empty for any other asset."""
    if band is not None:
        scale, dn = band.scale, band.offset.dn
    elif asset_band(item, key) is None:
        return {}
    else:
        try:
            scale = scale_of(item, key)
            dn = boa_offset(item, key).dn if choice == "auto" else int(choice)
        except UnsupportedItemError:
            return {}
    return {"data_type": "uint16", "nodata": 0, "raster:scale": scale, "raster:offset": round(dn * scale, 9)}


def _modern(item: pystac.Item, key: str) -> Json:
    """Return an asset in the form of STAC 1.1, with the fields that it inherited from its item."""
    asset = _without_secrets(item.assets[key].to_dict())
    described = {name: value for name, value in asset.items() if name not in REPLACED}
    if not {"proj:shape", "proj:transform"} & asset.keys():
        inherited = {name: item.properties.get(name) for name in ("proj:shape", "proj:transform")}
        described |= {name: value for name, value in inherited.items() if value is not None}
    if (epsg := asset_epsg(item.assets[key].extra_fields, item.properties)) is not None:
        described["proj:code"] = f"EPSG:{epsg}"
    bands = _bands(asset)
    if len(bands) == 1:
        described |= {name: value for name, value in bands[0].items() if OF_VALUES.fullmatch(name)}
        bands = [{name: value for name, value in bands[0].items() if not OF_VALUES.fullmatch(name)}]
    return described | ({"bands": bands} if any(bands) else {})


def _bands(asset: Json) -> list[Json]:
    """Return ``bands`` of STAC 1.1, or ``eo:bands`` and ``raster:bands`` of STAC 1.0 combined, one dict per band."""
    modern, *old = (
        [band if isinstance(band, dict) else {} for band in _listed(asset.get(name))]
        for name in ("bands", "eo:bands", "raster:bands")
    )
    merged = (eo | raster for eo, raster in zip_longest(*old, fillvalue={}))
    return modern or [{BAND_PREFIXES.get(name, "") + name: value for name, value in band.items()} for band in merged]


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
