"""Fields of foreign STAC JSON: kept where they are what their schema says, dropped where not."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.redaction import redact
from stac_cloudmask.stac.metadata import number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Rule = Callable[[Any], bool]


def kept(fields: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """The fields that have a rule and pass it; their texts without secrets."""
    return {name: _shown(fields[name]) for name, passes in rules.items() if name in fields and passes(fields[name])}


def _shown(value: object) -> object:
    """JSON with its texts redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        return [_shown(entry) for entry in value]
    return {key: _shown(entry) for key, entry in value.items()} if isinstance(value, dict) else value


def is_number(value: object) -> bool:
    """A finite number, not a bool."""
    return number(value) is not None


def _between(low: float, high: float) -> Rule:
    return lambda value: is_number(value) and low <= value <= high


def _text(pattern: str = r"(?s).+") -> Rule:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _integers(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) and n > 0 for n in value)  # noqa: PLR2004


def _numbers(*lengths: int) -> Rule:
    return lambda value: isinstance(value, list) and len(value) in lengths and all(is_number(n) for n in value)


def _texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) and text for text in value)


def _classes(value: object) -> bool:
    """Whether a list of classes is what the classification extension wants; fields that it lacks are not passed on."""
    return isinstance(value, list) and all(
        isinstance(entry, dict) and {"value", "name"} <= entry.keys() and kept(entry, _CLASS) == entry
        for entry in value
    )


_POSITIVE = _between(1e-9, 1e12)
_TYPES = "u?int(8|16|32|64)|float(16|32|64)|cint(16|32)|cfloat(32|64)|other"
_COMMON_NAMES = (
    "pan|coastal|blue|green|green05|yellow|red|rededge|rededge071|rededge075|rededge078|nir|nir08|nir09|cirrus|swir16"
    "|swir22|lwir|lwir11|lwir12"
)

IDENTITY: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "s2:product_uri": _text(),
        "s2:tile_id": _text(),
        "s2:granule_id": _text(),
        "s2:datatake_id": _text(),
        "s2:datastrip_id": _text(),
        "s2:product_type": _text(),
        "s2:processing_baseline": _text(r"\d\d\.\d\d"),
        "s2:generation_time": _text(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        "s2:mgrs_tile": _text(r"\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z][A-HJ-NP-V]"),
    }
)
"""What tells which product of ESA an item is; the percentages of its own mask would contradict the new one."""

VIEW: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "view:off_nadir": _between(0, 90),
        "view:incidence_angle": _between(0, 90),
        "view:azimuth": _between(0, 360),
        "view:sun_azimuth": _between(0, 360),
        "view:sun_elevation": _between(-90, 90),
    }
)

_CLASS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "value": lambda value: isinstance(value, int),
        "name": _text(r"[0-9A-Za-z_-]+"),
        "title": _text(),
        "description": _text(),
        "color_hint": _text(r"[0-9A-Fa-f]{6}"),
        "nodata": lambda value: isinstance(value, bool),
        "percentage": _between(0, 100),
        "count": lambda value: isinstance(value, int) and value >= 0,
    }
)

ASSET: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "type": _text(),
        "title": _text(),
        "description": _text(),
        "roles": _texts,
        "gsd": _POSITIVE,
        "proj:code": _text(),
        "proj:shape": _integers,
        "proj:transform": _numbers(6, 9),
        "proj:bbox": _numbers(4),
        "file:size": lambda value: isinstance(value, int) and value >= 0,
        "file:checksum": _text(r"[a-f0-9]+"),
        "classification:classes": _classes,
    }
)

VALUES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "data_type": _text(_TYPES),
        "nodata": lambda value: is_number(value) or value in ("nan", "inf", "-inf"),
        "unit": _text(),
        "raster:scale": is_number,
        "raster:offset": is_number,
        "raster:spatial_resolution": _POSITIVE,
        "raster:sampling": _text("area|point"),
        "raster:bits_per_sample": lambda value: isinstance(value, int),
    }
)
"""Fields of a band's values, which STAC 1.1 allows on the band and on the asset."""

BAND: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "name": _text(),
        "description": _text(),
        "eo:common_name": _text(_COMMON_NAMES),
        "eo:center_wavelength": _POSITIVE,
        "eo:full_width_half_max": _POSITIVE,
        "eo:solar_illumination": _between(0, 1e12),
    }
)
