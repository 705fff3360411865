"""Simulated clouds, their shadows, and a scene classification with SCL's faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import ndimage, sparse

from stac_cloudmask.core.classes import CloudClass, Scl
from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.core.shadow import shadow_shift
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.simulate.landscape import Codes, Cover, Field, Random, Shape, power_noise, top_share

BACKSCATTER: Final = 0.15
"""1 - g for cloud droplets, where g = 0.85 is the mean cosine of the scattering angle."""
HEIGHTS: Final = (600.0, 900.0, 1200.0, 1500.0, 2000.0)
"""Heights of cumulus in meters; each cloud has one."""
THICKNESS: Final = 0.06
"""Extent of a cloud below and above its height, as a share of the height."""
CIRRUS_HEIGHT: Final = 8000.0
FRINGE: Final = 25.0
"""Standard deviation in meters of the blur at the edges of cumulus."""
PENUMBRA: Final = 20.0
"""Width in meters of a shadow's soft edge."""

CLOUD_BRIGHTNESS: Final = (1.08, 1.06, 1.02, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 0.90, 0.62, 0.48)
"""Reflectance of a thick cloud relative to red, by band; water and ice absorb in the short-wave infrared."""
SKYLIGHT: Final = (0.38, 0.33, 0.28, 0.24, 0.22, 0.20, 0.19, 0.18, 0.18, 0.17, 0.11, 0.09)
"""Share of diffuse light from the sky, by band, which remains in a full shadow.

Deep shadows on farmland have 0.19 to 0.47 of the blue and 0.19 to 0.25 of the near infrared of their surroundings
(two Sentinel-2 scenes of Alberta in summer)."""
GLOW: Final = 0.012
"""Reflectance that a thick cloud adds to surrounding pixels."""
GLOW_REACH: Final = 120.0
"""Meters."""

CLOUD_FROM: Final = 0.03
"""Minimum reflected share of light of cloud in the truth.

Human labels include the fringes of clouds: those of two real chips (On Cloud N) cover a third more than the bundled
model finds there by argmax, and increase by a fifth when dilated by 50 m."""
SHADOW_BELOW: Final = 0.75
"""Maximum remaining share of direct light of cloud shadow in the truth."""


@dataclass(frozen=True, kw_only=True)
class Sky:
    """Clouds over a scene, ``(y, x)`` float32 fields, all 0..1.

    Attributes:
        cumulus: Share of the light that low clouds reflect.
        cirrus: The same for high, thin clouds.
        relief: Brightness of cloud tops relative to flat ones, around 1: sides toward the sun are lighter.
        beam: Share of the direct sunlight that reaches the ground.
    """

    cumulus: Field
    cirrus: Field
    relief: Field
    beam: Field

    @property
    def opacity(self) -> Field:
        """Share of the light that all clouds reflect."""
        return 1 - (1 - self.cumulus) * (1 - self.cirrus)

    def truth(self) -> Codes:
        """Return the class map of this sky; cloud wins over shadow."""
        class_map = np.full(self.beam.shape, CloudClass.CLEAR, np.uint8)
        class_map[self.beam < SHADOW_BELOW] = CloudClass.CLOUD_SHADOW
        class_map[self.opacity > CLOUD_FROM] = CloudClass.CLOUD
        return class_map


def shadow_offset(sun: Sun, height: float, gsd: float) -> tuple[int, int]:
    """Return the rows down and columns right from an object at ``height`` meters to its shadow, in ``gsd`` pixels."""
    return shadow_shift(sun, height / math.tan(math.radians(sun.elevation)) / gsd)


