from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.evidence import Evidence, ProductMask, Vote
from stac_cloudmask.core.policy import decide
from stac_cloudmask.core.temporal import bright_surfaces, extra_clouds, give_back, on_many_dates
from stac_cloudmask.errors import ConfigError


@st.composite
def series(draw):
    dates = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    percents = rng.choice(np.array([0, 30, 31, 100, 255], np.uint8), (dates, 3, 4))
    return percents, rng.random((dates, 3, 4)) < 0.3


@given(series(), st.integers(0, 13), st.integers(0, 6))
def test_a_surface_is_bright_where_most_dates_around_have_a_cloud_that_the_product_does_not_see(stack, reach, most):
    percents, product = stack
    extra = (percents > 30) & (percents <= 100) & ~product
    bright = bright_surfaces(percents, product, threshold=30, reach=reach, most=most)
    for date in range(len(percents)):
        around = extra[max(date - reach, 0) : date + reach + 1].sum(axis=0)
        np.testing.assert_array_equal(bright[date], extra[date] & (around > most))


@given(series(), st.integers(0, 13), st.integers(0, 6))
def test_time_has_no_direction(stack, reach, most):
    percents, product = stack
    forward = bright_surfaces(percents, product, threshold=30, reach=reach, most=most)
    backward = bright_surfaces(percents[::-1], product[::-1], threshold=30, reach=reach, most=most)
    np.testing.assert_array_equal(forward, backward[::-1])


def test_a_roof_is_found_and_a_passing_cloud_is_kept():
    percents = np.zeros((21, 1, 2), np.uint8)
    percents[:, 0, 0] = 80
    percents[4:8, 0, 1] = 80
    bright = bright_surfaces(percents, np.zeros((21, 1, 2), bool), threshold=30)
    assert bright[:, 0, 0].all()
    assert not bright[:, 0, 1].any()


@pytest.mark.parametrize(
    ("dates", "bright"),
    [((10, 11, 12, 13, 14), False), ((10, 11, 12, 13, 14, 20), True), ((10, 11, 12, 13, 14, 21), False)],
)
def test_more_than_five_dates_from_ten_before_to_ten_after_make_a_surface_bright(dates, bright):
    extra = np.zeros((32, 1, 1), bool)
    extra[list(dates)] = True
    percents = np.where(extra, 31, 30).astype(np.uint8)
    assert on_many_dates(extra)[10, 0, 0] == bright
    assert bright_surfaces(percents, np.zeros(extra.shape, bool), threshold=30)[10, 0, 0] == bright


def test_a_cloud_of_the_model_alone_is_extra_whatever_else_was_said():
    votes = np.arange(128, dtype=np.uint8)
    found = extra_clouds(votes)
    expected = [Vote.CLOUD_MODEL in Vote(bits) and Vote.PRODUCT_CLOUD not in Vote(bits) for bits in range(128)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("shape", "reach", "most"), [((2, 3, 4), 1, 1), ((2, 3, 3), -1, 1), ((2, 3, 3), 1, -1)])
def test_impossible_settings_are_refused(shape, reach, most):
    with pytest.raises(ConfigError):
        bright_surfaces(np.zeros((2, 3, 3), np.uint8), np.zeros(shape, bool), threshold=30, reach=reach, most=most)


@st.composite
def masks(draw):
    """A mask by the union policy with its votes, and where surfaces are bright."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (17, 23)
    cloud, shadow = (
        rng.choice(np.array([0, 90, 255], np.uint8), shape, p=p) for p in ([0.9, 0.09, 0.01], [0.7, 0.3, 0])
    )
    scl = rng.choice(np.array([0, 4, 3, 9], np.uint8), shape, p=[0.02, 0.88, 0.05, 0.05])
    product = ProductMask(scl=scl, factor=1, shape=shape, cloud_codes=(8, 9, 10), shadow_codes=(3,))
    evidence = Evidence(cloud=cloud, shadow=shadow, gsd=10.0, product=product)
    radius = draw(st.integers(0, 3))
    made = decide(evidence, merge="union", buffer=10.0 * radius)
    bright = extra_clouds(made.votes) & (rng.random(shape) < draw(st.sampled_from([0.0, 0.5, 1.0])))
    return made.class_map, made.votes, bright, float(radius)


@given(masks())
def test_where_nothing_is_bright_nothing_changes(made):
    class_map, votes, bright, radius = made
    found, bits = class_map.copy(), votes.copy()
    give_back(found, bits, np.zeros_like(bright), radius=radius)
    np.testing.assert_array_equal(found, class_map)
    np.testing.assert_array_equal(bits, votes)


@given(masks())
def test_bright_surfaces_are_what_the_product_says_and_can_be_taken_back(made):
    class_map, votes, bright, radius = made
    found, bits = class_map.copy(), votes.copy()
    give_back(found, bits, bright, radius=radius)
    turned = (bits & Vote.BRIGHT) > 0
    assert (class_map[turned] == CloudClass.CLOUD).all()
    assert (found[~turned] == class_map[~turned]).all()
    assert not (votes[turned] & Vote.PRODUCT_CLOUD).any()
    np.testing.assert_array_equal(found[turned] == CloudClass.CLOUD_SHADOW, (votes[turned] & Vote.PRODUCT_SHADOW) > 0)
    again, same = found.copy(), bits.copy()
    give_back(again, same, bright, radius=radius)
    np.testing.assert_array_equal(again, found)
    np.testing.assert_array_equal(same, bits)
    give_back(found, bits, np.zeros_like(bright), radius=radius)
    np.testing.assert_array_equal(found, class_map)
    np.testing.assert_array_equal(bits, votes)


def test_the_buffer_of_a_roof_goes_with_it_and_that_of_a_cloud_stays():
    cloud = np.zeros((3, 20), np.uint8)
    cloud[:, [4, 12]] = 90
    shape = cloud.shape
    product = ProductMask(
        scl=np.full(shape, 4, np.uint8), factor=1, shape=shape, cloud_codes=(8, 9, 10), shadow_codes=(3,)
    )
    made = decide(
        Evidence(cloud=cloud, shadow=np.zeros(shape, np.uint8), gsd=10.0, product=product), merge="union", buffer=20.0
    )
    bright = np.zeros(shape, bool)
    bright[:, 4] = True
    give_back(made.class_map, made.votes, bright, radius=2.0)
    np.testing.assert_array_equal(np.flatnonzero(made.class_map[1] == CloudClass.CLOUD), [10, 11, 12, 13, 14])
