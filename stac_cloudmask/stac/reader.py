"""Open the bands of an item on one grid and read them by rows."""

from __future__ import annotations

import logging
import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.reflectance import mean_by_twos, mode_of_blocks, repeat, up_bilinear
from stac_cloudmask.errors import BandNotFoundError, ConfigError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.stac.boa_offset import DARK, settle
from stac_cloudmask.stac.gdal import (
    Patience,
    check_redirects,
    gdal_env,
    is_file,
    open_image,
    persist,
    quiet_loaders,
    require_answer,
)
from stac_cloudmask.stac.hrefs import is_remote, redact
from stac_cloudmask.stac.loaders import Raster, find_overview, native, open_overview, store, stored_bytes
from stac_cloudmask.stac.metadata import MAX_PIXELS, make_grid
from stac_cloudmask.stac.providers import SCL, sign

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rasterio.io import DatasetReader

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource, Sources
    from stac_cloudmask.stac.hrefs import HrefRule
    from stac_cloudmask.stac.loaders import Overview

SAMPLE: Final = 1024
"""Pixels along an axis of what is looked at for a doubtful offset."""

MISPLACED: Final = 0.01
"""Pixels by which metadata and file may differ."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a file turned out to be.

    Attributes:
        grid: Exactly as the file has it.
        overview: What is to be read instead of the file's own pixels, see ``overviews``; None for those.
        block: Rows and columns of the tiles or strips of what is to be read.
        stored: Bytes that it takes in the file; None where the format does not say.
        dark: Share of valid pixels below ``offset.DARK``, where the offset is doubtful and overviews make it cheap to
            know; else None.
    """

    grid: Grid
    overview: Overview | None
    block: tuple[int, int]
    stored: int | None
    dark: float | None

    @property
    def read_factor(self) -> int:
        """Pixels of the file along the side of one of what is to be read."""
        return 1 if self.overview is None else self.overview.factor

    @property
    def read_grid(self) -> Grid:
        """The grid of what is to be read."""
        return self.grid.coarsen(self.read_factor)


def inspect(source: BandSource, href: str, env: Mapping[str, str], *, resolution: float | None) -> FileFacts:
    """Open a file and hold it against its item.

    Args:
        source: What the item says.
        href: Signed.
        env: GDAL settings.
        resolution: Pixel size in metres that is wanted; None for that of the finest band.

    Raises:
        UnsupportedItemError: The file is not what the item says, or not what can be read; with both.
        BandNotFoundError: A local file is not there.
        RasterioError: GDAL's, for ``transport.explain``.
    """
    if not is_remote(href) and not is_file(href):
        raise BandNotFoundError(f"{source.where}: there is no file {href}; is the item up to date?")
    with open_image(href, env, where=source.where) as file:
        _check_pixels(source, file)
        grid = _grid(source, file)
        overview = None if source.common_name == SCL else _overview(file, href, grid, resolution)
        with nullcontext(file) if overview is None else open_overview(href, overview) as pixels:
            return FileFacts(
                grid=grid,
                overview=overview,
                block=pixels.block_shapes[0],
                stored=stored_bytes(pixels),
                dark=_dark(file) if source.offset.doubtful else None,
            )


def _overview(file: DatasetReader, href: str, grid: Grid, resolution: float | None) -> Overview | None:
    factor = 1.0 if resolution is None else resolution / grid.gsd
    return find_overview(file, href, round(factor)) if factor > 1 and math.isclose(factor, round(factor)) else None