def draw_sky(rng: Random, shape: Shape, gsd: float, *, cumulus: float, cirrus: float, sun: Sun) -> Sky:
    """Draw clouds whose kinds each cover about the given share (0..1) of the scene; everything wraps around."""
    thick, thin = _cumulus(rng, shape, gsd, cumulus), _cirrus(rng, shape, gsd, cirrus)
    depth = np.zeros(shape, np.float32)
    for height, layer in zip(HEIGHTS, _by_height(rng, thick), strict=True):
        for part in (1 - THICKNESS, 1 + THICKNESS):
            np.maximum(depth, np.roll(layer, shadow_offset(sun, height * part, gsd), (0, 1)), out=depth)
    depth += np.roll(thin, shadow_offset(sun, CIRRUS_HEIGHT, gsd), (0, 1))
    depth = ndimage.gaussian_filter(depth, PENUMBRA / gsd, mode="wrap")
    slant = 2 / math.sin(math.radians(sun.elevation))
    return Sky(
        cumulus=_reflected(thick), cirrus=_reflected(thin), relief=_relief(thick, gsd, sun),
        beam=np.exp(-BACKSCATTER * slant * depth),
    )  # fmt: skip


def look_down(ground: Field, sky: Sky, gsd: float) -> Field:
    """Return the reflectance of ``ground`` at the satellite, ``(band, y, x)``, in shade and under cloud."""
    opacity = sky.opacity
    top = opacity * sky.relief
    top += GLOW * ndimage.gaussian_filter(opacity, GLOW_REACH / gsd, mode="wrap")
    through = (1 - opacity) ** 2
    out = np.empty_like(ground)
    for i, (brightness, skylight) in enumerate(zip(CLOUD_BRIGHTNESS, SKYLIGHT, strict=True)):
        out[i] = ground[i] * (skylight + (1 - skylight) * sky.beam) * through + top * np.float32(brightness)
    return out


def _reflected(depth: Field) -> Field:
    """Return the share of light that a cloud of this optical depth reflects (two-stream, no absorption)."""
    scattered = BACKSCATTER * depth
    return scattered / (scattered + 2)


def _cumulus(rng: Random, shape: Shape, gsd: float, share: float) -> Field:
    """Return the optical depth of cumulus, below 80 in nine of ten cloudy pixels, and some hundreds in the thickest."""
    field = power_noise(rng, shape, slope=4.0, outer=3000 / gsd)
    field += 0.08 * power_noise(rng, shape, slope=2.5, outer=300 / gsd)
    above = np.maximum(field - top_share(field, share), 0)
    lumps = 0.25 * power_noise(rng, shape, slope=2.8, outer=600 / gsd)
    wisps = 0.4 * power_noise(rng, shape, slope=3.4, outer=250 / gsd)
    fading = ndimage.gaussian_filter(38 * above**1.2, FRINGE / gsd, mode="wrap")
    depth: Field = fading * np.exp(lumps + wisps)
    return depth


def _cirrus(rng: Random, shape: Shape, gsd: float, share: float) -> Field:
    """Return the optical depth of cirrus, mostly below 3, in streaks from west to east."""
    field = power_noise(rng, shape, slope=3.2, outer=6000 / gsd, stretch=(1.0, 2.5))
    depth: Field = 2.2 * np.maximum(field - top_share(field, share), 0)
    return depth


def _by_height(rng: Random, depth: Field) -> list[Field]:
    """Return the clouds of each of `HEIGHTS`; a cloud that wraps around the scene's edge is one cloud."""
    labels, count = ndimage.label(depth > 0)
    ends = np.concatenate([labels[[0, -1]], labels[:, [0, -1]].T], axis=1)
    ends = ends[:, (ends > 0).all(0)]
    joined = sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), (count + 1, count + 1))
    _, cloud = sparse.csgraph.connected_components(joined, directed=False)
    height = rng.integers(0, len(HEIGHTS), count + 1)[cloud][labels]
    return [np.where(height == i, depth, np.float32(0)) for i in range(len(HEIGHTS))]


def _relief(depth: Field, gsd: float, sun: Sun) -> Field:
    top = ndimage.gaussian_filter(np.sqrt(depth), 15 / gsd, mode="wrap")
    down, right = np.gradient(top)
    azimuth = math.radians(sun.azimuth)
    facing = down * math.cos(azimuth) - right * math.sin(azimuth)
    relief: Field = 1.1 * (1 + np.clip(0.5 * facing, -0.45, 0.35))
    return relief


