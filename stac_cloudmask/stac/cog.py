"""Class maps, percentages and votes as Cloud Optimized GeoTIFFs, and the thumbnail."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError  # what GDAL's CreateCopy raises; rasterio.errors does not have it
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from stac_cloudmask.core.classes import ClassInfo
    from stac_cloudmask.core.grid import Grid

BLOCK: Final = 512
"""Side of a tile inside the file, in pixels."""
GDAL_CACHE: Final = 32 * 2**20
"""Bytes; by default GDAL caches 5 % of the machine, far more than a pass over strips of tiles can use."""
PERCENT_NODATA: Final = 255
THUMBNAIL_SIDE: Final = 600
"""The longest side that the STAC best practices allow a thumbnail, in pixels."""
OVERLAY_OPACITY: Final = 0.5


def write_class_cog(
    path: Path, class_map: NDArray[np.uint8], grid: Grid, *, classes: Sequence[ClassInfo] = CLASSES, threads: int = 2
) -> None:
    """Write a class map with its colour table; overviews hold the class that most pixels below have.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes, 255 = nodata.
        grid: The grid of ``class_map``.
        classes: The class table that the colours come from.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    colors = {int(info.code): info.rgba for info in classes}
    _write(path, class_map, grid, nodata=CloudClass.NODATA, overview="mode", colors=colors, threads=threads)


def write_percent_cog(path: Path, percent: NDArray[np.uint8], grid: Grid, *, threads: int = 2) -> None:
    """Write whole percents, ``(y, x)`` uint8 with 255 = nodata; overviews hold the mean of the valid pixels.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    _write(path, percent, grid, nodata=PERCENT_NODATA, overview="average", threads=threads)


def write_bits_cog(path: Path, bits: NDArray[np.uint8], grid: Grid, *, threads: int = 2) -> None:
    """Write bit fields, ``(y, x)`` uint8 without a nodata value; overviews hold the most frequent combination.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    _write(path, bits, grid, nodata=None, overview="mode", threads=threads)


def write_thumbnail(
    path: Path,
    class_map: NDArray[np.uint8],
    *,
    quicklook: NDArray[np.uint8] | None = None,
    classes: Sequence[ClassInfo] = CLASSES,
    side: int = THUMBNAIL_SIDE,
) -> None:
    """Write a small PNG of a class map: its colours, or its cloud and shadow over a picture of the scene.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes.
        quicklook: ``(y, x, 3)`` uint8 red, green, blue of the same extent, at any size.
        classes: The class table that the colours come from.
        side: The longest side of the picture, in pixels.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    # Four samples a side and output pixel smooth the edges; more cost time and show nothing.
    step = max(1, max(class_map.shape) // (4 * side))
    sampled = class_map[::step, ::step]
    picture = Image.fromarray(_palette(classes, overlay=quicklook is not None)[sampled])
    picture.thumbnail((side, side), Image.Resampling.BOX)
    if quicklook is not None:
        picture = _over(quicklook, picture, sampled != CloudClass.NODATA)
    with _whole_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def _over(quicklook: NDArray[np.uint8], picture: Image.Image, valid: NDArray[np.bool_]) -> Image.Image:
    """A picture over a quicklook, where valid; of 256 colors, as more take four times the room."""
    below = Image.fromarray(quicklook).resize(picture.size, Image.Resampling.BOX).convert("RGBA")
    both = Image.alpha_composite(below, picture)
    seen = Image.fromarray(valid.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    both.putalpha(Image.fromarray(np.where(np.asarray(seen) > 127, np.uint8(255), np.uint8(0))))  # noqa: PLR2004  (half)
    return both.quantize(256, Image.Quantize.FASTOCTREE)


def _palette(classes: Sequence[ClassInfo], *, overlay: bool) -> NDArray[np.uint8]:
    """Red, green, blue and alpha of every code, ``(256, 4)``: in an overlay what is clear is not painted."""
    table = np.zeros((256, 4), np.uint8)
    for info in classes:
        if overlay and info.painted:
            table[info.code] = (*info.rgb, round(255 * OVERLAY_OPACITY))
        elif not overlay and info.code != CloudClass.NODATA:
            table[info.code] = (*info.rgb, 255)
    return table


def _write(
    path: Path,
    array: NDArray[np.uint8],
    grid: Grid,
    *,
    nodata: int | None,
    overview: Literal["mode", "average"],
    threads: int,
    colors: Mapping[int, tuple[int, int, int, int]] | None = None,
) -> None:
    """Write tiles to a plain GeoTIFF next to ``path``, then let GDAL's COG driver order them."""
    if array.shape != grid.shape:
        raise ValueError(f"an array of {array.shape} does not fill a grid of {grid.shape}")
    with _whole_file(path) as cog, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, GDAL_NUM_THREADS=threads):
        flat = cog.with_suffix(".flat.tif")
        try:
            _write_flat(flat, array, grid, nodata=nodata, colors=colors, threads=threads)
            copy_raster(
                flat,
                cog,
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE",
                OVERVIEW_RESAMPLING=overview.upper(),
                NUM_THREADS=threads,
                BIGTIFF="IF_SAFER",
            )
        finally:
            _remove(flat)


def _write_flat(
    path: Path,
    array: NDArray[np.uint8],
    grid: Grid,
    *,
    nodata: int | None,
    colors: Mapping[int, tuple[int, int, int, int]] | None,
    threads: int,
) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        height=grid.height,
        width=grid.width,
        crs=grid.code,
        transform=rasterio.Affine(*grid.transform),
        nodata=nodata,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="lzw",
        num_threads=threads,
    ) as flat:
        for top in range(0, grid.height, BLOCK):
            rows = top, min(top + BLOCK, grid.height)
            flat.write(array[slice(*rows)], 1, window=(rows, (0, grid.width)))
        if colors:
            flat.write_colormap(1, dict(colors))


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RasterioError, CPLE_BaseError) as error:
        raise WriteError(f"{path}: cannot be written: {error}") from error
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    """Delete a file if that is possible; on a disk that may no longer be written, what went wrong first counts."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
