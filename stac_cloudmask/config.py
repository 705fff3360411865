"""The settings of a run and their defaults; those of a merge policy are in `core.merge.POLICIES`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from stac_cloudmask.errors import ConfigError

Merge = Literal["calibrated", "union", "farmvibes"]
Loader = Literal["stackstac", "odc"]
MissingScl = Literal["fail", "model-only"]
BoaOffset = Literal["auto", "0", "-1000"]
Versions = Literal["newest", "all"]
Runtime = Literal["cpu", "cuda", "openvino", "openvino-f32", "openvino-int8"]

DEFAULT_MODEL: Final = "ukis-csmask-4b-l2a"
FAST: Final = "fast"
"""The small model, which is several times faster."""

MAKING: Final = frozenset({"in_memory", "threads", "model_cache", "private_hosts", "local_roots", "retry_seconds"})
"""Settings of how inputs are read and models are run, which do not change a mask."""
STORING: Final = frozenset({"overwrite", "collection_config"})
"""Settings of how a mask is stored."""
AREA: Final = frozenset({"area", "max_halo"})
"""Settings that matter only if an area is masked."""
SIZE_LIMIT: Final = 1e12
"""Upper limit in meters or square meters; a tile has 1.2e10 square meters."""
RANGES: Final = {
    "cloud_thr": (0.0, 1.0),
    "shadow_thr": (0.0, 1.0),
    "resolution": (1.0, SIZE_LIMIT),
    "max_halo": (0.0, 100_000.0),
    "buffer": (0.0, 10_000.0),
    "threads": (1, 10_000),
}
"""Minimum and maximum of numeric settings; the others range from 0 to `SIZE_LIMIT`."""
KINDS: Final[dict[Any, str]] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
TUPLES: Final[dict[Any, str]] = {tuple[int, ...]: "a tuple of whole numbers", tuple[str, ...]: "a tuple of texts"}
"""The description, in error messages, of the values that each type of setting accepts."""
NUMBERS: Final = {int: Integral, float: Real}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings that determine the contents of a mask and how it is made.

    The options of `stac-cloudmask process` are generated from these fields, with the texts below as their help.

    Attributes:
        cloud_model: Cloud model, by name or path; several form an ensemble (mean probability).
        shadow_model: Shadow model, by name or path.
        cloud_thr: Cloud probability (0 to 1, in steps of 0.01) above which a model flags a pixel; default: the
            policy's.
        shadow_thr: The same for shadow.
        in_memory: Read the whole scene before inference; the result is identical.
        merge: Merge policy.
        buffer: Meters by which cloud and shadow are dilated; 0 for none; default: the policy's.
        min_area: Remove smaller objects (square meters); 0 keeps all; default: the policy's.
        hole_area: Fill smaller clear holes (square meters); 0 fills none; default: the policy's.
        loader: Library that reads the pixels; both give identical values.
        resolution: Pixel size of the mask in meters, a multiple of the finest band's; default: that band's.
        boa_offset: Digital numbers to add before scaling; `auto` decides by item and asset.
        missing_scl: Where an item has no SCL: fail, or use the models alone.
        scl_cloud: SCL classes that count as cloud.
        scl_shadow: SCL classes that count as cloud shadow.
        area: The area that is masked, as well-known text in longitude and latitude; default: the whole item.
        max_halo: Search at most this many meters around an area for clouds that cast shadows into it.
        probabilities: Also write the probabilities.
        votes: Also write mask_votes: which source flagged each pixel.
        scl: Also write scl: ESA's scene classification with cloud and cloud shadow corrected.
        mask_only: Leave the bands of the source out of the output item.
        collection_config: JSON file with the id, title, description, license, keywords, providers and links of the
            output collection.
        overwrite: Make masks again even if they are up to date.
        threads: Threads for inference; default: one per available CPU.
        provider: Runtime for inference. `cuda` needs an NVIDIA GPU and onnxruntime-gpu; `openvino` computes in bfloat16
            where the CPU supports it, `openvino-f32` in float32, `openvino-int8` mostly in 8 bits. Single pixels may
            differ between runtimes.
        model_cache: Directory of downloaded weights, on every machine that masks; default: the user's cache.
        private_hosts: Host on a private network that remote items may refer to; repeatable.
        local_roots: Folder that local items may read from; repeatable; default: any.
        retry_seconds: Total seconds for which a failing request is repeated; 0 sends it once.
    """

    cloud_model: tuple[str, ...] = (DEFAULT_MODEL,)
    shadow_model: str = DEFAULT_MODEL
    cloud_thr: float | None = None
    shadow_thr: float | None = None
    in_memory: bool = False
    merge: Merge = "calibrated"
    buffer: float | None = None
    min_area: float | None = None
    hole_area: float | None = None
    loader: Loader = "stackstac"
    resolution: float | None = None
    boa_offset: BoaOffset = "auto"
    missing_scl: MissingScl = "fail"
    scl_cloud: tuple[int, ...] = (8, 9, 10)
    scl_shadow: tuple[int, ...] = (3,)
    area: str | None = None
    max_halo: float = 6_000.0
    probabilities: bool = False
    votes: bool = False
    scl: bool = False
    mask_only: bool = False
    collection_config: str | None = None
    overwrite: bool = False
    threads: int | None = None
    provider: Runtime = "cpu"
    model_cache: str | None = None
    private_hosts: tuple[str, ...] = ()
    local_roots: tuple[str, ...] | None = None
    retry_seconds: float = 45.0

    def __post_init__(self) -> None:
        """Reject values that cannot work."""
        for name, kind in get_type_hints(Settings).items():
            _check(name, getattr(self, name), kind)
        for name in ("cloud_thr", "shadow_thr"):
            percent = 100 * (getattr(self, name) or 0)
            if not math.isclose(percent, round(percent), abs_tol=1e-6):
                raise ConfigError(f"{name} takes whole percents such as 0.30 and 0.31, got {percent / 100:g}")
        if self.merge == "farmvibes" and self.hole_area is not None:
            raise ConfigError("merge 'farmvibes' closes holes by min_area; leave hole_area out")
        if not self.cloud_model:
            raise ConfigError("cloud_model takes at least one model, got none")
        cloud, shadow = self.scl_cloud, self.scl_shadow
        if set(cloud) & set(shadow) or {*cloud, *shadow} - set(range(1, 12)):
            raise ConfigError(f"SCL classes are 1 to 11 and mean one thing each, got cloud {cloud} and shadow {shadow}")

    def fingerprint_fields(self) -> dict[str, object]:
        """Return the settings that determine the contents of the published item, by name."""
        without = MAKING | STORING if self.area else MAKING | STORING | AREA
        return {name: value for name, value in asdict(self).items() if name not in without}


def _check(name: str, value: Any, kind: Any) -> None:  # noqa: ANN401  (a setting of any type, with its type)
    if value is None and isinstance(kind, UnionType):
        return
    kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
    takes = (KINDS | TUPLES).get(kind) or f"one of {', '.join(get_args(kind))}"
    fits = _is_a(value, kind)
    if kind in NUMBERS:
        least, most = RANGES.get(name, (0.0, SIZE_LIMIT))
        takes, fits = f"{takes} from {least:g} to {most:g}", fits and least <= value <= most
    if not fits:
        raise ConfigError(f"{name} is {takes}, got {value!r:.40}")


def _is_a(value: object, kind: Any) -> bool:  # noqa: ANN401  (a type)
    """Return whether a value is of a type; NumPy numbers count as numbers, True and False do not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(one, get_args(kind)[0]) for one in value)
    return isinstance(value, NUMBERS.get(kind, kind)) and (kind is bool or not isinstance(value, bool))
