"""Run the models over a scene: rows read ahead, windows, percent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from stac_cloudmask.core.grid import FARMVIBES_OVERLAP, farmvibes_chips, plan_chips
from stac_cloudmask.core.predict import ROLES, Bands, Member, predict_rows
from stac_cloudmask.core.reflectance import block_mean, to_reflectance, to_rgb
from stac_cloudmask.models.spec import shared_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Chip, Grid, Window
    from stac_cloudmask.core.predict import Bands
    from stac_cloudmask.models.spec import ModelSpec, ModelWindow

Read = Callable[[int, int], "NDArray[np.uint16]"]
"""``read(row_off, height)`` gives ``(band, height, x)``."""


class RowStream:
    """Gives any window, as long as windows only move down.

    Holds the blocks of rows that the last window touches, or what is left of them. While that one is worked on, another
    thread reads the block that a window right below would need, if it is not held: a scene takes little more memory
    than its windows.
    """

    def __init__(self, read: Read, *, height: int, block: int, pool: ThreadPoolExecutor) -> None:
        self._read, self._height, self._block, self._pool = read, height, block, pool
        self._held: deque[NDArray[np.uint16]] = deque()
        self._first = self._end = self._start = 0
        self._ahead: Future[NDArray[np.uint16]] | None = None
        self._read_to(1)

    def window(self, window: Window) -> NDArray[np.uint16]:
        """The pixels of a window of at least one row, ``(band, y, x)``; not to be written to."""
        start, stop = window.rows.start, window.rows.stop
        if start < self._start:
            raise ValueError(f"rows only move down: {start} asked for after {self._start}")
        if stop > self._height:
            raise ValueError(f"the scene has only {self._height} rows, {stop} asked for")
        self._start = start
        self._let_go(start)
        while self._end < stop:
            self._read_to(stop)
            self._take()
            self._let_go(start)
        self._read_to(2 * stop - start)
        wanted = [
            block[:, max(start - first, 0) : max(stop - first, 0), window.cols] for first, block in self._blocks()
        ]
        wanted = [rows for rows in wanted if rows.shape[1]]
        return wanted[0] if len(wanted) == 1 else np.concatenate(wanted, axis=1)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint16]]]:
        first = self._first
        for block in self._held:
            yield first, block
            first += block.shape[1]

    def _let_go(self, start: int) -> None:
        while self._held and self._first + self._held[0].shape[1] <= start:
            self._first += self._held.popleft().shape[1]
        passed = start - self._first
        if self._held and 2 * passed >= self._held[0].shape[1]:  # most of it: what is left is worth a copy
            self._held[0] = self._held[0][:, passed:].copy()
            self._first = start

    def _read_to(self, stop: int) -> None:
        """Have the next block read, unless that is under way or there are rows up to ``stop``."""
        if self._ahead is None and self._end < min(stop, self._height):
            count = min(self._block, self._height - self._end)
            self._ahead = self._pool.submit(self._read, self._end, count)

    def _take(self) -> None:
        if self._ahead is not None:
            block = self._ahead.result()
            self._ahead = None
            self._held.append(block)
            self._end += block.shape[1]


@contextmanager
def row_stream(read: Read, *, height: int, block: int) -> Iterator[RowStream]:
    """A `RowStream` whose reading thread ends with the block."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        yield RowStream(read, height=height, block=block, pool=pool)


SIDE: Final = 1200
"""Samples along the longest side: two for each pixel of a thumbnail."""
ROWS: Final = 64
"""Rows of samples that are colored at once: all together would take 100 MB for a while."""
RGB: Final = ("red", "green", "blue")


