"""Many items: results, listing, and the run's record."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from stac_cloudmask.errors import StacCloudmaskError, WriteError
from stac_cloudmask.pipeline.estimate import Estimator, shared_out
from stac_cloudmask.pipeline.executors import Engine, InProcess, OnDask, open_engine
from stac_cloudmask.pipeline.item import attempt, failed, keep_models, preview_item
from stac_cloudmask.pipeline.mask import choose_models
from stac_cloudmask.pipeline.publish import Target, open_target
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.search import Failure

if TYPE_CHECKING:
    from types import TracebackType

    import pystac

    from stac_cloudmask.config import Settings
    from stac_cloudmask.pipeline.result import Result
    from stac_cloudmask.stac.transactions import Patience

AHEAD: Final = 1000
"""Most items that wait; each has some 20 kB."""
PATIENCE: Final = 0.2
"""Seconds after which a producer that cannot go on looks whether anybody still wants it to."""

T = TypeVar("T")


class LookAhead(Generic[T]):
    """Gives what ``source`` gives, read by another thread as far ahead as `AHEAD`.

    Attributes:
        total: How many there are in all; None as long as that is not known.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self._source = source
        self._waiting: queue.Queue[tuple[T] | None] = queue.Queue(AHEAD)
        self._error: BaseException | None = None
        self._stopped = threading.Event()
        self.total: int | None = None

    def __iter__(self) -> Iterator[T]:
        """Start to read; an error of the source is raised once all before it was given."""
        threading.Thread(target=self._read, daemon=True, name="look-ahead").start()
        try:
            while (entry := self._waiting.get()) is not None:
                yield entry[0]
        finally:
            self._stopped.set()
        if self._error is not None:
            raise self._error

    def _read(self) -> None:
        count = 0
        try:
            for item in self._source:
                count += 1
                if not self._put((item,)):
                    return
        except BaseException as error:  # noqa: BLE001  (raised again where the items are taken)
            self._error = error
        else:
            self.total = count
        self._put(None)

    def _put(self, entry: tuple[T] | None) -> bool:
        """Whether anybody still wants it."""
        while not self._stopped.is_set():
            try:
                self._waiting.put(entry, timeout=PATIENCE)
            except queue.Full:
                continue
            return True
        return False


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


__all__ = ["Engine", "InProcess", "OnDask", "Publication", "attempt", "open_engine", "plan", "run"]

MODEL_FILES = (".json", ".onnx")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where masks are published besides the catalog; see `stac_cloudmask.pipeline.publish.publish`.

    Attributes:
        to: A STAC API, a directory or ``s3://...``.
        headers: Sent to the API with every request; shown nowhere.
        asset_root: Where the files of the catalog are served from.
        patience: How an API is asked again when it is busy.
    """

    to: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    asset_root: str | None = None
    patience: Patience | None = None


def run(
    items: Iterable[pystac.Item | Failure],
    *,
    settings: Settings,
    out: str,
    engine: Engine | None = None,
    publication: Publication | None = None,
) -> Generator[Result]:
    """Mask items into the catalog ``out``; one result per item, as they come.

    A failed item is a result, never the end of the run. The collection lists only items that are whole; it is brought
    up to date in batches and at the end, whatever happens. Close the iterator to stop early.

    Args:
        items: What to mask; an item that comes twice is done once.
        settings: How.
        out: A directory or ``s3://...``.
        engine: Who carries it out; this process by default.
        publication: Where to publish each item besides, as soon as it is done.

    Raises:
        ModelError: A model is not known, or its own files are not here.
        WriteError: The catalog cannot be written.
        ConfigError: The publication's address or a header cannot work.
    """
    settings = _portable(settings)
    catalog = OutputCatalog(out)
    with catalog.workdir():  # fails now rather than with every item
        keep_models(choose_models(settings), catalog)
    failures: list[Failure] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(catalog, settings))
        target = None if publication is None else stack.enter_context(_open(publication, catalog))
        stream = (engine or InProcess()).results(_found(items, failures), settings=settings, out=catalog.root)
        for result in _with_failures(stack.enter_context(closing(stream)), failures):
            yield _entered(result, ledger, catalog, target)


def plan(
    items: Iterable[pystac.Item | Failure], *, settings: Settings, out: str, workers: int | None = None
) -> Generator[Result]:
    """What `run` would do, item by item, and what it would cost; writes nothing.

    Args:
        items: What to mask.
        settings: How.
        out: A directory or ``s3://...``.
        workers: Processes that would share this machine.

    Raises:
        ModelError: A model is not known.
    """
    estimator = Estimator(choose_models(settings), shared_out(settings, workers))
    catalog = OutputCatalog(out)
    failures: list[Failure] = []
    previews = (_preview(item, estimator, catalog) for item in _found(items, failures))
    yield from _with_failures(previews, failures)


def _preview(item: pystac.Item, estimator: Estimator, catalog: OutputCatalog) -> Result:
    try:
        return preview_item(item, estimator=estimator, catalog=catalog)
    except StacCloudmaskError as error:
        return failed(item.id, error)


def _portable(settings: Settings) -> Settings:
    """The settings with paths that hold wherever a worker runs."""
    roots = settings.local_roots
    return replace(
        settings,
        cloud_model=tuple(_absolute(name) if name.endswith(MODEL_FILES) else name for name in settings.cloud_model),
        shadow_model=_absolute(name) if (name := settings.shadow_model).endswith(MODEL_FILES) else name,
        model_cache=None if settings.model_cache is None else _absolute(settings.model_cache),
        local_roots=None if roots is None else tuple(map(_absolute, roots)),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _open(publication: Publication, catalog: OutputCatalog) -> AbstractContextManager[Target]:
    return open_target(
        catalog,
        to=publication.to,
        headers=publication.headers,
        asset_root=publication.asset_root,
        patience=publication.patience,
    )


def _found(items: Iterable[pystac.Item | Failure], failures: list[Failure]) -> Iterator[pystac.Item]:
    """The items, each once; what could not be found goes to ``failures``."""
    seen: set[tuple[str | None, str]] = set()
    for item in items:
        if isinstance(item, Failure):
            failures.append(item)
        elif (item.collection_id, item.id) not in seen:
            seen.add((item.collection_id, item.id))
            yield item


def _with_failures(results: Iterable[Result], failures: list[Failure]) -> Iterator[Result]:
    """The results, and what could not be found as soon as that is known."""
    for result in results:
        yield from _drained(failures)
        yield result
    yield from _drained(failures)


def _drained(failures: list[Failure]) -> Iterator[Result]:
    while failures:
        failure = failures.pop(0)
        yield failed(failure.ref, failure.error)


def _entered(result: Result, ledger: Ledger, catalog: OutputCatalog, target: Target | None) -> Result:
    """The result once its item is listed, published and recorded."""
    if result.output is not None:
        ledger.enter(result.output)
        if target is not None:
            result = _published(result, target.put(*catalog.ids(result.output)))
    ledger.record(result)
    return result


def _published(result: Result, sent: Result) -> Result:
    if sent.status == "failed":
        return replace(result, status="failed", error=f"masked, but not published: {sent.error}", kind=sent.kind)
    return replace(result, published=sent.output)
