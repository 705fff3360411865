"""The command `process`: its options, cost estimate and summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import typer

from stac_cloudmask.cli import console
from stac_cloudmask.cli.options import CATALOG_HEADERS, SearchOptions, headers, source_roots
from stac_cloudmask.config import FAST, Settings, Versions
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.progress import terminal

if TYPE_CHECKING:
    import pystac

    from stac_cloudmask.stac.parse import Failure
    from stac_cloudmask.stac.search import Query


def process(
    items: tuple[str, ...] = (),
    *,
    out: str,
    search: SearchOptions,
    clip: bool = False,
    versions: Versions = "newest",
    settings: Settings,
    fast: bool = False,
    publish: str | None = None,
    header: tuple[str, ...] = (),
    asset_root: str | None = None,
    source_root: tuple[str, ...] = (),
    dry_run: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    json: bool = False,
) -> None:
    """Mask items and write them as a STAC catalog; masks that are up to date are kept.

    Example: `stac-cloudmask process S2A_33TWL_20230818_0_L2A --catalog https://earth-search.aws.element84.com/v1
    --out masks/`

    Args:
        items: Item ids (with --catalog), item URLs or JSON paths.
        out: Output catalog.
        search: The search for items if none are named.
        clip: Mask only the area of --bbox or --intersects.
        versions: If several products share an id: the newest, or all under their own ids.
        settings: Settings of the masks.
        fast: Use the small model `fast`: several times faster, less accurate on snow and haze.
        publish: Also publish each item as soon as it is done.
        header: HTTP header for the API; repeatable, or one per line in $CLOUDMASK_HEADERS.
        asset_root: URL at which the files of the catalog are served.
        source_root: URL at which local source files are served; repeatable.
        dry_run: Only report what would be done: pixels, bytes, windows.
        workers: Number of processes of a local Dask cluster.
        scheduler: Address of an existing Dask cluster.
        json: Print JSON lines.
    """
    from stac_cloudmask.pipeline import run  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.pipeline.publish import Publication  # noqa: PLC0415
    from stac_cloudmask.stac.search import Query  # noqa: PLC0415

    query = Query(**search.wanted)
    if items:
        _refuse_filters(query, clip=clip)
    settings = _chosen(settings, query if clip else None, fast=fast)
    sent, roots = headers(header), source_roots(source_root)
    target = Publication(to=publish, headers=sent, asset_root=asset_root, source_roots=roots) if publish else None
    with console.stoppable(), terminal(console.stderr, quiet=json) as board, ExitStack() as stack:
        ahead = run.read_ahead(_items(items, search, query, settings, versions), counted=board.expect)
        if not (json or dry_run or clip or workers or scheduler):
            ahead = _advised(ahead, settings)
        if dry_run:
            stream = run.plan(ahead, settings=settings, out=out)
        else:
            engine = stack.enter_context(run.open_engine(workers=workers, scheduler=scheduler, progress=board.stage))
            stream = run.run(ahead, settings=settings, out=out, engine=engine, publication=target)
        counted = board.count(stack.enter_context(closing(stream)))
        results = [console.put_result(result, json=json) for result in counted]
    if not (results or items):
        raise StacCloudmaskError(f"no items found: {query.hint()}")
    if not json:
        console.sum_up(results)
    if board.counts["failed"]:
        raise typer.Exit(1)


def _advised(items: Iterator[pystac.Item | Failure], settings: Settings) -> Iterator[pystac.Item | Failure]:
    """Yield the same items, after a note on faster settings if the items are much work."""
    from stac_cloudmask.pipeline.estimate import advice  # noqa: PLC0415  (keeps --help fast)

    seen, faster = advice(items, settings)
    if faster:
        console.note(faster)
    return chain(seen, items)


def _refuse_filters(query: Query, *, clip: bool) -> None:
    """Reject search options if items are named, on which they have no effect."""
    if query.area is not None and not clip:
        raise ConfigError("--bbox and --intersects choose among items of a search; to mask that part only, add --clip")
    if replace(query, collection=(), bbox=None, intersects=None) != type(query)(collection=()):
        raise ConfigError("items are named, so search options have no effect; leave out one or the other")


def _chosen(settings: Settings, clipped: Query | None, *, fast: bool) -> Settings:
    """Return the settings with ``--fast`` and ``--clip`` applied."""
    from stac_cloudmask.pipeline.mask import area_of  # noqa: PLC0415  (keeps --help fast)

    if fast and (settings.cloud_model, settings.shadow_model) != (Settings.cloud_model, Settings.shadow_model):
        raise ConfigError("--fast names both models; leave out --cloud-model and --shadow-model")
    if fast:
        settings = replace(settings, cloud_model=(FAST,), shadow_model=FAST)
    if clipped is None:
        return settings
    if clipped.area is None:
        raise ConfigError("--clip needs the area: --bbox or --intersects")
    return replace(settings, area=area_of(geometry=clipped.area))


def _items(
    refs: tuple[str, ...], search: SearchOptions, query: Query, settings: Settings, versions: Versions
) -> Iterator[pystac.Item | Failure]:
    """Yield the named items or, if none are named, those that the search finds."""
    from stac_cloudmask.pipeline.mask import connection_of  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.search import find, load_items, without_masks  # noqa: PLC0415

    catalog, connection = search.catalog, connection_of(settings, headers(search.catalog_header, CATALOG_HEADERS))
    if refs:
        collection = query.collections
        return load_items(refs, catalog=catalog, collection=collection, connection=connection, versions=versions)
    if catalog is None:
        raise ConfigError("name items (ids with --catalog, URLs or JSON paths), or search with --catalog")
    return without_masks(find(catalog, query, connection=connection))
