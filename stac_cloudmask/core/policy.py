"""The merge policies by name, and FarmVibes.AI's merge."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.calibrated import NO_PRODUCT, Rules, calibrated
from stac_cloudmask.core.merge import Cleanup, Thresholds, select_union, strips, vote
from stac_cloudmask.core.merge import merge as merge_votes
from stac_cloudmask.core.morphology import dilate, fill_holes, remove_small
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import SCL_NODATA, Evidence, Vote
from stac_cloudmask.errors import ConfigError

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


Parameters = dict[str, float | str | None]

RULES: Final = Rules()
FARMVIBES: Final = "farmvibes"
FARMVIBES_DISK: Final = 5
"""Radius in pixels by which FarmVibes.AI grows what it flags, whatever the size of a pixel."""
FARMVIBES_CLASSES: Final = "cloud stands for cloud, cloud shadow and no data alike"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a policy does where the user leaves a setting to it.

    Attributes:
        cloud: Percent above which the cloud model votes.
        shadow: The same for cloud shadow.
        cloud_buffer: Growth of cloud in meters.
        shadow_buffer: Growth of cloud shadow in meters.
        min_area: Smallest object kept, in square meters.
        hole_area: Clear holes below this many square meters are closed.
    """

    cloud: int
    shadow: int
    cloud_buffer: float
    shadow_buffer: float
    min_area: float = 0.0
    hole_area: float = 0.0

    def adjusted(
        self,
        cloud_thr: float | None,
        shadow_thr: float | None,
        buffer: float | None,
        min_area: float | None,
        hole_area: float | None,
    ) -> Policy:
        """The policy with what the user asked for; thresholds 0..1, None leaves a setting as it is."""
        return Policy(
            cloud=self.cloud if cloud_thr is None else round(100 * cloud_thr),
            shadow=self.shadow if shadow_thr is None else round(100 * shadow_thr),
            cloud_buffer=self.cloud_buffer if buffer is None else buffer,
            shadow_buffer=self.shadow_buffer if buffer is None else buffer,
            min_area=self.min_area if min_area is None else min_area,
            hole_area=self.hole_area if hole_area is None else hole_area,
        )

    @property
    def thresholds(self) -> Thresholds:
        """Percents above which a model votes."""
        return Thresholds(cloud=self.cloud, shadow=self.shadow)

    def cleanup(self, *, shadow_before_buffer: bool) -> Cleanup:
        """The clean-up, in meters and square meters."""
        return Cleanup(
            cloud_buffer=self.cloud_buffer,
            shadow_buffer=self.shadow_buffer,
            min_area=self.min_area,
            hole_area=self.hole_area,
            shadow_before_buffer=shadow_before_buffer,
        )

    def parameters(self) -> Parameters:
        """The settings by the names that an output item gives them."""
        return {
            "cloud_thr": self.cloud / 100,
            "shadow_thr": self.shadow / 100,
            "cloud_buffer": self.cloud_buffer,
            "shadow_buffer": self.shadow_buffer,
            "min_area": self.min_area,
            "hole_area": self.hole_area,
        }


POLICIES: Final = MappingProxyType(
    {
        # the thresholds and the buffer of FarmVibes.AI's workflow, its 5 pixels of 10 m in meters
        "union": Policy(cloud=30, shadow=20, cloud_buffer=50.0, shadow_buffer=50.0),
        # docs/accuracy.md: chips' cloud F1 is within 0.005 from 15 to 45 percent of cloud and 37 to 62 m of buffer;
        # Alberta's shadow F1 within 0.005 from 45 to 90 percent of shadow, and any buffer of shadow costs
        "calibrated": Policy(cloud=30, shadow=60, cloud_buffer=50.0, shadow_buffer=0.0),
    }
)
"""The policies by name; ``farmvibes`` works in pixels and is not among them."""


@dataclass(frozen=True)
class Decision:
    """A class map, and how it came about.

    Attributes:
        class_map: ``(y, x)`` uint8 codes of `CloudClass`.
        votes: ``(y, x)`` uint8 bits of `Vote`, 0 where nodata.
        parameters: Thresholds, sizes and constants as they were applied, by name.
        notes: Rules that were skipped, and why.
        scl: ``(y, x)`` uint8, the scene classification with this mask in it, 0 = nodata; None where nobody asked.
    """

    class_map: NDArray[np.uint8]
    votes: NDArray[np.uint8]
    parameters: Parameters
    notes: tuple[str, ...] = ()
    scl: NDArray[np.uint8] | None = None


def nir_factor(gsd: float) -> int:
    """Pixels of ``gsd`` meters along the side of the near-infrared blocks that the policies want."""
    return RULES.cell_factor(gsd)


