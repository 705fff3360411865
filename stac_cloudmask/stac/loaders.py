"""Native-grid reads by stackstac, odc-stac or rasterio."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac
import rasterio
from rasterio.io import DatasetReader
from rasterio.windows import Window

from stac_cloudmask.core.reflectance import mean_by_twos

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid

DRIVER: Final = "GTiff"
SAMPLE: Final = 512
"""Side in pixels of what is read both ways: one block of most files."""
MOST_BLOCKS: Final = 100_000
"""Blocks whose bytes are added up; a tile of Sentinel-2 has 484 of 512 pixels, and each is asked for by itself."""
QUARTERS: Final = ((2, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Where to look, down and across: the middle first; elsewhere if there is no data."""


@dataclass(frozen=True)
class Overview:
    """A copy of a raster of which each pixel stands for ``factor`` x ``factor``; ``level`` is GDAL's number for it."""

    level: int
    factor: int


def open_overview(href: str, overview: Overview | None) -> DatasetReader:
    """An overview of a GeoTIFF as a raster of its own; the raster itself where there is none."""
    level = {} if overview is None else {"overview_level": overview.level}
    return DatasetReader(href, driver=DRIVER, sharing=False, **level)


def find_overview(file: DatasetReader, href: str, factor: int) -> Overview | None:
    """The coarsest overview that holds means and of which whole pixels make up ``factor`` x ``factor`` of the raster.

    Its own factor divides that of `SAMPLE`: a power of two, as means by twos are what GDAL makes, see ``mean_by_twos``.
    And its pixels nest, which they do not where a side of the raster is no multiple.

    Args:
        file: The raster, open.
        href: As it was opened.
        factor: Pixels along the side of those that are wanted.
    """
    if file.driver != DRIVER or file.nodata is None or max(file.shape) <= SAMPLE:
        return None
    overviews = [Overview(level, by) for level, by in enumerate(file.overviews(1)) if factor % by == 0 == SAMPLE % by]
    for overview in sorted(overviews, key=lambda one: -one.factor):
        with open_overview(href, overview) as small:
            nests = tuple(side * overview.factor for side in small.shape) == file.shape
            if nests and _holds_means(file, small, overview.factor):
                return overview
    return None


def _holds_means(file: DatasetReader, small: DatasetReader, factor: int) -> bool:
    """Whether a sample of the overview is the mean of the raster; no, where no sample tells means from pixels."""
    for down, across in QUARTERS:
        top, left = (
            side * quarter // 4 // SAMPLE * SAMPLE for side, quarter in zip(file.shape, (down, across), strict=True)
        )
        height, width = min(SAMPLE, file.height - top), min(SAMPLE, file.width - left)
        fine = _pixels(file, Window(left, top, width, height))
        means = mean_by_twos(fine, factor)
        if np.array_equal(means, fine[::factor, ::factor]):
            continue
        window = Window(left // factor, top // factor, width // factor, height // factor)
        return np.array_equal(_pixels(small, window), means)
    return False


def _pixels(file: DatasetReader, window: Window) -> NDArray[Any]:
    pixels: NDArray[Any] = file.read(1, window=window)
    return pixels


def stored_bytes(file: DatasetReader) -> int | None:
    """Bytes that the pixels of an open GeoTIFF, or of an overview in it, take in the file.

    None for other formats, and for more than `MOST_BLOCKS`.
    """
    height, width = file.block_shapes[0]
    down, across = -(-file.height // height), -(-file.width // width)
    if file.driver != DRIVER or down * across > MOST_BLOCKS:
        return None
    blocks = product(range(across), range(down))
    return sum(int(file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1) or 0) for x, y in blocks)


GdalEnv = Mapping[str, str]

EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


@dataclass(frozen=True, kw_only=True)
class Raster:
    """A file that is to be read as it is.

    Attributes:
        name: Its place on the band axis; unique among those read together.
        href: As GDAL opens it: absolute, signed.
        grid: That of the file, exactly.
        dtype: That of the file; 0 is nodata.
    """

    name: str
    href: str
    grid: Grid
    dtype: str


def native(
    rasters: Sequence[Raster],
    *,
    loader: Loader,
    chunk: tuple[int, int],
    env: GdalEnv,
    overview: Overview | None = None,
) -> da.Array:
    """Rasters of one grid and dtype as a lazy ``(band, y, x)`` array.

    Args:
        rasters: At least one.
        loader: The library that reads.
        chunk: Rows and columns of a chunk, which has one band.
        env: GDAL settings for opening and reading.
        overview: The copy in each file that is to be read instead, whose grid ``rasters`` state. Neither library reads
            the one that it is told: stackstac reads none, odc-stac chooses; so this one is read by rasterio.
    """
    if overview is not None:
        array = _by_rasterio(rasters, chunk, env, overview)
    else:
        array = _by_stackstac(rasters, chunk, env) if loader == "stackstac" else _by_odc(rasters, chunk, env)
    expected = (len(rasters), *rasters[0].grid.shape)
    if array.shape != expected or array.dtype != rasters[0].dtype:
        raise RuntimeError(f"{loader} made {array.shape} {array.dtype} of rasters {expected} {rasters[0].dtype}")
    return array


def store(array: da.Array, out: np.ndarray[Any, Any], *, threads: int) -> None:
    """Compute an array into ``out``, on threads of this process even where a Dask cluster is the default."""
    import dask.array as da  # noqa: PLC0415  (a second, which a run that has nothing to do can save)
    from dask.threaded import get  # noqa: PLC0415

    da.store(array, out, lock=False, scheduler=get, num_workers=threads)  # by its name, dask would load distributed too


def load_library(loader: Loader) -> None:
    """Import what reads, which takes a second that a run would take later."""
    importlib.import_module("stackstac" if loader == "stackstac" else "odc.stac")
    importlib.import_module("dask.array")


def _by_stackstac(rasters: Sequence[Raster], chunk: tuple[int, int], env: GdalEnv) -> da.Array:
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
        chunksize=(1, 1, *chunk),
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),  # by default a missing file is a band of nodata
        gdal_env=stackstac.DEFAULT_GDAL_ENV.updated(always=dict(env)),
    )
    if list(stack.band.values) != [raster.name for raster in rasters]:  # unknown assets are dropped without a word
        raise RuntimeError(f"stackstac kept only {list(stack.band.values)}")
    array: da.Array = stack.data[0]
    return array


