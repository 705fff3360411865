"""Footprints and areas in longitude and latitude, and vector files of areas and labels."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from numbers import Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import pystac
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.features import geometry_mask
from rasterio.warp import transform_bounds, transform_geom
from shapely.affinity import translate
from shapely.errors import ShapelyError
from shapely.geometry import box, mapping, shape

from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.errors import ConfigError, ReadError, UnsupportedItemError
from stac_cloudmask.stac.hrefs import local_path

Bbox = tuple[float, float, float, float]
Area: TypeAlias = str | PathLike[str] | Mapping[str, Any] | shapely.Geometry
"""Well-known text, GeoJSON as text or dict, the path of a vector file, or a geometry of shapely."""

LON_LAT: Final = "EPSG:4326"
SEGMENT: Final = 0.01
"""Maximum distance in degrees between the points of a projected edge."""
HALF_TURN: Final = 180.0
"""Degrees of longitude to the antimeridian."""
EARTH: Final = box(-HALF_TURN, -90, HALF_TURN, 90)
NO_PLACE: Final = shapely.Point()
ANYWHERE: Final = box(-2 * HALF_TURN, -90, 2 * HALF_TURN, 90)
"""Longitudes may also be stated beyond the antimeridian."""
VECTORS: Final = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".kml")
WKT: Final = re.compile(
    r"\s*(?:SRID=(\d+);)?\s*(?:MULTI)?(?:POINT|LINESTRING|POLYGON|GEOMETRYCOLLECTION)\b", re.IGNORECASE
)
MALFORMED: Final = (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError)
"""Exceptions for JSON or text of another structure than expected."""
UNREADABLE: Final = (*MALFORMED, OSError, ShapelyError, RasterioError)
"""Exceptions for a geometry or vector file that is damaged, or has another format than its name suggests."""


class Feature(NamedTuple):
    """A geometry in the CRS ``crs`` (an EPSG code or well-known text), and its properties."""

    crs: str
    geometry: shapely.Geometry
    properties: Mapping[str, object]


def bbox_area(bbox: Sequence[float]) -> shapely.Geometry:
    """Return the area of a west-south-east-north box; west greater than east crosses the antimeridian."""
    west, south, east, north = bbox
    spans = [(west, east)] if west <= east else [(west, HALF_TURN), (-HALF_TURN, east)]
    boxes = (box(left, south, right, north) for left, right in spans)
    return shapely.union_all([shapely.make_valid(one) for one in boxes])  # of no width or height: a line or a point


def asked_box(bbox: Sequence[float]) -> shapely.Geometry:
    """Return the area of a box that a user asks for.

    Raises:
        ConfigError: It is not west, south, east, north in degrees.
    """
    stated = " ".join(f"{value:g}" if isinstance(value, Real) else repr(value) for value in bbox)
    if len(bbox) != 4 or not all(isinstance(value, Real) for value in bbox):  # noqa: PLR2004
        raise ConfigError(f"bbox has 4 numbers, west south east north, got {stated}")
    west, south, east, north = bbox
    if not (-HALF_TURN <= west <= HALF_TURN and -HALF_TURN <= east <= HALF_TURN and -90 <= south <= north <= 90):  # noqa: PLR2004
        raise ConfigError(f"bbox is west south east north in degrees, longitude before latitude, got {stated}")
    return bbox_area(bbox)


def bbox_of(area: shapely.Geometry) -> list[float]:
    """Return west, south, east, north of an area; west is greater than east if it crosses the antimeridian."""
    west, south, east, north = area.bounds
    parts = shapely.bounds(shapely.get_parts(area))
    eastern, western = parts[parts[:, 0] >= 0], parts[parts[:, 2] <= 0]
    if west == -HALF_TURN and east == HALF_TURN and len(eastern) + len(western) == len(parts):
        west, east = float(eastern[:, 0].min()), float(western[:, 2].max())
    return [west, south, east, north]


def wrapped(area: shapely.Geometry) -> shapely.Geometry:
    """Return the area wrapped to longitudes between -180 and 180 degrees."""
    west, _, east, _ = area.bounds
    if (west >= -HALF_TURN and east <= HALF_TURN) or not -3 * HALF_TURN <= west <= east <= 3 * HALF_TURN:
        return area
    turned = (translate(area, xoff=2 * HALF_TURN * turn) for turn in (-1, 0, 1))
    pieces = [shapely.intersection(shapely.make_valid(one), EARTH) for one in turned]
    whole = shapely.get_dimensions(area)  # if it only touches the antimeridian, a piece is a line or a point
    return shapely.union_all([piece for piece in pieces if shapely.get_dimensions(piece) == whole])


def footprint(geometry: object, bbox: object) -> shapely.Geometry:
    """Return the footprint of an item, within -180 to 180 degrees: its geometry, otherwise its bbox; empty if unknown.

    A polygon wider than half of the world is one that crosses the antimeridian and was not split there.
    """
    try:
        lies = _across(shape(geometry)) if geometry else bbox_area(without_heights(bbox))
        return wrapped(lies) if all(map(math.isfinite, lies.bounds)) else NO_PLACE
    except UNREADABLE:
        return NO_PLACE


def touches(item: pystac.Item, area: shapely.Geometry) -> bool:
    """Return whether an item's footprint touches an area in degrees."""
    return bool(footprint(item.geometry, item.bbox).intersects(area))


