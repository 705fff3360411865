"""Write simulated scenes as source items: COGs, STAC item, collection and catalog in the style of Earth Search."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pystac
import rasterio
from rasterio.warp import transform_geom
from shapely.geometry import shape

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.stac.assets import COG, class_list
from stac_cloudmask.stac.geometry import LON_LAT
from stac_cloudmask.stac.providers import BANDS, SCL

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.simulate.scene import Recipe

EXTENSIONS: Final = ("classification/v2.0.0", "eo/v1.1.0", "projection/v1.1.0", "raster/v1.1.0", "view/v1.0.0")
FIRST_DAY: Final = datetime(2023, 6, 1, 10, 0, tzinfo=UTC)
DAYS: Final = 3650
STEPS, RAISED = 10_000, 1000
"""Digital number of reflectance 1, and the added offset, as since ESA's baseline 04.00."""


def write_layer(path: Path, layer: NDArray[np.uint16] | NDArray[np.uint8], grid: Grid, *, nodata: int) -> None:
    """Write one layer as COG: the fastest compression, overviews by mean (uint16) or mode (uint8, codes)."""
    resampling = "average" if layer.dtype == np.uint16 else "mode"
    with rasterio.open(
        path, "w", driver="COG", count=1, dtype=layer.dtype, nodata=nodata, height=grid.height, width=grid.width,
        crs=grid.code, transform=rasterio.Affine(*grid.transform), blocksize=512, compress="deflate", level=1,
        predictor=2, num_threads=2, overview_resampling=resampling,
    ) as cog:  # fmt: skip
        cog.write(layer, 1)


def source_item(item_id: str, recipe: Recipe, cloud_cover: float) -> pystac.Item:
    """Return the item of a scene, whose layers are in ``<key>.tif`` beside it.

    Args:
        item_id: Its id.
        recipe: Parameters of the scene.
        cloud_cover: Percent of the valid pixels, as the product has it.
    """
    left, bottom, right, top = recipe.grid.bounds
    ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    outline = transform_geom(recipe.grid.code, LON_LAT, {"type": "Polygon", "coordinates": [ring]}, precision=7)
    properties = {
        "title": f"Simulated scene, seed {recipe.seed}",
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": recipe.grid.gsd,
        "eo:cloud_cover": cloud_cover,
        "view:sun_azimuth": recipe.sun.azimuth,
        "view:sun_elevation": recipe.sun.elevation,
        "proj:epsg": recipe.grid.epsg,
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "05.11",
    }
    return pystac.Item(
        item_id, outline, [*shape(outline).bounds], FIRST_DAY + timedelta(days=recipe.seed % DAYS), properties,
        stac_extensions=[f"https://stac-extensions.github.io/{name}/schema.json" for name in EXTENSIONS],
        assets={key: _asset(key, recipe.layer_grid(key)) for key in recipe.layers},
    )  # fmt: skip


def store_item(folder: Path, item: pystac.Item, collection_id: str) -> Path:
    """Write an item beside its files, and list it in the collection and the catalog in ``folder``."""
    root, home = folder / "catalog.json", folder / collection_id / "collection.json"
    if root.exists():
        catalog = pystac.Catalog.from_file(root)
    else:
        catalog = pystac.Catalog("simulated", "Simulated Sentinel-2 scenes.", href=str(root))
    if home.exists():
        collection = pystac.Collection.from_file(home)
        collection.remove_item(item.id)
    else:
        about = "Simulated scenes with a reference mask; nothing here was seen by a satellite."
        extent, title = pystac.Extent.from_items([item]), "Simulated Sentinel-2 L2A"
        collection = pystac.Collection(collection_id, about, extent, title, license="MIT")
        catalog.add_child(collection)
    collection.add_item(item)
    collection.update_extent_from_items()
    for written in (catalog, collection, item):
        written.save_object(include_self_link=False)
    return home.parent / item.id / f"{item.id}.json"


def _asset(key: str, grid: Grid) -> pystac.Asset:
    fields: dict[str, Any] = {"gsd": grid.gsd, "proj:shape": [*grid.shape], "proj:transform": [*grid.transform]}
    values: dict[str, Any] = {"nodata": 0, "data_type": "uint8", "spatial_resolution": grid.gsd}
    roles = ["data"]
    if key in BANDS:
        band, common_name = BANDS[key], key.rstrip("123") if key.startswith("rededge") else key
        values |= {"data_type": "uint16", "scale": 1 / STEPS, "offset": -RAISED / STEPS}
        fields["eo:bands"] = [{"name": band.esa, "common_name": common_name, "center_wavelength": band.wavelength}]
        roles = ["data", "reflectance"]
    elif key != SCL:
        values["nodata"] = int(CloudClass.NODATA)
        fields["classification:classes"] = class_list()
        roles = ["reference"]
    return pystac.Asset(f"./{key}.tif", media_type=COG, roles=roles, extra_fields=fields | {"raster:bands": [values]})
