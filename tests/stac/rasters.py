"""Small rasters on disk and items that lead to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import rasterio
from rasterio.transform import from_origin

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LEFT, TOP, EPSG = 300000, 5000040, 32633


def write(
    path: Path, pixels: NDArray[Any], gsd: float, *, left: float = LEFT, epsg: int = EPSG, **profile: Any
) -> None:
    """A tiled GeoTIFF of one band, or of several if ``pixels`` has three axes."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    settings = {"driver": "GTiff", "nodata": 0, "tiled": True, "blockxsize": 64, "blockysize": 64} | profile
    settings |= {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", crs=f"EPSG:{epsg}", transform=from_origin(left, TOP, gsd, gsd), **settings) as file:
        file.write(bands)


def digital_numbers(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint16]:
    """Noise with a wedge and some specks of nodata."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(1, 12000, shape, np.uint16)
    rows, cols = np.indices(shape)
    dn[cols * shape[0] * 3 < rows * shape[1]] = 0
    dn[rng.random(shape) < 0.01] = 0
    return dn


def scl_codes(shape: tuple[int, int], seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 12, shape, np.uint8)


def item_of(folder: Path | str, assets: dict[str, str], name: str = "S2_test", **properties: object) -> pystac.Item:
    """An L2A item in ``folder``, a path or URL, with ``{key: file name}`` and no projection metadata."""
    given = {"s2:processing_baseline": "02.14"} | properties
    item = pystac.Item(name, None, None, datetime(2024, 1, 1, tzinfo=UTC), given)
    item.set_self_href(f"{folder}/{name}.json")
    for key, file in assets.items():
        item.add_asset(key, pystac.Asset(f"./{file}"))
    return item
