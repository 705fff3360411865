"""Who carries out many items: this process one by one, or Dask with one task per item."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Protocol

import pystac

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, StacCloudmaskWarning
from stac_cloudmask.models.session import usable_cpus
from stac_cloudmask.pipeline.item import attempt, failed
from stac_cloudmask.pipeline.mask import Progress, no_progress
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.stac.hrefs import redact

if TYPE_CHECKING:
    from distributed import Client, Future

    from stac_cloudmask.config import Settings

IN_FLIGHT: Final = 2
"""Tasks known to the scheduler per thread of the cluster: one that runs and one that waits."""
LEAST_IN_FLIGHT: Final = 16
"""Tasks known to it at least, so that a cluster that grows with its load sees some."""

ANY_PORT: Final = "127.0.0.1:0"
"""Where the scheduler of a cluster of our own tells its health; a fixed port could be taken."""
LEAN: Final[Mapping[str, object]] = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "5s",
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.diagnostics.computations.max-history": 1,
}
"""Dask's settings for a cluster of our own, whose scheduler shares the CPUs with its workers: by default stacks are
sampled every 10 ms, which with other watching was half of what a worker's event loop did, and logs grow long."""
PRELOAD: Final = "stac_cloudmask.pipeline.worker"
Task = Callable[[dict[str, Any], "Settings", str, Mapping[str, int]], Result]
"""What is done with an item on a worker, see `work`."""

CONNECT_SECONDS: Final = 30
"""How long a scheduler may take to answer at first."""

_threads: Final[dict[str, int]] = {}
"""Threads of one item by the address of this process as a worker; kept, as a session is opened for each number."""


class Engine(Protocol):
    """Carries out items; results come in any order."""

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """One result per item."""
        ...


class InProcess:
    """One item after the other; reading, inference and writing use all the threads of this process."""

    def __init__(self, progress: Progress = no_progress) -> None:
        self._progress = progress

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """One result per item, in order."""
        for item in items:
            yield attempt(item, settings=settings, out=out, progress=self._progress)


class OnDask:
    """One task per item on a Dask cluster; only JSON travels, never an array or a signed URL."""

    def __init__(self, client: Client, *, task: Task | None = None) -> None:
        self._client = client
        self._task = task or work
        self._running: dict[Future[Result], str] = {}

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """Results as they come; few tasks are known to the scheduler at a time, however many items there are.

        What was submitted is finished before an error of ``items`` itself is raised.
        """
        from distributed import as_completed  # noqa: PLC0415  (extra)

        source = _Source(items)
        completed = as_completed(loop=self._client.loop)
        try:
            completed.update(self._submit(source, settings, out))
            for future in completed:
                yield _collected(future, self._running.pop(future))
                completed.update(self._submit(source, settings, out))
            source.raise_error()
        finally:
            with suppress(Exception):  # where the cluster is gone, so are its tasks
                self._client.cancel(list(self._running))
            self._running.clear()

    def _submit(self, source: _Source, settings: Settings, out: str) -> list[Future[Result]]:
        """Hand over as many items as there is room for.

        Raises:
            ReadError: The cluster does not answer any more.
        """
        try:
            crowds = _crowds(self._client)
        except Exception as error:  # a cluster throws many kinds, its own and those of the network
            raise ReadError(f"the Dask cluster is gone: {error}; run the same command again to finish") from error
        room = max(LEAST_IN_FLIGHT, IN_FLIGHT * sum(crowds.values())) - len(self._running)
        futures = []
        for item in islice(source, max(room, 0)):
            body = item.to_dict(include_self_link=True, transform_hrefs=False)
            future = self._client.submit(self._task, body, settings, out, crowds, pure=False)
            self._running[future] = item.id
            futures.append(future)
        return futures


class _Source:
    """Items up to the first error, which is kept for later."""

    def __init__(self, items: Iterable[pystac.Item]) -> None:
        self._items = iter(items)
        self._error: StacCloudmaskError | None = None

    def __iter__(self) -> Iterator[pystac.Item]:
        return self

    def __next__(self) -> pystac.Item:
        if self._error is not None:
            raise StopIteration
        try:
            return next(self._items)
        except StacCloudmaskError as error:
            self._error = error
            raise StopIteration from None

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def work(body: dict[str, Any], settings: Settings, out: str, crowds: Mapping[str, int]) -> Result:
    """The task of one item.

    Args:
        body: The item's JSON, unsigned.
        settings: How; where they leave the threads open, the tasks of this host share its CPUs.
        out: The output catalog.
        crowds: How many tasks may run at a time, by host.
    """
    item = pystac.Item.from_dict(body, migrate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacCloudmaskWarning)  # the result has them as notes
        return attempt(item, settings=fitted(settings, crowds), out=out)


def fitted(settings: Settings, crowds: Mapping[str, int]) -> Settings:
    """Settings whose threads are the part of this worker's CPUs that one task has; the user's own number stays."""
    from distributed import get_worker  # noqa: PLC0415  (extra)

    address = get_worker().address
    share = _threads.setdefault(address, max(1, usable_cpus() // crowds.get(_host(address), 1)))
    return replace(settings, threads=settings.threads or share)


def _collected(future: Future[Result], item_id: str) -> Result:
    """The result of a task; a task that died with its worker too often is a failed item."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  (whatever a cluster throws: lost workers, serialisation, its own bugs)
        lost = ReadError(f"item {item_id!r}: its task failed on the cluster: {redact(repr(error))}; run again")
        return failed(item_id, lost)
    finally:
        future.release()


def _crowds(client: Client) -> Counter[str]:
    """Threads of all workers by the host that they are on."""
    crowds: Counter[str] = Counter()
    for address, threads in client.nthreads().items():
        crowds[_host(address)] += threads
    return crowds


def _host(address: str) -> str:
    """The host in ``tcp://HOST:PORT``."""
    return address.rpartition("://")[2].rpartition(":")[0]


@contextmanager
def open_engine(
    *, workers: int | None = None, scheduler: str | None = None, progress: Progress = no_progress
) -> Iterator[Engine]:
    """This process; or a local Dask cluster of ``workers`` processes; or the cluster at the address ``scheduler``.

    Raises:
        ConfigError: Both are given, Dask's distributed scheduler is not installed, or there is none at the address.
    """
    if workers is None and scheduler is None:
        yield InProcess(progress)
        return
    if workers is not None and scheduler is not None:
        raise ConfigError("give either --workers or --scheduler: a local cluster, or an existing one")
    if find_spec("distributed") is None:
        raise ConfigError("Dask workers need the extra: pip install 'stac-cloudmask[distributed]'")
    if workers is not None:
        with local_client(workers) as client:
            yield OnDask(client)
    elif scheduler is not None:
        with _client_of(scheduler) as client:
            yield OnDask(client)


def _client_of(scheduler: str) -> Client:
    from distributed import Client  # noqa: PLC0415  (extra)

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler at {scheduler!r}: {error}") from error


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """A client of a cluster of our own on this machine: processes of one thread each, gone at the end."""
    import dask  # noqa: PLC0415  (extra)
    from distributed import Client, LocalCluster  # noqa: PLC0415  (extra)

    with dask.config.set(LEAN):  # read as scheduler and workers are made; a user's own settings are back after it
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=ANY_PORT,
            scheduler_kwargs={"dashboard": False},
            preload=PRELOAD,
            silence_logs=logging.ERROR,
        )
    with cluster, Client(cluster, set_as_default=False) as client:
        yield client
