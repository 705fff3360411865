"""Merge votes into a class map: the steps that all merge policies share, and the `union` policy.

A policy selects cloud and shadow among the votes; clean-up and buffer are then applied to the selection. Everything
runs on strips of rows; memory holds the evidence and two uint8 arrays of the scene's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from stac_cloudmask.core import morphology
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.threads import in_order
from stac_cloudmask.core.votes import Evidence, Scl, Vote

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings

STRIP: Final = 256
"""Rows merged at once by a thread."""
# NumPy treats an IntFlag as int64, so the bits are converted to uint8 first
CLOUD_VOTES: Final = np.uint8(Vote.PRODUCT_CLOUD | Vote.CLOUD_MODEL)
SHADOW_VOTES: Final = np.uint8(Vote.PRODUCT_SHADOW | Vote.SHADOW_MODEL)
ALL_BITS: Final = np.uint8(63)
SELECTED_CLOUD: Final = np.uint8(64)
SELECTED_SHADOW: Final = np.uint8(128)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The settings of a merge, named as in output items; areas and distances of 0 mean none.

    Small objects and holes are removed first, then the classes are dilated.

    Attributes:
        cloud_thr: Probability 0..1 above which (strictly) the cloud model votes, a whole percent.
        shadow_thr: The same for cloud shadow.
        cloud_buffer: Dilation of cloud in meters.
        shadow_buffer: Dilation of cloud shadow in meters.
        min_area: Smallest object kept, in square meters.
        hole_area: Clear holes below this many square meters are closed.
    """

    cloud_thr: float
    shadow_thr: float
    cloud_buffer: float
    shadow_buffer: float
    min_area: float = 0.0
    hole_area: float = 0.0

    def adjusted(self, settings: Settings) -> Policy:
        """Return the policy with the user's settings."""
        asked = {
            "cloud_thr": settings.cloud_thr,
            "shadow_thr": settings.shadow_thr,
            "cloud_buffer": settings.buffer,
            "shadow_buffer": settings.buffer,
            "min_area": settings.min_area,
            "hole_area": settings.hole_area,
        }
        return replace(self, **{name: value for name, value in asked.items() if value is not None})


Select = Callable[[int, int, "NDArray[np.uint8]"], "tuple[NDArray[np.bool_], NDArray[np.bool_]]"]
"""``select(start, stop, votes)`` returns cloud and shadow of rows ``start`` to ``stop``, before clean-up: ``(y, x)``,
True where present. A pixel may be both."""


def select_union(start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:  # noqa: ARG001
    """Select any vote of a model or the product: FarmVibes.AI's rule, with cloud and shadow kept separate."""
    cloud = (votes & CLOUD_VOTES) > 0
    shadow = (votes & SHADOW_VOTES) > 0
    return cloud, shadow


def merge(
    evidence: Evidence, policy: Policy, select: Select, *, shadow_before_buffer: bool, threads: int = 1
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return ``(y, x)`` uint8 class codes, and ``(y, x)`` uint8 of `Vote` bits, 0 where nodata.

    Where cloud and shadow are both selected, cloud wins, and a buffer of cloud wins over one of shadow. A pixel is
    nodata if a probability is missing or the product has nodata.

    Args:
        evidence: Evidence of the scene.
        policy: Thresholds, clean-up and buffers.
        select: Function that selects the votes that count.
        shadow_before_buffer: Whether selected shadow wins over the buffer of a cloud.
        threads: Number of worker threads; the result is bit-identical.
    """
    votes, class_map = np.empty(evidence.shape, np.uint8), np.empty(evidence.shape, np.uint8)

    def choose(strip: tuple[int, int]) -> None:
        here, valid = vote(evidence, *strip, policy)
        cloud, shadow = select(*strip, here)
        here |= cloud * SELECTED_CLOUD | shadow * SELECTED_SHADOW
        votes[slice(*strip)], class_map[slice(*strip)] = here, valid

    def classify(strip: tuple[int, int]) -> None:
        near = [
            _grown(votes, bit, *strip, radius=buffer / evidence.gsd)
            for bit, buffer in ((SELECTED_CLOUD, policy.cloud_buffer), (SELECTED_SHADOW, policy.shadow_buffer))
        ]
        _classify(votes[slice(*strip)], class_map[slice(*strip)], *near, shadow_before_buffer=shadow_before_buffer)

    for _ in in_order(choose, strips(evidence.shape[0]), threads=threads):
        pass
    for bit in (SELECTED_CLOUD, SELECTED_SHADOW):
        _clean(votes, bit, min_pixels=policy.min_area / evidence.gsd**2, hole_pixels=policy.hole_area / evidence.gsd**2)
    for _ in in_order(classify, strips(evidence.shape[0]), threads=threads):
        pass
    votes &= ALL_BITS
    return class_map, votes


def strips(height: int, rows: int = STRIP) -> Iterator[tuple[int, int]]:
    """Return the first and one past the last row of each strip."""
    for start in range(0, height, rows):
        yield start, min(start + rows, height)


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


def _clean(votes: NDArray[np.uint8], bit: np.uint8, *, min_pixels: float, hole_pixels: float) -> None:
    """Remove small objects of a selected layer, then fill its small holes, in place."""
    if max(min_pixels, hole_pixels) <= 1:
        return
    layer = morphology.remove_small((votes & bit) > 0, min_pixels=min_pixels)
    layer = morphology.fill_holes(layer, max_pixels=hole_pixels)
    votes &= ~bit
    votes |= layer * bit


def _classify(
    votes: NDArray[np.uint8],
    class_map: NDArray[np.uint8],
    near_cloud: NDArray[np.bool_],
    near_shadow: NDArray[np.bool_],
    *,
    shadow_before_buffer: bool,
) -> None:
    """Turn ``class_map`` (1 = valid) into class codes, and set the bits of removed and added pixels in ``votes``.

    The selected layers in ``votes`` are not changed: another thread reads them for its buffers.
    """
    valid = class_map == 1
    cloud, shadow = ((votes & bit) > 0 for bit in (SELECTED_CLOUD, SELECTED_SHADOW))
    class_map[:] = near_shadow * np.uint8(CloudClass.CLOUD_SHADOW)
    class_map[near_cloud] = CloudClass.CLOUD
    if shadow_before_buffer:
        class_map[shadow] = CloudClass.CLOUD_SHADOW
    class_map[cloud] = CloudClass.CLOUD
    is_cloud, is_shadow = class_map == CloudClass.CLOUD, class_map == CloudClass.CLOUD_SHADOW
    removed = ~cloud & ~shadow & ((votes & (CLOUD_VOTES | SHADOW_VOTES)) > 0)
    added = (is_cloud & (~cloud | ((votes & CLOUD_VOTES) == 0))) | (is_shadow & ~shadow)
    class_map[~valid] = CloudClass.NODATA
    votes |= (valid & removed) * np.uint8(Vote.REMOVED)
    votes |= (valid & added) * np.uint8(Vote.ADDED)


def _grown(votes: NDArray[np.uint8], bit: np.uint8, start: int, stop: int, *, radius: float) -> NDArray[np.bool_]:
    halo = math.floor(radius)
    top = max(start - halo, 0)
    layer = (votes[top : stop + halo] & bit) > 0
    return morphology.dilate(layer, radius=radius)[start - top : stop - top]
