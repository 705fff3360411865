from __future__ import annotations

import os
from urllib.parse import urlsplit

import numpy as np
import pytest
from s3fs import S3FileSystem

from stac_cloudmask.errors import BandNotFoundError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.reader import open_scene
from stac_cloudmask.stac.search import load_items, search
from tests.s3 import s3_server
from tests.stac.rasters import digital_numbers, item_of, write

HASTY = RetryPolicy(seconds=0.02, pause=0.01)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """A bucket with a catalog of one item, and GDAL led to it."""
    folder = tmp_path_factory.mktemp("s3")
    write(folder / "blue.tif", digital_numbers((1100, 90)), 10)
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_S3_ENDPOINT", urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc)
        patch.setenv("AWS_HTTPS", "NO")
        patch.setenv("AWS_VIRTUAL_HOSTING", "FALSE")
        item = item_of(url, {"blue": "blue.tif"}, name="S2_s3")
        item.save_object(include_self_link=False, dest_href=str(folder / "S2_s3.json"))
        links = [{"rel": "item", "href": "./S2_s3.json"}]
        store = S3FileSystem()
        store.put_file(str(folder / "blue.tif"), f"{url}/blue.tif")
        store.put_file(str(folder / "S2_s3.json"), f"{url}/S2_s3.json")
        catalog = {"type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "c", "links": links}
        with store.open(f"{url}/catalog.json", "w") as file:
            file.write(str(catalog).replace("'", '"'))
        yield url


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
def test_a_catalog_in_a_bucket_is_searched_and_read(bucket, loader):
    (item,) = search(f"{bucket}/catalog.json")
    assert item.assets["blue"].href == f"{bucket}/blue.tif"
    scene = open_scene(resolve(item, ["blue"], want_scl=False), loader=loader, retry=HASTY)
    np.testing.assert_array_equal(scene.dn(0, 1100)[0], digital_numbers((1100, 90)))


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
def test_an_object_that_is_not_there_is_a_missing_band(bucket, loader):
    (item,) = load_items([f"{bucket}/S2_s3.json"])
    item.assets["blue"].href = f"{bucket}/nowhere.tif"
    with pytest.raises(BandNotFoundError, match=r"asset 'blue' \(s3://.*nowhere.tif\) does not exist"):
        open_scene(resolve(item, ["blue"], want_scl=False), loader=loader, retry=HASTY)


def test_an_item_that_is_not_in_its_bucket_is_a_failure(bucket):
    (failure,) = load_items([f"{bucket}/nowhere.json"])
    assert "there is no object" in str(failure.error)
