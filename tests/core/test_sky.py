from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.simulate.clouds import (
    BACKSCATTER,
    CIRRUS_HEIGHT,
    CLOUD_BRIGHTNESS,
    GLOW,
    HEIGHTS,
    PENUMBRA,
    SHADOW_BELOW,
    SKYLIGHT,
    THICKNESS,
    Sky,
    draw_sky,
    look_down,
    shadow_offset,
)
from stac_cloudmask.simulate.landscape import landscape
from stac_cloudmask.stac.providers import BANDS

SUN = Sun(azimuth=150.0, elevation=50.0)
SHAPE = (300, 360)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def ground():
    return landscape(rng(), SHAPE, 10.0)[0]


@pytest.fixture(scope="module")
def sky():
    return draw_sky(rng(1), SHAPE, 10.0, cumulus=0.2, cirrus=0.1, sun=SUN)


def blank(**changes):
    zero, one = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    return Sky(**{"cumulus": zero, "cirrus": zero, "relief": one, "beam": one} | changes)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [(180, 45, (-100, 0)), (90, 45, (0, -100)), (270, 45, (0, 100)), (0, 45, (100, 0)), (180, 26.565, (-200, 0))],
)
def test_shadows_fall_away_from_the_sun(azimuth, elevation, expected):
    assert shadow_offset(Sun(azimuth=azimuth, elevation=elevation), 1000.0, 10.0) == expected


def test_every_shadow_has_a_cloud_towards_the_sun(sky):
    truth = sky.truth()
    near = np.zeros(SHAPE, bool)
    for height in np.arange(500.0, 2200.0, 50.0):
        near |= np.roll(sky.cumulus > 0, shadow_offset(SUN, height, 10.0), (0, 1))
    near |= np.roll(sky.cirrus > 0, shadow_offset(SUN, 8000.0, 10.0), (0, 1))
    assert np.mean(dilate(near, radius=6)[truth == 2]) > 0.999


def test_clouds_cover_the_asked_share(sky):
    assert np.mean(sky.cumulus > 0.15) == pytest.approx(0.2, abs=0.05)


def test_a_sky_without_clouds_changes_nothing(ground):
    clear = draw_sky(rng(), SHAPE, 10.0, cumulus=0.0, cirrus=0.0, sun=SUN)
    np.testing.assert_allclose(look_down(ground, clear, 10.0), ground, rtol=1e-6)
    assert not clear.truth().any()


def test_a_full_shadow_leaves_the_skylight(ground):
    shaded = look_down(ground, blank(beam=np.zeros(SHAPE, np.float32)), 10.0)
    np.testing.assert_allclose(shaded.mean((1, 2)) / ground.mean((1, 2)), SKYLIGHT, rtol=1e-5)


def test_cloud_wins_over_shadow_in_the_truth():
    both = blank(cumulus=np.full(SHAPE, 0.5, np.float32), beam=np.full(SHAPE, SHADOW_BELOW / 2, np.float32))
    assert np.all(both.truth() == 1)


LOW_SUN = Sun(azimuth=135.0, elevation=30.0)


def test_every_low_cloud_casts_its_shadow_from_one_of_the_heights():
    used = set()
    for seed in range(3):
        sky = draw_sky(rng(seed), (600, 600), 10.0, cumulus=0.03, cirrus=0.0, sun=LOW_SUN)
        clouds, count = ndimage.label(sky.cumulus > 0.25)
        for cloud in range(1, count + 1):
            heights = [height for height in HEIGHTS if shaded_from(height, clouds == cloud, sky.beam)]
            assert heights
            used |= set(heights) if len(heights) == 1 else set()
    assert used == set(HEIGHTS)


def shaded_from(height, cloud, beam):
    """Whether a cloud at a height would shade only what is shaded, by its bottom and by its top."""
    ends = (height * (1 - THICKNESS), height * (1 + THICKNESS))
    return all(beam[np.roll(cloud, shadow_offset(LOW_SUN, end, 10.0), (0, 1))].mean() < 0.3 for end in ends)


