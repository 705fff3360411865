import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stac_cloudmask.core.grid import Window
from stac_cloudmask.pipeline.inference import row_stream

SCENE = np.random.default_rng(0).integers(0, 9999, (2, 57, 5), dtype=np.uint16)


def rows(stream, start, stop, cols=slice(0, 5)):
    return stream.window(Window(start, cols.start, stop - start, cols.stop - cols.start))


@given(st.integers(1, 70), st.lists(st.tuples(st.integers(0, 56), st.integers(0, 56)), min_size=1, max_size=8))
def test_any_windows_that_move_down_are_the_scene_and_no_row_is_read_twice(block, spans):
    seen: list[int] = []

    def read(row_off, height):
        seen.extend(range(row_off, row_off + height))
        return SCENE[:, row_off : row_off + height]

    windows = sorted((min(span), max(span) + 1) for span in spans)
    with row_stream(read, height=57, block=block) as stream:
        for start, stop in windows:
            for cols in (slice(0, 3), slice(2, 5)):
                np.testing.assert_array_equal(rows(stream, start, stop, cols), SCENE[:, start:stop, cols])
    assert len(seen) == len(set(seen))


class Counted:
    """Blocks of rows, and how many of them are alive."""

    def __init__(self):
        self.alive = self.most = 0
        self.lock = threading.Lock()

    def read(self, row_off, height):
        with self.lock:
            self.alive += 1
            self.most = max(self.most, self.alive)
        return SCENE[:, row_off : row_off + height].copy().view(Freed).counted_by(self)


class Freed(np.ndarray):
    """An array that says when it goes."""

    def counted_by(self, counter):
        self.counter = counter
        return self

    def __del__(self):
        if (counter := getattr(self, "counter", None)) is not None:
            with counter.lock:
                counter.alive -= 1


@pytest.mark.parametrize(("block", "blocks"), [(20, 2), (10, 3)])
def test_no_more_blocks_are_held_than_a_window_and_the_one_below_need(block, blocks):
    counted = Counted()
    with row_stream(counted.read, height=57, block=block) as stream:
        for start in range(0, 48, 9):
            assert rows(stream, start, start + 10).shape == (2, 10, 5)
    assert counted.most <= blocks


def test_the_rows_below_a_window_are_read_while_it_is_worked_on():
    began = [threading.Event() for _ in range(0, 57, 20)]

    def read(row_off, height):
        began[row_off // 20].set()
        return SCENE[:, row_off : row_off + height]

    with row_stream(read, height=57, block=20) as stream:
        rows(stream, 5, 15)
        assert began[1].wait(timeout=60)
    assert not began[2].is_set()


def test_a_failed_read_reaches_the_caller():
    def read(row_off, height):
        raise OSError("disk gone")

    with row_stream(read, height=10, block=4) as stream, pytest.raises(OSError, match="disk gone"):
        rows(stream, 0, 2)


def test_rows_beyond_the_scene_are_refused():
    def read(row_off, height):
        return SCENE[:, row_off : row_off + height]

    with row_stream(read, height=57, block=8) as stream, pytest.raises(ValueError, match="only 57 rows"):
        rows(stream, 0, 58)
