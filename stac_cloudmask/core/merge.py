"""From votes to a class map: what every merge policy shares, and the `union` policy.

A policy selects cloud and shadow among the votes; clean-up and buffer then work on what was selected. Everything runs
on strips of rows; besides the evidence two uint8 arrays of the scene's size are held.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from stac_cloudmask.core import morphology
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.strips import in_order
from stac_cloudmask.core.votes import SCL_NODATA, Evidence, Vote

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRIP: Final = 256
"""Rows merged at once by a thread."""
# numpy takes an IntFlag for an int64 array, so the bits are uint8 before they meet one
CLOUD_VOTES: Final = np.uint8(Vote.PRODUCT_CLOUD | Vote.CLOUD_MODEL)
SHADOW_VOTES: Final = np.uint8(Vote.PRODUCT_SHADOW | Vote.SHADOW_MODEL)
ALL_BITS: Final = np.uint8(63)
SELECTED_CLOUD: Final = np.uint8(64)
SELECTED_SHADOW: Final = np.uint8(128)


@dataclass(frozen=True, kw_only=True)
class Cleanup:
    """Clean-up in meters and square meters; 0 means none. Objects and holes are cleaned first, then grown.

    Attributes:
        cloud_buffer: Growth of cloud.
        shadow_buffer: Growth of cloud shadow.
        min_area: Smallest object kept.
        hole_area: Clear holes below this are closed.
        shadow_before_buffer: True where selected shadow stands against the buffer of a cloud.
    """

    cloud_buffer: float
    shadow_buffer: float
    min_area: float
    hole_area: float
    shadow_before_buffer: bool = True


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Percents above which (strictly) a model votes."""

    cloud: int
    shadow: int


@dataclass(frozen=True)
class Merged:
    """The outcome: ``(y, x)`` uint8 class codes, and ``(y, x)`` uint8 of `Vote` bits (0 where nodata)."""

    class_map: NDArray[np.uint8]
    votes: NDArray[np.uint8]


class Select(Protocol):
    """Which pixels of some rows are cloud and which are shadow, before clean-up."""

    def __call__(self, start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``(cloud, shadow)`` of rows ``start`` to ``stop``, True where it is; both may hold."""
        ...


def select_union(start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:  # noqa: ARG001
    """Whatever a model or the product says: FarmVibes.AI's rule, with cloud and shadow kept separate."""
    cloud = (votes & CLOUD_VOTES) > 0
    shadow = (votes & SHADOW_VOTES) > 0
    return cloud, shadow


def merge(evidence: Evidence, *, thresholds: Thresholds, select: Select, clean: Cleanup, threads: int = 1) -> Merged:
    """Votes, selection, clean-up, buffer, classes.

    Where the selected cloud and shadow both hold, cloud wins, and a buffer of cloud wins over one of shadow. nodata is
    where a probability is missing or the product says so.
    """
    votes, class_map = np.empty(evidence.shape, np.uint8), np.empty(evidence.shape, np.uint8)

    def choose(strip: tuple[int, int]) -> None:
        here, valid = vote(evidence, *strip, thresholds)
        cloud, shadow = select(*strip, here)
        here |= cloud * SELECTED_CLOUD | shadow * SELECTED_SHADOW
        votes[slice(*strip)], class_map[slice(*strip)] = here, valid

    def classify(strip: tuple[int, int]) -> None:
        _classify(votes, class_map, *strip, clean=clean, gsd=evidence.gsd)

    for _ in in_order(choose, strips(evidence.shape[0]), threads=threads):
        pass
    for bit in (SELECTED_CLOUD, SELECTED_SHADOW):
        _clean(votes, bit, min_pixels=clean.min_area / evidence.gsd**2, hole_pixels=clean.hole_area / evidence.gsd**2)
    for _ in in_order(classify, strips(evidence.shape[0]), threads=threads):
        pass
    votes &= ALL_BITS
    return Merged(class_map, votes)


def strips(height: int, rows: int = STRIP) -> Iterator[tuple[int, int]]:
    """First and one past the last row of each strip."""
    for start in range(0, height, rows):
        yield start, min(start + rows, height)


def vote(
    evidence: Evidence, start: int, stop: int, thresholds: Thresholds
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Who says what in rows ``start`` to ``stop``: `Vote` bits, 0 where nodata; and True where the pixel is valid."""
    cloud, shadow = evidence.cloud[start:stop], evidence.shadow[start:stop]
    valid = (cloud != PERCENT_NODATA) & (shadow != PERCENT_NODATA)
    votes = (cloud > thresholds.cloud) * np.uint8(Vote.CLOUD_MODEL)
    votes |= (shadow > thresholds.shadow) * np.uint8(Vote.SHADOW_MODEL)
    if evidence.product is not None:
        classes = evidence.product.classes(start, stop)
        valid &= classes != SCL_NODATA
        votes |= evidence.product.votes(classes)
    votes *= valid
    return votes, valid


def _clean(votes: NDArray[np.uint8], bit: np.uint8, *, min_pixels: float, hole_pixels: float) -> None:
    """Drop small objects of a selected layer, then close its small holes, in place."""
    if max(min_pixels, hole_pixels) <= 1:
        return
    layer = morphology.remove_small((votes & bit) > 0, min_pixels=min_pixels)
    layer = morphology.fill_holes(layer, max_pixels=hole_pixels)
    votes &= ~bit
    votes |= layer * bit


def _classify(
    votes: NDArray[np.uint8], class_map: NDArray[np.uint8], start: int, stop: int, *, clean: Cleanup, gsd: float
) -> None:
    """Turn ``class_map`` (1 = valid) into class codes for some rows, and note what was removed and what was added.

    The neighboring rows that a buffer needs are read from ``votes``, whose selected layers stay untouched, also while
    another thread adds its notes to these rows.
    """
    here, valid = votes[start:stop], class_map[start:stop] == 1
    cloud, shadow = ((here & bit) > 0 for bit in (SELECTED_CLOUD, SELECTED_SHADOW))
    near_cloud = _grown(votes, SELECTED_CLOUD, start, stop, radius=clean.cloud_buffer / gsd)
    near_shadow = _grown(votes, SELECTED_SHADOW, start, stop, radius=clean.shadow_buffer / gsd)
    code = near_shadow * np.uint8(CloudClass.CLOUD_SHADOW)
    code[near_cloud] = CloudClass.CLOUD
    if clean.shadow_before_buffer:
        code[shadow] = CloudClass.CLOUD_SHADOW
    code[cloud] = CloudClass.CLOUD
    removed = ~cloud & ~shadow & ((here & (CLOUD_VOTES | SHADOW_VOTES)) > 0)
    unasked = (here & CLOUD_VOTES) == 0
    added = np.where(code == CloudClass.CLOUD, ~cloud | unasked, ~shadow & (code == CloudClass.CLOUD_SHADOW))
    code[~valid] = CloudClass.NODATA
    here |= (valid & removed) * np.uint8(Vote.REMOVED)
    here |= (valid & added) * np.uint8(Vote.BUFFER)
    class_map[start:stop] = code


def _grown(votes: NDArray[np.uint8], bit: np.uint8, start: int, stop: int, *, radius: float) -> NDArray[np.bool_]:
    halo = math.floor(radius)
    top = max(start - halo, 0)
    layer = (votes[top : stop + halo] & bit) > 0
    return morphology.dilate(layer, radius=radius)[start - top : stop - top]
