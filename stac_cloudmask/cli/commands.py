"""The commands beside `process` and `models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stac_cloudmask.cli import console, options
from stac_cloudmask.errors import ConfigError

if TYPE_CHECKING:
    from stac_cloudmask.review.evaluate import EvaluationReport


@options.takes("wanted", options.search_options)
def search(*, wanted: options.Search, json: options.Json = False) -> None:
    """List the items of a STAC API or static catalog that match.

    Example: `stac-cloudmask search --catalog https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a
    --bbox 12 46 13 47 --datetime 2023-08-01/2023-08-31 --max-cloud-cover 60`
    """
    from stac_cloudmask.stac.search import find  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.stac.static import Connection, Failure  # noqa: PLC0415

    if wanted.catalog is None:
        raise ConfigError("search needs --catalog, the URL or path of a STAC API or static catalog")
    empty = True
    for item in find(wanted.catalog, wanted.query, connection=Connection(headers=wanted.headers)):
        empty = False
        if isinstance(item, Failure):
            raise item.error
        cover = item.properties.get("eo:cloud_cover")
        if json:
            console.put_json(item.to_dict(transform_hrefs=False))
        else:
            stated = "cloud ?" if cover is None else f"cloud {cover:.1f} %"
            console.put(
                f"{item.id}  {item.properties.get('datetime')}  {stated}  {item.get_self_href() or ''}".rstrip()
            )
    if empty:
        console.nothing_found(wanted.query)


Folder = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Seed = Annotated[int, typer.Option(help="Another number, another scene.")]
Size = Annotated[int, typer.Option(min=64, max=10980, help="Pixels along a side, 10 m each.")]
References = Annotated[
    list[str],
    typer.Option("--reference", metavar="ASSET|PATH", help="Asset key, label raster or vector file; several allowed."),
]
Tolerance = Annotated[float, typer.Option(metavar="M", min=0, help="Meters by which a boundary may be off.")]
Judged = Annotated[str, typer.Option("--mask", help="Asset that is judged; `scl` judges the source's own mask.")]
Pictures = Annotated[Path | None, typer.Option(metavar="DIR", help="Write an agreement map per scene.")]
To = Annotated[str, typer.Option(metavar="API_URL|DIR|s3://...", help="STAC API with transactions, or a store.")]
MasksFolder = Annotated[str, typer.Argument(metavar="DIR", help="Output catalog, local or s3://...")]
Attach = Annotated[bool, typer.Option("--attach", help="Add the masks to the source items of the API instead.")]
Detach = Annotated[bool, typer.Option("--detach", help="Take added masks away from the source items again.")]
ReportFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The HTML file; default: DIR/report.html.")
]


def demo(*, out: Folder = Path("demo"), seed: Seed = 0, size: Size = 1024, json: options.Json = False) -> None:
    """Simulate a scene whose truth is known, mask it, score SCL and the mask, and draw both; nothing is downloaded.

    Example: `stac-cloudmask demo --out demo`, then open `demo/report.html` in a browser.
    """
    from stac_cloudmask.simulate.demo import demo as run_demo  # noqa: PLC0415  (keeps --help fast)
    from stac_cloudmask.simulate.scene import Recipe  # noqa: PLC0415

    made = run_demo(out, recipe=Recipe(seed=seed, height=size, width=size))
    scored = [("SCL", made.product), ("improved mask", made.improved)]
    if json:
        console.put_json({"result": made.result.to_dict(), **{name: report.to_dict() for name, report in scored}})
        return
    for name, report in scored:
        _scores(f"Scores of the {name}, against the simulated truth", report)
    console.put(f"scene {made.item}")
    console.put(f"mask  {made.result.output}")
    console.put(f"look  {made.report}")


def report(
    directory: MasksFolder,
    *,
    out: ReportFile = None,
) -> None:
    """Write one HTML file to look at all masks of a catalog, with the scene below and the reasons of each pixel.

    It needs no network and nothing else: send it, or open it in a browser.

    Example: `stac-cloudmask report masks/`
    """
    from stac_cloudmask.review.report import build_report  # noqa: PLC0415  (keeps --help fast)

    if out is None and "://" in directory:
        raise ConfigError("say with --out FILE where the report of a remote catalog goes")
    with console.progress(quiet=False) as bars:
        task = bars.add_task("report", total=None)
        path = build_report(
            directory,
            out or Path(directory.removesuffix("catalog.json")) / "report.html",
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    console.put(str(path))


def evaluate(
    masks: options.Directory,
    *,
    reference: References,
    mask: Judged = "cloud_mask",
    tolerance: Tolerance = 20.0,
    pictures: Pictures = None,
    json: options.Json = False,
) -> None:
    """Score a catalog of masks against reference assets or your own labels, per class, per scene and overall.

    Example: `stac-cloudmask evaluate masks/ --reference labels.geojson --pictures maps/`
    """
    from stac_cloudmask.review.evaluate import evaluate as score  # noqa: PLC0415  (keeps --help fast)

    report = score(masks, references=reference, mask=mask, tolerance=tolerance)
    if pictures is not None:
        for path in report.write_pictures(pictures):
            console.stderr.print(f"wrote {path}", markup=False)
    if json:
        console.put_json(report.to_dict())
    else:
        _scores(f"{mask} against {', '.join(reference)}", report)


def publish(
    directory: MasksFolder,
    *,
    to: To,
    attach: Attach = False,
    detach: Detach = False,
    header: options.Headers = None,
    asset_root: options.AssetRoot = None,
    source_root: options.SourceRoots = None,
    json: options.Json = False,
) -> None:
    """Publish the masks of a catalog to a STAC API or to another store; running it again repairs and updates.

    With `--attach` the source items that the API holds get the masks as assets, and nothing else of them changes;
    `--detach` takes the assets away again.

    Example: `stac-cloudmask publish masks/ --to https://stac.example.org --header "Authorization:Bearer $TOKEN"
    --asset-root https://data.example.org/masks`
    """
    from stac_cloudmask.pipeline.publish import publish as send  # noqa: PLC0415  (keeps --help fast)

    if attach and detach:
        raise ConfigError("--attach and --detach are opposites; give one of them")
    sent = send(
        directory,
        to=to,
        how="attach" if attach else "detach" if detach else "items",
        headers=options.headers(header),
        asset_root=asset_root,
        source_roots=options.source_roots(source_root),
    )
    results = list(console.put_results(sent, json=json))
    if any(result.status == "failed" for result in results):
        raise typer.Exit(1)


def export(
    directory: MasksFolder,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="`.ndjson` (for pypgstac) or `.parquet`.")],
    *,
    asset_root: options.AssetRoot = None,
    source_root: options.SourceRoots = None,
) -> None:
    """Write all items of a catalog into one file, for loading in bulk: NDJSON or stac-geoparquet.

    Files of this machine go by `--asset-root` and `--source-root`, as whoever gets the export cannot read them.

    Example: `stac-cloudmask export masks/ items.ndjson --asset-root https://data.example.org/masks`
    """
    from stac_cloudmask.stac.catalog import existing_catalog  # noqa: PLC0415
    from stac_cloudmask.stac.collection import write_geoparquet, write_ndjson  # noqa: PLC0415

    writers = {".ndjson": write_ndjson, ".parquet": write_geoparquet}
    if file.suffix not in writers:
        raise ConfigError(f"{file}: a file to export to ends in {' or '.join(writers)}")
    catalog = existing_catalog(directory)
    items = catalog.items(catalog.roots(asset_root, options.source_roots(source_root)))
    count = writers[file.suffix](items, file)
    console.put(f"{count} item{'' if count == 1 else 's'}  {file}")


def explain(
    item: Annotated[str, typer.Argument(help="Output item: URL, path, or id with --catalog.")],
    lon: Annotated[float, typer.Argument(min=-180, max=180, help="Degrees east.")],
    lat: Annotated[float, typer.Argument(min=-90, max=90, help="Degrees north.")],
    *,
    catalog: options.Catalog = None,
    json: options.Json = False,
) -> None:
    """Say why one pixel has its class: SCL, probabilities, votes, rules, result.

    Example: `stac-cloudmask explain ITEM.json -113.5 51.3`
    """
    from stac_cloudmask.review.explain import explain as why  # noqa: PLC0415  (keeps --help fast)

    found = why(item, lon, lat, catalog=catalog)
    if json:
        console.put_json(found.to_dict())
        return
    console.fields(found.item_id, [(name.replace("_", " "), value) for name, value in found.to_dict().items()][1:])


def _scores(title: str, report: EvaluationReport) -> None:
    from stac_cloudmask.review.evaluate import COLUMNS  # noqa: PLC0415  (keeps --help fast)

    console.table(title, COLUMNS, report.rows())
