"""What the documentation's addresses stand for in tests: servers of this machine, with simulated items under real ids.

=====================================================  ==================================================
in the pages                                           in the tests
=====================================================  ==================================================
Earth Search, Planetary Computer, CDSE                 one STAC API with two simulated items, their pixels behind HTTP
``https://stac.example.org``                           a STAC API that takes transactions
``s3://bucket``                                        a bucket of moto's server
``tcp://scheduler.example.org:8786``                   a Dask cluster with one worker process
``path/to/item.json``, ``scenes/``, ``payload.json``   the same items on the disk, and a payload with the second
``labels.geojson``, ``labels.gpkg``, ``labels.tif``    cloud in the middle of the scene, and all its truth
``my-model.json``                                      a model that looks at one pixel at a time
``s2.tif``, ``product_mask.tif``, FarmVibes.AI's models    those of the parity cases
=====================================================  ==================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pystac
import rasterio
from distributed import LocalCluster
from rasterio.features import shapes
from rasterio.warp import transform_geom
from rasterio.windows import Window

from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from tests.s3 import s3_server
from tests.scenes import write_model
from tests.stac.range_server import serve
from tests.stac.vectors import write_vectors
from tests.stac_api import Api, serve_api
from tests.strict_api import strict_api

SIDE = 192
COLLECTION = "sentinel-2-l2a"
ITEMS = {"S2A_33TWL_20230818_0_L2A": "2023-08-18", "S2A_33TWL_20230815_0_L2A": "2023-08-15"}
APIS = (
    "https://earth-search.aws.element84.com/v1",
    "https://planetarycomputer.microsoft.com/api/stac/v1",
    "https://stac.dataspace.copernicus.eu/v1",
)


def write_scenes(folder: Path) -> list[dict[str, Any]]:
    """A static catalog of the simulated items; gives them with absolute local hrefs."""
    bodies = []
    for seed, (name, date) in enumerate(ITEMS.items()):
        recipe = Recipe(height=SIDE, width=SIDE, seed=seed)
        path = write_simulated_item(folder, recipe, item_id=name, collection=COLLECTION)
        body = json.loads(path.read_text())
        body["properties"]["datetime"] = f"{date}T10:00:00Z"
        path.write_text(json.dumps(body))
        bodies.append(pystac.Item.from_file(path).make_asset_hrefs_absolute().to_dict(transform_hrefs=False))
    return bodies


def remote(body: dict[str, Any], folder: Path, url: str) -> dict[str, Any]:
    """The item as an API serves it, its assets below ``url``."""
    assets = {key: asset | {"href": asset["href"].replace(str(folder), url)} for key, asset in body["assets"].items()}
    return {key: value for key, value in body.items() if key != "links"} | {"assets": assets}


@contextmanager
def stand_ins(folder: Path) -> Iterator[dict[str, str]]:
    """Run the servers; gives what stands in for what."""
    scenes = folder / "scenes"
    bodies = write_scenes(scenes)
    with ExitStack() as stack:
        bucket = stack.enter_context(s3_server())  # first, as what is started after it inherits its keys
        site = stack.enter_context(serve(scenes))
        api = stack.enter_context(serve_api(Api([remote(body, scenes, site.url) for body in bodies])))
        cluster = stack.enter_context(
            LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1")
        )
        yield {
            **dict.fromkeys(APIS, api.url),
            "https://stac.example.org": stack.enter_context(strict_api()).url,
            "s3://bucket": bucket,
            "tcp://scheduler.example.org:8786": cluster.scheduler_address,
        }


def furnish(folder: Path, scenes: Path) -> None:
    """Put what the pages presume into a visitor's folder."""
    shutil.copytree(scenes, folder / "scenes")
    name = list(ITEMS)[-1]
    home = folder / "scenes" / COLLECTION / name
    item = pystac.Item.from_file(home / f"{name}.json").make_asset_hrefs_absolute()
    body = item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []}
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "item.json").write_text(json.dumps(body))
    write_labels(folder, body)
    tasks = {"stac-cloudmask": {"out": str(folder / "from-payload")}}
    payload = {"type": "FeatureCollection", "id": "run-1", "process": [{"workflow": "masks", "tasks": tasks}]}
    write_model(folder, name="my-model")
    (folder / "payload.json").write_text(json.dumps(payload | {"features": [body]}))


def write_labels(folder: Path, body: dict[str, Any]) -> None:
    """Labels of an item in every form: its truth, and polygons of it in the middle of the scene."""
    shutil.copy(body["assets"]["reference"]["href"], folder / "labels.tif")
    with rasterio.open(folder / "labels.tif") as raster:
        middle = Window(32, 32, 128, 128)
        crs, found = raster.crs, shapes(raster.read(1, window=middle), transform=raster.window_transform(middle))
    labels = [(geometry, int(code)) for geometry, code in found if code != 255]
    features = [
        {
            "type": "Feature",
            "geometry": transform_geom(crs, "EPSG:4326", geometry),
            "properties": {"class": CLASSES[code].name},
        }
        for geometry, code in labels
    ]
    (folder / "labels.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    kinds = ("clear", "haze", "dark")
    write_vectors(
        folder / "labels.gpkg", [(geometry, {"kind": kinds[code]}) for geometry, code in labels], field="kind"
    )


def furnish_farmvibes(folder: Path, parity: Path) -> None:
    """Put two rasters and stand-ins for models of FarmVibes.AI into a visitor's folder."""
    for name in ("s2.tif", "product_mask.tif"):
        shutil.copy(parity / name, folder / name)
    shutil.copy(parity / "models" / "cloud_pixelwise.onnx", folder / "cloud_model2_cpu.onnx")
    shutil.copy(parity / "models" / "shadow_context.onnx", folder / "shadow.onnx")
