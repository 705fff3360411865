"""How fast this machine is, and how much memory its processes take: a few windows of the chosen models."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.policy import nir_factor
from stac_cloudmask.core.predict import Bands, Member
from stac_cloudmask.inference import Part, infer, plan_passes, plan_windows
from stac_cloudmask.masking import segmenter
from stac_cloudmask.stac.loaders import load_library

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.predict import Role
    from stac_cloudmask.models.metadata import ModelSpec

STATUS: Final = Path("/proc/self/status")
PEAK: Final = "VmHWM:"
KILOBYTE: Final = 1 if sys.platform == "darwin" else 1024
"""Unit in which the system states resident memory."""
WINDOWS: Final = 3
"""Windows that are timed, after one that is not: the first takes memory from the system, and OpenVINO compiles."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What was measured.

    Attributes:
        start: Seconds for libraries, models and what the first window takes more than others.
        pixel: Seconds that all models together take, per pixel that one of them computes.
        memory: Most resident bytes of the process so far: of libraries, models and windows.
    """

    start: float
    pixel: float
    memory: int


@dataclass(frozen=True)
class Work:
    """What models are asked for: windows, and the pixels in them for each model, padding included."""

    windows: int
    computed: int


@dataclass(frozen=True)
class _Noise:
    """A scene of noise in memory, as bright as ground and clouds are."""

    grid: Grid
    bands: Bands
    strip: int = 512

    def dn(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """``(band, height, x)`` digital numbers."""
        shape = (len(self.bands.names), height, self.grid.width)
        return np.random.default_rng(row_off).integers(500, 5000, shape, np.uint16)


def parts_of(models: Mapping[ModelSpec, tuple[Role, ...]], settings: Settings) -> list[Part]:
    """The models of a run as inference takes them; no file is opened yet."""
    return [Part(spec, Member(segmenter(spec, settings), roles)) for spec, roles in models.items()]


def work_of(shape: tuple[int, int], parts: Sequence[Part], *, as_seed: bool) -> Work:
    """What a scene of ``(height, width)`` pixels asks of the models, if all of it has data."""
    windows = computed = 0
    for window, group in plan_passes(parts):
        reads = [chip.read for row in plan_windows(*shape, window, as_seed=as_seed) for chip in row]
        windows += len(reads)
        paddings = [part.spec.window.padded for part in group]
        computed += sum(padded(read.height) * padded(read.width) for read in reads for padded in paddings)
    return Work(windows, computed)


def calibrate(models: Mapping[ModelSpec, tuple[Role, ...]], settings: Settings, *, as_seed: bool) -> Pace:
    """Load what a run would load, and time a few windows of noise on its provider and threads.

    Raises:
        StacCloudmaskError: A model or the provider does not work.
    """
    begun = perf_counter()
    load_library(settings.loader)
    parts = parts_of(models, settings)
    for spec in models:
        segmenter(spec, settings).open()
    loaded = perf_counter() - begun
    side = max(window.size for window, _ in plan_passes(parts))
    first = _timed((side, side), parts, as_seed=as_seed)
    again = _timed((WINDOWS * side, side), parts, as_seed=as_seed)
    work, one = (work_of((count * side, side), parts, as_seed=as_seed).computed for count in (WINDOWS, 1))
    pixel = again / work
    return Pace(start=loaded + max(first - one * pixel, 0.0), pixel=pixel, memory=peak_bytes())


def _timed(shape: tuple[int, int], parts: Sequence[Part], *, as_seed: bool) -> float:
    """Seconds of inference on a scene of noise."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.spec.bands))
    grid = Grid(epsg=32633, left=0.0, top=0.0, gsd=10.0, height=shape[0], width=shape[1])
    scene = _Noise(grid, Bands(names, (1e-4,) * len(names), (0,) * len(names)))
    begun = perf_counter()
    infer(scene, parts, nir_factor=nir_factor(grid.gsd), in_memory=True, progress=lambda *_: None, as_seed=as_seed)
    return perf_counter() - begun


def peak_bytes() -> int:
    """The most resident memory that this process ever had.

    Of its own where the system says it: ``ru_maxrss`` begins with what the parent had when it started this process.
    """
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(PEAK)), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE if own is None else own
