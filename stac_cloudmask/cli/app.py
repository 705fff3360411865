"""The command-line application: each command calls a function of the package and prints what it returns."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.filesize import decimal
from rich.progress import DownloadColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TransferSpeedColumn

import stac_cloudmask as scm
from stac_cloudmask.cli import console
from stac_cloudmask.cli.options import CATALOG_HEADERS, PlainCommand, SearchOptions, command, headers, source_roots
from stac_cloudmask.config import FAST, Settings, Versions
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.progress import bars, terminal

if TYPE_CHECKING:
    from stac_cloudmask.models.spec import ModelSpec
    from stac_cloudmask.pipeline.publish import How
    from stac_cloudmask.review.evaluate import EvaluationReport
    from stac_cloudmask.stac.parse import Found
    from stac_cloudmask.stac.search import Query

Command = Callable[..., None]

logger = logging.getLogger(__name__)

# Modules that take seconds to load are imported in the commands, which keeps --help fast


def search(*, search: SearchOptions, json: bool = False) -> None:
    """List the items of a STAC API or static catalog that match.

    Example: `stac-cloudmask search --catalog https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a
    --bbox 12 46 13 47 --datetime 2023-08-01/2023-08-31 --max-cloud-cover 60`

    Args:
        search: Search options.
        json: Print JSON lines.
    """
    from stac_cloudmask.stac.metadata import number  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.search import Query  # noqa: PLC0415

    if search.catalog is None:
        raise ConfigError("search needs --catalog, the URL or path of a STAC API or static catalog")
    found = None
    sent = headers(search.catalog_header, CATALOG_HEADERS)
    for found in scm.search(search.catalog, headers=sent, **search.wanted):
        if json:
            console.put_json(found.to_dict(transform_hrefs=False))
            continue
        date, cover = found.properties.get("datetime"), number(found.properties.get("eo:cloud_cover"))
        stated = "cloud ?" if cover is None else f"cloud {cover:.1f} %"
        console.put(f"{found.id}  {date}  {stated}  {found.get_self_href() or ''}".rstrip())
    if found is None:
        raise StacCloudmaskError(f"no items found: {Query(**search.wanted).hint()}")


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
    from stac_cloudmask.pipeline.estimate import advice  # noqa: PLC0415
    from stac_cloudmask.pipeline.publish import Publication  # noqa: PLC0415
    from stac_cloudmask.stac.search import Query  # noqa: PLC0415

    query = Query(**search.wanted)
    settings = _chosen(settings, query, fast=fast, clip=clip, named=bool(items))
    sent, roots = headers(header), source_roots(source_root)
    to = None if publish is None else Publication(to=publish, headers=sent, asset_root=asset_root, source_roots=roots)
    with console.stoppable(), terminal(console.stderr, quiet=json) as board, ExitStack() as stack:
        ahead = run.read_ahead(_items(items, search, query, settings, versions), counted=board.expect)
        if not (json or dry_run or clip or workers or scheduler):
            seen, faster = advice(ahead, settings)
            if faster:
                console.note(faster)
            ahead = chain(seen, ahead)
        if dry_run:
            stream = run.plan(ahead, settings=settings, out=out)
        else:
            engine = stack.enter_context(run.open_engine(workers=workers, scheduler=scheduler, progress=board.stage))
            stream = run.run(ahead, settings=settings, out=out, engine=engine, publication=to)
        counted = board.count(stack.enter_context(closing(stream)))
        results = [console.put_result(result, json=json) for result in counted]
    if not (results or items):
        raise StacCloudmaskError(f"no items found: {query.hint()}")
    if not json:
        console.sum_up(results)
    if board.counts["failed"]:
        raise typer.Exit(1)


def demo(*, folder: Path = Path("demo"), seed: int = 0, size: int = 1024, json: bool = False) -> None:
    """Simulate a scene with known truth, mask it, score SCL and the mask, and draw both; nothing is downloaded.

    Example: `stac-cloudmask demo --out demo`, then open `demo/report.html` in a browser.

    Args:
        folder: Folder to write to.
        seed: Number that decides the scene.
        size: Width and height in pixels of 10 m.
        json: Print JSON lines.
    """
    from stac_cloudmask.simulate.demo import demo as run_demo  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.simulate.scene import Recipe  # noqa: PLC0415

    made = run_demo(folder, recipe=Recipe(seed=seed, height=size, width=size))
    scored = [("SCL", made.product), ("improved mask", made.improved)]
    if json:
        console.put_json({"result": made.result.to_dict(), **{name: report.to_dict() for name, report in scored}})
        return
    for name, report in scored:
        _scores(f"Scores of the {name}, against the simulated truth", report)
    for line in (f"scene {made.item}", f"mask  {made.result.output}", f"look  {made.report}"):
        console.put(line)


def report(directory: str, *, page: Path | None = None) -> None:
    """Write one HTML file that shows all masks of a catalog over their scenes, with the reasons for each pixel.

    The file is self-contained and needs no network: send it, or open it in a browser.

    Example: `stac-cloudmask report masks/`

    Args:
        directory: Output catalog, local or s3://...
        page: The HTML file; default: DIR/report.html.
    """
    from stac_cloudmask.review.report import build_report  # noqa: PLC0415  (keeps --help fast)

    if page is None and "://" in directory:
        raise ConfigError("the report of a remote catalog needs --out FILE")
    page = page or Path(directory.removesuffix("catalog.json")) / "report.html"
    with bars(console.stderr, MofNCompleteColumn(), TimeElapsedColumn()) as shown:
        task = shown.add_task("report", total=None)
        path = build_report(
            directory, page, progress=lambda done, total: shown.update(task, completed=done, total=total)
        )
    console.put(str(path))


def evaluate(
    masks: str,
    *,
    reference: tuple[str, ...],
    mask: str = "cloud_mask",
    tolerance: float = 20.0,
    pictures: Path | None = None,
    json: bool = False,
) -> None:
    """Score a catalog of masks against reference assets or your own labels, per class, per scene and overall.

    Example: `stac-cloudmask evaluate masks/ --reference labels.geojson --pictures maps/`

    Args:
        masks: Directory of an output catalog.
        reference: Asset key, label raster or vector file; repeatable.
        mask: Asset to score; `scl` scores the source's own mask.
        tolerance: Meters by which a boundary may be off.
        pictures: Write an agreement map per scene.
        json: Print JSON lines.
    """
    report = scm.evaluate(masks, references=reference, mask=mask, tolerance=tolerance)
    if pictures is not None:
        for path in report.write_pictures(pictures):
            console.note(f"wrote {path}")
    if json:
        console.put_json(report.to_dict())
    else:
        _scores(f"{mask} against {', '.join(reference)}", report)


def publish(
    directory: str,
    *,
    to: str,
    attach: bool = False,
    detach: bool = False,
    header: tuple[str, ...] = (),
    asset_root: str | None = None,
    source_root: tuple[str, ...] = (),
    json: bool = False,
) -> None:
    """Publish the masks of a catalog to a STAC API or to another store; running it again repairs and updates.

    With `--attach` the masks are added as assets to the API's source items, which do not change otherwise;
    `--detach` removes these assets.

    Example: `stac-cloudmask publish masks/ --to https://stac.example.org --header "Authorization:Bearer $TOKEN"
    --asset-root https://data.example.org/masks`

    Args:
        directory: Output catalog, local or s3://...
        to: STAC API with transactions, or a store.
        attach: Add the masks to the API's source items instead.
        detach: Remove added masks from the source items.
        header: HTTP header for the API; repeatable, or one per line in $CLOUDMASK_HEADERS.
        asset_root: URL at which the files of the catalog are served.
        source_root: URL at which local source files are served; repeatable.
        json: Print JSON lines.
    """
    if attach and detach:
        raise ConfigError("--attach and --detach are opposites; give one of them")
    how: How = "attach" if attach else "detach" if detach else "items"
    sent, roots = headers(header), source_roots(source_root)
    published = scm.publish(directory, to=to, how=how, headers=sent, asset_root=asset_root, source_roots=roots)
    results = [console.put_result(result, json=json) for result in published]
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def export(directory: str, file: Path, *, asset_root: str | None = None, source_root: tuple[str, ...] = ()) -> None:
    """Write all items of a catalog to one file for bulk loading: NDJSON or stac-geoparquet.

    Local paths are replaced as `--asset-root` and `--source-root` say, because other machines cannot read them.

    Example: `stac-cloudmask export masks/ items.ndjson --asset-root https://data.example.org/masks`

    Args:
        directory: Output catalog, local or s3://...
        file: `.ndjson` (for pypgstac) or `.parquet`.
        asset_root: URL at which the files of the catalog are served.
        source_root: URL at which local source files are served; repeatable.
    """
    from stac_cloudmask.stac.catalog import existing_catalog  # noqa: PLC0415
    from stac_cloudmask.stac.collection import write_geoparquet, write_ndjson  # noqa: PLC0415

    writers = {".ndjson": write_ndjson, ".parquet": write_geoparquet}
    if file.suffix not in writers:
        raise ConfigError(f"{file}: the name of an export must end in {' or '.join(writers)}")
    catalog = existing_catalog(directory)
    items = catalog.items(catalog.roots(asset_root, source_roots(source_root)))
    count = writers[file.suffix](items, file)
    console.put(f"{console.plural(count, 'item')}  {file}")


def explain(item: str, lon: float, lat: float, *, catalog: str | None = None, json: bool = False) -> None:
    """Explain why one pixel has its class: SCL, probabilities, votes, rules, result.

    Example: `stac-cloudmask explain ITEM.json -113.5 51.3`

    Args:
        item: Output item: URL, path, or id with --catalog.
        lon: Degrees east.
        lat: Degrees north.
        catalog: STAC API or static catalog.
        json: Print JSON lines.
    """
    facts = scm.explain(item, lon, lat, catalog=catalog).to_dict()
    if json:
        console.put_json(facts)
    else:
        console.fields(facts.pop("item_id"), facts)


def list_models(*, model_cache: Path | None = None, json: bool = False) -> None:
    """List the models with role, bands, window, size and license, and whether their weights are installed.

    Args:
        model_cache: Directory of downloaded weights; default: the user's cache.
        json: Print JSON lines.
    """
    from stac_cloudmask.models.registry import list_models  # noqa: PLC0415  (keeps --help fast)

    rows = [("model", "role", "bands", "window", "size", "license", "weights")]
    for spec in list_models():
        facts = _facts(spec, model_cache)
        if json:
            console.put_json(facts)
        window = str(spec.window.size) if spec.window.multiple == 0 else f"<= {spec.window.size}"
        size = "" if spec.file_size is None else decimal(spec.file_size)
        here = "installed" if facts["weights_here"] else "not downloaded"
        rows.append((spec.name, "+".join(spec.roles), f"{len(spec.bands)}", window, size, spec.license or "", here))
    if not json:
        console.put_columns(rows)  # fits into 80 columns


def show(name: str, *, model_cache: Path | None = None, json: bool = False) -> None:
    """Show everything that a model's item states.

    Example: `stac-cloudmask models show ukis-csmask-4b-l2a`

    Args:
        name: Name in the catalog, path of an MLM item, or of one of FarmVibes.AI's files.
        model_cache: Directory of downloaded weights; default: the user's cache.
        json: Print JSON lines.
    """
    from stac_cloudmask.models.registry import find_model  # noqa: PLC0415  (keeps --help fast)

    facts = _facts(find_model(name), model_cache)
    if json:
        console.put_json(facts)
    else:
        console.fields(name, facts)


def fetch(names: tuple[str, ...], *, model_cache: Path | None = None) -> None:
    """Download weights into the cache; a file with the wrong size or hash is discarded.

    Example: `stac-cloudmask models fetch farmvibes-cloud-2 farmvibes-shadow`

    Args:
        names: Names in the catalog, or `all`.
        model_cache: Directory of downloaded weights; default: the user's cache.
    """
    from stac_cloudmask.models.registry import fetch_model, find_model, list_models  # noqa: PLC0415

    specs = list_models() if "all" in names else [find_model(name) for name in names]
    with bars(console.stderr, DownloadColumn(), TransferSpeedColumn()) as shown:
        for spec in specs:
            path = fetch_model(spec, cache=model_cache, progress=_pooch_bar(shown, spec))
            console.put(f"{spec.name}  {path}")


def check(name: str | None = None, *, model_cache: Path | None = None) -> None:
    """Run models on a fixed chip and report contradictions to their items.

    Example: `stac-cloudmask models check my-model.json`

    Args:
        name: Name, or path of an MLM item; default: all that are installed.
        model_cache: Directory of downloaded weights; default: the user's cache.
    """
    from stac_cloudmask.models.check import check_model  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.models.registry import find_model, is_here, list_models  # noqa: PLC0415

    specs = [find_model(name)] if name else [spec for spec in list_models() if is_here(spec, model_cache)]
    failed = False
    for spec in specs:
        findings = check_model(spec, cache=model_cache)
        failed |= any(finding.level == "error" for finding in findings)
        console.put(f"{spec.name}  {'ok' if not findings else f'{len(findings)} finding(s)'}")
        for finding in findings:
            console.put(f"  {finding.level}: {finding.text}")
    if failed:
        raise typer.Exit(1)


def _items(
    refs: tuple[str, ...], search: SearchOptions, query: Query, settings: Settings, versions: Versions
) -> Iterator[Found]:
    """Yield the named items or, if none are named, those that the search finds."""
    from stac_cloudmask.pipeline.mask import connection_of  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.search import distinct, find, load_items, without_masks  # noqa: PLC0415

    catalog, connection = search.catalog, connection_of(settings, headers(search.catalog_header, CATALOG_HEADERS))
    if refs:
        collection = query.collections
        return load_items(refs, catalog=catalog, collection=collection, connection=connection, versions=versions)
    if catalog is None:
        raise ConfigError("name items (ids with --catalog, URLs or JSON paths), or search with --catalog")
    found = without_masks(find(catalog, query, connection=connection))
    return distinct(found, versions) if versions == "all" else found  # which compares many before the first is masked


def _chosen(settings: Settings, query: Query, *, fast: bool, clip: bool, named: bool) -> Settings:
    """Return the settings with ``--fast`` and ``--clip`` applied.

    Raises:
        ConfigError: Options contradict each other, or have no effect because items are named.
    """
    from stac_cloudmask.pipeline.mask import area_of  # noqa: PLC0415  (keeps --help fast)

    if named and not clip and query.area is not None:
        raise ConfigError("--bbox and --intersects choose among items of a search; to mask that part only, add --clip")
    if named and replace(query, collection=(), bbox=None, intersects=None) != type(query)(collection=()):
        raise ConfigError("items are named, so search options have no effect; leave out one or the other")
    if fast and (settings.cloud_model, settings.shadow_model) != (Settings.cloud_model, Settings.shadow_model):
        raise ConfigError("--fast names both models; leave out --cloud-model and --shadow-model")
    if clip and query.area is None:
        raise ConfigError("--clip needs the area: --bbox or --intersects")
    if fast:
        settings = replace(settings, cloud_model=(FAST,), shadow_model=FAST)
    return replace(settings, area=area_of(geometry=query.area)) if clip else settings


def _scores(title: str, report: EvaluationReport) -> None:
    from stac_cloudmask.review.evaluate import COLUMNS  # noqa: PLC0415  (keeps --help fast)

    console.put(title)
    console.put_columns([COLUMNS, *report.rows()])


def _facts(spec: ModelSpec, cache: Path | None) -> dict[str, object]:
    from stac_cloudmask.models.registry import is_here  # noqa: PLC0415  (keeps --help fast)

    return {**asdict(spec), "weights_here": is_here(spec, cache)}


def _pooch_bar(shown: Progress, spec: ModelSpec) -> SimpleNamespace:
    """Return a progress bar with the methods that pooch calls."""
    task = shown.add_task(spec.name, total=spec.file_size)
    return SimpleNamespace(
        update=partial(shown.advance, task),
        reset=partial(shown.update, task, completed=0),
        close=partial(shown.stop_task, task),
    )


app: Final = typer.Typer(
    name="stac-cloudmask",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 110},
    help="Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item.",
    epilog="Exit code 0: all done or up to date; 1: some items failed; 2: the command was wrong.",
)


def _version(value: bool) -> None:  # noqa: FBT001  (typer's callback)
    if value:
        console.put(scm.__version__)
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", help="Say more, and show tracebacks.")] = False,  # noqa: FBT002
    version: Annotated[  # noqa: ARG001, FBT002
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    console.log(verbose=verbose)


MODEL_COMMANDS: Final[dict[str, Command]] = {"list": list_models, "show": show, "fetch": fetch, "check": check}
models: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="List, show, fetch and check models.")
for function in (search, process, report, publish, evaluate, export, explain, demo):
    app.command(
        cls=PlainCommand,
        no_args_is_help=function is process,
        # a negative coordinate is an argument, but would be parsed as an option
        context_settings={"ignore_unknown_options": function is explain},
    )(command(function))
for name, model_command in MODEL_COMMANDS.items():
    models.command(name, cls=PlainCommand)(command(model_command))
app.add_typer(models, name="models")


def main() -> None:
    """Run the command line; an error is shown as one line and sets the exit code."""
    warnings.showwarning = lambda text, kind, *_, **__: console.note(f"{kind.__name__}: {text}", "yellow")
    try:
        app()
    except (StacCloudmaskError, OSError) as error:
        logger.debug("raised here:", exc_info=True)
        console.note(f"error: {error}", "red")
        sys.exit(2 if isinstance(error, ConfigError) else 1)
