"""Search parameters, and matching of items against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING

import shapely

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.geometry import Area, bbox_area, footprint, read_area
from stac_cloudmask.stac.metadata import MGRS, number, period, tile_of, times_of

if TYPE_CHECKING:
    import pystac

Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, kw_only=True)
class Query:
    """A search of a STAC API or of a static catalog.

    Attributes:
        collection: Ids of the collections to search, or a single id; empty for all.
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        intersects: An area as well-known text, GeoJSON, a vector file or a geometry; with ``bbox``, both must match.
        datetime: A time or ``A/B``; ends may be open (``../B``) and times short (``2023-08`` is all of August).
        max_cloud_cover: Largest ``eo:cloud_cover`` in percent; an item that does not state it does not match.
        tile: MGRS tile, as in ``33TWL``.
        ids: Ids that match; none for any.
        max_items: Maximum number of items.
    """

    collection: str | Sequence[str] | None = None
    bbox: Sequence[float] | None = None
    intersects: Area | None = None
    datetime: str | None = None
    max_cloud_cover: float | None = None
    tile: str | None = None
    ids: Sequence[str] = ()
    max_items: int | None = None

    def __post_init__(self) -> None:
        """Reject parameters that cannot match anything."""
        if self.bbox is not None:
            _check_bbox(self.bbox)
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:  # noqa: PLR2004
            raise ConfigError(f"max_cloud_cover is a percentage of 0 to 100, got {self.max_cloud_cover}")
        if self.max_items is not None and self.max_items < 1:
            raise ConfigError(f"max_items must be at least 1, got {self.max_items}")
        if self.tile is not None and MGRS.fullmatch(self.tile.upper().removeprefix("T")) is None:
            raise ConfigError(f"tile is an MGRS tile such as 33TWL, got {self.tile!r}")
        _ = self.interval, self.area

    @cached_property
    def collections(self) -> tuple[str, ...]:
        """Ids of the collections; none for all."""
        return (self.collection,) if isinstance(self.collection, str) else tuple(self.collection or ())

    @cached_property
    def interval(self) -> Interval:
        """First and last time, both included; None is open."""
        return (None, None) if self.datetime is None else _interval(self.datetime)

    @cached_property
    def area(self) -> shapely.Geometry | None:
        """Area that items must intersect; None for anywhere."""
        box = None if self.bbox is None else bbox_area(self.bbox)
        if self.intersects is None:
            return box
        area = read_area(self.intersects)
        return area if box is None else shapely.intersection(area, box)

    @property
    def mgrs(self) -> str | None:
        """The tile with two digits for its zone."""
        return None if self.tile is None else self.tile.upper().removeprefix("T").removeprefix("MGRS-").zfill(5)

    def hint(self) -> str:
        """Return a hint on what to check if nothing was found."""
        parts = []
        if self.bbox is not None:
            west, south, east, north = self.bbox
            parts.append(
                f"bbox is west south east north, here longitude {west:g} to {east:g}, latitude {south:g} to {north:g}"
            )
        stated = {
            "collection": self.collections, "datetime": self.datetime, "tile": self.mgrs, "ids": self.ids,
            "intersects": self.area.bounds if self.area is not None and self.bbox is None else None,
        }  # fmt: skip
        parts += [f"{name} is {_text(value)}" for name, value in stated.items() if value]
        if self.max_cloud_cover is not None:
            parts.append("items that state no cloud cover do not match max_cloud_cover")
        return "; ".join(parts) or "the catalog lists none"

    def matches(self, item: pystac.Item) -> bool:
        """Return whether an item matches."""
        return (
            (not self.ids or item.id in self.ids)
            and self._matches_cover(item)
            and (self.datetime is None or _overlaps(self.interval, item))
            and (self.mgrs is None or tile_of(item) == self.mgrs)
            and (self.area is None or _touches(self.area, item))
        )

    def _matches_cover(self, item: pystac.Item) -> bool:
        cover = number(item.properties.get("eo:cloud_cover"))
        return self.max_cloud_cover is None or (cover is not None and cover <= self.max_cloud_cover)


def _text(value: object) -> str:
    return value if isinstance(value, str) else " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _check_bbox(bbox: Sequence[float]) -> None:
    stated = " ".join(f"{value:g}" for value in bbox)
    if len(bbox) != 4:  # noqa: PLR2004
        raise ConfigError(f"bbox has 4 numbers, west south east north, got {stated}")
    west, south, east, north = bbox
    fits = all(map(isfinite, bbox)) and -180 <= west <= 180 and -180 <= east <= 180  # noqa: PLR2004
    if not (fits and -90 <= south <= north <= 90):  # noqa: PLR2004
        raise ConfigError(f"bbox is west south east north in degrees, longitude before latitude, got {stated}")


def _interval(stated: str) -> Interval:
    first, slash, last = stated.partition("/")
    ends = (first, last if slash else first)
    try:
        start, end = (None if one in {"", ".."} else period(one)[index] for index, one in enumerate(ends))
        if (start or end) and not (start and end and start > end):
            return start, end
    except (ValueError, OverflowError):
        pass
    raise ConfigError(
        f"datetime is a time, or A/B with open ends as '..', such as 2023-08 or 2023-08-01/.., got {stated!r}"
    )


def _overlaps(asked: Interval, item: pystac.Item) -> bool:
    try:
        start, end = times_of(item.properties)
    except ValueError:
        return False
    return (asked[1] is None or start <= asked[1]) and (asked[0] is None or end >= asked[0])


def _touches(area: shapely.Geometry, item: pystac.Item) -> bool:
    lies = footprint(item.geometry, item.bbox)
    return lies is not None and bool(lies.intersects(area))
