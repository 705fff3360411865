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
    BLOCK,
    FOREST_SHARE,
    LAKE_SHARE,
    RIVER_WIDTH,
    ROAD_WIDTH,
    ROUGHNESS,
    SPECTRA,
    Cover,
    landscape,
)
from stac_cloudmask.core.sky import (
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
    average,
    draw_sky,
    look_down,
    shadow_shift,
)

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


def farm_roads(cover):
    """Where farm roads run, and where one could be seen: not in woods, water or towns, which have other roads."""
    town = dilate(np.isin(cover, (Cover.TOWN, Cover.ROOF)), radius=8)
    open_land = ((cover < Cover.FOREST) | (cover == Cover.ROAD)) & ~town
    return (cover == Cover.ROAD) & open_land, open_land


def test_farm_roads_run_between_blocks_in_both_directions(country):
    road, open_land = farm_roads(country[1])
    expected = 1 - (1 - ROAD_WIDTH / BLOCK) ** 2
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
    relative = reflectance[BANDS.index("nir"), cover == kind] / SPECTRA[kind][BANDS.index("nir")]
    assert np.mean(abs(relative - 1)) < 0.15


def test_the_blur_of_the_lens_wraps_around(country):
    reflectance, cover = country
    nir = np.array([SPECTRA[kind][BANDS.index("nir")] for kind in Cover])[cover]
    constant = np.ones(cover.shape[1])
    # A first row is a part of what lies there and of what lies on either side, behind the edge, too
    sides = np.stack([nir[0], nir[1], nir[-1], constant], axis=1)
    _, inside, behind, _ = np.linalg.lstsq(sides, reflectance[BANDS.index("nir"), 0])[0]
    assert behind == pytest.approx(inside, abs=0.1)
    assert behind > 0.05


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
    return all(beam[np.roll(cloud, shadow_shift(LOW_SUN, end, 10.0), (0, 1))].mean() < 0.3 for end in ends)


def test_a_low_cloud_shades_nothing_from_other_heights_than_its_own():
    sky = draw_sky(rng(1), (600, 600), 10.0, cumulus=0.03, cirrus=0.0, sun=LOW_SUN)
    cloudy, shaded = np.mean(sky.cumulus > 0.03), np.mean(sky.beam < SHADOW_BELOW)
    # Its bottom and its top cast a shadow each, which overlap in part
    assert shaded < 2.5 * cloudy


def test_high_cloud_dims_the_sun_by_its_optical_depth_along_the_slant():
    sky = draw_sky(rng(), SHAPE, 10.0, cumulus=0.0, cirrus=0.3, sun=LOW_SUN)
    depth = 2 * sky.cirrus / (1 - sky.cirrus) / BACKSCATTER  # two streams: s / (s + 2) of s = depth * backscatter
    over = np.roll(depth, shadow_shift(LOW_SUN, CIRRUS_HEIGHT, 10.0), (0, 1))
    seen = ndimage.gaussian_filter(over, PENUMBRA / 10.0, mode="wrap")
    # At 30 degrees the way through a layer is twice its depth; the same again for both streams
    np.testing.assert_allclose(-np.log(sky.beam), BACKSCATTER * 4 * seen, atol=1e-3)


@pytest.mark.parametrize("share", [0.03, 0.3])
def test_most_low_cloud_is_no_thicker_than_said(share):
    sky = draw_sky(rng(), (600, 600), 10.0, cumulus=share, cirrus=0.0, sun=SUN)
    depth = 2 * sky.cumulus / (1 - sky.cumulus) / BACKSCATTER  # two streams: s / (s + 2) of s = depth * backscatter
    assert 10 < np.quantile(depth[depth > 0.1], 0.9) < 80


def test_clouds_are_lighter_towards_the_sun_and_never_black(scene):
    north, south = (
        draw_sky(rng(1), SHAPE, 10.0, cumulus=0.2, cirrus=0.0, sun=Sun(azimuth=azimuth, elevation=50.0))
        for azimuth in (0.0, 180.0)
    )
    falls_south = -np.gradient(north.cumulus, axis=0)
    steep = abs(falls_south) > 0.02
    assert np.mean((south.relief > north.relief)[steep] == (falls_south > 0)[steep]) > 0.9
    assert min(north.relief.min(), south.relief.min(), scene[2].relief.min()) > 0.5


def test_fields_of_a_sky_are_float32(scene):
    assert {getattr(scene[2], name).dtype for name in ("cumulus", "cirrus", "relief", "beam")} == {np.dtype("float32")}


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
    seen = look_down(np.zeros((len(BANDS), *SHAPE), np.float32), blank(cumulus=corner), 10.0)[BANDS.index("red")]
    assert seen[-1, -1] > 0.5 * seen[6, 6] > 0


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