SCL_STEP: Final = 2
"""The SCL's pixels are twice as wide as those of the finest band."""
CIRRUS_BLOCK: Final = 3
"""SCL pixels along the side of a cirrus block: the cirrus band has a resolution of 60 m."""
SHADOW_FOUND: Final = 0.35
"""Share of the scene in which shadows are detected, correctly; elsewhere they are missed."""
CIRRUS_FOUND: Final = 0.5
WATER_AS_DARK: Final = 0.3
"""Share of the lakes that are classified as dark area."""
ROOF_AS_CLOUD: Final = 0.4
UNCLASSIFIED: Final = 0.5
"""Share of the thin cloud's pixels that are classified as such; the others are classified as clear."""

SHADED: Final = 0.4
"""Maximum remaining share of direct light where a shadow can be detected."""
CIRRUS_FROM, THIN_FROM, MEDIUM_FROM, HIGH_FROM = 0.03, 0.12, 0.22, 0.40
"""Minimum share of light that a cloud of each kind reflects."""


GREEN: Final = (Cover.CROP, Cover.GRASS, Cover.RIPE_CROP, Cover.FOREST)
BY_COVER: Final = dict.fromkeys(GREEN, Scl.VEGETATION) | dict.fromkeys((Cover.LAKE, Cover.RIVER), Scl.WATER)
"""SCL class by cover; covers that are not listed are bare."""


def scene_classification(rng: Random, cover: Codes, sky: Sky, gsd: float) -> Codes:
    """Return the SCL, ``(y, x)`` uint8 codes on pixels twice as wide as those of ``cover`` and ``sky``.

    Its errors: most shadows are missed, some are water or dark area; thin cloud is clear, or cirrus in blocks much
    wider than the cloud; bright roofs are cloud; lakes are dark area.

    Args:
        rng: Random number generator.
        cover: ``(y, x)`` codes of `Cover`.
        sky: The clouds.
        gsd: Side of a pixel of these in meters.
    """
    coarse = np.s_[::SCL_STEP, ::SCL_STEP]
    cover, beam, opacity, cirrus = cover[coarse], sky.beam[coarse], sky.opacity[coarse], sky.cirrus[coarse]
    luck = power_noise(rng, cover.shape, slope=3.0, outer=1500 / gsd / SCL_STEP)
    scl = np.array([BY_COVER.get(kind, Scl.BARE) for kind in Cover], np.uint8)[cover]
    scl[(cover == Cover.LAKE) & (luck > top_share(luck, WATER_AS_DARK))] = Scl.DARK
    shaded = beam < SHADED
    scl[shaded & np.isin(cover, (Cover.FOREST, Cover.DARK_SOIL, Cover.ROAD))] = Scl.DARK
    scl[shaded & (cover == Cover.CROP) & (luck < -1)] = Scl.WATER
    scl[ndimage.binary_opening(shaded) & (luck > top_share(luck, SHADOW_FOUND))] = Scl.SHADOW
    _add_clouds(rng, scl, opacity, cirrus, luck)
    scl[(cover == Cover.ROOF) & (rng.random(cover.shape) < ROOF_AS_CLOUD)] = Scl.MEDIUM_CLOUD
    return scl


def _add_clouds(rng: Random, scl: Codes, opacity: Field, cirrus: Field, luck: Field) -> None:
    """Add clouds to ``scl``: thick ones correctly, all others at random."""
    blocks = cirrus[::CIRRUS_BLOCK, ::CIRRUS_BLOCK] > CIRRUS_FROM
    found = dilate(blocks, radius=2).repeat(CIRRUS_BLOCK, 0).repeat(CIRRUS_BLOCK, 1)[: scl.shape[0], : scl.shape[1]]
    scl[found & (luck < -top_share(-luck, CIRRUS_FOUND))] = Scl.CIRRUS
    scl[(opacity > THIN_FROM) & (rng.random(scl.shape) < UNCLASSIFIED)] = Scl.UNCLASSIFIED
    medium = ndimage.binary_opening(opacity > MEDIUM_FROM)
    scl[dilate(medium, radius=1)] = Scl.MEDIUM_CLOUD
    scl[opacity > HIGH_FROM] = Scl.HIGH_CLOUD
