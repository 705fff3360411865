"""Many items: here one by one, or on Dask with one task per item."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import pystac

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError
from stac_cloudmask.masking import Progress, choose_models, no_progress
from stac_cloudmask.pipeline import preview_item, process_item
from stac_cloudmask.results import Kind, Result
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.search import Failure

if TYPE_CHECKING:
    from distributed import Client, Future

    from stac_cloudmask.config import Settings

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""How often an item is tried when the infrastructure fails."""
BACKOFF: Final = 2.0
"""Seconds before the second attempt; doubled before each further one."""
LINK_EVERY: Final = 25
"""Items after which the collection is brought up to date, so that a killed run leaves most of its work listed."""
REPORT: Final = "run.json"
IN_FLIGHT: Final = 2
"""Tasks submitted per thread of the cluster: one that runs and one that waits, however many items there are."""


class Engine(Protocol):
    """Carries out items; results come in any order."""

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Iterator[Result]:
        """One result per item."""
        ...


class InProcess:
    """One item after the other; reading, inference and writing use all the threads of this process."""

    def __init__(self, progress: Progress = no_progress) -> None:
        self._progress = progress

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Iterator[Result]:
        """One result per item, in order."""
        for item in items:
            yield attempt(item, settings=settings, out=out, progress=self._progress)


class OnDask:
    """One task per item on a Dask cluster; only JSON travels, never an array or a signed URL."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Iterator[Result]:
        """Results as they come; at most ``IN_FLIGHT`` tasks per thread are known to the scheduler."""
        from distributed import as_completed  # noqa: PLC0415  (extra)

        window = IN_FLIGHT * max(1, sum(self._client.nthreads().values()))
        queue = iter(items)
        ids: dict[Future[Result], str] = {}
        running = as_completed()

        def submit(count: int) -> None:
            for item in islice(queue, count):
                body = item.to_dict(include_self_link=True, transform_hrefs=False)
                future = self._client.submit(work, body, settings, out, pure=False)
                ids[future] = item.id
                running.add(future)

        submit(window)
        for future in running:
            yield _collected(future, ids.pop(future))
            submit(1)


def work(body: dict[str, Any], settings: Settings, out: str) -> Result:
    """The task of one item; ``body`` is the item's JSON, unsigned."""
    return attempt(pystac.Item.from_dict(body, migrate=False), settings=settings, out=out)


def attempt(item: pystac.Item, *, settings: Settings, out: str, progress: Progress = no_progress) -> Result:
    """Process an item; failures of the infrastructure are tried again, bad input is not."""
    for number in range(1, ATTEMPTS + 1):
        try:
            return replace(process_item(item, settings=settings, out=out, progress=progress), attempts=number)
        except StacCloudmaskError as error:
            if not error.retryable or number == ATTEMPTS:
                return _failed(item.id, error, attempts=number)
            logger.warning("item %r: attempt %d failed, trying again: %s", item.id, number, redact(str(error)))
        time.sleep(BACKOFF * 2 ** (number - 1))
    raise AssertionError


def run(
    items: Iterable[pystac.Item | Failure], *, settings: Settings, out: str, engine: Engine | None = None
) -> Iterator[Result]:
    """Mask items into the catalog ``out``; one result per item, as they come.

    A failed item is a result, never the end of the run. The collection lists only items that are whole; it is
    brought up to date every ``LINK_EVERY`` items and at the end, whatever happens.
    """
    choose_models(settings)
    failures: list[Failure] = []
    stream = (engine or InProcess()).results(_found(items, failures), settings=settings, out=out)
    with _Ledger(OutputCatalog(out)) as ledger:
        for result in stream:
            yield ledger.note(result)
            while failures:
                yield ledger.note(_unfound(failures.pop(0)))
        while failures:
            yield ledger.note(_unfound(failures.pop(0)))


def plan(items: Iterable[pystac.Item | Failure], *, settings: Settings, out: str) -> Iterator[Result]:
    """What `run` would do, item by item; reads metadata only and writes nothing."""
    models = choose_models(settings)
    catalog = OutputCatalog(out)
    for item in items:
        if isinstance(item, Failure):
            yield _unfound(item)
            continue
        try:
            yield preview_item(item, settings=settings, models=models, catalog=catalog)
        except StacCloudmaskError as error:
            yield _failed(item.id, error, attempts=1)


class _Ledger:
    """Keeps the collection and the run's report up to date."""

    def __init__(self, catalog: OutputCatalog) -> None:
        self._catalog = catalog
        self._results: list[Result] = []
        self._unlisted: list[str] = []

    def __enter__(self) -> _Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._list()
        self._catalog.write_json(REPORT, {"items": [result.to_dict() for result in self._results]})

    def note(self, result: Result) -> Result:
        """Keep a result; the same one is returned."""
        self._results.append(result)
        if result.output is not None:
            self._unlisted.append(result.output)
        if len(self._unlisted) >= LINK_EVERY:
            self._list()
        return result

    def _list(self) -> None:
        self._catalog.link(self._unlisted)
        self._unlisted.clear()


def _found(items: Iterable[pystac.Item | Failure], failures: list[Failure]) -> Iterator[pystac.Item]:
    """The items, each once; what could not be found goes to ``failures``."""
    seen: set[tuple[str | None, str]] = set()
    for item in items:
        if isinstance(item, Failure):
            failures.append(item)
        elif (item.collection_id, item.id) not in seen:
            seen.add((item.collection_id, item.id))
            yield item


def _collected(future: Future[Result], item_id: str) -> Result:
    """The result of a task; a task that died with its worker too often is a failed item."""
    try:
        result = future.result()
    except Exception as error:  # noqa: BLE001  (whatever a cluster throws: lost workers, serialisation, its own bugs)
        lost = ReadError(f"item {item_id!r}: its task failed on the cluster: {redact(repr(error))}; run again")
        return _failed(item_id, lost, attempts=1)
    finally:
        future.release()
    return result


def _failed(item_id: str, error: StacCloudmaskError, *, attempts: int) -> Result:
    kind: Kind = "infrastructure" if error.retryable else "input"
    return Result(item_id=item_id, status="failed", error=redact(str(error)), kind=kind, attempts=attempts)


def _unfound(failure: Failure) -> Result:
    return _failed(failure.ref, failure.error, attempts=1)


@contextmanager
def open_engine(
    *, workers: int | None = None, scheduler: str | None = None, progress: Progress = no_progress
) -> Iterator[Engine]:
    """This process; or a local Dask cluster of ``workers`` processes; or the cluster at the address ``scheduler``.

    Raises:
        ConfigError: Both are given, or Dask's distributed scheduler is not installed.
    """
    if workers is None and scheduler is None:
        yield InProcess(progress)
        return
    if workers is not None and scheduler is not None:
        raise ConfigError("give either --workers or --scheduler: a local cluster, or an existing one")
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ConfigError("Dask workers need the extra: pip install 'stac-cloudmask[distributed]'") from error
    if scheduler is not None:
        with Client(scheduler) as client:
            yield OnDask(client)
        return
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield OnDask(client)
