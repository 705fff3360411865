"""Run the models over a scene: strips of rows, windows, percent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from stac_cloudmask.core.grid import FARMVIBES_OVERLAP, FARMVIBES_SIZE, farmvibes_chips, plan_chips
from stac_cloudmask.core.predict import ROLES, Bands, Member, Mosaic, predict_chips
from stac_cloudmask.core.reflectance import block_mean, is_damaged, to_reflectance, to_rgb
from stac_cloudmask.core.votes import ground_codes
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.models.spec import shared_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Chip, Grid, Window
    from stac_cloudmask.core.predict import Role
    from stac_cloudmask.models.spec import ModelSpec, ModelWindow

    U16 = NDArray[np.uint16]

SIDE: Final = 1200
"""Samples along the longest side of a quicklook: two for each pixel of a thumbnail."""
RGB: Final = ("red", "green", "blue")
VISIBLE: Final = ("blue", "green", "red")
NIR: Final = "nir"

Progress = Callable[[int, int], None]
"""Called with how many rows of windows are done, of how many."""


class Pixels(Protocol):
    """The digital numbers of a scene, read by rows."""

    @property
    def grid(self) -> Grid:
        """The grid of all bands, and of the mask."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names, in the order of the band axis."""

    @property
    def scales(self) -> tuple[float, ...]:
        """Reflectance per digital number, by band."""

    @property
    def offsets(self) -> tuple[int, ...]:
        """Digital numbers to add before scaling, by band."""

    @property
    def strip(self) -> int:
        """Number of rows that are best read at a time."""

    def dn(self, row_off: int, height: int) -> U16:
        """Read ``(band, height, x)`` digital numbers; 0 is nodata."""


@dataclass(frozen=True)
class Part:
    """A model, what it is asked for (``cloud``, ``shadow`` or both), and its description."""

    spec: ModelSpec
    member: Member


