"""The merge policies: what each of them asks of a vote, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.calibrated import NO_PRODUCT, calibrated
from stac_cloudmask.core.evidence import SCL_NODATA, Evidence, Vote
from stac_cloudmask.core.farmvibes import merge_farmvibes
from stac_cloudmask.core.merge import Cleanup, Thresholds, select_union, strips, vote
from stac_cloudmask.core.merge import merge as merge_votes
from stac_cloudmask.core.rules import Rules
from stac_cloudmask.errors import ConfigError

Parameters = dict[str, float | str | None]

RULES: Final = Rules()
SEED_MERGE: Final = "farmvibes"
SEED_DISK: Final = 5
"""Radius in pixels by which the seed grows what it flags, whatever the size of a pixel."""
SEED_CLASSES: Final = "cloud stands for cloud, cloud shadow and no data alike"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a policy does where the user leaves a setting to it.

    Attributes:
        cloud: Percent above which the cloud model votes.
        shadow: The same for cloud shadow.
        cloud_buffer: Growth of cloud in metres.
        shadow_buffer: Growth of cloud shadow in metres.
        min_area: Smallest object kept, in square metres.
        hole_area: Clear holes below this many square metres are closed.
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
        """The clean-up, in metres and square metres."""
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
        # the thresholds and the buffer of FarmVibes.AI's workflow, its 5 pixels of 10 m in metres
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
    """

    class_map: NDArray[np.uint8]
    votes: NDArray[np.uint8]
    parameters: Parameters
    notes: tuple[str, ...] = ()


def nir_factor(gsd: float) -> int:
    """Pixels of ``gsd`` metres along the side of the near-infrared blocks that the policies want."""
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
        buffer: Growth in metres of cloud and of cloud shadow.
        min_area: Smallest object kept, in square metres.
        hole_area: Clear holes below this many square metres are closed.
        threads: That work at once; the outcome is the same to the bit.
    """
    if merge == SEED_MERGE:
        policy = _seed_policy(evidence.gsd)
        if hole_area is not None:
            raise ConfigError("merge 'farmvibes' closes holes by min_area; leave hole_area out")
    else:
        policy = POLICIES[merge]
    policy = policy.adjusted(cloud_thr, shadow_thr, buffer, min_area, hole_area)
    return DECIDERS[merge](evidence, policy, threads)


def _seed_policy(gsd: float) -> Policy:
    return Policy(cloud=30, shadow=20, cloud_buffer=SEED_DISK * gsd, shadow_buffer=SEED_DISK * gsd)


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
    """The seed's merge: sizes in pixels, shadow as cloud, nodata as cloud, and one area for objects and holes."""
    votes, valid, product = _seed_votes(evidence, policy.thresholds)
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
    notes = (SEED_CLASSES,) if evidence.product is not None else (SEED_CLASSES, NO_PRODUCT)
    return Decision(class_map, votes, policy.parameters(), notes)


def _seed_votes(
    evidence: Evidence, thresholds: Thresholds
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Votes, valid pixels, and what the seed takes for cloud in the product: its clouds and its nodata."""
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


DECIDERS: Final = MappingProxyType({"union": _union, "calibrated": _calibrated, SEED_MERGE: _farmvibes})
