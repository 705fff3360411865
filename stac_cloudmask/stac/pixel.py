"""One pixel of an item's raster, by longitude and latitude."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final

from rasterio.errors import RasterioError
from rasterio.warp import transform
from rasterio.windows import Window

from stac_cloudmask.errors import ConfigError, ReadError, UnsupportedItemError
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, check_href, redact
from stac_cloudmask.stac.images import open_image
from stac_cloudmask.stac.sign import sign
from stac_cloudmask.stac.transport import Patience, check_redirects, gdal_env

if TYPE_CHECKING:
    import pystac

LON_LAT: Final = "EPSG:4326"
DTYPES: Final = ("uint8", "uint16")


@dataclass(frozen=True)
class Pixel:
    """Where a point lies in a raster, in pixels from the top left, and the value of the first band there."""

    row: int
    col: int
    value: int


def read_pixel(item: pystac.Item, key: str, lon: float, lat: float) -> Pixel:
    """The pixel of an asset that a point in degrees lies in.

    Raises:
        ConfigError: The point lies outside of the raster.
        ReadError: The raster cannot be read.
        UnsupportedItemError: Its href is refused, or it holds other numbers.
    """
    if not (-180 <= lon <= 180 and -90 <= lat <= 90):  # noqa: PLR2004  (degrees of the whole earth)
        raise ConfigError(f"longitude {lon:g}, latitude {lat:g}: degrees are needed, the longitude first")
    where = f"item {item.id!r}, asset {key!r}"
    base = item.get_self_href()
    href = check_href(item.assets[key].href, base=base)
    check_redirects(href, base=base, rule=DEFAULT_RULE)
    env = gdal_env([href], patience=Patience(), fresh=False)
    try:
        with open_image(sign(href), env, where=where) as raster:
            if raster.dtypes[0] not in DTYPES or raster.crs is None:
                raise UnsupportedItemError(f"{where} has no codes at places: {raster.dtypes[0]}, {raster.crs}")
            xs, ys = transform(LON_LAT, raster.crs, [lon], [lat])
            row, col = raster.index(xs[0], ys[0]) if isfinite(xs[0]) and isfinite(ys[0]) else (-1, -1)
            if not (0 <= row < raster.height and 0 <= col < raster.width):
                raise ConfigError(f"{where}: longitude {lon:g}, latitude {lat:g} lies outside; its bbox is {item.bbox}")
            return Pixel(int(row), int(col), int(raster.read(1, window=Window(col, row, 1, 1))[0, 0]))
    except RasterioError as error:
        raise ReadError(f"{where} could not be read: {redact(str(error))}") from error
