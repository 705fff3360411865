from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import rasterio
import xarray as xr
from checks import checked, layers, read
from scenes import settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.api import REFERENCES_AT_ONCE
from stac_cloudmask.errors import BandNotFoundError, ConfigError
from stac_cloudmask.progress import Stage
from stac_cloudmask.stac.assets import VOTES

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
        for number in range(10 * REFERENCES_AT_ONCE):
            item = found.clone()
            item.id = "not a valid id" if number else item.id
            masked.append((tmp_path / f"{COLLECTION}-cloudmask" / "scene-0000_cloudmask").exists())
            yield item

    results = scm.process(endless(), out=tmp_path, settings=settings)
    assert results[0].status == "done"
    assert masked[REFERENCES_AT_ONCE - 1 : REFERENCES_AT_ONCE + 1] == [False, True]


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


def test_a_dataset_says_what_it_is_and_what_made_it(sources, settings):
    dataset = scm.cloud_mask(sources[0], settings=settings)
    item = read(sources[0])
    assert dataset.time.values == np.datetime64(item["properties"]["datetime"].rstrip("Z"))
    attrs = dataset.attrs
    assert (attrs["item_id"], attrs["policy"], attrs["version"]) == ("scene-0000", "calibrated", scm.__version__)
    assert attrs["models"] == "tiny (cloud and shadow)"
    assert attrs["source"] == str(sources[0])
    decoded = dataset.cloud_mask.attrs
    assert dict(zip(decoded["flag_values"], decoded["flag_meanings"].split(), strict=True)) == {
        0: "clear",
        1: "cloud",
        2: "cloud_shadow",
    }
    votes = dataset.mask_votes.attrs
    assert votes["flag_meanings"].split() == [name for name, _ in VOTES]
    assert votes["flag_masks"].tolist() == [1, 2, 4, 8, 16, 32]


def test_a_dataset_survives_netcdf_conventions(sources, settings):
    dataset = scm.cloud_mask(sources[0], settings=settings)
    decoded = xr.decode_cf(dataset)
    assert np.isnan(decoded.cloud_mask.values).sum() == np.count_nonzero(dataset.cloud_mask.values == 255)


def test_progress_is_told_stages_and_results(sources, settings, tmp_path):
    told = []
    results = scm.process(sources[:2], out=tmp_path, settings=settings, progress=told.append)
    assert [event for event in told if isinstance(event, scm.Result)] == results
    stages = [event for event in told if isinstance(event, Stage)]
    assert [stage.name for stage in stages if stage.done == stage.total] == ["infer", "merge", "write"] * 2
    told.clear()
    scm.cloud_mask(sources[0], settings=settings, progress=told.append)
    assert {stage.name for stage in told} == {"infer", "merge"}


def test_progress_without_a_terminal_prints_nothing(sources, settings, tmp_path, capfd):
    scm.process(sources[0], out=tmp_path, settings=settings, progress=True)
    assert capfd.readouterr() == ("", "")


def test_logging_says_what_is_read_skipped_and_written(sources, settings, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="stac_cloudmask")
    (result,) = scm.process(sources[0], out=tmp_path, settings=settings)
    scm.process(sources[0], out=tmp_path, settings=settings)
    scm.process(sources[0], out=tmp_path, settings=settings, bbox=(100, 10, 101, 11))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("stac_cloudmask")]
    read_line, written, up_to_date, skipped = lines
    assert read_line.startswith("item 'scene-0000': reading blue, green, red, nir, scl, 96 x 96 pixels of 10 m, from ")
    assert written.startswith(f"item 'scene-0000': wrote {result.output} in ")
    assert up_to_date == f"item 'scene-0000': {result.output} is up to date"
    assert skipped.startswith("skipped: item 'scene-0000' does not touch the area")


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
