import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_cloudmask.readahead import row_stream

SCENE = np.random.default_rng(0).integers(0, 9999, (2, 57, 5), dtype=np.uint16)


@given(st.integers(1, 70), st.lists(st.tuples(st.integers(0, 56), st.integers(0, 56)), min_size=1, max_size=8))
def test_any_windows_that_move_down_are_the_scene_and_no_row_is_read_twice(block, spans):
    seen: list[int] = []

    def read(row_off, height):
        seen.extend(range(row_off, row_off + height))
        return SCENE[:, row_off : row_off + height]

    windows = sorted((min(span), max(span) + 1) for span in spans)
    with row_stream(read, height=57, block=block) as stream:
        for start, stop in windows:
            np.testing.assert_array_equal(stream.rows(start, stop), SCENE[:, start:stop])
    assert len(seen) == len(set(seen))


def test_a_failed_read_reaches_the_caller():
    def read(row_off, height):
        raise OSError("disk gone")

    with row_stream(read, height=10, block=4) as stream, pytest.raises(OSError, match="disk gone"):
        stream.rows(0, 2)


def test_rows_beyond_the_scene_are_refused():
    def read(row_off, height):
        return SCENE[:, row_off : row_off + height]

    with row_stream(read, height=57, block=8) as stream, pytest.raises(ValueError, match="only 57 rows"):
        stream.rows(0, 58)
