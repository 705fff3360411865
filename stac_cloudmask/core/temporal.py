"""What many dates of one place tell of each: a surface that is bright on all of them is no cloud."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core import cleanup
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.evidence import Vote
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.errors import ConfigError

# numpy takes an IntFlag for an int64 array
CLOUD_MODEL: Final = np.uint8(Vote.CLOUD_MODEL)
MODEL_OR_PRODUCT: Final = np.uint8(Vote.CLOUD_MODEL | Vote.PRODUCT_CLOUD)
PRODUCT_SHADOW: Final = np.uint8(Vote.PRODUCT_SHADOW)
BUFFER: Final = np.uint8(Vote.BUFFER)
BRIGHT: Final = np.uint8(Vote.BRIGHT)


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
    extra: NDArray[np.bool_] = (percents > threshold) & (percents != PERCENT_NODATA) & ~product_cloud
    return on_many_dates(extra, reach=reach, most=most)


def on_many_dates(extra: NDArray[np.bool_], *, reach: int = 10, most: int = 5) -> NDArray[np.bool_]:
    """Where ``extra`` holds, and on more than ``most`` of the dates around, too; see ``bright_surfaces``.

    Args:
        extra: ``(date, y, x)`` in order of time: cloud of the model that the product does not see.
        reach: Dates to look back, and ahead.
        most: Dates on which it is believed.
    """
    if reach < 0 or most < 0:
        raise ConfigError(f"reach and most must be at least 0, got {reach} and {most}")
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


def extra_clouds(votes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where the cloud model votes cloud and the product does not; ``votes`` has bits of `Vote`."""
    found: NDArray[np.bool_] = (votes & MODEL_OR_PRODUCT) == CLOUD_MODEL
    return found


def give_back(
    class_map: NDArray[np.uint8], votes: NDArray[np.uint8], bright: NDArray[np.bool_], *, radius: float
) -> None:
    """Turn the cloud of bright surfaces into what the product says, in place; what was turned before is judged anew.

    With it goes the buffer that nothing but such cloud has: the cloud that is left is grown again. Pixels that are
    turned have the bit `Vote.BRIGHT`, so that nothing is lost: without it they were cloud.

    Args:
        class_map: ``(y, x)`` uint8 codes of `CloudClass`.
        votes: ``(y, x)`` uint8 bits of `Vote`.
        bright: ``(y, x)``, True where many dates tell of a bright surface.
        radius: Buffer of cloud in pixels.
    """
    class_map[(votes & BRIGHT) > 0] = CloudClass.CLOUD
    votes &= ~BRIGHT
    cloud = class_map == CloudClass.CLOUD
    kept = cloud & ((votes & BUFFER) == 0) & ~bright
    lost = cloud & ~cleanup.dilate(kept, radius=radius)
    shadow = (votes & PRODUCT_SHADOW) > 0
    class_map[lost] = np.where(shadow[lost], CloudClass.CLOUD_SHADOW, CloudClass.CLEAR)
    votes[lost] |= BRIGHT
