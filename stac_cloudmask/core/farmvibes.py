"""FarmVibes.AI's merge, bit for bit, for comparison with it: binary, dilated in pixels, nodata as cloud."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.cleanup import dilate, fill_holes, remove_small
from stac_cloudmask.core.predict import PERCENT_NODATA

PROBABILITY_NODATA: Final = np.float32(100)
"""FarmVibes.AI's value of a pixel without a probability, among probabilities 0..1."""

Probability = NDArray[np.float32] | NDArray[np.uint8]
"""``(y, x)``: float32 0..1 with nodata 100.0, or uint8 whole percents (``core.predict.percent``) with nodata 255."""


def nodata_pixels(dn: NDArray[np.uint16], *, nodata: float | None = 0) -> NDArray[np.bool_]:
    """``(y, x)``, True where any band ``(band, y, x)`` is nodata; without a nodata value, nowhere."""
    if nodata is None:
        return np.zeros(dn.shape[1:], bool)
    empty: NDArray[np.bool_] = (dn == nodata).any(axis=0)
    return empty


def merge_farmvibes(
    cloud: Probability,
    shadow: Probability,
    product: NDArray[np.bool_] | NDArray[np.uint8],
    *,
    cloud_thr: float,
    shadow_thr: float,
    closing_size: int = 5,
    min_area: int = 0,
    ensemble: bool = False,
) -> NDArray[np.bool_]:
    """Cloud or shadow by a model or by the product, grown by a disk; ``(y, x)``, True is not clear.

    Nodata of a model is not clear, and grows like a cloud. Small objects and holes are counted after growing.

    Args:
        cloud: Cloud probability.
        shadow: Shadow probability.
        product: Anything but 0 is cloud, its nodata too.
        cloud_thr: Cloud above this, strictly; a whole percent where probabilities are.
        shadow_thr: The same for shadow.
        closing_size: Radius of the disk, in pixels.
        min_area: Objects, and then holes, of fewer pixels are dropped; 0 keeps all.
        ensemble: The cloud probability is the mean of several models; its nodata is then clear, as FarmVibes.AI loses
            it on the way.
    """
    flagged = _above(cloud, cloud_thr)
    if ensemble:
        flagged &= cloud != (PERCENT_NODATA if cloud.dtype == np.uint8 else PROBABILITY_NODATA)
    flagged |= _above(shadow, shadow_thr)
    flagged |= product != 0
    merged = dilate(flagged, radius=closing_size)
    if min_area > 0:
        merged = fill_holes(remove_small(merged, min_pixels=min_area), max_pixels=min_area)
    return merged


def _above(probability: Probability, threshold: float) -> NDArray[np.bool_]:
    if probability.dtype == np.uint8:
        return np.greater(probability, round(threshold * 100))
    return np.greater(probability, np.float32(threshold))
