"""Laws on scenes that fill many windows: where they lie does not matter, and rules draw no lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pystac
import pytest

from benchmarks.accuracy import scenes
from benchmarks.seams import CUT, FAR, SCENES, hold, jumps, kept, mask
from stac_cloudmask.core.classes import CloudClass, Scl
from stac_cloudmask.core.pixels import repeat
from stac_cloudmask.core.votes import Vote
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

BANDS = ("blue", "green", "red", "nir")
LONGEST = 26
"""Pixels of a straight boundary that a rule draws between shadow and clear; those of the true shadows have up to 34."""


def simulated(folder, **recipe):
    item = pystac.Item.from_file(str(write_simulated_item(folder, Recipe(bands=BANDS, **recipe))))
    item.make_asset_hrefs_absolute()
    return hold(item)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return simulated(tmp_path_factory.mktemp("large"), seed=7, height=2048, width=2048)


@pytest.fixture(scope="module")
def whole(large):
    return mask(large)


@pytest.mark.slow
def test_a_simulated_scene_keeps_its_classes_wherever_its_windows_lie(large, whole):
    share, of_flagged = kept(whole, mask(large.cut(*CUT)))
    assert share >= 0.995
    assert of_flagged >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("item_id", SCENES)
def test_a_real_scene_keeps_its_classes_wherever_its_windows_lie(item_id, shared):
    items = (item for folder in ("data", "data/hard") for item in scenes(shared / folder))
    scene = hold(next(item for item in items if item.id == item_id))
    share, of_flagged = kept(mask(scene), mask(scene.cut(*CUT)))
    assert share >= 0.995
    assert of_flagged >= 0.99


@pytest.mark.slow
def test_probability_does_not_jump_where_windows_meet(whole):
    at, elsewhere = jumps(whole)
    assert at.size >= 12
    assert at.mean() <= 1.1 * elsewhere.mean()


@pytest.mark.slow
def test_pixels_without_data_move_nothing_farther_away_than_the_models_context(large, whole):
    pixels = large.pixels.pixels.copy()
    pixels[:, 1000:1010, 1000:1010] = 40_000
    found = mask(replace(large, pixels=replace(large.pixels, pixels=pixels)))
    moved = np.nan_to_num(np.abs(found.percents - whole.percents)).max(axis=0) > 1
    rows, cols = np.nonzero(moved)
    assert np.isnan(found.percents[:, 1000:1010, 1000:1010]).all()
    assert max(abs(rows - 1005).max(initial=0), abs(cols - 1005).max(initial=0)) < FAR


def longest_line(shadow, clear):
    """Pixels of the longest straight boundary, along rows or columns, between where one holds and where the other."""
    longest = 0
    for one, other in ((shadow, clear), (shadow.T, clear.T)):
        for first, second in ((one, other), (other, one)):
            boundary = np.pad(first[:-1] & second[1:], ((0, 0), (1, 1)))
            ends = np.flatnonzero(np.diff(boundary.astype(np.int8).ravel()))
            longest = max(longest, int(np.diff(ends)[::2].max(initial=0)))
    return longest


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_no_rule_cuts_a_shadow_along_a_straight_line(seed, tmp_path):
    scene = simulated(tmp_path, seed=seed)
    found = mask(scene)
    scl, factor = scene.scl
    shore = repeat(scl == Scl.WATER, factor)  # of water that is not in shade, which is the landscape's own line
    cut = (found.class_map == CloudClass.CLEAR) & ((found.votes & Vote.SHADOW_MODEL) > 0) & ~shore
    assert cut.any()
    assert longest_line(found.class_map == CloudClass.CLOUD_SHADOW, cut) <= LONGEST
