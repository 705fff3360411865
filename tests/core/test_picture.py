from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from stac_cloudmask.core.pixels import to_rgb


def gray(*reflectance):
    return np.array([[reflectance]] * 3, np.float32).reshape(3, 1, -1)


def test_nothing_is_black_and_a_cloud_is_white():
    assert to_rgb(gray(0, 1, 1.6)).tolist() == [[[0, 0, 0], [255, 255, 255], [255, 255, 255]]]


def test_a_color_worked_out_by_hand():
    # m = 0.16: 1.16 * 0.16 / 0.32 = 0.58 and 1.16 * 0.04 / 0.2 = 0.232, of mean 0.2707 with the 0 of blue;
    # a fifth further from the mean: 0.6419, 0.2243 and less than nothing, times 255
    orange, middle = [0.16, 0.04, 0], [0.16, 0.16, 0.16]
    picture = to_rgb(np.array([orange, middle], np.float32).T.reshape(3, 2, 1))
    assert picture.tolist() == [[[164, 57, 0]], [[148, 148, 148]]]


@given(st.lists(st.floats(-0.125, 1.5, width=32), min_size=3, max_size=3))
def test_what_is_below_nothing_is_nothing_and_what_is_above_white_is_white(color):
    scene = np.array(color, np.float32).reshape(3, 1, 1)
    np.testing.assert_array_equal(to_rgb(scene), to_rgb(np.clip(scene, 0, 1)))


def test_a_strong_color_is_as_strong_as_a_screen_can_show():
    yellow = np.array([1, 1, 0.3], np.float32).reshape(3, 1, 1)
    assert to_rgb(yellow)[0, 0, :2].tolist() == [255, 255]


@given(st.lists(st.floats(0, 1.5, width=32), min_size=2, max_size=20))
def test_brighter_ground_is_never_darker_in_the_picture(values):
    picture = to_rgb(gray(*sorted(values)))[0, :, 0].astype(int)
    assert (np.diff(picture) >= 0).all()


def test_the_same_reflectance_has_the_same_color_beside_anything():
    ground = np.array([0.08, 0.1, 0.06], np.float32)
    dark, bright = (np.stack([ground, np.full(3, other, np.float32)], axis=1)[:, None] for other in (0.01, 0.9))
    assert to_rgb(dark)[0, 0].tolist() == to_rgb(bright)[0, 0].tolist()


def test_red_green_and_blue_keep_their_order_and_the_picture_its_shape():
    scene = np.zeros((3, 4, 5), np.float32)
    scene[0] = 0.2
    picture = to_rgb(scene)
    assert (picture.shape, picture.dtype) == ((4, 5, 3), np.uint8)
    assert picture[0, 0, 0] > 100 > picture[0, 0, 1] == picture[0, 0, 2]
