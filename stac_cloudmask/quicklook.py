"""A small picture of a scene, from the rows that pass by on their way to the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core.picture import to_rgb
from stac_cloudmask.core.reflectance import to_reflectance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.predict import Bands
    from stac_cloudmask.readahead import Read

SIDE: Final = 1200
"""Samples along the longest side: two for each pixel of a thumbnail."""
ROWS: Final = 64
"""Rows of samples that are colored at once: all together would take 100 MB for a while."""
RGB: Final = ("red", "green", "blue")


def step_of(shape: tuple[int, int]) -> int:
    """Pixels of a scene of ``shape`` from one sample of its quicklook to the next."""
    return max(1, -(-max(shape) // SIDE))


class Quicklook:
    """Samples red, green and blue while rows are read; costs no read of its own."""

    def __init__(self, bands: Bands, shape: tuple[int, int], read: Read) -> None:
        """Sample rows of a scene of ``shape`` (height, width) as ``read`` gives them."""
        self._bands, self._read = bands, read
        self._indexes = [bands.names.index(name) for name in RGB if name in bands.names]
        self._step = step_of(shape)
        self._dn = np.zeros((len(RGB), *(-(-side // self._step) for side in shape)), np.uint16)

    def read(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """Rows as the scene has them, in any order."""
        dn = self._read(row_off, height)
        first = -(-row_off // self._step)
        for plane, index in zip(self._dn, self._indexes, strict=False):
            rows = dn[index, first * self._step - row_off :: self._step, :: self._step]
            plane[first : first + len(rows)] = rows
        return dn

    @property
    def rgb(self) -> NDArray[np.uint8] | None:
        """``(y, x, 3)`` uint8, black where nodata; None where no model reads all three bands."""
        if len(self._indexes) < len(RGB):
            return None
        scales = [self._bands.scales[index] for index in self._indexes]
        offsets = [self._bands.offsets[index] for index in self._indexes]
        strips = (self._dn[:, top : top + ROWS] for top in range(0, self._dn.shape[1], ROWS))
        return np.concatenate([to_rgb(to_reflectance(dn, scales=scales, offsets=offsets)) for dn in strips])
