"""From windows of digital numbers to whole-scene probabilities in percent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.reflectance import to_reflectance

if TYPE_CHECKING:
    from stac_cloudmask.core.grid import Chip, Window

PERCENT_NODATA: Final = 255
"""Value of a pixel without a probability, among whole percents 0..100."""

Role = Literal["cloud", "shadow"]
ROLES: Final[tuple[Role, ...]] = ("cloud", "shadow")

Probabilities = dict[Role, NDArray[np.float32]]
"""``(y, x)`` probabilities in 0..1 by role: ``cloud``, ``shadow``."""


class Segmenter(Protocol):
    """A model, whatever runs it."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of the bands that it sees, in its order."""

    def predict(self, reflectance: NDArray[np.float32]) -> Mapping[Role, NDArray[np.float32]]:
        """Probabilities 0..1, ``(n, y, x)`` by role, for reflectance ``(n, band, y, x)`` of any height and width."""


@dataclass(frozen=True)
class Member:
    """A model and the roles that it is asked for: ``cloud``, ``shadow`` or both."""

    model: Segmenter
    roles: Collection[Role]


@dataclass(frozen=True)
class Bands:
    """How the first axis of a scene's digital numbers is read: common names, scales and offsets in its order."""

    names: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class Prediction:
    """What the models say of one chip.

    Attributes:
        chip: The chip; all arrays cover its ``write`` window.
        dn: ``(band, y, x)`` uint16, as read; 0 is nodata.
        valid: ``(y, x)``, True where any band has data.
        probabilities: By role, float32 0..1; None where no pixel is valid and no model was asked.
    """

    chip: Chip
    dn: NDArray[np.uint16]
    valid: NDArray[np.bool_]
    probabilities: Probabilities | None


ReadWindow = Callable[["Window"], NDArray[np.uint16]]
"""The digital numbers ``(band, y, x)`` of a window of a scene."""


def percent(p: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Number of whole percent steps strictly below a probability, 0..100.

    The law: for every whole percent t, ``p > t / 100`` in float32 exactly where ``percent(p) > t``. ``p`` is finite and
    in 0..1.
    """
    whole = np.floor(p * np.float32(100))
    above = p > whole / np.float32(100)
    steps: NDArray[np.uint8] = np.clip(whole, 0, 100, out=whole).astype(np.uint8)
    steps += above
    np.minimum(steps, 100, out=steps)
    return steps


def predict_chips(
    chips: Sequence[Chip], read: ReadWindow, *, members: Sequence[Member], bands: Bands
) -> Iterator[Prediction]:
    """What the models say of each chip; several models of a role give their mean.

    Args:
        chips: For example one row of a plan.
        read: Gives the scene's digital numbers; called once for each chip, in their order.
        members: The models, each once; together they may have several models per role.
        bands: The bands that ``read`` gives.
    """
    for chip in chips:
        dn = read(chip.read)
        inner = dn[:, *chip.inner.slices]
        valid = np.bitwise_or.reduce(inner, axis=0) > 0
        answer = _mean_of_members(dn, chip, members, bands) if valid.any() else None
        yield Prediction(chip, inner, valid, answer)


def predict_rows(
    chips: Sequence[Chip],
    read: ReadWindow,
    *,
    members: Sequence[Member],
    bands: Bands,
    out: Mapping[Role, NDArray[np.uint8]],
    every_band: bool = False,
) -> None:
    """Fill the rows that one row of chips answers for, in whole percent; see ``predict_chips``.

    Args:
        chips: One row of a plan.
        read: Gives the scene's digital numbers.
        members: The models.
        bands: The bands that ``read`` gives.
        out: By role, the whole scene ``(y, x)`` uint8: see ``percent``; 255 where all bands are nodata.
        every_band: Whether 255 stands already where one band is nodata.
    """
    for prediction in predict_chips(chips, read, members=members, bands=bands):
        store(prediction, out, every_band=every_band)


def store(prediction: Prediction, out: Mapping[Role, NDArray[np.uint8]], *, every_band: bool = False) -> None:
    """Write one prediction into whole scenes ``(y, x)`` by role, in whole percent.

    255 is where all bands are nodata, or, with ``every_band``, where one is.
    """
    where = prediction.chip.write.slices
    valid = (prediction.dn > 0).all(axis=0) if every_band else prediction.valid
    for role, scene in out.items():
        if prediction.probabilities is None:
            scene[where] = PERCENT_NODATA
        else:
            scene[where] = np.where(valid, percent(prediction.probabilities[role]), PERCENT_NODATA)


def _mean_of_members(dn: NDArray[np.uint16], chip: Chip, members: Sequence[Member], bands: Bands) -> Probabilities:
    reflectance = to_reflectance(dn, scales=bands.scales, offsets=bands.offsets)[None]
    answers: dict[Role, list[NDArray[np.float32]]] = {}
    for member in members:
        wanted = [bands.names.index(name) for name in member.model.bands]
        seen = reflectance if wanted == list(range(len(bands.names))) else reflectance[:, wanted]
        given = member.model.predict(seen)
        for role in member.roles:
            answers.setdefault(role, []).append(given[role][0][chip.inner.slices])
    return {role: many[0] if len(many) == 1 else np.mean(many, axis=0) for role, many in answers.items()}
