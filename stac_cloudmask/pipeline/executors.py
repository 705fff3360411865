"""Engines that mask many items: this process one by one, or Dask with one task per item."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pystac
from dask.system import CPU_COUNT

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, StacCloudmaskWarning, redact
from stac_cloudmask.pipeline.item import attempt
from stac_cloudmask.pipeline.mask import Progress, no_progress
from stac_cloudmask.pipeline.result import Result, failed

if TYPE_CHECKING:
    from distributed import Client, Future

    from stac_cloudmask.config import Settings

IN_FLIGHT: Final = 2
"""Tasks known to the scheduler per thread of the cluster: one that runs and one that waits."""
LEAST_IN_FLIGHT: Final = 16
"""Minimum number of tasks known to the scheduler, which an adaptive cluster needs to scale up."""
CONNECT_SECONDS: Final = 30
"""Timeout for the first answer of a scheduler."""
IGNORE_CTRL_C: Final = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Code that workers of a local cluster run at their start: the client handles Ctrl-C and ends them."""
MAIN_GUARD: Final = (
    "Dask workers import the script that starts them, which must not start others: put the call of process under "
    '`if __name__ == "__main__":`'
)


@dataclass(frozen=True)
class InProcess:
    """An engine that masks one item after another; each step uses all threads of this process."""

    progress: Progress = no_progress

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """Yield one result per item, in order."""
        for item in items:
            yield attempt(item, settings=settings, out=out, progress=self.progress)


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


@dataclass(frozen=True)
class OnDask:
    """An engine with one task per item on a Dask cluster; only JSON is sent, never an array or a signed URL."""

    client: Client
    task: Callable[[dict[str, Any], Settings, str, int], Result] = work

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """Yield results as they complete; only a few tasks are submitted at a time, however many items there are.

        Submitted tasks are finished before an error of ``items`` itself is raised.
        """
        from distributed import as_completed  # noqa: PLC0415  (extra)

        source, errors = iter(items), list[StacCloudmaskError]()
        running: dict[Future[Result], str] = {}
        completed = as_completed(loop=self.client.loop)

        def submit() -> None:
            room, sharing = self._room()
            try:
                for item in islice(source, max(room - len(running), 0)):
                    body = item.to_dict(include_self_link=True, transform_hrefs=False)
                    future = self.client.submit(self.task, body, settings, out, sharing, pure=False)
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
                self.client.cancel(list(running))
        if errors:
            raise errors[0]

    def _room(self) -> tuple[int, int]:
        """Return the maximum numbers of tasks known to the scheduler, and of tasks running on one host at a time.

        Raises:
            ReadError: The cluster no longer answers.
        """
        try:
            threads = self.client.nthreads()
        except Exception as error:  # a cluster raises many kinds, its own and the network's
            raise ReadError(f"the Dask cluster is gone: {error}; run the same command again to finish") from error
        by_host: Counter[str] = Counter()
        for address, count in threads.items():
            by_host[address.rpartition(":")[0]] += count
        return max(LEAST_IN_FLIGHT, IN_FLIGHT * by_host.total()), max(by_host.values(), default=1)


Engine = InProcess | OnDask
"""A function that masks items and yields results in any order."""


def _collected(future: Future[Result], item_id: str) -> Result:
    """Return the result of a task; a task that died with its worker too often is a failed item."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001  (whatever a cluster raises: lost workers, serialization, its own bugs)
        lost = ReadError(f"item {item_id!r}: its task failed on the cluster: {redact(repr(error))}; run again")
        return failed(item_id, lost)
    finally:
        future.release()


@contextmanager
def open_engine(
    *, workers: int | None = None, scheduler: str | None = None, progress: Progress = no_progress
) -> Iterator[Engine]:
    """Open an engine: this process, a local Dask cluster of ``workers`` processes, or the one at ``scheduler``.

    Raises:
        ConfigError: Both are given, ``workers`` is less than 1, Dask's distributed scheduler is not installed, there is
            none at the address, or the workers of a local cluster cannot start.
    """
    if workers is None and scheduler is None:
        yield InProcess(progress)
        return
    if workers is not None and scheduler is not None:
        raise ConfigError("give either --workers or --scheduler: a local cluster, or an existing one")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is at least 1, got {workers}")
    if find_spec("distributed") is None:
        raise ConfigError("Dask workers need the extra: pip install 'stac-cloudmask[distributed]'")
    with local_client(workers or 1) if scheduler is None else _client_of(scheduler) as client:
        yield OnDask(client)


def _client_of(scheduler: str) -> Client:
    from distributed import Client  # noqa: PLC0415  (extra)

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler at {scheduler!r}: {error}") from error


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Open a local cluster of processes with one thread each, which is closed at the end.

    Raises:
        ConfigError: The workers cannot start, because the calling script has no main guard.
    """
    from distributed import Client, LocalCluster  # noqa: PLC0415  (extra)

    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a worker that imports its script; the process that started it reports the reason
    try:
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
