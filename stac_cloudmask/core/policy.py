"""The merge policies by name, and FarmVibes.AI's merge."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from stac_cloudmask.core.calibrated import NO_PRODUCT, RULES, calibrated
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import Policy, merge, select_union, vote
from stac_cloudmask.core.morphology import dilate, fill_holes, remove_small
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA, Evidence, Scl, Vote
from stac_cloudmask.errors import ConfigError

if TYPE_CHECKING:
    from stac_cloudmask.config import Settings

PROBABILITY_NODATA: Final = np.float32(100)
"""FarmVibes.AI's value of a pixel without a probability, among probabilities 0..1."""

Probability = NDArray[np.float32] | NDArray[np.uint8]
"""``(y, x)``: float32 0..1 with nodata 100.0, or uint8 whole percents (``core.predict.percent``) with nodata 255."""


def nodata_pixels(dn: NDArray[np.uint16], *, nodata: float | None = 0) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where any band ``(band, y, x)`` is nodata; all False without a nodata value."""
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
    """Return cloud or shadow by a model or the product, dilated by a disk; ``(y, x)``, True is not clear.

    Nodata of a model is not clear, and is dilated like cloud. Small objects and holes are measured after dilation.

    Args:
        cloud: Cloud probability.
        shadow: Shadow probability.
        product: Any value other than 0 is cloud, including its nodata.
        cloud_thr: Cloud above this, strictly; a whole percent where probabilities are.
        shadow_thr: The same for shadow.
        closing_size: Radius of the disk, in pixels.
        min_area: Objects, and then holes, of fewer pixels are removed; 0 keeps all.
        ensemble: The cloud probability is the mean of several models; its nodata is then clear, because FarmVibes.AI
            loses it.
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


Parameters = dict[str, float | None]

FARMVIBES: Final = "farmvibes"
FARMVIBES_DISK: Final = 5
"""Radius in pixels of FarmVibes.AI's dilation, regardless of the pixel size."""
FARMVIBES_CLASSES: Final = "cloud stands for cloud, cloud shadow and no data alike"

POLICIES: Final = MappingProxyType(
    {
        # the thresholds and the buffer of FarmVibes.AI's workflow, its 5 pixels of 10 m in meters
        "union": Policy(cloud_thr=0.3, shadow_thr=0.2, cloud_buffer=50.0, shadow_buffer=50.0),
        # docs/accuracy.md: chips' cloud F1 is within 0.005 from 15 to 45 percent of cloud and 37 to 62 m of buffer;
        # Alberta's shadow F1 within 0.005 from 45 to 90 percent of shadow, and any buffer of shadow costs
        "calibrated": Policy(cloud_thr=0.3, shadow_thr=0.6, cloud_buffer=50.0, shadow_buffer=0.0),
    }
)
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


def nir_factor(gsd: float) -> int:
    """Return the pixels of ``gsd`` meters along the side of the near-infrared blocks that the policies need."""
    return RULES.cell_factor(gsd)


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
    survey = calibrated(evidence, policy, threads=threads)
    found = merge(evidence, policy, survey.select, shadow_before_buffer=survey.sunlit, threads=threads)
    measured: Parameters = {
        "sun_azimuth": evidence.sun.azimuth if evidence.sun else None,
        "sun_elevation": evidence.sun.elevation if evidence.sun else None,
        "shadow_edge": None if survey.dark is None else round(survey.edge, 4),
    }
    return Decision(*found, asdict(policy) | measured, survey.notes)


def _farmvibes(evidence: Evidence, settings: Settings) -> Decision:
    """Apply FarmVibes.AI's merge: sizes in pixels, shadow and nodata as cloud, one area for objects and holes."""
    if settings.hole_area is not None:
        raise ConfigError("merge 'farmvibes' closes holes by min_area; leave hole_area out")
    disk = FARMVIBES_DISK * evidence.gsd
    policy = replace(POLICIES["union"], cloud_buffer=disk, shadow_buffer=disk).adjusted(settings)
    height, _ = evidence.shape
    votes, valid = vote(evidence, 0, height, policy)
    classes = np.full(evidence.shape, Scl.UNCLASSIFIED, np.uint8)
    notes: tuple[str, ...] = (FARMVIBES_CLASSES, NO_PRODUCT)
    if evidence.product is not None:
        classes, notes = evidence.product.classes(0, height), (FARMVIBES_CLASSES,)
    flagged = merge_farmvibes(
        evidence.cloud,
        evidence.shadow,
        ((votes & np.uint8(Vote.PRODUCT_CLOUD)) > 0) | (classes == Scl.NODATA),
        cloud_thr=policy.cloud_thr,
        shadow_thr=policy.shadow_thr,
        closing_size=round(policy.cloud_buffer / evidence.gsd),
        min_area=round(policy.min_area / evidence.gsd**2),
    )
    votes |= (valid & flagged & (votes == 0)) * np.uint8(Vote.ADDED)
    votes |= (valid & ~flagged & (votes > 0)) * np.uint8(Vote.REMOVED)
    return Decision(flagged.view(np.uint8), votes, asdict(policy), notes)  # True is CloudClass.CLOUD
