"""What a mask would cost: bytes, pixels, windows."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.policy import FARMVIBES, nir_factor
from stac_cloudmask.core.predict import Bands, Member
from stac_cloudmask.errors import BandNotFoundError
from stac_cloudmask.models.session import usable_cpus
from stac_cloudmask.pipeline.inference import Part, infer, plan_passes, plan_windows
from stac_cloudmask.pipeline.mask import THREADS, segmenter
from stac_cloudmask.pipeline.result import Estimate
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.loaders import load_library
from stac_cloudmask.stac.metadata import valid_share
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.reader import PATIENCE, STRIP, Access, whole_factor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.config import Loader, Settings
    from stac_cloudmask.core.predict import Role
    from stac_cloudmask.models.spec import ModelSpec
    from stac_cloudmask.stac.bands import BandSource, Sources


@dataclass(frozen=True)
class FileToRead:
    """What is to be read of one file: on which grid, and its bytes, None where nothing says how many."""

    source: BandSource
    grid: Grid
    read_grid: Grid
    size: int | None

    @property
    def pixels(self) -> int:
        """That are read."""
        return self.read_grid.height * self.read_grid.width


@dataclass(frozen=True)
class Sizes:
    """What is to be read of an item.

    Attributes:
        grid: Of the mask.
        parts: The bands, then SCL.
    """

    grid: Grid
    parts: tuple[FileToRead, ...]

    @property
    def bytes(self) -> int | None:
        """Of all parts; None where that of one is not known."""
        sizes = [part.size for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def pixels(self) -> int:
        """That are read, of all parts."""
        return sum(part.pixels for part in self.parts)

    def held(self, *, in_memory: bool) -> int:
        """Bytes of what is whole in memory: SCL, bands of larger pixels than the finest, all bands if ``in_memory``.

        And of the rows of the others: those that windows are cut from, and those that are read ahead.
        """
        bands = [part for part in self.parts if part.source.common_name != SCL]
        finest = min(part.grid.gsd for part in bands)
        whole = sum(part.pixels * (2 if part in bands else 1) for part in self.parts if part.grid.gsd > finest)
        rows = self.grid.height if in_memory else min(2 * STRIP, self.grid.height)
        return whole + 2 * len(bands) * rows * self.grid.width


def size_up(sources: Sources, *, resolution: float | None, loader: Loader, threads: int) -> Sizes:
    """What ``read.open_scene`` would read.

    A file is opened only where its item does not state its grid, or neither the item nor the disk its size; or where a
    coarser mask may be made from its overviews.

    Raises:
        StacCloudmaskError: As ``read.open_scene``, as far as it has been looked.
    """
    every = [*sources.bands, *([] if sources.scl is None else [sources.scl])]
    known = {source: _by_metadata(source, resolution) for source in every}
    unknown = [source for source, part in known.items() if part is None]
    access = Access(loader=loader, threads=threads, patience=PATIENCE)
    for one in access.look(unknown, rule=sources.rule, resolution=resolution):
        facts = one.facts
        size = None if facts.overview else _size(one.source)
        known[one.source] = FileToRead(one.source, one.grid, facts.read_grid, size or facts.stored)
    parts = tuple(part for part in known.values() if part is not None)
    finest = min(parts[: len(sources.bands)], key=lambda part: part.grid.gsd)
    factor = whole_factor(finest.grid, resolution, where=finest.source.where)
    return Sizes(finest.grid.coarsen(factor), parts)


def _by_metadata(source: BandSource, resolution: float | None) -> FileToRead | None:
    """What the item and the disk say; None where that is not enough."""
    size, grid = _size(source), source.grid
    if size is None or grid is None:
        return None
    may_have_overviews = source.common_name != SCL and resolution is not None and resolution > grid.gsd
    return None if may_have_overviews else FileToRead(source, grid, grid, size)


def _size(source: BandSource) -> int | None:
    """Bytes of the file.

    Raises:
        BandNotFoundError: It should be here, and is not.
    """
    if is_remote(source.href):
        return source.size
    try:
        return Path(source.href).stat().st_size
    except OSError:
        raise BandNotFoundError(f"{source.where}: there is no file {source.href}; is the item up to date?") from None


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


def work_of(shape: tuple[int, int], parts: Sequence[Part], *, as_farmvibes: bool) -> Work:
    """What a scene of ``(height, width)`` pixels asks of the models, if all of it has data."""
    windows = computed = 0
    for window, group in plan_passes(parts):
        reads = [chip.read for row in plan_windows(*shape, window, as_farmvibes=as_farmvibes) for chip in row]
        windows += len(reads)
        paddings = [part.spec.window.padded for part in group]
        computed += sum(padded(read.height) * padded(read.width) for read in reads for padded in paddings)
    return Work(windows, computed)


def calibrate(models: Mapping[ModelSpec, tuple[Role, ...]], settings: Settings, *, as_farmvibes: bool) -> Pace:
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
    first = _timed((side, side), parts, as_farmvibes=as_farmvibes)
    again = _timed((WINDOWS * side, side), parts, as_farmvibes=as_farmvibes)
    work, one = (work_of((count * side, side), parts, as_farmvibes=as_farmvibes).computed for count in (WINDOWS, 1))
    pixel = again / work
    return Pace(start=loaded + max(first - one * pixel, 0.0), pixel=pixel, memory=peak_bytes())


def _timed(shape: tuple[int, int], parts: Sequence[Part], *, as_farmvibes: bool) -> float:
    """Seconds of inference on a scene of noise."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.spec.bands))
    grid = Grid(epsg=32633, left=0.0, top=0.0, gsd=10.0, height=shape[0], width=shape[1])
    scene = _Noise(grid, Bands(names, (1e-4,) * len(names), (0,) * len(names)))
    begun = perf_counter()
    infer(
        scene,
        parts,
        nir_factor=nir_factor(grid.gsd),
        in_memory=True,
        progress=lambda *_: None,
        as_farmvibes=as_farmvibes,
    )
    return perf_counter() - begun


