import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core import morphology

layers = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


@given(layers, st.floats(0, 9) | st.floats(9, 1e12))
def test_dilation_is_the_distance_to_the_nearest_true(layer, radius):
    rows, cols = np.indices(layer.shape)
    distance2 = np.full(layer.shape, np.inf)
    for row, col in np.argwhere(layer):
        distance2 = np.minimum(distance2, (rows - row) ** 2 + (cols - col) ** 2)
    np.testing.assert_array_equal(morphology.dilate(layer, radius=radius), distance2 <= radius * radius)


@given(layers, st.integers(0, 12))
def test_small_objects_go_whole_and_others_stay_whole(layer, min_pixels):
    labels, count = ndimage.label(layer, morphology.EIGHT_CONNECTED)
    expected = layer.copy()
    for label in range(1, count + 1):
        if (labels == label).sum() < min_pixels:
            expected[labels == label] = False
    np.testing.assert_array_equal(morphology.remove_small(layer, min_pixels=min_pixels), expected)


@given(layers, st.integers(0, 12))
def test_removing_twice_is_removing_once(layer, min_pixels):
    once = morphology.remove_small(layer, min_pixels=min_pixels)
    np.testing.assert_array_equal(morphology.remove_small(once, min_pixels=min_pixels), once)


def test_a_hole_below_the_limit_is_closed_and_one_at_the_limit_stays():
    layer = np.ones((9, 9), dtype=bool)
    layer[1, 1] = layer[5:7, 5:7] = False
    filled = morphology.fill_holes(layer, max_pixels=4)
    assert filled[1, 1]
    assert not filled[5:7, 5:7].any()


def test_nothing_is_changed_in_place():
    layer = np.random.default_rng(0).random((20, 20)) < 0.3
    before = layer.copy()
    morphology.dilate(layer, radius=2)
    morphology.remove_small(layer, min_pixels=5)
    morphology.fill_holes(layer, max_pixels=5)
    np.testing.assert_array_equal(layer, before)


def test_an_object_counts_whole_however_long_it_is():
    snake = np.zeros((200, 7), dtype=bool)
    snake[:, 3] = snake[0, :] = True
    np.testing.assert_array_equal(morphology.remove_small(snake, min_pixels=206), snake)
    assert not morphology.remove_small(snake, min_pixels=207).any()


def test_objects_of_one_pixel_stay_where_one_is_enough():
    layer = np.eye(3, dtype=bool)[[0, 2, 1]] & np.array([[True], [False], [False]])
    np.testing.assert_array_equal(morphology.remove_small(layer, min_pixels=1), layer)
