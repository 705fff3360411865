"""The settings of a run: every default lives here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Final, Literal, get_args

from stac_cloudmask.errors import ConfigError

Merge = Literal["calibrated", "union", "farmvibes"]
Loader = Literal["stackstac", "odc"]
MissingScl = Literal["fail", "model-only"]
BoaOffset = Literal["auto", "0", "-1000"]
Provider = Literal["cpu", "cuda", "openvino", "openvino-f32"]

DEFAULT_MODEL: Final = "ukis-csmask-4b-l2a"

PRESENTATION: Final = frozenset(
    {"overwrite", "in_memory", "threads", "model_cache", "private_hosts", "local_roots", "retry_seconds"}
)
"""Settings that change how a mask is made or kept, never what is in it."""


LARGEST: Final = 1e12
"""Meters or square meters; a tile has 1.2e10 square meters."""
SCL_CLASSES: Final = frozenset(range(1, 12))
"""Codes of the scene classification that can mean something; 0 is nodata."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what a mask looks like and how it is made.

    Attributes:
        cloud_model: Names or paths of one or more cloud models; several form an ensemble (mean probability).
        shadow_model: Name or path of the shadow model.
        cloud_thr: Cloud probability above which (strictly) the cloud model votes cloud, a whole percent in 0..1;
            None leaves it to the merge policy.
        shadow_thr: The same for cloud shadow.
        in_memory: Read the whole scene before the first window; the result is the same to the bit.
        merge: Merge policy.
        buffer: Width in metres by which cloud and shadow are grown; None leaves it to the merge policy, 0 means none.
        min_area: Smallest object kept, in square metres; None leaves it to the merge policy, 0 means none is removed.
        hole_area: Clear holes below this many square metres are closed; None and 0 as for ``min_area``.
        loader: Library that reads the pixels; both give the same bits.
        resolution: Pixel size of the mask in metres, a whole multiple of the finest band's; None takes that one.
        boa_offset: Digital numbers to add before scaling; ``auto`` decides by item and asset.
        missing_scl: What to do with an item without SCL.
        scl_cloud: SCL classes that mean cloud: medium and high probability, thin cirrus.
        scl_shadow: SCL classes that mean cloud shadow.
        probabilities: Also publish the probabilities.
        votes: Also publish who said what.
        mask_only: Leave the source's own assets out of the output item.
        overwrite: Make masks anew that are already up to date.
        threads: Threads for inference; None takes what the process may use.
        provider: Runtime for inference. Their arithmetic differs, so masks may in single pixels: ``cpu`` is
            onnxruntime; ``cuda`` is onnxruntime on a GPU; ``openvino`` is OpenVINO, in bfloat16 where the CPU computes
            in it; ``openvino-f32`` is OpenVINO in float32.
        model_cache: Directory of fetched weights on every machine that masks; None takes the user's cache directory.
        private_hosts: Hosts on private networks that remote items may name, see ``stac.hrefs``.
        local_roots: Folders that local items may read from; None for any, empty for none.
        retry_seconds: How long a request to a failing server is repeated, in all; 0 sends it once.
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
    probabilities: bool = False
    votes: bool = False
    mask_only: bool = False
    overwrite: bool = False
    threads: int | None = None
    provider: Provider = "cpu"
    model_cache: str | None = None
    private_hosts: tuple[str, ...] = ()
    local_roots: tuple[str, ...] | None = None
    retry_seconds: float = 45.0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not any(_is(value, kind.strip()) for kind in str(field.type).split("|")):
                raise ConfigError(f"{field.name} is {field.type}, got {value!r:.200}")
        if not self.cloud_model:
            raise ConfigError(f"cloud_model takes a tuple of at least one model, got {self.cloud_model!r}")
        _choice("merge", self.merge, get_args(Merge))
        _choice("loader", self.loader, get_args(Loader))
        _choice("missing_scl", self.missing_scl, get_args(MissingScl))
        _choice("boa_offset", self.boa_offset, get_args(BoaOffset))
        if not set(self.scl_cloud).isdisjoint(self.scl_shadow) or not SCL_CLASSES.issuperset(
            {*self.scl_cloud, *self.scl_shadow}
        ):
            raise ConfigError(
                f"SCL classes lie in 1..11 and mean one thing, got cloud {self.scl_cloud} and shadow {self.scl_shadow}"
            )
        _choice("provider", self.provider, get_args(Provider))
        _threshold("cloud_thr", self.cloud_thr)
        _threshold("shadow_thr", self.shadow_thr)
        for name in ("buffer", "min_area", "hole_area"):
            _size(name, getattr(self, name), least=0.0)
        _size("resolution", self.resolution, least=1.0)
        _size("retry_seconds", self.retry_seconds, least=0.0)
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads must be at least 1, got {self.threads}")

    def fingerprint_fields(self) -> dict[str, object]:
        """The settings that decide what the published item holds, by name."""
        return {name: value for name, value in asdict(self).items() if name not in PRESENTATION}


def _is(value: object, kind: str) -> bool:
    """Whether a value is of a kind as annotations here spell it; a choice is a text first."""
    if kind.startswith("tuple["):
        inner = kind.removeprefix("tuple[").partition(",")[0]
        return isinstance(value, tuple) and all(_is(entry, inner) for entry in value)
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "None":
        return value is None
    return isinstance(value, {"float": Real, "int": Integral}.get(kind, str))


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is one of {', '.join(allowed)}, got {value!r}")


def _threshold(name: str, value: float | None) -> None:
    if value is None:
        return
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} must lie in [0, 1], got {value}")
    if not math.isclose(value * 100, round(value * 100), abs_tol=1e-6):
        raise ConfigError(
            f"{name} takes whole percents (0.30, 0.31), as probabilities are kept in percent; got {value}"
        )


def _size(name: str, value: float | None, *, least: float) -> None:
    if value is not None and not least <= value <= LARGEST:
        raise ConfigError(f"{name} must be a finite number of at least {least:g}, got {str(value)[:40]}")