def peak_bytes() -> int:
    """The most resident memory that this process ever had.

    Of its own where the system says it: ``ru_maxrss`` begins with what the parent had when it started this process.
    """
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(PEAK)), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE if own is None else own


READ_SECONDS: Final = 6e-9
"""Per pixel that is read of a band: what reading takes from inference on all threads, for the most part beside it.

Of a tile of 10980 x 10980 pixels with four bands and SCL, which took 3 s of its run (``benchmarks/tile.py``)."""
FINISH_SECONDS: Final = 6.6e-8
"""Per pixel of the mask, to merge and to write: 8 s of the same tile."""
ITEM_SECONDS: Final = 0.3
"""For an item of any size, to open and to publish it: items of 256 x 256 pixels take so much beside their model
(``benchmarks/throughput.py``)."""
PERCENTS: Final = 2
"""Bytes per pixel of the mask: what the models say of cloud and of shadow. Merging and writing take no more than
inference has given back by then."""


@dataclass(frozen=True)
class Estimator:
    """Estimates the items of a run; this machine is calibrated once, at the first.

    Attributes:
        models: Of the run.
        settings: Of the run; threads as one worker has them.
    """

    models: Mapping[ModelSpec, tuple[Role, ...]]
    settings: Settings

    @cached_property
    def pace(self) -> Pace:
        """Of this machine.

        Raises:
            StacCloudmaskError: A model or the provider does not work.
        """
        return calibrate(self.models, self.settings, as_farmvibes=self._as_farmvibes)

    @property
    def _as_farmvibes(self) -> bool:
        return self.settings.merge == FARMVIBES

    def of(self, item: pystac.Item, sources: Sources) -> Estimate:
        """What the mask of an item would cost; headers are read where the item's metadata lack something.

        Raises:
            StacCloudmaskError: The item cannot be masked, as far as metadata and headers tell.
        """
        settings, pace = self.settings, self.pace  # first, as sizing up may load libraries whose time is to be counted
        threads = settings.threads or THREADS
        sizes = size_up(sources, resolution=settings.resolution, loader=settings.loader, threads=threads)
        pixels = sizes.grid.height * sizes.grid.width
        work = work_of(sizes.grid.shape, parts_of(self.models, settings), as_farmvibes=self._as_farmvibes)
        inferring = valid_share(item) * work.computed * pace.pixel
        held = sizes.held(in_memory=settings.in_memory)
        return Estimate(
            pixels=pixels,
            bytes=sizes.bytes,
            windows=work.windows,
            computed=work.computed,
            start=round(pace.start, 3),
            seconds=round(inferring + READ_SECONDS * sizes.pixels + FINISH_SECONDS * pixels + ITEM_SECONDS, 3),
            memory=pace.memory + held + PERCENTS * pixels,
        )


def shared_out(settings: Settings, workers: int | None) -> Settings:
    """Settings whose threads are what one of ``workers`` on this machine has."""
    if settings.threads is not None or workers is None:
        return settings
    return replace(settings, threads=max(1, usable_cpus() // workers))