def step_of(shape: tuple[int, int]) -> int:
    """Pixels of a scene of ``shape`` from one sample of its quicklook to the next."""
    return max(1, -(-max(shape) // SIDE))


class Quicklook:
    """Samples red, green and blue while rows are read; costs no read of its own."""

    def __init__(self, bands: Bands, shape: tuple[int, int], read: Read) -> None:
        """Sample rows of a scene of ``shape`` (height, width) as ``read`` gives them."""
        self._bands, self._read = bands, read
        self._indexes = [bands.names.index(name) for name in RGB if name in bands.names]
        self._step = step_of(shape)
        self._dn = np.zeros((len(RGB), *(-(-side // self._step) for side in shape)), np.uint16)

    def read(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """Rows as the scene has them, in any order."""
        dn = self._read(row_off, height)
        first = -(-row_off // self._step)
        for plane, index in zip(self._dn, self._indexes, strict=False):
            rows = dn[index, first * self._step - row_off :: self._step, :: self._step]
            plane[first : first + len(rows)] = rows
        return dn

    @property
    def rgb(self) -> NDArray[np.uint8] | None:
        """``(y, x, 3)`` uint8, black where nodata; None where no model reads all three bands."""
        if len(self._indexes) < len(RGB):
            return None
        scales = [self._bands.scales[index] for index in self._indexes]
        offsets = [self._bands.offsets[index] for index in self._indexes]
        strips = (self._dn[:, top : top + ROWS] for top in range(0, self._dn.shape[1], ROWS))
        return np.concatenate([to_rgb(to_reflectance(dn, scales=scales, offsets=offsets)) for dn in strips])


Progress = Callable[[int, int], None]
"""Told how many rows of windows are done, of how many."""


class Pixels(Protocol):
    """An open scene."""

    @property
    def grid(self) -> Grid:
        """Of all bands, and of the mask."""

    @property
    def bands(self) -> Bands:
        """Names, scales and offsets of the digital numbers."""

    @property
    def strip(self) -> int:
        """Rows in which it is read best."""

    def dn(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """``(band, height, x)`` digital numbers; 0 is nodata."""


@dataclass(frozen=True)
class Part:
    """A model, what it is asked for (``cloud``, ``shadow`` or both), and its description."""

    spec: ModelSpec
    member: Member


@dataclass(frozen=True)
class Percents:
    """What the models say of a whole scene.

    Attributes:
        cloud: ``(y, x)`` uint8 whole percents of cloud probability, 255 = nodata.
        shadow: The same for cloud shadow.
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of ``nir_factor`` pixels, NaN = nodata; None
            where no model reads that band.
        nir_factor: Pixels along the side of a block.
    """

    cloud: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    nir: NDArray[np.float32] | None
    nir_factor: int


def infer(
    scene: Pixels,
    parts: Sequence[Part],
    *,
    nir_factor: int,
    in_memory: bool,
    progress: Progress,
    as_farmvibes: bool = False,
) -> Percents:
    """Ask the models for every pixel.

    All models are asked together, and the scene is read once, wherever one kind of window suits them all.

    Args:
        scene: The pixels; read by rows, one block ahead of the models, or whole first if ``in_memory``.
        parts: The models; several for cloud give their mean.
        nir_factor: Pixels along the side of a block of ``nir``.
        in_memory: Changes when pixels are read, nothing else.
        progress: Called as rows are done.
        as_farmvibes: Lay windows, and take pixels without data in any band for nodata, as FarmVibes.AI does.

    Raises:
        ConfigError: Models of one role fix different windows.
    """
    read = _whole(scene) if in_memory else scene.dn
    out = {role: np.empty(scene.grid.shape, np.uint8) for role in ("cloud", "shadow")}
    blocks = _NirBlocks(scene, nir_factor, read)
    passes = plan_passes(parts)
    for number, (window, group) in enumerate(passes):
        plan = plan_windows(*scene.grid.shape, window, as_farmvibes=as_farmvibes)
        members = [part.member for part in group]
        roles = {role for member in members for role in member.roles}
        with row_stream(read if number else blocks.read, height=scene.grid.height, block=scene.strip) as stream:
            for done, chips in enumerate(plan, start=1):
                parts_of = {role: out[role] for role in roles}
                predict_rows(
                    chips, stream.window, members=members, bands=scene.bands, out=parts_of, every_band=as_farmvibes
                )
                progress(number * len(plan) + done, len(passes) * len(plan))
    return Percents(out["cloud"], out["shadow"], blocks.nir, nir_factor)


def _whole(scene: Pixels) -> Read:
    dn = scene.dn(0, scene.grid.height)

    def read(row_off: int, height: int) -> NDArray[np.uint16]:
        return dn[:, row_off : row_off + height]

    return read


def plan_passes(parts: Sequence[Part]) -> list[tuple[ModelWindow, list[Part]]]:
    """Models that are asked together, and windows that suit them all; each pass reads the scene once.

    Only where files fix different windows are cloud and shadow asked one after the other.
    """
    fixed = {part.spec.window.size for part in parts if not part.spec.window.multiple}
    apart = len(fixed) > 1 and all(len(part.member.roles) == 1 for part in parts)
    groups = [[part for part in parts if role in part.member.roles] for role in ROLES] if apart else [list(parts)]
    return [(shared_window([part.spec for part in group]), group) for group in groups]


def plan_windows(height: int, width: int, window: ModelWindow, *, as_farmvibes: bool) -> list[list[Chip]]:
    """Rows of chips; FarmVibes.AI's neighbors share a quarter of a window, or what a model asks for if that is more."""
    if not as_farmvibes:
        return plan_chips(height, width, **asdict(window))
    overlap = max(FARMVIBES_OVERLAP, window.overlap / window.size)
    return farmvibes_chips(height, width, size=window.size, overlap_fraction=overlap)


class _NirBlocks:
    """Averages the near infrared while rows pass by, top to bottom."""

    def __init__(self, scene: Pixels, factor: int, read: Read) -> None:
        self._bands, self._factor, self._read, self._height = scene.bands, factor, read, scene.grid.height
        self._index = scene.bands.names.index("nir") if "nir" in scene.bands.names else None
        self._waiting = np.empty((1, 0, scene.grid.width), np.uint16)
        self.nir = None if self._index is None else np.empty(scene.grid.coarsen(factor).shape, np.float32)

    def read(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """Rows as the scene has them; each call goes on where the last one ended."""
        dn = self._read(row_off, height)
        if self.nir is not None and self._index is not None:
            rows = np.concatenate((self._waiting, dn[self._index : self._index + 1]), axis=1)
            first = (row_off + height - rows.shape[1]) // self._factor
            is_last = row_off + height == self._height
            whole = rows.shape[1] if is_last else rows.shape[1] // self._factor * self._factor
            self._waiting = rows[:, whole:].copy()
            if whole:
                mean = self._reflectance(rows[:, :whole])
                self.nir[first : first + len(mean)] = mean
        return dn

    def _reflectance(self, dn: NDArray[np.uint16]) -> NDArray[np.float32]:
        mean = block_mean(dn, self._factor)
        index = slice(self._index, None if self._index is None else self._index + 1)
        reflectance = to_reflectance(mean, scales=self._bands.scales[index], offsets=self._bands.offsets[index])
        blocks: NDArray[np.float32] = np.where(mean > 0, reflectance, np.float32(np.nan))[0]
        return blocks
