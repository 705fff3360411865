"""Open the bands of an item on one grid and read them by rows.

Each asset's file is opened once and compared with its item. A `Layer` holds the files that share one grid, as a lazy
array at their native resolution, made by stackstac, odc-stac or rasterio; a `Scene` holds all bands on the grid of the
mask.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import MaskFlags

from stac_cloudmask.config import Loader
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.pixels import HIGHEST_DN, U16, is_damaged, mean_by_twos, mode_of_blocks, repeat, up_bilinear
from stac_cloudmask.core.predict import Bands
from stac_cloudmask.errors import ConfigError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.bands import DARK, BandSource, Sources, of_array, settle
from stac_cloudmask.stac.gdal import check_proj, dataset, open_raster, quiet_loggers, reading, whole
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.metadata import MAX_PIXELS, make_grid
from stac_cloudmask.stac.providers import SCL, sign
from stac_cloudmask.stac.warp import ground
from stac_cloudmask.stac.zarr import ZarrArray, open_array

if TYPE_CHECKING:
    import dask.array as da
    from rasterio.io import DatasetReader

LIBRARIES: Final[Mapping[Loader, str]] = {"stackstac": "stackstac", "odc": "odc.stac"}
PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
CHUNK_ROWS: Final = 512
"""Approximate rows of a chunk; whole rows of blocks are read."""
PART: Final = 128
"""Approximate rows and columns of a chunk if a part of a scene is read; only blocks that it touches are read."""
TALLEST: Final = 2048
"""Maximum rows of the finest band in a strip."""
SAMPLE: Final = 1024
"""Pixels along each axis of the sample for a doubtful offset."""
MISPLACED: Final = 0.01
"""Tolerance in pixels between metadata and file."""
MOST_BLOCKS: Final = 100_000
"""Maximum number of blocks whose bytes are added up one by one; a Sentinel-2 tile has 484 blocks of 512 pixels."""


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """An opened file of an asset.

    Attributes:
        source: The asset as its item describes it.
        grid: Grid of the file, or of the overview that is read.
        level: GDAL's number of the overview; None for the file's own pixels.
        block: Rows and columns of the internal tiles or strips.
        stored: Bytes of the pixels in the file; None if the format does not state it.
        dark: Share of valid pixels below ``bands.DARK``, where the offset is doubtful and overviews make it cheap
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


def open_files(
    sources: Sequence[BandSource], *, resolution: float | None, threads: int, retry: RetryPolicy = DEFAULT_POLICY
) -> list[BandFile]:
    """Open the files of some sources and compare them with their item.

    Args:
        sources: The assets as the item describes them.
        resolution: Requested pixel size in meters; None for that of the finest band.
        threads: Number of threads that open files.
        retry: Retry settings for failing servers.

    Raises:
        StacCloudmaskError: See ``open_scene``.
    """

    def look(source: BandSource) -> BandFile:
        if source.is_zarr:
            return _open_array(source, retry)
        coarser = None if source.common_name == SCL else resolution
        return whole(partial(_open_file, source, resolution=coarser, retry=retry), retry=retry)

    first = [look(source) for source in sources[:1]]  # first alone, to wait only once for an unreachable host
    with ThreadPoolExecutor(threads) as pool:
        return [*first, *pool.map(look, sources[1:])]


def _open_file(source: BandSource, *, resolution: float | None, retry: RetryPolicy) -> BandFile:
    with open_raster(source.href, where=source.where, retry=retry) as file:
        _check_pixels(source, file)
        grid, level = _overview(file, _grid(source, file), resolution)
        dark = _dark(file) if source.offset.doubtful else None
        block, stored = file.block_shapes[0], _stored_bytes(file)
    if level is not None:
        with open_raster(source.href, where=source.where, retry=retry, level=level) as file:
            block, stored = file.block_shapes[0], _stored_bytes(file)
    return BandFile(source=source, grid=grid, level=level, block=block, stored=stored, dark=dark)


def _open_array(source: BandSource, retry: RetryPolicy) -> BandFile:
    array = open_array(source.href, where=source.where, retry=retry)
    with reading(source.href, where=source.where, retry=retry), array.open({}) as file:
        _check_pixels(source, file)
        if source.epsg is None:
            raise UnsupportedItemError(f"{source.where} is a Zarr array, whose CRS its item must state as proj:code")
        grid = source.grid if file.transform.is_identity else _placed(source, source.epsg, file)
    if grid is None:
        raise UnsupportedItemError(f"{source.where}: neither its Zarr array nor its item states where it lies")
    if source.common_name != SCL:
        scale, offset = of_array(source.scale, source.offset, array.layout.attributes)
        source = replace(source, scale=scale, offset=offset)
    return BandFile(source=source, grid=grid, block=array.layout.chunks, array=array)


