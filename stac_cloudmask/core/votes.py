"""The evidence of every pixel before the merge, and the votes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.resampling import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOTES_NODATA: Final = 255
"""Value of votes without data; votes use fewer than eight bits and never reach it."""


class Scl(IntEnum):
    """The codes of ESA's scene classification that rules use."""

    NODATA = 0
    DARK = 2
    SHADOW = 3
    VEGETATION = 4
    BARE = 5
    WATER = 6
    UNCLASSIFIED = 7
    MEDIUM_CLOUD = 8
    HIGH_CLOUD = 9
    CIRRUS = 10


HIGH_PROBABILITY: Final = 65
"""Cloud percent above which cloud has the high-probability class of ESA's scene classification."""
VEGETATED, BARREN = 0.4, 0.2
"""Normalized difference of near infrared and red (NDVI) from which ground is vegetation, and up to which it is bare."""
DARK_WATER: Final = 0.12
"""Near-infrared reflectance up to which ground that is brighter in green is water."""


class Vote(IntFlag):
    """The bits of a votes array, uint8: the sources that flag a pixel, and whether the merge removed or added it."""

    PRODUCT_CLOUD = 1
    PRODUCT_SHADOW = 2
    CLOUD_MODEL = 4
    SHADOW_MODEL = 8
    REMOVED = 16
    ADDED = 32


@dataclass(frozen=True, kw_only=True)
class Sun:
    """The position of the sun: azimuth clockwise from north and elevation above the horizon, both in degrees."""

    azimuth: float
    elevation: float


@dataclass(frozen=True, kw_only=True)
class ProductMask:
    """The scene classification of the product.

    Attributes:
        scl: ``(y, x)`` uint8, on a grid ``factor`` times coarser than the scene's; 0 is nodata.
        factor: Pixels of the scene along the side of a pixel of ``scl``.
        shape: Shape of the scene.
        cloud_codes: Classes that mean cloud.
        shadow_codes: Classes that mean cloud shadow.
    """

    scl: NDArray[np.uint8]
    factor: int
    shape: tuple[int, int]
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]

    def classes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return the classes of rows ``start`` to ``stop`` of the scene, repeated over the pixels that they cover."""
        return repeat(self.scl, self.factor, window=Window(start, 0, stop - start, self.shape[1]))

    def votes(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the product's `Vote` bits of classes."""
        table = np.zeros(256, np.uint8)
        table[list(self.cloud_codes)] |= np.uint8(Vote.PRODUCT_CLOUD)
        table[list(self.shadow_codes)] |= np.uint8(Vote.PRODUCT_SHADOW)
        return table[classes]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The input of a merge policy, on one grid.

    Attributes:
        cloud: ``(y, x)`` uint8, whole percents of cloud probability, 255 = nodata; see ``predict.percent``.
        shadow: The same for cloud shadow.
        gsd: Side of a pixel in meters.
        product: The product's mask; None if there is none.
        sun: Position of the sun; None if unknown.
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of ``nir_factor`` pixels, NaN = nodata; None
            if no model reads that band.
        nir_factor: Pixels of the scene along the side of a pixel of ``nir``.
        visible: ``(band, y, x)`` the same of blue, green and red; None where a model does not read them.
    """

    cloud: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    gsd: float
    product: ProductMask | None = None
    sun: Sun | None = None
    nir: NDArray[np.float32] | None = None
    nir_factor: int = 1
    visible: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the scene in pixels."""
        height, width = self.cloud.shape
        return height, width


def ground_codes(green: NDArray[np.float32], red: NDArray[np.float32], nir: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return `Scl` codes of clear ground by its reflectance: water, vegetation, bare, or unclassified between them."""
    ndvi = (nir - red) / np.maximum(nir + red, np.float32(1e-4))
    codes = np.full(nir.shape, Scl.UNCLASSIFIED, np.uint8)
    codes[ndvi >= VEGETATED] = Scl.VEGETATION
    codes[ndvi <= BARREN] = Scl.BARE
    codes[(green > nir) & (nir <= DARK_WATER)] = Scl.WATER
    return codes


def improved_scl(
    class_map: NDArray[np.uint8], cloud: NDArray[np.uint8], ground: NDArray[np.uint8], scl: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Return the scene classification with the cloud and cloud shadow of a mask; all are ``(y, x)`` uint8.

    Cloud keeps the product's code for cloud, or gets one by its probability. Pixels that the product calls cloud or
    shadow and the mask calls clear get the code of their ground. All others keep their code.

    Args:
        class_map: Codes of `CloudClass`.
        cloud: Whole percents of cloud probability.
        ground: Codes from ``ground_codes``.
        scl: The product's codes; None where there are none.
    """
    given = ground if scl is None else scl
    clouds = (Scl.MEDIUM_CLOUD, Scl.HIGH_CLOUD, Scl.CIRRUS)
    was_cloud = np.isin(given, clouds)
    likely = np.where(cloud > HIGH_PROBABILITY, np.uint8(Scl.HIGH_CLOUD), np.uint8(Scl.MEDIUM_CLOUD))
    codes = np.where(was_cloud | (given == Scl.SHADOW), ground, given)
    is_cloud = class_map == CloudClass.CLOUD
    codes[is_cloud] = np.where(was_cloud, given, likely)[is_cloud]
    codes[class_map == CloudClass.CLOUD_SHADOW] = Scl.SHADOW
    codes[class_map == CloudClass.NODATA] = Scl.NODATA
    return codes
