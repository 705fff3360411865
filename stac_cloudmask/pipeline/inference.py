"""Run the models over a scene, strip by strip and window by window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.config import Settings
from stac_cloudmask.core import grid
from stac_cloudmask.core.classes import ground_codes
from stac_cloudmask.core.grid import Chip, Grid, Window, in_order, plan_chips, strips
from stac_cloudmask.core.merge import FARMVIBES
from stac_cloudmask.core.pixels import HIGHEST_DN, U16, block_mean, is_damaged, step_of, to_rgb
from stac_cloudmask.core.predict import ROLES, Bands, Member, Mosaic, Role, predict_chips
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.models.spec import ModelSpec, shared_window
from stac_cloudmask.stac.warp import RGB

VISIBLE: Final = ("blue", "green", "red")


class Pixels(Protocol):
    """The digital numbers of a scene, read by rows."""

    @property
    def grid(self) -> Grid:
        """The grid of all bands, and of the mask."""

    @property
    def bands(self) -> Bands:
        """Common names, scales and offsets, in the order of the band axis."""

    @property
    def strip(self) -> int:
        """Preferred number of rows to read at a time."""

    def dn(self, row_off: int, height: int) -> U16:
        """Read ``(band, height, x)`` digital numbers; 0 is nodata."""


@dataclass(frozen=True)
class Part(Member):
    """A model, its roles (``cloud``, ``shadow`` or both), and its description."""

    spec: ModelSpec


@dataclass(frozen=True)
class Pass:
    """One pass over a scene: its windows, row by row, and the models that run on each window."""

    plan: list[list[Chip]]
    parts: list[Part]

    @property
    def is_fixed(self) -> bool:
        """Whether a model has a fixed window size."""
        return any(not part.spec.window.multiple for part in self.parts)

    def within(self, outer: Window) -> Pass:
        """Return the parts of the windows inside ``outer``, relative to its first pixel."""

        def moved(window: Window) -> Window:
            return window.overlap(outer).within(outer)

        return Pass([[Chip(moved(chip.read), moved(chip.write)) for chip in row] for row in self.plan], self.parts)


@dataclass(frozen=True)
class Inference:
    """The probabilities of a scene, and by-products of reading it.

    Attributes:
        cloud: ``(y, x)`` uint8 whole percents of cloud probability, 255 = nodata.
        shadow: The same for cloud shadow.
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of ``nir_factor`` pixels, NaN = nodata; None
            if no model reads that band.
        visible: ``(band, y, x)`` the same of blue, green and red.
        quicklook: ``(y, x, 3)`` uint8, the scene in natural colors, every ``step_of`` pixels; None where no model reads
            red, green and blue.
        ground: ``(y, x)`` uint8 codes of clear ground, see ``ground_codes``; None if not requested.
        damaged: Number of pixels whose digital numbers cannot be reflectance; they are nodata.
    """

    cloud: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    nir: NDArray[np.float32] | None
    visible: NDArray[np.float32] | None
    quicklook: NDArray[np.uint8] | None
    ground: NDArray[np.uint8] | None = None
    damaged: int = 0


def infer(
    scene: Pixels,
    passes: Sequence[Pass],
    *,
    settings: Settings,
    nir_factor: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Inference:
    """Run the models over a scene.

    Args:
        scene: The pixels; the next strip of rows is read while models process the previous one.
        passes: The windows, and the models; several for cloud give their mean.
        settings: Settings of the mask. For the merge of FarmVibes.AI, pixels without data in any band are nodata; the
            kind of ground is derived from its colors only if ``scl`` is to be written.
        nir_factor: Pixels along the side of a block of ``nir`` and ``visible``.
        progress: Called when a row of windows is done.
    """
    bands, as_farmvibes = scene.bands, settings.merge == FARMVIBES
    percents: dict[Role, NDArray[np.uint8]] = {}
    blocks, step = BlockMeans(bands, scene.grid.shape, nir_factor), step_of(scene.grid.shape)
    quicklook, ground = list[NDArray[np.uint8]](), list[NDArray[np.uint8]]()
    damaged = done = 0
    for one in passes:
        roles = [role for role in ROLES if any(role in part.roles for part in one.parts)]
        mosaic = Mosaic(scene.grid.shape, roles, every_band=as_farmvibes)
        percents |= mosaic.percents
        todo, held = deque(one.plan), HeldRows()
        for read in prefetch(scene, in_memory=settings.in_memory):
            rows, count = (read, 0) if as_farmvibes else without_damage(read)
            if one is passes[0]:
                damaged += count
                if settings.scl:
                    ground.append(kinds_of_ground(bands, rows))
                if set(RGB) <= set(bands.names):
                    quicklook.append(sampled(bands, rows, row_off=held.stop, step=step))
                blocks.add(held.stop, rows)
            held.add(rows)
            while todo and todo[0][0].read.rows.stop <= held.stop:
                chips = todo.popleft()
                predictions = predict_chips(chips, held.window, members=one.parts, bands=bands)
                mosaic.add(chips, predictions, below=todo[0][0].write.row_off if todo else None)
                done += 1
                progress(done, sum(len(each.plan) for each in passes))
            held.drop_to(todo[0][0].read.row_off if todo else held.stop)
    nir = blocks.of("nir")
    return Inference(
        cloud=percents["cloud"],
        shadow=percents["shadow"],
        nir=None if nir is None else nir[0],
        visible=blocks.of(*VISIBLE),
        quicklook=np.concatenate(quicklook) if quicklook else None,
        ground=np.concatenate(ground) if ground else None,
        damaged=damaged,
    )


def kinds_of_ground(bands: Bands, rows: U16) -> NDArray[np.uint8]:
    """Return the codes of clear ground in some rows of a scene; see ``ground_codes``."""
    wanted = ("green", "red", "nir")
    if not set(wanted) <= set(bands.names):
        raise ConfigError(f"scl needs models that read green, red and nir; these read {', '.join(bands.names)}")
    return ground_codes(*bands.reflectance(rows, wanted))


def without_damage(dn: U16) -> tuple[U16, int]:
    """Return rows in which pixels whose digital numbers cannot be reflectance are nodata, and the number of these.

    Sentinel-2's digital numbers have 15 bits, or are 65535 where a detector is saturated. Values in between are wrapped
    negative numbers or damage, which models would classify as the brightest clouds.
    """
    if dn.max(initial=0) <= HIGHEST_DN or not (damaged := is_damaged(dn).any(axis=0)).any():
        return dn, 0
    return np.where(damaged, np.uint16(0), dn), int(np.count_nonzero(damaged))


def prefetch(scene: Pixels, *, in_memory: bool = False) -> Iterator[U16]:
    """Yield strips of rows from top to bottom; the next one is read while the caller processes the previous one."""
    height = scene.grid.height
    rows = strips(height, height if in_memory else scene.strip)
    return in_order(lambda strip: scene.dn(strip[0], strip[1] - strip[0]), rows, threads=1, ahead=2)


class HeldRows:
    """The rows that windows still need, kept as the strips that were read: joined, they would be in memory twice."""

    def __init__(self) -> None:
        self._strips: deque[U16] = deque()
        self._start = self.stop = 0

    def add(self, rows: U16) -> None:
        """Append a strip."""
        self._strips.append(rows)
        self.stop += rows.shape[1]

    def drop_to(self, row: int) -> None:
        """Drop the strips that end above ``row``."""
        while self._strips and self._start + self._strips[0].shape[1] <= row:
            self._start += self._strips.popleft().shape[1]

    def window(self, window: Window) -> U16:
        """Return the pixels of a window ``(band, y, x)``."""
        parts, top = [], self._start
        for strip in self._strips:
            first, last = max(window.row_off - top, 0), max(window.rows.stop - top, 0)
            parts.append(strip[:, first:last, window.cols])
            top += strip.shape[1]
        return np.concatenate(parts, axis=1)


def sampled(bands: Bands, rows: U16, *, row_off: int, step: int) -> NDArray[np.uint8]:
    """Return every ``step`` pixels of a strip that begins at ``row_off``, ``(y, x, 3)``, black where nodata."""
    return to_rgb(bands.reflectance(rows[:, -row_off % step :: step, ::step], RGB))


class BlockMeans:
    """The mean reflectance of blocks of pixels, from the strips that inference reads."""

    def __init__(self, bands: Bands, shape: tuple[int, int], factor: int) -> None:
        self._bands, self._factor, self._height = bands, factor, shape[0]
        self._waiting = np.empty((len(bands.names), 0, shape[1]), np.uint16)
        self._strips: list[NDArray[np.float32]] = []

    def add(self, row_off: int, rows: U16) -> None:
        """Average a strip that begins at ``row_off``; rows of an incomplete block wait for the next strip."""
        dn = np.concatenate((self._waiting, rows), axis=1) if self._waiting.size else rows
        is_last = row_off + rows.shape[1] == self._height
        whole = dn.shape[1] if is_last else dn.shape[1] // self._factor * self._factor
        self._waiting = dn[:, whole:].copy()
        if whole:
            mean = np.stack([block_mean(band[:whole], self._factor) for band in dn])
            reflectance = self._bands.reflectance(mean, self._bands.names)
            self._strips.append(np.where(mean > 0, reflectance, np.float32(np.nan)))

    def of(self, *names: str) -> NDArray[np.float32] | None:
        """Return ``(band, y, x)`` float32, NaN = nodata; None if one of the bands is not read."""
        if not set(names) <= set(self._bands.names):
            return None
        at = [self._bands.names.index(name) for name in names]
        return np.concatenate([strip[at] for strip in self._strips], axis=1)


def plan_passes(parts: Sequence[Part], shape: tuple[int, int], *, as_farmvibes: bool) -> list[Pass]:
    """Return the passes over a scene of ``shape``: a single one if all models can share windows.

    Cloud and shadow models run in separate passes only if their files have different fixed windows.

    Args:
        parts: The models.
        shape: Height and width of the scene in pixels.
        as_farmvibes: Whether windows lie as in FarmVibes.AI, which has 512 pixels that share a quarter.

    Raises:
        ConfigError: Models of one role have different fixed windows.
    """
    fixed = {part.spec.window.size for part in parts if not part.spec.window.multiple}
    separate = len(fixed) > 1 and all(len(part.roles) == 1 for part in parts)
    groups = [[part for part in parts if role in part.roles] for role in ROLES] if separate else [list(parts)]
    passes = []
    for group in groups:
        window = shared_window([part.spec for part in group])
        if as_farmvibes:
            overlap = 0 if window.multiple else window.overlap / window.size
            size = grid.FARMVIBES_SIZE if window.multiple else window.size
            plan = grid.farmvibes_chips(*shape, size=size, overlap_fraction=max(grid.FARMVIBES_OVERLAP, overlap))
        else:
            plan = plan_chips(*shape, **asdict(window))
        passes.append(Pass(plan, group))
    return passes
