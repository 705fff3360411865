"""What other programs make of an output item: a tile server and readers of STAC."""

from __future__ import annotations

import io
import json

import morecantile
import numpy as np
import pytest
import rasterio
from fastapi import FastAPI
from PIL import Image
from rasterio.warp import transform
from rio_tiler.io import STACReader
from scipy.ndimage import maximum_filter, minimum_filter
from starlette.testclient import TestClient
from titiler.core.factory import MultiBaseTilerFactory

from tests.outputs import item_path

# rio-tiler says so of assets whose bands have no statistics at all
pytestmark = pytest.mark.filterwarnings("ignore:Some statistics data in STAC are invalid")

ZOOM = 15
TILES = morecantile.tms.get("WebMercatorQuad")


@pytest.fixture(scope="module")
def titiler():
    app = FastAPI()
    app.include_router(MultiBaseTilerFactory(reader=STACReader).router)
    return TestClient(app)


def tile(client, item, parameters, lon, lat):
    """The tile that a place lies in, and the place's pixel in it."""
    at = TILES.tile(lon, lat, ZOOM)
    url = f"/tiles/WebMercatorQuad/{at.z}/{at.x}/{at.y}.png"
    answer = client.get(url, params={"url": str(item), **parameters})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
    picture = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))
    bounds, (x, y) = TILES.xy_bounds(at), TILES.xy(lon, lat)
    col = int((x - bounds.left) / (bounds.right - bounds.left) * picture.shape[1])
    row = int((bounds.top - y) / (bounds.top - bounds.bottom) * picture.shape[0])
    return picture, picture[row, col].tolist()


def test_titiler_paints_each_class_as_the_items_render_says(titiler, catalog):
    item = item_path(catalog, "2_L2A_cloudmask")
    render = json.loads(item.read_text())["properties"]["renders"]["cloud_mask"]
    parameters = {
        "assets": render["assets"],
        "colormap": json.dumps(render["colormap"]),
        "nodata": render["nodata"],
        "resampling": render["resampling"],
    }
    with rasterio.open(item.with_name("cloud_mask.tif")) as file:
        classes, crs, xy = file.read(1), file.crs, file.xy
    alike = minimum_filter(classes, 5) == maximum_filter(classes, 5)
    for code in (0, 1, 2):
        row, col = np.argwhere(alike & (classes == code))[0]
        (lon,), (lat,) = transform(crs, "EPSG:4326", *([value] for value in xy(row, col)))
        picture, color = tile(titiler, item, parameters, lon, lat)
        expected = render["colormap"][str(code)]
        assert color[3] == expected[3]
        assert color[3] == 0 or color == expected
        painted = {tuple(one) for one in picture.reshape(-1, 4) if one[3]}
        assert painted <= {tuple(render["colormap"][name]) for name in ("1", "2")}


def test_titiler_lists_the_assets_and_reads_probabilities(titiler, catalog):
    item = item_path(catalog, "2_L2A_cloudmask")
    assert {"cloud_mask", "cloud_probability", "red"} <= set(titiler.get("/assets", params={"url": str(item)}).json())
    info = titiler.get("/info", params={"url": str(item), "assets": "cloud_probability"}).json()["cloud_probability"]
    assert (info["dtype"], info["nodata_value"]) == ("uint8", 255)
