from __future__ import annotations

import itertools
import threading

import pytest

from stac_cloudmask.pipeline.run import AHEAD, LookAhead


def test_everything_comes_in_order_and_is_counted():
    ahead = LookAhead(iter(range(3)))
    assert list(ahead) == [0, 1, 2]
    assert ahead.total == 3


def test_the_number_is_known_before_the_first_item_is_done():
    read = threading.Event()

    def source():
        yield from range(5)
        read.set()

    ahead = LookAhead(source())
    items = iter(ahead)
    assert next(items) == 0
    assert read.wait(timeout=30)
    assert list(items) == [1, 2, 3, 4]
    assert ahead.total == 5


def test_an_error_comes_after_what_was_before_it():
    def source():
        yield 1
        raise ValueError("page 2")

    items = iter(LookAhead(source()))
    assert next(items) == 1
    with pytest.raises(ValueError, match="page 2"):
        next(items)


def test_an_endless_source_is_not_read_to_its_end():
    taken = itertools.count()
    items = iter(LookAhead(map(lambda _: next(taken), itertools.count())))  # noqa: C417
    assert next(items) == 0
    items.close()
    for thread in [thread for thread in threading.enumerate() if thread.name == "look-ahead"]:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert next(taken) <= AHEAD + 2
