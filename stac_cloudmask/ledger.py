"""What a run has done so far: listed in the catalog as it goes, and written down at the end."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from stac_cloudmask.errors import WriteError
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.versions import VERSION

if TYPE_CHECKING:
    from types import TracebackType

    from stac_cloudmask.config import Settings
    from stac_cloudmask.results import Result
    from stac_cloudmask.stac.catalog import OutputCatalog

logger = logging.getLogger(__name__)

LINK_EVERY: Final = 25
"""Items after which the collection is brought up to date, so that a killed run leaves most of its work listed."""
LINK_SHARE: Final = 20
"""A batch has this part of what is listed already, if that is more: a collection is written whole for each batch, and
so the time for all of them stays in proportion to the items."""
REPORT: Final = "run.json"


class Ledger:
    """Lists items in their collection and keeps the results of a run, which it writes to `REPORT` on exit."""

    def __init__(self, catalog: OutputCatalog, settings: Settings) -> None:
        self._catalog = catalog
        self._settings = settings
        self._started = datetime.now(UTC)
        self._results: dict[tuple[str, str | None], Result] = {}
        self._unlisted: list[str] = []
        self._collections: set[str] = set()
        self._listed = 0
        self._due = LINK_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._link()
        finally:
            self._catalog.write_json(REPORT, self._report(finished=kind is None))

    def enter(self, href: str) -> None:
        """List an item of the catalog: the first of a collection at once, others with the next batch."""
        self._unlisted.append(href)
        collection_id = self._catalog.ids(href)[0]
        if collection_id in self._collections and len(self._unlisted) < self._due:
            return
        self._collections.add(collection_id)
        try:
            self._link()
        except WriteError as error:
            logger.warning("%d items are to be listed later: %s", len(self._unlisted), redact(str(error)))
            self._due = len(self._unlisted) + LINK_EVERY

    def record(self, result: Result) -> None:
        """Keep a result for the report; a later one for the same item takes its place."""
        self._results[result.item_id, result.output] = result

    def _link(self) -> None:
        self._catalog.link(self._unlisted)
        self._listed += len(self._unlisted)
        self._unlisted.clear()
        self._due = max(LINK_EVERY, self._listed // LINK_SHARE)

    def _report(self, *, finished: bool) -> dict[str, object]:
        return {
            "version": VERSION,
            "started": self._started.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": finished,
            "settings": self._settings.fingerprint_fields(),
            "counts": dict(Counter(result.status for result in self._results.values())),
            "items": [result.to_dict() for result in self._results.values()],
        }
