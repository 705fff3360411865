"""The Python calls: items in, masks out."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from os import PathLike, fspath
from typing import TYPE_CHECKING

import pystac

from stac_cloudmask.config import Settings
from stac_cloudmask.dataset import to_dataset
from stac_cloudmask.masking import href_rule, make_mask
from stac_cloudmask.run import OnDask, open_engine, run
from stac_cloudmask.stac.search import Failure, load_items

if TYPE_CHECKING:
    import xarray as xr
    from distributed import Client

    from stac_cloudmask.results import Result

Reference = pystac.Item | str | PathLike[str]
"""An item, its id (with a catalog), its URL, or the path of its JSON."""


def process(
    items: Reference | Iterable[Reference],
    *,
    out: str | PathLike[str],
    catalog: str | None = None,
    collection: str | None = None,
    settings: Settings | None = None,
    client: Client | None = None,
    workers: int | None = None,
) -> list[Result]:
    """Mask items and write the masks as a static STAC catalog; what is up to date is left alone.

    Args:
        items: One or many: items, ids (with ``catalog``), URLs, or paths of item JSON.
        out: Directory, or ``s3://bucket/prefix``.
        catalog: STAC API or static catalog, URL or path, where ids are looked up.
        collection: Collection of the ids.
        settings: How masks are made.
        client: A Dask cluster to run on.
        workers: Processes of a local Dask cluster; without it and ``client`` the items are done here one by one.

    Returns:
        What became of each item. A failed item is a result too, and never stops the others.

    Raises:
        ConfigError: A setting cannot work.
        ModelError: A model is not known or its weights are not here.
        WriteError: The output cannot be written.
    """
    settings = settings or Settings()
    found = load_items(_references(items), catalog=catalog, collection=collection, rule=href_rule(settings))
    engine = open_engine(workers=workers) if client is None else nullcontext(OnDask(client))
    with engine as carrier:
        return list(run(found, settings=settings, out=fspath(out), engine=carrier))


def cloud_mask(
    item: Reference, *, catalog: str | None = None, collection: str | None = None, settings: Settings | None = None
) -> xr.Dataset:
    """The mask of one item as a georeferenced dataset; nothing is written.

    Args:
        item: An item, its id (with ``catalog``), its URL, or the path of its JSON.
        catalog: STAC API or static catalog where an id is looked up.
        collection: Collection of the id.
        settings: How the mask is made.

    Returns:
        Variables ``(y, x)`` uint8, 255 = nodata: ``cloud_mask`` (0 clear, 1 cloud, 2 cloud shadow),
        ``cloud_probability`` and ``shadow_probability`` (whole percents); and ``mask_votes`` (bits).

    Raises:
        StacCloudmaskError: The item cannot be masked; says why and what would help.
    """
    settings = settings or Settings()
    (found,) = load_items(_references(item), catalog=catalog, collection=collection, rule=href_rule(settings))
    if isinstance(found, Failure):
        raise found.error
    return to_dataset(make_mask(found, settings=settings))


def _references(items: Reference | Iterable[Reference]) -> list[pystac.Item | str]:
    many = [items] if isinstance(items, pystac.Item | str | PathLike) else items
    return [item if isinstance(item, pystac.Item) else fspath(item) for item in many]
