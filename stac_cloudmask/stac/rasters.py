"""Plain rasters on disk, without an item: read in whole rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.stac.images import open_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Raster:
    """An open raster.

    Attributes:
        path: Where it is.
        shape: ``(band, y, x)``.
        nodata: The value that marks a pixel without data, in every band; None if the file names none.
        crs: Coordinate reference system as WKT; None if the file has none.
        transform: Affine coefficients in rasterio's order.
        rows: ``(row_off, height)`` -> digital numbers ``(band, height, x)`` uint16.
    """

    path: Path
    shape: tuple[int, int, int]
    nodata: float | None
    crs: str | None
    transform: tuple[float, float, float, float, float, float]
    rows: Callable[[int, int], NDArray[np.uint16]]


@contextmanager
def open_raster(path: str | Path, *, in_memory: bool = False) -> Iterator[Raster]:
    """A GeoTIFF or JPEG 2000 of unsigned integers of at most 16 bits; read whole first where ``in_memory``.

    Raises:
        ReadError: It cannot be opened or read, as rasters of other formats cannot.
        UnsupportedItemError: It holds other numbers, or its metadata lead to another file.
    """
    try:
        with open_image(str(path), {}, where=str(path)) as source:
            if any(dtype not in ("uint8", "uint16") for dtype in source.dtypes):
                found = ", ".join(sorted(set(source.dtypes)))
                raise UnsupportedItemError(f"{path}: holds {found}; digital numbers (uint16 or uint8) are expected")
            yield Raster(
                path=Path(path),
                shape=(source.count, source.height, source.width),
                nodata=source.nodata,
                crs=source.crs.to_wkt() if source.crs else None,
                transform=tuple(source.transform)[:6],
                rows=_whole(source) if in_memory else _by_window(source),
            )
    except RasterioIOError as error:
        raise ReadError(f"{path}: cannot be read as a GeoTIFF or JPEG 2000: {error}") from error


def _by_window(source: Any) -> Callable[[int, int], NDArray[np.uint16]]:  # noqa: ANN401  (rasterio has no types)
    def rows(row_off: int, height: int) -> NDArray[np.uint16]:
        window = Window(0, row_off, source.width, height)
        return np.asarray(source.read(window=window, out_dtype="uint16"))

    return rows


def _whole(source: Any) -> Callable[[int, int], NDArray[np.uint16]]:  # noqa: ANN401
    scene = np.asarray(source.read(out_dtype="uint16"))
    return lambda row_off, height: scene[:, row_off : row_off + height]
