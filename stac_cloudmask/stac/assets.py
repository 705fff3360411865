"""Assets of an output item: its own, and those carried over from the source."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES, ClassInfo, CloudClass
from stac_cloudmask.errors import UnsupportedItemError, redact
from stac_cloudmask.stac.bands import BandSource, Sources, asset_band, boa_offset, scale_of
from stac_cloudmask.stac.hrefs import check_href, is_remote
from stac_cloudmask.stac.metadata import asset_epsg, baseline, sun_angles, tile_of

if TYPE_CHECKING:
    import pystac


Json = dict[str, Any]

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
HARMLESS: Final = frozenset({"asset", "assets", "collection", "f", "format", "id", "item", "items", "versionid"})
"""Query parameters that identify a resource. Any other may be a signature or a credential."""
ESA_ID: Final = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6}")


def unsigned(href: str) -> str:
    """Return the href without user info and fragment, and without its query unless that is harmless."""
    parts = urlsplit(href)
    if not parts.scheme or not parts.netloc:
        return href
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    query = parts.query if names <= HARMLESS else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def mapped(value: object, change: Callable[[Any], object]) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON with all texts, numbers and constants in it changed."""
    if isinstance(value, dict):
        return {key: mapped(inner, change) for key, inner in value.items()}
    return [mapped(inner, change) for inner in value] if isinstance(value, list) else change(value)


def without_secrets(value: object) -> Any:  # noqa: ANN401  (any JSON)
    """Return JSON with its texts redacted, and without NaN and infinity."""
    return mapped(value, _without_secret)


