"""The scene classification on another grid than its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIRST_IN_A_TIE: Final = (9, 8, 10, 3, 11, 6, 5, 4, 2, 7, 1)
"""SCL codes: clouds, cloud shadow, snow, water, land, dark, unclassified, saturated."""


def mode_of_blocks(scl: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """The class that most valid pixels of each block of ``factor`` x ``factor`` have; 0, nodata, where none is valid.

    In a tie the code that comes first in ``FIRST_IN_A_TIE`` wins; codes that it lacks are nodata. A last, partial
    block counts what it has.

    Args:
        scl: ``(y, x)`` SCL codes.
        factor: Input pixels per output pixel, along an axis.
    """
    height, width = scl.shape
    shape = (-(-height // factor), -(-width // factor))
    best = np.zeros(shape, np.uint8)
    most = np.zeros(shape, np.uint16)
    for code in FIRST_IN_A_TIE:
        count = np.zeros(shape, np.uint16)
        for row in range(min(factor, height)):
            for col in range(min(factor, width)):
                part = scl[row::factor, col::factor] == code
                count[: part.shape[0], : part.shape[1]] += part
        more = count > most
        best[more] = code
        most[more] = count[more]
    return best
