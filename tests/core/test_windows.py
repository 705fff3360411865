from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stac_cloudmask.core.grid import Window, farmvibes_chips, plan_chips
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.models.registry import find_model

lengths = st.integers(1, 150)


@st.composite
def plans(draw):
    height, width = draw(lengths), draw(lengths)
    multiple = draw(st.sampled_from([0, 1, 4, 8]))
    size = draw(st.integers(2, 12)) * (multiple or draw(st.integers(3, 9)))
    overlap = draw(st.integers(0, max(size - 4, 0)))
    return (height, width), (size, overlap, multiple)


def chips_of(shape, setting):
    size, overlap, multiple = setting
    return plan_chips(*shape, size=size, overlap=overlap, multiple=multiple)


@given(plans())
def test_windows_cover_the_scene_stay_inside_it_and_answer_for_all_that_they_see(plan):
    shape, setting = plan
    times_seen = np.zeros(shape, int)
    for chip in (c for row in chips_of(shape, setting) for c in row):
        assert chip.write == chip.read
        read = times_seen[chip.read.slices]
        assert read.shape == (chip.read.height, chip.read.width)
        read += 1
    assert times_seen.min() > 0


@given(plans())
def test_neighbors_share_the_overlap_rounded_down_to_a_multiple(plan):
    shape, (size, overlap, multiple) = plan
    chips = plan_chips(*shape, size=size, overlap=overlap, multiple=multiple)
    for left, right in zip(chips[0], chips[0][1:], strict=False):
        assert left.read.cols.stop - right.read.col_off >= overlap // (multiple or 1) * (multiple or 1)


@given(plans())
def test_windows_start_and_end_on_multiples_or_with_the_scene(plan):
    shape, (size, overlap, multiple) = plan
    for chip in (c for row in plan_chips(*shape, size=size, overlap=overlap, multiple=multiple) for c in row):
        for span, length in zip(chip.read.slices, shape, strict=True):
            assert span.start % (multiple or 1) == 0
            assert span.stop == length or (span.stop - span.start) % (multiple or size) == 0
            assert span.stop - span.start <= size


@given(plans())
def test_chips_of_a_row_read_the_same_rows(plan):
    for row in chips_of(*plan):
        assert {chip.read.rows.start for chip in row} == {row[0].read.row_off}
        assert {chip.read.height for chip in row} == {row[0].read.height}


def test_a_multiple_shrinks_windows_so_that_little_is_computed_twice():
    rows = plan_chips(10980, 10980, size=1024, overlap=32, multiple=32)
    fixed = plan_chips(10980, 10980, size=1024, overlap=32, multiple=0)
    assert len(rows) == len(fixed) == 12
    assert rows[0][0].read.height == 960
    assert fixed[0][0].read.height == 1024


def test_a_tile_has_13_by_13_windows_of_the_bundled_models():
    window = find_model("ukis-csmask-4b-l2a").window
    rows = plan_chips(10980, 10980, size=window.size, overlap=window.overlap, multiple=window.multiple)
    assert [len(rows), len(rows[0]), rows[0][0].read.width, rows[1][0].read.row_off] == [13, 13, 1024, 832]


@pytest.mark.parametrize(
    ("length", "starts"), [(10980, [0, 374, 748]), (1300, [0, 263, 525, 788]), (1100, [0, 294, 588])]
)
def test_the_seeds_windows_start_where_farmvibes_starts_them(length, starts):
    row = farmvibes_chips(512, length, size=512, overlap_fraction=0.25)[0]
    assert [chip.read.col_off for chip in row][: len(starts)] == starts
    assert row[-1].read.cols.stop == length


def test_the_seeds_plan_has_29_by_29_windows_on_a_tile_with_margins_of_69_pixels():
    rows = farmvibes_chips(10980, 10980, size=512, overlap_fraction=0.25)
    assert [len(rows), len(rows[0])] == [29, 29]
    inner = [chip for chip in rows[0] if chip.write.cols.stop < 10980]
    assert min(chip.read.cols.stop - chip.write.cols.stop for chip in inner) == 69


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 40), st.floats(0, 0.95))
def test_the_seeds_writes_tile_the_scene_exactly(height, width, size, overlap):
    if int(size * (1 - overlap)) < 1:
        with pytest.raises(ConfigError):
            farmvibes_chips(height, width, size=size, overlap_fraction=overlap)
        return
    times_written = np.zeros((height, width), int)
    for chip in (c for row in farmvibes_chips(height, width, size=size, overlap_fraction=overlap) for c in row):
        times_written[chip.write.slices] += 1
    assert (times_written == 1).all()


def test_a_window_counts_within_another():
    assert Window(10, 20, 3, 4).within(Window(8, 15, 9, 9)) == Window(2, 5, 3, 4)


def spans(chips):
    return [(chip.read.col_off, chip.read.width) for chip in chips]


@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([0, 8, 32]))
def test_rows_and_columns_are_planned_alike(height, width, multiple):
    options = {"size": 128, "overlap": 20, "multiple": multiple}
    plan, turned = plan_chips(height, width, **options), plan_chips(width, height, **options)
    down = [(row[0].read.row_off, row[0].read.height) for row in turned]
    assert spans(plan[0]) == down


def test_no_more_windows_than_the_size_asks_for():
    (row,) = plan_chips(100, 1000, size=256, overlap=32, multiple=0)
    assert len(row) == 5
    assert [chip.read.col_off for chip in row] == [0, 186, 372, 558, 744]


@pytest.mark.parametrize(("length", "count"), [(511, 1), (512, 1), (513, 2), (896, 2), (897, 3)])
def test_farmvibes_adds_a_window_where_one_is_full(length, count):
    (row,) = farmvibes_chips(100, length, size=512, overlap_fraction=0.25)
    assert len(row) == count
