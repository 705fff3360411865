from dataclasses import replace

import numpy as np
import pytest
from cumulus import cumulus, product

from stac_cloudmask.config import Settings
from stac_cloudmask.core import merge, merge_calibrated as calibrated
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import FARMVIBES_CLASSES, POLICIES, merge_farmvibes
from stac_cloudmask.core.merge_calibrated import NO_PRODUCT, RULES
from stac_cloudmask.core.votes import Evidence, Vote
from stac_cloudmask.errors import ConfigError

CODES = np.array([[4, 4, 9, 3, 0]])


def decide(evidence, *, threads=1, **settings):
    return merge.decide(evidence, Settings(**settings), threads=threads)


def line(cloud, shadow, *, scl=CODES, gsd=10.0):
    layers = {"cloud": np.array([cloud], np.uint8), "shadow": np.array([shadow], np.uint8)}
    return Evidence(gsd=gsd, product=None if scl is None else product(scl), **layers)


def test_every_policy_of_the_settings_is_there():
    for name in ("union", "calibrated", "farmvibes"):
        assert decide(line([0] * 5, [0] * 5), merge=name).class_map.shape == (1, 5)


@pytest.mark.parametrize("name", POLICIES)
def test_the_item_is_told_what_was_applied(name):
    own = POLICIES[name]
    stated = decide(cumulus(), merge=name).parameters
    assert stated["cloud_thr"] == own.cloud_thr
    assert stated["cloud_buffer"] == own.cloud_buffer
    stated = decide(
        cumulus(), merge=name, cloud_thr=0.57, shadow_thr=0.29, buffer=20, min_area=800, hole_area=0
    ).parameters
    wanted = {
        "cloud_thr": 0.57, "shadow_thr": 0.29, "cloud_buffer": 20, "shadow_buffer": 20, "min_area": 800, "hole_area": 0,
    }  # fmt: skip
    assert stated.items() >= wanted.items()


def test_calibrated_states_the_sun_and_the_edge_of_shadow():
    stated = decide(cumulus(), merge="calibrated").parameters
    assert (stated["sun_azimuth"], stated["sun_elevation"]) == (135.0, 45.0)
    assert 0.55 < stated["shadow_edge"] < 0.75
    stated = decide(replace(cumulus(), sun=None, nir=None), merge="calibrated").parameters
    assert (stated["sun_azimuth"], stated["sun_elevation"], stated["shadow_edge"]) == (None, None, None)


def test_union_takes_the_thresholds_of_farmvibes_and_any_vote():
    found = decide(line([31, 30, 0, 0, 90], [0, 21, 0, 0, 0]), merge="union", buffer=0)
    np.testing.assert_array_equal(found.class_map, [[1, 2, 1, 2, CloudClass.NODATA]])
    assert found.notes == ()
    assert decide(line([0], [0], scl=None), merge="union").notes == (NO_PRODUCT,)


def test_a_threshold_is_exceeded_strictly_at_whole_percents():
    for percents in (29, 57, 58):
        found = decide(line([percents, percents + 1], [0, 0], scl=None), merge="union", cloud_thr=percents / 100)
        np.testing.assert_array_equal(found.votes & Vote.CLOUD_MODEL, [[0, Vote.CLOUD_MODEL]])


def test_an_explicit_buffer_grows_shadow_too():
    evidence = cumulus()
    plain, grown = (decide(evidence, merge="calibrated", buffer=buffer).class_map for buffer in (0, 30))
    shadow = (plain == CloudClass.CLOUD_SHADOW).sum()
    assert (grown == CloudClass.CLOUD_SHADOW).sum() > 1.1 * shadow


def test_farmvibes_is_the_seeds_merge_in_pixels():
    evidence = cumulus(scl=np.full((360, 424), 4))
    evidence.product.scl[:20, :20] = 0
    evidence.product.scl[300:310, 300:310] = 9
    evidence.cloud[5, 400] = evidence.shadow[5, 400] = 255
    clouds = np.isin(evidence.product.scl, (0, 9))
    expected = merge_farmvibes((evidence.cloud > 30) | (evidence.shadow > 20) | clouds)
    for gsd in (10.0, 60.0):
        found = decide(replace(evidence, gsd=gsd), merge="farmvibes")
        np.testing.assert_array_equal(found.class_map == CloudClass.CLOUD, expected)
        assert set(np.unique(found.class_map)) == {CloudClass.CLEAR, CloudClass.CLOUD}
        assert found.parameters["cloud_buffer"] == 5 * gsd
    assert found.notes == (FARMVIBES_CLASSES,)
    assert not found.votes[:20, :20].any()
    assert found.votes[300, 295] == Vote.ADDED


def test_farmvibes_counts_areas_in_pixels_of_the_grid():
    evidence = line([90, 0, 0, 90, 90, 90], [0] * 6, scl=None)
    found = decide(evidence, merge="farmvibes", buffer=0, min_area=200)
    np.testing.assert_array_equal(found.class_map, [[0, 0, 0, 1, 1, 1]])
    assert found.votes[0, 0] == Vote.CLOUD_MODEL | Vote.REMOVED
    assert found.notes == (FARMVIBES_CLASSES, NO_PRODUCT)


def test_farmvibes_has_no_area_of_its_own_for_holes():
    with pytest.raises(ConfigError, match="leave hole_area out"):
        decide(line([0], [0], scl=None), merge="farmvibes", hole_area=100)


@pytest.mark.parametrize(("gsd", "factor"), [(10, 8), (30, 2), (120, 1)])
def test_near_infrared_is_wanted_in_cells(gsd, factor):
    assert RULES.cell_factor(gsd) == factor


@pytest.mark.parametrize("name", POLICIES)
def test_threads_do_not_change_a_mask(name, monkeypatch):
    monkeypatch.setattr(calibrated, "CELL_ROWS", 24)
    evidence = cumulus(shape=(1100, 420))
    one = decide(evidence, merge=name, min_area=5_000)
    three = decide(evidence, merge=name, min_area=5_000, threads=3)
    assert set(np.unique(one.class_map)) >= {CloudClass.CLEAR, CloudClass.CLOUD, CloudClass.CLOUD_SHADOW}
    np.testing.assert_array_equal(three.class_map, one.class_map)
    np.testing.assert_array_equal(three.votes, one.votes)


def test_farmvibes_states_the_thresholds_and_buffers_that_it_applied():
    stated = decide(line([0], [0], scl=None, gsd=20.0), merge="farmvibes").parameters
    assert (stated["cloud_thr"], stated["shadow_thr"]) == (0.3, 0.2)
    assert stated["cloud_buffer"] == stated["shadow_buffer"] == 100.0


@pytest.mark.parametrize("name", ["union", "calibrated", "farmvibes"])
def test_only_what_somebody_said_is_removed_and_only_where_it_is_not_found(name):
    evidence = cumulus(scl=np.full((360, 424), 4))
    evidence.product.scl[300:310, 300:310] = 10
    evidence.cloud[20, 20] = 95
    found = decide(evidence, merge=name, min_area=800)
    said = Vote.PRODUCT_CLOUD | Vote.PRODUCT_SHADOW | Vote.CLOUD_MODEL | Vote.SHADOW_MODEL
    removed = (found.votes & Vote.REMOVED) > 0
    assert removed[20, 20] or name == "farmvibes"  # whose disk makes it large first
    assert (found.votes[removed] & said > 0).all()
    flagged = np.isin(found.class_map, (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW))
    added = (found.votes & Vote.ADDED) > 0
    assert not (removed & flagged & ~added).any()
