"""What masks would cost, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stac_cloudmask.results import Estimate, Result


def in_words(estimate: Estimate) -> str:
    """One mask, in a line."""
    times = estimate.computed / estimate.pixels
    return "  ".join(
        (
            f"{estimate.pixels / 1e6:.1f} Mpx",
            f"{_size(estimate.bytes)} to read",
            f"{estimate.windows} windows (computed {times:.2f} times)",
            f"about {_time(estimate.seconds)}",
            f"{_size(estimate.memory)} of memory",
        )
    )


def of_all(results: Sequence[Result], *, workers: int) -> str | None:
    """All masks of a dry run, in a line; None where there are none to make."""
    planned = [result.estimate for result in results if result.estimate is not None]
    if not planned:
        return None
    sizes = [estimate.bytes for estimate in planned]
    known = sum(size for size in sizes if size is not None)
    unknown = sizes.count(None)
    busy = min(workers, len(planned))
    seconds = planned[0].start + max(
        sum(estimate.seconds for estimate in planned) / busy, *(estimate.seconds for estimate in planned)
    )
    bytes_of_all = _size(known) + (f" and {unknown} items of unknown size" if unknown else "")
    each = f" with {workers} workers, each up to" if workers > 1 else ", up to"
    return (
        f"in all: {len(planned)} to make, {sum(estimate.pixels for estimate in planned) / 1e6:.1f} Mpx, {bytes_of_all} "
        f"to read, about {_time(seconds)}{each} {_size(max(estimate.memory for estimate in planned))} of memory"
    )


def _size(count: int | None) -> str:
    if count is None:
        return "unknown bytes"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004  (the unit)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
