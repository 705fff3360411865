from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core.merge_calibrated import RULES
from stac_cloudmask.core.morphology import objects
from stac_cloudmask.core.shadow import (
    Search,
    kept_objects,
    reachable,
    shadow_shift,
    shadowless,
    shifted,
    window_sum,
)
from stac_cloudmask.core.votes import Sun

CELL = 60.0
bools = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))


@pytest.mark.parametrize(("azimuth", "towards"), [(0, (10, 0)), (90, (0, -10)), (180, (-10, 0)), (270, (0, 10))])
def test_shadow_falls_away_from_the_sun(azimuth, towards):
    assert shadow_shift(Sun(azimuth=azimuth, elevation=45), 10) == towards


@given(bools, st.integers(-15, 15), st.integers(-15, 15), st.booleans())
def test_a_shift_moves_every_cell_and_fills_what_comes_in(grid, rows, cols, fill):
    wide = np.pad(grid, 15, constant_values=fill)
    height, width = grid.shape
    expected = wide[15 - rows : 15 - rows + height, 15 - cols : 15 - cols + width]
    if abs(rows) <= 15 and abs(cols) <= 15:
        np.testing.assert_array_equal(shifted(grid, (rows, cols), fill=int(fill)), expected)


@given(hnp.arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 100)))
def test_window_sums_are_sums_over_windows(grid):
    expected = ndimage.convolve(grid.astype(np.int64), np.ones((5, 5), np.int64), mode="constant")
    np.testing.assert_array_equal(window_sum(grid, 5), expected)


@given(st.floats(1, 90), st.floats(0.0, 359.0))
def test_lengths_grow_by_a_cell_at_least_and_reach_the_highest_cloud_or_the_far_corner(elevation, azimuth):
    one = replace(search(length=1, shape=(120, 160)), sun=Sun(azimuth=azimuth, elevation=elevation))
    lengths = one.lengths
    highest = RULES.highest / np.tan(np.radians(elevation)) / CELL
    assert lengths[0] >= 1
    assert (np.diff(lengths) >= 1 - 1e-9).all()
    assert lengths[-1] >= min(highest, 200) - 1e-9
    assert lengths[0] == pytest.approx(min(max(RULES.lowest / np.tan(np.radians(elevation)) / CELL, 1), 201))
    assert all(length < min(highest, 200) for length in lengths[:-1])
    np.testing.assert_allclose(np.diff(lengths), np.maximum(1, RULES.step * np.array(lengths[:-1])))


def search(*, length, shape=(60, 60), size=(4, 5), elevation=45.0, outside=None, shady=True):
    """One cloud and its shadow of ``length`` cells."""
    cloud = np.zeros(shape, bool)
    cloud[40 : 40 + size[0], 40 : 40 + size[1]] = True
    sun = Sun(azimuth=135, elevation=elevation)
    shadow = shifted(cloud, shadow_shift(sun, length)) & ~cloud & shady
    valid = np.ones(shape, bool) if outside is None else ~outside
    return Search(cloud=cloud, dark=shadow, valid=valid, sun=sun, cell=CELL, rules=RULES)


@pytest.mark.parametrize("length", [8, 15, 25])
def test_the_length_at_which_a_cloud_lies_explains_what_is_dark_best(length):
    one = search(length=length)
    shares = [np.mean(one.explained(tried)[one.dark]) for tried in one.lengths]
    assert one.lengths[int(np.argmax(shares))] == pytest.approx(length, abs=max(1, 0.05 * length))
    assert RULES.explained < max(shares) <= 1


def broken_clouds(*, azimuth, cell=50.0):
    """Clouds up to every border, shadows of 9 cells with gaps, and a corner out of sight."""
    rng = np.random.default_rng(0)
    cloud = ndimage.uniform_filter(rng.random((40, 50)), 5) > 0.5
    valid = np.ones(cloud.shape, bool)
    valid[30:, 40:] = False
    sun = Sun(azimuth=azimuth, elevation=40)
    dark = shifted(cloud, shadow_shift(sun, 9)) & (rng.random(cloud.shape) < 0.8)
    return Search(cloud=cloud & valid, dark=dark, valid=valid, sun=sun, cell=cell, rules=RULES)


