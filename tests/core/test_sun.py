import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from stac_cloudmask.core.calibrated import Reach
from stac_cloudmask.core.shadow import (
    Search,
    cast,
    kept_objects,
    objects,
    reachable,
    shadow_lengths,
    shadow_shift,
    shifted,
    window_sum,
    with_touching,
)
from stac_cloudmask.core.votes import Sun

CELL = 60.0
REACH = Reach()
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


@given(bools, st.integers(-15, 15), st.integers(-15, 15), st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_rows_of_a_moved_grid_are_rows_of_the_whole_moved(grid, south, east, rows):
    start, stop = sorted(min(row, len(grid)) for row in rows)
    whole = shifted(grid, (south, east), fill=1)
    np.testing.assert_array_equal(shifted(grid, (south, east), fill=1, rows=(start, stop)), whole[start:stop])


@given(hnp.arrays(np.uint32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 100)))
def test_window_sums_are_sums_over_windows(grid):
    expected = ndimage.convolve(grid.astype(np.int64), np.ones((5, 5), np.int64), mode="constant")
    np.testing.assert_array_equal(window_sum(grid, 5), expected)


@given(st.floats(1, 90), st.floats(0.0, 359.0))
def test_lengths_grow_by_a_cell_at_least_and_reach_the_highest_cloud_or_the_far_corner(elevation, azimuth):
    lengths = shadow_lengths(Sun(azimuth=azimuth, elevation=elevation), REACH, cell=CELL, longest=200)
    highest = REACH.highest / np.tan(np.radians(elevation)) / CELL
    assert lengths[0] >= 1
    assert (np.diff(lengths) >= 1 - 1e-9).all()
    assert lengths[-1] >= min(highest, 200) - 1e-9
    assert lengths[0] == pytest.approx(min(max(REACH.lowest / np.tan(np.radians(elevation)) / CELL, 1), 201))
    assert all(length < min(highest, 200) for length in lengths[:-1])
    np.testing.assert_allclose(np.diff(lengths), np.maximum(1, REACH.step * np.array(lengths[:-1])))


def search(*, length, shape=(60, 60), size=(4, 5), elevation=45.0, outside=None, shady=True):
    """One cloud and its shadow of ``length`` cells."""
    cloud = np.zeros(shape, bool)
    cloud[40 : 40 + size[0], 40 : 40 + size[1]] = True
    sun = Sun(azimuth=135, elevation=elevation)
    shadow = shifted(cloud, shadow_shift(sun, length)) & ~cloud & shady
    valid = np.ones(shape, bool) if outside is None else ~outside
    return Search(cloud=cloud, shadow=shadow * np.uint8(100), valid=valid, sun=sun, cell=CELL, reach=REACH)


def all_fits(one):
    return one.fits((0, one.cloud.shape[0]), [one.common_fit(length) for length in one.lengths()])


@pytest.mark.parametrize("length", [8, 15, 25])
def test_the_length_at_which_a_shadow_lies_fits_best(length):
    one = search(length=length)
    fits = all_fits(one).mean(axis=1)
    found = np.array(one.lengths())[fits.argmax()]
    assert found == pytest.approx(length, abs=max(1, 0.05 * length))
    assert fits.max() > REACH.agreement
    assert (fits <= 1).all()


def broken_clouds(*, azimuth, cell=50.0):
    """Clouds up to every border, shadows of 9 cells with gaps, and a corner out of sight."""
    rng = np.random.default_rng(0)
    cloud = ndimage.uniform_filter(rng.random((40, 50)), 5) > 0.5
    valid = np.ones(cloud.shape, bool)
    valid[30:, 40:] = False
    sun = Sun(azimuth=azimuth, elevation=40)
    dark = shifted(cloud, shadow_shift(sun, 9)) & (rng.random(cloud.shape) < 0.8)
    shadow = dark * rng.integers(50, 101, cloud.shape, np.uint8)
    return Search(cloud=cloud & valid, shadow=shadow, valid=valid, sun=sun, cell=cell, reach=REACH)


