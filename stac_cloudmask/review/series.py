"""A time series of the clear share of an area."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from rasterio import Affine
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom
from shapely.geometry import mapping, shape

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.review.cubes import Masks, mask_items, time_of
from stac_cloudmask.review.layers import MASK, MaskLayers
from stac_cloudmask.review.show import add_legend, new_figure
from stac_cloudmask.stac.geometry import LON_LAT, Area, Bbox, bbox_area, read_area, touches
from stac_cloudmask.stac.metadata import mask_grid
from stac_cloudmask.stac.warp import Views

if TYPE_CHECKING:
    import pystac
    import shapely
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PASS: Final = np.timedelta64(30, "m")
"""Maximum time difference of items from one pass of a satellite."""
FULL: Final = 99.5
"""Percent of valid pixels that counts as complete."""
UPRIGHT: Final = 12
"""Maximum number of dates that fit horizontally below a chart; more are rotated."""


def clear_share(masks: Masks, *, bbox: Bbox | None = None, geometry: Area | None = None) -> pd.DataFrame:
    """Return the shares of clear, cloud and cloud shadow in an area on every date.

    Masks of one pass, such as neighboring tiles, are merged. The table counts whole pixels of the first mask's
    grid: for a geometry those whose middle lies in it, or, where there is none, those that it touches.

    Args:
        masks: Output items, their URLs or paths, what ``process`` returned, or the folder that it wrote.
        bbox: The area as west, south, east, north in degrees.
        geometry: The area as GeoJSON, well-known text, the path of a vector file, or a geometry of shapely.

    Returns:
        A row for each pass that touches the area, by ``time`` in UTC: ``clear``, ``cloud`` and ``cloud_shadow`` in
        percent of the area's valid pixels (NaN where none is valid), ``valid`` in percent of the area's pixels, and
        ``items``, the ids of the masks.

    Raises:
        ConfigError: There is no area, or no mask touches it.
        ReadError: A mask cannot be read.
    """
    if (bbox is None) == (geometry is None):
        raise ConfigError("give the area, by either bbox or geometry")
    area = bbox_area(bbox) if bbox is not None else read_area(geometry)
    items = [item for item in mask_items(masks) if touches(item, area)]
    if not items:
        raise ConfigError(f"no mask touches the area, whose bbox is {tuple(round(edge, 5) for edge in area.bounds)}")
    grid, inside = _pixels(area, mask_grid(items[0].to_dict(transform_hrefs=False), MASK))
    rows = [_row(members, grid, inside) for members in _passes(items)]
    return pd.DataFrame(rows).set_index("time")


def _pixels(area: shapely.Geometry, grid: Grid) -> tuple[Grid, NDArray[np.bool_]]:
    """Return the part of a grid, extended if necessary, that encloses an area; True for pixels inside."""
    placed = shape(transform_geom(LON_LAT, grid.code, mapping(area)))
    west, south, east, north = placed.bounds
    left, top = math.floor((west - grid.left) / grid.gsd), math.floor((grid.top - north) / grid.gsd)
    right, bottom = math.ceil((east - grid.left) / grid.gsd), math.ceil((grid.top - south) / grid.gsd)
    part = grid.cut(Window(top, left, max(1, bottom - top), max(1, right - left)))
    inside = np.zeros(part.shape, bool)
    for all_touched in (False, True):
        if not inside.any():
            inside = geometry_mask(
                [placed], part.shape, Affine(*part.transform), all_touched=all_touched, invert=True
            )  # fmt: skip
    return part, inside


def _passes(items: list[pystac.Item]) -> list[list[pystac.Item]]:
    """Yield items, which are sorted by time, in groups of one pass each."""
    groups: list[list[pystac.Item]] = []
    for item in items:
        if groups and time_of(item) - time_of(groups[-1][0]) <= PASS:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _row(items: list[pystac.Item], grid: Grid, inside: NDArray[np.bool_]) -> dict[str, object]:
    codes = np.full(grid.shape, CloudClass.NODATA, np.uint8)
    for item in items:
        layers = MaskLayers.of(item.to_dict(include_self_link=True, transform_hrefs=False), Views())
        np.copyto(codes, layers.classes(grid), where=codes == CloudClass.NODATA)
    here = codes[inside]
    counts = np.bincount(here, minlength=CloudClass.NODATA)[: CloudClass.NODATA]
    valid = int(counts.sum())
    found = {info.name: 100 * counts[info.code] / valid if valid else math.nan for info in CLASSES[:-1]}
    share, names = 100 * valid / here.size, ", ".join(item.id for item in items)
    return {"time": time_of(items[0]), **found, "valid": share, "items": names}


def plot_clear_share(table: pd.DataFrame, *, width: float = 12.0, height: float = 3.5) -> Figure:
    """Draw the table of ``clear_share``: a bar for each date, clear at the bottom and cloud on top.

    Args:
        table: The table.
        width: Width of the figure, in inches.
        height: Height of the figure, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(width, height)
    axes = figure.subplots()
    places, bottom = np.arange(len(table)), np.zeros(len(table))
    shown = [CLASSES[code] for code in (CloudClass.CLEAR, CloudClass.CLOUD_SHADOW, CloudClass.CLOUD)]
    for info in shown:
        part = np.nan_to_num(table[info.name].to_numpy())
        axes.bar(places, part, bottom=bottom, color=f"#{info.color_hint}", width=0.8)
        bottom += part
    notes = ["" if valid > FULL else f"\n{valid:.0f} % valid" for valid in table["valid"]]
    dates = [f"{time:%Y-%m-%d}{note}" for time, note in zip(table.index, notes, strict=True)]
    axes.set_xticks(places, dates, rotation=0 if len(table) <= UPRIGHT else 90)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the valid pixels")
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, {info.title: info.rgb for info in shown})
    return figure