def decide(
    evidence: Evidence,
    *,
    merge: str,
    cloud_thr: float | None = None,
    shadow_thr: float | None = None,
    buffer: float | None = None,
    min_area: float | None = None,
    hole_area: float | None = None,
    threads: int = 1,
) -> Decision:
    """Merge all that is known of a scene into one class map.

    Args:
        evidence: Probabilities, product mask, sun and near infrared.
        merge: Name of the policy.
        cloud_thr: Cloud probability above which the model votes, a whole percent in 0..1; None takes the policy's, as
            for all that follow.
        shadow_thr: The same for cloud shadow.
        buffer: Growth in meters of cloud and of cloud shadow.
        min_area: Smallest object kept, in square meters.
        hole_area: Clear holes below this many square meters are closed.
        threads: That work at once; the outcome is the same to the bit.
    """
    if merge == FARMVIBES:
        policy = _farmvibes_policy(evidence.gsd)
        if hole_area is not None:
            raise ConfigError("merge 'farmvibes' closes holes by min_area; leave hole_area out")
    else:
        policy = POLICIES[merge]
    policy = policy.adjusted(cloud_thr, shadow_thr, buffer, min_area, hole_area)
    return DECIDERS[merge](evidence, policy, threads)


def _farmvibes_policy(gsd: float) -> Policy:
    return Policy(cloud=30, shadow=20, cloud_buffer=FARMVIBES_DISK * gsd, shadow_buffer=FARMVIBES_DISK * gsd)


def _union(evidence: Evidence, policy: Policy, threads: int) -> Decision:
    found = merge_votes(
        evidence,
        thresholds=policy.thresholds,
        select=select_union,
        clean=policy.cleanup(shadow_before_buffer=False),
        threads=threads,
    )
    notes = () if evidence.product is not None else (NO_PRODUCT,)
    return Decision(found.class_map, found.votes, policy.parameters(), notes)


def _calibrated(evidence: Evidence, policy: Policy, threads: int) -> Decision:
    survey = calibrated(evidence, RULES, policy.thresholds, threads=threads)
    clean = policy.cleanup(shadow_before_buffer=survey.sunlit)
    found = merge_votes(evidence, thresholds=policy.thresholds, select=survey.select, clean=clean, threads=threads)
    measured: Parameters = {
        "sun_azimuth": evidence.sun.azimuth if evidence.sun else None,
        "sun_elevation": evidence.sun.elevation if evidence.sun else None,
        "shadow_edge": None if survey.darkness is None else round(survey.edge, 4),
    }
    return Decision(found.class_map, found.votes, policy.parameters() | measured, survey.notes)


def _farmvibes(evidence: Evidence, policy: Policy, threads: int) -> Decision:  # noqa: ARG001  (as the others)
    """FarmVibes.AI's merge: sizes in pixels, shadow as cloud, nodata as cloud, and one area for objects and holes."""
    votes, valid, product = _farmvibes_votes(evidence, policy.thresholds)
    flagged = merge_farmvibes(
        evidence.cloud,
        evidence.shadow,
        product,
        cloud_thr=policy.cloud / 100,
        shadow_thr=policy.shadow / 100,
        closing_size=round(policy.cloud_buffer / evidence.gsd),
        min_area=round(policy.min_area / evidence.gsd**2),
    )
    votes |= (valid & flagged & (votes == 0)) * np.uint8(Vote.BUFFER)
    votes |= (valid & ~flagged & (votes > 0)) * np.uint8(Vote.REMOVED)
    class_map = flagged.view(np.uint8)  # True is CloudClass.CLOUD
    notes = (FARMVIBES_CLASSES,) if evidence.product is not None else (FARMVIBES_CLASSES, NO_PRODUCT)
    return Decision(class_map, votes, policy.parameters(), notes)


def _farmvibes_votes(
    evidence: Evidence, thresholds: Thresholds
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Votes, valid pixels, and what FarmVibes.AI takes for cloud in the product: its clouds and its nodata."""
    votes, valid = np.empty(evidence.shape, np.uint8), np.empty(evidence.shape, np.bool_)
    product = np.zeros(evidence.shape, np.bool_)
    for start, stop in strips(evidence.shape[0]):
        rows = slice(start, stop)
        votes[rows], valid[rows] = vote(evidence, start, stop, thresholds)
        if evidence.product is not None:
            classes = evidence.product.classes(start, stop)
            clouds = evidence.product.votes(classes) & np.uint8(Vote.PRODUCT_CLOUD)
            product[rows] = (clouds > 0) | (classes == SCL_NODATA)
    return votes, valid, product


DECIDERS: Final = MappingProxyType({"union": _union, "calibrated": _calibrated, FARMVIBES: _farmvibes})
