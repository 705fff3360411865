"""The words of an MLM item (v1.5) that decide how a model is fed and what its output means.

All functions raise ValueError, KeyError or TypeError for what they do not understand; ``metadata`` says where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

if TYPE_CHECKING:
    from stac_cloudmask.core.predict import Role

Activation = Literal["softmax", "sigmoid", "none"]
InputKind = Literal["reflectance", "dn"]

ROLE_CLASSES: Final[Mapping[Role, tuple[str, ...]]] = {"cloud": ("cloud",), "shadow": ("cloud_shadow",)}
"""Names of output classes that make a role, unless ``stac_cloudmask:roles`` says otherwise."""

ACTIVATIONS: Final[Mapping[str, Activation]] = {"scipy.special.softmax": "softmax", "scipy.special.expit": "sigmoid"}
"""``post_processing_function`` expressions, format ``python``; none means that the graph gives probabilities."""

COMMON_NAMES: Final = frozenset(
    ["coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir16", "swir22"]
)


def exactly_one(name: str, many: Sequence[Any]) -> dict[str, Any]:
    """The only entry of a list."""
    if len(many) != 1:
        raise ValueError(f"{name} has {len(many)} entries; models with exactly one are supported")
    return cast("dict[str, Any]", many[0])


def input_kind(value: str) -> InputKind:
    """What the numbers are that the model takes."""
    if value not in get_args(InputKind):
        raise ValueError(f"stac_cloudmask:input_kind is one of {', '.join(get_args(InputKind))}, got {value!r}")
    return cast("InputKind", value)


def shapes(given: dict[str, Any], result: dict[str, Any]) -> tuple[tuple[int, int, int], int]:
    """``(bands, height, width)`` of the input, -1 where free, and the channels of the output."""
    for structure in (given, result):
        order, shape = structure["dim_order"], structure["shape"]
        if len(shape) != len(order) or [order[0], *order[2:]] != ["batch", "height", "width"]:
            raise ValueError(f"dim_order must be batch, bands or classes, height, width with a shape of 4, got {order}")
        if structure["data_type"] != "float32":
            raise ValueError(f"data_type must be float32, got {structure['data_type']!r}")
    channels = int(result["shape"][1])
    if channels < 1:
        raise ValueError(f"mlm:output must state its number of channels, got {channels}")
    bands, height, width = (int(side) for side in given["shape"][1:])
    return (bands, height, width), channels


def bands(names: Sequence[str | dict[str, Any]], properties: dict[str, Any]) -> tuple[str, ...]:
    """Common names of the input channels, in order."""
    described = {band["name"]: band for band in properties.get("bands", ())}
    plain = [name if isinstance(name, str) else name["name"] for name in names]
    bands = tuple(n if n in COMMON_NAMES else described.get(n, {}).get("eo:common_name", n) for n in plain)
    unknown = sorted(set(bands) - COMMON_NAMES)
    if unknown or len(set(bands)) != len(bands) or not bands:
        known = ", ".join(sorted(COMMON_NAMES))
        raise ValueError(f"mlm:input bands must be different common names, got {', '.join(bands)}; known are {known}")
    return bands


def scaling(entries: Sequence[dict[str, Any]] | None, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What is subtracted from each band, and what it is divided by then."""
    if not entries:
        return (0.0,) * count, (1.0,) * count
    if len(entries) not in (1, count):
        raise ValueError(f"value_scaling has {len(entries)} entries; there is one for all bands or one for each")
    pairs = [_mean_and_std(entry) for entry in entries] * (count if len(entries) == 1 else 1)
    if not all(math.isfinite(mean) and 0 < std < math.inf for mean, std in pairs):
        raise ValueError("value_scaling needs finite numbers, and divides by one above 0")
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _mean_and_std(entry: dict[str, Any]) -> tuple[float, float]:
    kind = entry["type"]
    if kind == "z-score":
        return float(entry["mean"]), float(entry["stddev"])
    if kind == "min-max":
        return float(entry["minimum"]), float(entry["maximum"]) - float(entry["minimum"])
    if kind == "scale":
        return 0.0, float(entry["value"])
    if kind == "offset":
        return float(entry["value"]), 1.0
    raise ValueError(f"value_scaling of type {kind!r} is not supported; z-score, min-max, scale and offset are")


def activation(function: dict[str, Any] | None) -> Activation:
    """What turns the output into probabilities."""
    if function is None:
        return "none"
    expression = function["expression"]
    if function["format"] != "python" or expression not in ACTIVATIONS:
        known = " and ".join(ACTIVATIONS)
        raise ValueError(f"post_processing_function {expression!r} is not supported; {known} (format python) are")
    return ACTIVATIONS[expression]


def outputs(
    result: dict[str, Any], channels: int, activation: Activation, roles: Mapping[str, Sequence[str]] | None
) -> tuple[tuple[Role, tuple[int, ...]], ...]:
    """Channels by role; a single channel is that of class 1."""
    values = {str(entry["name"]): int(entry["value"]) for entry in result["classification:classes"]}
    outputs = []
    for role, default in ROLE_CLASSES.items():
        names = [name for name in default if name in values] if roles is None else roles.get(role, ())
        places = tuple(0 if channels == 1 and values[name] == 1 else values[name] for name in names)
        if any(not 0 <= place < channels for place in places):
            raise ValueError(f"the classes of role {role} have values {places}, but there are {channels} channels")
        if places:
            outputs.append((role, places))
    if not outputs:
        raise ValueError(f"no output class is a cloud or a cloud_shadow; the classes are {', '.join(values)}")
    if activation == "softmax" and channels == 1:
        raise ValueError("a softmax needs at least two channels; one channel takes scipy.special.expit")
    if activation == "sigmoid" and any(len(places) > 1 for _, places in outputs):
        raise ValueError("a role of several sigmoid channels is not supported, as they do not add up")
    return tuple(outputs)
