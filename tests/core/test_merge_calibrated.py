from dataclasses import replace

import numpy as np
import pytest
from cumulus import GSD, SUN, cell_means, cumulus, disk, product, scene, turned
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from stac_cloudmask.config import Settings
from stac_cloudmask.core import grid, merge_calibrated as module
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.merge_calibrated import NO_GROUND, NO_NIR, NO_PRODUCT, NO_SUN, Rules
from stac_cloudmask.core.morphology import dilate
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun, Vote

SHAPE = (360, 424)


def masked(evidence, **settings):
    return decide(evidence, Settings(**{"buffer": 0} | settings))


def is_cloud(evidence, **settings):
    return masked(evidence, **settings).class_map == CloudClass.CLOUD


def is_shadow(evidence, **settings):
    return masked(evidence, **settings).class_map == CloudClass.CLOUD_SHADOW


def agreement(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def test_clouds_and_the_shadows_that_they_cast_are_found():
    evidence = cumulus()
    np.testing.assert_array_equal(is_cloud(evidence), evidence.cloud > 90)
    assert agreement(is_shadow(evidence), evidence.shadow > 90) > 0.95


def test_a_dark_place_on_the_sunny_side_of_a_cloud_is_not_its_shadow():
    evidence = cumulus(towards=-1)
    found = masked(evidence)
    assert not (found.class_map == CloudClass.CLOUD_SHADOW).any()
    assert (found.votes[evidence.shadow > 90] & Vote.REMOVED).all()


def test_shadow_without_any_cloud_is_removed():
    shadow = disk(SHAPE, 200, 200, 25)
    assert not is_shadow(scene(np.zeros(SHAPE, bool), shadow)).any()


def test_what_the_model_calls_shadow_on_light_ground_is_not_shadow():
    assert not is_shadow(cumulus(shade=0.33)).any()


def test_a_shadow_ends_where_the_ground_gets_light():
    evidence = cumulus()
    generous = dilate(evidence.shadow > 90, radius=12) & (evidence.cloud < 90)
    wide = replace(evidence, shadow=np.where(generous, 95, 0).astype(np.uint8))
    assert agreement(generous, evidence.shadow > 90) < 0.55
    assert agreement(is_shadow(wide), evidence.shadow > 90) > 0.85


@pytest.mark.parametrize(("percent", "found"), [(95, True), (70, False)])
def test_the_less_sure_the_model_is_the_darker_a_shadow_has_to_be(percent, found):
    evidence = cumulus()
    east = np.indices(SHAPE)[1] > 160
    shadow = evidence.shadow > 90
    pale = np.where((evidence.nir < 0.25) & (np.indices(evidence.nir.shape)[1] > 20), np.float32(0.21), evidence.nir)
    likely = np.where(shadow & east, np.uint8(percent), evidence.shadow)
    flagged = is_shadow(replace(evidence, shadow=likely, nir=pale))
    assert flagged[shadow & ~east].mean() > 0.9
    assert (flagged[shadow & east].mean() > 0.7) == found
    assert found or not flagged[shadow & east].any()


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("azimuth", [20.0, 157.0])
def test_a_turned_scene_with_its_sun_turned_gives_the_turned_mask(azimuth, quarters, mirror):
    sun = Sun(azimuth=azimuth, elevation=38.0)
    noisy = noise_over(cumulus(sun=sun, height=700.0), seed=int(azimuth))
    other, turn = turned(noisy, quarters=quarters, mirror=mirror)
    here, there = masked(noisy, buffer=50), masked(other, buffer=50)
    assert {CloudClass.CLOUD, CloudClass.CLOUD_SHADOW} <= set(np.unique(here.class_map))
    np.testing.assert_array_equal(there.class_map, turn(here.class_map))
    np.testing.assert_array_equal(there.votes, turn(here.votes))


def noise_over(evidence, *, seed):
    """Specks of all sorts and a product mask of patches over a scene."""
    rng = np.random.default_rng(seed)
    patches = np.where(rng.random((45, 53)) < 0.05, rng.integers(1, 12, (45, 53)), 4)
    specks = rng.integers(0, 101, evidence.shape, np.uint8)
    where = np.repeat(np.repeat(rng.random((90, 106)) < 0.02, 4, 0), 4, 1)
    return replace(
        evidence,
        cloud=np.where(where, specks, evidence.cloud),
        shadow=np.where(where, 100 - specks, evidence.shadow),
        product=product(np.repeat(np.repeat(patches, 8, 0), 8, 1)),
    )


@pytest.mark.parametrize("rows", [5, 37, 100])
def test_strips_equal_the_whole_to_the_bit(monkeypatch, rows):
    evidence = noise_over(cumulus(), seed=3)
    whole = masked(evidence, buffer=50, min_area=900)
    monkeypatch.setattr(module, "CELL_ROWS", rows)
    monkeypatch.setattr(grid.strips, "__defaults__", (rows,))
    cut = masked(evidence, buffer=50, min_area=900)
    np.testing.assert_array_equal(cut.class_map, whole.class_map)
    np.testing.assert_array_equal(cut.votes, whole.votes)


def test_product_cirrus_over_a_clear_scene_is_not_cloud():
    clear = scene(np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), scl=np.full(SHAPE, 10))
    found = masked(clear)
    assert (found.class_map == CloudClass.CLEAR).all()
    assert (found.votes == Vote.PRODUCT_CLOUD | Vote.REMOVED).all()


