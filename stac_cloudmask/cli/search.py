"""`stac-cloudmask search`."""

from __future__ import annotations

from stac_cloudmask.cli import console, options
from stac_cloudmask.errors import ConfigError


def search(
    *,
    catalog: options.Catalog = None,
    collection: options.Collection = None,
    bbox: options.Bbox = None,
    datetime: options.Datetime = None,
    max_cloud_cover: options.MaxCloudCover = None,
    max_items: options.MaxItems = None,
    json: options.Json = False,
) -> None:
    """List the items of a STAC API or static catalog that match.

    Example: `stac-cloudmask search --catalog https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a
    --bbox 12 46 13 47 --datetime 2023-08-01/2023-08-31 --max-cloud-cover 60`
    """
    from stac_cloudmask.stac.search import search as find  # noqa: PLC0415  (keeps --help fast)

    if catalog is None:
        raise ConfigError("search needs --catalog, the URL or path of a STAC API or static catalog")
    found = find(
        catalog,
        collection=collection,
        bbox=bbox,
        datetime=datetime,
        max_cloud_cover=max_cloud_cover,
        max_items=max_items,
    )
    for item in found:
        cover = item.properties.get("eo:cloud_cover")
        if json:
            console.put_json(item.to_dict(transform_hrefs=False))
        else:
            stated = "cloud ?" if cover is None else f"cloud {cover:.1f} %"
            console.put(
                f"{item.id}  {item.properties.get('datetime')}  {stated}  {item.get_self_href() or ''}".rstrip()
            )