@pytest.mark.parametrize("azimuth", [45, 135, 225, 315])
def test_a_share_is_that_of_the_dark_cells_around_drawn_towards_that_of_the_scene(azimuth):
    one = broken_clouds(azimuth=azimuth)
    window = np.ones((int(RULES.window / one.cell) | 1,) * 2)
    prior = RULES.prior / one.cell**2
    for length in one.lengths:
        shift = shadow_shift(one.sun, length)
        below, known = shifted(one.cloud, shift), one.dark & shifted(one.valid, shift)
        shaded, places = (ndimage.convolve(g.astype(float), window, mode="constant") for g in (below & one.dark, known))
        scene = (below & one.dark).sum() / max(known.sum(), 1)
        expected = np.where(below, (shaded + prior * scene) / (places + prior), -1)
        np.testing.assert_allclose(one.explained(length), expected, atol=1e-5)


@pytest.mark.parametrize("azimuth", [45, 135, 225, 315])
def test_clouds_at_every_border_shade_what_is_inside(azimuth):
    one = broken_clouds(azimuth=azimuth)
    assert reachable(one)[one.dark & ~one.cloud].mean() > 0.9


def test_objects_are_joined_by_their_corners():
    assert objects(np.eye(3, dtype=bool)).max() == 1


def test_where_nothing_is_dark_no_shadow_may_lie():
    assert not reachable(search(length=15, shady=False)).any()


def test_shadow_may_lie_where_a_cloud_explains_it_and_nowhere_near_the_cloud():
    one = search(length=20)
    reached = reachable(one)
    assert reached[one.dark].all()
    assert not reached[one.cloud].any()


def test_much_that_is_dark_is_not_explained_by_one_small_cloud():
    one = search(length=15)
    wood = one.dark.copy()
    wood[2:32, 5:50] = True
    assert not reachable(replace(one, dark=wood)).any()


def test_threads_do_not_change_what_is_reached():
    one = broken_clouds(azimuth=150)
    assert 0 < reachable(one).mean() < 1
    np.testing.assert_array_equal(reachable(replace(one, threads=3)), reachable(one))


def test_a_wide_cloud_shades_the_whole_of_its_shadow():
    one = search(length=60, shape=(90, 90), size=(40, 40))
    assert one.dark.sum() > 800
    assert reachable(one)[one.dark].all()


def beside_an_edge(cols):
    """A cloud with its shadow, and another dark object in some columns below the edge of the data."""
    outside = np.zeros((60, 60), bool)
    outside[:, 55:] = True
    one = search(length=15, outside=outside)
    dark = one.dark.copy()
    dark[10:12, cols] = True
    return replace(one, dark=dark), np.s_[10:12, cols]


def test_what_clouds_beyond_the_data_may_shade_is_kept_whole():
    one, place = beside_an_edge(slice(42, 54))
    assert reachable(one)[place].all()


def test_what_lies_too_deep_in_the_data_for_clouds_beyond_it_is_not_kept_nor_cut():
    one, place = beside_an_edge(slice(24, 48))
    assert not reachable(one)[place].any()


def bare(one):
    labels = objects(one.cloud)
    return shadowless(one, labels)[labels[one.cloud]].all()


def test_a_small_cloud_without_a_shadow_is_none():
    assert bare(search(length=15, shady=False))
    assert not bare(search(length=15))


def test_a_cloud_is_believed_that_is_large_or_whose_shadow_would_be_out_of_sight():
    assert not bare(search(length=15, shady=False, size=(16, 16)))
    outside = np.zeros((60, 60), bool)
    outside[:30] = True
    assert not bare(search(length=15, shady=False, outside=outside))


@given(bools, st.floats(0.1, 1))
def test_objects_are_kept_whole_or_not_at_all(where, share):
    layer = np.random.default_rng(0).random(where.shape) < 0.4
    labels = objects(layer)
    kept = kept_objects(labels, where, share=share)
    for one in range(1, labels.max() + 1):
        inside = where[labels == one].mean()
        assert kept[labels == one].all() == (inside >= share)
        assert kept[labels == one].any() == (inside >= share)
    assert not kept[labels == 0].any()
