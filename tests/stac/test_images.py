from __future__ import annotations

import numpy as np
import pytest
import rasterio

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.stac.gdal import is_file, open_raster
from stac_cloudmask.stac.warp import Meaning, Views, read_labels, read_pixel
from tests.stac.rasters import EPSG, LEFT, TOP, item_of, write

GRID = Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=10, height=64, width=64)
MIDDLE = (12.4628, 45.1216)


@pytest.fixture
def secret(tmp_path):
    """A file that no item may lead to."""
    write(tmp_path / "secret.tif", np.full((32, 32), 42, np.uint8), 20, nodata=None)
    return tmp_path / "secret.tif"


@pytest.fixture
def leading(tmp_path, secret):
    """A good GeoTIFF but for its metadata, which tell GDAL that its overviews are in another file."""
    write(tmp_path / "mask.tif", np.ones((64, 64), np.uint8), 10, nodata=None)
    with rasterio.open(tmp_path / "mask.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(secret))
    with rasterio.open(tmp_path / "mask.tif") as file:
        assert (file.read(1, out_shape=(32, 32)) == 42).all(), "GDAL follows it"
    return tmp_path / "mask.tif"


def opened(path):
    """Open a raster of nobody's item, as FarmVibes.AI's workflow does."""
    with open_raster(str(path)) as raster:
        return raster.shape


def test_no_reader_follows_a_file_to_overviews_elsewhere(leading):
    item = item_of(leading.parent, {"cloud_mask": leading.name})
    readers = [
        lambda: Views().classes(str(leading), GRID.coarsen(2), base=None, fill=255),
        lambda: read_labels(str(leading), GRID, Meaning(values={}, otherwise=0)),
        lambda: read_pixel(item, "cloud_mask", *MIDDLE),
        lambda: opened(leading),
    ]
    for read in readers:
        with pytest.raises(UnsupportedItemError, match="keeps its overviews in another file"):
            read()


def test_no_reader_of_masks_opens_a_vrt_whatever_its_name(tmp_path, secret):
    source = f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    lead = tmp_path / "mask.tif"
    lead.write_text(f'<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:{EPSG}</SRS>{band}</VRTDataset>')
    item = item_of(tmp_path, {"cloud_mask": lead.name})
    readers = [
        lambda: Views().classes(str(lead), GRID, base=None, fill=255),
        lambda: read_labels(str(lead), GRID, Meaning(values={}, otherwise=0)),
        lambda: read_pixel(item, "cloud_mask", *MIDDLE),
        lambda: opened(lead),
    ]
    for read in readers:
        with pytest.raises(ReadError, match=r"mask\.tif"):
            read()


def test_a_pixel_of_no_codes_is_refused_by_name(tmp_path):
    write(tmp_path / "mask.tif", np.full((64, 64), np.nan, np.float32), 10, nodata=None)
    with pytest.raises(UnsupportedItemError, match="'cloud_mask' has no georeferenced codes: float32"):
        read_pixel(item_of(tmp_path, {"cloud_mask": "mask.tif"}), "cloud_mask", *MIDDLE)


def test_a_name_that_no_file_can_have_is_no_file():
    assert not is_file("/" + "x" * 5000)
