"""Items and rasters spoilt at random, for tests here and for longer runs."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

JUNK: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, float("nan"), float("inf"), 10**30, -0.1),
    *("", "x", "\x00", "\ud800", "9" * 500, "S2MSI1C", "05.99", "EPSG:999999", "99999-01-01", "2020-01-01T00:00:00Z"),
    *("../../etc/passwd", "/vsicurl/x", "file:///etc/passwd", "http://127.0.0.1/x", "http://[::1", "//[", "s3://"),
    *([], {}, [None], [[]], [{}], ["a", 3, {"name": 5}], {"href": 5}, {"a": {"b": [1]}}),
    *([10, 0, 0, 0, -10, 0], [1e9, 1e9], [10, 0, 1e300, 0, -10, 0], {"name": None, "center_wavelength": "x"}),
)


def spoilt_item(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """A copy with one to four values replaced by junk, or gone."""
    spoilt = copy.deepcopy(body)
    for _ in range(chance.randint(1, 4)):
        depth = chance.choice([2, 3, 9])
        *above, last = chance.choice([path for path in paths(spoilt) if 0 < len(path) <= depth])
        place: Any = spoilt
        for step in above:
            place = place[step]
        if chance.random() < 0.2:
            del place[last]
        else:
            place[last] = copy.deepcopy(chance.choice(JUNK))
    return spoilt


def paths(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a JSON document lies, its root included."""
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from paths(inner, (*path, step))


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
