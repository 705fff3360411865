from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.cleanup import dilate
from stac_cloudmask.core.evidence import Sun
from stac_cloudmask.core.faulty_scl import Scl, scene_classification
from stac_cloudmask.core.ground import BANDS, SPECTRA, Cover, landscape
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
