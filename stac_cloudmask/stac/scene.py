"""The pixels of an item: bands of any pixel size on one grid, read in strips of rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from stac_cloudmask.core.reflectance import mean_by_twos, repeat, up_bilinear
from stac_cloudmask.core.windows import Window
from stac_cloudmask.stac.classes import mode_of_blocks
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.loaders import Raster, native, store
from stac_cloudmask.stac.sign import sign
from stac_cloudmask.stac.transport import Patience, gdal_env, persist

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource, Sources
    from stac_cloudmask.stac.overviews import Overview

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
