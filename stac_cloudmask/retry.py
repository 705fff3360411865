"""The retry policy of the package: which requests are repeated, after which pause, and for how long in total.

A request is repeated on one level only: pixels by GDAL (see ``RetryPolicy.repetitions``), everything else by
`retrying`, which wraps the single place where a request is sent. That place turns what went wrong into an error of this
package: one that is ``retryable`` is tried again, with the pause that the server asked for in ``retry_after``.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from operator import attrgetter
from typing import Final, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from stac_cloudmask.errors import StacCloudmaskError

Value = TypeVar("Value")

logger = logging.getLogger(__name__)

RETRY_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that may be temporary."""
ALOUD: Final = 5.0
"""Pauses of at least this many seconds are logged as warnings."""
GROWTH: Final = 2.25
"""Mean growth factor of GDAL's pauses."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Retry settings for a failing server.

    Attributes:
        seconds: Total time for one request and its repetitions; 0 sends it once.
        pause: Seconds before the second try, about doubled before each further one.
    """

    seconds: float = 45.0
    pause: float = 0.5

    @property
    def repetitions(self) -> int:
        """Number of growing pauses that fit into the time, for libraries that count attempts."""
        return math.floor(math.log(1 + self.seconds / self.pause * (GROWTH - 1), GROWTH))


DEFAULT_POLICY: Final = RetryPolicy()


def retrying(
    send: Callable[[], Value],
    *,
    policy: RetryPolicy = DEFAULT_POLICY,
    when: Callable[[StacCloudmaskError], bool] = attrgetter("retryable"),
) -> Value:
    """Return the result of ``send``, repeated while its errors are retryable (or ``when`` is True) and time is left.

    Raises:
        StacCloudmaskError: The last error of ``send``; it states if the server asked for a longer pause than is left.
    """
    again = Retrying(
        retry=retry_if_exception(lambda error: isinstance(error, StacCloudmaskError) and when(error)),
        wait=lambda state: _pause(state, policy),
        stop=stop_before_delay(policy.seconds),
        before_sleep=_log,
        reraise=True,
    )
    try:
        return again(send)
    except StacCloudmaskError as error:
        asked = error.retry_after or 0.0
        if when(error) and asked >= policy.seconds:
            error.args = (f"{error}; it asks to wait {asked:.0f} s, and retry_seconds is {policy.seconds:g}",)
        raise


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, stated as a number or a date; None if it does not ask."""
    stated = headers.get("retry-after", "").strip()
    if stated.isdecimal():
        return float(stated)
    try:
        until = parsedate_to_datetime(stated).replace(tzinfo=UTC)  # HTTP has no other time zone
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _pause(state: RetryCallState, policy: RetryPolicy) -> float:
    asked = getattr(_failure(state), "retry_after", None)
    growing = policy.pause * 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1)  # noqa: S311  (not a secret)
    return float(asked) if asked else growing


def _log(state: RetryCallState) -> None:
    level = logging.WARNING if state.upcoming_sleep >= ALOUD else logging.INFO
    logger.log(level, "%s; trying again in %.1f s", _failure(state), state.upcoming_sleep)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
