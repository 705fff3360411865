"""Read MLM items: the inputs and outputs of models."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args

from stac_cloudmask.core.predict import Role
from stac_cloudmask.errors import ConfigError, ModelError

Activation = Literal["softmax", "sigmoid", "none"]
InputKind = Literal["reflectance", "dn"]

ROLE_CLASSES: Final[Mapping[Role, tuple[str, ...]]] = {"cloud": ("cloud",), "shadow": ("cloud_shadow",)}
"""Names of output classes that belong to a role, unless ``stac_cloudmask:roles`` states otherwise."""

ACTIVATIONS: Final[Mapping[str, Activation]] = {"scipy.special.softmax": "softmax", "scipy.special.expit": "sigmoid"}
"""``post_processing_function`` expressions, format ``python``; without one the graph returns probabilities."""

COMMON_NAMES: Final = frozenset(
    ["coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "nir09", "swir16", "swir22"]
)


SCALINGS: Final[Mapping[str, Callable[[dict[str, Any]], tuple[Any, Any]]]] = {
    "z-score": lambda entry: (entry["mean"], entry["stddev"]),
    "min-max": lambda entry: (entry["minimum"], entry["maximum"] - entry["minimum"]),
    "scale": lambda entry: (0, entry["value"]),
    "offset": lambda entry: (entry["value"], 1),
}
"""The value subtracted from a band, and the divisor applied afterwards, by the type of ``value_scaling``."""


def only_entry(properties: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401  (JSON)
    """Return the only entry of a list."""
    if len(properties[name]) != 1:
        raise ValueError(f"{name} has {len(properties[name])} entries; models with exactly one are supported")
    return properties[name][0]


def one_of(name: str, value: str, choices: Collection[str]) -> str:
    """Return a value that must be one of some choices."""
    if value not in choices:
        raise ValueError(f"{name} {value!r} is not supported; {', '.join(choices)} are")
    return value


def shape_of(structure: Mapping[str, Any]) -> Sequence[Any]:
    """Return the channels, height and width of an input or output; -1 where free."""
    order, shape = structure["dim_order"], structure["shape"]
    if len(shape) != len(order) or [order[0], *order[2:]] != ["batch", "height", "width"]:
        raise ValueError(f"dim_order must be batch, bands or classes, height, width with a shape of 4, got {order}")
    if structure["data_type"] != "float32":
        raise ValueError(f"data_type must be float32, got {structure['data_type']!r}")
    return cast("Sequence[Any]", shape[1:])


def band_names(names: Sequence[str | dict[str, Any]], properties: dict[str, Any]) -> tuple[str, ...]:
    """Return the common names of the input channels, in order."""
    described = {band["name"]: band for band in properties.get("bands", ())}
    plain = [name if isinstance(name, str) else name["name"] for name in names]
    bands = tuple(n if n in COMMON_NAMES else described.get(n, {}).get("eo:common_name", n) for n in plain)
    unknown = sorted(set(bands) - COMMON_NAMES)
    if unknown or len(set(bands)) != len(bands) or not bands:
        known = ", ".join(sorted(COMMON_NAMES))
        raise ValueError(f"mlm:input bands must be different common names, got {', '.join(bands)}; known are {known}")
    return bands


def scaling(entries: Sequence[dict[str, Any]] | None, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the value subtracted from each band, and the divisor applied afterwards."""
    entries = entries or [{"type": "scale", "value": 1}]
    if len(entries) not in (1, count):
        raise ValueError(f"value_scaling has {len(entries)} entries; there is one for all bands or one for each")
    pairs = [SCALINGS[one_of("value_scaling of type", entry["type"], SCALINGS)](entry) for entry in entries]
    mean, std = (tuple(map(float, values)) * (count // len(pairs)) for values in zip(*pairs, strict=True))
    if not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std):
        raise ValueError("value_scaling needs finite numbers, and divides by one above 0")
    return mean, std


def activation_of(function: dict[str, Any] | None) -> Activation:
    """Return the activation that turns the output into probabilities."""
    if function is None:
        return "none"
    one_of("post_processing_function in the format", function["format"], ["python"])
    return ACTIVATIONS[one_of("post_processing_function", function["expression"], ACTIVATIONS)]


def outputs(
    result: dict[str, Any], channels: int, activation: Activation, roles: Mapping[str, Sequence[str]] | None
) -> tuple[tuple[Role, tuple[int, ...]], ...]:
    """Return the channels by role; a single channel belongs to class 1."""
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


SHA256_MULTIHASH: Final = "1220"
LONGEST_SIDE: Final = 8192
"""Largest side of a window, in pixels."""
LARGEST_ITEM: Final = 1_000_000
"""Maximum size of a model item in bytes; items have a few thousand."""


@dataclass(frozen=True, kw_only=True)
class ModelWindow:
    """The input windows of a model.

    Attributes:
        size: Longest side in pixels.
        multiple: Sides are multiples of this; 0 means that every side is ``size`` exactly.
        overlap: Minimum number of pixels that neighboring windows share.
    """

    size: int
    multiple: int
    overlap: int

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        if not 1 <= self.size <= LONGEST_SIDE:
            raise ValueError(f"window size must lie in [1, {LONGEST_SIDE}], got {self.size}")
        if not 0 <= self.overlap < self.size:
            raise ValueError(f"window overlap must lie in [0, size={self.size}), got {self.overlap}")
        if self.multiple < 0 or (self.multiple and self.size % self.multiple):
            raise ValueError(f"window size {self.size} is not a multiple of {self.multiple}")

    def padded(self, side: int) -> int:
        """Return the length to which a side of at most ``size`` pixels is padded."""
        return side + -side % self.multiple if self.multiple else self.size


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A model's contract, as stated by its MLM item.

    Attributes:
        name: Id of the item.
        title: Description in one line.
        bands: Common names of the input channels, in order.
        input_kind: ``reflectance``, or ``dn``: reflectance times 10000, whole numbers.
        mean: Value subtracted from each band.
        std: Divisor of each band afterwards.
        activation: Function that turns the output into probabilities.
        channels: Channels of the output.
        outputs: Channels whose probabilities add up to a role's, by role.
        window: Windows to cut a scene into.
        gsd: Finest and coarsest pixel size in meters for which the model is intended; None if not stated.
        href: Where the weights are: ``package://PACKAGE/FILE``, ``https://...`` or a local path.
        file_size: Bytes of the weights; None if not stated.
        sha256: Checksum of the weights in hex; None if not stated.
        license: SPDX expression of the weights.
        source: Web page of the model's origin.
        item_href: Href of the MLM item.
    """

    name: str
    title: str
    bands: tuple[str, ...]
    input_kind: InputKind
    mean: tuple[float, ...]
    std: tuple[float, ...]
    activation: Activation
    channels: int
    outputs: tuple[tuple[Role, tuple[int, ...]], ...]
    window: ModelWindow
    gsd: tuple[float, float] | None
    href: str
    file_size: int | None
    sha256: str | None
    license: str | None
    source: str | None
    item_href: str

    @property
    def roles(self) -> tuple[Role, ...]:
        """Roles of the model: ``cloud``, ``shadow`` or both."""
        return tuple(role for role, _ in self.outputs)

    @property
    def file_name(self) -> str:
        """Last part of ``href`` without its query, safe as a file name."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", re.split("[?#]", self.href)[0].rsplit("/", 1)[-1])[-100:]


