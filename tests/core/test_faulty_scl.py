from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.classes import Scl
from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.simulate.clouds import (
    CIRRUS_FOUND,
    ROOF_AS_CLOUD,
    SHADOW_FOUND,
    UNCLASSIFIED,
    WATER_AS_DARK,
    Sky,
    draw_sky,
    scene_classification,
)
from stac_cloudmask.simulate.landscape import Cover, landscape

SUN = Sun(azimuth=150.0, elevation=50.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_scl_is_on_pixels_twice_as_wide():
    one = np.ones((299, 357), np.float32)
    sky = Sky(cumulus=0 * one, cirrus=0 * one, relief=one, beam=one)
    assert scene_classification(rng(), np.zeros(one.shape, np.uint8), sky, 10.0).shape == (150, 179)


@pytest.fixture(scope="module")
def classified():
    _, cover = landscape(rng(2), (900, 900), 10.0)
    sky = draw_sky(rng(3), (900, 900), 10.0, cumulus=0.22, cirrus=0.1, sun=SUN)
    scl = scene_classification(rng(4), cover, sky, 10.0)
    return scl, sky.truth()[::2, ::2], cover[::2, ::2]


def test_the_scl_misses_most_shadows_and_is_right_where_it_finds_one(classified):
    scl, truth, _ = classified
    assert np.mean(scl[truth == 2] == Scl.SHADOW) < 0.5
    assert np.mean(truth[scl == Scl.SHADOW] == 2) > 0.85


def test_the_scl_calls_thick_cloud_cloud(classified):
    scl, truth, _ = classified
    assert np.mean(np.isin(scl[truth == 1], (8, 9, 10))) > 0.6


def test_cirrus_of_the_scl_is_mostly_clear_ground(classified):
    scl, truth, _ = classified
    assert np.mean(truth[scl == Scl.CIRRUS] == 1) < 0.6


def test_the_scl_takes_some_bright_roofs_for_cloud(classified):
    scl, truth, cover = classified
    roofs = scl[(cover == Cover.ROOF) & (truth == 0)]
    assert 0.2 < np.mean(np.isin(roofs, (8, 9))) < 0.8


def classify(kind, *, gsd=10.0, **clouds):
    """The SCL of a scene of one cover under a sky that is the same all over."""
    fields = {name: np.full((600, 600), value, np.float32) for name, value in clouds.items()}
    zero, one = np.zeros((600, 600), np.float32), np.ones((600, 600), np.float32)
    sky = Sky(**{"cumulus": zero, "cirrus": zero, "relief": one, "beam": one} | fields)
    return scene_classification(rng(6), np.full((600, 600), kind, np.uint8), sky, gsd)


def shares(scl):
    codes, counts = np.unique(scl, return_counts=True)
    return dict(zip(codes.tolist(), (counts / scl.size).tolist(), strict=True))


@pytest.mark.parametrize(
    ("kind", "clouds", "expected"),
    [
        (Cover.CROP, {}, {Scl.VEGETATION: 1}),
        (Cover.FOREST, {}, {Scl.VEGETATION: 1}),
        (Cover.PALE_SOIL, {}, {Scl.BARE: 1}),
        (Cover.RIVER, {}, {Scl.WATER: 1}),
        (Cover.LAKE, {}, {Scl.DARK: WATER_AS_DARK, Scl.WATER: 1 - WATER_AS_DARK}),
        (Cover.ROOF, {}, {Scl.MEDIUM_CLOUD: ROOF_AS_CLOUD, Scl.BARE: 1 - ROOF_AS_CLOUD}),
        (Cover.FOREST, {"beam": 0.2}, {Scl.SHADOW: SHADOW_FOUND, Scl.DARK: 1 - SHADOW_FOUND}),
        (Cover.DARK_SOIL, {"beam": 0.2}, {Scl.SHADOW: SHADOW_FOUND, Scl.DARK: 1 - SHADOW_FOUND}),
        (Cover.ROAD, {"beam": 0.2}, {Scl.SHADOW: SHADOW_FOUND, Scl.DARK: 1 - SHADOW_FOUND}),
        (Cover.GRASS, {"beam": 0.2}, {Scl.SHADOW: SHADOW_FOUND, Scl.VEGETATION: 1 - SHADOW_FOUND}),
        (Cover.GRASS, {"beam": 0.5}, {Scl.VEGETATION: 1}),
        (Cover.GRASS, {"cumulus": 0.1}, {Scl.VEGETATION: 1}),
        (Cover.GRASS, {"cumulus": 0.15}, {Scl.UNCLASSIFIED: UNCLASSIFIED, Scl.VEGETATION: 1 - UNCLASSIFIED}),
        (Cover.GRASS, {"cumulus": 0.3}, {Scl.MEDIUM_CLOUD: 1}),
        (Cover.GRASS, {"cumulus": 0.5}, {Scl.HIGH_CLOUD: 1}),
        (Cover.GRASS, {"cirrus": 0.02}, {Scl.VEGETATION: 1}),
        (Cover.GRASS, {"cirrus": 0.1}, {Scl.CIRRUS: CIRRUS_FOUND, Scl.VEGETATION: 1 - CIRRUS_FOUND}),
    ],
)
def test_the_scl_is_wrong_as_often_as_said(kind, clouds, expected):
    scl = classify(kind, **clouds)
    assert scl.dtype == np.uint8
    assert shares(scl) == pytest.approx(expected, abs=0.01)


def test_shaded_crops_are_called_water_where_luck_is_out():
    # A Gaussian field is more than one deviation below its mean in 16 % of all places
    found = shares(classify(Cover.CROP, beam=0.2))
    assert set(found) == {Scl.SHADOW, Scl.WATER, Scl.VEGETATION}
    assert found[Scl.WATER] == pytest.approx(0.16, abs=0.05)


def test_places_where_the_scl_is_wrong_have_a_size_in_metres():
    fine, coarse = ((np.diff(classify(Cover.LAKE, gsd=gsd), axis=0) != 0).mean() for gsd in (10.0, 60.0))
    assert coarse > 1.5 * fine


def test_cirrus_is_found_in_blocks_of_the_cirrus_band_and_two_blocks_around():
    cirrus = np.zeros((120, 120), np.float32)
    cirrus[60:66, 60:66] = 0.1
    sky = Sky(cumulus=np.zeros_like(cirrus), cirrus=cirrus, relief=cirrus, beam=np.ones_like(cirrus))
    cover = np.full((120, 120), Cover.GRASS, np.uint8)
    ever = np.zeros((60, 60), bool)
    for seed in range(20):
        ever |= scene_classification(rng(seed), cover, sky, 10.0) == Scl.CIRRUS
    blocks = np.zeros((20, 20), bool)
    blocks[10, 10] = True
    np.testing.assert_array_equal(ever, dilate(blocks, radius=2).repeat(3, 0).repeat(3, 1))
