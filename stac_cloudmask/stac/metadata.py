"""Read fields of STAC items, tolerantly across STAC versions."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pystac
from pystac.utils import str_to_datetime

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import UnsupportedItemError

Fields = Mapping[str, Any]
Version = tuple[float, str, str]

MAX_SIDE: Final = 2**16
MAX_PIXELS: Final = 2**29
"""Larger rasters are rejected: a 10 m tile has 10980 x 10980 = 1.2e8 pixels."""

MAX_COORDINATE: Final = 1e8
GSDS: Final = (1e-6, 1e6)
"""Largest plausible coordinates and pixel sizes, in units of the CRS: the Earth's circumference is 4e7 m."""

SENTINEL2_PREFIXES: Final = ("s2", "sentinel2", "sentinel", "eopf", "eo")
"""Prefixes under which providers have kept the Sentinel-2 properties over the years."""

MGRS: Final = re.compile(r"(?:^|MGRS-|_T|_)(\d{1,2})([C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V])(?:_|$)")
"""A tile of the Military Grid Reference System in a code, a property or the name of a product."""

PRODUCT_NAME: Final = re.compile(r"S(?:2[A-Z]_|02)MSI(L\d[ABC]?)_\d{8}T\d{6}_")
"""Processing level in ESA's product names, old and new."""
STATED_BASELINE: Final = re.compile(r"N?(\d{1,2})(?:\.(\d{1,2})(?:\.\d+)?|(\d{2}))")
NAMED_BASELINE: Final = re.compile(r"_N(\d{2})\.?(\d{2})(?![\dA-Z])")
VERSION_OF_ESA: Final = re.compile(r"\d{2}\.\d{2}(\.\d+)?")
"""A baseline by itself (05.09, 5.1 of the number 5.10, N0509, 05.09.00), in a product's or granule's name, and in a
version, which may be unrelated."""
MADE_BY_USERS: Final = 99.0
"""Numbers of at least this are not baselines: Sen2Cor writes N9999 outside of ESA."""
LEVEL_1: Final = re.compile(r"(level.?|MSIL?|^L)1[ABC]?$|(?<![a-z\d])L1[ABC]$", re.IGNORECASE)


def number(value: object) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        return None
    return float(value)


def codes_in(value: object) -> tuple[int, ...]:
    """Return the class codes in a list, 0 to 255, without any other values."""
    listed = value if isinstance(value, list | tuple) else ()
    return tuple(code for code in listed if isinstance(code, int) and code in range(256))


def declared(asset: pystac.Asset, name: str) -> float | None:
    """Return the ``scale``, ``offset`` or ``nodata`` that an asset states; None where it states none.

    They are read from the raster extension v2, on the asset or its only band, or from ``raster:bands``.
    """
    fields = asset.extra_fields
    places = [fields, *mappings_in(fields.get("bands"))[:1], *mappings_in(fields.get("raster:bands"))[:1]]
    found = (number(place.get(field)) for place in places for field in (f"raster:{name}", name))
    return next((value for value in found if value is not None), None)


def file_size(asset: pystac.Asset) -> int | None:
    """Return the size in bytes by the file extension; None if not stated."""
    size = number(asset.extra_fields.get("file:size"))
    return int(size) if size is not None and size >= 1 else None


def alternates(asset: pystac.Asset) -> list[str]:
    """Return alternate hrefs of an asset by the alternate-assets extension."""
    stated = asset.extra_fields.get("alternate")
    found = mappings_in([*stated.values()] if isinstance(stated, Mapping) else None)
    return [one["href"] for one in found if isinstance(one.get("href"), str)]


