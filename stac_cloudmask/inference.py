"""A scene and its models to evidence: rows stream through the windows, compact percents stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stac_cloudmask.core.predict import ROLES, Bands, Member, predict_rows
from stac_cloudmask.core.reflectance import block_mean, to_reflectance
from stac_cloudmask.core.windows import SEED_OVERLAP, plan_chips, seed_chips
from stac_cloudmask.models.metadata import shared_window
from stac_cloudmask.readahead import Read, row_stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.core.windows import Chip
    from stac_cloudmask.models.metadata import ModelSpec, ModelWindow

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
    as_seed: bool = False,
) -> Percents:
    """Ask the models for every pixel.

    All models are asked together, and the scene is read once, wherever one kind of window suits them all.

    Args:
        scene: The pixels; read by rows, one block ahead of the models, or whole first if ``in_memory``.
        parts: The models; several for cloud give their mean.
        nir_factor: Pixels along the side of a block of ``nir``.
        in_memory: Changes when pixels are read, nothing else.
        progress: Called as rows are done.
        as_seed: Lay windows, and take pixels without data in any band for nodata, as FarmVibes.AI does.

    Raises:
        ConfigError: Models of one role fix different windows.
    """
    read = _whole(scene) if in_memory else scene.dn
    out = {role: np.empty(scene.grid.shape, np.uint8) for role in ("cloud", "shadow")}
    blocks = _NirBlocks(scene, nir_factor, read)
    passes = plan_passes(parts)
    for number, (window, group) in enumerate(passes):
        plan = plan_windows(*scene.grid.shape, window, as_seed=as_seed)
        members = [part.member for part in group]
        roles = {role for member in members for role in member.roles}
        with row_stream(read if number else blocks.read, height=scene.grid.height, block=scene.strip) as stream:
            for done, chips in enumerate(plan, start=1):
                parts_of = {role: out[role] for role in roles}
                predict_rows(chips, stream.window, members=members, bands=scene.bands, out=parts_of, every_band=as_seed)
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


def plan_windows(height: int, width: int, window: ModelWindow, *, as_seed: bool) -> list[list[Chip]]:
    """Rows of chips; FarmVibes.AI's neighbors share a quarter of a window, or what a model asks for if that is more."""
    if not as_seed:
        return plan_chips(height, width, **asdict(window))
    overlap = max(SEED_OVERLAP, window.overlap / window.size)
    return seed_chips(height, width, size=window.size, overlap_fraction=overlap)


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
