"""Predict whole-scene probabilities in percent from windows of digital numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.grid import Chip, Window, in_order
from stac_cloudmask.core.pixels import to_reflectance

PERCENT_NODATA: Final = 255
"""Value of a pixel without a probability, among whole percents 0..100."""

Role = Literal["cloud", "shadow"]
ROLES: Final[tuple[Role, ...]] = ("cloud", "shadow")

Probabilities = dict[Role, NDArray[np.float32]]
"""``(y, x)`` probabilities in 0..1 by role: ``cloud``, ``shadow``."""


class Segmenter(Protocol):
    """A model, independent of its runtime."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of its input bands, in its order."""

    def predict(self, reflectance: NDArray[np.float32]) -> Mapping[Role, NDArray[np.float32]]:
        """Return probabilities 0..1, ``(n, y, x)`` by role, of reflectance ``(n, band, y, x)`` of any size."""


@dataclass(frozen=True)
class Member:
    """A model and the roles for which it is used: ``cloud``, ``shadow`` or both."""

    model: Segmenter
    roles: Collection[Role]


@dataclass(frozen=True)
class Bands:
    """The bands of a scene's digital numbers: common names, scales and offsets in the order of the first axis."""

    names: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[int, ...]

    def reflectance(self, dn: NDArray[np.uint16], names: Sequence[str]) -> NDArray[np.float32]:
        """Return the reflectance of some bands of ``dn``, in their order."""
        at = [self.names.index(name) for name in names]
        return to_reflectance(dn[at], scales=[self.scales[i] for i in at], offsets=[self.offsets[i] for i in at])


@dataclass(frozen=True)
class Prediction:
    """The probabilities of one chip.

    Attributes:
        chip: The chip; all arrays cover its ``write`` window.
        dn: ``(band, y, x)`` uint16, as read; 0 is nodata.
        probabilities: Probabilities by role, float32 0..1; None if no pixel has data and no model was run.
    """

    chip: Chip
    dn: NDArray[np.uint16]
    probabilities: Probabilities | None


AHEAD: Final = 2
"""Chips in work at a time: one is in the model, another is prepared for it or comes from it."""
ReadWindow = Callable[[Window], NDArray[np.uint16]]
"""A function that returns the digital numbers ``(band, y, x)`` of a window of a scene."""


def percent(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the number of whole percent steps strictly below a probability, 0..100.

    For every whole percent t, ``p > t / 100`` in float32 exactly where ``percent(p) > t``. ``p`` must be finite and
    in 0..1.
    """
    whole = np.floor(p * np.float32(100))
    above = p > whole / np.float32(100)
    steps: NDArray[np.uint8] = np.clip(whole + above, 0, 100).astype(np.uint8)
    return steps


def predict_chips(
    chips: Sequence[Chip], read: ReadWindow, *, members: Sequence[Member], bands: Bands, nodata: float | None = 0
) -> Iterator[Prediction]:
    """Yield the prediction of each chip, in their order; several models of a role are averaged.

    Chips without data have none.

    Args:
        chips: Chips, for example one row of a plan.
        read: Gives the scene's digital numbers; called once for each chip, by several threads.
        members: The models, each once; together they may have several models per role.
        bands: The bands that ``read`` returns.
        nodata: The digital number of pixels without data; None if all have data.
    """

    def predicted(chip: Chip) -> Prediction:
        dn = read(chip.read)
        inner = dn[:, *chip.inner.slices]
        holds_data = nodata is None or (inner != nodata).any()
        return Prediction(chip, inner, _mean_of_members(dn, chip, members, bands) if holds_data else None)

    return in_order(predicted, chips, threads=AHEAD)


class Mosaic:
    """A scene in whole percents, assembled from the windows of a plan.

    Each window is blended over its whole overlap with previous windows, starting from its edge, which avoids visible
    borders; for a model that works on single pixels, the result is bit-identical to that without windows.

    Attributes:
        percents: The scene by role, ``(y, x)`` uint8: see ``percent``; 255 where nodata or outside all windows.
    """

    def __init__(self, shape: tuple[int, int], roles: Sequence[Role], *, every_band: bool = False) -> None:
        """Start with an empty scene.

        Args:
            shape: Height and width in pixels.
            roles: Roles of the models.
            every_band: Whether a pixel that lacks one band is nodata already, not only one that lacks all.
        """
        self.percents = {role: np.full(shape, PERCENT_NODATA, np.uint8) for role in roles}
        self._every_band = every_band
        self._above = np.empty((len(roles), 0, shape[1]), np.float32)

    def add(self, chips: Sequence[Chip], predictions: Iterable[Prediction], *, below: int | None) -> None:
        """Add a row of windows below the previous ones.

        Args:
            chips: The row of the plan.
            predictions: Of its chips, in their order.
            below: First row of the next row of windows; None after the last.
        """
        _, width = next(iter(self.percents.values())).shape
        window = chips[0].write
        done = window.height if below is None else below - window.row_off
        above, self._above = self._above, np.empty((len(self.percents), window.height - done, width), np.float32)
        left: NDArray[np.float32] | None = None
        nexts = [chip.write.col_off for chip in chips[1:]]
        for prediction, right in zip(predictions, [*nexts, chips[-1].write.cols.stop], strict=True):
            start = prediction.chip.write.col_off
            size = prediction.dn.shape[1:]
            # without probabilities all is nodata, and no value is used
            found = prediction.probabilities or dict.fromkeys(self.percents, np.zeros(size, np.float32))
            answer = np.stack([found[role] for role in self.percents])
            answer = answer if left is None else faded(left, answer, axis=2)
            answer, left = np.split(answer, [right - start], axis=2)
            answer = faded(above[:, :, start:right], answer, axis=1)
            self._above[:, :, start:right] = answer[:, done:]
            where = slice(window.row_off, window.row_off + done), slice(start, right)
            self._store(answer[:, :done], prediction, where)

    def _store(self, answer: NDArray[np.float32], prediction: Prediction, where: tuple[slice, slice]) -> None:
        dn = prediction.dn[:, : answer.shape[1], : answer.shape[2]]
        valid = (dn > 0).all(axis=0) if self._every_band else (dn > 0).any(axis=0)
        for layer, scene in zip(answer, self.percents.values(), strict=True):
            scene[where] = np.where(valid, percent(layer), PERCENT_NODATA)


def faded(before: NDArray[np.float32], after: NDArray[np.float32], *, axis: int) -> NDArray[np.float32]:
    """Return ``after`` with its first part blended with ``before``, which covers that part of the axis."""
    shared = before.shape[axis]
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(shared, dtype=np.float32) + 0.5) / max(shared, 1))).astype(np.float32)
    head, rest = np.split(after, [shared], axis=axis)
    ramp = ramp.reshape([-1 if i == axis else 1 for i in range(after.ndim)])
    return np.concatenate([before + ramp * (head - before), rest], axis=axis)


def _mean_of_members(dn: NDArray[np.uint16], chip: Chip, members: Sequence[Member], bands: Bands) -> Probabilities:
    answers: dict[Role, list[NDArray[np.float32]]] = {}
    reflectance = {names: bands.reflectance(dn, names)[None] for names in {member.model.bands for member in members}}
    for member in members:
        given = member.model.predict(reflectance[member.model.bands])
        for role in member.roles:
            answers.setdefault(role, []).append(given[role][0][chip.inner.slices])
    return {role: many[0] if len(many) == 1 else np.mean(many, axis=0) for role, many in answers.items()}
