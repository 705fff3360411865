"""Areas: which pixels of an item are read, computed and kept."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely
from shapely.geometry import mapping

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import Scl
from stac_cloudmask.errors import ConfigError, OutsideAreaError
from stac_cloudmask.pipeline.inference import step_of
from stac_cloudmask.stac.geometry import Area, Bbox, bbox_area, bbox_of, check_degrees, footprint, pixels_of, read_area

if TYPE_CHECKING:
    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.core.policy import Decision
    from stac_cloudmask.core.votes import Evidence, Sun

DIGITS: Final = 7
"""Decimal places of the degrees of an area: a centimeter."""
STRIDE: Final = 96
"""Pixels to whose multiples windows are snapped: of the strides of the models (32), and of the pixels of coarser bands
and the cells of the merge (6 of 10 m in 60 m)."""
CONTEXT: Final = 192
"""Pixels around an area that the models look at: from there on, cutting them off moves no probability by 3 percent."""
MARGIN: Final = 2_000.0
"""Meters around an area that the merge looks at: twice the deviation of what it takes for lit ground nearby."""
HIGHEST: Final = 8_000.0
"""Meters above ground of the highest clouds whose shadows are looked for from outside of an area."""


def area_of(*, bbox: Bbox | None = None, geometry: Area | None = None) -> str | None:
    """Return an area as ``Settings.area`` has it, well-known text in longitude and latitude; None without one.

    Args:
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        geometry: Anything that `read_area` takes.

    Raises:
        ConfigError: Both are given, or one is not an area on Earth.
    """
    if bbox is not None and geometry is not None:
        raise ConfigError("give either bbox or geometry, not both")
    if bbox is not None:
        if len(bbox) != 4 or bbox[1] > bbox[3]:  # noqa: PLR2004
            raise ConfigError(f"bbox is (west, south, east, north) in degrees, got {tuple(bbox)}")
        area = bbox_area(bbox)
        check_degrees(area, "bbox")
    elif geometry is not None:
        area = read_area(geometry)
    else:
        return None
    text: str = shapely.to_wkt(shapely.normalize(area), rounding_precision=DIGITS, trim=True)
    return text


def part_of(item: pystac.Item, area: str) -> shapely.Geometry:
    """Return the part of an area that lies in an item's footprint.

    Raises:
        OutsideAreaError: They do not touch.
    """
    wanted = read_area(area)
    lies = footprint(item.geometry, item.bbox)
    part = wanted if lies is None else shapely.intersection(wanted, shapely.make_valid(lies))
    if part.is_empty:
        raise OutsideAreaError(
            f"item {item.id!r} does not touch the area: the area has bbox {_rounded(wanted)}, the item {_rounded(lies)}"
        )
    return part


def clipped_item(item: pystac.Item, area: str) -> pystac.Item:
    """Return the part of a source item that an area covers, as the item of a mask is made from it.

    Its id ends with a hash of the area; geometry and bbox are those of the area within the item's footprint.

    Raises:
        OutsideAreaError: The area does not touch the item's footprint.
    """
    part = part_of(item, area)
    clipped = item.clone()
    clipped.id = f"{item.id}_{hashlib.sha256(area.encode()).hexdigest()[:8]}"
    clipped.geometry, clipped.bbox = mapping(part), bbox_of(part)
    return clipped


def _rounded(area: shapely.Geometry | None) -> list[float] | None:
    return None if area is None else [round(value, 4) for value in bbox_of(area)]


@dataclass(frozen=True)
class Clip:
    """Where an area lies on the grid of a mask.

    Attributes:
        read: Window that is read and computed: the area with its surroundings.
        kept: Window of the pixels that the area touches.
        inside: ``(y, x)`` of ``kept``, True where the area touches a pixel; None where that is everywhere.
    """

    read: Window
    kept: Window
    inside: NDArray[np.bool_] | None

    def apply(self, evidence: Evidence, decision: Decision) -> tuple[Evidence, Decision]:
        """Return probabilities, class map and votes of the window that is kept, nodata outside of the area.

        What the merge alone needs, as the product's mask, is left out.
        """
        rows, cols = self.kept.within(self.read).slices

        def cut(array: NDArray[np.uint8], nodata: int) -> NDArray[np.uint8]:
            part = array[rows, cols]
            return part.copy() if self.inside is None else np.where(self.inside, part, np.uint8(nodata))

        cloud, shadow = cut(evidence.cloud, PERCENT_NODATA), cut(evidence.shadow, PERCENT_NODATA)
        class_map, votes = cut(decision.class_map, CloudClass.NODATA), cut(decision.votes, 0)
        kept = replace(evidence, cloud=cloud, shadow=shadow, product=None, nir=None, visible=None)
        scl = None if decision.scl is None else cut(decision.scl, Scl.NODATA)
        return kept, replace(decision, class_map=class_map, votes=votes, scl=scl)

    def quicklook(self, rgb: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
        """Return the picture of the window that is kept, sampled as one of its size is, from that of what is read."""
        if rgb is None:
            return None
        inner, step = self.kept.within(self.read), step_of((self.kept.height, self.kept.width))
        coarse = step_of((self.read.height, self.read.width))
        rows, cols = (np.arange(side.start, side.stop, step) // coarse for side in inner.slices)
        picture: NDArray[np.uint8] = rgb[rows[:, None], cols]
        return picture


def clip(grid: Grid, settings: Settings, *, item_id: str, sun: Sun | None) -> Clip | None:
    """Return where the area of some settings lies on the grid of a mask; None without an area.

    The window that is read begins at multiples of `STRIDE` of the item's own grid and is larger than the area by
    `CONTEXT` and `MARGIN`, so that models and merge answer as they do for the whole item; towards the sun it reaches
    as far as clouds can be whose shadows fall into the area, by the sun's elevation, up to ``Settings.max_halo``.

    Raises:
        OutsideAreaError: The area has no pixel on the grid.
    """
    if settings.area is None:
        return None
    found = pixels_of(shapely.from_wkt(settings.area), grid)
    if found is None:
        raise OutsideAreaError(f"item {item_id!r}: the area lies beside its pixels")
    kept, inside = found
    return Clip(_surroundings(kept, grid, settings.max_halo, sun), kept, inside)


def _surroundings(kept: Window, grid: Grid, limit: float, sun: Sun | None) -> Window:
    """Return a window with the margin and, towards the sun, the clouds that can shade it; everywhere if unknown."""
    margin = max(CONTEXT, min(MARGIN, limit) / grid.gsd)
    north = south = east = west = margin
    if sun is None or sun.elevation <= 0:
        north = south = east = west = max(margin, limit / grid.gsd)
    else:
        far = min(HIGHEST / math.tan(math.radians(sun.elevation)), limit) / grid.gsd
        up, right = far * math.cos(math.radians(sun.azimuth)), far * math.sin(math.radians(sun.azimuth))
        north, south, east, west = (margin + max(reach, 0.0) for reach in (up, -up, right, -right))
    top, bottom = _snapped(kept.rows.start - north, kept.rows.stop + south, grid.height)
    left, right_edge = _snapped(kept.cols.start - west, kept.cols.stop + east, grid.width)
    return Window(top, left, bottom - top, right_edge - left)


def _snapped(start: float, stop: float, length: int) -> tuple[int, int]:
    first = max(0, math.floor(start / STRIDE) * STRIDE)
    return first, min(length, math.ceil(stop / STRIDE) * STRIDE)
