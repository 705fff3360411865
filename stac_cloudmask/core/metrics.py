"""Confusion matrices, scores, and maps of agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from stac_cloudmask.core.classes import CLASSES, FALSE, MISSED, MISTAKEN, CloudClass
from stac_cloudmask.core.morphology import dilate

Codes = NDArray[np.uint8]
Interval = tuple[float, float]
Table = tuple[tuple[int, ...], ...]

ROUNDING: Final = 1e-6
"""Fraction of a pixel by which a distance may exceed the tolerance, to allow for floating-point error."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """The scores of one class against all others, each in 0..1; None if undefined (0 / 0).

    Attributes:
        producers_accuracy: Share of the reference's pixels that the mask found (recall).
        users_accuracy: Share of the mask's pixels that are right (precision).
        f1: Harmonic mean of the two.
        iou: Intersection over union of mask and reference.
        balanced_accuracy: Mean of the producer's accuracies of this class and of everything else.
        tolerant_f1: ``f1`` where a pixel also counts as right or found if the other side has the class within the
            tolerance: errors along a boundary are forgiven, missed and invented objects are not.
        reference_pixels: Judged pixels of the class in the reference.
        mask_pixels: Judged pixels of the class in the mask.
        producers_accuracy_95: The 95 % Wilson interval of the producer's accuracy. It assumes independent pixels;
            neighbors are correlated, so the true interval is wider.
        users_accuracy_95: The same for the user's accuracy.
    """

    producers_accuracy: float | None
    users_accuracy: float | None
    f1: float | None
    iou: float | None
    balanced_accuracy: float | None
    tolerant_f1: float | None
    reference_pixels: int
    mask_pixels: int
    producers_accuracy_95: Interval | None
    users_accuracy_95: Interval | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Pixel counts of a class map against a reference; those of several scenes add up.

    Attributes:
        codes: The class codes, in the order of rows and columns; the first one stands for all that is not judged.
        counts: The confusion matrix: ``counts[i][j]`` pixels are ``codes[i]`` in the reference and ``codes[j]`` in the
            mask.
        near: Per code, the mask's pixels with the reference's class within the tolerance, and the reference's pixels
            with the mask's class within the tolerance.
    """

    codes: tuple[int, ...]
    counts: Table
    near: Table

    def __add__(self, other: Agreement) -> Agreement:
        """Return the counts of both, which must judge the same classes."""
        if self.codes != other.codes:
            raise ValueError(f"agreements on different classes do not add up: {self.codes} and {other.codes}")
        counts, near = np.add(self.counts, other.counts), np.add(self.near, other.near)
        return Agreement(codes=self.codes, counts=_table(counts), near=_table(near))

    @property
    def pixels(self) -> int:
        """Number of judged pixels."""
        return sum(map(sum, self.counts))

    @property
    def overall_accuracy(self) -> float | None:
        """Share of the judged pixels on which mask and reference agree."""
        return _ratio(sum(row[i] for i, row in enumerate(self.counts)), self.pixels)

    @property
    def balanced_overall_accuracy(self) -> float | None:
        """Mean producer's accuracy of the classes that the reference has, each with the same weight."""
        shares = [_ratio(row[i], sum(row)) for i, row in enumerate(self.counts)]
        present = [share for share in shares if share is not None]
        return _ratio(sum(present), len(present))

    def scores(self, code: int) -> ClassScores:
        """Return the scores of one class against all others."""
        i = self.codes.index(code)
        both, (right, found) = self.counts[i][i], self.near[i]
        wanted, flagged = sum(self.counts[i]), sum(row[i] for row in self.counts)
        rest = self.pixels - wanted
        producers, others = _ratio(both, wanted), _ratio(rest - flagged + both, rest)
        precision, recall = _ratio(right, flagged), _ratio(found, wanted)
        tolerant = 2 * precision * recall / (precision + recall) if precision and recall else 0.0
        return ClassScores(
            producers_accuracy=producers,
            users_accuracy=_ratio(both, flagged),
            f1=_ratio(2 * both, wanted + flagged),
            iou=_ratio(both, wanted + flagged - both),
            balanced_accuracy=None if producers is None or others is None else (producers + others) / 2,
            tolerant_f1=tolerant if wanted or flagged else None,
            reference_pixels=wanted,
            mask_pixels=flagged,
            producers_accuracy_95=wilson(both, wanted),
            users_accuracy_95=wilson(both, flagged),
        )