def check_footprint(item: pystac.Item) -> None:
    """Reject an item without a footprint, which STAC APIs need to publish its mask.

    Raises:
        UnsupportedItemError: It has no valid geometry.
    """
    if not item.geometry:
        raise UnsupportedItemError(f"item {item.id!r} has no geometry and no bbox; STAC APIs need a footprint")
    with suppress(*UNREADABLE):
        if not shapely.from_geojson(json.dumps(item.geometry, allow_nan=False)).is_empty:  # rejects texts
            return
    raise UnsupportedItemError(f"item {item.id!r} has no valid geometry: {str(item.geometry)[:80]}; correct the item")


def without_heights(bbox: Any) -> list[float]:  # noqa: ANN401  (anything that an item states)
    """Return west, south, east, north of a bounding box of two or three dimensions."""
    values = [float(value) for value in bbox]
    half = len(values) // 2
    return [*values[:2], *values[half : half + 2]]


def _across(lies: shapely.Geometry) -> shapely.Geometry:
    parts = shapely.get_parts(lies)
    unfolded = [_unfolded(part) for part in parts]
    return lies if all(new is old for new, old in zip(unfolded, parts, strict=True)) else shapely.union_all(unfolded)


def _unfolded(part: shapely.Geometry) -> shapely.Geometry:
    west, _, east, _ = part.bounds
    if east - west <= HALF_TURN or (west <= -HALF_TURN and east >= HALF_TURN):
        return part
    return shapely.transform(part, lambda xy: xy + np.array([360.0, 0.0]) * (xy[:, :1] < 0))


def read_area(stated: Area) -> shapely.Geometry:
    """Return an area in longitude and latitude; several features are merged, and longitudes beyond 180 degrees wrapped.

    Raises:
        ConfigError: It cannot be read, is empty, or is not on Earth.
    """
    shown = str(stated)[:60]
    try:
        with read_errors(f"{shown}: the area cannot be read"):
            found = [_in_degrees(feature, shown) for feature in _features_of(stated)]
            area = shapely.union_all([shapely.make_valid(geometry) for geometry in found])
    except ReadError as error:
        raise ConfigError(str(error)) from None
    if area.is_empty:
        raise ConfigError(f"{shown}: the area is empty")
    return wrapped(area)


def _features_of(stated: Area) -> Iterable[Feature]:
    if isinstance(stated, shapely.Geometry):
        return [Feature(LON_LAT, stated, {})]
    if isinstance(stated, Mapping):
        return _of_geojson(stated)
    text = fspath(stated)
    if text.lstrip().startswith("{"):
        return _of_geojson(json.loads(text))
    if match := WKT.match(text):
        return [Feature(f"EPSG:{match[1] or 4326}", shapely.from_wkt(text.rpartition(";")[2]), {})]
    return read_features(local_path(text))


def _in_degrees(feature: Feature, where: str) -> shapely.Geometry:
    if feature.crs != LON_LAT:
        return shape(transform_geom(feature.crs, LON_LAT, mapping(feature.geometry)))
    check_degrees(feature.geometry, where)
    return feature.geometry


def check_degrees(geometry: shapely.Geometry, where: str) -> None:
    """Reject coordinates that are not longitudes and latitudes.

    Raises:
        ConfigError: They are not; the message says what they probably are.
    """
    if not (geometry.is_empty or ANYWHERE.covers(geometry)):
        west, south, _, _ = geometry.bounds
        raise ConfigError(
            f"{where}: coordinates such as {west:g} {south:g} are not longitude and latitude in degrees, which GeoJSON "
            "and WKT without a CRS are in; reproject them to EPSG:4326, or save them as a GeoPackage, which keeps its "
            "CRS"
        )


def read_features(path: Path) -> Iterator[Feature]:
    """Return the features of all layers of a vector file: GeoJSON, GeoPackage, Shapefile or FlatGeobuf.

    Raises:
        ConfigError: A layer has no CRS, or pyogrio is needed and not installed.
        ReadError: The file cannot be read.
    """
    if not path.exists():
        raise ReadError(f"there is no file {path}")
    is_geojson = path.suffix.lower() in {".geojson", ".json"}
    with read_errors(f"{path}: cannot be read as {path.suffix.lower() or 'a vector file'}"):
        yield from _of_geojson(json.loads(path.read_bytes())) if is_geojson else _of_layers(path)


@contextmanager
def read_errors(what: str) -> Iterator[None]:
    """Turn errors of libraries for damaged vector data into a ReadError that begins with ``what``.

    Raises:
        ReadError: The data are damaged, or have another format than expected.
    """
    try:
        yield
    except (ConfigError, ReadError):
        raise
    except UNREADABLE as error:
        raise ReadError(f"{what}: {error}") from error


