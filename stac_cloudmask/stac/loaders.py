"""Open files of one grid as a lazy array on that grid, with stackstac, odc-stac or rasterio."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.gdal import dataset
from stac_cloudmask.stac.providers import sign

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource
    from stac_cloudmask.stac.zarr import ZarrArray

LIBRARIES: Final[Mapping[Loader, str]] = {"stackstac": "stackstac", "odc": "odc.stac"}
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """An opened file of an asset.

    Attributes:
        source: The asset as its item describes it.
        grid: Grid of the file, or of the overview that is read.
        level: GDAL's number of the overview; None for the file's own pixels.
        block: Rows and columns of the internal tiles or strips.
        stored: Bytes of the pixels in the file; None if the format does not state it.
        dark: Share of valid pixels below ``boa_offset.DARK``, where the offset is doubtful and overviews make it cheap
            to know; else None.
        array: The Zarr array, where it is not a file.
    """

    source: BandSource
    grid: Grid
    level: int | None = None
    block: tuple[int, ...]
    stored: int | None = None
    dark: float | None = None
    array: ZarrArray | None = None


def load_library(loader: Loader) -> None:
    """Import the loader's library, which takes a second.

    Raises:
        ConfigError: The library is not installed.
    """
    try:
        importlib.import_module(LIBRARIES[loader])
    except ImportError as error:
        other = next(name for name in LIBRARIES if name != loader)
        raise ConfigError(
            f"loader {loader!r} cannot be imported ({error}); pip install {loader.replace('odc', 'odc-stac')}, or read "
            f"by --loader {other}, in Python loader={other!r}"
        ) from None


def native(files: Sequence[BandFile], *, loader: Loader, rows: int, cols: int = -1) -> da.Array:
    """Return files of one grid and dtype as a lazy ``(band, y, x)`` array.

    The array is made once per item, and rows are read as slices of it. GDAL's settings are those in effect, here and
    when a slice is computed.

    Args:
        files: At least one.
        loader: The library that reads; rasterio does where neither can: stackstac reads no overviews, and odc-stac
            chooses them by itself; neither tells a chunk of Zarr that cannot be had from one without data.
        rows: Rows of a chunk, which has one band.
        cols: Columns of a chunk; -1 for the whole width.
    """
    if any(file.level is not None or file.array is not None for file in files):
        return _by_rasterio(files, rows, cols)
    return _by_stackstac(files, rows, cols) if loader == "stackstac" else _by_odc(files, rows, cols)


def _by_stackstac(files: Sequence[BandFile], rows: int, cols: int) -> da.Array:
    import stackstac  # noqa: PLC0415  (seconds, and only one of the loaders is needed)

    grid, dtype = files[0].grid, np.dtype(files[0].source.dtype)
    stack = stackstac.stack(
        _item(files).to_dict(transform_hrefs=False),
        assets=[file.source.common_name for file in files],
        epsg=grid.epsg,  # stackstac reads only proj:epsg, which STAC 1.1 no longer has
        resolution=grid.gsd,
        bounds=grid.bounds,  # without epsg, resolution and bounds it silently invents a grid and warps
        snap_bounds=False,
        rescale=False,
        dtype=dtype,
        fill_value=dtype.type(0),  # a plain 0 is "incompatible" with uint16 under numpy 2
        chunksize=(1, 1, rows, cols),
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),  # by default a missing file is a band of nodata
        gdal_env=stackstac.rio_reader.LayeredEnv(always={}),  # its own settings would replace those in effect
    )
    array: da.Array = stack.data[0]
    return array


def _by_odc(files: Sequence[BandFile], rows: int, cols: int) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)
    import odc.stac  # noqa: PLC0415
    from affine import Affine  # noqa: PLC0415
    from odc.geo.geobox import GeoBox  # noqa: PLC0415

    grid, names = files[0].grid, [file.source.common_name for file in files]
    loaded = odc.stac.load(
        [_item(files)],
        bands=names,
        geobox=GeoBox(grid.shape, Affine(*grid.transform), grid.code),
        chunks={"y": rows, "x": cols},
        dtype=files[0].source.dtype,
        nodata=0,
        resampling="nearest",
    )
    array: da.Array = da.stack([loaded[name].data[0] for name in names])  # type: ignore[no-untyped-call]
    return array


def _by_rasterio(files: Sequence[BandFile], rows: int, cols: int) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)

    hrefs = [sign(file.source.href) for file in files]

    def block(block_info: Mapping[None, Mapping[str, Sequence[tuple[int, int]]]]) -> NDArray[Any]:
        (band, _), *window = block_info[None]["array-location"]
        array = files[band].array
        if array is not None:
            return array.read(*window)[None]
        with dataset(hrefs[band], files[band].level) as file:
            pixels: NDArray[Any] = file.read(1, window=tuple(window))
            return pixels[None]

    chunks = da.core.normalize_chunks((1, rows, cols), (len(files), *files[0].grid.shape))  # type: ignore[no-untyped-call]
    meta = np.empty((0, 0, 0), files[0].source.dtype)
    array: da.Array = da.map_blocks(block, chunks=chunks, meta=meta)  # type: ignore[no-untyped-call]
    return array


def _item(files: Sequence[BandFile]) -> pystac.Item:
    """Return an item with an asset for each file and the metadata that both libraries need but the source may lack."""
    name = "native-" + "-".join(file.source.common_name for file in files)
    item = pystac.Item(name, None, None, EPOCH, {}, stac_extensions=[PROJECTION])
    for file in files:
        grid = file.grid
        fields = {
            "proj:code": grid.code,
            "proj:epsg": grid.epsg,
            "proj:shape": list(grid.shape),
            "proj:transform": list(grid.transform),
            "proj:bbox": list(grid.bounds),
            "raster:bands": [{"data_type": file.source.dtype, "nodata": 0}],
        }
        asset = pystac.Asset(sign(file.source.href), media_type="image/tiff", extra_fields=fields)
        item.add_asset(file.source.common_name, asset)
    return item
