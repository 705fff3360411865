"""Random fields with a power spectrum like nature's; they wrap around, so copies of a scene join without a seam."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Field = NDArray[np.float32]


def power_noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    *,
    slope: float,
    outer: float,
    stretch: tuple[float, float] = (1, 1),
) -> Field:
    """A Gaussian field of mean 0 and deviation 1, ``(y, x)`` float32, periodic in both directions.

    Args:
        rng: Source of the randomness.
        shape: Height and width in pixels.
        slope: Power falls off as wave number to the minus ``slope``; 2 is rough, 4 is smooth.
        outer: Wavelength in pixels beyond which the power is flat: the size of the largest structures.
        stretch: Factors in y and x by which structures are drawn out.
    """
    height, width = shape
    rows = fft.fftfreq(height)[:, None] * stretch[0]
    cols = fft.rfftfreq(width)[None, :] * stretch[1]
    amplitude = (rows**2 + cols**2 + outer**-2.0) ** (-slope / 4)
    amplitude[0, 0] = 0
    spectrum = fft.rfft2(rng.standard_normal(shape, np.float32)) * amplitude.astype(np.float32)
    field: Field = fft.irfft2(spectrum, shape)
    field /= field.std()
    return field


def top_share(field: Field, share: float) -> float:
    """The value that ``share`` of the field's pixels exceed."""
    return float(np.quantile(field, 1 - share))
