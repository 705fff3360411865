"""Simulate a landscape: noise, ground cover, reflectance."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from stac_cloudmask.stac.providers import BANDS

Field = NDArray[np.float32]
Codes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Shape = tuple[int, int]
Random = np.random.Generator


def power_noise(
    rng: Random, shape: Shape, *, slope: float, outer: float, stretch: tuple[float, float] = (1, 1)
) -> Field:
    """Return a Gaussian field of mean 0 and standard deviation 1, ``(y, x)`` float32, periodic in both directions.

    Args:
        rng: Random number generator.
        shape: Height and width in pixels.
        slope: Power falls off as wave number to the minus ``slope``; 2 is rough, 4 is smooth.
        outer: Wavelength in pixels beyond which the power is flat: the size of the largest structures.
        stretch: Factors in y and x by which structures are stretched.
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
    """Return the value that ``share`` of the field's pixels exceed."""
    return float(np.quantile(field, 1 - share))


class Cover(IntEnum):
    """A ground cover; parcels of farmland come first."""

    CROP = 0
    RIPE_CROP = 1
    GRASS = 2
    DARK_SOIL = 3
    PALE_SOIL = 4
    STUBBLE = 5
    FOREST = 6
    LAKE = 7
    RIVER = 8
    TOWN = 9
    ROOF = 10
    ROAD = 11


COVER_SPECTRA: Final = {
    Cover.CROP: (0.018, 0.027, 0.058, 0.032, 0.090, 0.285, 0.360, 0.390, 0.400, 0.400, 0.190, 0.090),
    Cover.RIPE_CROP: (0.035, 0.052, 0.088, 0.102, 0.150, 0.235, 0.275, 0.300, 0.315, 0.325, 0.310, 0.200),
    Cover.GRASS: (0.022, 0.036, 0.066, 0.056, 0.105, 0.220, 0.270, 0.300, 0.310, 0.315, 0.235, 0.135),
    Cover.DARK_SOIL: (0.040, 0.050, 0.072, 0.092, 0.110, 0.130, 0.148, 0.165, 0.178, 0.185, 0.250, 0.215),
    Cover.PALE_SOIL: (0.065, 0.085, 0.130, 0.178, 0.205, 0.228, 0.250, 0.270, 0.288, 0.300, 0.385, 0.340),
    Cover.STUBBLE: (0.050, 0.068, 0.108, 0.145, 0.180, 0.215, 0.240, 0.260, 0.275, 0.290, 0.355, 0.270),
    Cover.FOREST: (0.012, 0.020, 0.036, 0.022, 0.058, 0.190, 0.245, 0.275, 0.285, 0.290, 0.125, 0.055),
    Cover.LAKE: (0.032, 0.036, 0.038, 0.022, 0.019, 0.014, 0.013, 0.011, 0.010, 0.009, 0.006, 0.004),
    Cover.RIVER: (0.050, 0.062, 0.088, 0.072, 0.068, 0.046, 0.042, 0.033, 0.029, 0.026, 0.012, 0.008),
    Cover.TOWN: (0.075, 0.088, 0.105, 0.112, 0.128, 0.160, 0.175, 0.190, 0.196, 0.200, 0.215, 0.185),
    Cover.ROOF: (0.330, 0.360, 0.385, 0.400, 0.410, 0.420, 0.428, 0.435, 0.440, 0.440, 0.400, 0.340),
    Cover.ROAD: (0.085, 0.102, 0.125, 0.140, 0.152, 0.165, 0.175, 0.185, 0.190, 0.194, 0.235, 0.210),
}  # fmt: skip
"""Surface reflectance per cover, in the order of `BANDS`: a temperate landscape in summer."""

PARCELS: Final = tuple(cover for cover in Cover if cover < Cover.FOREST)
PARCEL_SHARES: Final = (0.36, 0.14, 0.24, 0.08, 0.07, 0.11)

SMOOTH: Final = 0.06
"""Relative deviation of the reflectance from pixel to pixel."""
ROUGHNESS: Final = {Cover.FOREST: 0.22, Cover.TOWN: 0.30, Cover.ROOF: 0.25, Cover.LAKE: 0.04}
"""The same for covers that are not `SMOOTH`."""

FOREST_SHARE: Final = 0.20
LAKE_SHARE: Final = 0.02
TOWN_SHARE: Final = 0.04
FARM_BLOCK: Final = 800.0
"""Distance between farm roads, in meters; at most six strips of fields lie between two."""
ROAD_WIDTH: Final = 14.0
RIVER_WIDTH: Final = 60.0
PLOT: Final = 40.0
"""Side of a plot in a town in meters: a house, a garden, a hall."""
PLOT_SHARES: Final = {Cover.TOWN: 0.42, Cover.GRASS: 0.20, Cover.FOREST: 0.12, Cover.ROAD: 0.16, Cover.ROOF: 0.10}
LENS_BLUR: Final = 0.55
"""Standard deviation in pixels of the blur of optics and atmosphere."""


