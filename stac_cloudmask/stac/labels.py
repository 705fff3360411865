"""Labels of others on the grid of a mask: rasters by the nearest pixel, points and polygons by what they cover."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
import shapely
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_geom
from rasterio.windows import Window
from shapely.errors import ShapelyError

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.errors import ConfigError, ReadError
from stac_cloudmask.stac.gdal import Patience, gdal_env, open_image
from stac_cloudmask.stac.hrefs import redact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid

    Codes = NDArray[np.uint8]
    Geometry = Mapping[str, Any]
    Feature = tuple[Geometry, Mapping[str, object]]

STRIP: Final = 1024
"""Rows of a raster that are read at once."""
VECTORS: Final = (".geojson", ".json", ".gpkg")
FIELD: Final = "class"
"""Property of a feature that holds its class."""
LON_LAT: Final = "EPSG:4326"
ENVELOPES: Final = (0, 32, 48, 48, 64)
"""Bytes of the envelope in a GeoPackage geometry, by its kind (GeoPackage 1.3, clause 2.1.3)."""

BROKEN: Final = (
    OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError, sqlite3.Error,
    ShapelyError, RasterioError,
)  # fmt: skip
"""What comes of a label file that is damaged, or is something else than its name says."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the values of labels mean.

    Attributes:
        values: Class code by value, as text in lower case; 255 is "no label".
        otherwise: Class code of all other values; None where there must be none.
    """

    values: Mapping[str, int]
    otherwise: int | None = None


def is_vector(href: str) -> bool:
    """Whether an href is one of the vector formats that are read here."""
    return href.lower().endswith(VECTORS)


def raster_labels(href: str, grid: Grid, meaning: Meaning) -> Codes:
    """A label raster on ``grid``, ``(y, x)`` uint8 class codes; 255 outside of it and where it has nodata.

    Args:
        href: Absolute href of a raster with one band, in any CRS.
        grid: Of the result; each pixel has the value of the label pixel that its center lies in.
        meaning: Of its values.

    Raises:
        ReadError: It cannot be read.
        ConfigError: It has no CRS, or values without meaning.
    """
    out = np.empty(grid.shape, np.uint8)
    env = gdal_env([href], patience=Patience(), fresh=False)
    try:
        with open_image(href, env, where=redact(href)) as raster:
            if raster.crs is None:
                raise ConfigError(f"{redact(href)}: the label raster has no CRS; georeference it, as with rio warp")
            with WarpedVRT(
                raster, crs=grid.code, transform=rasterio.Affine(*grid.transform), height=grid.height, width=grid.width,
                resampling=Resampling.nearest, nodata=raster.nodata, add_alpha=raster.nodata is None,
            ) as warped:  # fmt: skip
                for top in range(0, grid.height, STRIP):
                    window = Window(0, top, grid.width, min(STRIP, grid.height - top))
                    rows = slice(top, top + STRIP)
                    valid = warped.read_masks(1, window=window) > 0
                    out[rows] = _codes(warped.read(1, window=window), valid, meaning, where=redact(href))
    except RasterioError as error:
        raise ReadError(f"{redact(href)}: the labels cannot be read: {redact(str(error))}") from error
    return out


def vector_labels(path: Path, grid: Grid, meaning: Meaning, *, field: str = FIELD) -> Codes:
    """Points, lines and polygons on ``grid``, ``(y, x)`` uint8 class codes; 255 where there is none.

    A polygon has the pixels whose center it covers, a point the pixel that it lies in; later features win.

    Args:
        path: A GeoJSON or GeoPackage file.
        grid: Of the result.
        meaning: Of the features' classes.
        field: Property that holds the class.

    Raises:
        ReadError: The file cannot be read.
        ConfigError: A feature has no class, or one without meaning.
    """
    shapes = []
    try:
        for crs, (geometry, properties) in _features(path):
            code = _code(path, properties, meaning, field)
            if not shapely.geometry.shape(geometry).is_empty:
                shapes.append((transform_geom(crs, grid.code, geometry), code))
    except (ConfigError, ReadError):
        raise
    except BROKEN as error:
        raise ReadError(f"{path}: the labels cannot be read: {error}") from error
    if not shapes:
        return np.full(grid.shape, CloudClass.NODATA, np.uint8)
    transform = rasterio.Affine(*grid.transform)
    labels: Codes = rasterize(shapes, grid.shape, fill=CloudClass.NODATA, transform=transform, dtype="uint8")
    return labels


def _codes(raw: NDArray[Any], valid: NDArray[np.bool_], meaning: Meaning, *, where: str) -> Codes:
    codes = np.full(raw.shape, meaning.otherwise or 0, np.uint8)
    known = ~valid
    for value, code in meaning.values.items():
        if re.fullmatch(r"-?\d+(\.\d+)?", value):
            same = raw == float(value)
            codes[same] = code
            known |= same
    if meaning.otherwise is None and not known.all():
        raise ConfigError(
            f"{where}: value {raw[~known][0]} has no meaning; known are {', '.join(meaning.values)}: "
            "say what values mean, as in labels.tif::1=cloud,2=cloud_shadow"
        )
    codes[~valid] = CloudClass.NODATA
    return codes


def _code(path: Path, properties: Mapping[str, object], meaning: Meaning, field: str) -> int:
    found = properties.get(field)
    code = meaning.values.get(str(found).strip().lower(), meaning.otherwise)
    if code is None or field not in properties:
        raise ConfigError(
            f"{path}: a feature has no class that is known: {field!r} is {found!r}, of its properties "
            f"{', '.join(sorted(properties)) or '(none)'}; known are {', '.join(meaning.values)}: "
            "say what values mean, as in labels.gpkg::field=kind,haze=cloud"
        )
    return code


def _features(path: Path) -> Iterator[tuple[str, Feature]]:
    """Every feature of a file, with its CRS."""
    if path.suffix.lower() == ".gpkg":
        yield from _of_geopackage(path)
        return
    body = json.loads(path.read_bytes())
    crs = _named_crs(body)
    for feature in body["features"] if body.get("type") == "FeatureCollection" else [body]:
        if feature.get("geometry"):
            yield crs, (feature["geometry"], feature.get("properties") or {})


def _named_crs(body: Mapping[str, Any]) -> str:
    """GeoJSON is in degrees; its 2008 version, which many tools still write, could name another CRS."""
    name = str(((body.get("crs") or {}).get("properties") or {}).get("name", ""))
    match = re.search(r"EPSG:(?:[\d.]*:)?(\d+)$", name)
    return f"EPSG:{match[1]}" if match else LON_LAT


def _of_geopackage(path: Path) -> Iterator[tuple[str, Feature]]:
    """The features of every layer; a GeoPackage is an SQLite file whose geometries are WKB behind a header."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA trusted_schema = OFF")
        tables = {row["name"] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        layers = database.execute(
            "SELECT g.table_name, g.column_name, s.organization, s.organization_coordsys_id"
            " FROM gpkg_geometry_columns g JOIN gpkg_spatial_ref_sys s ON g.srs_id = s.srs_id"
        ).fetchall()
        for table, column, authority, number in layers:
            if table not in tables:  # a view can compute without end
                raise ReadError(f"{path}: layer {table!r} is no table; save it as a layer of its own")
            quoted = table.replace('"', '""')
            for row in database.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608  (quoted, from the file itself)
                properties = {name: row[name] for name in row.keys() if name != column}  # noqa: SIM118  (a Row)
                if row[column] is not None:
                    yield f"{authority}:{number}", (_geometry(row[column]), properties)


def _geometry(blob: bytes) -> Geometry:
    envelope = ENVELOPES[(blob[3] >> 1) & 7]
    geometry: Geometry = shapely.geometry.mapping(shapely.from_wkb(blob[8 + envelope :]))
    return geometry
