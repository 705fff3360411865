"""Merge votes into a class map by one of the policies: `calibrated`, `union` or FarmVibes.AI's.

A policy selects cloud and shadow among the votes; clean-up and buffer are then applied to the selection. Everything
runs on strips of rows; memory holds the evidence and two uint8 arrays of the scene's size. What `calibrated` selects is
decided in `core.merge_calibrated`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.config import Settings
from stac_cloudmask.core import morphology
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import in_order, strips
from stac_cloudmask.core.merge_calibrated import NO_PRODUCT, Survey
from stac_cloudmask.core.votes import VOTES_NODATA, Evidence, Vote, vote

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
        asked = {"cloud_buffer": settings.buffer, "shadow_buffer": settings.buffer}
        asked |= {name: getattr(settings, name) for name in ("cloud_thr", "shadow_thr", "min_area", "hole_area")}
        return replace(self, **{name: value for name, value in asked.items() if value is not None})


Select = Callable[[int, int, "NDArray[np.uint8]"], "tuple[NDArray[np.bool_], NDArray[np.bool_]]"]
"""``select(start, stop, votes)`` returns cloud and shadow of rows ``start`` to ``stop``, before clean-up: ``(y, x)``,
True where present. A pixel may be both."""


def select_union(start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:  # noqa: ARG001
    """Select any vote of a model or the product: FarmVibes.AI's rule, with cloud and shadow kept separate."""
    return (votes & CLOUD_VOTES) > 0, (votes & SHADOW_VOTES) > 0


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
        votes[slice(*strip)], class_map[slice(*strip)] = here, valid  # 1 = valid, until the pixel is classified

    def classify(strip: tuple[int, int]) -> None:
        near_cloud = _grown(votes, SELECTED_CLOUD, *strip, radius=policy.cloud_buffer / evidence.gsd)
        near_shadow = _grown(votes, SELECTED_SHADOW, *strip, radius=policy.shadow_buffer / evidence.gsd)
        here, codes = votes[slice(*strip)], class_map[slice(*strip)]
        valid = codes == 1
        cloud, shadow = (here & SELECTED_CLOUD) > 0, (here & SELECTED_SHADOW) > 0
        codes[:] = near_shadow * np.uint8(CloudClass.CLOUD_SHADOW)
        codes[near_cloud] = CloudClass.CLOUD
        if shadow_before_buffer:
            codes[shadow] = CloudClass.CLOUD_SHADOW
        codes[cloud] = CloudClass.CLOUD
        is_cloud, is_shadow = codes == CloudClass.CLOUD, codes == CloudClass.CLOUD_SHADOW
        removed = ~cloud & ~shadow & ((here & (CLOUD_VOTES | SHADOW_VOTES)) > 0)
        added = (is_cloud & (~cloud | ((here & CLOUD_VOTES) == 0))) | (is_shadow & ~shadow)
        codes[~valid] = CloudClass.NODATA
        # The selected layers are not changed: another thread reads them for its buffers
        here |= (valid & removed) * np.uint8(Vote.REMOVED) | (valid & added) * np.uint8(Vote.ADDED)

    for _ in in_order(choose, strips(evidence.shape[0]), threads=threads):
        pass
    for bit in (SELECTED_CLOUD, SELECTED_SHADOW):
        _clean(votes, bit, min_pixels=policy.min_area / evidence.gsd**2, hole_pixels=policy.hole_area / evidence.gsd**2)
    for _ in in_order(classify, strips(evidence.shape[0]), threads=threads):
        pass
    votes &= ALL_BITS
    return class_map, votes


def _clean(votes: NDArray[np.uint8], bit: np.uint8, *, min_pixels: float, hole_pixels: float) -> None:
    """Remove small objects of a selected layer, then fill its small holes, in place."""
    if max(min_pixels, hole_pixels) <= 1:
        return
    layer = morphology.remove_small((votes & bit) > 0, min_pixels=min_pixels)
    layer = morphology.fill_holes(layer, max_pixels=hole_pixels)
    votes &= ~bit
    votes |= layer * bit


def _grown(votes: NDArray[np.uint8], bit: np.uint8, start: int, stop: int, *, radius: float) -> NDArray[np.bool_]:
    halo = math.floor(radius)
    top = max(start - halo, 0)
    layer = (votes[top : stop + halo] & bit) > 0
    return morphology.dilate(layer, radius=radius)[start - top : stop - top]


Parameters = dict[str, float | None]

FARMVIBES: Final = "farmvibes"
FARMVIBES_DISK: Final = 5
"""Radius in pixels of FarmVibes.AI's dilation, regardless of the pixel size."""
FARMVIBES_CLASSES: Final = "cloud stands for cloud, cloud shadow and no data alike"

