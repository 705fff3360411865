from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform

import stac_cloudmask as scm
from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import SCL_CLASSES
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


def test_the_products_own_stays_beside_it(published):
    item, output = published
    body = json.loads(output.read_text())
    assert body["assets"]["source_scl"]["href"] == item.assets["scl"].href
    assert body["properties"]["stac_cloudmask:product_mask"] == "source_scl"


@pytest.mark.parametrize(
    ("mask", "now", "why"), [(0, (4, 5, 6, 7), "clear"), (1, (8, 9), "cloud"), (2, (3,), "cloud shadow")]
)
def test_explain_says_what_was_replaced(published, mask, now, why):
    item, output = published
    with rasterio.open(output.parent / "scl.tif") as file:
        scl, place, crs = file.read(1), file.transform, file.crs
    given = np.repeat(np.repeat(pixels(item.assets["scl"].href), 2, 0), 2, 1)[: scl.shape[0], : scl.shape[1]]
    row, col = np.argwhere((scl != given) & (pixels(output.parent / "cloud_mask.tif") == mask))[0]
    ((lon,), (lat,)) = transform(crs, "EPSG:4326", *([at] for at in place * (col + 0.5, row + 0.5)))
    found = scm.explain(str(output), lon, lat)
    old, new = int(given[row, col]), int(scl[row, col])
    assert (found.row, found.col, found.scl) == (row, col, old)
    assert new in now
    names = [f"{code} ({SCL_CLASSES[code].title.lower()})" for code in (old, new)]
    assert found.reasons[-1] == f"SCL {names[0]} -> {names[1]}, since the mask calls it {why}"


def test_explain_does_not_speak_of_what_stayed(published):
    item, output = published
    scl = pixels(output.parent / "scl.tif")
    given = np.repeat(np.repeat(pixels(item.assets["scl"].href), 2, 0), 2, 1)[: scl.shape[0], : scl.shape[1]]
    with rasterio.open(output.parent / "scl.tif") as file:
        row, col = np.argwhere(scl == given)[0]
        ((lon,), (lat,)) = transform(file.crs, "EPSG:4326", *([at] for at in file.transform * (col + 0.5, row + 0.5)))
    assert not any("->" in reason for reason in scm.explain(str(output), lon, lat).reasons)


def test_nobody_gets_one_unasked():
    assert not Settings().scl
