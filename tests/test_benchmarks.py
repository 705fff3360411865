from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio

from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ACCURACY = BENCHMARKS / "accuracy.py"
BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalog")
    write_simulated_item(folder, Recipe(height=128, width=128, bands=BANDS))
    write_simulated_item(folder, Recipe(height=128, width=128, seed=1, bands=BANDS, scl=False))
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(ACCURACY), *map(str, arguments)])
    runpy.run_path(str(ACCURACY), run_name="__main__")


def test_the_accuracy_table_scores_every_mask_of_every_scene(monkeypatch, capsys, catalog, tmp_path):
    run(monkeypatch, "--data", catalog, "--json", tmp_path / "scores.json", "--pictures", tmp_path / "maps")
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [(row["scene"][4:16], row["class"]) for row in rows] == [
        (f"33TXK_00000{seed}", kind) for seed in (0, 1) for kind in ("cloud", "shadow")
    ]
    assert [len(row["masks"]) for row in rows] == [4, 4, 3, 3]
    assert all(0 <= one["f1"] <= 1 for row in rows for one in row["masks"].values())
    assert capsys.readouterr().out.count("| SIM_33TXK_") == 4
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2


def test_a_folder_without_a_catalog_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", tmp_path)
    assert "has no catalog.json" in capsys.readouterr().err


@pytest.fixture
def robustness(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return runpy.run_path(str(BENCHMARKS / "robustness.py"))


@pytest.fixture
def scene(catalog):
    item = next(pystac.Catalog.from_file(str(catalog / "catalog.json")).get_items(recursive=True))
    item.make_asset_hrefs_absolute()
    return item


def pixels(asset):
    with rasterio.open(asset.href) as source:
        return source.read(1), source.bounds


def test_a_scene_cut_into_pieces_is_whole_when_they_are_put_together(robustness, scene, tmp_path):
    pieces = {}
    for at in ((0, 0), (0, 1), (1, 0), (1, 1)):
        (tmp_path / f"{at}").mkdir()
        piece = robustness["copied"](scene, robustness["Change"](parts=(2, 2)), at, tmp_path / f"{at}")
        pieces[at] = pixels(piece.assets["nir"])
    whole, bounds = pixels(scene.assets["nir"])
    rows = [np.hstack([pieces[row, col][0] for col in (0, 1)]) for row in (0, 1)]
    np.testing.assert_array_equal(np.vstack(rows), whole)
    assert pieces[0, 0][1][::3] == bounds[::3]
    assert pieces[1, 1][1][1:3] == bounds[1:3]


def test_a_mirrored_scene_has_the_sun_on_the_other_side(robustness, scene, tmp_path):
    copy = robustness["copied"](scene, robustness["Change"](mirror=(1,)), (0, 0), tmp_path)
    np.testing.assert_array_equal(pixels(copy.assets["nir"])[0], pixels(scene.assets["nir"])[0][:, ::-1])
    assert copy.properties["view:sun_azimuth"] == 360 - scene.properties["view:sun_azimuth"]


def test_haze_falls_on_bands_alone_and_not_where_nothing_is(robustness, scene, tmp_path):
    copy = robustness["copied"](scene, robustness["CHANGES"]["haze, 0.02 in all bands"], (0, 0), tmp_path)
    before, after = (pixels(one.assets["nir"])[0] for one in (scene, copy))
    np.testing.assert_array_equal(after, np.where(before > 0, before + 200, 0))
    np.testing.assert_array_equal(pixels(copy.assets["reference"])[0], pixels(scene.assets["reference"])[0])