POLICIES: Final = {
    # the thresholds and the buffer of FarmVibes.AI's workflow, its 5 pixels of 10 m in meters
    "union": Policy(cloud_thr=0.3, shadow_thr=0.2, cloud_buffer=50.0, shadow_buffer=50.0),
    # docs/accuracy.md: chips' cloud F1 is within 0.005 from 15 to 45 percent of cloud and 37 to 62 m of buffer;
    # Alberta's shadow F1 within 0.005 from 45 to 90 percent of shadow, and any buffer of shadow costs
    "calibrated": Policy(cloud_thr=0.3, shadow_thr=0.6, cloud_buffer=50.0, shadow_buffer=0.0),
}
"""Default settings of each policy, except ``farmvibes``, which works in pixels."""


@dataclass(frozen=True)
class Decision:
    """A class map, and the settings that produced it.

    Attributes:
        class_map: ``(y, x)`` uint8 codes of `CloudClass`.
        votes: ``(y, x)`` uint8 bits of `Vote`, 0 where nodata.
        parameters: Thresholds, sizes and constants as they were applied, by name.
        notes: Skipped rules, with the reason.
        scl: ``(y, x)`` uint8, the scene classification with this mask in it, 0 = nodata; None if not requested.
    """

    class_map: NDArray[np.uint8]
    votes: NDArray[np.uint8]
    parameters: Parameters
    notes: tuple[str, ...] = ()
    scl: NDArray[np.uint8] | None = None

    @property
    def published_votes(self) -> NDArray[np.uint8]:
        """The votes as they are published: 255 where there is no data."""
        return np.where(self.class_map == CloudClass.NODATA, np.uint8(VOTES_NODATA), self.votes)


def decide(evidence: Evidence, settings: Settings, *, threads: int = 1) -> Decision:
    """Merge the evidence of a scene into one class map.

    Args:
        evidence: Probabilities, product mask, sun and near infrared.
        settings: Name of the policy, and the settings that differ from its defaults.
        threads: Number of worker threads; the result is bit-identical.
    """
    if settings.merge == FARMVIBES:
        return _farmvibes(evidence, settings)
    policy = POLICIES[settings.merge].adjusted(settings)
    if settings.merge == "union":
        found = merge(evidence, policy, select_union, shadow_before_buffer=False, threads=threads)
        return Decision(*found, asdict(policy), () if evidence.product is not None else (NO_PRODUCT,))
    survey = Survey(evidence, policy, threads=threads)
    found = merge(evidence, policy, survey.select, shadow_before_buffer=survey.sun is not None, threads=threads)
    measured: Parameters = {
        "sun_azimuth": evidence.sun.azimuth if evidence.sun else None,
        "sun_elevation": evidence.sun.elevation if evidence.sun else None,
        "shadow_edge": None if survey.dark is None else round(survey.edge, 4),
    }
    return Decision(*found, asdict(policy) | measured, survey.notes)


def _farmvibes(evidence: Evidence, settings: Settings) -> Decision:
    """Apply FarmVibes.AI's merge: sizes in pixels, shadow and nodata as cloud, one area for objects and holes."""
    disk = FARMVIBES_DISK * evidence.gsd
    policy = replace(POLICIES["union"], cloud_buffer=disk, shadow_buffer=disk).adjusted(settings)
    votes, valid = vote(evidence, 0, evidence.shape[0], policy)
    flagged = merge_farmvibes(
        ~valid | ((votes & (CLOUD_VOTES | np.uint8(Vote.SHADOW_MODEL))) > 0),
        closing_size=round(policy.cloud_buffer / evidence.gsd),
        min_area=round(policy.min_area / evidence.gsd**2),
    )
    votes |= (valid & flagged & (votes == 0)) * np.uint8(Vote.ADDED)
    votes |= (valid & ~flagged & (votes > 0)) * np.uint8(Vote.REMOVED)
    notes = (FARMVIBES_CLASSES,) if evidence.product is not None else (FARMVIBES_CLASSES, NO_PRODUCT)
    return Decision(flagged.view(np.uint8), votes, asdict(policy), notes)  # True is CloudClass.CLOUD


def merge_farmvibes(flagged: NDArray[np.bool_], *, closing_size: int = 5, min_area: int = 0) -> NDArray[np.bool_]:
    """Return the pixels that FarmVibes.AI does not call clear, ``(y, x)``.

    Small objects and holes are measured after dilation.

    Args:
        flagged: Cloud or shadow by a model or the product; nodata of a model or of the product counts as cloud.
        closing_size: Radius of the disk by which they are dilated, in pixels.
        min_area: Objects, and then holes, of fewer pixels are removed; 0 keeps all.
    """
    merged = morphology.dilate(flagged, radius=closing_size)
    return morphology.fill_holes(morphology.remove_small(merged, min_pixels=min_area), max_pixels=min_area)
