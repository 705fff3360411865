from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core import grid
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import Policy, merge, select_union
from stac_cloudmask.core.votes import Evidence, ProductMask, Vote

POLICY = Policy(cloud_thr=0.3, shadow_thr=0.2, cloud_buffer=0, shadow_buffer=0)
percents = st.one_of(st.integers(0, 100), st.just(255))


@st.composite
def evidences(draw):
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=16))
    layer = hnp.arrays(np.uint8, shape, elements=percents)
    factor = draw(st.sampled_from([1, 2]))
    scl = draw(hnp.arrays(np.uint8, (-(-shape[0] // factor), -(-shape[1] // factor)), elements=st.integers(0, 11)))
    mask = ProductMask(scl=scl, factor=factor, shape=shape, cloud_codes=(8, 9, 10), shadow_codes=(3,))
    return Evidence(cloud=draw(layer), shadow=draw(layer), gsd=10.0, product=mask)


def union(evidence, *, shadow_before_buffer=True, **settings):
    """Class map and votes."""
    policy = replace(POLICY, **settings)
    return merge(evidence, policy, select_union, shadow_before_buffer=shadow_before_buffer)


def said(evidence):
    scl = np.kron(evidence.product.scl, np.ones((evidence.product.factor,) * 2, np.uint8))
    scl = scl[: evidence.shape[0], : evidence.shape[1]]
    valid = (evidence.cloud != 255) & (evidence.shadow != 255) & (scl != 0)
    cloud = (evidence.cloud > 30) | np.isin(scl, (8, 9, 10))
    shadow = (evidence.shadow > 20) | (scl == 3)
    return valid, cloud & valid, shadow & valid


@given(evidences())
def test_union_is_whatever_anybody_says_with_cloud_before_shadow(evidence):
    valid, cloud, shadow = said(evidence)
    expected = np.select([~valid, cloud, shadow], [CloudClass.NODATA, CloudClass.CLOUD, CloudClass.CLOUD_SHADOW], 0)
    np.testing.assert_array_equal(union(evidence)[0], expected)


@given(evidences(), st.sampled_from([10.0, 25.0, 50.0]))
def test_a_buffer_reaches_as_far_as_it_says_and_never_over_what_was_found(evidence, buffer):
    valid, cloud, shadow = said(evidence)
    class_map, votes = union(evidence, cloud_buffer=buffer, shadow_buffer=buffer)
    near = ndimage.distance_transform_edt(~(cloud | shadow)) * 10 <= buffer if (cloud | shadow).any() else cloud
    flagged = np.isin(class_map, (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW))
    np.testing.assert_array_equal(flagged, near & valid)
    assert (class_map[cloud] == CloudClass.CLOUD).all()
    assert (class_map[shadow & ~cloud] == CloudClass.CLOUD_SHADOW).all()
    np.testing.assert_array_equal((votes & Vote.ADDED) > 0, flagged & ~cloud & ~shadow)


@given(evidences(), st.integers(1, 7), st.sampled_from([0.0, 20.0]), st.sampled_from([0.0, 400.0]))
def test_strips_do_not_change_the_outcome(evidence, rows, buffer, area):
    clean = {"cloud_buffer": buffer, "shadow_buffer": buffer, "min_area": area, "hole_area": area}
    whole = union(evidence, **clean)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grid.strips, "__defaults__", (rows,))
        cut = union(evidence, **clean)
    np.testing.assert_array_equal(cut, whole)


@given(evidences())
def test_votes_tell_who_said_what_and_nodata_has_none(evidence):
    _, votes = union(evidence)
    valid, *_ = said(evidence)
    np.testing.assert_array_equal((votes & Vote.CLOUD_MODEL) > 0, (evidence.cloud > 30) & valid)
    np.testing.assert_array_equal((votes & Vote.SHADOW_MODEL) > 0, (evidence.shadow > 20) & valid)
    assert not votes[~valid].any()
    assert votes.max() < 64


@given(evidences(), st.integers(0, 99))
def test_union_grows_with_every_vote(evidence, cloud):
    lower, higher = (union(evidence, cloud_thr=percent / 100)[0] for percent in (cloud, cloud + 1))
    flagged = (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW)
    assert not (np.isin(higher, flagged) & ~np.isin(lower, flagged)).any()


def test_small_objects_are_removed_and_the_votes_say_so():
    cloud = np.zeros((12, 12), np.uint8)
    cloud[1, 1] = cloud[5:9, 5:9] = 90
    cloud[6, 6] = 0
    evidence = Evidence(cloud=cloud, shadow=np.zeros_like(cloud), gsd=10.0)
    class_map, votes = union(evidence, min_area=400, hole_area=200)
    assert class_map[1, 1] == CloudClass.CLEAR
    assert votes[1, 1] == Vote.CLOUD_MODEL | Vote.REMOVED
    assert class_map[6, 6] == CloudClass.CLOUD
    assert (class_map[5:9, 5:9] == CloudClass.CLOUD).all()


def test_without_a_product_the_models_decide():
    cloud = np.array([[31, 30, 255]], np.uint8)
    class_map, _ = union(Evidence(cloud=cloud, shadow=np.zeros_like(cloud), gsd=10.0))
    np.testing.assert_array_equal(class_map, [[CloudClass.CLOUD, CloudClass.CLEAR, CloudClass.NODATA]])


def test_a_buffer_hides_shadow_only_where_it_is_told_to():
    cloud = np.array([[90, 0, 0, 0]], np.uint8)
    evidence = Evidence(cloud=cloud, shadow=np.array([[0, 90, 0, 0]], np.uint8), gsd=10.0)
    np.testing.assert_array_equal(union(evidence, cloud_buffer=20)[0], [[1, 2, 1, 0]])
    class_map, votes = union(evidence, cloud_buffer=20, shadow_before_buffer=False)
    np.testing.assert_array_equal(class_map, [[1, 1, 1, 0]])
    assert votes[0, 1] == Vote.SHADOW_MODEL | Vote.ADDED


@pytest.mark.parametrize("gsd", [5.0, 10.0, 20.0])
def test_areas_are_in_square_meters_whatever_the_pixel_size(gsd):
    cloud = np.full((40, 40), 95, np.uint8)
    side = round(100 / gsd)
    cloud[4 : 4 + side, 4 : 4 + side] = 0
    evidence = Evidence(cloud=cloud, shadow=np.zeros_like(cloud), gsd=gsd, product=None)
    for area, closed in ((9_900, False), (10_100, True)):
        assert (union(evidence, hole_area=area)[0] == CloudClass.CLOUD).all() == closed
    lone = Evidence(cloud=95 - cloud, shadow=np.zeros_like(cloud), gsd=gsd, product=None)
    for area, kept in ((9_900, True), (10_100, False)):
        assert (union(lone, min_area=area)[0] == CloudClass.CLOUD).any() == kept