def test_a_low_cloud_shades_nothing_from_other_heights_than_its_own():
    sky = draw_sky(rng(1), (600, 600), 10.0, cumulus=0.03, cirrus=0.0, sun=LOW_SUN)
    cloudy, shaded = np.mean(sky.cumulus > 0.03), np.mean(sky.beam < SHADOW_BELOW)
    # Its bottom and its top cast a shadow each, which overlap in part
    assert shaded < 2.5 * cloudy


def test_high_cloud_dims_the_sun_by_its_optical_depth_along_the_slant():
    sky = draw_sky(rng(), SHAPE, 10.0, cumulus=0.0, cirrus=0.3, sun=LOW_SUN)
    depth = 2 * sky.cirrus / (1 - sky.cirrus) / BACKSCATTER  # two streams: s / (s + 2) of s = depth * backscatter
    over = np.roll(depth, shadow_offset(LOW_SUN, CIRRUS_HEIGHT, 10.0), (0, 1))
    seen = ndimage.gaussian_filter(over, PENUMBRA / 10.0, mode="wrap")
    # At 30 degrees the way through a layer is twice its depth; the same again for both streams
    np.testing.assert_allclose(-np.log(sky.beam), BACKSCATTER * 4 * seen, atol=1e-3)


@pytest.mark.parametrize("share", [0.03, 0.3])
def test_most_low_cloud_is_no_thicker_than_said(share):
    sky = draw_sky(rng(), (600, 600), 10.0, cumulus=share, cirrus=0.0, sun=SUN)
    depth = 2 * sky.cumulus / (1 - sky.cumulus) / BACKSCATTER  # two streams: s / (s + 2) of s = depth * backscatter
    assert 10 < np.quantile(depth[depth > 0.1], 0.9) < 80


def test_clouds_are_lighter_towards_the_sun_and_never_black(sky):
    north, south = (
        draw_sky(rng(1), SHAPE, 10.0, cumulus=0.2, cirrus=0.0, sun=Sun(azimuth=azimuth, elevation=50.0))
        for azimuth in (0.0, 180.0)
    )
    falls_south = -np.gradient(north.cumulus, axis=0)
    steep = abs(falls_south) > 0.02
    assert np.mean((south.relief > north.relief)[steep] == (falls_south > 0)[steep]) > 0.9
    assert min(north.relief.min(), south.relief.min(), sky.relief.min()) > 0.5


def test_fields_of_a_sky_are_float32():
    sky = draw_sky(rng(), (40, 40), 10.0, cumulus=0.2, cirrus=0.1, sun=SUN)
    assert {getattr(sky, name).dtype for name in ("cumulus", "cirrus", "relief", "beam")} == {np.dtype("float32")}


def test_light_through_a_thin_cloud_worked_out_by_hand():
    cumulus, relief, beam = (np.full(SHAPE, value, np.float32) for value in (0.2, 1.1, 0.5))
    ground = np.full((len(BANDS), *SHAPE), 0.3, np.float32)
    seen = look_down(ground, blank(cumulus=cumulus, relief=relief, beam=beam), 10.0)
    for band, name in enumerate(BANDS):
        # 0.8 of the light gets down and 0.8 of that up again, half of the sun's is lost in a shadow
        from_ground = 0.3 * (SKYLIGHT[band] + (1 - SKYLIGHT[band]) / 2) * 0.64
        from_cloud = (0.2 * 1.1 + 0.2 * GLOW) * CLOUD_BRIGHTNESS[band]
        np.testing.assert_allclose(seen[band], from_ground + from_cloud, rtol=1e-5, err_msg=name)


def test_a_cloud_glows_over_the_edge_to_the_other_side():
    corner = np.zeros(SHAPE, np.float32)
    corner[:5, :5] = 1
    seen = look_down(np.zeros((len(BANDS), *SHAPE), np.float32), blank(cumulus=corner), 10.0)[list(BANDS).index("red")]
    assert seen[-1, -1] > 0.5 * seen[6, 6] > 0


def test_a_cloud_that_wraps_around_casts_one_shadow():
    field = draw_sky(rng(5), SHAPE, 10.0, cumulus=0.3, cirrus=0.0, sun=SUN).beam
    across = np.abs(field[0] - field[-1]).mean()
    assert across < 2 * np.abs(np.diff(field, axis=0)).mean() + 0.01
