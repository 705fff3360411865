"""Read an asset on another grid, or a single pixel."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import rasterio
from pyproj import Proj
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from rasterio.windows import Window

from stac_cloudmask.errors import ConfigError, ReadError, UnsupportedItemError, redact
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.gdal import open_raster
from stac_cloudmask.stac.geometry import LON_LAT
from stac_cloudmask.stac.hrefs import check_href, is_remote
from stac_cloudmask.stac.metadata import band_name, key_band

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rasterio.io import DatasetReader

    from stac_cloudmask.core.grid import Grid

    Json = Mapping[str, Any]
    import pystac

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
        height, width = grid.shape
        place = {"crs": grid.code, "transform": rasterio.Affine(*grid.transform), "height": height, "width": width}
        try:
            with open_raster(allowed, retry=self._retry) as file:
                _check_band(file, dtype)
                with WarpedVRT(file, **place, resampling=how, src_nodata=fill, nodata=fill) as view:
                    pixels: NDArray[Any] = view.read(1)
                    return pixels
        except ReadError:
            self._strikes[host] += bool(host)
            raise


def _check_band(file: DatasetReader, dtype: str) -> None:
    if file.count != 1 or file.dtypes[0] != dtype or file.crs is None:
        raise UnsupportedItemError(
            f"{redact(file.name)} has {file.count} bands of {file.dtypes[0]} in {file.crs or 'no CRS'}; one of {dtype} "
            "with a CRS is needed"
        )


def rgb_keys(assets: Mapping[str, Json]) -> tuple[str, str, str] | None:
    """Return the asset keys of red, green and blue of an output item; None if any is missing."""
    found: dict[str, str] = {}
    for key, asset in assets.items():
        bands = asset.get("bands", [])
        name = (band_name(bands[0]) if len(bands) == 1 else None) or key_band(key)
        if name in RGB and (name not in found or asset.get("type") != "image/jp2"):
            found[name] = key
    return (found["red"], found["green"], found["blue"]) if len(found) == len(RGB) else None


DTYPES: Final = ("uint8", "uint16")


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
    base = item.get_self_href()
    with open_raster(check_href(item.assets[key].href, base=base), where=where) as raster:
        if raster.dtypes[0] not in DTYPES or raster.crs is None:
            raise UnsupportedItemError(f"{where} has no georeferenced codes: {raster.dtypes[0]}, {raster.crs}")
        xs, ys = transform(LON_LAT, raster.crs, [lon], [lat])
        row, col = raster.index(xs[0], ys[0]) if math.isfinite(xs[0]) and math.isfinite(ys[0]) else (-1, -1)
        if not (0 <= row < raster.height and 0 <= col < raster.width):
            raise ConfigError(f"{where}: longitude {lon:g}, latitude {lat:g} is outside; its bbox is {item.bbox}")
        return Pixel(int(row), int(col), int(raster.read(1, window=Window(col, row, 1, 1))[0, 0]))
