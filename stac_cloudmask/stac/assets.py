"""Assets of an output item: those of its own and those that it carries from the source."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import UnsupportedItemError, redact
from stac_cloudmask.stac.boa_offset import boa_offset, scale_of
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.metadata import asset_band, baseline, number, sun_angles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Rule = Callable[[Any], bool]
    import pystac

    from stac_cloudmask.stac.bands import BandSource

    Json = dict[str, Any]


def kept(fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The fields that have a rule and pass it; their texts without secrets."""
    return {name: _shown(fields[name]) for name, passes in rules.items() if name in fields and passes(fields[name])}


def _shown(value: object) -> object:
    """JSON with its texts redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_shown(entry) for entry in value]
    return {key: _shown(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def is_number(value: object) -> bool:
    """A finite number, not a bool."""
    return number(value) is not None


def _between(low: float, high: float) -> Rule:
    return lambda value: is_number(value) and low <= value <= high


def _text(pattern: str = r"(?s).+") -> Rule:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _integers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)  # noqa: PLR2004


def _numbers(*lengths: int) -> Rule:
    return lambda value: isinstance(value, list) and len(value) in lengths and all(is_number(n) for n in value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)


def _classes(value: object) -> bool:
    """Whether a list of classes is what the classification extension wants; fields that it lacks are not passed on."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and {"value", "name"} <= entry.keys() and kept(entry, _CLASS) == entry
        for entry in value
    )


_POSITIVE = _between(1e-9, 1e12)
_TYPES = "u?int(8|16|32|64)|float(16|32|64)|cint(16|32)|cfloat(32|64)|other"
_COMMON_NAMES = (
    "pan|coastal|blue|green|green05|yellow|red|rededge|rededge071|rededge075|rededge078|nir|nir08|nir09|cirrus|swir16"
    "|swir22|lwir|lwir11|lwir12"
)

IDENTITY: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "s2:product_uri": _text(),
        "s2:tile_id": _text(),
        "s2:granule_id": _text(),
        "s2:datatake_id": _text(),
        "s2:datastrip_id": _text(),
        "s2:product_type": _text(),
        "s2:processing_baseline": _text(r"\d\d\.\d\d"),
        "s2:generation_time": _text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        "s2:mgrs_tile": _text(r"\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"),
    }
)
"""What tells which product of ESA an item is; the percentages of its own mask would contradict the new one."""

VIEW: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "view:off_nadir": _between(0, 90),
        "view:incidence_angle": _between(0, 90),
        "view:azimuth": _between(0, 360),
        "view:sun_azimuth": _between(0, 360),
        "view:sun_elevation": _between(-90, 90),
    }
)

_CLASS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "value": lambda value: isinstance(value, int),
        "name": _text(r"[0-9A-Za-z_-]+"),
        "title": _text(),
        "description": _text(),
        "color_hint": _text(r"[0-9A-Fa-f]{6}"),
        "nodata": lambda value: isinstance(value, bool),
        "percentage": _between(0, 100),
        "count": lambda value: isinstance(value, int) and value >= 0,
    }
)

ASSET: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "type": _text(),
        "title": _text(),
        "description": _text(),
        "roles": _texts,
        "gsd": _POSITIVE,
        "proj:code": _text(),
        "proj:shape": _integers,
        "proj:transform": _numbers(6, 9),
        "proj:bbox": _numbers(4),
        "file:size": lambda value: isinstance(value, int) and value >= 0,
        "file:checksum": _text(r"[a-f0-9]+"),
        "classification:classes": _classes,
    }
)

VALUES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "data_type": _text(_TYPES),
        "nodata": lambda value: is_number(value) or value in ("nan", "inf", "-inf"),
        "unit": _text(),
        "raster:scale": is_number,
        "raster:offset": is_number,
        "raster:spatial_resolution": _POSITIVE,
        "raster:sampling": _text("area|point"),
        "raster:bits_per_sample": lambda value: isinstance(value, int),
    }
)
"""Fields of a band's values, which STAC 1.1 allows on the band and on the asset."""

