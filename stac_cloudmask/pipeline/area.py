"""Areas: the pixels of an item to read, compute and keep."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import shapely
from shapely.geometry import mapping

from stac_cloudmask.core.classes import CloudClass, Scl
from stac_cloudmask.core.grid import Chip, Grid, Window
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.errors import ConfigError, OutsideAreaError
from stac_cloudmask.pipeline.inference import Pass, step_of
from stac_cloudmask.stac.geometry import Area, Bbox, bbox_area, bbox_of, check_degrees, footprint, pixels_of, read_area

if TYPE_CHECKING:
    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.votes import Sun
    from stac_cloudmask.pipeline.mask import Mask

DIGITS: Final = 7
"""Decimal places of the degrees of an area, for a precision of a centimeter."""
STRIDE: Final = 96
"""The windows that are read are snapped to multiples of this number of pixels: a multiple of the models' strides (32),
and of the pixels of coarser bands and the cells of the merge (6 of 10 m in 60 m)."""
CONTEXT: Final = 192
"""Pixels around an area that the models need: pixels further away change no probability by 3 percent."""
MERGE_MARGIN: Final = 2_000.0
"""Meters around an area that the merge needs: twice the standard deviation of its smoothing of lit ground."""
HIGHEST: Final = 8_000.0
"""Height in meters of the highest clouds outside an area whose shadows are searched; few clouds are higher. A whole
scene, where this costs nothing, is searched up to `core.calibrated.RULES.highest`."""


def area_of(*, bbox: Bbox | None = None, geometry: Area | None = None) -> str | None:
    """Return an area in the form of ``Settings.area``, well-known text in longitude and latitude; None without one.

    Args:
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        geometry: Any input of `read_area`.

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
    """Return the part of an area inside an item's footprint.

    Raises:
        OutsideAreaError: They do not intersect.
    """
    wanted = read_area(area)
    lies = footprint(item.geometry, item.bbox)
    if lies.is_empty:
        return wanted
    part = shapely.intersection(wanted, shapely.make_valid(lies))
    if part.is_empty:
        boxes = f"the area has bbox {_rounded(wanted)}, the item {_rounded(lies)}"
        within = shapely.box(*wanted.bounds).intersects(shapely.box(*lies.bounds))
        hint = ", but according to its footprint it has no data there" if within else ""
        raise OutsideAreaError(f"item {item.id!r} does not touch the area: {boxes}{hint}")
    return part


def clipped_item(item: pystac.Item, area: str) -> pystac.Item:
    """Return the source item clipped to an area, from which the item of the mask is made.

    Its id ends with a hash of the area; geometry and bbox are those of the area within the item's footprint.

    Raises:
        OutsideAreaError: The area does not touch the item's footprint.
    """
    part = part_of(item, area)
    clipped = item.clone()
    clipped.id = f"{item.id}_{hashlib.sha256(area.encode()).hexdigest()[:8]}"
    clipped.geometry, clipped.bbox = mapping(part), bbox_of(part)
    return clipped


def _rounded(area: shapely.Geometry) -> list[float]:
    return [round(value, 4) for value in bbox_of(area)]


