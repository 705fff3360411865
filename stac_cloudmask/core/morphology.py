"""Clean-up of a boolean layer in meters and square meters, on any grid."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT_CONNECTED: Final = np.ones((3, 3), dtype=bool)


def dilate(layer: NDArray[np.bool_], *, radius: float) -> NDArray[np.bool_]:
    """Dilate True by a disk of ``radius`` pixels: ``out[p]`` is True if a True pixel is within ``radius`` of p.

    Equal to ``distance to the nearest True <= radius``; the outside of the layer is False. Costs two passes of
    boolean OR for each pixel of radius within the layer and each axis, so radii of many pixels belong on a coarser
    grid.
    """
    height, width = layer.shape
    out = layer.copy()
    if radius < 1:
        return out
    wide = layer.copy()
    grown = 0
    for dy in range(min(math.floor(radius), height - 1), -1, -1):
        half = min(math.floor(math.sqrt(radius * radius - dy * dy)), width - 1)
        for dx in range(grown + 1, half + 1):
            wide[:, dx:] |= layer[:, :-dx]
            wide[:, :-dx] |= layer[:, dx:]
        grown = max(grown, half)
        out[dy:] |= wide[: height - dy]
        out[: height - dy] |= wide[dy:]
    return out


def remove_small(layer: NDArray[np.bool_], *, min_pixels: float) -> NDArray[np.bool_]:
    """Remove the eight-connected objects of fewer than ``min_pixels`` pixels."""
    if min_pixels <= 1:
        return layer.copy()
    labels, count = ndimage.label(layer, EIGHT_CONNECTED)
    # Counted in parts, as NumPy converts labels to 64 bits to count them
    counts = (np.bincount(part.ravel(), minlength=count + 1) for part in np.array_split(labels, 16))
    keep = np.asarray(sum(counts)) >= min_pixels
    keep[0] = False
    kept: NDArray[np.bool_] = keep[labels]
    return kept


def fill_holes(layer: NDArray[np.bool_], *, max_pixels: float) -> NDArray[np.bool_]:
    """Set the eight-connected holes of fewer than ``max_pixels`` pixels to True."""
    return ~remove_small(~layer, min_pixels=max_pixels)


def objects(layer: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Label the eight-connected objects of a layer, from 1."""
    labels: NDArray[np.int32] = ndimage.label(layer, EIGHT_CONNECTED)[0]
    return labels
