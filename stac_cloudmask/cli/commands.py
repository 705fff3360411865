"""The commands other than `process` and `models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from stac_cloudmask.cli import console
from stac_cloudmask.cli.options import CATALOG_HEADERS, SearchOptions, headers, source_roots
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.progress import bars

if TYPE_CHECKING:
    from stac_cloudmask.review.evaluate import EvaluationReport


def search(*, search: SearchOptions, json: bool = False) -> None:
    """List the items of a STAC API or static catalog that match.

    Example: `stac-cloudmask search --catalog https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a
    --bbox 12 46 13 47 --datetime 2023-08-01/2023-08-31 --max-cloud-cover 60`

    Args:
        search: Search options.
        json: Print JSON lines.
    """
    from stac_cloudmask.stac.search import Query, search as found  # noqa: PLC0415  (keeps --help fast)

    if search.catalog is None:
        raise ConfigError("search needs --catalog, the URL or path of a STAC API or static catalog")
    number = 0
    sent = headers(search.catalog_header, CATALOG_HEADERS)
    for number, item in enumerate(found(search.catalog, headers=sent, **search.wanted), start=1):  # noqa: B007
        cover = item.properties.get("eo:cloud_cover")
        if json:
            console.put_json(item.to_dict(transform_hrefs=False))
        else:
            stated = "cloud ?" if cover is None else f"cloud {cover:.1f} %"
            date, own = item.properties.get("datetime"), item.get_self_href() or ""
            console.put(f"{item.id}  {date}  {stated}  {own}".rstrip())
    if number == 0:
        raise StacCloudmaskError(f"no items found: {Query(**search.wanted).hint()}")


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
    console.put(f"scene {made.item}")
    console.put(f"mask  {made.result.output}")
    console.put(f"look  {made.report}")


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
    with bars(console.stderr, MofNCompleteColumn(), TimeElapsedColumn()) as shown:
        task = shown.add_task("report", total=None)
        path = build_report(
            directory,
            page or Path(directory.removesuffix("catalog.json")) / "report.html",
            progress=lambda done, total: shown.update(task, completed=done, total=total),
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
    from stac_cloudmask.review.evaluate import evaluate as score  # noqa: PLC0415  (keeps --help fast)

    report = score(masks, references=reference, mask=mask, tolerance=tolerance)
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
    from stac_cloudmask.pipeline.publish import publish as send  # noqa: PLC0415  (keeps --help fast)

    if attach and detach:
        raise ConfigError("--attach and --detach are opposites; give one of them")
    sent = send(
        directory,
        to=to,
        how="attach" if attach else "detach" if detach else "items",
        headers=headers(header),
        asset_root=asset_root,
        source_roots=source_roots(source_root),
    )
    results = [console.put_result(result, json=json) for result in sent]
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
    console.put(f"{console.number(count, 'item')}  {file}")


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
    from stac_cloudmask.review.explain import explain as why  # noqa: PLC0415  (keeps --help fast)

    found = why(item, lon, lat, catalog=catalog)
    if json:
        console.put_json(found.to_dict())
        return
    console.fields(found.item_id, [(name.replace("_", " "), value) for name, value in found.to_dict().items()][1:])


def _scores(title: str, report: EvaluationReport) -> None:
    from stac_cloudmask.review.evaluate import COLUMNS  # noqa: PLC0415  (keeps --help fast)

    console.put(title)
    console.put_columns([COLUMNS, *report.rows()])
