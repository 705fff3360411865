from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from stac_cloudmask.core.cleanup import dilate
from stac_cloudmask.core.evidence import Sun
from stac_cloudmask.core.faulty_scl import (
    CIRRUS_FOUND,
    DARK_WATER,
    ROOF_AS_CLOUD,
    SHADOW_FOUND,
    UNCLASSIFIED,
    Scl,
    scene_classification,
)
from stac_cloudmask.core.ground import (
    BANDS,
    FOREST_SHARE,
    LAKE_SHARE,
    RIVER_WIDTH,
    ROUGHNESS,
    SPECTRA,
    Cover,
    landscape,
)
from stac_cloudmask.core.sky import SHADOW_BELOW, SKYLIGHT, Sky, average, draw_sky, look_down, shadow_shift

SUN = Sun(azimuth=150.0, elevation=50.0)
SHAPE = (300, 360)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scene():
    reflectance, cover = landscape(rng(), SHAPE, 10.0)
    return reflectance, cover, draw_sky(rng(1), SHAPE, 10.0, cumulus=0.2, cirrus=0.1, sun=SUN)


def blank(**changes):
    zero, one = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    return Sky(**{"cumulus": zero, "cirrus": zero, "relief": one, "beam": one} | changes)


def test_every_cover_has_a_reflectance_in_every_band():
    assert {len(spectrum) for spectrum in SPECTRA.values()} == {len(BANDS)}
    assert set(SPECTRA) == set(Cover)


def test_a_landscape_holds_all_covers_and_plausible_reflectances(scene):
    reflectance, cover, _ = scene
    assert reflectance.shape == (len(BANDS), *SHAPE)
    assert set(np.unique(cover)) == set(Cover)
    assert 0 < reflectance.min() < 0.02
    assert 0.4 < reflectance.max() < 1


def test_vegetation_is_bright_in_the_near_infrared_and_water_dark(scene):
    reflectance, cover, _ = scene
    nir = reflectance[BANDS.index("nir")]
    assert nir[cover == Cover.CROP].mean() > 5 * nir[cover == Cover.LAKE].mean()


@pytest.fixture(scope="module")
def country():
    """Reflectance and cover of a square of 10 km."""
    return landscape(rng(7), (1000, 1000), 10.0)


def test_woods_and_lakes_cover_their_shares(country):
    _, cover = country
    assert np.mean(cover == Cover.LAKE) == pytest.approx(LAKE_SHARE, abs=0.001)
    assert np.mean(cover == Cover.FOREST) == pytest.approx(FOREST_SHARE, abs=0.03)


def test_rivers_are_about_as_wide_as_said(country):
    river = country[1] == Cover.RIVER
    to_bank = 10.0 * ndimage.distance_transform_edt(river)[river]
    assert np.quantile(to_bank, 0.99) < RIVER_WIDTH


@pytest.mark.parametrize("kind", [Cover.FOREST, Cover.LAKE, Cover.RIVER])
def test_what_nobody_farms_has_the_reflectance_of_its_cover(country, kind):
    reflectance, cover = country
    inside = ndimage.binary_erosion(cover == kind, iterations=2)
    np.testing.assert_allclose(reflectance[:, inside].mean(axis=1), SPECTRA[kind], rtol=0.1)


@pytest.mark.parametrize("kind", [Cover.FOREST, Cover.LAKE])
def test_a_cover_is_as_uneven_as_it_is_rough(country, kind):
    reflectance, cover = country
    nir = reflectance[BANDS.index("nir"), ndimage.binary_erosion(cover == kind, iterations=2)]
    patches = 0.05
    assert ROUGHNESS[kind] / 2 < nir.std() / nir.mean() < np.hypot(ROUGHNESS[kind], patches) * 1.2


def test_the_same_seed_gives_the_same_landscape():
    one, other, third = (landscape(rng(seed), (40, 40), 10.0)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "expected"),
    [(180, 45, (-100, 0)), (90, 45, (0, -100)), (270, 45, (0, 100)), (0, 45, (100, 0)), (180, 26.565, (-200, 0))],
)
def test_shadows_fall_away_from_the_sun(azimuth, elevation, expected):
    assert shadow_shift(Sun(azimuth=azimuth, elevation=elevation), 1000.0, 10.0) == expected


def test_every_shadow_has_a_cloud_towards_the_sun(scene):
    sky = scene[2]
    truth = sky.truth()
    near = np.zeros(SHAPE, bool)
    for height in np.arange(500.0, 2200.0, 50.0):
        near |= np.roll(sky.cumulus > 0, shadow_shift(SUN, height, 10.0), (0, 1))
    near |= np.roll(sky.cirrus > 0, shadow_shift(SUN, 8000.0, 10.0), (0, 1))
    assert np.mean(dilate(near, radius=6)[truth == 2]) > 0.999


def test_clouds_cover_the_asked_share(scene):
    assert np.mean(scene[2].cumulus > 0.15) == pytest.approx(0.2, abs=0.05)


def test_a_sky_without_clouds_changes_nothing(scene):
    sky = draw_sky(rng(), SHAPE, 10.0, cumulus=0.0, cirrus=0.0, sun=SUN)
    np.testing.assert_allclose(look_down(scene[0], sky, 10.0), scene[0], rtol=1e-6)
    assert not sky.truth().any()


def test_a_full_shadow_leaves_the_skylight(scene):
    shaded = look_down(scene[0], blank(beam=np.zeros(SHAPE, np.float32)), 10.0)
    np.testing.assert_allclose(shaded.mean((1, 2)) / scene[0].mean((1, 2)), SKYLIGHT, rtol=1e-5)


def test_cloud_wins_over_shadow_in_the_truth():
    both = blank(cumulus=np.full(SHAPE, 0.5, np.float32), beam=np.full(SHAPE, SHADOW_BELOW / 2, np.float32))
    assert np.all(both.truth() == 1)


def test_a_cloud_that_wraps_around_casts_one_shadow():
    field = average(draw_sky(rng(5), SHAPE, 10.0, cumulus=0.3, cirrus=0.0, sun=SUN).beam, 1)
    across = np.abs(field[0] - field[-1]).mean()
    assert across < 2 * np.abs(np.diff(field, axis=0)).mean() + 0.01


def test_coarsening_keeps_the_mean(scene):
    coarse = scene[2].coarsen(6)
    assert coarse.beam.shape == (50, 60)
    assert coarse.beam.mean() == pytest.approx(scene[2].beam.mean(), rel=1e-5)


def test_the_scl_is_on_pixels_twice_as_wide(scene):
    assert scene_classification(rng(), scene[1][:299, :357], draw_part(scene[2]), 10.0).shape == (150, 179)


def draw_part(sky):
    return Sky(**{name: getattr(sky, name)[:299, :357] for name in ("cumulus", "cirrus", "relief", "beam")})


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
        (Cover.LAKE, {}, {Scl.DARK: DARK_WATER, Scl.WATER: 1 - DARK_WATER}),
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