BAND: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "name": _text(),
        "description": _text(),
        "eo:common_name": _text(_COMMON_NAMES),
        "eo:center_wavelength": _POSITIVE,
        "eo:full_width_half_max": _POSITIVE,
        "eo:solar_illumination": _between(0, 1e12),
    }
)


RASTER_TYPES: Final = ("image/tiff", "image/vnd.stac.geotiff", "image/jp2")
PICTURES: Final = frozenset({"thumbnail", "overview"})
"""Roles of assets that are looked at, not computed with."""
HARMLESS: Final = frozenset({"asset", "assets", "collection", "f", "format", "id", "item", "items", "versionid"})
"""Query parameters that name a thing. Any other may sign a request or let somebody in."""
ESA_ID: Final = re.compile(r"S2[A-D]_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6}")
MGRS: Final = re.compile(r"(?:MGRS-)?(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])")


def unsigned(href: str) -> str:
    """The href without user info and fragment, and without its query unless that is harmless."""
    parts = urlsplit(href)
    if not parts.scheme or not parts.netloc:
        return href
    names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
    query = parts.query if names <= HARMLESS else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def identity(item: pystac.Item) -> Json:
    """Properties that tell the scene: time, platform, product, tile and angles."""
    properties = item.properties
    taken = {n: properties[n] for n in ("datetime", "start_datetime", "end_datetime") if properties.get(n)}
    taken.setdefault("datetime", None)
    for name in ("platform", "constellation"):
        if isinstance(properties.get(name), str) and properties[name]:
            taken[name] = re.sub(r"[ _]", "-", properties[name].lower())
    instruments = properties.get("instruments")
    if isinstance(instruments, list) and instruments:
        taken["instruments"] = [str(name).lower() for name in instruments]
    return taken | _product(item) | kept(properties, IDENTITY) | _grid_code(properties) | _angles(item)


def _product(item: pystac.Item) -> Json:
    """ESA's name and baseline of the product, also from where CDSE and the first Earth Search keep them."""
    names = (item.id, item.properties.get("sentinel:product_id"), item.properties.get("s2:product_title"))
    name = next((str(name) for name in names if ESA_ID.fullmatch(str(name))), None)
    found = baseline(item)
    return ({"s2:product_uri": f"{name}.SAFE"} if name else {}) | (
        {"s2:processing_baseline": f"{found:05.2f}"} if found is not None else {}
    )


def _grid_code(properties: Json) -> Json:
    """The tile with two digits for its zone, as its standard and most providers write it."""
    parts = (properties.get(f"mgrs:{part}", "") for part in ("utm_zone", "latitude_band", "grid_square"))
    for code in (properties.get("grid:code"), properties.get("s2:mgrs_tile"), "".join(map(str, parts))):
        if found := MGRS.fullmatch(str(code)):
            return {"grid:code": f"MGRS-{int(found[1]):02d}{found[2]}"}
    return {}


def _angles(item: pystac.Item) -> Json:
    sun = sun_angles(item)
    known = {"view:sun_azimuth": sun[0], "view:sun_elevation": sun[1]} if sun else {}
    return known | kept(item.properties, VIEW)


def self_href(item: pystac.Item) -> str | None:
    """Where the source item can be found: its own href, else its canonical one; absolute and unsigned."""
    links = (link.get_href(transform_href=False) for link in item.links if link.rel == "canonical")
    for href in (item.get_self_href(), *links):
        absolute = _checked(href, None) if href else None
        if absolute:
            return absolute
    return None


def license_links(item: pystac.Item) -> list[Json]:
    """The source's licences, as far as their hrefs lead somewhere."""
    hrefs = {link.get_href(transform_href=False) or "" for link in item.links if link.rel == "license"}
    return [{"rel": "license", "href": unsigned(h)} for h in sorted(hrefs) if h.startswith(("https://", "http://"))]


