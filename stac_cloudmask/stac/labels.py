"""Read reference labels on the grid of a mask: rasters by nearest neighbor, vectors by the pixels that they cover."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_geom
from shapely.geometry import mapping

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskWarning, redact
from stac_cloudmask.stac.gdal import open_raster
from stac_cloudmask.stac.geometry import LON_LAT, UNREADABLE, VECTORS, check_degrees, read_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid

    Codes = NDArray[np.uint8]

FIELD: Final = "class"
"""Property of a feature that holds its class."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The meaning of label values.

    Attributes:
        values: Class code by value, as text in lower case; 255 is "no label".
        otherwise: Class code of all other values; None if other values are errors.
    """

    values: Mapping[str, int]
    otherwise: int | None = None


def is_vector(href: str) -> bool:
    """Return whether an href has a supported vector format."""
    return href.lower().endswith(VECTORS)


def raster_labels(href: str, grid: Grid, meaning: Meaning) -> Codes:
    """Read a label raster on ``grid``, ``(y, x)`` uint8 class codes; 255 outside it and where it has nodata.

    Args:
        href: Absolute href of a raster with one band, in any CRS.
        grid: Grid of the result; each pixel has the value of the label pixel at its center.
        meaning: Meaning of its values.

    Raises:
        ReadError: It cannot be read.
        ConfigError: It has no CRS, several bands, or values without meaning.
    """
    with open_raster(href) as raster:
        if raster.crs is None:
            raise ConfigError(f"{redact(href)}: the label raster has no CRS; georeference it, as with rio warp")
        _check_bands(raster, meaning, where=redact(href))
        with WarpedVRT(
            raster, crs=grid.code, transform=rasterio.Affine(*grid.transform), height=grid.height, width=grid.width,
            resampling=Resampling.nearest, nodata=raster.nodata, add_alpha=raster.nodata is None,
        ) as warped:  # fmt: skip
            return _codes(warped.read(1), warped.read_masks(1) > 0, meaning, where=redact(href))


def vector_labels(path: Path, grid: Grid, meaning: Meaning, *, field: str = FIELD) -> Codes:
    """Read points, lines and polygons on ``grid``, ``(y, x)`` uint8 class codes; 255 where there is no label.

    A polygon labels the pixels whose center it covers, a point the pixel that contains it; later features win.

    Args:
        path: A GeoJSON, GeoPackage, Shapefile or FlatGeobuf file.
        grid: Grid of the result.
        meaning: Meaning of the features' classes.
        field: Property that holds the class.

    Raises:
        ReadError: The file cannot be read.
        ConfigError: A feature has no class, or one without meaning.
    """
    shapes = []
    try:
        for crs, geometry, properties in read_features(path):
            code = _code(path, properties, meaning, field)
            if crs == LON_LAT:
                check_degrees(geometry, str(path))
            if not geometry.is_empty:
                shapes.append((transform_geom(crs, grid.code, mapping(geometry)), code))
    except (ConfigError, ReadError):
        raise
    except UNREADABLE as error:
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


def _check_bands(raster: rasterio.DatasetReader, meaning: Meaning, *, where: str) -> None:
    bands = sum(kind != ColorInterp.alpha for kind in raster.colorinterp)
    if bands != 1:
        raise ConfigError(f"{where}: the label raster has {bands} bands; one is needed, with a value for each class")
    nodata = raster.nodata
    code = None if nodata is None else meaning.values.get(plain_word(nodata), None if nodata else meaning.otherwise)
    if code is not None and code != CloudClass.NODATA:
        warnings.warn(
            f"{where}: nodata of the label raster is {nodata:g}, which means {CloudClass(code).name.lower()}: such "
            "pixels are not judged; if they are labels, remove the tag (gdal_edit -unsetnodata)",
            StacCloudmaskWarning, stacklevel=4,
        )  # fmt: skip


def plain_word(value: object) -> str:
    """Return a value normalized for comparison: ``Thick Cloud`` is ``thick_cloud``, and 1.0 is 1."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().lower().replace("-", "_").replace(" ", "_")


def _code(path: Path, properties: Mapping[str, object], meaning: Meaning, field: str) -> int:
    found = properties.get(field)
    known = {plain_word(value): code for value, code in meaning.values.items()}
    code = known.get(plain_word(found), meaning.otherwise)
    if code is None or field not in properties:
        raise ConfigError(
            f"{path}: a feature has no class that is known: {field!r} is {found!r}, of its properties "
            f"{', '.join(sorted(properties)) or '(none)'}; known are {', '.join(meaning.values)}: "
            "say what values mean, as in labels.gpkg::field=kind,haze=cloud"
        )
    return code