def _overview(file: DatasetReader, grid: Grid, resolution: float | None) -> tuple[Grid, int | None]:
    """Return the coarsest overview finer than ``resolution`` whose pixels nest in it: its grid and GDAL's number.

    It is averaged further, which limits the effect of overviews that were not made by averaging.
    """
    wanted = 1.0 if resolution is None else round(resolution / grid.gsd, 9)
    if file.driver != "GTiff" or file.nodata is None:
        return grid, None
    nested = [
        (by, level)
        for level, by in enumerate(file.overviews(1))
        if by < wanted and wanted % by == file.height % by == file.width % by == 0
    ]
    factor, level = max(nested, default=(1, None))
    return grid.coarsen(factor), level


def _dark(file: DatasetReader) -> float | None:
    if not file.overviews(1) and math.prod(file.shape) > SAMPLE**2:
        return None
    sample = file.read(1, out_shape=tuple(min(side, SAMPLE) for side in file.shape))
    valid = sample[sample > 0]
    return float((valid < DARK).mean()) if valid.size else None


def _stored_bytes(file: DatasetReader) -> int | None:
    """Return the bytes of a GeoTIFF's pixels in the file; None for other formats, and for more than `MOST_BLOCKS`."""
    height, width = file.block_shapes[0]
    down, across = -(-file.height // height), -(-file.width // width)
    if file.driver != "GTiff" or down * across > MOST_BLOCKS:
        return None
    blocks = product(range(across), range(down))
    return sum(int(file.get_tag_item(f"BLOCK_SIZE_{x}_{y}", "TIFF", bidx=1) or 0) for x, y in blocks)


def _check_pixels(source: BandSource, file: DatasetReader) -> None:
    if file.count != 1:
        raise UnsupportedItemError(f"{source.where} has {file.count} bands; an asset of one band is needed")
    if file.dtypes[0] != source.dtype:
        raise UnsupportedItemError(f"{source.where} has {file.dtypes[0]} pixels; {source.dtype} are needed")
    if file.nodata not in {None, 0.0}:
        raise UnsupportedItemError(f"{source.where} has nodata {file.nodata:g}; Sentinel-2 has 0")
    if set(file.mask_flag_enums[0]) & {MaskFlags.per_dataset, MaskFlags.alpha}:
        raise UnsupportedItemError(f"{source.where} has a mask band; nodata as 0 is needed")
    if math.prod(file.block_shapes[0]) > MAX_PIXELS // 4:
        raise UnsupportedItemError(f"{source.where} has blocks of {file.block_shapes[0]} pixels; tile it, 512 x 512")


def _grid(source: BandSource, file: DatasetReader) -> Grid:
    epsg = file.crs.to_epsg() if file.crs else None
    if epsg is None:
        check_proj()
    if epsg is None or not file.crs.is_projected or not math.isclose(file.crs.linear_units_factor[1], 1.0):
        raise UnsupportedItemError(
            f"{source.where} has CRS {str(file.crs)[:80]!r}; one by EPSG code in meters is needed"
        )
    return _placed(source, epsg, file)


def _placed(source: BandSource, epsg: int, file: DatasetReader) -> Grid:
    grid = make_grid(epsg, list(file.transform), list(file.shape), where=source.where)
    if source.grid is not None and not _is_same_place(source.grid, grid):
        raise UnsupportedItemError(
            f"{source.where} is not where its item says: {_as_text(source.grid)} in the item, {_as_text(grid)} in "
            "the file; correct proj:code, proj:transform and proj:shape"
        )
    return grid


def _is_same_place(said: Grid, found: Grid) -> bool:
    """Return whether two grids are equal within a small fraction of a pixel."""
    is_near = np.allclose(said.bounds, found.bounds, rtol=0, atol=MISPLACED * found.gsd)
    return (said.epsg, said.shape) == (found.epsg, found.shape) and is_near


def _as_text(grid: Grid) -> str:
    return f"{grid.code}, {grid.height} x {grid.width} pixels of {grid.gsd:g} from ({grid.left:.10g}, {grid.top:.10g})"


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


def lazy_array(files: Sequence[BandFile], *, loader: Loader, rows: int, cols: int) -> da.Array:
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
    import odc.stac  # noqa: PLC0415  (see _by_stackstac)

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
    array: da.Array = loaded[names].to_dataarray().data[:, 0]
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
    grid = files[0].grid
    place: dict[str, Any] = {"proj:code": grid.code, "proj:epsg": grid.epsg}
    place |= {"proj:shape": [*grid.shape], "proj:transform": [*grid.transform]}
    assets = {
        file.source.common_name: pystac.Asset(sign(file.source.href), media_type="image/tiff", extra_fields=place)
        for file in files
    }
    name = "-".join(["native", *assets])
    return pystac.Item(
        name, None, None, datetime(2000, 1, 1, tzinfo=UTC), {}, stac_extensions=[PROJECTION], assets=assets
    )


def whole_of(grid: Grid) -> Window:
    """Return the window of all pixels of a grid."""
    return Window(0, 0, *grid.shape)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The grid of a scene, and the settings for reading files onto it.

    Attributes:
        finest: The file with the smallest pixels.
        factor: Pixels of the finest file along the side of a pixel of the scene.
        part: The part of its grid, coarsened by this, that is the scene.
        loader: The library that reads.
        retry: Retry settings for failing servers.
        threads: Number of threads that read, each its own file: where two wait for the same bytes of a remote file and
            the server fails, GDAL 3.10 can wait for ever.
    """

    finest: BandFile
    factor: int
    part: Window
    loader: Loader
    retry: RetryPolicy
    threads: int

    @property
    def is_whole(self) -> bool:
        """Whether the scene covers the whole item."""
        return self.part == whole_of(self.finest.grid.coarsen(self.factor))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Files that share one grid and dtype, and their resampling to the scene's grid.

    Attributes:
        files: At least one.
        pixels: Lazy ``(band, y, x)`` array of the files, or of the part that is read; in memory where upsampled.
        up: Upsampling factor along each axis.
        window: Window of the upsampled pixels inside the scene.
        down: Number of upsampled pixels along the side of a pixel of the scene.
        frame: Grid of the scene and settings for reading.
    """

    files: Sequence[BandFile]
    pixels: da.Array | NDArray[Any]
    up: int
    window: Window
    down: int
    frame: Frame

    def native(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return rows of the files, by default all, without resampling, ``(band, y, x)``; read-only."""
        if isinstance(self.pixels, np.ndarray):
            return self.pixels[:, start:stop]
        from dask.local import get_sync  # noqa: PLC0415  (by its name, dask would load distributed too)

        rows = self.pixels[:, start:stop]
        out = np.empty(rows.shape, rows.dtype)

        def read(index: int) -> None:
            source = self.files[index].source
            with reading(source.href, where=source.where, retry=self.frame.retry):
                rows[index].store(out[index], lock=False, scheduler=get_sync)  # chunk by chunk, without another copy

        # local files have no latency to hide, and each thread holds copies of its pixels
        with ThreadPoolExecutor(self.frame.threads if is_remote(self.files[0].source.href) else 1) as pool:
            list(pool.map(lambda index: whole(partial(read, index), retry=self.frame.retry), range(len(rows))))
        return out

    def read(self, row_off: int, height: int) -> U16:
        """Return rows of the scene as ``(band, y, x)``."""
        start, stop = row_off * self.down, min((row_off + height) * self.down, self.window.height)
        if self.up == self.down == 1:
            return self.native(start, stop)
        window = replace(self.window, row_off=self.window.row_off + start, height=stop - start)
        fine = self.native(start, stop) if self.up == 1 else self.native()
        if fine.max(initial=0) <= HIGHEST_DN:
            return self._resampled(fine, window)
        damaged = is_damaged(fine)
        rows = self._resampled(np.where(damaged, np.uint16(0), fine), window)
        rows[is_damaged(rows)] = HIGHEST_DN  # a mean with saturated pixels is bright, not damaged
        rows[self._resampled(damaged.astype(np.uint16), window) > 0] = HIGHEST_DN + 1  # and all that damage touches is
        return rows

    def _resampled(self, fine: U16, window: Window) -> U16:
        return mean_by_twos(fine if self.up == 1 else up_bilinear(fine, self.up, window=window), self.down)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The pixels of an item on one grid.

    Attributes:
        sources: What it reads; doubtful offsets are as the pixels have settled them, the sun is as seen from the grid,
            and notes state findings in the files.
        grid: Grid of all arrays that it returns.
        gsd: Meters on the ground along a pixel.
        bands: Common names, scales and offsets, in the order of the band axis.
        strip: Rows at a time, from a multiple of it on, in which reading is cheapest.
        layers: Layers of the bands by their positions on the band axis.
        classes: Layer of the scene classification; None without one.
    """

    sources: Sources
    grid: Grid
    gsd: float
    bands: Bands
    strip: int
    layers: Mapping[tuple[int, ...], Layer]
    classes: Layer | None

    def dn(self, row_off: int, height: int) -> U16:
        """Return whole rows of digital numbers as ``(band, y, x)``; 0 is nodata. The array is read-only.

        Coarser bands are upsampled bilinearly, finer bands averaged, both over valid pixels only and exactly: the
        result does not depend on the strips that are read.
        """
        first, *others = self.layers.values()
        if not others:
            return first.read(row_off, height)
        out = np.empty((len(self.bands.names), height, self.grid.width), np.uint16)
        for indexes, layer in self.layers.items():
            out[[*indexes]] = layer.read(row_off, height)
        return out

    def scl(self) -> tuple[NDArray[np.uint8], int] | None:
        """Return the whole scene classification ``(y, x)``, 0 is nodata, and its factor; None without one.

        Larger pixels are kept: each covers ``factor`` x ``factor`` pixels of the scene, fewer in a last, partial one.
        Smaller pixels are aggregated to the most frequent class, see ``mode_of_blocks``; the factor is 1.
        """
        if self.classes is None:
            return None
        own, up, down = self.classes.native()[0], self.classes.up, self.classes.down
        return (own, up) if down == 1 else (mode_of_blocks(repeat(own, up, window=self.classes.window), down), 1)


def open_scene(
    sources: Sources,
    *,
    loader: Loader = "stackstac",
    resolution: float | None = None,
    threads: int = 2,
    retry: RetryPolicy = DEFAULT_POLICY,
    window: Callable[[Grid], Window] = whole_of,
) -> Scene:
    """Open the files of an item and fit them to one grid: that of its finest band, or a coarser one.

    Bands that are upsampled are read here as a whole, the others on demand.

    Args:
        sources: What to read.
        loader: The library that reads; results are bit-identical.
        resolution: Pixel size in meters, a whole multiple of the finest band's; None takes that one.
        threads: Number of threads that read.
        retry: Retry settings for failing servers.
        window: Given the grid, says which part of it is the scene.

    Raises:
        BandNotFoundError: A file does not exist.
        UnsupportedItemError: Files differ from what the item states, or do not fit together.
        ReadError: A file is damaged, or its server fails.
        ConfigError: No such resolution is possible, or the loader is not installed.
    """
    quiet_loggers()
    load_library(loader)
    files = open_files(sources.assets, resolution=resolution, threads=threads, retry=retry)
    bands = files[: len(sources.bands)]
    finest = min(bands, key=lambda file: file.grid.gsd)
    factor = whole_factor(finest.grid, resolution, where=finest.source.where)
    every = finest.grid.coarsen(factor)
    part = window(every)
    frame = Frame(finest=finest, factor=factor, part=part, loader=loader, retry=retry, threads=threads)
    by_grid: dict[Grid, list[int]] = {}
    for index, band in enumerate(bands):
        by_grid.setdefault(band.grid, []).append(index)
    layers = {tuple(indexes): _layer([bands[index] for index in indexes], frame) for indexes in by_grid.values()}
    lazy = [(one.pixels.chunks[1][0], one.down) for one in layers.values() if not isinstance(one.pixels, np.ndarray)]
    chunks = math.lcm(*(rows // math.gcd(rows, down) for rows, down in lazy))
    grid, settled = every.cut(part), _settled(sources, bands)
    values = [(band.common_name, band.scale, band.offset.dn) for band in settled.bands]
    return Scene(
        sources=_noted(settled, grid),
        grid=grid,
        gsd=ground(grid)[0],
        bands=Bands(*zip(*values, strict=True)),
        strip=max(1, min(chunks if frame.is_whole else part.height, TALLEST // factor)),
        layers=layers,
        classes=None if sources.scl is None else _layer(files[-1:], frame),
    )


def _layer(files: Sequence[BandFile], frame: Frame) -> Layer:
    """Return the layer of one grid: upsampled to the coarsest grid that nests in it and the scene's, then averaged."""
    file, source, finest = files[0], files[0].source, frame.finest
    if file.grid.gsd < finest.grid.gsd:  # a scene classification
        up, down, between = 1, _ratio(file, finest) * frame.factor, file.grid
    else:
        ratio = _ratio(finest, file)
        common = math.gcd(ratio, frame.factor)
        up, down, between = ratio // common, frame.factor // common, finest.grid.coarsen(common)
    about = CHUNK_ROWS if frame.is_whole else PART
    blocks = [max(file.block[axis] for file in files) for axis in (0, 1)]
    rows, cols = (block * max(1, about // block) for block in blocks)
    with reading(source.href, where=source.where, retry=frame.retry):
        pixels = lazy_array(files, loader=frame.loader, rows=rows, cols=-1 if frame.is_whole else cols)
    is_upsampled = up > 1 and source.common_name != SCL
    wanted = _scaled(frame.part, down).overlap(whole_of(between))
    read = _covering(wanted, up, border=int(is_upsampled)).overlap(whole_of(file.grid))
    place = wanted.within(_scaled(read, up))
    pixels = pixels[:, *read.slices]
    layer = Layer(files=files, pixels=pixels, up=up, window=place, down=down, frame=frame)
    return replace(layer, pixels=layer.native()) if is_upsampled else layer


def _scaled(window: Window, factor: int) -> Window:
    """Return the window in pixels that are smaller by ``factor``."""
    return Window(*(factor * pixels for pixels in astuple(window)))


def _covering(window: Window, factor: int, *, border: int) -> Window:
    """Return the pixels, larger by ``factor``, that touch a window, and ``border`` pixels around them."""
    top, left = (start // factor - border for start in (window.row_off, window.col_off))
    bottom, right = (-(-stop // factor) + border for stop in (window.rows.stop, window.cols.stop))
    return Window(top, left, bottom - top, right - left)


def _ratio(fine: BandFile, coarse: BandFile) -> int:
    ratio = round(coarse.grid.gsd / fine.grid.gsd)
    if not _is_same_place(fine.grid.coarsen(ratio), coarse.grid):
        raise UnsupportedItemError(
            f"{coarse.source.where} does not fit {fine.source.where}: {_as_text(coarse.grid)} against "
            f"{_as_text(fine.grid)}; both must share CRS and corner, one pixel size a whole multiple of the other"
        )
    return ratio


def _settled(sources: Sources, files: Sequence[BandFile]) -> Sources:
    """Return the sources with doubtful offsets checked against the pixels; warn whether or not these are conclusive."""
    dark = max((file.dark for file in files if file.dark is not None), default=None)
    bands = tuple(replace(file.source, offset=settle(file.source.offset, dark)) for file in files)
    doubtful = [band.offset for band, file in zip(bands, files, strict=True) if file.source.offset.doubtful]
    doubts = {f"{offset.dn} DN ({offset.reason})" for offset in doubtful}
    if doubts:
        taken = "; ".join(sorted(doubts))
        text = f"item {sources.item_id!r}: BOA offset is doubtful, took {taken}; boa_offset='0' or '-1000' settles it"
        warnings.warn(text, StacCloudmaskWarning, stacklevel=3)
    return replace(sources, bands=bands)


def _noted(sources: Sources, grid: Grid) -> Sources:
    """Return the sources with the sun's azimuth relative to the grid, and notes on findings in the files."""
    notes, sun, (gsd, north) = [], sources.sun, ground(grid)
    if sun is not None and sun[1] <= 0:
        notes.append(f"the item states a sun at {sun[1]:g} degrees, which is not above the horizon")
    if (gsd, north) != (grid.gsd, 0.0):
        notes.append(
            f"a pixel of {grid.code} is {gsd:.4g} m on the ground, not {grid.gsd:g}, and its north is turned by "
            f"{north:.1f} degrees; sizes and the sun's direction were corrected"
        )
        sun = None if sun is None else ((sun[0] - north) % 360, sun[1])
    return replace(sources, sun=sun, notes=tuple(notes))


def whole_factor(grid: Grid, resolution: float | None, *, where: str) -> int:
    """Return the number of pixels of the finest band along the side of a pixel of ``resolution`` meters.

    Raises:
        ConfigError: The number is not whole.
    """
    factor = 1.0 if resolution is None else resolution / grid.gsd
    if factor < 1 or not math.isclose(factor, round(factor), rel_tol=1e-9):
        raise ConfigError(
            f"resolution {resolution:g} is not a whole multiple of {grid.gsd:g}, the pixel size of {where}"
        )
    return round(factor)