def _dark(file: DatasetReader) -> float | None:
    if not file.overviews(1) and math.prod(file.shape) > SAMPLE**2:
        return None
    sample = file.read(1, out_shape=tuple(min(side, SAMPLE) for side in file.shape))
    valid = int(np.count_nonzero(sample))
    return int(np.count_nonzero((sample > 0) & (sample < DARK))) / valid if valid else None


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
    if epsg is None or not file.crs.is_projected or not math.isclose(file.crs.linear_units_factor[1], 1.0):
        raise UnsupportedItemError(
            f"{source.where} has CRS {str(file.crs)[:80]!r}; one by EPSG code in metres is needed"
        )
    grid = make_grid(epsg, list(file.transform), list(file.shape), where=source.where)
    if source.grid is not None and not same_place(source.grid, grid):
        raise UnsupportedItemError(
            f"{source.where} lies elsewhere than its item says: {shown(source.grid)} in the item, {shown(grid)} in "
            "the file; correct proj:code, proj:transform and proj:shape"
        )
    return grid


def same_place(said: Grid, found: Grid) -> bool:
    """Whether two grids are one, but for a small part of a pixel."""
    near = MISPLACED * found.gsd
    return (
        (said.epsg, said.shape) == (found.epsg, found.shape)
        and abs(said.left - found.left) <= near
        and abs(said.top - found.top) <= near
        and abs(said.gsd - found.gsd) * max(found.shape) <= near
    )


def shown(grid: Grid) -> str:
    """A grid in a message."""
    return f"{grid.code}, {grid.height} x {grid.width} pixels of {grid.gsd:g} from ({grid.left:.10g}, {grid.top:.10g})"


logger = logging.getLogger(__name__)

U16 = NDArray[np.uint16]

STRIP: Final = 512
"""Rows of a strip, about: whole rows of blocks are read."""
CHUNK: Final = 2**21
"""Pixels of a band that are read in one go, about."""


