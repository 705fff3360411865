from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stac_cloudmask.core.picture import to_rgb


def gray(*reflectance):
    return np.array([[reflectance]] * 3, np.float32).reshape(3, 1, -1)


def test_nothing_is_black_and_a_cloud_is_white():
    assert to_rgb(gray(0, 1, 1.6)).tolist() == [[[0, 0, 0], [255, 255, 255], [255, 255, 255]]]


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
