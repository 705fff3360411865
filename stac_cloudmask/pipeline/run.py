"""Run over many items, in this process or on Dask: results, listing, and the report of the run."""

from __future__ import annotations

import json
import logging
import multiprocessing
import queue
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import dask
import pystac
from dask.system import CPU_COUNT

from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.pipeline.estimate import preview_item
from stac_cloudmask.pipeline.item import attempt, keep_models
from stac_cloudmask.pipeline.mask import DOUBTS, models_of, segmenter
from stac_cloudmask.pipeline.publish import Listing, Publication, Target
from stac_cloudmask.pipeline.result import VERSION, Progress, Result, failed
from stac_cloudmask.stac.catalog import REPORT, OutputCatalog
from stac_cloudmask.stac.collection import read_config
from stac_cloudmask.stac.metadata import version_of
from stac_cloudmask.stac.parse import Failure, Found
from stac_cloudmask.stac.search import place_of

if TYPE_CHECKING:
    from distributed import Client, Future

AHEAD: Final = 1000
"""Maximum number of waiting items; each takes some 20 kB."""
MODEL_FILES: Final = (".json", ".onnx")
"""Endings of the names of models that are paths."""
IN_FLIGHT: Final = 2
"""Tasks known to the scheduler per thread of the cluster: one that runs and one that waits."""
LEAST_IN_FLIGHT: Final = 16
"""Minimum number of tasks known to the scheduler, which an adaptive cluster needs to scale up."""
SCHEDULER_SECONDS: Final = 30
"""Timeout for the first answer of a scheduler."""
IGNORE_CTRL_C: Final = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Code that workers of a local cluster run at their start: the client handles Ctrl-C and ends them."""
MAIN_GUARD: Final = (
    "Dask workers import the script that starts them, which must not start others: put the call of process under "
    '`if __name__ == "__main__":`'
)

T = TypeVar("T")

logger = logging.getLogger(__name__)


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


def run(
    items: Iterable[Found],
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
        keep_models(models_of(settings), catalog)
    failures: list[Failure] = []
    with ExitStack() as stack:
        listing = Listing(catalog)
        results = stack.enter_context(_reported(catalog, settings, listing))
        target = None if publication is None else stack.enter_context(publication.open(catalog))
        sources = _found(items, settings, failures)
        stream = stack.enter_context(closing((engine or in_process)(sources, settings, catalog.root)))
        logged: set[str] = set()
        for masked in _with_failures(stream, failures):
            for doubt in sorted({note for note in masked.notes if note.startswith(DOUBTS)} - logged):
                logger.warning("item %s: %s (said once; %s has the notes of all items)", masked.item_id, doubt, REPORT)
                logged.add(doubt)
            result = _entered(masked, catalog, listing, target)
            results[result.item_id, result.output] = result
            yield result


@contextmanager
def _reported(
    catalog: OutputCatalog, settings: Settings, listing: Listing
) -> Iterator[dict[tuple[str, str | None], Result]]:
    """Collect the results of a run by item; at the end, list the items and write the results to `REPORT`."""
    started, finished = datetime.now(UTC), False
    results: dict[tuple[str, str | None], Result] = {}
    try:
        yield results
        finished = True
    finally:
        try:
            listing.close()
            made = [result.output for result in results.values() if result.status == "done" and result.output]
            catalog.mirror({catalog.ids(href)[0] for href in made})
        finally:
            report = {
                "version": VERSION,
                "started": started.isoformat(timespec="seconds"),
                "ended": datetime.now(UTC).isoformat(timespec="seconds"),
                "finished": finished,
                "settings": settings.fingerprint_fields(),
                "counts": dict(Counter(result.status for result in results.values())),
                "items": [result.to_dict() for result in results.values()],
            }
            catalog.write_json(REPORT, report)


def _entered(result: Result, catalog: OutputCatalog, listing: Listing, target: Target | None) -> Result:
    """Return the result once its item is to be listed and is published."""
    if result.output is not None:
        listing.add(result.output)
    if result.output is None or target is None:
        return result
    sent = target.put(*catalog.ids(result.output))
    if sent.status == "failed":
        return replace(result, status="failed", error=f"masked, but not published: {sent.error}", kind=sent.kind)
    return replace(result, published=sent.output)


def plan(items: Iterable[Found], *, settings: Settings, out: str) -> Generator[Result]:
    """Yield what `run` would do with each item, with an estimate of the effort; nothing is written.

    Args:
        items: Items to mask.
        settings: Settings of the masks.
        out: A directory or ``s3://...``.

    Raises:
        ModelError: A model is unknown, or its weights are broken or not installed.
    """
    catalog = OutputCatalog(out)
    for spec in models_of(settings):
        segmenter(spec, settings).open()
    failures: list[Failure] = []
    preview = partial(preview_item, settings=settings, catalog=catalog)
    yield from _with_failures(map(preview, _found(items, settings, failures)), failures)


def _portable(settings: Settings) -> Settings:
    """Return the settings with paths that are valid wherever a worker runs."""
    roots = settings.local_roots
    return replace(
        settings,
        cloud_model=tuple(map(_model, settings.cloud_model)),
        shadow_model=_model(settings.shadow_model),
        model_cache=None if settings.model_cache is None else _absolute(settings.model_cache),
        local_roots=None if roots is None else tuple(map(_absolute, roots)),
        collection_config=json.dumps(read_config(settings.collection_config)) if settings.collection_config else None,
    )


def _model(name: str) -> str:
    return _absolute(name) if name.endswith(MODEL_FILES) else name


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _found(items: Iterable[Found], settings: Settings, failures: list[Failure]) -> Iterator[pystac.Item]:
    """Yield the items, each once; failures to find one go to ``failures``."""
    own = read_config(settings.collection_config or "{}").get("id")  # then all masks are in one collection
    seen: dict[tuple[str, str], tuple[object, ...]] = {}
    for item in items:
        if isinstance(item, Failure):
            failures.append(item)
            continue
        version = version_of(item)
        first = seen.setdefault((own or place_of(item)[0], item.id), version)
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


Engine = Callable[[Iterable[pystac.Item], Settings, str], Generator[Result]]
"""A function that masks items into the catalog at a path or URL and yields the results in any order."""


def in_process(
    items: Iterable[pystac.Item], settings: Settings, out: str, *, progress: Progress | None = None
) -> Generator[Result]:
    """Mask one item after another; each step uses all threads of this process."""
    for item in items:
        yield attempt(item, settings=settings, out=out, progress=progress)


def work(body: dict[str, Any], settings: Settings, out: str, sharing: int) -> Result:
    """Mask one item on a worker.

    Args:
        body: The item's JSON, unsigned.
        settings: Settings of the masks.
        out: The output catalog.
        sharing: Maximum number of tasks that share a host's CPUs at a time.
    """
    item = pystac.Item.from_dict(body, migrate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacCloudmaskWarning)  # the result has them as notes
        return attempt(item, settings=fitted(settings, sharing), out=out)


def fitted(settings: Settings, sharing: int) -> Settings:
    """Return settings with one task's share of this host's CPUs as threads, unless the user set a number."""
    return replace(settings, threads=settings.threads or max(1, CPU_COUNT // sharing))


def on_dask(
    items: Iterable[pystac.Item],
    settings: Settings,
    out: str,
    *,
    client: Client,
    task: Callable[[dict[str, Any], Settings, str, int], Result] = work,
) -> Generator[Result]:
    """Mask items on a Dask cluster, one task per item; only JSON is sent, never an array or a signed URL.

    Only a few tasks are submitted at a time, however many items there are. Submitted tasks are finished before an
    error of ``items`` itself is raised.
    """
    from distributed import as_completed  # noqa: PLC0415  (extra)

    source, errors = iter(items), list[StacCloudmaskError]()
    running: dict[Future[Result], str] = {}
    completed = as_completed(loop=client.loop)

    def submit() -> None:
        room, sharing = _room(client)
        try:
            for item in islice(source, max(room - len(running), 0)):
                body = item.to_dict(include_self_link=True, transform_hrefs=False)
                future = client.submit(task, body, settings, out, sharing, pure=False)
                running[future] = item.id
                completed.add(future)
        except StacCloudmaskError as error:
            errors.append(error)

    try:
        submit()
        for future in completed:
            yield _collected(future, running.pop(future))
            submit()
    finally:
        with suppress(Exception):  # if the cluster is gone, so are its tasks
            client.cancel(list(running))
    if errors:
        raise errors[0]


def _room(client: Client) -> tuple[int, int]:
    """Return the maximum numbers of tasks known to the scheduler, and of tasks running on one host at a time.

    Raises:
        ReadError: The cluster no longer answers.
    """
    try:
        threads = client.nthreads()
    except Exception as error:  # a cluster raises many kinds, its own and the network's
        raise ReadError(f"the Dask cluster is gone: {error}; run the same command again to finish") from error
    by_host: Counter[str] = Counter()
    for address, count in threads.items():
        by_host[address.rpartition(":")[0]] += count
    return max(LEAST_IN_FLIGHT, IN_FLIGHT * by_host.total()), max(by_host.values(), default=1)


def _collected(future: Future[Result], item_id: str) -> Result:
    """Return the result of a task; a task that died with its worker too often is a failed item."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  (whatever a cluster raises: lost workers, serialization, its own bugs)
        return failed(item_id, ReadError(f"item {item_id!r}: its task failed on the cluster: {error!r}; run again"))
    finally:
        future.release()


