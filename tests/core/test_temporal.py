from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_cloudmask.core.temporal import bright_surfaces
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


@pytest.mark.parametrize(("shape", "reach", "most"), [((2, 3, 4), 1, 1), ((2, 3, 3), -1, 1), ((2, 3, 3), 1, -1)])
def test_impossible_settings_are_refused(shape, reach, most):
    with pytest.raises(ConfigError):
        bright_surfaces(np.zeros((2, 3, 3), np.uint8), np.zeros(shape, bool), threshold=30, reach=reach, most=most)