def agreement(
    class_map: Codes, reference: Codes, *, judged: Sequence[int], gsd: float, tolerance: float = 0.0
) -> Agreement:
    """Compare a class map with a reference on the same grid.

    Only pixels with data (not 255) on both sides count. All classes that are not judged are one class, 0: against a
    reference of shadows alone, a mask's cloud and clear are the same "not shadow".

    Args:
        class_map: ``(y, x)`` codes of `CloudClass`; 255 is nodata.
        reference: ``(y, x)`` codes of the same kind; 255 is "no label here".
        judged: Codes that the reference tells apart, without 0.
        gsd: Side of a pixel in meters.
        tolerance: Distance in meters, between pixel centers, that `ClassScores.tolerant_f1` forgives.

    Raises:
        ValueError: The two differ in shape, or ``judged`` holds 0 or nodata.
    """
    if class_map.shape != reference.shape:
        raise ValueError(f"mask and reference differ in shape: {class_map.shape} and {reference.shape}")
    if {int(CloudClass.CLEAR), int(CloudClass.NODATA)} & set(judged):
        raise ValueError(f"clear and nodata are not classes to judge: {tuple(judged)}")
    codes, radius = (int(CloudClass.CLEAR), *sorted(judged)), tolerance / gsd + ROUNDING
    mask, truth, valid = _comparable(class_map, reference, judged)
    sides = [(mask == code, truth == code) for code in codes]
    counts = [[np.count_nonzero(wanted & flagged) for flagged, _ in sides] for _, wanted in sides]
    near = [
        [np.count_nonzero(one & valid & dilate(other, radius=radius)) for one, other in (side, side[::-1])]
        for side in sides
    ]
    return Agreement(codes=codes, counts=_table(np.array(counts)), near=_table(np.array(near)))


def _comparable(class_map: Codes, reference: Codes, judged: Sequence[int]) -> tuple[Codes, Codes, NDArray[np.bool_]]:
    """Return both maps with 0 for all classes that are not judged, and True where both have data."""
    kept = (*judged, int(CloudClass.NODATA))
    mask, truth = (np.where(np.isin(codes, kept), codes, np.uint8(0)) for codes in (class_map, reference))
    return mask, truth, (mask != CloudClass.NODATA) & (truth != CloudClass.NODATA)


def _table(counts: NDArray[np.int64]) -> Table:
    return tuple(tuple(row) for row in counts.tolist())


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def wilson(found: int, of: int) -> Interval | None:
    """Return the 95 % Wilson interval of a share; None for no pixels."""
    return tuple(binomtest(found, of).proportion_ci(method="wilson")) if of else None


OUTCOMES: Final = {
    "not judged": (245, 245, 245),
    "clear in both": CLASSES[CloudClass.CLEAR].rgb,
    "cloud in both": CLASSES[CloudClass.CLOUD].rgb,
    "shadow in both": CLASSES[CloudClass.CLOUD_SHADOW].rgb,
    "missed by the mask": MISSED,
    "only in the mask": FALSE,
    "cloud and shadow mistaken": MISTAKEN,
}
"""Color of each outcome, in the order of the codes of `outcomes`; safe for red-green color blindness."""


def outcomes(class_map: Codes, reference: Codes, *, judged: Sequence[int]) -> Codes:
    """Return the outcome of each pixel, ``(y, x)`` uint8 indexes into `OUTCOMES`.

    Args:
        class_map: ``(y, x)`` codes of `CloudClass`.
        reference: The same, 255 = no label.
        judged: Codes that the reference distinguishes; all others count as clear.
    """
    mask, truth, valid = _comparable(class_map, reference, judged)
    cases = [~valid, mask == truth, mask == CloudClass.CLEAR, truth == CloudClass.CLEAR]
    return np.select(cases, [0, truth.astype(int) + 1, 4, 5], default=6).astype(np.uint8)


def colored(found: Codes) -> Codes:
    """Return the picture of `outcomes`, ``(y, x, 3)`` uint8 red, green, blue."""
    return np.array([*OUTCOMES.values()], np.uint8)[found]
