"""Read rasters and labels on the grid of a mask, or a single pixel."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from pyproj import Proj
from rasterio.enums import ColorInterp, Resampling
from rasterio.features import rasterize
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_geom
from rasterio.windows import Window
from shapely.geometry import mapping

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskWarning, UnsupportedItemError, redact
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import band_name, key_band
from stac_cloudmask.stac.gdal import open_raster
from stac_cloudmask.stac.geometry import LON_LAT, VECTORS, check_degrees, read_errors, read_features
from stac_cloudmask.stac.hrefs import check_href, is_remote

Codes = NDArray[np.uint8]

HASTY: Final = RetryPolicy(seconds=0.5)
STRIKES: Final = 3
"""Number of failed reads after which a host is skipped."""
RGB: Final = ("red", "green", "blue")
"""Common names in the order of a picture's channels."""


UTM: Final = (range(32601, 32661), range(32701, 32761))
"""EPSG codes."""
NEAR: Final = 0.01
NEAR_DEGREES: Final = 3.5
"""Tolerated scale error and meridian convergence: UTM has up to 0.001 and 3 degrees, on any datum."""


def ground(grid: Grid) -> tuple[float, float]:
    """Return a pixel's size on the ground in meters, and degrees clockwise from true to grid north, at the center.

    UTM, and any CRS as close to the ground, counts as exact.
    """
    if any(grid.epsg in zones for zones in UTM):
        return grid.gsd, 0.0
    x, y = grid.left + grid.gsd * grid.width / 2, grid.top - grid.gsd * grid.height / 2
    projection = Proj(grid.code)
    factors = projection.get_factors(*projection(x, y, inverse=True))
    gsd, turn = grid.gsd / math.sqrt(factors.areal_scale), factors.meridian_convergence
    is_near = math.isclose(gsd, grid.gsd, rel_tol=NEAR) and abs(turn) < NEAR_DEGREES
    return (grid.gsd, 0.0) if is_near else (gsd, turn)


def profile(grid: Grid) -> dict[str, Any]:
    """Return the options by which rasterio places a raster on a grid."""
    return {"crs": grid.code, "transform": rasterio.Affine(*grid.transform), "height": grid.height, "width": grid.width}


class Views:
    """A reader of one-band rasters of 8 or 16 bits on grids that may be much coarser than theirs."""

    def __init__(self, retry: RetryPolicy = HASTY) -> None:
        self._retry = retry
        self._strikes: Counter[str] = Counter()

    def classes(self, href: str, grid: Grid, *, base: str | None, fill: int | None) -> NDArray[np.uint8]:
        """Return the most frequent value in each pixel of ``grid``, ``(y, x)`` uint8.

        Args:
            href: Href in the item at ``base``, unsigned.
            grid: Grid of the result.
            base: Location of the item; None for one made in memory.
            fill: Code of pixels without data, which do not count; None where every value counts and 0 lies outside.

        Raises:
            ReadError: The asset cannot be read.
            UnsupportedItemError: The href is not allowed, or the asset is not a raster of one band and 8 bits.
        """
        return self._read(href, grid, base=base, how=Resampling.mode, fill=fill, dtype="uint8").astype(np.uint8)

    def means(self, href: str, grid: Grid, *, base: str | None, fill: int, dtype: str) -> NDArray[np.uint16]:
        """Return the mean of the valid pixels in each pixel of ``grid``, ``(y, x)``; otherwise like ``classes``."""
        return self._read(href, grid, base=base, how=Resampling.average, fill=fill, dtype=dtype).astype(np.uint16)

    def _read(
        self, href: str, grid: Grid, *, base: str | None, how: Resampling, fill: int | None, dtype: str
    ) -> NDArray[Any]:
        allowed = check_href(href, base=base)
        host = urlsplit(allowed).netloc if is_remote(allowed) else ""
        if self._strikes[host] >= STRIKES:
            raise ReadError(f"{redact(allowed)} was not requested: {host} failed {STRIKES} times")
        try:
            with open_raster(allowed, retry=self._retry) as file:
                if file.count != 1 or file.dtypes[0] != dtype or file.crs is None:
                    raise UnsupportedItemError(
                        f"{redact(file.name)} has {file.count} bands of {file.dtypes[0]} in {file.crs or 'no CRS'}; "
                        f"one of {dtype} with a CRS is needed"
                    )
                with WarpedVRT(file, **profile(grid), resampling=how, src_nodata=fill, nodata=fill) as view:
                    pixels: NDArray[Any] = view.read(1)
                    return pixels
        except ReadError:
            self._strikes[host] += bool(host)
            raise


def rgb_keys(assets: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, str] | None:
    """Return the asset keys of red, green and blue of an output item; None if any is missing."""
    found: dict[str, str] = {}
    for key, asset in assets.items():
        bands = asset.get("bands", [])
        name = (band_name(bands[0]) if len(bands) == 1 else None) or key_band(key)
        if name in RGB and (name not in found or asset.get("type") != "image/jp2"):
            found[name] = key
    return (found["red"], found["green"], found["blue"]) if len(found) == len(RGB) else None


