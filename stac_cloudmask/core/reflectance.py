"""Convert digital numbers to reflectance, and reflectance to natural colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

U16 = NDArray[np.uint16]


HIGHEST_DN: Final = 32767
SATURATED_DN: Final = 65535
"""The highest digital number of L2A, which has 15 bits, and the value of saturated pixels."""


def is_damaged(dn: U16) -> NDArray[np.bool_]:
    """Return True for digital numbers that are impossible in L2A: negative numbers written as unsigned, and damage."""
    return (dn > HIGHEST_DN) & (dn < SATURATED_DN)


def to_reflectance(dn: U16, *, scales: Sequence[float], offsets: Sequence[int]) -> NDArray[np.float32]:
    """Return the reflectance of digital numbers: ``max(dn + offset, 0) * scale``.

    Args:
        dn: ``(band, y, x)`` uint16; 0 is nodata and stays 0.
        scales: Reflectance per digital number, one for each band (Sentinel-2: 1e-4).
        offsets: Digital numbers to add first, one for each band (-1000 from baseline 04.00 on, else 0).
    """
    reflectance = dn.astype(np.float32)
    for i, (scale, offset) in enumerate(zip(scales, offsets, strict=True)):
        if offset:
            reflectance[i] += offset
            np.maximum(reflectance[i], 0, out=reflectance[i])
        if offset > 0:
            reflectance[i][dn[i] == 0] = 0
        reflectance[i] *= np.float32(scale)
    return reflectance


MIDDLE: Final = 0.16
"""Reflectance shown at (1 + MIDDLE) / 2: land is darker, clouds brighter. Chosen by eye on forest, desert and sea."""
SATURATION: Final = 1.2


def to_rgb(reflectance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return red, green, blue for display, ``(y, x, 3)`` uint8; colors of a reflectance are the same in every scene.

    The curve ``(1 + m) r / (r + m)`` brightens dark land and keeps the texture of bright clouds, which a linear
    stretch would saturate.

    Args:
        reflectance: ``(3, y, x)`` red, green, blue; 0 is black.
    """
    light = np.clip((1 + MIDDLE) * reflectance / (reflectance + MIDDLE), 0, 1)
    gray = light.mean(axis=0, keepdims=True)
    vivid = np.clip(gray + SATURATION * (light - gray), 0, 1)
    return np.ascontiguousarray(np.moveaxis(np.rint(255 * vivid).astype(np.uint8), 0, -1))
