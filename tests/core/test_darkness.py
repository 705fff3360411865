import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.merge_calibrated import darkness, smooth, spline

grids = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.floats(0, 1, width=32)
)


def dark(nir, lit=None):
    nir = nir.astype(np.float32)
    return darkness(nir, nir > 0.12 if lit is None else lit, width=1000 / 60)


@given(grids, st.integers(1, 6), st.data())
def test_a_window_of_the_spline_is_that_of_a_quadratic_b_spline_over_the_whole(grid, factor, data):
    shape = tuple(n * factor for n in grid.shape)
    rows, cols = np.indices(shape)
    at = [(rows + 0.5) / factor - 0.5, (cols + 0.5) / factor - 0.5]
    expected = ndimage.map_coordinates(grid.astype(float), at, order=2, mode="nearest", prefilter=False)
    row, col = (data.draw(st.integers(0, n - 1)) for n in shape)
    window = Window(row, col, shape[0] - row, shape[1] - col)
    np.testing.assert_allclose(spline(grid, factor, window), expected[window.slices], atol=1e-5)


def test_three_boxes_are_nearly_a_gaussian():
    point = np.zeros((101, 101), np.float32)
    point[50, 50] = 1
    sigma = np.sqrt(72)  # of three boxes of 17 cells
    np.testing.assert_allclose(smooth(point, sigma), ndimage.gaussian_filter(point, sigma), atol=3e-4)


def test_ground_of_one_brightness_is_as_light_as_itself():
    np.testing.assert_allclose(dark(np.full((40, 30), 0.3)), 1, rtol=1e-4)


def test_a_field_is_judged_by_the_ground_around_it_and_not_by_the_scene():
    nir = np.full((200, 200), 0.2)
    nir[:, 100:] = 0.5
    nir[100, 20] = 0.1
    nir[100, 180] = 0.25
    found = dark(nir)
    np.testing.assert_allclose([found[100, 20], found[100, 180]], 0.5, atol=0.02)


def test_nodata_is_as_dark_as_its_neighbor():
    nir = np.full((20, 20), 0.3)
    nir[:, :10] = np.nan
    nir[5, 10] = 0.15
    found = dark(nir)
    assert np.isfinite(found).all()
    assert found[5, 3] == found[5, 10]


def test_water_says_nothing_of_lit_ground():
    nir = np.full((40, 40), 0.02)
    nir[:20] = 0.4
    assert dark(nir)[10, 10] > 0.95