class Pixel(NamedTuple):
    """The position of a point in a raster, in pixels from the top left, and the value of the first band there."""

    row: int
    col: int
    value: int


def read_pixel(item: pystac.Item, key: str, lon: float, lat: float) -> Pixel:
    """Return the pixel of an asset that contains a point in degrees.

    Raises:
        ConfigError: The point is outside the raster.
        ReadError: The raster cannot be read.
        UnsupportedItemError: Its href is refused, or its values are not codes.
    """
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):  # noqa: PLR2004  (degrees of the whole earth)
        raise ConfigError(f"longitude {lon:g}, latitude {lat:g}: degrees are needed, the longitude first")
    where = f"item {item.id!r}, asset {key!r}"
    with open_raster(check_href(item.assets[key].href, base=item.get_self_href()), where=where) as raster:
        if raster.dtypes[0] not in {"uint8", "uint16"} or raster.crs is None:
            raise UnsupportedItemError(f"{where} has no georeferenced codes: {raster.dtypes[0]}, {raster.crs}")
        xs, ys = transform(LON_LAT, raster.crs, [lon], [lat])
        row, col = raster.index(xs[0], ys[0]) if math.isfinite(xs[0]) and math.isfinite(ys[0]) else (-1, -1)
        if not (0 <= row < raster.height and 0 <= col < raster.width):
            raise ConfigError(f"{where}: longitude {lon:g}, latitude {lat:g} is outside; its bbox is {item.bbox}")
        return Pixel(int(row), int(col), int(raster.read(1, window=Window(col, row, 1, 1))[0, 0]))


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


def read_labels(href: str, grid: Grid, meaning: Meaning, *, field: str = FIELD) -> Codes:
    """Read labels on ``grid``, ``(y, x)`` uint8 class codes; 255 where there is no label.

    From a raster, each pixel has the value of the label pixel at its center. A polygon labels the pixels whose center
    it covers, a point the pixel that contains it; later features win.

    Args:
        href: Absolute href of a raster with one band, in any CRS; or path of a GeoJSON, GeoPackage, Shapefile or
            FlatGeobuf file of points, lines and polygons.
        grid: Grid of the result.
        meaning: Meaning of the values of a raster, or of the features' classes.
        field: Property of a feature that holds its class.

    Raises:
        ReadError: The file cannot be read.
        ConfigError: A raster has no CRS or several bands; or a value or a feature has no class, or one without meaning.
    """
    if is_vector(href):
        return _vector_labels(Path(href), grid, meaning, field)
    where = redact(href)
    with open_raster(href) as raster:
        if raster.crs is None:
            raise ConfigError(f"{where}: the label raster has no CRS; georeference it, as with rio warp")
        _check_label_band(raster, meaning, where)
        unknown = {"nodata": raster.nodata, "add_alpha": raster.nodata is None}
        with WarpedVRT(raster, **profile(grid), resampling=Resampling.nearest, **unknown) as warped:
            return _codes(warped.read(1), warped.read_masks(1) > 0, meaning, where)


def _vector_labels(path: Path, grid: Grid, meaning: Meaning, field: str) -> Codes:
    shapes = []
    with read_errors(f"{path}: the labels cannot be read"):
        for crs, geometry, properties in read_features(path):
            code = _code(path, properties, meaning, field)
            if crs == LON_LAT:
                check_degrees(geometry, str(path))
            if not geometry.is_empty:
                shapes.append((transform_geom(crs, grid.code, mapping(geometry)), code))
    if not shapes:
        return np.full(grid.shape, CloudClass.NODATA, np.uint8)
    placing = profile(grid)["transform"]
    labels: Codes = rasterize(shapes, grid.shape, fill=CloudClass.NODATA, transform=placing, dtype="uint8")
    return labels


def _codes(raw: NDArray[Any], valid: NDArray[np.bool_], meaning: Meaning, where: str) -> Codes:
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


def _check_label_band(raster: DatasetReader, meaning: Meaning, where: str) -> None:
    bands = sum(kind != ColorInterp.alpha for kind in raster.colorinterp)
    if bands != 1:
        raise ConfigError(f"{where}: the label raster has {bands} bands; one is needed, with a value for each class")
    nodata = raster.nodata
    code = None if nodata is None else meaning.values.get(plain_word(nodata), None if nodata else meaning.otherwise)
    if code is not None and code != CloudClass.NODATA:
        warnings.warn(
            f"{where}: nodata of the label raster is {nodata:g}, which means {CloudClass(code).name.lower()}: such "
            "pixels are not judged; if they are labels, remove the tag (gdal_edit -unsetnodata)",
            StacCloudmaskWarning, stacklevel=3,
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
