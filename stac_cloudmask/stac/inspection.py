"""A look into each file before it is read: is it what the item says, and what we can read?"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from rasterio.enums import MaskFlags

from stac_cloudmask.errors import BandNotFoundError, UnsupportedItemError
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.images import is_file, open_image
from stac_cloudmask.stac.metadata import MAX_PIXELS, make_grid
from stac_cloudmask.stac.offset import DARK
from stac_cloudmask.stac.overviews import find_overview, open_overview, stored_bytes
from stac_cloudmask.stac.providers import SCL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rasterio.io import DatasetReader

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource
    from stac_cloudmask.stac.overviews import Overview

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
