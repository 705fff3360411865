"""One item until it is done or will not be: what is tried again, and what an error becomes."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stac_cloudmask.errors import StacCloudmaskError, WriteError
from stac_cloudmask.masking import Progress, no_progress
from stac_cloudmask.pipeline import process_item
from stac_cloudmask.results import Result
from stac_cloudmask.stac.hrefs import is_remote, redact

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.config import Settings

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""How often an item is tried when the infrastructure fails."""
BACKOFF: Final = 2.0
"""Seconds before the second attempt; doubled before each further one."""


def attempt(item: pystac.Item, *, settings: Settings, out: str, progress: Progress = no_progress) -> Result:
    """Process an item; failures of the infrastructure are tried again, bad input is not. Nothing is raised."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return replace(process_item(item, settings=settings, out=out, progress=progress), attempts=number)
        except StacCloudmaskError as error:
            if not _may_pass(error, out) or number == ATTEMPTS:
                return failed(item.id, error, attempts=number)
            logger.warning("item %r: attempt %d failed, trying again: %s", item.id, number, redact(str(error)))
        except Exception as error:  # one item's trouble must not be the end of a run
            logger.debug("item %r", item.id, exc_info=True)
            return _unexpected(item.id, error)
        time.sleep(BACKOFF * 2 ** (number - 1))
    raise AssertionError


def failed(item_id: str, error: StacCloudmaskError, *, attempts: int = 1) -> Result:
    """The record of an item that could not be masked; names the item whatever the error says."""
    text = redact(str(error))
    return Result(
        item_id=item_id,
        status="failed",
        error=text if item_id in text else f"item {item_id!r}: {text}",
        kind="infrastructure" if error.retryable else "input",
        attempts=attempts,
    )


def _may_pass(error: StacCloudmaskError, out: str) -> bool:
    """Whether it is worth trying again at once; a disk that is full or closed stays so."""
    return error.retryable and (is_remote(out) or not isinstance(error, WriteError))


def _unexpected(item_id: str, error: Exception) -> Result:
    place = traceback.extract_tb(error.__traceback__)[-1]
    told = f"unexpected {type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {redact(str(error))}"
    return Result(
        item_id=item_id, status="failed", error=f"item {item_id!r}: {told}; please report it", kind="unexpected"
    )
