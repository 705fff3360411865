"""`process`: its options, what it would cost, and its summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stac_cloudmask.cli import console, options
from stac_cloudmask.config import Settings  # noqa: TC001  (options are made from it)
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.progress import Bars, counted

if TYPE_CHECKING:
    from collections import Counter

    import pystac

    from stac_cloudmask.pipeline.result import Result
    from stac_cloudmask.stac.static import Failure

Items = Annotated[list[str] | None, typer.Argument(help="Item ids (with --catalog), item URLs or item JSON paths.")]
Out = Annotated[
    str, typer.Option(metavar="DIR|s3://...", help="Where the catalog is written.", rich_help_panel=options.OUTPUT)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done: pixels, bytes, windows.", rich_help_panel=options.RUN)
]
Publish = Annotated[
    str | None,
    typer.Option(
        metavar="API_URL|s3://...",
        help="Publish each item as soon as it is done, too.",
        rich_help_panel=options.PUBLISH,
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes of a local Dask cluster.", rich_help_panel=options.RUN)
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="An existing Dask cluster.", rich_help_panel=options.RUN)
]

Clip = Annotated[
    bool,
    typer.Option("--clip", help="Mask only the area of --bbox or --intersects.", rich_help_panel=options.SEARCH),
]

Versions = Literal["newest", "all"]
VersionsOption = Annotated[
    Versions,
    typer.Option(help="Of named products of one id, the newest, or all under ids of their own."),
]


@options.takes("settings", options.settings_of)
@options.takes("search", options.search_options)
def process(
    items: Items = None,
    *,
    out: Out,
    search: options.Search,
    clip: Clip = False,
    versions: VersionsOption = "newest",
    settings: Settings,
    publish: Publish = None,
    header: options.Headers = None,
    asset_root: options.AssetRoot = None,
    source_root: options.SourceRoots = None,
    dry_run: DryRun = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    json: options.Json = False,
) -> None:
    """Mask items and write them as a STAC catalog; what is up to date is left alone.

    Example: `stac-cloudmask process S2A_33TWL_20230818_0_L2A --catalog https://earth-search.aws.element84.com/v1
    --out masks/`
    """
    from stac_cloudmask.pipeline import run  # noqa: PLC0415  (keeps --help fast)

    if items:
        search.refuse_filters(clip=clip)
    if clip:
        settings = _clipped(settings, search)
    sent = options.headers(header)
    roots = options.source_roots(source_root)
    publication = (
        run.Publication(to=publish, headers=sent, asset_root=asset_root, source_roots=roots) if publish else None
    )
    with console.stoppable(), Bars(console.stderr, quiet=json) as board, ExitStack() as stack:
        ahead = run.read_ahead(_items(items or [], search, settings, versions), counted=board.expect)
        if not (json or dry_run or clip or workers or scheduler):
            ahead = _advised(ahead, settings)
        if dry_run:
            stream = run.plan(ahead, settings=settings, out=out)
        else:
            carrier = run.open_engine(workers=workers, scheduler=scheduler, progress=board.stage)
            engine = stack.enter_context(carrier)
            stream = run.run(ahead, settings=settings, out=out, engine=engine, publication=publication)
        stack.enter_context(closing(stream))
        results = list(console.put_results(board.count(stream), json=json))
    if not json and (cost := console.costs_of_all(results)):
        console.stderr.print(cost, markup=False, soft_wrap=True)
    if not (results or items):
        console.nothing_found(search.query)
    _sum_up(results, board.counts, json=json)


def _advised(items: Iterator[pystac.Item | Failure], settings: Settings) -> Iterator[pystac.Item | Failure]:
    """The same items, after one line that says what would be faster if they are much work."""
    from stac_cloudmask.pipeline.estimate import advice  # noqa: PLC0415  (keeps --help fast)

    seen, faster = advice(items, settings)
    if faster:
        console.stderr.print(faster, markup=False, soft_wrap=True)
    return chain(seen, items)


def _sum_up(results: list[Result], counts: Counter[str], *, json: bool) -> None:
    """How many items of each kind, for people; and the exit code."""
    if results and not json and console.stderr.is_terminal:
        console.stderr.print(counted(counts))
    if counts["failed"]:
        raise typer.Exit(1)


def _clipped(settings: Settings, search: options.Search) -> Settings:
    """The settings with the area of a search, which is then masked alone."""
    from stac_cloudmask.pipeline.area import area_of  # noqa: PLC0415  (keeps --help fast)

    if search.query.area is None:
        raise ConfigError("--clip needs the area: --bbox or --intersects")
    return replace(settings, area=area_of(geometry=search.query.area))


def _items(
    refs: list[str], search: options.Search, settings: Settings, versions: Versions
) -> Iterator[pystac.Item | Failure]:
    """The items that are named, or, where none is, those that the search finds."""
    from stac_cloudmask.pipeline.mask import connection_of  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.search import find, load_items, without_masks  # noqa: PLC0415

    connection = connection_of(settings, search.headers)
    if refs:
        collections = search.query.collections
        return load_items(
            refs, catalog=search.catalog, collection=collections, connection=connection, versions=versions
        )
    if search.catalog is None:
        raise ConfigError("name items (ids with --catalog, URLs or JSON paths), or search with --catalog")
    return without_masks(find(search.catalog, search.query, connection=connection))
