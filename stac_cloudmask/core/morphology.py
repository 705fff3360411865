"""Clean-up of a boolean layer in meters and square meters, on any grid."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

EIGHT_CONNECTED: Final = np.ones((3, 3), dtype=bool)
STRIP_ROWS: Final = 1024
"""Rows that are labeled at once, which limits the int32 labels of a full tile to 45 MB."""


def dilate(layer: NDArray[np.bool_], *, radius: float) -> NDArray[np.bool_]:
    """Dilate True by a disk of ``radius`` pixels: ``out[p]`` is True if a True pixel is within ``radius`` of p.

    Equal to ``distance to the nearest True <= radius``; the outside of the layer is False. Costs two passes of
    boolean OR for each pixel of radius and each axis, so radii of many pixels belong on a coarser grid.
    """
    reach = math.floor(radius)
    out = layer.copy()
    if reach < 1:
        return out
    wide = layer.copy()
    grown = 0
    for dy in range(reach, -1, -1):
        half = math.floor(math.sqrt(radius * radius - dy * dy))
        for dx in range(grown + 1, half + 1):
            wide[:, dx:] |= layer[:, :-dx]
            wide[:, :-dx] |= layer[:, dx:]
        grown = max(grown, half)
        if dy >= layer.shape[0]:
            continue
        out[dy:] |= wide[: layer.shape[0] - dy]
        out[: layer.shape[0] - dy] |= wide[dy:]
    return out


def remove_small(layer: NDArray[np.bool_], *, min_pixels: float) -> NDArray[np.bool_]:
    """Remove the eight-connected objects of fewer than ``min_pixels`` pixels.

    Strips of rows are labeled and joined across their borders, which makes the memory independent of the height.
    """
    if min_pixels <= 1:
        return layer.copy()
    strips, sizes = _label_strips(layer)
    out = layer.copy()
    for start, first, count in strips:
        rows = slice(start, start + STRIP_ROWS)
        keep = np.concatenate(([False], sizes[first : first + count] >= min_pixels))
        out[rows] = keep[ndimage.label(layer[rows], EIGHT_CONNECTED)[0]]
    return out


def fill_holes(layer: NDArray[np.bool_], *, max_pixels: float) -> NDArray[np.bool_]:
    """Set the eight-connected holes of fewer than ``max_pixels`` pixels to True."""
    return ~remove_small(~layer, min_pixels=max_pixels)


def _label_strips(layer: NDArray[np.bool_]) -> tuple[list[tuple[int, int, int]], NDArray[np.int64]]:
    """Label strip by strip.

    Returns:
        ``(first row, index of the first part, number of parts)`` of each strip, and for every part the number of
        pixels of the whole object that it belongs to.
    """
    strips: list[tuple[int, int, int]] = []
    areas: list[NDArray[np.int64]] = []
    pairs: list[NDArray[np.int64]] = []
    total = 0
    last_row: NDArray[np.int64] | None = None
    for start in range(0, layer.shape[0], STRIP_ROWS):
        labels, count = ndimage.label(layer[start : start + STRIP_ROWS], EIGHT_CONNECTED)
        areas.append(np.bincount(labels.ravel(), minlength=count + 1)[1:])
        if last_row is not None:
            pairs.append(_touching(last_row, np.where(labels[0] > 0, labels[0] + total, 0)))
        strips.append((start, total, count))
        last_row = np.where(labels[-1] > 0, labels[-1] + total, 0).astype(np.int64)
        total += count
    return strips, _object_sizes(np.concatenate(areas), pairs)


def _touching(upper: NDArray[np.int64], lower: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return pairs ``(n, 2)`` of labels that touch in two neighboring rows, diagonals included; 0 is background."""
    found = [
        np.stack((upper, lower), axis=1),
        np.stack((upper[1:], lower[:-1]), axis=1),
        np.stack((upper[:-1], lower[1:]), axis=1),
    ]
    pairs = np.concatenate(found)
    return np.unique(pairs[(pairs > 0).all(axis=1)], axis=0)


def _object_sizes(areas: NDArray[np.int64], pairs: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return for every part the pixels of its whole object; ``pairs`` are labels, from 1, of the same object."""
    parent = np.arange(areas.size)

    def root(part: int) -> int:
        while parent[part] != part:
            parent[part] = parent[parent[part]]
            part = int(parent[part])
        return part

    for one, other in np.concatenate([*pairs, np.empty((0, 2), np.int64)]).tolist():
        parent[root(one - 1)] = root(other - 1)
    roots = np.array([root(part) for part in range(areas.size)], dtype=np.int64)
    sizes: NDArray[np.int64] = np.bincount(roots, weights=areas, minlength=areas.size).astype(np.int64)[roots]
    return sizes
