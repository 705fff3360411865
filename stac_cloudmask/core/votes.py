"""What is known of every pixel before the merge, and who said what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.reflectance import repeat

if TYPE_CHECKING:
    from numpy.typing import NDArray

SCL_NODATA: Final = 0
VOTES_NODATA: Final = 255
"""Votes have fewer than eight bits, so that no combination of them is this."""


class Vote(IntFlag):
    """Bits of a votes array, uint8: who said what of a pixel, and what became of it."""

    PRODUCT_CLOUD = 1
    PRODUCT_SHADOW = 2
    CLOUD_MODEL = 4
    SHADOW_MODEL = 8
    REMOVED = 16
    BUFFER = 32


@dataclass(frozen=True, kw_only=True)
class Sun:
    """Where the sun stands: azimuth clockwise from north and elevation above the horizon, both in degrees."""

    azimuth: float
    elevation: float


@dataclass(frozen=True, kw_only=True)
class ProductMask:
    """The scene classification that the product carries.

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
        """The classes of rows ``start`` to ``stop`` of the scene, each repeated over the pixels that it covers."""
        return repeat(self.scl, self.factor, window=Window(start, 0, stop - start, self.shape[1]))

    def votes(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`Vote` bits of the product for classes."""
        table = np.zeros(256, np.uint8)
        table[list(self.cloud_codes)] |= np.uint8(Vote.PRODUCT_CLOUD)
        table[list(self.shadow_codes)] |= np.uint8(Vote.PRODUCT_SHADOW)
        return table[classes]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a merge policy decides on, on one grid.

    Attributes:
        cloud: ``(y, x)`` uint8, whole percents of cloud probability, 255 = nodata; see ``predict.percent``.
        shadow: The same for cloud shadow.
        gsd: Side of a pixel in meters.
        product: The product's mask; None where there is none.
        sun: Where the sun stands; None where nobody knows.
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of ``nir_factor`` pixels, NaN = nodata; None
            where no model reads that band.
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

    def without_probabilities(self) -> Evidence:
        """The same with empty arrays in their place."""
        nothing = np.empty((0, 0), np.uint8)
        return replace(self, cloud=nothing, shadow=nothing)
