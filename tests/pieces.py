"""Pieces of real scenes, for tests whose proof does not need all pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pystac
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

if TYPE_CHECKING:
    from rasterio.windows import Window


def cut(item: pystac.Item, window: Window, folder: Path) -> None:
    """Give an item rasters that have a window's pixels only, and their place."""
    for name, asset in item.assets.items():
        path = folder / f"{name}.tif"
        with rasterio.open(asset.href) as source:
            place = {"width": window.width, "height": window.height, "transform": source.window_transform(window)}
            item.bbox = [*transform_bounds(source.crs, "EPSG:4326", *source.window_bounds(window))]
            with rasterio.open(path, "w", **source.profile | place) as target:
                target.write(source.read(window=window))
        asset.href = str(path)
        for fields in (asset.extra_fields, item.properties):
            fields |= {"proj:shape": [window.height, window.width], "proj:transform": [*place["transform"]]}
    item.geometry = mapping(box(*item.bbox))