@pytest.mark.parametrize("azimuth", [45, 135, 225, 315])
def test_a_fit_is_the_share_of_what_is_seen_that_is_dark_drawn_towards_that_of_the_scene(azimuth):
    one = broken_clouds(azimuth=azimuth)
    window = np.ones((int(REACH.window / one.cell) | 1,) * 2)
    prior, doubt = REACH.prior / one.cell**2, REACH.doubt / one.cell**2

    def around(grid):
        return ndimage.convolve(grid.astype(float), window, mode="constant")[one.cloud]

    for length, fit in zip(one.lengths(), all_fits(one), strict=True):
        south, east = shadow_shift(one.sun, length)
        seen = shifted(one.valid & ~one.cloud, (-south, -east)) & one.cloud
        dark = shifted(one.shadow, (-south, -east)) * seen / 100
        common = dark.sum() / (seen.sum() + doubt)
        expected = (around(dark) + prior * common) / (around(seen) + prior)
        unknown = around(seen) < REACH.seen * around(one.cloud)
        np.testing.assert_allclose(fit, np.where(unknown, -1, expected), atol=1e-5)


@pytest.mark.parametrize("azimuth", [45, 135, 225, 315])
def test_clouds_at_every_border_cast_inside(azimuth):
    one = broken_clouds(azimuth=azimuth)
    dark = (one.shadow > 0) & ~one.cloud
    assert cast(one)[dark].mean() > 0.9


def test_objects_are_joined_by_their_corners():
    assert objects(np.eye(3, dtype=bool)).max() == 1


def test_a_cloud_without_any_shadow_casts_nothing():
    assert not cast(search(length=15, shady=False)).any()


def test_a_length_that_leads_out_of_sight_is_not_judged():
    outside = np.zeros((60, 60), bool)
    outside[:30] = True
    fits = all_fits(search(length=25, outside=outside))
    assert (fits[-1] == -1).all()
    assert (fits[0] >= 0).all()


def test_clouds_cast_where_their_shadow_is_and_nowhere_near_themselves():
    one = search(length=20)
    reached = cast(one)
    assert reached[one.shadow > 0].all()
    assert not reached[one.cloud].any()


@pytest.mark.parametrize("rows", [1, 7, 50])
def test_no_strip_changes_what_is_reached(rows, monkeypatch):
    rng = np.random.default_rng(0)
    cloud = ndimage.uniform_filter(rng.random((60, 50)), 5) > 0.52
    sun = Sun(azimuth=150, elevation=40)
    dark = shifted(cloud, shadow_shift(sun, 12)) & (rng.random(cloud.shape) < 0.8)
    valid = np.ones(cloud.shape, bool)
    valid[:, 45:] = valid[50:, :20] = False
    scene = {"cloud": cloud & valid, "shadow": dark * np.uint8(90), "valid": valid, "sun": sun, "cell": CELL}
    whole = cast(Search(**scene, reach=REACH))
    assert 0 < whole.mean() < 1
    monkeypatch.setattr("stac_cloudmask.core.shadow.STRIP", rows)
    np.testing.assert_array_equal(cast(Search(**scene, reach=REACH, threads=3)), whole)


def test_a_wide_cloud_casts_the_whole_of_its_shadow():
    one = search(length=60, shape=(90, 90), size=(40, 40))
    dark = one.shadow > 0
    assert dark.sum() > 800
    assert reachable(one)[dark].all()


def test_clouds_beyond_the_data_float_as_high_as_those_seen():
    outside = np.zeros((60, 60), bool)
    outside[:, 55:] = True
    reached = cast(search(length=15, outside=outside))
    assert reached[20, 46]
    assert not reached[20, 36]
    assert not reached[20, 10]


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


def test_a_dark_object_that_mostly_lies_in_reach_is_shadow_as_a_whole():
    dark = np.zeros((3, 12), bool)
    dark[1, 0:4] = dark[1, 6:10] = True
    reached = np.zeros_like(dark)
    reached[1, 0:3] = reached[1, 6:7] = True
    grown = with_touching(reached, dark, overlap=0.75)
    assert grown[1, 0:4].all()
    np.testing.assert_array_equal(grown[1, 6:10], [True, False, False, False])
