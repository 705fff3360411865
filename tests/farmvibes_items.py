"""The parity rasters as a STAC item, and the stand-in models under the names of FarmVibes.AI's files."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box, mapping

from stac_cloudmask.models.registry import catalog_folder, find_model

SCL_OF_PRODUCT = {0: 4, 1: 8, 2: 9, 3: 10, 100: 0}
"""FarmVibes.AI's product mask in classes of the SCL: clear, opaque, cirrus, other, nodata."""


def parity_item(parity: Path, folder: Path) -> Path:
    """JSON of an item with an asset for each of the 12 bands, and the product mask as SCL."""
    names = find_model("farmvibes-cloud-2").bands
    with rasterio.open(parity / "s2.tif") as file:
        bands, bounds, crs = file.read(), file.bounds, file.crs
        profile = {"driver": "GTiff", "crs": crs, "transform": file.transform, "nodata": 0, "tiled": True, "count": 1}
    with rasterio.open(parity / "product_mask.tif") as file:
        product = file.read(1)
    bbox = list(transform_bounds(crs, "EPSG:4326", *bounds))
    properties = {"proj:code": crs.to_string(), "s2:processing_baseline": "05.09"}
    item = pystac.Item("S2_parity", mapping(box(*bbox)), bbox, datetime(2023, 6, 1, tzinfo=UTC), properties)
    item.set_collection(None)
    table = np.zeros(256, np.uint8)
    table[list(SCL_OF_PRODUCT)] = list(SCL_OF_PRODUCT.values())
    for name, pixels in (*zip(names, bands, strict=True), ("scl", table[product])):
        sizes = {"height": pixels.shape[0], "width": pixels.shape[1], "dtype": pixels.dtype}
        with rasterio.open(folder / f"{name}.tif", "w", **profile, **sizes) as file:
            file.write(pixels, 1)
        item.add_asset(name, pystac.Asset(f"./{name}.tif", media_type=pystac.MediaType.COG))
    path = folder / "S2_parity.json"
    path.write_text(json.dumps(item.to_dict(include_self_link=False)))
    return path


def stand_in(source: Path, folder: Path, name: str) -> Path:
    """A copy of a stand-in under the name of one of FarmVibes.AI's files, which gives it that model's contract."""
    return Path(shutil.copy(source, folder / name))


def windowed_item(source: Path, folder: Path, *, like: str, size: int, overlap: int) -> Path:
    """An MLM item for a stand-in that cuts scenes otherwise than the model whose contract it has."""
    document = json.loads((catalog_folder() / like / f"{like}.json").read_text())
    document["id"] = f"{like}-{size}"
    document["properties"]["mlm:input"][0]["input"]["shape"][2:] = [size, size]
    document["properties"]["stac_cloudmask:window"] = {"size": size, "multiple": 0, "overlap": overlap}
    asset = {"href": f"./{source.name}", "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}
    document |= {"assets": {"model": asset}, "links": []}
    shutil.copy(source, folder / source.name)
    path = folder / f"{document['id']}.json"
    path.write_text(json.dumps(document))
    return path
