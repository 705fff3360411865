"""Values of pixels: digital numbers, reflectance and natural colors, and their resampling by whole factors.

Upsampling is exact bilinear interpolation or repetition, downsampling means, sums and modes of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.grid import Window

U16 = NDArray[np.uint16]
Scalar = TypeVar("Scalar", bound=np.generic)

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


QUICKLOOK_SIDE: Final = 1200
"""Samples along the longest side of a quicklook: two for each pixel of a thumbnail, which smooth its edges."""


def step_of(shape: tuple[int, int]) -> int:
    """Return the distance in pixels between the samples of the quicklook of a scene of ``shape``."""
    return max(1, -(-max(shape) // QUICKLOOK_SIDE))


def up_bilinear(a: U16, factor: int, *, window: Window | None = None) -> U16:
    """Upsample bilinearly between nested grids by a whole factor, in exact integer arithmetic.

    Pixel centers are half a pixel in; at the border the edge pixel is repeated. Output pixels inside a nodata pixel are
    nodata; elsewhere nodata neighbors have no weight. Halves are rounded up. The result equals GDAL's ``WarpedVRT``,
    except that GDAL may round halves either way: on a real tile at 200 and 600 m, 1 to 3 % of the pixels differ by 1.
    A window of the result is bit-identical to the same window of the whole: strips have no seams.

    Args:
        a: ``(..., y, x)`` uint16.
        factor: Output pixels per input pixel, along an axis.
        window: Part of the output to compute; None for the whole.
    """
    window = window or Window(0, 0, a.shape[-2] * factor, a.shape[-1] * factor)
    top, left = window.row_off // factor, window.col_off // factor
    bottom = -(-(window.row_off + window.height) // factor)
    right = -(-(window.col_off + window.width) // factor)
    rows, cols = (
        np.clip(np.arange(start - 1, stop + 1), 0, size - 1)
        for start, stop, size in ((top, bottom, a.shape[-2]), (left, right, a.shape[-1]))
    )
    block = a.take(rows, axis=-2).take(cols, axis=-1)
    out = np.empty((*a.shape[:-2], (bottom - top) * factor, (right - left) * factor), np.uint16)
    for plane in np.ndindex(a.shape[:-2]):
        _up_plane(block[plane], factor, out[plane])
    cut = Window(window.row_off - top * factor, window.col_off - left * factor, window.height, window.width)
    return out[..., *cut.slices]


def repeat(a: NDArray[Scalar], factor: int, *, window: Window | None = None) -> NDArray[Scalar]:
    """Upsample by repeating every pixel ``factor`` x ``factor`` times, for class maps.

    Args:
        a: ``(..., y, x)``.
        factor: Output pixels per input pixel, along an axis.
        window: Part of the output to compute; None for the whole.
    """
    window = window or Window(0, 0, a.shape[-2] * factor, a.shape[-1] * factor)
    rows = np.arange(window.rows.start, window.rows.stop) // factor
    cols = np.arange(window.cols.start, window.cols.stop) // factor
    return a.take(rows, axis=-2).take(cols, axis=-1)


def block_sum(a: NDArray[np.bool_] | NDArray[np.uint8] | U16, factor: int) -> NDArray[np.uint32]:
    """Sum each block of ``factor`` x ``factor`` pixels; a last, partial block is the sum of its pixels.

    Whole rows are added, then columns, which is many times faster than a sum over the axes of a reshaped array.

    Args:
        a: ``(..., y, x)``.
        factor: Input pixels per output pixel, along an axis.
    """
    *planes, height, width = a.shape
    lines = np.zeros((*planes, -(-height // factor), width), np.uint32 if a.itemsize > 1 else np.uint16)
    for row in range(min(factor, height)):
        part = a[..., row::factor, :]
        lines[..., : part.shape[-2], :] += part
    total = np.zeros((*lines.shape[:-1], -(-width // factor)), np.uint32)
    for col in range(min(factor, width)):
        part = lines[..., col::factor]
        total[..., : part.shape[-1]] += part
    return total


def block_mean(a: U16, factor: int) -> U16:
    """Return the mean of the valid pixels of each block of ``factor`` x ``factor``; halves are rounded up.

    A last, partial block is the mean of its pixels. A block without a valid pixel is nodata.

    Args:
        a: ``(..., y, x)`` uint16.
        factor: Input pixels per output pixel, along an axis.
    """
    valid = a > 0
    whole = a.shape[-2] % factor == a.shape[-1] % factor == 0 and valid.all()  # the most frequent and faster case
    count = np.uint32(factor * factor) if whole else np.maximum(block_sum(valid, factor), 1)
    return ((block_sum(a, factor) + count // 2) // count).astype(np.uint16)


def mean_by_twos(a: U16, factor: int) -> U16:
    """Return means of blocks like those of overviews: of 2 x 2 repeatedly while the factor is even, then of the rest.

    The result is bit-identical to GDAL's average overviews, each of which is made from the previous one. For a factor
    that is not a multiple of 4 it equals ``block_mean``; otherwise halves are rounded more than once, and pixels beside
    nodata weigh more.

    Args:
        a: ``(..., y, x)`` uint16.
        factor: Input pixels per output pixel, along an axis.
    """
    while factor > 1 and factor % 2 == 0:
        a, factor = block_mean(a, 2), factor // 2
    return a if factor == 1 else block_mean(a, factor)


def _up_plane(source: U16, factor: int, target: U16) -> None:
    """Fill ``target`` from a plane with a border of one pixel, first as if all pixels were valid."""
    whole, valid = (2 * factor) ** 2, source > 0
    shifts = [2 * k + 1 - factor for k in range(factor)]
    # Per output pixel of a block, the step to the second input pixel and the weights of both
    phases = [(1 if shift > 0 else -1, 2 * factor - abs(shift), abs(shift)) for shift in shifts]
    layers = [source.astype(np.uint32)]
    if not valid.all():
        layers.append(valid.astype(np.uint32))  # blended like the values, these are the weights of valid pixels
    for i, (row, near_y, far_y) in enumerate(phases):
        blends = [near_y * layer[1:-1] + far_y * layer[1 + row : len(layer) - 1 + row] for layer in layers]
        for j, (col, near_x, far_x) in enumerate(phases):
            value, *weights = (
                near_x * one[:, 1:-1] + far_x * one[:, 1 + col : one.shape[1] - 1 + col] for one in blends
            )
            target[i::factor, j::factor] = (value + whole // 2) // whole
            for weight in weights:
                at = valid[1:-1, 1:-1] & (weight < whole)
                target[i::factor, j::factor][at] = (value[at] + weight[at] // 2) // weight[at]
    if len(layers) > 1:
        target *= repeat(valid[1:-1, 1:-1], factor)


FIRST_IN_A_TIE: Final = (9, 8, 10, 3, 11, 6, 5, 4, 2, 7, 1)
"""SCL codes in order of priority: clouds, cloud shadow, snow, water, land, dark, unclassified, saturated."""


def mode_of_blocks(scl: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Return the most frequent valid class of each block of ``factor`` x ``factor``; 0 (nodata) if none is valid.

    In a tie the code that comes first in ``FIRST_IN_A_TIE`` wins; codes that it lacks are nodata. A last, partial
    block counts its pixels.

    Args:
        scl: ``(y, x)`` SCL codes.
        factor: Input pixels per output pixel, along an axis.
    """
    best = most = block_sum(np.zeros_like(scl), factor)
    for code in FIRST_IN_A_TIE:
        count = block_sum(scl == code, factor)
        best = np.where(count > most, np.uint32(code), best)
        most = np.maximum(most, count)
    return best.astype(np.uint8)