@dataclass(frozen=True)
class Clip:
    """The pixels of an item to read, compute and keep.

    Attributes:
        read: Window that is read: the area with its surroundings, or the whole grid.
        kept: Window of the pixels that the area touches.
        inside: ``(y, x)`` of ``kept``, True where the area touches a pixel; None where that is everywhere.
        passes: The windows of the models, counted from the first pixel of ``read``.
    """

    read: Window
    kept: Window
    inside: NDArray[np.bool_] | None
    passes: list[Pass]

    def apply(self, mask: Mask) -> Mask:
        """Return the part of a mask that is kept, nodata outside the area.

        Inputs that only the merge needs, such as the product's mask, are left out.

        Raises:
            OutsideAreaError: The item has no data there.
        """
        inner = self.kept.within(self.read)

        def cut(array: NDArray[np.uint8], nodata: int) -> NDArray[np.uint8]:
            part = array[inner.slices]
            return part.copy() if self.inside is None else np.where(self.inside, part, np.uint8(nodata))

        evidence, decision, picture = mask.evidence, mask.decision, mask.quicklook
        cloud, shadow = cut(evidence.cloud, PERCENT_NODATA), cut(evidence.shadow, PERCENT_NODATA)
        if (cloud == PERCENT_NODATA).all():
            raise OutsideAreaError(f"item {mask.sources.item_id!r} has no data in the area")
        evidence = replace(evidence, cloud=cloud, shadow=shadow, product=None, nir=None, visible=None)
        decision = replace(
            decision,
            class_map=cut(decision.class_map, CloudClass.NODATA),
            votes=cut(decision.votes, 0),
            scl=None if decision.scl is None else cut(decision.scl, Scl.NODATA),
        )
        if picture is not None:  # sampled like a quicklook of this size
            step, coarse = step_of((inner.height, inner.width)), step_of((self.read.height, self.read.width))
            rows, cols = (np.arange(side.start, side.stop, step) // coarse for side in inner.slices)
            picture = picture[rows[:, None], cols]
        return replace(mask, grid=mask.grid.cut(inner), evidence=evidence, decision=decision, quicklook=picture)


def clip(grid: Grid, settings: Settings, passes: list[Pass], *, item_id: str, sun: Sun | None) -> Clip:
    """Return the pixels of an item to read and compute for the area of the settings; all of them without an area.

    Windows are placed as in the whole item: they overlap in the same places, and the models give the same results.
    Pixels beyond the surroundings of the area are cut off, unless a model has a fixed window.

    Args:
        grid: Grid of the whole item's mask.
        settings: Settings of the mask.
        passes: The windows of the whole item.
        item_id: Id of the item for messages.
        sun: Position of the sun; None if unknown.

    Raises:
        OutsideAreaError: The area has no pixel on the grid.
    """
    if settings.area is None:
        whole = Window(0, 0, *grid.shape)
        return Clip(whole, whole, None, passes)
    found = pixels_of(shapely.from_wkt(settings.area), grid)
    if found is None:
        raise OutsideAreaError(f"item {item_id!r}: the area is outside its pixels")
    kept, inside = found
    around = _joined([surroundings(kept, grid, settings.max_halo, sun)], grid)
    parts = [Pass(needed(one.plan, kept, around), one.parts) for one in passes]
    fixed = [chip.read for one in parts if one.is_fixed for row in one.plan for chip in row]
    read = _joined([around, *fixed], grid)
    return Clip(read, kept, inside, [one.within(read) for one in parts])


def surroundings(kept: Window, grid: Grid, limit: float, sun: Sun | None) -> Window:
    """Return a window extended by the surroundings that models and merge need.

    These are `CONTEXT` and `MERGE_MARGIN`, and towards the sun the distance of clouds whose shadows can fall into the
    window, by the sun's elevation, at most ``limit`` meters. If the sun's position is unknown, the limit applies on all
    sides.
    """
    sides = [limit] * 4
    if sun is not None and sun.elevation > 0:
        far = min(HIGHEST / math.tan(math.radians(sun.elevation)), limit)
        north, east = far * math.cos(math.radians(sun.azimuth)), far * math.sin(math.radians(sun.azimuth))
        sides = [min(MERGE_MARGIN, limit) + max(reach, 0.0) for reach in (north, -north, -east, east)]
    up, down, left, right = (max(CONTEXT, math.ceil(reach / grid.gsd)) for reach in sides)
    height, width = kept.height + up + down, kept.width + left + right
    return Window(kept.row_off - up, kept.col_off - left, height, width).overlap(Window(0, 0, *grid.shape))


def needed(plan: list[list[Chip]], kept: Window, around: Window) -> list[list[Chip]]:
    """Return the windows of a plan that touch the kept window, or are needed to cover its surroundings."""
    rows = _run([row[0].write.rows for row in plan], kept.rows, around.rows)
    cols = _run([chip.write.cols for chip in plan[0]], kept.cols, around.cols)
    return [row[cols] for row in plan[rows]]


def _run(spans: list[slice], kept: slice, around: slice) -> slice:
    """Return the indexes of these spans along an axis, which are contiguous."""
    first = max(i for i, span in enumerate(spans) if span.start <= around.start)
    last = min(i for i, span in enumerate(spans) if span.stop >= around.stop)
    touching = [i for i, span in enumerate(spans) if span.start < kept.stop and span.stop > kept.start]
    return slice(min(first, *touching), max(last, *touching) + 1)


def _joined(windows: list[Window], grid: Grid) -> Window:
    """Return the smallest window of the grid that contains all others and begins and ends at multiples of `STRIDE`."""
    top = min(window.rows.start for window in windows) // STRIDE * STRIDE
    left = min(window.cols.start for window in windows) // STRIDE * STRIDE
    bottom = math.ceil(max(window.rows.stop for window in windows) / STRIDE) * STRIDE
    right = math.ceil(max(window.cols.stop for window in windows) / STRIDE) * STRIDE
    return Window(top, left, bottom - top, right - left).overlap(Window(0, 0, *grid.shape))