def _without_secret(value: object) -> object:
    if isinstance(value, str):
        return redact(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scene_properties(item: pystac.Item, *, with_assets: bool) -> Json:
    """Return the source's properties that also apply to its mask: time, platform, orbit, product, tile and angles.

    Args:
        item: The source.
        with_assets: Whether its assets are carried over as well.
    """
    dropped = () if with_assets else ("auth:", "storage:")  # access to the source's files
    taken = {
        name: without_secrets(value)
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


def license_links(item: pystac.Item) -> list[Json]:
    """Return the source's licenses, if their hrefs can be resolved."""
    hrefs = {link.get_href(transform_href=False) or "" for link in item.links if link.rel == "license"}
    return [
        {"rel": "license", "href": unsigned(href), "title": "License of the source"}
        for href in sorted(hrefs)
        if href.startswith(("https://", "http://"))
    ]


def carried_assets(item: pystac.Item, sources: Sources, *, choice: str) -> dict[str, Json]:
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
        name: without_secrets(other) | {"href": href}
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
    asset = without_secrets(item.assets[key].to_dict())
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


COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
OWN: Final = "stac_cloudmask:"
"""Prefix of this package's own fields."""
STAC_EXTENSIONS: Final = "https://stac-extensions.github.io"
SCHEMAS: Final[Mapping[str, str]] = {
    "classification:": f"{STAC_EXTENSIONS}/classification/v2.0.0/schema.json",
    "eo:": f"{STAC_EXTENSIONS}/eo/v2.0.0/schema.json",
    "file:": f"{STAC_EXTENSIONS}/file/v2.1.0/schema.json",
    "grid:": f"{STAC_EXTENSIONS}/grid/v1.1.0/schema.json",
    "mgrs:": f"{STAC_EXTENSIONS}/mgrs/v1.0.0/schema.json",
    "processing:": f"{STAC_EXTENSIONS}/processing/v1.2.0/schema.json",
    "proj:": f"{STAC_EXTENSIONS}/projection/v2.0.0/schema.json",
    "raster:": f"{STAC_EXTENSIONS}/raster/v2.0.0/schema.json",
    "renders": f"{STAC_EXTENSIONS}/render/v2.0.0/schema.json",
    "s2:": f"{STAC_EXTENSIONS}/sentinel-2/v1.0.0/schema.json",
    "sat:": f"{STAC_EXTENSIONS}/sat/v1.1.0/schema.json",
    "view:": f"{STAC_EXTENSIONS}/view/v1.1.0/schema.json",
}
"""Schema by the prefix (or name) of its fields, for fields that this package writes or whose newest schema it knows."""
FOREIGN: Final[Mapping[str, str]] = {
    "authentication": "auth:", "alternate-assets": "alternate", "eopf-stac-extension": "eopf:",
}  # fmt: skip
"""Field prefixes of other schemas, where they differ from the schema's name."""

CLASS_TABLES: Final[Mapping[str, tuple[ClassInfo, ...]]] = {"cloud_mask": CLASSES, "scl": SCL_CLASSES}
"""Classes of the class maps, by asset key."""
VOTES: Final = (
    ("product_cloud", "The product's own mask says cloud."),
    ("product_shadow", "The product's own mask says cloud shadow."),
    ("cloud_model", "The cloud model says cloud."),
    ("shadow_model", "The shadow model says cloud shadow."),
    ("removed", "The merge policy or the clean-up took it away."),
    ("added", "The buffer added it."),
)
"""Name and meaning of the bits of ``mask_votes``, lowest first."""


def class_list(classes: Iterable[ClassInfo] = CLASSES) -> list[Json]:
    """Return ``classification:classes``."""
    names = ("name", "title", "description", "color_hint")
    return [
        {"value": int(info.code)}
        | {name: getattr(info, name) for name in names}
        | ({"nodata": True} if info.name in {"nodata", "no_data"} else {})
        for info in classes
    ]


def _bitfields() -> list[Json]:
    classes = [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}]
    return [
        {"name": name, "description": meaning, "offset": offset, "length": 1, "classes": classes}
        for offset, (name, meaning) in enumerate(VOTES)
    ]


def _raster(key: str, title: str, description: str, roles: tuple[str, ...], extra: Json) -> Json:
    named = {"type": COG, "title": title, "description": description, "roles": ["metadata", *roles]}
    values = {"data_type": "uint8", "bands": [{"name": key, "description": title}], "raster:sampling": "area"}
    return named | values | extra


def _probability(model: str, subject: str) -> Json:
    title, description = f"{subject} probability", f"The {model} model's probability in whole percents."
    values = {"nodata": 255, "unit": "%"}
    return _raster(f"{model}_probability", title, description, (subject.lower(),), values)


def _sidecars(key: str, title: str) -> dict[str, Json]:
    """Return the sidecar files that give QGIS and GDAL the names and colors of a class map."""
    return {
        f"{key}_qgis": {"type": "application/xml", "title": f"Style for QGIS: {title}", "roles": ["style"]},
        f"{key}_gdal": {"type": "application/xml", "title": f"Class names for GDAL: {title}", "roles": ["metadata"]},
    }


ASSETS: Final[Mapping[str, Json]] = {
    "cloud_mask": _raster(
        "cloud_mask",
        "Cloud and cloud-shadow mask",
        "Clear surface, cloud and cloud shadow; percentages are of the pixels with data.",
        ("cloud", "cloud-shadow"),
        {"nodata": int(CloudClass.NODATA), "classification:classes": class_list()},
    ),
    "scl": _raster(
        "scl",
        "Scene classification with the improved mask",
        "ESA's scene classification (SCL) with cloud and cloud shadow put right.",
        ("cloud", "cloud-shadow", "snow-ice"),
        {"nodata": 0, "classification:classes": class_list(SCL_CLASSES)},
    ),
    "cloud_probability": _probability("cloud", "Cloud"),
    "shadow_probability": _probability("shadow", "Cloud-shadow"),
    "mask_votes": _raster(
        "mask_votes",
        "Votes behind the mask",
        "Which source said what, as bit fields.",
        ("cloud", "cloud-shadow"),
        {"nodata": 255, "classification:bitfields": _bitfields()},
    ),
    "thumbnail": {"type": "image/png", "title": "Quicklook of the mask", "roles": ["thumbnail", "overview"]},
    **_sidecars("cloud_mask", "cloud and cloud-shadow mask"),
    **_sidecars("scl", "scene classification"),
}
"""Description of every asset by key."""

FILE_ENDINGS: Final[Mapping[str, str]] = {"_qgis": ".qml", "_gdal": ".tif.aux.xml", "thumbnail": "thumbnail.png"}


def file_name_of(key: str) -> str:
    """Return the file name of one of the mask's own assets, beside the item."""
    ending = next((ending for ending in FILE_ENDINGS if key.endswith(ending)), None)
    return f"{key}.tif" if ending is None else f"{key.removesuffix(ending)}{FILE_ENDINGS[ending]}"


def renders(keys: Iterable[str] = ASSETS) -> Json:
    """Return the renders of the assets; classes that are not painted are transparent."""
    looks: dict[str, Json] = {
        key: {"colormap": {str(int(info.code)): list(info.rgba) for info in classes}}
        for key, classes in CLASS_TABLES.items()
    }
    percent = {"rescale": [[0, 100]], "colormap_name": "viridis"}
    looks |= {"cloud_probability": percent, "shadow_probability": percent}
    looks |= {"mask_votes": {"rescale": [[0, 2 ** len(VOTES) - 1]], "colormap_name": "turbo"}}
    return {
        key: {"title": ASSETS[key]["title"], "assets": [key], "nodata": ASSETS[key]["nodata"]}
        | look
        | {"resampling": "nearest", "minmax_zoom": [7, 14]}
        for key, look in looks.items()
        if key in keys
    }


def extensions_of(*bodies: Mapping[str, Any], declared: Iterable[str] = ()) -> list[str]:
    """Return the schemas of all fields in these bodies.

    Args:
        bodies: Properties and assets.
        declared: Schemas that the source declares; those of fields that are used and not in `SCHEMAS` are kept.
    """
    names = (name.partition(":") for body in bodies for name in _names(body))
    used = {head + colon for head, colon, _ in names}  # "eo:", "renders"
    schemas = [schema for prefix, schema in SCHEMAS.items() if prefix in used]
    for schema in map(str, declared):
        name = schema.rstrip("/").split("/")[-3:][0]
        prefix = FOREIGN.get(name, f"{name}:")
        if prefix in used and prefix not in SCHEMAS:
            schemas.append(schema)
    return schemas


def _names(value: object) -> set[str]:
    """Return the names of all fields in JSON."""
    if isinstance(value, Mapping):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()
