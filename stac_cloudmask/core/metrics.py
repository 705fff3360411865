"""Confusion matrices, scores, and maps of agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.classes import CLASSES, FALSE, MISSED, MISTAKEN, CloudClass
from stac_cloudmask.core.morphology import dilate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]
    Flags = NDArray[np.bool_]
    Table = tuple[tuple[int, ...], ...]

STRIP: Final = 1024
"""Rows that are compared at once, which bounds memory on a whole tile; the result does not depend on it."""

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
    """

    producers_accuracy: float | None
    users_accuracy: float | None
    f1: float | None
    iou: float | None
    balanced_accuracy: float | None
    tolerant_f1: float | None


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
        return Agreement(codes=self.codes, counts=_add(self.counts, other.counts), near=_add(self.near, other.near))

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
        both = self.counts[i][i]
        wanted = sum(self.counts[i])
        flagged = sum(row[i] for row in self.counts)
        neither = self.pixels - wanted - flagged + both
        producers, users = _ratio(both, wanted), _ratio(both, flagged)
        right, found = self.near[i]
        return ClassScores(
            producers_accuracy=producers,
            users_accuracy=users,
            f1=_ratio(2 * both, wanted + flagged),
            iou=_ratio(both, wanted + flagged - both),
            balanced_accuracy=_mean(producers, _ratio(neither, self.pixels - wanted)),
            tolerant_f1=_harmonic(_ratio(right, flagged), _ratio(found, wanted)),
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
    codes = (int(CloudClass.CLEAR), *sorted(judged))
    radius = tolerance / gsd + ROUNDING
    halo = int(np.ceil(radius))
    total = np.zeros((len(codes), len(codes)), np.int64)
    near = np.zeros((len(codes), 2), np.int64)
    for top in range(0, class_map.shape[0], STRIP):
        first = max(top - halo, 0)
        read = slice(first, top + STRIP + halo)
        inner = slice(top - first, top - first + STRIP)
        mask, truth = _collapse(class_map[read], codes), _collapse(reference[read], codes)
        total += _confusion(mask[inner], truth[inner], len(codes))
        near += [_near(mask == i, truth == i, radius, inner, _valid(mask, truth)) for i in range(len(codes))]
    return Agreement(
        codes=codes,
        counts=tuple(tuple(row) for row in total.tolist()),
        near=tuple(tuple(row) for row in near.tolist()),
    )


def _collapse(class_map: Codes, codes: Sequence[int]) -> Codes:
    """Return indexes into ``codes``; other classes become 0, nodata stays 255."""
    table = np.zeros(256, np.uint8)
    table[list(codes)] = range(len(codes))
    table[CloudClass.NODATA] = CloudClass.NODATA
    return table[class_map]


def _valid(mask: Codes, truth: Codes) -> Flags:
    valid: Flags = (mask != CloudClass.NODATA) & (truth != CloudClass.NODATA)
    return valid


def _confusion(mask: Codes, truth: Codes, size: int) -> NDArray[np.int64]:
    valid = _valid(mask, truth)
    pairs = truth[valid].astype(np.intp) * size + mask[valid]
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def _near(mask: Flags, truth: Flags, radius: float, inner: slice, valid: Flags) -> tuple[int, int]:
    """Return pixels of the mask close to the truth, and of the truth close to the mask, in the valid inner rows."""
    right = mask & valid & dilate(truth, radius=radius)
    found = truth & valid & dilate(mask, radius=radius)
    return int(right[inner].sum()), int(found[inner].sum())


def _add(some: Table, others: Table) -> Table:
    return tuple(tuple(map(sum, zip(a, b, strict=True))) for a, b in zip(some, others, strict=True))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _mean(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else (one + other) / 2


def _harmonic(one: float | None, other: float | None) -> float | None:
    """Return the harmonic mean for F1: 0 if only one side has the class, None if neither has it."""
    if one is None and other is None:
        return None
    if not one or not other:
        return 0.0
    return 2 * one * other / (one + other)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An outcome of a comparison, and its color."""

    name: str
    rgb: tuple[int, int, int]


OUTCOMES: Final = (
    Outcome(name="not judged", rgb=(245, 245, 245)),
    Outcome(name="clear in both", rgb=CLASSES[CloudClass.CLEAR].rgb),
    Outcome(name="cloud in both", rgb=CLASSES[CloudClass.CLOUD].rgb),
    Outcome(name="shadow in both", rgb=CLASSES[CloudClass.CLOUD_SHADOW].rgb),
    Outcome(name="missed by the mask", rgb=MISSED),
    Outcome(name="only in the mask", rgb=FALSE),
    Outcome(name="cloud and shadow mistaken", rgb=MISTAKEN),
)
"""Color of each code of `outcomes`; safe for red-green color blindness."""


def outcomes(class_map: Codes, reference: Codes, *, judged: tuple[int, ...]) -> Codes:
    """Return the outcome of each pixel, ``(y, x)`` uint8 indexes into `OUTCOMES`.

    Args:
        class_map: ``(y, x)`` codes of `CloudClass`.
        reference: The same, 255 = no label.
        judged: Codes that the reference distinguishes; all others count as clear.
    """
    table = np.zeros((256, 256), np.uint8)
    codes = [code for code in range(256) if code != CloudClass.NODATA]
    for truth in codes:
        for found in codes:
            table[truth, found] = _outcome(truth if truth in judged else 0, found if found in judged else 0)
    return table[reference, class_map]


def _outcome(truth: int, found: int) -> int:
    if truth == found:
        return 1 + truth
    if found == CloudClass.CLEAR:
        return 4
    return 5 if truth == CloudClass.CLEAR else 6


def colored(found: Codes) -> Codes:
    """Return the picture of `outcomes`, ``(y, x, 3)`` uint8 red, green, blue."""
    return np.array([outcome.rgb for outcome in OUTCOMES], np.uint8)[found]