def landscape(rng: Random, shape: Shape, gsd: float) -> tuple[Field, Codes]:
    """Draw a landscape.

    Args:
        rng: Random number generator.
        shape: Height and width in pixels.
        gsd: Side of a pixel in meters.

    Returns:
        Reflectance under a clear sky, ``(band, y, x)`` in the order of `BANDS`, and ``(y, x)`` codes of `Cover`.
    """
    parcel, road = _parcels(rng, shape, gsd)
    parcels = int(parcel.max()) + 1
    cover = rng.choice(np.array(PARCELS, np.uint8), parcels, p=PARCEL_SHARES)[parcel]
    undergrowth = rng.choice(np.array(PARCELS, np.uint8), parcels)[parcel]
    farmed = _draw_map(rng, cover, road, gsd)
    patches = power_noise(rng, shape, slope=2.6, outer=500 / gsd)
    uneven, tone = rng.normal(0, 0.1, (2, parcels)).astype(np.float32)
    mix = np.clip(0.12 + 0.14 * patches + uneven[parcel], 0, 0.6) * farmed
    rough = np.array([ROUGHNESS.get(kind, SMOOTH) for kind in Cover], np.float32)
    grain = power_noise(rng, shape, slope=1.2, outer=200 / gsd) * rough[cover]
    brightness = np.clip(1 + tone[parcel] * farmed + 0.05 * patches + grain, 0.3, 2.0)
    spectra = np.array([COVER_SPECTRA[kind] for kind in Cover], np.float32)
    out = np.empty((len(BANDS), *shape), np.float32)
    for band, plane in zip(spectra.T, out, strict=True):
        ground = (band[cover] * (1 - mix) + band[undergrowth] * mix) * brightness
        ndimage.gaussian_filter(ground, LENS_BLUR, mode="wrap", output=plane)
    return out, cover


def _draw_map(rng: Random, cover: Codes, road: Flags, gsd: float) -> Flags:
    """Draw all covers other than farmland into ``cover``; return True where farmland remains."""
    shape = cover.shape
    relief = power_noise(rng, shape, slope=4.0, outer=9000 / gsd)
    relief = ndimage.gaussian_filter(relief, 80 / gsd, mode="wrap")
    woods = power_noise(rng, shape, slope=3.0, outer=4000 / gsd)
    cover[road] = Cover.ROAD
    cover[woods > top_share(woods, FOREST_SHARE)] = Cover.FOREST
    _build_towns(rng, cover, gsd)
    steepness = np.hypot(*np.gradient(relief))
    cover[np.abs(relief) < steepness * RIVER_WIDTH / gsd / 2] = Cover.RIVER
    cover[relief < -top_share(-relief, LAKE_SHARE)] = Cover.LAKE
    farmed: Flags = cover < Cover.FOREST
    return farmed


def _parcels(rng: Random, shape: Shape, gsd: float) -> tuple[NDArray[np.intp], Flags]:
    """Return each pixel's parcel number, and True for the roads between the blocks of parcels."""
    angle = rng.uniform(-0.4, 0.4)
    y, x = np.indices(shape, np.float32) * np.float32(gsd)
    bends = [60 * power_noise(rng, shape, slope=4.0, outer=6000 / gsd) for _ in range(2)]
    along = (x * math.cos(angle) + y * math.sin(angle) + bends[0]) / FARM_BLOCK
    across = (y * math.cos(angle) - x * math.sin(angle) + bends[1]) / FARM_BLOCK
    col, row = np.floor(along).astype(np.intp), np.floor(across).astype(np.intp)
    block = (row - row.min()) * (np.ptp(col) + 1) + col - col.min()
    blocks = int(block.max()) + 1
    upright = rng.integers(0, 2, blocks).astype(bool)[block]
    strips = rng.integers(1, 7, blocks)[block]
    halved = rng.choice(np.array([0.5, 1.0], np.float32), blocks)[block]
    first, second = np.where(upright, along % 1, across % 1), np.where(upright, across % 1, along % 1)
    strip = np.floor(first * strips).astype(np.intp)
    edge = ROAD_WIDTH / FARM_BLOCK
    return (block * 7 + strip) * 2 + (second > halved), (along % 1 < edge) | (across % 1 < edge)


def _build_towns(rng: Random, cover: Codes, gsd: float) -> None:
    """Add towns to ``cover``: houses, gardens, streets and bright halls."""
    density = power_noise(rng, cover.shape, slope=3.4, outer=2500 / gsd)
    town = density > top_share(density, TOWN_SHARE)
    side = max(1, round(PLOT / gsd))
    shape = tuple(-(-n // side) for n in cover.shape)
    plots = rng.choice(np.array([*PLOT_SHARES], np.uint8), shape, p=[*PLOT_SHARES.values()])
    cover[town] = plots.repeat(side, 0).repeat(side, 1)[: cover.shape[0], : cover.shape[1]][town]
