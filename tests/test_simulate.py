from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
import rasterio
from rio_cogeo import cog_validate

from stac_cloudmask.core.pixels import block_mean
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.errors import ConfigError, UnsupportedItemError
from stac_cloudmask.simulate import scene as simulation
from stac_cloudmask.simulate.scene import Recipe, simulate, write_simulated_item
from stac_cloudmask.stac.bands import BOA_OFFSET, resolve
from tests.offline import Validator

SMALL = {"height": 90, "width": 120}


def item_of(path):
    return pystac.Item.from_file(path)


def test_the_same_recipe_gives_the_same_scene():
    one, other = simulate(Recipe(**SMALL, seed=1)), simulate(Recipe(**SMALL, seed=1))
    for key in one.patches:
        np.testing.assert_array_equal(one.layer(key), other.layer(key))


def test_another_seed_gives_another_scene():
    assert not np.array_equal(simulate(Recipe(**SMALL)).layer("red"), simulate(Recipe(**SMALL, seed=1)).layer("red"))


@pytest.mark.parametrize(("place", "is_alike"), [(7, True), (None, False)])
def test_scenes_of_one_place_have_one_ground_under_other_clouds(place, is_alike):
    first, second = (simulate(Recipe(**SMALL, place=place, seed=seed)) for seed in (1, 2))
    assert not np.array_equal(first.layer("reference"), second.layer("reference"))
    clear = (first.layer("reference") == 0) & (second.layer("reference") == 0)
    apart = np.abs(first.layer("nir").astype(int) - second.layer("nir").astype(int))[clear]
    assert (np.median(apart) < 100) == is_alike


def test_bands_have_the_pixel_sizes_of_sentinel_2():
    scene = simulate(Recipe(**SMALL))
    sizes = {key: scene.recipe.layer_grid(key).gsd for key in scene.patches}
    assert {key for key, gsd in sizes.items() if gsd == 10} == {"blue", "green", "red", "nir", "reference"}
    assert {key for key, gsd in sizes.items() if gsd == 60} == {"coastal", "nir09"}
    assert sizes["scl"] == 20


@pytest.mark.parametrize(("height", "width"), [(4, 5), (61, 47), (50, 40)])
def test_any_size_fills_its_grids(height, width):
    scene = simulate(Recipe(height=height, width=width))
    assert scene.layer("blue").shape == (height, width)
    assert all(scene.layer(key).shape == scene.recipe.layer_grid(key).shape for key in scene.patches)


def test_a_large_scene_repeats_a_patch_in_every_band(monkeypatch):
    monkeypatch.setattr(simulation, "PATCH", 48)
    scene = simulate(Recipe(height=130, width=100))
    red, coastal = scene.layer("red"), scene.layer("coastal")
    np.testing.assert_array_equal(red[48:96, :48], red[:48, :48])
    np.testing.assert_array_equal(coastal[8:16, :8], coastal[:8, :8])
    assert red.shape == (130, 100)
    np.testing.assert_array_equal(block_mean(scene.layer("red"), 1), red)


def test_the_wedge_has_no_data_in_any_layer():
    scene = simulate(Recipe(**SMALL, wedge=True))
    reference = scene.layer("reference")
    assert np.all(reference[:, -6:] == 255)
    assert np.all(reference[:, :60] != 255)
    np.testing.assert_array_equal(scene.layer("red") == 0, reference == 255)
    assert np.all(scene.layer("scl")[:, -3:] == 0)


def test_the_item_states_the_offset_of_its_pixels(tmp_path):
    path = write_simulated_item(tmp_path, Recipe(**SMALL, bands=("red",)))
    assert resolve(item_of(path), ("red",)).bands[0].offset.dn == BOA_OFFSET


def test_a_simulated_catalog_is_valid_stac(tmp_path, shared):
    validate = Validator(shared / "data" / "schemas")
    paths = [write_simulated_item(tmp_path, Recipe(height=20, width=20, seed=seed)) for seed in (0, 1)]
    home = paths[0].parents[1]
    for path in (*paths, home / "collection.json", tmp_path / "catalog.json"):
        validate(json.loads(path.read_text()))


def test_a_catalog_lists_every_item_once(tmp_path):
    for seed in (0, 1, 1):
        write_simulated_item(tmp_path, Recipe(height=20, width=20, seed=seed, bands=("red",)))
    items = list(pystac.Catalog.from_file(tmp_path / "catalog.json").get_items(recursive=True))
    assert sorted(item.id for item in items) == ["SIM_33TXK_000000_L2A", "SIM_33TXK_000001_L2A"]
    interval = pystac.Collection.from_file(tmp_path / simulation.COLLECTION / "collection.json").extent.temporal
    assert interval.intervals[0] == [items[0].datetime, items[1].datetime]


def test_files_hold_what_the_item_says(tmp_path):
    path = write_simulated_item(tmp_path, Recipe(height=20, width=27))
    item = item_of(path)
    for key, asset in item.assets.items():
        with rasterio.open(path.parent / f"{key}.tif") as raster:
            stated = asset.extra_fields
            assert list(raster.shape) == stated["proj:shape"]
            assert list(raster.transform)[:6] == stated["proj:transform"]
            assert raster.dtypes[0] == stated["raster:bands"][0]["data_type"]
            assert raster.nodata == stated["raster:bands"][0]["nodata"]
            assert raster.crs.to_epsg() == item.ext.proj.epsg


def test_files_are_cloud_optimized(tmp_path):
    path = write_simulated_item(tmp_path, Recipe(height=600, width=600, bands=("red",)))
    for file in sorted(path.parent.glob("*.tif")):
        valid, errors, warnings = cog_validate(file, strict=True)
        assert (valid, errors, warnings) == (True, [], [])


def test_bands_and_scl_can_be_left_out(tmp_path):
    path = write_simulated_item(tmp_path, Recipe(**SMALL, bands=("blue",), scl=False))
    assert set(item_of(path).assets) == {"blue", "reference"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"height": 3},
        {"seed": -1},
        {"cumulus": 1.5},
        {"sun": Sun(azimuth=0.0, elevation=0.0)},
        {"bands": ("pan",)},
    ],
)
def test_a_recipe_that_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(ConfigError, match="cannot be drawn"):
        Recipe(**wrong)


def test_an_id_that_leaves_the_folder_is_refused(tmp_path):
    with pytest.raises(UnsupportedItemError, match="cannot be part of a path"):
        write_simulated_item(tmp_path, Recipe(height=4, width=4), item_id="../out")