def carried_assets(item: pystac.Item, *, bands: Mapping[str, BandSource], choice: str) -> dict[str, Json]:
    """The source's rasters by absolute, unsigned href, described in STAC 1.1.

    Scale and offset of reflectance are those of this package's rule, whatever the source declares: a reader that
    applies them gets the reflectance that the mask was made from. An href that must not be read is not passed on.

    Args:
        item: The source.
        bands: The bands that were read, by asset key.
        choice: The setting ``boa_offset``, for the bands that were not.
    """
    carried = {}
    for key, asset in item.assets.items():
        href = _checked(asset.href, item.get_self_href())
        body = asset.to_dict()
        if href and _is_raster(body, href):
            carried[key] = {"href": href, **_described(item, body), **_reflectance(item, key, bands.get(key), choice)}
    return carried


def _checked(href: str, base: str | None) -> str | None:
    try:
        return unsigned(check_href(href, base=base))
    except UnsupportedItemError:
        return None


def _is_raster(asset: Json, href: str) -> bool:
    kind = str(asset.get("type") or "")
    roles = asset.get("roles")
    if isinstance(roles, list) and any(isinstance(role, str) and role in PICTURES for role in roles):
        return False
    return kind.startswith(RASTER_TYPES) or (not kind and urlsplit(href).path.lower().endswith((".tif", ".jp2")))


def _reflectance(item: pystac.Item, key: str, band: BandSource | None, choice: str) -> Json:
    """``raster:scale`` and ``raster:offset`` of a reflectance band; nothing for classes, quality layers, pictures."""
    if band is not None:
        scale, offset = band.scale, band.offset.dn
    elif asset_band(item, key) is None:
        return {}
    else:
        try:
            scale = scale_of(item, key)
            offset = boa_offset(item, key).dn if choice == "auto" else int(choice)
        except UnsupportedItemError:
            return {}
    declared = {"data_type": "uint16", "nodata": 0, "raster:scale": scale}
    return declared | {"raster:offset": round(offset * scale, 9)}


def _described(item: pystac.Item, asset: Json) -> Json:
    shared = ("proj:shape", "proj:transform")
    common = {} if any(name in asset for name in shared) else {name: item.properties.get(name) for name in shared}
    described = kept(asset | common | {"proj:code": _code(asset) or _code(item.properties)}, ASSET)
    listed = _bands(asset)
    if len(listed) != 1:
        return described | kept(asset, VALUES) | ({"bands": listed} if any(listed) else {})
    band = kept(listed[0], BAND)
    return described | kept(listed[0], VALUES) | kept(asset, VALUES) | ({"bands": [band]} if band else {})


def _code(fields: Json) -> str | None:
    """The CRS of STAC 1.1, or that of 1.0 in the new spelling."""
    if fields.get("proj:code"):
        return str(fields["proj:code"])
    return f"EPSG:{fields['proj:epsg']}" if isinstance(fields.get("proj:epsg"), int) else None


def _bands(asset: Json) -> list[Json]:
    """``bands`` of STAC 1.1, or ``eo:bands`` and ``raster:bands`` of 1.0 put together, one dict a band."""
    listed = [kept(band, BAND) | kept(band, VALUES) for band in _dicts(asset.get("bands"))]
    if listed:
        return listed
    spectral = [kept(_renamed(band, BAND, "eo:"), BAND) for band in _dicts(asset.get("eo:bands"))]
    raster = [kept(_renamed(band, VALUES, "raster:"), VALUES) for band in _dicts(asset.get("raster:bands"))]
    count = max(len(spectral), len(raster))
    spectral, raster = ([*part, *({} for _ in range(count - len(part)))] for part in (spectral, raster))
    return [left | right for left, right in zip(spectral, raster, strict=True)]


def _renamed(band: Json, rules: Mapping[str, Any], prefix: str) -> Json:
    """The names of STAC 1.0 in the spelling of 1.1."""
    return {name: band[name.removeprefix(prefix)] for name in rules if name.removeprefix(prefix) in band}


