"""Rasters of one grid as a lazy array of their own pixels, by stackstac, odc-stac or rasterio."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac
from rasterio.io import DatasetReader

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.gdal import DRIVERS

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.zarr import ZarrArray

LIBRARIES: Final[Mapping[Loader, str]] = {"stackstac": "stackstac", "odc": "odc.stac"}
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A raster that is to be read as it is.

    Attributes:
        name: Its place on the band axis; unique among those read together.
        href: As GDAL opens it: absolute, signed.
        grid: Of what is read, exactly.
        dtype: That of the file; 0 is nodata.
        level: GDAL's number of the overview that is read; None for the raster itself.
        array: The Zarr array that is read instead of a file.
    """

    name: str
    href: str
    grid: Grid
    dtype: str
    level: int | None = None
    array: ZarrArray | None = None


def load_library(loader: Loader) -> None:
    """Import what reads, which takes a second.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        importlib.import_module(LIBRARIES[loader])
    except ImportError as error:
        others = ", ".join(repr(name) for name in LIBRARIES if name != loader)
        raise ConfigError(
            f"loader {loader!r} cannot be imported ({error}); pip install {loader.replace('odc', 'odc-stac')}, or take "
            f"loader {others}"
        ) from None


def native(rasters: Sequence[Raster], *, loader: Loader, rows: int, cols: int = -1) -> da.Array:
    """Rasters of one grid and dtype as a lazy ``(band, y, x)`` array.

    It is made once per item; the rows that are wanted are slices of it. GDAL's settings are those in force, here and
    where a slice is computed.

    Args:
        rasters: At least one.
        loader: The library that reads; rasterio does where neither can: stackstac reads no overviews, and odc-stac
            chooses them by itself; neither tells a chunk of Zarr that cannot be had from one without data.
        rows: Of a chunk, which has one band.
        cols: Of a chunk; -1 for the whole width.
    """
    if any(raster.level is not None or raster.array is not None for raster in rasters):
        array = _by_rasterio(rasters, rows, cols)
    else:
        array = _by_stackstac(rasters, rows, cols) if loader == "stackstac" else _by_odc(rasters, rows, cols)
    expected = (len(rasters), *rasters[0].grid.shape)
    if array.shape != expected or array.dtype != rasters[0].dtype:
        raise RuntimeError(f"{loader} made {array.shape} {array.dtype} of rasters {expected} {rasters[0].dtype}")
    return array


def _by_stackstac(rasters: Sequence[Raster], rows: int, cols: int) -> da.Array:
    import stackstac  # noqa: PLC0415  (seconds, and only one of the loaders is needed)

    first = rasters[0]
    dtype = np.dtype(first.dtype)
    stack = stackstac.stack(
        _item(rasters).to_dict(transform_hrefs=False),
        assets=[raster.name for raster in rasters],
        epsg=first.grid.epsg,  # it reads proj:epsg only, which STAC 1.1 no longer has
        resolution=first.grid.gsd,
        bounds=first.grid.bounds,  # without epsg, resolution and bounds it makes up a grid and warps, silently
        snap_bounds=False,
        rescale=False,
        dtype=dtype,
        fill_value=dtype.type(0),  # a plain 0 is "incompatible" with uint16 under numpy 2
        chunksize=(1, 1, rows, cols),
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),  # by default a missing file is a band of nodata
        gdal_env=stackstac.rio_reader.LayeredEnv(always={}),  # its own settings would replace those in force
    )
    if list(stack.band.values) != [raster.name for raster in rasters]:  # unknown assets are dropped without a word
        raise RuntimeError(f"stackstac kept only {list(stack.band.values)}")
    array: da.Array = stack.data[0]
    return array


def _by_odc(rasters: Sequence[Raster], rows: int, cols: int) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)
    import odc.stac  # noqa: PLC0415
    from affine import Affine  # noqa: PLC0415
    from odc.geo.geobox import GeoBox  # noqa: PLC0415

    first = rasters[0]
    loaded = odc.stac.load(
        [_item(rasters)],
        bands=[raster.name for raster in rasters],
        geobox=GeoBox(first.grid.shape, Affine(*first.grid.transform), first.grid.code),
        chunks={"y": rows, "x": cols},
        dtype=first.dtype,
        nodata=0,
        resampling="nearest",
    )
    array: da.Array = da.stack([loaded[raster.name].data[0] for raster in rasters])  # type: ignore[no-untyped-call]
    return array


def _by_rasterio(rasters: Sequence[Raster], rows: int, cols: int) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)

    def block(block_info: Mapping[None, Mapping[str, Sequence[tuple[int, int]]]]) -> NDArray[Any]:
        (band, _), *window = block_info[None]["array-location"]
        raster = rasters[band]
        if raster.array is not None:
            return raster.array.read(*window)[None]
        level = {} if raster.level is None else {"overview_level": raster.level}
        with DatasetReader(raster.href, driver=list(DRIVERS), sharing=False, **level) as file:
            pixels: NDArray[Any] = file.read(1, window=tuple(window))
            return pixels[None]

    shape, dtype = (len(rasters), *rasters[0].grid.shape), np.dtype(rasters[0].dtype)
    chunks = da.core.normalize_chunks((1, rows, cols), shape)  # type: ignore[no-untyped-call]
    meta = np.empty((0, 0, 0), dtype)
    array: da.Array = da.map_blocks(block, chunks=chunks, dtype=dtype, meta=meta)  # type: ignore[no-untyped-call]
    return array


def _item(rasters: Sequence[Raster]) -> pystac.Item:
    """An item with one asset per raster and what both libraries need to know; the source's own may not say it."""
    name = "native-" + "-".join(raster.name for raster in rasters)
    item = pystac.Item(name, None, None, EPOCH, {}, stac_extensions=[PROJECTION])
    for raster in rasters:
        grid = raster.grid
        fields = {
            "proj:code": grid.code,
            "proj:epsg": grid.epsg,
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform),
            "proj:bbox": list(grid.bounds),
            "raster:bands": [{"data_type": raster.dtype, "nodata": 0}],
        }
        item.add_asset(raster.name, pystac.Asset(raster.href, media_type="image/tiff", extra_fields=fields))
    return item