def _by_odc(rasters: Sequence[Raster], chunk: tuple[int, int], env: GdalEnv) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)
    import odc.stac  # noqa: PLC0415
    from affine import Affine  # noqa: PLC0415
    from odc.geo.geobox import GeoBox  # noqa: PLC0415
    from odc.loader._rio import RioDriver  # noqa: PLC0415  (no public name)

    class WithEnv(RioDriver):
        """Reads under our GDAL settings; those for AWS are otherwise dropped on the way to the threads."""

        def capture_env(self) -> dict[str, Any]:
            return dict(env)

    first = rasters[0]
    loaded = odc.stac.load(
        [_item(rasters)],
        bands=[raster.name for raster in rasters],
        geobox=GeoBox(first.grid.shape, Affine(*first.grid.transform), first.grid.code),
        chunks={"y": chunk[0], "x": chunk[1]},
        dtype=first.dtype,
        nodata=0,
        resampling="nearest",
        driver=WithEnv(),
    )
    array: da.Array = da.stack([loaded[raster.name].data[0] for raster in rasters])  # type: ignore[no-untyped-call]
    return array


def _by_rasterio(rasters: Sequence[Raster], chunk: tuple[int, int], env: GdalEnv, overview: Overview) -> da.Array:
    import dask.array as da  # noqa: PLC0415  (see _by_stackstac)

    def block(block_info: Mapping[None, Mapping[str, Sequence[tuple[int, int]]]]) -> NDArray[Any]:
        (band, _), *window = block_info[None]["array-location"]
        with rasterio.Env(**env), open_overview(rasters[band].href, overview) as file:
            pixels: NDArray[Any] = file.read(1, window=tuple(window))
            return pixels[None]

    shape, dtype = (len(rasters), *rasters[0].grid.shape), np.dtype(rasters[0].dtype)
    chunks = da.core.normalize_chunks((1, *chunk), shape)  # type: ignore[no-untyped-call]
    meta = np.empty((0, 0, 0), dtype)
    array: da.Array = da.map_blocks(block, chunks=chunks, dtype=dtype, meta=meta)  # type: ignore[no-untyped-call]
    return array


def _item(rasters: Sequence[Raster]) -> pystac.Item:
    """An item with one asset per raster, as much of STAC as both libraries need."""
    item = pystac.Item(f"native-{uuid.uuid4().hex}", None, None, EPOCH, {}, stac_extensions=[PROJECTION])
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
