"""Items for tests: the genuine ones of providers, and one made up that tests bend as they need."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pystac

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def features(path: Path) -> Iterator[dict[str, Any]]:
    """The item dicts of a file: an item, or a payload with several."""
    content = json.loads(path.read_text())
    yield from [content] if content.get("type") == "Feature" else content.get("features", [])


def as_read(feature: dict[str, Any], path: Path) -> pystac.Item:
    """An item with its own self href, or the path of its file if it has none."""
    item = pystac.Item.from_dict(copy.deepcopy(feature), migrate=False)
    if item.get_self_href() is None:
        item.set_self_href(str(path))
    return item


def genuine(shared: Path, start: str) -> pystac.Item:
    """The genuine item whose file name starts like this."""
    path = next(iter(sorted((shared / "data" / "items").glob(f"{start}*.json"))))
    return as_read(next(features(path)), path)


def made_up(**properties: object) -> pystac.Item:
    """An L2A item of no known provider with bands ``B02`` (10 m), ``B8A`` (20 m) and ``SCL``, read from a server."""
    item = pystac.Item("S2_made_up", None, None, datetime(2024, 1, 1, tzinfo=UTC), {"proj:code": "EPSG:32633"})
    item.properties.update(properties)
    item.set_self_href("https://stac.example.com/collections/c/items/S2_made_up")
    for key, gsd in (("B02", 10), ("B8A", 20), ("SCL", 20)):
        fields = {"proj:transform": [gsd, 0, 300000, 0, -gsd, 5000040], "proj:shape": [10980 * 10 // gsd] * 2}
        item.add_asset(key, pystac.Asset(f"./{key}.tif", extra_fields=fields))
    return item
