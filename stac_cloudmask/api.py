"""The public Python functions: items in, masks out.

The raster libraries take seconds to load, so each function imports what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import islice
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final

import pystac

from stac_cloudmask.config import Settings, Versions
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.progress import Listener, reporting

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

    from stac_cloudmask.pipeline.result import Result
    from stac_cloudmask.stac.connection import Connection
    from stac_cloudmask.stac.geometry import Area, Bbox
    from stac_cloudmask.stac.parse import Found

REFERENCES_AT_ONCE: Final = 100
"""Number of references looked up together, so that the first item is masked before a search is read to its end."""

Reference = pystac.Item | str | PathLike[str]
"""An item, its id (with a catalog), its URL, or the path of its JSON."""


def process(
    items: Reference | Iterable[Reference],
    *,
    out: str | PathLike[str],
    catalog: str | None = None,
    collection: str | None = None,
    bbox: Bbox | None = None,
    geometry: Area | None = None,
    settings: Settings | None = None,
    client: Client | None = None,
    workers: int | None = None,
    headers: Mapping[str, str] | None = None,
    versions: Versions = "newest",
    dry_run: bool = False,
    progress: bool | Listener = False,
) -> list[Result]:
    """Mask items and write the masks as a static STAC catalog; masks that are up to date are kept.

    Args:
        items: One or many items, ids (with ``catalog``), URLs, or paths of item JSON. The result of
            ``search`` is read lazily.
        out: Directory, or ``s3://bucket/prefix``.
        catalog: STAC API or static catalog, URL or path, where ids are looked up.
        collection: Collection of the ids.
        bbox: The area to mask: west, south, east, north in degrees. With west greater than east it crosses the
            antimeridian.
        geometry: The area to mask as GeoJSON, well-known text, a shapely geometry, or the path of a vector file. Pixels
            outside it are nodata. Items without data in the area are ``skipped``.
        settings: Settings of the masks.
        client: A Dask cluster to run on.
        workers: Number of processes of a local Dask cluster. Without it and ``client`` items are masked one by one in
            this process.
        headers: HTTP headers for a catalog that requires a login. They are sent to its server only, and never shown or
            stored.
        versions: If several products share an id, mask the ``newest``, or ``all`` with baseline or time in their ids.
        dry_run: Write nothing. Results are ``planned``, with the expected effort in ``estimate``.
        progress: True for a bar in the terminal or notebook; or a function that is called with each `Stage` of an item
            in this process, and with each `Result`.

    Returns:
        One result for each item. An item that fails is a result too, and never stops the others.

    Raises:
        ConfigError: A setting cannot work.
        ModelError: A model is unknown or its weights are not installed.
        WriteError: The output cannot be written.
    """
    from stac_cloudmask.pipeline.mask import connection_of  # noqa: PLC0415
    from stac_cloudmask.pipeline.run import open_engine, plan, run  # noqa: PLC0415

    settings = _clipping(settings or Settings(), bbox, geometry)
    found = _load(items, catalog, collection, connection_of(settings, headers), versions)
    with reporting(progress) as board, ExitStack() as stack:
        if isinstance(items, list | tuple):
            board.expect(len(items))
        if dry_run:
            results = plan(found, settings=settings, out=fspath(out))
        else:
            engine = stack.enter_context(open_engine(client=client, workers=workers, progress=board.stage))
            results = run(found, settings=settings, out=fspath(out), engine=engine)
        return list(board.count(stack.enter_context(closing(results))))


def cloud_mask(
    item: Reference,
    *,
    catalog: str | None = None,
    collection: str | None = None,
    bbox: Bbox | None = None,
    geometry: Area | None = None,
    settings: Settings | None = None,
    headers: Mapping[str, str] | None = None,
    progress: bool | Listener = False,
) -> xr.Dataset:
    """Return the mask of one item as a georeferenced dataset, without writing anything.

    Args:
        item: An item, its id (with ``catalog``), its URL, or the path of its JSON.
        catalog: STAC API or static catalog where an id is looked up.
        collection: Collection of the id.
        bbox: The area to mask: west, south, east, north in degrees. Only the pixels needed for it are read.
        geometry: The area to mask as a geometry, see `process`.
        settings: Settings of the mask.
        headers: HTTP headers for a catalog that requires a login, see `process`.
        progress: True for a bar in the terminal or notebook, or a function that is called with each `Stage`.

    Returns:
        Variables ``(y, x)`` uint8, 255 = nodata: ``cloud_mask`` (0 clear, 1 cloud, 2 cloud shadow),
        ``cloud_probability`` and ``shadow_probability`` (whole percents); and ``mask_votes`` (bits).

    Raises:
        OutsideAreaError: The item has no data in the area.
        StacCloudmaskError: The item cannot be masked; the message says why and what to do.
    """
    from stac_cloudmask.pipeline.mask import connection_of, make_mask  # noqa: PLC0415
    from stac_cloudmask.pipeline.result import Stopwatch  # noqa: PLC0415
    from stac_cloudmask.review.show import to_dataset  # noqa: PLC0415

    settings = _clipping(settings or Settings(), bbox, geometry)
    found = list(_load(item, catalog, collection, connection_of(settings, headers)))
    if len(found) != 1:
        raise ConfigError(f"{item} holds {len(found)} items, but a dataset holds one; process takes any number")
    [one] = found
    if not isinstance(one, pystac.Item):
        raise one.error
    with reporting(progress) as board:
        board.expect(1)
        return to_dataset(make_mask(one, settings=settings, watch=Stopwatch(board.stage)), one, settings=settings)


def _clipping(settings: Settings, bbox: Bbox | None, geometry: Area | None) -> Settings:
    """Return the settings with the area to mask, if one is given."""
    from stac_cloudmask.pipeline.mask import area_of  # noqa: PLC0415

    area = area_of(bbox=bbox, geometry=geometry)
    return settings if area is None else replace(settings, area=area)


def _load(
    items: Reference | Iterable[Reference],
    catalog: str | None,
    collection: str | None,
    connection: Connection,
    versions: Versions = "newest",
) -> Iterator[Found]:
    """Yield the referenced items, loaded in batches if the references are an iterator."""
    from stac_cloudmask.stac.search import load_items  # noqa: PLC0415

    many = [items] if isinstance(items, pystac.Item | str | PathLike) else items
    references = (item if isinstance(item, pystac.Item) else fspath(item) for item in many)
    size = REFERENCES_AT_ONCE if isinstance(many, Iterator) else None
    while batch := list(islice(references, size)):
        yield from load_items(batch, catalog=catalog, collection=collection, connection=connection, versions=versions)
