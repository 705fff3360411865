"""A picture of where a mask and a reference agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.classes import CloudClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One thing that can come of a comparison, and its color."""

    name: str
    rgb: tuple[int, int, int]


OUTCOMES: Final = (
    Outcome(name="not judged", rgb=(225, 225, 225)),
    Outcome(name="clear in both", rgb=(70, 90, 70)),
    Outcome(name="cloud in both", rgb=(255, 255, 255)),
    Outcome(name="shadow in both", rgb=(120, 85, 180)),
    Outcome(name="missed by the mask", rgb=(215, 45, 45)),
    Outcome(name="only in the mask", rgb=(245, 165, 30)),
    Outcome(name="cloud and shadow mistaken", rgb=(20, 130, 200)),
)
"""By the code that `outcomes` gives; told apart with red-green blindness, too."""


def outcomes(class_map: Codes, reference: Codes, *, judged: tuple[int, ...]) -> Codes:
    """What came of each pixel, ``(y, x)`` uint8 indexes into `OUTCOMES`.

    Args:
        class_map: ``(y, x)`` codes of `CloudClass`.
        reference: The same, 255 = no label.
        judged: Codes that the reference tells apart; all others count as clear.
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
    """The picture of `outcomes`, ``(y, x, 3)`` uint8 red, green, blue."""
    return np.array([outcome.rgb for outcome in OUTCOMES], np.uint8)[found]
