from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio

from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.item import process_item
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.search import load_items


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scl")
    path = write_simulated_item(folder, Recipe(height=192, width=180, bands=("blue", "green", "red", "nir")))
    (item,) = load_items([str(path)])
    result = process_item(item, settings=Settings(scl=True), out=str(folder / "out"))
    return item, Path(result.output)


def pixels(href):
    with rasterio.open(href) as file:
        return file.read(1)


def test_the_scene_classification_agrees_with_the_mask_and_else_with_the_product(published):
    item, output = published
    mask, scl = pixels(output.parent / "cloud_mask.tif"), pixels(output.parent / "scl.tif")
    given = np.repeat(np.repeat(pixels(item.assets["scl"].href), 2, 0), 2, 1)[: scl.shape[0], : scl.shape[1]]
    assert {1, 2} <= set(np.unique(mask))
    np.testing.assert_array_equal(np.isin(scl, (8, 9, 10)), mask == 1)
    np.testing.assert_array_equal(scl == 3, mask == 2)
    kept = (mask == 0) & ~np.isin(given, (3, 8, 9, 10))
    np.testing.assert_array_equal(scl[kept], given[kept])
    np.testing.assert_array_equal(scl == 0, mask == 255)


def test_the_file_and_its_asset_name_esas_classes(published):
    _, output = published
    asset = json.loads(output.read_text())["assets"]["scl"]
    assert [entry["value"] for entry in asset["classification:classes"]] == list(range(12))
    with rasterio.open(output.parent / "scl.tif") as file:
        assert file.nodata == 0
        assert file.colormap(1)[9][:3] == (255, 255, 255)
        assert file.tags(1)["CLASS_11"] == "Snow or ice"


def test_nobody_gets_one_unasked():
    assert not Settings().scl