def shared_window(specs: Sequence[ModelSpec]) -> ModelWindow:
    """Return windows that suit several models, which allows reading a scene once.

    Models with a free window use those of a model with a fixed window; the overlap is the largest of all.

    Raises:
        ConfigError: Two models have different fixed windows.
    """
    windows = [spec.window for spec in specs]
    fixed = {spec.window.size: spec.name for spec in specs if not spec.window.multiple}
    if len(fixed) > 1:
        found = ", ".join(f"{name} {size}" for size, name in fixed.items())
        raise ConfigError(f"these models fix different windows and cannot be run together: {found}")
    multiple = math.lcm(*(window.multiple for window in windows))  # 0 if any is fixed
    size = next(iter(fixed)) if fixed else max(min(window.size for window in windows) // multiple, 1) * multiple
    overlap = min(max(window.overlap for window in windows), size - 1)
    return ModelWindow(size=size, multiple=multiple, overlap=overlap)


def read_model_item(path: str | Path) -> ModelSpec:
    """Read the contract that an MLM item (v1.5) on disk states.

    Raises:
        ModelError: The item is missing, is not an MLM item, or states something that is not supported.
    """
    path = Path(path).absolute()
    try:
        if path.stat().st_size > LARGEST_ITEM:
            raise ModelError(f"{path}: more than {LARGEST_ITEM} bytes, which is not a model item")
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read as a model item: {error}") from error
    try:
        return _spec(document, path)
    except KeyError as error:
        raise ModelError(f"{path}: the model item lacks {error}") from None
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise ModelError(f"{path}: {error}") from None


def _spec(document: dict[str, Any], path: Path) -> ModelSpec:
    properties = document["properties"]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", document["id"]):  # a name that is safe as a folder
        raise ValueError(f"its id {document['id']!r} must be letters, digits, '.', '_' and '-', at most 100")
    given, result = only_entry(properties, "mlm:input"), only_entry(properties, "mlm:output")
    count, height, width = map(int, shape_of(given["input"]))
    channels = int(shape_of(result["result"])[0])
    if channels < 1:
        raise ValueError(f"mlm:output must state its number of channels, got {channels}")
    bands = band_names(given["bands"], properties)
    if count not in (-1, len(bands)):
        raise ValueError(f"mlm:input has {len(bands)} bands but a shape of {count}")
    mean, std = scaling(given.get("value_scaling"), len(bands))
    activation = activation_of(result.get("post_processing_function"))
    kind = properties.get("stac_cloudmask:input_kind", "reflectance")
    gsd = None
    if (span := properties.get("stac_cloudmask:gsd")) is not None:
        finest, coarsest = span
        gsd = float(finest), float(coarsest)
    asset = weights_asset(document["assets"])
    href = str(asset["href"])
    return ModelSpec(
        name=document["id"],
        title=str(properties.get("title", document["id"])),
        bands=bands,
        input_kind=cast("InputKind", one_of("stac_cloudmask:input_kind", kind, get_args(InputKind))),
        mean=mean,
        std=std,
        activation=activation,
        channels=channels,
        outputs=outputs(result, channels, activation, properties.get("stac_cloudmask:roles")),
        window=_window(height, width, properties.get("stac_cloudmask:window")),
        gsd=gsd,
        href=href if re.match(r"[a-z][a-z0-9+.-]*://", href) else (path.parent / href).as_posix(),
        file_size=None if asset.get("file:size") is None else int(asset["file:size"]),
        sha256=_sha256(asset.get("file:checksum")),
        license=None if properties.get("license") is None else str(properties["license"]),
        source=_link(document, "about"),
        item_href=_link(document, "self") or path.as_posix(),
    )


def _window(side: int, width: int, window: Mapping[str, Any] | None) -> ModelWindow:
    if side != width:
        raise ValueError(f"windows are square, but mlm:input states {side} x {width}")
    if window is None and side == -1:
        raise ValueError("mlm:input leaves height and width free, so stac_cloudmask:window must state them")
    if window is None:
        return ModelWindow(size=side, multiple=0, overlap=side // 8)
    chosen = ModelWindow(**{name: int(window[name]) for name in ("size", "multiple", "overlap")})
    if chosen.multiple == 0 and side not in (-1, chosen.size):
        raise ValueError(f"stac_cloudmask:window fixes {chosen.size} pixels, but mlm:input states {side}")
    return chosen


def weights_asset(assets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the asset of an MLM item for the ONNX file."""
    for asset in assets.values():
        if "mlm:model" in asset.get("roles", ()) and asset.get("mlm:artifact_type") == "onnx":
            return asset
    raise ValueError("no asset has the role mlm:model and the mlm:artifact_type onnx")


def _sha256(multihash: str | None) -> str | None:
    if multihash is not None and not re.fullmatch(SHA256_MULTIHASH + "[0-9a-f]{64}", multihash):
        raise ValueError(f"file:checksum must be a SHA-256 multihash (1220...), got {multihash[:80]!r}")
    return multihash and multihash.removeprefix(SHA256_MULTIHASH)


def _link(document: dict[str, Any], rel: str) -> str | None:
    return next((str(link["href"]) for link in document.get("links", ()) if link["rel"] == rel), None)
