"""What an output item takes over from its source: time, identity, licence and data assets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.fields import ASSET, BAND, IDENTITY, VALUES, VIEW, kept
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.metadata import baseline, sun_angles
from stac_cloudmask.stac.naming import asset_band
from stac_cloudmask.stac.offset import boa_offset, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pystac

    from stac_cloudmask.stac.bands import BandSource

    Json = dict[str, Any]

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
