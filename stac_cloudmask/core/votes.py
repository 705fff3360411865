"""The evidence of every pixel before the merge, and the votes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.classes import Scl
from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.pixels import repeat
from stac_cloudmask.core.predict import PERCENT_NODATA

if TYPE_CHECKING:
    from stac_cloudmask.core.merge import Policy

VOTES_NODATA: Final = 255
"""Value of votes without data; votes use fewer than eight bits and never reach it."""


class Vote(IntFlag):
    """The bits of a votes array, uint8: the sources that flag a pixel, and whether the merge removed or added it."""

    PRODUCT_CLOUD = 1
    PRODUCT_SHADOW = 2
    CLOUD_MODEL = 4
    SHADOW_MODEL = 8
    REMOVED = 16
    ADDED = 32


def any_vote(votes: NDArray[np.uint8], bits: Vote) -> NDArray[np.bool_]:
    """Return True where any of some bits is set."""
    return (votes & np.uint8(bits)) > 0  # NumPy would treat an IntFlag as int64


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
        nir: ``(y, x)`` float32 mean near-infrared reflectance of blocks of `Rules.cell_factor` pixels, NaN = nodata;
            None if no model reads that band.
        visible: ``(band, y, x)`` the same of blue, green and red; None where a model does not read them.
    """

    cloud: NDArray[np.uint8]
    shadow: NDArray[np.uint8]
    gsd: float
    product: ProductMask | None = None
    sun: Sun | None = None
    nir: NDArray[np.float32] | None = None
    visible: NDArray[np.float32] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the scene in pixels."""
        height, width = self.cloud.shape
        return height, width


def vote(evidence: Evidence, start: int, stop: int, policy: Policy) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return `Vote` bits of rows ``start`` to ``stop``, 0 where nodata; and True where a pixel is valid."""
    cloud, shadow = evidence.cloud[start:stop], evidence.shadow[start:stop]
    valid = (cloud != PERCENT_NODATA) & (shadow != PERCENT_NODATA)
    votes = (cloud > round(100 * policy.cloud_thr)) * np.uint8(Vote.CLOUD_MODEL)
    votes |= (shadow > round(100 * policy.shadow_thr)) * np.uint8(Vote.SHADOW_MODEL)
    if evidence.product is not None:
        classes = evidence.product.classes(start, stop)
        valid &= classes != Scl.NODATA
        votes |= evidence.product.votes(classes)
    votes *= valid
    return votes, valid
