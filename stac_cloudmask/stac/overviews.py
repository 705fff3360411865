"""Overviews: smaller copies of a raster inside its file, read in its place where they hold the means of its pixels.

Not every overview does: GDAL takes the nearest pixel unless it is told otherwise, its COG driver a cubic filter, and
without a nodata value 0 is mixed into the edge of the swath. Few files say what they have, so some pixels are read both
ways, and an overview counts if they are equal to the bit: a mask is the same with overviews and without.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window

from stac_cloudmask.core.reflectance import mean_by_twos

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