def _dicts(value: object) -> list[Json]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS: Final = MappingProxyType(
    {
        "classification:": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
        "eo:": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
        "file:": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        "grid:": "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
        "processing:": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
        "proj:": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
        "raster:": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
        "renders": "https://stac-extensions.github.io/render/v2.0.0/schema.json",
        "s2:": "https://stac-extensions.github.io/sentinel-2/v1.0.0/schema.json",
        "version": "https://stac-extensions.github.io/version/v1.2.0/schema.json",
        "view:": "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    }
)
"""Schema by the prefix (or name) of the fields that it defines."""

VOTES: Final = (
    ("product_cloud", "The product's own mask says cloud."),
    ("product_shadow", "The product's own mask says cloud shadow."),
    ("cloud_model", "The cloud model says cloud."),
    ("shadow_model", "The shadow model says cloud shadow."),
    ("removed", "The merge policy or the clean-up took it away."),
    ("added", "The buffer added it."),
)
"""Name and meaning of the bits of ``mask_votes``, lowest first."""


def class_list(counts: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
    """``classification:classes``; with counts of pixels also each class's count and percentage of all pixels."""
    total = max(1, sum(counts.values())) if counts is not None else 1
    listed = []
    for info in CLASSES:
        entry: dict[str, Any] = {
            "value": int(info.code),
            "name": info.name,
            "title": info.title,
            "description": info.description,
            "color_hint": info.color_hint,
        }
        if info.code == CloudClass.NODATA:
            entry["nodata"] = True
        if counts is not None:
            count = counts.get(int(info.code), 0)
            entry |= {"count": count, "percentage": round(100 * count / total, 6)}
        listed.append(entry)
    return listed


def _bitfields() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "description": meaning,
            "offset": offset,
            "length": 1,
            "classes": [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}],
        }
        for offset, (name, meaning) in enumerate(VOTES)
    ]


def _raster(
    key: str, *, title: str, description: str, roles: tuple[str, ...], extra: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": COG,
        "title": title,
        "description": description,
        "roles": ["data", *roles],
        "data_type": "uint8",
        "bands": [{"name": key, "description": title}],
        "raster:sampling": "area",
        **extra,
    }


ASSETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "cloud_mask": _raster(
            "cloud_mask",
            title="Cloud and cloud-shadow mask",
            description="Class map of clear surface, cloud and cloud shadow.",
            roles=("data-mask", "cloud", "cloud-shadow"),
            extra={"nodata": int(CloudClass.NODATA), "classification:classes": class_list()},
        ),
        "cloud_probability": _raster(
            "cloud_probability",
            title="Cloud probability",
            description="The cloud model's probability in whole percents.",
            roles=("cloud",),
            extra={"nodata": 255, "unit": "%"},
        ),
        "shadow_probability": _raster(
            "shadow_probability",
            title="Cloud-shadow probability",
            description="The shadow model's probability in whole percents.",
            roles=("cloud-shadow",),
            extra={"nodata": 255, "unit": "%"},
        ),
        "mask_votes": _raster(
            "mask_votes",
            title="Votes behind the mask",
            description="Which source said what, as bit fields; pixels without data have no bit set.",
            roles=("cloud", "cloud-shadow"),
            extra={"classification:bitfields": _bitfields()},
        ),
        "thumbnail": {"type": "image/png", "title": "Quicklook of the mask", "roles": ["thumbnail", "overview"]},
    }
)
"""Description of every asset by key."""


def renders() -> dict[str, Any]:
    """How a map shows the mask: clear and nodata let the ground through, as a colour table in a TIFF cannot."""
    return {
        "cloud_mask": {
            "title": "Cloud and cloud-shadow mask",
            "assets": ["cloud_mask"],
            "nodata": int(CloudClass.NODATA),
            "colormap": {str(int(info.code)): list(info.rgba) for info in CLASSES},
            "resampling": "nearest",
            "minmax_zoom": [7, 14],
        }
    }


def extensions_of(*mappings: Mapping[str, Any]) -> list[str]:
    """The schemas of all fields in these mappings and in the bands within them."""
    names = {name for mapping in mappings for name in _field_names(mapping)}
    return [
        schema
        for prefix, schema in EXTENSIONS.items()
        if any(name == prefix or (prefix.endswith(":") and name.startswith(prefix)) for name in names)
    ]


def _field_names(mapping: Mapping[str, Any]) -> set[str]:
    bands = mapping.get("bands", [])
    return set(mapping).union(*(band.keys() for band in bands)) if bands else set(mapping)
