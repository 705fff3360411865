"""What many dates of one place tell of each: a surface that is bright on all of them is no cloud."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.errors import ConfigError


def bright_surfaces(
    percents: NDArray[np.uint8],
    product_cloud: NDArray[np.bool_],
    *,
    threshold: int,
    reach: int = 10,
    most: int = 5,
) -> NDArray[np.bool_]:
    """Where a model's cloud is a bright surface, and the product's own mask is to be believed; ``(date, y, x)``.

    True where the model calls a pixel cloud, the product does not, and the same holds on more than ``most`` of the
    dates from ``reach`` before to ``reach`` after, this one included. The window is centered on every date; at the
    ends of the series it has fewer dates. Nothing is ever True where the product says cloud or the model has no data.

    Args:
        percents: ``(date, y, x)`` uint8, cloud probability in whole percents by date in order of time; 255 is nodata.
        product_cloud: ``(date, y, x)``, True where the product's mask is cloud.
        threshold: Cloud above this many percent, strictly.
        reach: Dates to look back, and ahead.
        most: Dates on which a cloud that the product does not see is believed.
    """
    if percents.shape != product_cloud.shape:
        raise ConfigError(f"percents {percents.shape} and product_cloud {product_cloud.shape} differ in shape")
    if reach < 0 or most < 0:
        raise ConfigError(f"reach and most must be at least 0, got {reach} and {most}")
    extra: NDArray[np.bool_] = (percents > threshold) & (percents != PERCENT_NODATA) & ~product_cloud
    dates = len(extra)
    bright: NDArray[np.bool_] = np.empty_like(extra)
    count = extra[:reach].sum(axis=0, dtype=np.uint16)
    for date in range(dates):
        if date + reach < dates:
            count += extra[date + reach]
        if date - reach > 0:
            count -= extra[date - reach - 1]
        np.logical_and(extra[date], count > most, out=bright[date])
    return bright