def _of_geojson(body: Mapping[str, Any]) -> Iterator[Feature]:
    """Return the features of GeoJSON: a collection, a feature or a geometry; the 2008 version may name its CRS."""
    crs = _named_crs(body.get("crs"))
    kind = body.get("type")
    features = body["features"] if kind == "FeatureCollection" else [body if kind == "Feature" else {"geometry": body}]
    for feature in features:
        if feature.get("geometry"):
            yield Feature(crs, shape(feature["geometry"]), feature.get("properties") or {})


def _named_crs(crs: object) -> str:
    if not crs:
        return LON_LAT
    text = json.dumps(crs)
    match = re.search(r"epsg.*?\b(\d{4,6})\b", text, re.IGNORECASE)
    if match is None and "CRS84" not in text:
        raise ConfigError(f"the CRS {text[:120]} is not known; name it by its EPSG code, or save it as a GeoPackage")
    return LON_LAT if match is None else f"EPSG:{match[1]}"


def _of_layers(path: Path) -> Iterator[Feature]:
    try:
        import pyogrio  # noqa: PLC0415  (extra)
    except ImportError:
        raise ConfigError(f"{path}: {path.suffix} needs the extra: pip install 'stac-cloudmask[labels]'") from None
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        try:
            readable = _with_contents(path) if path.suffix.lower() == ".gpkg" else path
            layers = [name for name, kind in pyogrio.list_layers(readable) if kind is not None]
            read = {name: pyogrio.raw.read(readable, layer=name) for name in layers}
        except (pyogrio.errors.DataSourceError, sqlite3.Error) as error:
            why = str(error).partition(";")[0].rstrip(".")  # GDAL goes on about prefixes for its drivers
            raise ReadError(f"{path}: cannot be read: {why}; save it again, as with QGIS or ogr2ogr") from None
    for name, (meta, _, shapes, columns) in read.items():
        crs = meta["crs"] or ""
        if not crs or re.match(r'\w+\["undefined', crs, re.IGNORECASE):
            raise ConfigError(f"{path}: layer {name!r} has no CRS; set it in QGIS (Layer > Set CRS) and save it again")
        for geometry, *values in zip(shapely.from_wkb(shapes), *columns, strict=True):
            if geometry is not None:
                yield Feature(crs, geometry, dict(zip(meta["fields"], values, strict=True)))


def pixels_of(area: shapely.Geometry, grid: Grid) -> tuple[Window, NDArray[np.bool_] | None] | None:
    """Return the pixels of a grid that an area in longitude and latitude touches.

    Returns:
        The window that encloses them, and ``(y, x)`` bool for it, True where the area touches a pixel. The latter is
        None for a box of longitude and latitude, which covers the whole window. None if the area touches no pixel.
    """
    placing = Affine(*grid.transform)
    is_box = shapely.equals(area, box(*area.bounds))
    west, south, east, north = transform_bounds(grid.code, LON_LAT, *grid.bounds)
    near = wrapped(bbox_area((west - 1, max(south - 1, -90), east + 1, min(north + 1, 90))))
    area = shapely.intersection(area, near)  # far from its zone, UTM has wrong places or none
    if area.is_empty:
        return None
    fine = shapely.segmentize(area, SEGMENT)  # an edge along a parallel is a curve on the grid
    placed = shape(transform_geom(LON_LAT, grid.code, mapping(fine)))
    (west, south), (east, north) = (~placing * point for point in (placed.bounds[:2], placed.bounds[2:]))
    top, bottom = max(0, math.floor(north)), min(grid.height, math.ceil(south))
    left, right = max(0, math.floor(west)), min(grid.width, math.ceil(east))
    if top >= bottom or left >= right:
        return None
    window = Window(top, left, bottom - top, right - left)
    if is_box:
        return window, None
    moved = Affine(*grid.cut(window).transform)
    inside = geometry_mask([placed], (window.height, window.width), moved, all_touched=True, invert=True)
    return (window, inside) if inside.any() else None


def _with_contents(path: Path) -> Path | bytes:
    """Return a GeoPackage, or a copy with the table of contents that GDAL requires and some programs omit."""
    source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with closing(source), closing(sqlite3.connect(":memory:")) as copy:
        tables = {name for (name,) in source.execute("SELECT name FROM sqlite_master")}
        if "gpkg_contents" in tables or "gpkg_geometry_columns" not in tables:
            return path
        source.backup(copy)
        copy.execute(
            "CREATE TABLE gpkg_contents AS SELECT table_name, 'features' AS data_type, table_name AS identifier,"
            " NULL AS description, NULL AS last_change, NULL AS min_x, NULL AS min_y, NULL AS max_x, NULL AS max_y,"
            " srs_id FROM gpkg_geometry_columns"
        )
        copy.commit()
        return copy.serialize()
