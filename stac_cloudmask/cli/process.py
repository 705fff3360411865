"""`stac-cloudmask process`: options in, results out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final, NamedTuple

import typer

from stac_cloudmask.cli import chosen, console, costs, options
from stac_cloudmask.cli.board import Board, counted
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ConfigError

if TYPE_CHECKING:
    from collections import Counter

    import pystac

    from stac_cloudmask.results import Result
    from stac_cloudmask.stac.search import Failure

LONGEST_TABLE: Final = 100
"""Items that one can still take in at a glance."""


def process(
    items: chosen.Items = None,
    *,
    out: chosen.Out,
    catalog: options.Catalog = None,
    collection: options.Collection = None,
    bbox: options.Bbox = None,
    datetime: options.Datetime = None,
    max_cloud_cover: options.MaxCloudCover = None,
    max_items: options.MaxItems = None,
    cloud_model: chosen.CloudModel = list(Settings.cloud_model),  # noqa: B006  (typer copies it)
    shadow_model: chosen.ShadowModel = Settings.shadow_model,
    cloud_thr: chosen.Threshold = Settings.cloud_thr,
    shadow_thr: chosen.Threshold = Settings.shadow_thr,
    merge: chosen.Policy = Settings.merge,
    buffer: chosen.Buffer = Settings.buffer,
    min_area: chosen.MinArea = Settings.min_area,
    hole_area: chosen.HoleArea = Settings.hole_area,
    in_memory: chosen.InMemory = Settings.in_memory,
    loader: chosen.LoaderName = Settings.loader,
    resolution: chosen.Resolution = Settings.resolution,
    boa_offset: chosen.Offset = Settings.boa_offset,
    missing_scl: chosen.Missing = Settings.missing_scl,
    probabilities: chosen.Probabilities = Settings.probabilities,
    votes: chosen.Votes = Settings.votes,
    mask_only: chosen.MaskOnly = Settings.mask_only,
    overwrite: chosen.Overwrite = Settings.overwrite,
    temporal: chosen.Temporal = Settings.temporal,
    temporal_dates: chosen.TemporalDates = Settings.temporal_dates,
    threads: chosen.Threads = Settings.threads,
    provider: chosen.Runtime = Settings.provider,
    model_cache: options.ModelCache = None,
    allow_host: options.AllowHosts = None,
    allow_folder: options.AllowFolders = None,
    publish: chosen.Publish = None,
    header: options.Headers = None,
    asset_root: options.AssetRoot = None,
    dry_run: chosen.DryRun = False,
    workers: chosen.Workers = None,
    scheduler: chosen.Scheduler = None,
    json: options.Json = False,
) -> None:
    """Mask items and write them as a STAC catalog: by id, URL or path, or all that a search finds.

    Run again to finish or repair: what is up to date is left alone.

    Example: `stac-cloudmask process S2A_33TWL_20230818_0_L2A --catalog https://earth-search.aws.element84.com/v1
    --out masks/`

    FarmVibes.AI's `improve_cloud_mask`, pixel for pixel: `--merge farmvibes --boa-offset 0 --cloud-model
    farmvibes-cloud-2 --shadow-model farmvibes-shadow`; on two rasters: `stac_cloudmask.improve_cloud_mask` in Python.
    """
    from stac_cloudmask import run  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.lookahead import LookAhead  # noqa: PLC0415

    settings = Settings(
        cloud_model=tuple(cloud_model),
        shadow_model=shadow_model,
        cloud_thr=cloud_thr,
        shadow_thr=shadow_thr,
        in_memory=in_memory,
        merge=merge,
        buffer=buffer,
        min_area=min_area,
        hole_area=hole_area,
        loader=loader,
        resolution=resolution,
        boa_offset=boa_offset,
        missing_scl=missing_scl,
        probabilities=probabilities,
        votes=votes,
        mask_only=mask_only,
        overwrite=overwrite,
        temporal=temporal,
        temporal_dates=temporal_dates,
        threads=threads,
        provider=provider,
        model_cache=None if model_cache is None else str(model_cache),
        private_hosts=tuple(allow_host or ()),
        local_roots=tuple(allow_folder) if allow_folder else None,
    )
    query = Query(catalog, collection, bbox, datetime, max_cloud_cover, max_items)
    sent = options.headers(header)
    publication = run.Publication(to=publish, headers=sent, asset_root=asset_root) if publish else None
    ahead = LookAhead(_items(items or [], query, settings))
    with console.stoppable(), Board(quiet=json) as board, ExitStack() as stack:
        if dry_run:
            stream = run.plan(ahead, settings=settings, out=out, workers=workers)
        else:
            carrier = run.open_engine(workers=workers, scheduler=scheduler, progress=board.show)
            engine = stack.enter_context(carrier)
            stream = run.run(ahead, settings=settings, out=out, engine=engine, publication=publication)
        stack.enter_context(closing(stream))
        results = list(console.put_results(board.count(stream, total=lambda: ahead.total), json=json))
    if not json and (cost := costs.of_all(results, workers=workers or 1)):
        console.stderr.print(cost, markup=False, soft_wrap=True)
    _sum_up(results, board.counts, json=json)


def _sum_up(results: list[Result], counts: Counter[str], *, json: bool) -> None:
    """All items at a glance, for people; and the exit code."""
    if not results:
        console.stderr.print("no items found", style="yellow")
    elif not json and console.stderr.is_terminal:
        if len(results) <= LONGEST_TABLE:
            console.result_table(results)
        console.stderr.print(counted(counts))
    if counts["failed"]:
        raise typer.Exit(1)


class Query(NamedTuple):
    """What the search options ask for."""

    catalog: str | None
    collection: str | None
    bbox: tuple[float, float, float, float] | None
    datetime: str | None
    max_cloud_cover: float | None
    max_items: int | None


def _items(refs: list[str], query: Query, settings: Settings) -> Iterator[pystac.Item | Failure]:
    """The items that are named, or, where none is, those that the search finds."""
    from stac_cloudmask.masking import href_rule  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.search import find, load_items  # noqa: PLC0415

    rule = href_rule(settings)
    if refs:
        return load_items(refs, catalog=query.catalog, collection=query.collection, rule=rule)
    if query.catalog is None:
        raise ConfigError("name items (ids with --catalog, URLs or JSON paths), or search with --catalog")
    return find(
        query.catalog,
        collection=query.collection,
        bbox=query.bbox,
        datetime=query.datetime,
        max_cloud_cover=query.max_cloud_cover,
        max_items=query.max_items,
        rule=rule,
    )