@contextmanager
def open_engine(
    *,
    client: Client | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Iterator[Engine]:
    """Open an engine: on ``client``, a local cluster of ``workers`` processes, that at ``scheduler``, or this process.

    Raises:
        ConfigError: Several are given, ``workers`` is less than 1, Dask's distributed scheduler is not installed, there
            is none at the address, or the workers of a local cluster cannot start.
    """
    if sum(one is not None for one in (client, workers, scheduler)) > 1:
        raise ConfigError("give one of --workers, --scheduler and client: a local cluster, or an existing one")
    if client is not None:
        yield partial(on_dask, client=client)
    elif workers is None and scheduler is None:
        yield partial(in_process, progress=progress)
    elif find_spec("distributed") is None:
        raise ConfigError("Dask workers need the extra: pip install 'stac-cloudmask[distributed]'")
    else:
        with local_client(workers or 0) if scheduler is None else _client_of(scheduler) as opened:
            yield partial(on_dask, client=opened)


def _client_of(scheduler: str) -> Client:
    from distributed import Client  # noqa: PLC0415  (extra)

    try:
        return Client(scheduler, timeout=SCHEDULER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler at {scheduler!r}: {error}") from error


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Open a local cluster of processes with one thread each, which is closed at the end.

    Raises:
        ConfigError: ``workers`` is less than 1, or they cannot start, because the calling script has no main guard.
    """
    from distributed import Client, LocalCluster  # noqa: PLC0415  (extra)

    if workers < 1:
        raise ConfigError(f"workers is at least 1, got {workers}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a worker that imports its script; the process that started it reports the reason
    try:
        with dask.config.set({"distributed.worker.profile.enabled": False}):  # it can make Python 3.11 wait for ever
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # a fixed port could be taken
                scheduler_kwargs={"dashboard": False},
                preload=IGNORE_CTRL_C,
                silence_logs=logging.CRITICAL,
            )
    except RuntimeError as error:
        raise ConfigError(MAIN_GUARD) from error
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client
