"""Many items into one catalog: each once, the failed ones as results, all of it listed and written down."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stac_cloudmask.attempts import attempt, failed
from stac_cloudmask.engines import Engine, InProcess, OnDask, open_engine
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.estimate import Estimator, shared_out
from stac_cloudmask.ledger import Ledger
from stac_cloudmask.masking import choose_models
from stac_cloudmask.pipeline import keep_models, preview_item
from stac_cloudmask.publish import Target, open_target
from stac_cloudmask.revision import revise
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.search import Failure

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.config import Settings
    from stac_cloudmask.results import Result
    from stac_cloudmask.stac.api import Patience

__all__ = ["Engine", "InProcess", "OnDask", "Publication", "attempt", "open_engine", "plan", "run"]

MODEL_FILES = (".json", ".onnx")


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where masks are published besides the catalog; see `stac_cloudmask.publish.publish`.

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

    With ``settings.temporal`` a second one comes at the end for each mask that other dates change.

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
    if settings.temporal:
        settings = replace(settings, votes=True)
    catalog = OutputCatalog(out)
    with catalog.workdir():  # fails now rather than with every item
        keep_models(choose_models(settings), catalog)
    failures: list[Failure] = []
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(catalog, settings))
        target = None if publication is None else stack.enter_context(_open(publication, catalog))
        stream = (engine or InProcess()).results(_found(items, failures), settings=settings, out=catalog.root)
        masked: dict[str, Result] = {}
        for result in _with_failures(stack.enter_context(closing(stream)), failures):
            if settings.temporal and result.output is not None:
                masked[result.output] = result
            yield _entered(result, ledger, catalog, None if settings.temporal else target)
        yield from _revised(masked, settings, ledger, catalog, target)


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
    return _sent(result, ledger, catalog, target)


def _sent(result: Result, ledger: Ledger, catalog: OutputCatalog, target: Target | None) -> Result:
    """The result once its item is published and recorded."""
    if result.output is not None and target is not None:
        result = _published(result, target.put(*catalog.ids(result.output)))
    ledger.record(result)
    return result


def _revised(
    masked: Mapping[str, Result], settings: Settings, ledger: Ledger, catalog: OutputCatalog, target: Target | None
) -> Iterator[Result]:
    """What the dates of one place make of each other's masks, which are published only then; nothing for the others."""
    final = dict(masked)
    for result in revise(catalog, masked, most=settings.temporal_dates) if masked else ():
        if result.output is not None:
            final[result.output] = result
        else:
            ledger.record(result)
            yield result
    for href, result in final.items():
        told = _sent(result, ledger, catalog, target)
        if told.status == "failed" or result is not masked[href]:
            yield told


def _published(result: Result, sent: Result) -> Result:
    if sent.status == "failed":
        return replace(result, status="failed", error=f"masked, but not published: {sent.error}", kind=sent.kind)
    return replace(result, published=sent.output)