@pytest.mark.parametrize(("red", "cloudy"), [(0.45, True), (0.25, False), (0.05, False)])
@pytest.mark.parametrize("dark", [False, True])
def test_a_hole_in_cloud_is_shaded_cloud_if_it_looks_more_like_cloud_than_like_ground(red, cloudy, dark):
    hole, cloud = disk(SHAPE, 180, 200, 20), disk(SHAPE, 180, 200, 100)
    evidence = scene(cloud & ~hole, hole, shade=0.15 if dark else 0.35)
    color = cell_means(np.where(hole, red, np.where(cloud, 0.6, 0.05)))
    found = masked(replace(evidence, visible=np.stack([color] * 3)))
    inside = disk(SHAPE, 180, 200, 12)
    wanted = CloudClass.CLOUD if cloudy else CloudClass.CLOUD_SHADOW if dark else CloudClass.CLEAR
    assert (found.class_map[inside] == wanted).all()


def test_product_clouds_count_where_the_model_has_a_hint_of_cloud_and_nowhere_else():
    scl = np.full(SHAPE, 4)
    scl[disk(SHAPE, 100, 100, 30)] = 9
    scl[disk(SHAPE, 250, 300, 30)] = 9
    evidence = scene(np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), scl=scl)
    evidence.cloud[disk(SHAPE, 250, 300, 28)] = 12
    np.testing.assert_array_equal(is_cloud(evidence), disk(SHAPE, 250, 300, 30))


@pytest.mark.parametrize(("bright", "seen", "cloudy"), [(True, True, True), (False, True, False), (True, False, False)])
def test_the_middle_of_a_thick_cloud_counts_by_the_product_where_it_is_bright(bright, seen, cloudy):
    whole, middle = disk(SHAPE, 180, 200, 120), disk(SHAPE, 180, 200, 70)
    evidence = scene(whole & ~middle & seen, np.zeros(SHAPE, bool), scl=np.where(whole, 9, 4))
    evidence.cloud[~whole | middle] = 1
    color = cell_means(np.where(whole & (bright | ~middle), 0.6, 0.05))
    cloud = is_cloud(replace(evidence, visible=np.stack([color] * 3)))
    inside = disk(SHAPE, 180, 200, 40)
    assert cloud[inside].all() if cloudy else not cloud[inside].any()
    assert not cloud[~disk(SHAPE, 180, 200, 125)].any()


def test_a_hint_of_cloud_does_not_spread_over_all_that_the_product_calls_cloud():
    scl = np.full(SHAPE, 9)
    evidence = scene(np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), scl=scl)
    near = disk(SHAPE, 180, 200, 60)
    evidence.cloud[disk(SHAPE, 180, 200, 30)] = 60
    cloud = is_cloud(evidence)
    assert cloud[disk(SHAPE, 180, 200, 30)].all()
    assert not cloud[~near].any()


def test_a_bright_roof_is_not_cloud():
    evidence = cumulus()
    evidence.cloud[40:44, 300:305] = 95
    cloud = is_cloud(evidence)
    assert not cloud[:60, 280:].any()
    assert cloud[150, 300]


