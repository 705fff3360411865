"""How much of a place is clear on every date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.warp import transform
from scenes import SIDE, settings_of, write_model

import stac_cloudmask as scm
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Results of three dates, the last of which has no data in the east."""
    folder = tmp_path_factory.mktemp("series")
    recipes = [Recipe(height=SIDE, width=SIDE, bands=BANDS, seed=seed, wedge=seed == 3) for seed in (1, 2, 3)]
    sources = [write_simulated_item(folder / "source", recipe) for recipe in recipes]
    return scm.process(sources, out=folder / "out", settings=settings_of(write_model(folder / "model")))


def codes(result):
    with rasterio.open(Path(result.output).with_name("cloud_mask.tif")) as file:
        return file.read(1), file


def window_in_degrees(result, rows, cols):
    """A polygon of longitude and latitude around the middles of some pixels."""
    _, file = codes(result)
    ends = [file.transform * (col, row) for row in rows for col in cols]
    lons, lats = transform(file.crs, "EPSG:4326", *zip(*ends, strict=True))
    return shapely.MultiPoint(list(zip(lons, lats, strict=True))).convex_hull


def expected(result, rows, cols):
    part = codes(result)[0][slice(*rows), slice(*cols)]
    counts = np.bincount(part.ravel(), minlength=256)
    return [*(100 * counts[:3] / counts[:3].sum()), 100 * counts[:3].sum() / part.size]


def test_shares_are_those_of_the_pixels_in_the_area(masks):
    rows, cols = (20, 60), (10, 90)
    table = scm.clear_share(masks, geometry=window_in_degrees(masks[0], rows, cols))
    assert list(table.columns) == ["clear", "cloud", "cloud_shadow", "valid", "items"]
    found = table[["clear", "cloud", "cloud_shadow", "valid"]].to_numpy(float)
    np.testing.assert_allclose(found, [expected(one, rows, cols) for one in masks])
    assert table["valid"].iloc[0] == 100 > table["valid"].iloc[2]
    assert table.index.is_monotonic_increasing
    assert isinstance(table.index, pd.DatetimeIndex)


def test_a_folder_and_a_box_are_taken_too(masks):
    area = window_in_degrees(masks[0], (10, 30), (10, 30))
    folder = Path(masks[0].output).parents[2]
    one, other = scm.clear_share(folder, bbox=area.bounds), scm.clear_share(masks, geometry=shapely.box(*area.bounds))
    pd.testing.assert_frame_equal(one, other)


def test_where_nothing_is_valid_shares_are_unknown(masks):
    table = scm.clear_share(masks, geometry=window_in_degrees(masks[0], (40, 60), (94, 96)))
    assert table["clear"].isna().tolist() == [False, False, True]
    assert table["valid"].tolist() == [100, 100, 0]


def test_neighbors_of_one_pass_are_one_date(masks, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(Path(masks[0].output).parent, moved)
    path = moved / Path(masks[0].output).name
    body = json.loads(path.read_text())
    body["id"] = "neighbor"
    path.write_text(json.dumps(body))
    table = scm.clear_share([masks[0], path], geometry=window_in_degrees(masks[0], (0, 50), (0, 50)))
    assert len(table) == 1
    assert table["items"].iloc[0].endswith(", neighbor")


def test_an_area_that_no_mask_touches_is_an_error(masks):
    with pytest.raises(ConfigError, match=r"no mask touches the area, whose bbox is \(0\.0, 0\.0, 1\.0, 1\.0\)"):
        scm.clear_share(masks, bbox=(0, 0, 1, 1))
    with pytest.raises(ConfigError, match="by either bbox or geometry"):
        scm.clear_share(masks)


def test_the_plot_has_a_bar_for_every_class_of_every_date(masks):
    table = scm.clear_share(masks, geometry=window_in_degrees(masks[0], (20, 60), (10, 90)))
    (axes,) = scm.plot_clear_share(table).axes
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, 3)
    np.testing.assert_allclose(heights.sum(axis=0), 100)
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == [
        f"{time:%Y-%m-%d}" for time in table.index
    ]
    assert "% valid" in axes.get_xticklabels()[2].get_text()
