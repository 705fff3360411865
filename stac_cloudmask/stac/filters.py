"""Which items a search finds, for catalogs that cannot search themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import shapely
from shapely.errors import ShapelyError
from shapely.geometry import box, shape

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    import pystac

Bbox = tuple[float, float, float, float]
Interval = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a search asks of an item, as a STAC API understands it.

    Attributes:
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        interval: First and last time, both included; None is open.
        max_cloud_cover: Largest ``eo:cloud_cover`` in percent; an item that does not state it does not match.
        ids: Ids that match; None for any.
    """

    bbox: Bbox | None = None
    interval: Interval = (None, None)
    max_cloud_cover: float | None = None
    ids: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot match anything."""
        if self.bbox is not None:
            _check_bbox(self.bbox)
        if self.max_cloud_cover is not None and not 0 <= self.max_cloud_cover <= 100:  # noqa: PLR2004
            raise ConfigError(f"max_cloud_cover is a percentage of 0 to 100, got {self.max_cloud_cover}")

    def matches(self, item: pystac.Item) -> bool:
        """Whether an item is asked for."""
        return (
            (self.ids is None or item.id in self.ids)
            and self._matches_cover(item)
            and _overlaps(self.interval, _times(item))
            and (self.bbox is None or _touches(self.bbox, item))
        )

    def _matches_cover(self, item: pystac.Item) -> bool:
        cover = number(item.properties.get("eo:cloud_cover"))
        return self.max_cloud_cover is None or (cover is not None and cover <= self.max_cloud_cover)


def parse_interval(stated: str | None) -> Interval:
    """Times of ``A/B`` with open ends as ``..``, both RFC 3339 in full, or of one time."""
    if stated is None:
        return None, None
    first, _, last = stated.partition("/")
    return _time(first), _time(last or first)


def _time(stated: str) -> datetime | None:
    if stated in {"", ".."}:
        return None
    found = datetime.fromisoformat(stated)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _check_bbox(bbox: Bbox) -> None:
    west, south, east, north = bbox
    fits = all(map(math.isfinite, bbox)) and -180 <= west <= 180 and -180 <= east <= 180  # noqa: PLR2004
    if not (fits and -90 <= south <= north <= 90):  # noqa: PLR2004
        raise ConfigError(f"bbox is west south east north in degrees, got {' '.join(f'{value:g}' for value in bbox)}")


def _times(item: pystac.Item) -> Interval:
    if item.datetime is not None:
        return item.datetime, item.datetime
    common = item.common_metadata
    return common.start_datetime, common.end_datetime


def _overlaps(asked: Interval, given: Interval) -> bool:
    starts_in_time = asked[1] is None or given[0] is None or _aware(given[0]) <= asked[1]
    ends_in_time = asked[0] is None or given[1] is None or _aware(given[1]) >= asked[0]
    return starts_in_time and ends_in_time


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _touches(bbox: Bbox, item: pystac.Item) -> bool:
    west, south, east, north = bbox
    halves = (
        [box(west, south, east, north)]
        if west <= east
        else [box(west, south, 180, north), box(-180, south, east, north)]
    )
    footprint = _footprint(item)
    return footprint is not None and any(footprint.intersects(half) for half in halves)


def _footprint(item: pystac.Item) -> shapely.Geometry | None:
    """The geometry, or the bbox of an item whose geometry is missing or broken."""
    try:
        if item.geometry is not None:
            return shape(item.geometry)
        if item.bbox is None:
            return None
        values = [float(value) for value in item.bbox]
        west, south, east, north = values if len(values) == 4 else (values[0], values[1], values[3], values[4])  # noqa: PLR2004
        if west <= east:
            return box(west, south, east, north)
        return shapely.union(box(west, south, 180, north), box(-180, south, east, north))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError, ShapelyError):
        return None
