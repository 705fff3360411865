import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core.calibrated import Cells, Rules, bilinear, darkness, smooth

RULES = Rules()
grids = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=st.floats(0, 1, width=32)
)


def ground(shape, *, clean=True):
    true, false = np.ones(shape, bool), np.zeros(shape, bool)
    return Cells(
        valid=true, certain=false, hint=false, cloud_any=false, cloud_most=false, product_any=false,
        product_most=false, cirrus_any=false, cirrus_most=false,
        shadow=np.zeros(shape, np.uint8), deep=false, clean=true if clean else false,
    )  # fmt: skip


def dark(nir, cells=None):
    cells = cells or ground(nir.shape)
    return darkness(cells, nir.astype(np.float32), np.zeros(nir.shape, bool), cell=60, rules=RULES)


@given(grids, st.integers(1, 6))
def test_bilinear_is_linear_interpolation_between_cell_centers(grid, factor):
    rows, cols = np.indices((grid.shape[0] * factor, grid.shape[1] * factor)).reshape(2, -1)
    at = [(rows + 0.5) / factor - 0.5, (cols + 0.5) / factor - 0.5]
    expected = ndimage.map_coordinates(grid.astype(float), at, order=1, mode="nearest")
    np.testing.assert_allclose(bilinear(grid, rows, cols, factor), expected, atol=1e-5)


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


def test_where_no_lit_ground_is_seen_nothing_is_known():
    assert dark(np.full((9, 9), 0.05)) is None
    assert dark(np.full((9, 9), 0.5), ground((9, 9), clean=False)) is None
