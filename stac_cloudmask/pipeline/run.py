"""Run over many items: results, listing, and the report of the run."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from stac_cloudmask.errors import StacCloudmaskError, UnsupportedItemError, WriteError, redact
from stac_cloudmask.pipeline.executors import Engine, InProcess, OnDask, open_engine
from stac_cloudmask.pipeline.item import keep_models, preview_item
from stac_cloudmask.pipeline.mask import OUTSIDE_GSD, choose_models, segmenter
from stac_cloudmask.pipeline.publish import LINK_EVERY, Publication, Target
from stac_cloudmask.pipeline.result import VERSION, failed
from stac_cloudmask.stac.catalog import REPORT, OutputCatalog
from stac_cloudmask.stac.collection import read_config
from stac_cloudmask.stac.search import place_of, version_of
from stac_cloudmask.stac.static import Failure

if TYPE_CHECKING:
    from types import TracebackType

    import pystac

    from stac_cloudmask.config import Settings
    from stac_cloudmask.pipeline.result import Result

AHEAD: Final = 1000
"""Maximum number of waiting items; each takes some 20 kB."""

T = TypeVar("T")


def read_ahead(source: Iterable[T], *, counted: Callable[[int], None]) -> Iterator[T]:
    """Yield the entries of ``source``, read by another thread up to `AHEAD` entries ahead to learn their number early.

    Args:
        source: Entries to read, for example a search.
        counted: Called with the number of entries once the source has ended.
    """
    waiting: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(AHEAD)

    def read() -> None:
        count = 0
        try:
            for entry in source:
                waiting.put((entry,))
                count += 1
            counted(count)
            waiting.put(None)
        except BaseException as error:  # noqa: BLE001  (raised again where the entries are taken)
            waiting.put(error)

    threading.Thread(target=read, daemon=True, name="read-ahead").start()
    while (entry := waiting.get()) is not None:
        if isinstance(entry, BaseException):
            raise entry
        yield entry[0]


logger = logging.getLogger(__name__)

LINK_SHARE: Final = 20
"""A batch is at least this fraction of the items listed already: because a collection is rewritten for each batch, this
keeps the total time proportional to the number of items."""


class Ledger:
    """A ledger that lists items in their collection and writes the results of a run to `REPORT` on exit."""

    def __init__(self, catalog: OutputCatalog, settings: Settings) -> None:
        self._catalog = catalog
        self._settings = settings
        self._started = datetime.now(UTC)
        self._results: dict[tuple[str, str | None], Result] = {}
        self._unlisted: list[str] = []
        self._collections: set[str] = set()
        self._changed: set[str] = set()
        self._listed = 0
        self._due = LINK_EVERY

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._link()
            self._catalog.mirror(self._changed)
        finally:
            self._catalog.write_json(REPORT, self._report(finished=kind is None))

    def enter(self, href: str) -> None:
        """List an item of the catalog: the first of a collection immediately, others with the next batch."""
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
        """Add a result to the report; it replaces an earlier one for the same item."""
        self._results[result.item_id, result.output] = result
        if result.status == "done" and result.output is not None:
            self._changed.add(self._catalog.ids(result.output)[0])

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


__all__ = ["OnDask", "Publication", "open_engine", "plan", "run"]

MODEL_FILES = (".json", ".onnx")


def run(
    items: Iterable[pystac.Item | Failure],
    *,
    settings: Settings,
    out: str,
    engine: Engine | None = None,
    publication: Publication | None = None,
) -> Generator[Result]:
    """Mask items into the catalog ``out``, and yield one result per item as it completes.

    A failed item is a result and never ends the run. The collection lists only complete items; it is updated in
    batches and at the end, even after an error. Close the iterator to stop early.

    Args:
        items: Items to mask; duplicates are masked once.
        settings: Settings of the masks.
        out: A directory or ``s3://...``.
        engine: Engine that masks the items; this process by default.
        publication: Target to which each item is also published as soon as it is done.

    Raises:
        ModelError: A model is unknown, or its files are not installed.
        WriteError: The catalog cannot be written.
        ConfigError: The publication's address or a header is not valid.
    """
    settings = _portable(settings)
    catalog = OutputCatalog(out, config=read_config(settings.collection_config or "{}"))
    with catalog.workdir():  # fail now rather than with every item
        keep_models(choose_models(settings), catalog)
    failures: list[Failure] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(catalog, settings))
        target = None if publication is None else stack.enter_context(publication.open(catalog))
        warned = False
        stream = (engine or InProcess()).results(_found(items, failures), settings=settings, out=catalog.root)
        for result in _with_failures(stack.enter_context(closing(stream)), failures):
            doubt = next((note for note in result.notes if note.startswith(OUTSIDE_GSD)), None)
            if doubt and not warned:
                logger.warning("item %s: %s", result.item_id, doubt)
                warned = True
            yield _entered(result, ledger, catalog, target)


def plan(items: Iterable[pystac.Item | Failure], *, settings: Settings, out: str) -> Generator[Result]:
    """Yield what `run` would do with each item, with an estimate of the effort; nothing is written.

    Args:
        items: Items to mask.
        settings: Settings of the masks.
        out: A directory or ``s3://...``.

    Raises:
        ModelError: A model is unknown, or its weights are broken or not installed.
    """
    catalog = OutputCatalog(out)
    for spec in choose_models(settings):
        segmenter(spec, settings).open()
    failures: list[Failure] = []

    def preview(item: pystac.Item) -> Result:
        try:
            return preview_item(item, settings=settings, catalog=catalog)
        except StacCloudmaskError as error:
            return failed(item.id, error)

    yield from _with_failures(map(preview, _found(items, failures)), failures)


def _portable(settings: Settings) -> Settings:
    """Return the settings with paths that are valid wherever a worker runs."""
    roots = settings.local_roots
    return replace(
        settings,
        cloud_model=tuple(_absolute(name) if name.endswith(MODEL_FILES) else name for name in settings.cloud_model),
        shadow_model=_absolute(name) if (name := settings.shadow_model).endswith(MODEL_FILES) else name,
        model_cache=None if settings.model_cache is None else _absolute(settings.model_cache),
        local_roots=None if roots is None else tuple(map(_absolute, roots)),
        collection_config=json.dumps(read_config(settings.collection_config)) if settings.collection_config else None,
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _found(items: Iterable[pystac.Item | Failure], failures: list[Failure]) -> Iterator[pystac.Item]:
    """Yield the items, each once; failures to find one go to ``failures``."""
    seen: dict[tuple[str, str], tuple[object, ...]] = {}
    for item in items:
        if isinstance(item, Failure):
            failures.append(item)
            continue
        version = version_of(item)
        first = seen.setdefault(place_of(item), version)
        if first is version:
            yield item
        elif first != version:
            error = UnsupportedItemError(
                f"item {item.id!r}: two products of this id: that of baseline {first[0]:05.2f} is masked; mask this, "
                f"of baseline {version[0]:05.2f}, into another catalog"
            )
            failures.append(Failure(ref=item.id, error=error))


def _with_failures(results: Iterable[Result], failures: list[Failure]) -> Iterator[Result]:
    """Yield the results, and the items that could not be found as soon as that is known."""
    for result in chain(results, [None]):
        while failures:
            failure = failures.pop(0)
            yield failed(failure.ref, failure.error)
        if result is not None:
            yield result


def _entered(result: Result, ledger: Ledger, catalog: OutputCatalog, target: Target | None) -> Result:
    """Return the result once its item is listed, published and recorded."""
    if result.output is not None:
        ledger.enter(result.output)
    if result.output is not None and target is not None:
        sent = target.put(*catalog.ids(result.output))
        result = replace(result, published=sent.output)
        if sent.status == "failed":
            error = f"masked, but not published: {sent.error}"
            result = replace(result, status="failed", error=error, kind=sent.kind, published=None)
    ledger.record(result)
    return result
