from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic

import pytest

from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.retry import RetryPolicy, retry_after, retrying

QUICK = RetryPolicy(seconds=0.5, pause=0.01)


class Server:
    """Fails some times, then answers with how often it was asked."""

    def __init__(self, *failures):
        self.failures, self.asked = list(failures), 0

    def __call__(self):
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return self.asked


def asking_to_wait(seconds):
    error = ReadError("busy")
    error.retry_after = seconds
    return error


def test_what_may_pass_is_tried_again():
    assert retrying(Server(ReadError("busy"), ReadError("busy")), policy=QUICK) == 3


def test_a_server_that_asks_to_wait_no_time_is_not_asked_without_end():
    server = Server(*(asking_to_wait(0.0) for _ in range(5000)))
    with pytest.raises(ReadError, match="busy"):
        retrying(server, policy=QUICK)
    assert 3 < server.asked < 100


def test_bad_input_is_tried_once():
    server = Server(UnsupportedItemError("no"))
    with pytest.raises(UnsupportedItemError):
        retrying(server, policy=QUICK)
    assert server.asked == 1


def test_errors_of_others_are_tried_once():
    server = Server(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        retrying(server, policy=QUICK)
    assert server.asked == 1


def test_all_tries_together_end_in_time_with_the_last_error():
    server = Server(*(ReadError(str(number)) for number in range(100)))
    start = monotonic()
    with pytest.raises(ReadError) as caught:
        retrying(server, policy=QUICK)
    assert monotonic() - start < 10
    assert str(caught.value) == str(server.asked - 1)
    assert server.asked > 3


def test_no_time_is_one_try():
    server = Server(ReadError("busy"))
    with pytest.raises(ReadError):
        retrying(server, policy=RetryPolicy(seconds=0))
    assert server.asked == 1


def test_a_pause_that_is_asked_for_is_kept():
    start = monotonic()
    assert retrying(Server(asking_to_wait(0.3)), policy=QUICK) == 2
    assert monotonic() - start >= 0.3


def test_a_pause_longer_than_the_time_ends_at_once_and_is_said():
    start = monotonic()
    with pytest.raises(ReadError, match=r"asks to wait 1800 s, and retry_seconds is 0\.5"):
        retrying(Server(asking_to_wait(1800.0)), policy=QUICK)
    assert monotonic() - start < 10


def test_a_long_pause_is_logged_as_a_warning(caplog, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    retrying(Server(asking_to_wait(6.0)), policy=RetryPolicy(seconds=10))
    assert [(record.levelno, "again in 6.0 s" in record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, True)
    ]


@pytest.mark.parametrize("stated", ["", "soon", "-3", "1e3"])
def test_a_header_that_states_no_time_asks_for_none(stated):
    assert retry_after({"retry-after": stated}) is None


def test_a_pause_is_stated_in_seconds_or_as_a_date():
    assert retry_after({"retry-after": "120"}) == 120
    until = datetime.now(UTC) + timedelta(minutes=30)
    assert retry_after({"retry-after": format_datetime(until, usegmt=True)}) == pytest.approx(1800, abs=5)
    assert retry_after({"retry-after": "Fri, 01 Jan 2021 00:00:00 GMT"}) == 0


@pytest.mark.parametrize(("seconds", "repetitions"), [(0, 0), (1, 1), (45, 5), (120, 7)])
def test_gdal_repeats_as_often_as_its_growing_pauses_fit(seconds, repetitions):
    assert RetryPolicy(seconds=seconds).repetitions == repetitions
