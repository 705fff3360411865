"""Items and rasters spoilt at random."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, float("nan"), float("inf"), 10**30, -0.1),
    *("", "x", "\x00", "\ud800", "9" * 500, "S2MSI1C", "05.99", "EPSG:999999", "99999-01-01", "2020-01-01T00:00:00Z"),
    *("../../etc/passwd", "/vsicurl/x", "file:///etc/passwd", "http://127.0.0.1/x", "http://[::1", "//[", "s3://"),
    *(10**400, json.loads("[" * 400 + "]" * 400), "a-" * 20000),
    *([], {}, [None], [[]], [{}], ["a", 3, {"name": 5}], {"href": 5}, {"a": {"b": [1]}}),
    *([10, 0, 0, 0, -10, 0], [1e9, 1e9], [10, 0, 1e300, 0, -10, 0], {"name": None, "center_wavelength": "x"}),
)


def spoilt_item(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy with one to four values replaced by junk, or gone."""
    spoilt = copy.deepcopy(body)
    spoil(spoilt, chance)
    return spoilt


def spoil(body: dict[str, Any], chance: random.Random) -> None:
    """Replace one to four values of a JSON document by junk, or drop them."""
    for _ in range(chance.randint(1, 4)):
        place, last = somewhere(body, chance)
        if place is None:
            return
        if chance.random() < 0.2:
            del place[last]
        else:
            place[last] = copy.deepcopy(chance.choice(JUNK))


def somewhere(body: Any, chance: random.Random) -> tuple[Any, Any]:
    """A list or dict in a JSON document, and a key or index in it; None twice if it is empty."""
    place, last = None, None
    for _ in range(chance.choice([1, 2, 3, 4, 9])):
        keys = list(body) if isinstance(body, dict) else range(len(body)) if isinstance(body, list) else ()
        if not keys:
            break
        place, last = body, chance.choice(keys)
        body = body[last]
    return place, last


def spoilt_bytes(content: bytes, chance: random.Random, *, header: int = 600) -> bytes:
    """A file with bytes changed, mostly in its header, cut short, or partly replaced by noise of another length."""
    spoilt = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        if len(spoilt) < 4:
            break
        kind, within = chance.random(), min(len(spoilt), header) if chance.random() < 0.8 else len(spoilt)
        if kind < 0.6:
            spoilt[chance.randrange(within)] = chance.choice([0, 1, 127, 255, chance.randrange(256)])
        elif kind < 0.8:
            del spoilt[chance.randrange(len(spoilt)) :]
        else:
            start = chance.randrange(len(spoilt))
            spoilt[start : start + chance.randrange(40)] = chance.randbytes(chance.randrange(40))
    return bytes(spoilt)
