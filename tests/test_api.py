from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from checks import checked, layers, read
from scenes import settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.api import BATCH
from stac_cloudmask.errors import BandNotFoundError, ConfigError

COLLECTION = "simulated-sentinel-2-l2a"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return settings_of(write_model(tmp_path_factory.mktemp("model")))


def test_items_are_named_in_any_way(sources, settings, tmp_path):
    catalog = str(sources[0].parents[2])
    (found, *_) = scm.search(catalog, max_items=1)
    for reference in (found, sources[0], str(sources[0]), [sources[0]], iter([found])):
        (result,) = scm.process(reference, out=tmp_path, settings=settings)
        assert result.item_id == "scene-0000"
    (result,) = scm.process("scene-0000", catalog=catalog, collection=COLLECTION, out=tmp_path, settings=settings)
    assert result.status == "up-to-date"


def test_a_search_is_read_as_it_is_needed(sources, settings, tmp_path):
    (found,) = scm.search(str(sources[0].parents[2]), max_items=1)
    masked = []

    def endless():
        for number in range(10 * BATCH):
            item = found.clone()
            item.id = "not a valid id" if number else item.id
            masked.append((tmp_path / f"{COLLECTION}-cloudmask" / "scene-0000_cloudmask").exists())
            yield item

    results = scm.process(endless(), out=tmp_path, settings=settings)
    assert results[0].status == "done"
    assert masked[BATCH - 1 : BATCH + 1] == [False, True]


def test_a_dataset_has_the_published_mask_where_it_lies(sources, settings, tmp_path):
    dataset = scm.cloud_mask(sources[0], settings=settings)
    (result,) = scm.process(sources[0], out=tmp_path, settings=settings)
    folder = tmp_path / f"{COLLECTION}-cloudmask" / "scene-0000_cloudmask"
    np.testing.assert_array_equal(dataset["cloud_mask"].values, layers(folder)["cloud_mask"])
    with rasterio.open(folder / "cloud_mask.tif") as raster:
        left, top = raster.xy(0, 0)
        assert dataset.odc.crs.epsg == raster.crs.to_epsg()
    assert (dataset.x.values[0], dataset.y.values[0]) == (left, top)
    assert dataset["cloud_mask"].attrs["flag_meanings"].split() == ["clear", "cloud", "cloud_shadow"]
    assert checked(tmp_path) == {"scene-0000_cloudmask"}
    assert result.status == "done"


def test_a_dataset_of_an_item_that_cannot_be_masked_is_its_error(sources, settings, tmp_path):
    body = read(sources[0])
    del body["assets"]["nir"]
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(body))
    with pytest.raises(BandNotFoundError, match="'nir'"):
        scm.cloud_mask(path, settings=settings)
    with pytest.raises(scm.StacCloudmaskError, match="there is no file"):
        scm.cloud_mask(tmp_path / "nowhere.json", settings=settings)


@pytest.mark.parametrize("count", [0, 2])
def test_a_dataset_is_of_one_item(sources, settings, tmp_path, count):
    path = tmp_path / "many.json"
    features = [read(source) for source in sources[:count]]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    with pytest.raises(ConfigError, match=f"holds {count} items"):
        scm.cloud_mask(path, settings=settings)