def test_the_buffer_of_a_cloud_covers_shadow_only_where_the_sun_is_not_known():
    evidence = cumulus(height=350.0)
    with_sun, without = masked(evidence, buffer=50), masked(replace(evidence, sun=None), buffer=50)
    covered = without.class_map == CloudClass.CLOUD
    assert (covered & (with_sun.class_map == CloudClass.CLOUD_SHADOW)).any()
    assert not (~covered & (with_sun.class_map == CloudClass.CLOUD)).any()


def test_shadow_that_the_model_holds_for_shadow_rather_than_cloud_stays_shadow():
    evidence = cumulus()
    evidence.cloud[evidence.shadow > 90] = 40
    assert agreement(is_shadow(evidence), evidence.shadow > 90) > 0.95


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"sun": None}, NO_SUN),
        ({"sun": Sun(azimuth=100, elevation=-2)}, NO_SUN),
        ({"nir": None}, NO_NIR),
        ({"nir": np.full((45, 53), 0.05, np.float32)}, NO_GROUND),
    ],
)
def test_rules_that_cannot_be_applied_are_skipped_and_noted(change, note):
    evidence = replace(cumulus(), product=product(np.full(SHAPE, 4)))
    assert masked(evidence).notes == ()
    found = masked(replace(evidence, **change))
    assert found.notes == (note,)
    assert agreement(found.class_map == CloudClass.CLOUD_SHADOW, evidence.shadow > 90) > 0.95


def test_a_missing_product_mask_is_noted():
    assert masked(cumulus()).notes == (NO_PRODUCT,)


@pytest.mark.parametrize("elevation", [1.0, 90.0])
def test_the_sun_may_stand_anywhere_above_the_horizon(elevation):
    evidence = replace(cumulus(), sun=replace(SUN, elevation=elevation))
    np.testing.assert_array_equal(is_cloud(evidence), evidence.cloud > 90)


@st.composite
def any_evidence(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))
    gsd = draw(st.sampled_from([10.0, 20.0, 30.0, 60.0, 120.0, 600.0]))
    factor = Rules().cell_factor(gsd)
    small = tuple(-(-n // factor) for n in shape)
    seed = draw(st.integers(0, 999))
    rng = np.random.default_rng(seed)
    levels = np.array([0, 3, 25, 50, 80, 100, 255], np.uint8)
    nir = rng.choice(np.array([np.nan, 0.02, 0.1, 0.3, 0.5], np.float32), small)
    mask = ProductMask(
        scl=rng.integers(0, 12, shape, np.uint8), factor=1, shape=shape, cloud_codes=(8, 9, 10), shadow_codes=(3,)
    )
    sun = Sun(azimuth=draw(st.floats(0, 360)), elevation=draw(st.floats(-5, 90)))
    return Evidence(
        cloud=rng.choice(levels, shape), shadow=rng.choice(levels, shape), gsd=gsd,
        nir=draw(st.sampled_from([nir, None])), product=draw(st.sampled_from([mask, None])),
        sun=draw(st.sampled_from([sun, None])),
    )  # fmt: skip


@given(any_evidence(), st.sampled_from([0.0, 50.0]))
def test_nobody_is_flagged_unasked_and_nodata_stays_nodata(evidence, buffer):
    found = masked(evidence, buffer=buffer)
    nodata = (evidence.cloud == 255) | (evidence.shadow == 255)
    if evidence.product is not None:
        nodata |= evidence.product.scl == 0
    np.testing.assert_array_equal(found.class_map == CloudClass.NODATA, nodata)
    assert not found.votes[nodata].any()
    asked = found.votes[(found.class_map == CloudClass.CLOUD) & (found.votes & Vote.ADDED == 0)]
    assert (asked & (Vote.PRODUCT_CLOUD | Vote.CLOUD_MODEL)).all()
    if buffer == 0:
        asked = found.votes[found.class_map == CloudClass.CLOUD_SHADOW]
        assert (asked & (Vote.PRODUCT_SHADOW | Vote.SHADOW_MODEL)).all()


@pytest.mark.parametrize("gsd", [GSD, 120.0])
def test_an_empty_scene_is_nodata(gsd):
    empty = np.full((13, 9), 255, np.uint8)
    nir = np.full(tuple(-(-n // Rules().cell_factor(gsd)) for n in empty.shape), np.nan, np.float32)
    evidence = Evidence(
        cloud=empty, shadow=empty, gsd=gsd, nir=nir, sun=SUN,
        product=product(np.zeros(empty.shape)),
    )  # fmt: skip
    assert (masked(evidence).class_map == CloudClass.NODATA).all()