class Rows(Protocol):
    """Gives whole rows of some bands."""

    def read(self, start: int, stop: int) -> U16:
        """Rows ``start`` to ``stop`` as ``(band, y, x)``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads rows of the files of some sources, which share one grid and dtype; or of one overview that all have."""

    sources: tuple[BandSource, ...]
    grid: Grid
    block: tuple[int, int]
    overview: Overview | None
    loader: Loader
    threads: int
    patience: Patience

    @property
    def strip(self) -> int:
        """Rows that are best read at a time: whole rows of blocks."""
        return _whole_blocks(self.block[0], STRIP)

    @property
    def chunk(self) -> tuple[int, int]:
        """Rows and columns that are read in one go, which takes four times their memory for a while."""
        return self.strip, min(_whole_blocks(self.block[1], CHUNK // self.strip), self.grid.width)

    def whole(self) -> NDArray[Any]:
        """All rows."""
        return self.read(0, self.grid.height)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows as ``(band, y, x)``: all bands at once; if that fails one by one, to say which it is."""
        out = np.empty((len(self.sources), stop - start, self.grid.width), self.sources[0].dtype)
        if len(self.sources) > 1:
            try:
                self._store(self.sources, out, start, fresh=False)
            except (RasterioError, RuntimeError, OSError) as error:
                logger.info("%s: reading band by band after: %s", self.sources[0].item_id, redact(str(error)))
            else:
                return out
        for index, source in enumerate(self.sources):
            one = partial(self._store, (source,), out[index : index + 1], start)
            persist(one, source=source, patience=self.patience, first=min(len(self.sources), 2))
        return out

    def _store(self, sources: Sequence[BandSource], out: NDArray[Any], start: int, *, fresh: bool) -> None:
        rasters = [
            Raster(name=source.common_name, href=sign(source.href), grid=self.grid, dtype=source.dtype)
            for source in sources
        ]
        env = gdal_env((source.href for source in sources), patience=self.patience, fresh=fresh)
        lazy = native(rasters, loader=self.loader, chunk=self.chunk, env=env, overview=self.overview)
        # several threads take one chunk of each file after the other: where two wait for the same bytes of a remote
        # file and the server fails, GDAL 3.10 can wait for ever
        height, width = self.chunk if self.threads > 1 else self.grid.shape
        stop = start + out.shape[1]
        for top in range(start // height * height, stop, height):
            rows = slice(max(top, start), min(top + height, stop))
            for left in range(0, self.grid.width, width):
                cols = slice(left, left + width)
                store(lazy[:, rows, cols], out[:, rows.start - start : rows.stop - start, cols], threads=self.threads)


def _whole_blocks(block: int, about: int) -> int:
    return block * max(1, about // block)


class Streamed:
    """Rows read when asked for, in whole strips; the last strip stays, as rows asked for next begin in it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: tuple[int, U16] | None = None

    def read(self, start: int, stop: int) -> U16:
        """Rows as ``(band, y, x)``; not to be written to."""
        strip, height = self._reader.strip, self._reader.grid.height
        if start % strip == 0 and (stop % strip == 0 or stop == height):
            return self._reader.read(start, stop)
        firsts = range(start // strip * strip, stop, strip)
        parts = [self._strip(first)[:, max(start - first, 0) : stop - first] for first in firsts]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _strip(self, first: int) -> U16:
        if self._kept is None or self._kept[0] != first:
            self._kept = None  # let go of the old strip before the new one is made
            stop = min(first + self._reader.strip, self._reader.grid.height)
            self._kept = (first, self._reader.read(first, stop))
        return self._kept[1]


@dataclass(frozen=True)
class Held:
    """Rows of rasters that are whole in memory, as they are in their files, and upsampled when asked for."""

    array: U16
    up: int
    width: int

    def read(self, start: int, stop: int) -> U16:
        """Rows of the upsampled raster as ``(band, y, x)``; not to be written to."""
        if self.up == 1:
            return self.array[:, start:stop]
        return up_bilinear(self.array, self.up, window=Window(start, 0, stop - start, self.width))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Bands that come from rasters of one grid.

    Attributes:
        indexes: Their places on the scene's band axis.
        rows: Their pixels, on a grid of which ``down`` x ``down`` pixels make one of the scene's.
        height: Rows of that grid.
        down: See ``rows``.
    """

    indexes: tuple[int, ...]
    rows: Rows
    height: int
    down: int

    def read(self, row_off: int, height: int) -> U16:
        """Rows of the scene as ``(band, y, x)``."""
        fine = self.rows.read(row_off * self.down, min((row_off + height) * self.down, self.height))
        return mean_by_twos(fine, self.down)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """The scene classification: repeated ``up`` times along each axis, cropped to ``between``, reduced by ``down``."""

    reader: Reader
    up: int
    down: int
    between: tuple[int, int]

    def read(self, grid: Grid) -> tuple[NDArray[np.uint8], int]:
        """``(y, x)``, and how many of the scene's pixels along an axis one of it spans."""
        own: NDArray[np.uint8] = self.reader.whole()[0]
        if self.down == 1:
            return own, self.up
        fine = own if self.up == 1 else repeat(own, self.up, window=Window(0, 0, *self.between))
        return mode_of_blocks(fine, self.down)[: grid.height, : grid.width], 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The pixels of an item on one grid.

    Attributes:
        sources: What it reads; doubtful offsets are as the pixels have settled them.
        grid: That of all that it gives.
        bands: Common names, in the order of the band axis.
        scales: Reflectance per digital number, by band.
        offsets: Digital numbers to add before scaling, by band.
        strip: Rows at a time, from a multiple of it on, in which reading is cheapest.
        layers: Where the bands come from.
        classes: Where the scene classification comes from; None without one.
    """

    sources: Sources
    grid: Grid
    bands: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[int, ...]
    strip: int
    layers: tuple[Layer, ...]
    classes: Classes | None

    def dn(self, row_off: int, height: int) -> U16:
        """Whole rows of digital numbers as ``(band, y, x)``; 0 is nodata. Not to be written to.

        Bands of larger pixels are upsampled bilinearly, those of smaller pixels averaged, both over valid pixels
        only and exactly: rows do not depend on the strips they are read in.
        """
        if len(self.layers) == 1:
            return self.layers[0].read(row_off, height)
        out = np.empty((len(self.bands), height, self.grid.width), np.uint16)
        for layer in self.layers:
            for index, band in zip(layer.indexes, layer.read(row_off, height), strict=True):
                out[index] = band
        return out

    def scl(self) -> tuple[NDArray[np.uint8], int] | None:
        """The whole scene classification ``(y, x)``, 0 is nodata, and its factor; None without one.

        Larger pixels stay as they are: each stands for ``factor`` x ``factor`` pixels of the scene, fewer in a last,
        partial one. Smaller ones make way for the class that most of them have, see ``classes``; the factor is 1.
        """
        return None if self.classes is None else self.classes.read(self.grid)


PATIENCE: Final = Patience()


@dataclass(frozen=True)
class Looked:
    """A source and what its file turned out to be."""

    source: BandSource
    facts: FileFacts

    @property
    def grid(self) -> Grid:
        """That of the file."""
        return self.facts.grid


@dataclass(frozen=True, kw_only=True)
class Access:
    """How files are read: by which library, by how many threads, with how much patience.

    Local files are read by one thread: there is no latency to hide, and each thread holds copies of what it reads.
    """

    loader: Loader
    threads: int
    patience: Patience

    def look(self, sources: Sequence[BandSource], *, rule: HrefRule, resolution: float | None) -> list[Looked]:
        """Follow the redirects of sources and look into their files, for what pixels of ``resolution`` metres take."""

        def look_at(source: BandSource) -> Looked:
            check_redirects(sign(source.href), base=source.base, rule=rule)

            def attempt(*, fresh: bool) -> FileFacts:
                if not fresh:  # persist does for the others
                    require_answer(source)
                env = gdal_env([source.href], patience=self.patience, fresh=fresh)
                return inspect(source, sign(source.href), env, resolution=resolution)

            return Looked(source, persist(attempt, source=source, patience=self.patience))

        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(look_at, sources))

    def reader(self, group: Sequence[Looked]) -> Reader:
        """Reads sources of one grid together."""
        return Reader(
            sources=tuple(looked.source for looked in group),
            grid=group[0].facts.read_grid,
            overview=group[0].facts.overview,
            block=max(looked.facts.block for looked in group),
            loader=self.loader,
            threads=self.threads if is_remote(group[0].source.href) else 1,
            patience=self.patience,
        )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How rasters come onto the scene's grid, whose pixels are ``factor`` x ``factor`` of the finest band's."""

    finest: Looked
    factor: int
    access: Access

    def layer(self, indexes: Sequence[int], group: Sequence[Looked], *, in_memory: bool) -> Layer:
        """The bands of one grid: upsampled to the coarsest grid that nests in theirs and the scene's, then averaged.

        Or averaged from an overview, which only bands have that need no upsampling.
        """
        ratio = self._ratio(self.finest, group[0])
        common = math.gcd(ratio, self.factor)
        begun = group[0].facts.read_factor
        between = self.finest.grid.coarsen(common * begun)
        reader = self.access.reader(group)
        held = in_memory or ratio > 1
        return Layer(
            indexes=tuple(indexes),
            rows=Held(reader.whole(), ratio // common, between.width) if held else Streamed(reader),
            height=between.height,
            down=self.factor // (common * begun),
        )

    def classes(self, scl: Looked) -> Classes:
        """The scene classification, whose pixels may be larger or smaller than the finest band's."""
        if scl.grid.gsd < self.finest.grid.gsd:
            down = self._ratio(scl, self.finest) * self.factor
            return Classes(reader=self.access.reader([scl]), up=1, down=down, between=scl.grid.shape)
        ratio = self._ratio(self.finest, scl)
        common = math.gcd(ratio, self.factor)
        between = self.finest.grid.coarsen(common).shape
        reader = self.access.reader([scl])
        return Classes(reader=reader, up=ratio // common, down=self.factor // common, between=between)

    def _ratio(self, fine: Looked, coarse: Looked) -> int:
        ratio = round(coarse.grid.gsd / fine.grid.gsd)
        if not same_place(fine.grid.coarsen(ratio), coarse.grid):
            raise UnsupportedItemError(
                f"{coarse.source.where} does not fit {fine.source.where}: {shown(coarse.grid)} against "
                f"{shown(fine.grid)}; both must share CRS and corner, one pixel size a whole multiple of the other"
            )
        return ratio


def open_scene(
    sources: Sources,
    *,
    loader: Loader = "stackstac",
    resolution: float | None = None,
    in_memory: bool = False,
    threads: int = 2,
    patience: Patience = PATIENCE,
) -> Scene:
    """Open the files of an item and fit them onto one grid: that of its finest band, or a coarser one.

    Bands of the finest pixel size are read when they are asked for, the others here, whole.

    Args:
        sources: What to read.
        loader: The library that reads; both give the same bits.
        resolution: Pixel size in metres, a whole multiple of the finest band's; None takes that one.
        in_memory: Whether all bands are read here.
        threads: That read at once.
        patience: With servers that fail.

    Raises:
        BandNotFoundError: A file is not there.
        UnsupportedItemError: Files are not what the item says, or do not fit together.
        ReadError: A file is damaged, or its server fails.
        ConfigError: No such resolution is possible.
    """
    quiet_loaders()
    access = Access(loader=loader, threads=threads, patience=patience)
    every = [*sources.bands, *([] if sources.scl is None else [sources.scl])]
    looked = access.look(every, rule=sources.rule, resolution=resolution)
    bands = looked[: len(sources.bands)]
    finest = min(bands, key=lambda band: band.grid.gsd)
    fit = Fit(finest=finest, factor=whole_factor(finest.grid, resolution, where=finest.source.where), access=access)
    classes = None if sources.scl is None else fit.classes(looked[-1])
    settled = _settled(sources, bands)
    return Scene(
        sources=settled,
        grid=finest.grid.coarsen(fit.factor),
        bands=tuple(band.common_name for band in sources.bands),
        scales=tuple(band.scale for band in settled.bands),
        offsets=tuple(band.offset.dn for band in settled.bands),
        strip=max(1, access.reader([finest]).strip * finest.facts.read_factor // fit.factor),
        layers=_layers(bands, fit, in_memory=in_memory),
        classes=classes,
    )


def _settled(sources: Sources, looked: Sequence[Looked]) -> Sources:
    """The sources with doubtful offsets as the pixels have them; says so where that changes one."""
    dark = max((band.facts.dark for band in looked if band.facts.dark is not None), default=None)
    bands = tuple(replace(band, offset=settle(band.offset, dark)) for band in sources.bands)
    changed = {
        new.offset.reason for new, old in zip(bands, sources.bands, strict=True) if new.offset.dn != old.offset.dn
    }
    if changed:
        text = f"item {sources.item_id!r}: BOA offset is 0 DN ({'; '.join(sorted(changed))})"
        warnings.warn(text, StacCloudmaskWarning, stacklevel=3)
    return replace(sources, bands=bands)


def whole_factor(grid: Grid, resolution: float | None, *, where: str) -> int:
    """Pixels of the finest band along the side of one of ``resolution`` metres.

    Raises:
        ConfigError: They are no whole number.
    """
    factor = 1.0 if resolution is None else resolution / grid.gsd
    if factor < 1 or not math.isclose(factor, round(factor), rel_tol=1e-9):
        raise ConfigError(f"resolution {resolution:g} is no whole multiple of {grid.gsd:g}, the pixel size of {where}")
    return round(factor)


def _layers(bands: Sequence[Looked], fit: Fit, *, in_memory: bool) -> tuple[Layer, ...]:
    by_grid: dict[tuple[Grid, Overview | None], list[int]] = {}
    for index, band in enumerate(bands):
        by_grid.setdefault((band.grid, band.facts.overview), []).append(index)
    return tuple(
        fit.layer(indexes, [bands[index] for index in indexes], in_memory=in_memory) for indexes in by_grid.values()
    )
