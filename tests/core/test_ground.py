from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.simulate.landscape import (
    COVER_SPECTRA,
    FARM_BLOCK,
    FOREST_SHARE,
    LAKE_SHARE,
    RIVER_WIDTH,
    ROAD_WIDTH,
    ROUGHNESS,
    Cover,
    landscape,
)
from stac_cloudmask.stac.providers import BANDS

NAMES = list(BANDS)
SHAPE = (300, 360)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def scene():
    return landscape(rng(), SHAPE, 10.0)


def test_every_cover_has_a_reflectance_in_every_band():
    assert {len(spectrum) for spectrum in COVER_SPECTRA.values()} == {len(BANDS)}
    assert set(COVER_SPECTRA) == set(Cover)


def test_a_landscape_holds_all_covers_and_plausible_reflectances(scene):
    reflectance, cover = scene
    assert reflectance.shape == (len(BANDS), *SHAPE)
    assert set(np.unique(cover)) == set(Cover)
    assert 0 < reflectance.min() < 0.02
    assert 0.4 < reflectance.max() < 1


def test_vegetation_is_bright_in_the_near_infrared_and_water_dark(scene):
    reflectance, cover = scene
    nir = reflectance[NAMES.index("nir")]
    assert nir[cover == Cover.CROP].mean() > 5 * nir[cover == Cover.LAKE].mean()


@pytest.fixture
def country():
    """Reflectance and cover of a square of 7 km, drawn for each test, so that each is known to reach the code."""
    return landscape(rng(7), (700, 700), 10.0)


def test_woods_and_lakes_cover_their_shares(country):
    _, cover = country
    assert np.mean(cover == Cover.LAKE) == pytest.approx(LAKE_SHARE, abs=0.001)
    assert np.mean(cover == Cover.FOREST) == pytest.approx(FOREST_SHARE, abs=0.03)


def test_rivers_are_about_as_wide_as_said(country):
    river = country[1] == Cover.RIVER
    to_bank = 10.0 * ndimage.distance_transform_edt(river)[river]
    assert np.quantile(to_bank, 0.99) < RIVER_WIDTH


def farm_roads(cover):
    """Where farm roads run, and where one could be seen: not in woods, water or towns, which have other roads."""
    town = dilate(np.isin(cover, (Cover.TOWN, Cover.ROOF)), radius=8)
    open_land = ((cover < Cover.FOREST) | (cover == Cover.ROAD)) & ~town
    return (cover == Cover.ROAD) & open_land, open_land


def test_farm_roads_run_between_blocks_in_both_directions(country):
    road, open_land = farm_roads(country[1])
    expected = 1 - (1 - ROAD_WIDTH / FARM_BLOCK) ** 2
    assert road.sum() / open_land.sum() == pytest.approx(expected, rel=0.1)


def test_farm_roads_are_turned_a_little_and_otherwise_everywhere():
    angles = []
    for seed in range(6):
        road, _ = farm_roads(landscape(rng(seed), (400, 400), 10.0)[1])
        down, right = np.gradient(ndimage.gaussian_filter(road.astype(float), 2))
        # The fourth power of a direction is the same for both sides of a road and for roads that cross it
        angles.append(np.angle(((right + 1j * down) ** 4).sum()) / 4)
    assert max(map(abs, angles)) < 0.45
    assert min(angles) < -0.1
    assert max(angles) > 0.1


def test_a_plot_of_a_town_is_40_metres_wide():
    _, cover = landscape(rng(1), (500, 500), 40.0)
    roof = cover == Cover.ROOF
    # A tenth of the plots of towns are roofs, so next to one stands another one in ten times
    assert (roof[:, 1:] & roof[:, :-1]).sum() / roof.sum() < 0.2


def test_a_landscape_may_be_taller_than_wide():
    reflectance, cover = landscape(rng(2), (360, 300), 10.0)
    assert (reflectance.shape, cover.shape) == ((len(BANDS), 360, 300), (360, 300))


@pytest.mark.parametrize("kind", [Cover.CROP, Cover.RIPE_CROP, Cover.GRASS, Cover.PALE_SOIL])
def test_fields_look_mostly_like_what_grows_there(country, kind):
    reflectance, cover = country
    relative = reflectance[NAMES.index("nir"), cover == kind] / COVER_SPECTRA[kind][NAMES.index("nir")]
    assert np.mean(abs(relative - 1)) < 0.15


def test_the_blur_of_the_lens_wraps_around(country):
    nir, seen = (
        np.array([COVER_SPECTRA[kind][NAMES.index("nir")] for kind in Cover])[country[1]],
        country[0][NAMES.index("nir")],
    )
    # A first row is a part of what lies there and of what lies on either side, behind the edge, too
    edges = [(ground[::way], picture[::way]) for ground, picture in ((nir, seen), (nir.T, seen.T)) for way in (1, -1)]
    sides = np.concatenate([np.stack([a[0], a[1], a[-1], np.ones(len(a))], axis=1) for a, _ in edges])
    _, inside, behind, _ = np.linalg.lstsq(sides, np.concatenate([picture[0] for _, picture in edges]))[0]
    assert behind == pytest.approx(inside, abs=0.06)
    assert behind > 0.05


def test_trees_that_stand_further_apart_than_the_grain_of_a_wood_are_unlike_one_another():
    reflectance, cover = landscape(rng(1), (400, 400), 60.0)
    nir, inside = reflectance[NAMES.index("nir")], ndimage.binary_erosion(cover == Cover.FOREST, iterations=2)
    apart = 4  # pixels of 60 m; the grain has 200 m
    both = inside[:, apart:] & inside[:, :-apart]
    assert abs(np.corrcoef(nir[:, apart:][both], nir[:, :-apart][both])[0, 1]) < 0.1


@pytest.mark.parametrize("kind", [Cover.FOREST, Cover.LAKE, Cover.RIVER])
def test_what_nobody_farms_has_the_reflectance_of_its_cover(country, kind):
    reflectance, cover = country
    inside = ndimage.binary_erosion(cover == kind, iterations=2)
    np.testing.assert_allclose(reflectance[:, inside].mean(axis=1), COVER_SPECTRA[kind], rtol=0.1)


@pytest.mark.parametrize("kind", [Cover.FOREST, Cover.LAKE])
def test_a_cover_is_as_uneven_as_it_is_rough(country, kind):
    reflectance, cover = country
    nir = reflectance[NAMES.index("nir"), ndimage.binary_erosion(cover == kind, iterations=2)]
    patches = 0.05
    assert ROUGHNESS[kind] / 2 < nir.std() / nir.mean() < np.hypot(ROUGHNESS[kind], patches) * 1.2


def test_the_same_seed_gives_the_same_landscape():
    one, other, third = (landscape(rng(seed), (40, 40), 10.0)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
