"""The scene classification (SCL) of a simulated scene, with the faults that the real one has."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage

from stac_cloudmask.core.cleanup import dilate
from stac_cloudmask.core.ground import Cover
from stac_cloudmask.core.noise import power_noise, top_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.sky import Sky

    Codes = NDArray[np.uint8]

STEP: Final = 2
"""The SCL's pixels are twice as wide as those of the finest band."""
BLOCK: Final = 3
"""SCL pixels along the side of a cirrus block: the cirrus band has 60 m."""
SHADOW_FOUND: Final = 0.35
"""Share of the scene in which shadows are found at all; they are right there and missed elsewhere."""
CIRRUS_FOUND: Final = 0.5
DARK_WATER: Final = 0.3
"""Share of the lakes that are called dark area."""
ROOF_AS_CLOUD: Final = 0.4
UNCLASSIFIED: Final = 0.5
"""Share of the thin cloud's pixels that are called so; the others are called clear."""

SHADED: Final = 0.4
"""Share of the direct light, at most, that is left where a shadow can be found."""
CIRRUS_FROM, THIN_FROM, MEDIUM_FROM, HIGH_FROM = 0.03, 0.12, 0.22, 0.40
"""Share of the light, at least, that a cloud of each kind sends back."""


class Scl(IntEnum):
    """Codes of the scene classification."""

    NODATA = 0
    DARK = 2
    SHADOW = 3
    VEGETATION = 4
    BARE = 5
    WATER = 6
    UNCLASSIFIED = 7
    MEDIUM_CLOUD = 8
    HIGH_CLOUD = 9
    CIRRUS = 10


BY_COVER: Final = {
    Cover.CROP: Scl.VEGETATION,
    Cover.GRASS: Scl.VEGETATION,
    Cover.RIPE_CROP: Scl.VEGETATION,
    Cover.FOREST: Scl.VEGETATION,
    Cover.LAKE: Scl.WATER,
    Cover.RIVER: Scl.WATER,
}
"""What is not listed is bare."""


def scene_classification(rng: np.random.Generator, cover: Codes, sky: Sky, gsd: float) -> Codes:
    """The SCL, ``(y, x)`` uint8 codes on pixels twice as wide as those of ``cover`` and ``sky``.

    Its faults: most shadows are missed, some called water or dark area; thin cloud is called clear, or cirrus in
    blocks much wider than it is; bright roofs are called cloud; lakes are called dark.

    Args:
        rng: Source of the randomness.
        cover: ``(y, x)`` codes of `Cover`.
        sky: The clouds.
        gsd: Side of a pixel of these in metres.
    """
    cover, beam, opacity = cover[::STEP, ::STEP], sky.beam[::STEP, ::STEP], sky.opacity[::STEP, ::STEP]
    luck = power_noise(rng, cover.shape, slope=3.0, outer=1500 / gsd / STEP)
    scl = np.array([BY_COVER.get(kind, Scl.BARE) for kind in Cover], np.uint8)[cover]
    scl[(cover == Cover.LAKE) & (luck > top_share(luck, DARK_WATER))] = Scl.DARK
    shaded = beam < SHADED
    scl[shaded & np.isin(cover, (Cover.FOREST, Cover.DARK_SOIL, Cover.ROAD))] = Scl.DARK
    scl[shaded & (cover == Cover.CROP) & (luck < -1)] = Scl.WATER
    scl[ndimage.binary_opening(shaded) & (luck > top_share(luck, SHADOW_FOUND))] = Scl.SHADOW
    _add_clouds(rng, scl, opacity, sky.cirrus[::STEP, ::STEP], luck)
    scl[(cover == Cover.ROOF) & (rng.random(cover.shape) < ROOF_AS_CLOUD)] = Scl.MEDIUM_CLOUD
    return scl


def _add_clouds(
    rng: np.random.Generator,
    scl: Codes,
    opacity: NDArray[np.float32],
    cirrus: NDArray[np.float32],
    luck: NDArray[np.float32],
) -> None:
    """Put clouds into ``scl``: thick ones are right, all others are matters of luck."""
    blocks = cirrus[::BLOCK, ::BLOCK] > CIRRUS_FROM
    found = dilate(blocks, radius=2).repeat(BLOCK, 0).repeat(BLOCK, 1)[: scl.shape[0], : scl.shape[1]]
    scl[found & (luck < -top_share(-luck, CIRRUS_FOUND))] = Scl.CIRRUS
    scl[(opacity > THIN_FROM) & (rng.random(scl.shape) < UNCLASSIFIED)] = Scl.UNCLASSIFIED
    medium = ndimage.binary_opening(opacity > MEDIUM_FROM)
    scl[dilate(medium, radius=1)] = Scl.MEDIUM_CLOUD
    scl[opacity > HIGH_FROM] = Scl.HIGH_CLOUD
