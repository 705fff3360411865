"""Reflectance to a picture for people: ground and clouds are both seen, whatever the scene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIDDLE: Final = 0.16
"""Reflectance shown at (1 + MIDDLE) / 2: land lies below, clouds above. Chosen by eye on forest, desert and sea."""
SATURATION: Final = 1.2


def to_rgb(reflectance: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Red, green, blue for a screen, ``(y, x, 3)`` uint8; the same reflectance has the same color in every scene.

    The curve ``(1 + m) r / (r + m)`` brightens dark land and keeps the texture of bright clouds, which a linear
    stretch burns out.

    Args:
        reflectance: ``(3, y, x)`` red, green, blue; 0 is black.
    """
    light = np.clip((1 + MIDDLE) * reflectance / (reflectance + MIDDLE), 0, 1)
    gray = light.mean(axis=0, keepdims=True)
    vivid = np.clip(gray + SATURATION * (light - gray), 0, 1)
    picture: NDArray[np.uint8] = np.ascontiguousarray(np.moveaxis(np.rint(255 * vivid).astype(np.uint8), 0, -1))
    return picture