@dataclass(frozen=True)
class Inference:
    """What one pass over a scene yields.

    Attributes:
        cloud: ``(y, x)`` uint8 whole percents of cloud probability, 255 = nodata.
        shadow: The same for cloud shadow.
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of ``nir_factor`` pixels, NaN = nodata; None
            where no model reads that band.
        visible: ``(band, y, x)`` the same of blue, green and red.
        quicklook: ``(y, x, 3)`` uint8, the scene in natural colors, every ``step_of`` pixels; None where no model reads
            red, green and blue.
        ground: ``(y, x)`` uint8 codes of clear ground, see ``ground_codes``; None where nobody asked.
        damaged: Pixels whose digital numbers cannot be reflectance; they are nodata.
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
    parts: Sequence[Part],
    *,
    nir_factor: int,
    in_memory: bool = False,
    as_farmvibes: bool = False,
    want_ground: bool = False,
    progress: Progress = lambda *_: None,
) -> Inference:
    """Run the models over every pixel.

    The scene is read once, and all models run on each window, wherever one kind of window suits them all.

    Args:
        scene: The pixels; the next strip of rows is read while models work on the last one.
        parts: The models; several for cloud give their mean.
        nir_factor: Pixels along the side of a block of ``nir`` and ``visible``.
        in_memory: Whether the whole scene is read first; the result is the same to the bit.
        as_farmvibes: Lay windows, and take pixels without data in any band for nodata, as FarmVibes.AI does.
        want_ground: Whether the kind of ground is derived from its colors, pixel by pixel.
        progress: Called as rows of windows are done.

    Raises:
        ConfigError: Models of one role fix different windows.
    """
    bands = Bands(scene.bands, scene.scales, scene.offsets)
    percents: dict[Role, NDArray[np.uint8]] = {}
    quicklook, blocks = Quicklook(scene), BlockMeans(scene, nir_factor)
    passes, damaged = plan_passes(parts), 0
    ground: list[NDArray[np.uint8]] = []
    for number, (window, group) in enumerate(passes):
        members = [part.member for part in group]
        roles = [role for role in ROLES if any(role in member.roles for member in members)]
        mosaic = Mosaic(scene.grid.shape, roles, every_band=as_farmvibes)
        percents |= mosaic.percents
        plan = plan_windows(*scene.grid.shape, window, as_farmvibes=as_farmvibes)
        todo, held = deque(plan), HeldRows()
        for read in prefetch(scene, in_memory=in_memory):
            rows, count = (read, 0) if as_farmvibes else without_damage(read)
            if number == 0:
                damaged += count
                if want_ground:
                    ground.append(kinds_of_ground(scene, rows))
                quicklook.add(held.stop, rows)
                blocks.add(held.stop, rows)
            held.add(rows)
            while todo and todo[0][0].read.rows.stop <= held.stop:
                chips = todo.popleft()
                predictions = predict_chips(chips, held.window, members=members, bands=bands)
                mosaic.add(chips, predictions, below=todo[0][0].write.row_off if todo else None)
                progress((number + 1) * len(plan) - len(todo), len(passes) * len(plan))
            held.drop_to(todo[0][0].read.row_off if todo else held.stop)
    nir = blocks.of(NIR)
    return Inference(
        cloud=percents["cloud"],
        shadow=percents["shadow"],
        nir=None if nir is None else nir[0],
        visible=blocks.of(*VISIBLE),
        quicklook=quicklook.rgb,
        ground=np.concatenate(ground) if ground else None,
        damaged=damaged,
    )


def kinds_of_ground(scene: Pixels, rows: U16) -> NDArray[np.uint8]:
    """Return the codes of clear ground in some rows of a scene; see ``ground_codes``."""
    if not {"green", "red", NIR} <= set(scene.bands):
        raise ConfigError(f"scl needs models that read green, red and nir; these read {', '.join(scene.bands)}")
    at = [scene.bands.index(name) for name in ("green", "red", NIR)]
    scales, offsets = [scene.scales[i] for i in at], [scene.offsets[i] for i in at]
    return ground_codes(*to_reflectance(rows[at], scales=scales, offsets=offsets))


def without_damage(dn: U16) -> tuple[U16, int]:
    """Return rows in which pixels whose digital numbers cannot be reflectance are nodata, and how many these are.

    Sentinel-2's digital numbers have 15 bits, and 65535 where a detector is saturated. What lies between are wrapped
    negative numbers or damage; models would take it for the brightest of clouds.
    """
    damaged = is_damaged(dn).any(axis=0)
    count = int(np.count_nonzero(damaged))
    return (np.where(damaged, np.uint16(0), dn) if count else dn), count


def prefetch(scene: Pixels, *, in_memory: bool = False) -> Iterator[U16]:
    """Yield strips of rows from top to bottom; the next one is read while the caller works on the last one."""
    height = scene.grid.height
    strip = height if in_memory else scene.strip
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        ahead: Future[U16] | None = None
        for top in range(0, height, strip):
            following = pool.submit(scene.dn, top, min(strip, height - top))
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()


class HeldRows:
    """The rows that windows still need, as strips come in at the bottom."""

    def __init__(self) -> None:
        self._rows: U16 | None = None
        self.stop = 0

    def add(self, rows: U16) -> None:
        """Append a strip."""
        self._rows = rows if self._rows is None else np.concatenate((self._rows, rows), axis=1)
        self.stop += rows.shape[1]

    def drop_to(self, row: int) -> None:
        """Forget the rows above ``row``."""
        if self._rows is not None:
            kept = self._rows[:, max(row - self._start, 0) :]
            self._rows = kept.copy() if kept.shape[1] else None

    def window(self, window: Window) -> U16:
        """Return the pixels of a window ``(band, y, x)``; not to be written to."""
        if self._rows is None:
            raise ValueError("no rows are held")
        first = window.row_off - self._start
        return self._rows[:, first : first + window.height, window.cols]

    @property
    def _start(self) -> int:
        return self.stop - (0 if self._rows is None else self._rows.shape[1])


def step_of(shape: tuple[int, int]) -> int:
    """Return the distance in pixels between the samples of the quicklook of a scene of ``shape``."""
    return max(1, -(-max(shape) // SIDE))


class Quicklook:
    """The scene in natural colors, sampled from the strips that inference reads."""

    def __init__(self, scene: Pixels) -> None:
        wanted = [scene.bands.index(name) for name in RGB if name in scene.bands]
        self._indexes = wanted if len(wanted) == len(RGB) else []
        self._scales = [scene.scales[index] for index in self._indexes]
        self._offsets = [scene.offsets[index] for index in self._indexes]
        self._step = step_of(scene.grid.shape)
        self._strips: list[NDArray[np.uint8]] = []

    def add(self, row_off: int, rows: U16) -> None:
        """Sample a strip that begins at ``row_off``; strips come from top to bottom."""
        if self._indexes:
            dn = rows[self._indexes, -row_off % self._step :: self._step, :: self._step]
            self._strips.append(to_rgb(to_reflectance(dn, scales=self._scales, offsets=self._offsets)))

    @property
    def rgb(self) -> NDArray[np.uint8] | None:
        """``(y, x, 3)`` uint8, black where nodata; None where one of the three bands is not read."""
        return np.concatenate(self._strips) if self._strips else None


class BlockMeans:
    """The mean reflectance of blocks of pixels, from the strips that inference reads."""

    def __init__(self, scene: Pixels, factor: int) -> None:
        self._bands = [str(name) for name in (*VISIBLE, NIR) if name in scene.bands]
        self._index = [scene.bands.index(name) for name in self._bands]
        self._scales = [scene.scales[i] for i in self._index]
        self._offsets = [scene.offsets[i] for i in self._index]
        self._factor, self._height = factor, scene.grid.height
        self._waiting = np.empty((len(self._index), 0, scene.grid.width), np.uint16)
        self._strips: list[NDArray[np.float32]] = []

    def add(self, row_off: int, rows: U16) -> None:
        """Average a strip that begins at ``row_off``; rows of an incomplete block wait for the next strip."""
        dn = np.concatenate((self._waiting, rows[self._index]), axis=1)
        is_last = row_off + rows.shape[1] == self._height
        whole = dn.shape[1] if is_last else dn.shape[1] // self._factor * self._factor
        self._waiting = dn[:, whole:].copy()
        if whole and self._index:
            mean = block_mean(dn[:, :whole], self._factor)
            reflectance = to_reflectance(mean, scales=self._scales, offsets=self._offsets)
            self._strips.append(np.where(mean > 0, reflectance, np.float32(np.nan)))

    def of(self, *names: str) -> NDArray[np.float32] | None:
        """``(band, y, x)`` float32, NaN = nodata; None where one of the bands is not read."""
        if not set(names) <= set(self._bands):
            return None
        means = np.concatenate(self._strips, axis=1)
        return means[[self._bands.index(name) for name in names]]


def plan_passes(parts: Sequence[Part]) -> list[tuple[ModelWindow, list[Part]]]:
    """Group models that share a pass over the scene, each group with windows that suit all of it.

    Only where files fix different windows do cloud and shadow models run one after the other.
    """
    fixed = {part.spec.window.size for part in parts if not part.spec.window.multiple}
    separate = len(fixed) > 1 and all(len(part.member.roles) == 1 for part in parts)
    groups = [[part for part in parts if role in part.member.roles] for role in ROLES] if separate else [list(parts)]
    return [(shared_window([part.spec for part in group]), group) for group in groups]


def plan_windows(height: int, width: int, window: ModelWindow, *, as_farmvibes: bool) -> list[list[Chip]]:
    """Return rows of chips; FarmVibes.AI has windows of 512 that share a quarter, or what a fixed model asks for."""
    if not as_farmvibes:
        return plan_chips(height, width, **asdict(window))
    if window.multiple:
        return farmvibes_chips(height, width, size=FARMVIBES_SIZE, overlap_fraction=FARMVIBES_OVERLAP)
    overlap = max(FARMVIBES_OVERLAP, window.overlap / window.size)
    return farmvibes_chips(height, width, size=window.size, overlap_fraction=overlap)