def mappings_in(value: object) -> list[Fields]:
    """Return the objects in a list of JSON, without any other values."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def asset_grid(item: pystac.Item, key: str) -> Grid | None:
    """Return the grid by the projection extension, asset first, then item; None where it is not fully stated.

    Raises:
        UnsupportedItemError: The grid is not north-up with square pixels, or is absurdly large.
    """
    return _stated_grid(item.assets[key].extra_fields, item.properties, f"item {item.id!r}: asset {key!r}")


def mask_grid(item: Mapping[str, Any], key: str) -> Grid:
    """Return the grid of a mask as stated in its published item.

    Raises:
        UnsupportedItemError: See ``asset_grid``; or no grid is stated.
    """
    where = f"item {str(item['id'])[:80]!r}: asset {key!r}"
    grid = _stated_grid(item["assets"][key], item["properties"], where)
    if grid is None:
        raise UnsupportedItemError(f"{where} has no proj:code of an EPSG CRS, proj:transform and proj:shape")
    return grid


def asset_epsg(asset: Fields, common: Fields) -> int | None:
    """Return the EPSG code of a CRS by the projection extension, of an asset or its item; None if not stated."""
    stated = (place.get(name) for place in (asset, common) for name in ("proj:code", "proj:epsg"))
    code = next((code for code in stated if code is not None), None)
    match = re.fullmatch(r"(?:EPSG:)?(\d{4,6})", str(code), re.IGNORECASE)
    return int(match[1]) if match else None


def _stated_grid(asset: Fields, common: Fields, where: str) -> Grid | None:
    epsg = asset_epsg(asset, common)
    stated = ((fields.get("proj:transform"), fields.get("proj:shape")) for fields in (asset, common))
    transform, shape = next((pair for pair in stated if None not in pair), (None, None))
    return None if epsg is None or shape is None else make_grid(epsg, transform, shape, where=where)


def make_grid(epsg: int, transform: object, shape: object, *, where: str) -> Grid:
    """Return a grid from ``proj:transform`` (6 or 9 numbers) and ``proj:shape``.

    Raises:
        UnsupportedItemError: See ``asset_grid``.
    """
    coefficients = numbers(transform, (6, 9))
    sides = numbers(shape, (2,))
    if coefficients is None or sides is None:
        raise UnsupportedItemError(
            f"{where}: proj:transform {str(transform)[:120]} and proj:shape {str(shape)[:60]} are not a grid; "
            "correct the item"
        )
    if coefficients[1] > 0 == coefficients[2] == coefficients[4]:  # GDAL's order, which gdalinfo wrote until 2025
        left, gsd, skew_x, top, skew_y, step_y = coefficients[:6]
    else:
        gsd, skew_x, left, skew_y, step_y, top = coefficients[:6]
    is_square = skew_x == skew_y == 0 < gsd and math.isclose(gsd, -step_y, rel_tol=1e-9)
    if not (is_square and GSDS[0] <= gsd <= GSDS[1] and max(abs(left), abs(top)) <= MAX_COORDINATE):
        raise UnsupportedItemError(
            f"{where}: proj:transform {coefficients} is not north-up with square pixels somewhere on Earth"
        )
    height, width = sides
    if not all(side.is_integer() and 1 <= side <= MAX_SIDE for side in sides) or height * width > MAX_PIXELS:
        raise UnsupportedItemError(
            f"{where}: proj:shape {[*sides]} is not a raster of at most {MAX_SIDE} a side and {MAX_PIXELS} pixels"
        )
    return Grid(epsg=epsg, left=left, top=top, gsd=gsd, height=int(height), width=int(width))


def numbers(values: object, lengths: tuple[int, ...]) -> tuple[float, ...] | None:
    """Return a list of finite numbers of one of these lengths; None for anything else."""
    if not isinstance(values, list | tuple) or len(values) not in lengths:
        return None
    found = [number(value) for value in values]
    return None if None in found else tuple(value for value in found if value is not None)


def own_property(item: pystac.Item, *names: str) -> object:
    """Return a Sentinel-2 property, under any of the prefixes that providers use; None if absent."""
    keys = (f"{prefix}:{name}" for prefix in SENTINEL2_PREFIXES for name in names)
    return next((item.properties[key] for key in keys if item.properties.get(key) is not None), None)


def baseline(item: pystac.Item, key: str | None = None) -> float | None:
    """Return the processing baseline (``"05.10"`` is 5.1), by property or by ESA's names; never by the date.

    None if it is not stated, or if it belongs to a processor outside of ESA (N9999).
    """
    version = str(item.properties.get("processing:version"))
    stated = (
        own_property(item, "processing_baseline"),
        item.properties.get("processing:baseline"),
        version if VERSION_OF_ESA.fullmatch(version) else None,
    )
    matches = [STATED_BASELINE.fullmatch(str(value)) for value in stated]
    matches += [NAMED_BASELINE.search(name) for name in _product_names(item, key)]
    found = [float(f"{match[1]}.{match[2] or match[3]}") for match in matches if match]
    return None if not found or max(found) >= MADE_BY_USERS else found[0]


def _product_names(item: pystac.Item, key: str | None) -> list[str]:
    fields = ("product_uri", "product_id", "product_title", "granule_id", "datastrip_id", "datatake_id")
    stated = (own_property(item, field) for field in fields)
    href = [] if key is None else [item.assets[key].href]
    return [*(name for name in stated if isinstance(name, str)), item.id, *href]


def is_mask(properties: Mapping[str, Any]) -> bool:
    """Return whether an item with these properties was written by this package."""
    return "stac_cloudmask:fingerprint" in properties


def version_of(item: pystac.Item) -> Version:
    """Return the baseline, time of generation and time of the last change of an item; newer items compare greater."""
    generated = own_property(item, "generation_time", "product_generation_time")
    return baseline(item) or 0.0, str(generated or ""), str(item.properties.get("updated") or "")


def check_level(item: pystac.Item) -> None:
    """Reject an item whose metadata contradict Sentinel-2 L2A; an item without such metadata passes.

    Raises:
        UnsupportedItemError: The item is something else; the message says what.
    """
    if is_mask(item.properties):
        source = next((link.target for link in item.links if link.rel == "derived_from"), "its derived_from link")
        raise UnsupportedItemError(f"item {item.id!r} is a mask of stac_cloudmask already; mask its source: {source}")
    platform = item.properties.get("platform") or item.properties.get("eo:platform")
    if isinstance(platform, str) and not re.match(r"(sentinel.?2|s2)", platform, re.IGNORECASE):
        raise UnsupportedItemError(f"item {item.id!r} is of platform {platform!r}; only Sentinel-2 L2A can be masked")
    names = (PRODUCT_NAME.search(name) for name in _product_names(item, None))
    said = [
        own_property(item, "product_type", "productType"),
        *(item.properties.get(name) for name in ("product:type", "processing:level")),
        *(match[1] for match in names if match),
        item.collection_id,
        item.id,
    ]
    found = next((level for level in said if isinstance(level, str) and LEVEL_1.search(level)), None)
    if found is not None:
        raise UnsupportedItemError(
            f"item {item.id!r} is {found!r}, top-of-atmosphere; masks are made from L2A: search an L2A collection"
        )


def sun_angles(item: pystac.Item) -> tuple[float, float] | None:
    """Return azimuth and elevation of the sun in degrees; None where unknown.

    Each is taken from ``view:sun_*``, otherwise from the mean solar angles; an elevation below the horizon is used
    only if no other is stated.
    """
    view = item.properties
    azimuths = [number(view.get("view:sun_azimuth")), number(own_property(item, "mean_solar_azimuth"))]
    zenith = number(own_property(item, "mean_solar_zenith"))
    elevations = [number(view.get("view:sun_elevation")), None if zenith is None else 90.0 - zenith]
    known = [one for one in elevations if one is not None and -90 <= one <= 90]  # noqa: PLR2004  (nadir to zenith)
    azimuth = next((one % 360 for one in azimuths if one is not None and abs(one) <= 360), None)  # noqa: PLR2004
    if azimuth is None or not known:
        return None
    return azimuth, next((one for one in known if one > 0), known[0])


def period(stated: str) -> tuple[datetime, datetime]:
    """Return the first and last moment, in UTC, of an instant, day, month or year; times without a zone are in UTC.

    Raises:
        ValueError: The text is none of these.
    """
    text = stated.strip().upper()
    first = str_to_datetime(text)
    first = first.astimezone(UTC) if first.tzinfo else first.replace(tzinfo=UTC)
    following = {
        len("2023"): lambda: first.replace(year=first.year + 1),
        len("2023-08"): lambda: (first + timedelta(days=31)).replace(day=1),
        len("2023-08-18"): lambda: first + timedelta(days=1),
    }.get(len(text))
    return first, first if following is None else following() - timedelta(seconds=1)


def utc(stated: str, *, last: bool = False) -> str:
    """Return a time in STAC's format, in UTC with a Z; for a day, month or year its first or last moment.

    Raises:
        ValueError: The text is not a time.
    """
    moment = period(stated)[last]
    kept = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", stated) and "T24" not in stated
    return stated if kept else moment.isoformat().replace("+00:00", "Z")


def times_of(properties: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Return the first and last moment of an item in UTC.

    Raises:
        ValueError: The item states no valid time.
    """
    moment = properties.get("datetime")
    start, end = (properties.get(f"{name}_datetime") or moment for name in ("start", "end"))
    return period(str(start))[0], period(str(end))[1]


def tile_of(item: pystac.Item) -> str | None:
    """Return the MGRS tile, such as ``33TWL``, from the provider's property or from the id."""
    properties = item.properties
    parts = "".join(str(properties.get(f"mgrs:{part}", "")) for part in ("utm_zone", "latitude_band", "grid_square"))
    for stated in (properties.get("grid:code"), own_property(item, "mgrs_tile"), parts, item.id):
        if found := MGRS.search(str(stated)):
            return f"{int(found[1]):02d}{found[2]}"
    return None
