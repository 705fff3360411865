"""Who carries out many items: this process one by one, or Dask with one task per item."""

from __future__ import annotations

import logging
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import pystac

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, StacCloudmaskWarning, WriteError
from stac_cloudmask.masking import Progress, no_progress
from stac_cloudmask.models.cpus import usable_cpus
from stac_cloudmask.pipeline import process_item
from stac_cloudmask.results import Result
from stac_cloudmask.stac.hrefs import is_remote, redact

if TYPE_CHECKING:
    from distributed import Client, Future

    from stac_cloudmask.config import Settings

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 3
"""How often an item is tried when the infrastructure fails."""
BACKOFF: Final = 2.0
"""Seconds before the second attempt; doubled before each further one."""
IN_FLIGHT: Final = 2
"""Tasks known to the scheduler per thread of the cluster: one that runs and one that waits."""
LEAST_IN_FLIGHT: Final = 16
"""Tasks known to it at least, so that a cluster that grows with its load sees some."""

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

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: dict[Future[Result], str] = {}

    def results(self, items: Iterable[pystac.Item], *, settings: Settings, out: str) -> Generator[Result]:
        """Results as they come; few tasks are known to the scheduler at a time, however many items there are.

        What was submitted is finished before an error of ``items`` itself is raised.
        """
        from distributed import as_completed  # noqa: PLC0415  (extra)

        source = _Source(items)
        completed = as_completed()
        try:
            completed.update(self._submit(source, settings, out))
            for future in completed:
                yield _collected(future, self._running.pop(future))
                completed.update(self._submit(source, settings, out))
            source.raise_error()
        finally:
            self._client.cancel(list(self._running))
            self._running.clear()

    def _submit(self, source: _Source, settings: Settings, out: str) -> list[Future[Result]]:
        """Hand over as many items as there is room for."""
        crowds = _crowds(self._client)
        room = max(LEAST_IN_FLIGHT, IN_FLIGHT * sum(crowds.values())) - len(self._running)
        futures = []
        for item in islice(source, max(room, 0)):
            body = item.to_dict(include_self_link=True, transform_hrefs=False)
            future = self._client.submit(work, body, settings, out, crowds, pure=False)
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
    from distributed import get_worker  # noqa: PLC0415  (extra)

    address = get_worker().address
    share = _threads.setdefault(address, max(1, usable_cpus() // crowds.get(_host(address), 1)))
    item = pystac.Item.from_dict(body, migrate=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StacCloudmaskWarning)  # the result has them as notes
        return attempt(item, settings=replace(settings, threads=settings.threads or share), out=out)


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
    try:
        from distributed import Client, LocalCluster  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ConfigError("Dask workers need the extra: pip install 'stac-cloudmask[distributed]'") from error
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise ConfigError(f"no Dask scheduler at {scheduler!r}: {error}") from error
        with client:
            yield OnDask(client)
        return
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield OnDask(client)
