from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import shapely
from checks import checked, layers, read
from hypothesis import given, strategies as st
from offline import Validator
from rasterio.warp import transform, transform_bounds
from scenes import BANDS, settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.errors import ConfigError, OutsideAreaError
from stac_cloudmask.pipeline.mask import (
    CONTEXT,
    HIGHEST,
    MERGE_MARGIN,
    STRIDE,
    area_of,
    clip,
    needed,
    passes_of,
    surroundings,
)
from stac_cloudmask.review.evaluate import evaluate
from stac_cloudmask.review.explain import explain
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import EPSG, LEFT, TOP, Recipe, write_simulated_item
from stac_cloudmask.stac.bands import Sources
from tests.stac.range_server import serve

COLLECTION = "simulated-sentinel-2-l2a-cloudmask"
SIDE = 1024
PLAIN = {"merge": "union", "buffer": 0.0}
"""A merge that looks at one pixel at a time, as the tests' model does: halos must not matter."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 1, height=SIDE, width=SIDE, seed=3, wedge=True)[0]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def whole(source, model):
    return scm.cloud_mask(source, settings=settings_of(model, **PLAIN))


@pytest.fixture(scope="module")
def valid(shared):
    return Validator(shared / "data" / "schemas")


def box_of(window):
    """The box in degrees just inside of some pixels of a simulated item."""
    west, south = LEFT + 10 * (window.col_off + 0.3), TOP - 10 * (window.rows.stop - 0.3)
    east, north = LEFT + 10 * (window.cols.stop - 0.3), TOP - 10 * (window.row_off + 0.3)
    return transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", west, south, east, north)


def same_pixels(whole, part):
    return whole.sel(x=part.x, y=part.y)


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
@pytest.mark.parametrize("resolution", [None, 20.0])
def test_a_clipped_mask_is_that_part_of_the_whole(source, model, loader, resolution):
    settings = settings_of(model, **PLAIN, loader=loader, resolution=resolution, max_halo=500.0)
    box = box_of(Window(417, 233, 190, 230))
    part, all_of_it = scm.cloud_mask(source, bbox=box, settings=settings), scm.cloud_mask(source, settings=settings)
    for name in ("cloud_mask", "cloud_probability", "shadow_probability", "mask_votes"):
        np.testing.assert_array_equal(part[name], same_pixels(all_of_it, part)[name])


FAST = scm.Settings(cloud_model=("fast",), shadow_model="fast")
REAL = {
    "earth-search-33twl/S2A_33TWL_20230818_0_L2A": FAST,
    "earth-search-33twl/S2B_33TWL_20230810_0_L2A": None,
    "hard/hard-cases/ireland_20221005": None,
}


PLACES = ((0.5, 0.5), (0.25, 0.7), (0.75, 0.3))
"""Boxes in and beside the middle of a scene, where windows of the whole fade into each other."""


def agreement(path, settings=None):
    """The share of pixels in three boxes whose class is that of the whole mask."""
    item = pystac.Item.from_file(path)
    item.make_asset_hrefs_absolute()
    whole = scm.cloud_mask(item, settings=settings)
    height, width = whole.cloud_mask.shape
    side = min(height, width, 1350) // 3
    equal = []
    for down, across in PLACES:
        top, left = int(height * down) - side // 2, int(width * across) - side // 2
        ys, xs = whole.y.values[[top, top + side - 1]], whole.x.values[[left, left + side - 1]]
        box = transform_bounds(whole.odc.crs.to_wkt(), "EPSG:4326", xs[0], ys[1], xs[1], ys[0])
        part = scm.cloud_mask(item, bbox=box, settings=settings)
        equal.append((part.cloud_mask.values == same_pixels(whole, part).cloud_mask.values).ravel())
    return np.concatenate(equal).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "settings"), REAL.items())
def test_the_clipped_mask_of_a_real_scene_is_that_part_of_the_whole(shared, scene, settings):
    assert agreement(shared / "data" / scene / f"{Path(scene).name}.json", settings) >= 0.995


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "settings"), [(0, None), (1, FAST), (2, FAST)])
def test_long_shadows_fall_into_an_area_from_outside(tmp_path, seed, settings):
    recipe = Recipe(
        height=1500, width=1500, seed=seed, cumulus=0.3, sun=Sun(azimuth=150.0, elevation=25.0), bands=BANDS
    )
    assert agreement(write_simulated_item(tmp_path, recipe), settings) >= 0.995


def test_a_small_box_reads_and_computes_a_small_part(source, model, whole):
    dry = scm.process(source, out="nowhere", bbox=box_of(Window(500, 500, 50, 60)), dry_run=True,
                      settings=settings_of(model, max_halo=0.0))  # fmt: skip
    [everything] = scm.process(source, out="nowhere", dry_run=True, settings=settings_of(model))
    assert dry[0].estimate.pixels < 60 * 70
    assert dry[0].estimate.computed < everything.estimate.computed / 3
    assert dry[0].estimate.bytes < everything.estimate.bytes / 3


def test_pixels_that_a_polygon_does_not_touch_are_nodata(source, model, whole):
    west, south, east, north = box_of(Window(300, 400, 200, 300))
    triangle = shapely.Polygon([(west, south), (east, south), (west, north)])
    part = scm.cloud_mask(source, geometry=triangle, settings=settings_of(model, **PLAIN))
    same = same_pixels(whole, part)
    lon, lat = transform(part.odc.crs.to_wkt(), "EPSG:4326", *(axis.ravel() for axis in np.meshgrid(part.x, part.y)))
    inside = shapely.contains_xy(triangle, lon, lat).reshape(part.cloud_mask.shape)
    np.testing.assert_array_equal(part.cloud_mask.values[inside], same.cloud_mask.values[inside])
    out = ~inside & (part.cloud_mask.values != 255)
    assert np.count_nonzero(out) < 3 * (200 + 300)  # pixels that the border cuts
    assert (part.cloud_mask.values[:100, -100:] == 255).all()
    assert (part.mask_votes.values[part.cloud_mask.values == 255] == 255).all()


def test_a_clipped_item_is_a_valid_item_of_its_own_beside_the_whole_one(source, model, valid, tmp_path):
    box = box_of(Window(300, 400, 200, 300))
    settings = settings_of(model, probabilities=True, votes=True)
    [clipped] = scm.process(source, out=tmp_path, bbox=box, settings=settings)
    [again] = scm.process(source, out=tmp_path, bbox=box, settings=settings)
    [other] = scm.process(source, out=tmp_path, geometry=shapely.box(*box).buffer(0.001), settings=settings)
    [whole] = scm.process(source, out=tmp_path, settings=settings)
    assert [clipped.status, again.status, other.status, whole.status] == ["done", "up-to-date", "done", "done"]
    names = checked(tmp_path, valid)
    assert len(names) == 3
    path = Path(clipped.output)
    body = read(path)
    assert body["id"].startswith("scene-0000_")
    assert body["id"].endswith("_cloudmask")
    assert shapely.from_geojson(json.dumps(body["geometry"])).equals(shapely.box(*np.round(box, 7)))
    assert body["bbox"] == pytest.approx(box, abs=1e-6)
    assert body["properties"]["stac_cloudmask:settings"]["area"] == area_of(bbox=box)
    codes = layers(path.parent)["cloud_mask"]
    assert codes.shape == tuple(body["properties"]["proj:shape"])
    share = 100 * np.count_nonzero(codes == 1) / np.count_nonzero(codes != 255)
    assert body["properties"]["eo:cloud_cover"] == pytest.approx(share, abs=1e-3)
    with rasterio.open(path.parent / "cloud_mask.tif") as raster:
        assert raster.bounds == tuple(body["properties"]["proj:bbox"])


def test_bands_and_mask_of_a_clipped_item_load_together(source, model, tmp_path):
    [result] = scm.process(source, out=tmp_path, bbox=box_of(Window(300, 400, 200, 300)), settings=settings_of(model))
    item = pystac.Item.from_file(result.output)
    item.make_asset_hrefs_absolute()
    loaded = odc.stac.load([item], bands=["cloud_mask", "red"], like=scm.cloud_mask(
        source, bbox=box_of(Window(300, 400, 200, 300)), settings=settings_of(model)))  # fmt: skip
    np.testing.assert_array_equal(loaded["cloud_mask"].values[0], layers(Path(result.output).parent)["cloud_mask"])
    with rasterio.open(source.parent / "red.tif") as raster:
        window = raster.window(*item.properties["proj:bbox"])
        np.testing.assert_array_equal(loaded["red"].values[0], raster.read(1, window=window))


def test_report_evaluate_explain_and_publish_work_with_clipped_items(source, model, tmp_path):
    window = Window(300, 400, 200, 300)
    [result] = scm.process(source, out=tmp_path, bbox=box_of(window), settings=settings_of(model, votes=True))
    report = evaluate(tmp_path, references=["reference"])
    assert report.to_dict()
    page = build_report(str(tmp_path), tmp_path / "report.html")
    assert Path(page).stat().st_size > 10_000
    item = pystac.Item.from_file(result.output)
    lon, lat = shapely.box(*item.bbox).centroid.coords[0]
    why = explain(result.output, lon, lat)
    assert why is not None
    copy = tmp_path.with_name("copy")
    assert [sent.status for sent in scm.publish(str(tmp_path), to=str(copy))] == ["done"]
    assert checked(copy) == {item.id}


def test_an_area_beside_the_item_or_without_data_in_it_is_said_and_no_failure(source, model, whole, tmp_path):
    settings = settings_of(model)
    with pytest.raises(OutsideAreaError, match=r"item 'scene-0000' does not touch the area.*bbox"):
        scm.cloud_mask(source, bbox=(100, 10, 101, 11), settings=settings)
    empty = box_of(Window(900, 1000, 12, 12))
    assert (whole.cloud_mask.values[890:920, 990:1020] == 255).all()
    with pytest.raises(OutsideAreaError, match=r"item 'scene-0000' does not touch the area.*bbox"):
        scm.cloud_mask(source, bbox=(100, 10, 101, 11), settings=settings)
    rows, cols = np.nonzero(whole.cloud_mask.values == 255)
    corner = np.argmin(np.abs(rows - rows.mean()) + np.abs(cols - cols.min()))
    empty = box_of(Window(int(rows[corner]), int(cols[corner]) + 8, 1, 1))
    with pytest.raises(OutsideAreaError, match="item 'scene-0000' has no data in the area"):
        scm.cloud_mask(source, bbox=empty, settings=settings)
    for box in ((100, 10, 101, 11), empty):
        [result] = scm.process(source, out=tmp_path, bbox=box, settings=settings)
        assert (result.status, result.error, result.output) == ("skipped", None, None)
        assert "the area" in result.notes[0]
    assert not (tmp_path / COLLECTION).exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bbox": (1, 2, 3)}, "4 numbers, west south east north, got 1 2 3$"),
        ({"bbox": (1, 2, 3, "4")}, "4 numbers, west south east north, got 1 2 3 '4'"),
        ({"bbox": (1, 4, 3, 2)}, "west south east north in degrees"),
        ({"bbox": (600000, 0, 700000, 1)}, "in degrees, longitude before latitude, got 600000 0 700000 1"),
        ({"bbox": (1, 2, 3, 4), "geometry": "POINT (1 2)"}, "not both"),
        ({"geometry": "POLYGON EMPTY"}, "empty"),
    ],
)
def test_what_is_no_area_is_a_wrong_setting(source, model, options, says):
    with pytest.raises(ConfigError, match=says):
        scm.cloud_mask(source, settings=settings_of(model), **options)


GRID = Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=10, height=10980, width=10980)


@pytest.mark.parametrize(("azimuth", "sides"), [(0.0, "north"), (90.0, "east"), (180.0, "south"), (270.0, "west")])
def test_the_halo_reaches_towards_the_sun_as_far_as_clouds_can_be(azimuth, sides):
    box = transform_bounds("EPSG:32633", "EPSG:4326", 650000, 4940000, 655000, 4945000)
    settings = scm.Settings(area=area_of(bbox=box), max_halo=50_000.0)
    sun = Sun(azimuth=azimuth, elevation=45.0)
    place = clip(Sources(item_id="x", bands=(), scl=None, sun=(azimuth, 45.0)), GRID, settings)
    kept, read = place.kept, surroundings(place.kept, GRID, settings.max_halo, sun)
    assert all(value % STRIDE == 0 for value in (place.read.row_off, place.read.col_off))
    assert place.read.height < read.height + 2 * STRIDE
    assert place.read.row_off <= read.row_off < read.rows.stop <= place.read.rows.stop
    assert place.read.col_off <= read.col_off < read.cols.stop <= place.read.cols.stop
    reach = {
        "north": kept.row_off - read.row_off,
        "south": read.rows.stop - kept.rows.stop,
        "west": kept.col_off - read.col_off,
        "east": read.cols.stop - kept.cols.stop,
    }
    for side, pixels in reach.items():
        wanted = (MERGE_MARGIN + (HIGHEST if side == sides else 0)) / 10
        assert wanted <= pixels <= wanted + 1
    assert surroundings(kept, GRID, 0.0, None).height == kept.height + 2 * CONTEXT


STARTS, LENGTHS = st.integers(0, 3000), st.integers(1, 400)


@given(top=STARTS, left=STARTS, height=LENGTHS, width=LENGTHS, halo=st.sampled_from([0.0, 6e3]))
def test_windows_of_an_area_are_those_of_the_whole_that_touch_it_and_cover_its_surroundings(
    top, left, height, width, halo
):
    kept, grid = Window(top, left, height, width), replace(GRID, height=3600, width=3500)
    [one] = passes_of(scm.Settings(), grid.shape)
    around = surroundings(kept, grid, halo, Sun(azimuth=150.0, elevation=30.0))
    found = needed(one.plan, kept, around)
    for axis, side in (("rows", around.rows), ("cols", around.cols)):
        spans = {(span.start, span.stop) for row in found for chip in row for span in [getattr(chip.write, axis)]}
        assert min(spans)[0] <= side.start < side.stop <= max(stop for _, stop in spans)
        assert all(start < stop for (_, stop), (start, _) in pairwise(sorted(spans)))
    writes = {chip.write for row in found for chip in row}
    for chip in (chip for row in one.plan for chip in row):
        rows, cols = chip.write.rows, chip.write.cols
        is_near = rows.start < kept.rows.stop and rows.stop > kept.rows.start
        is_near &= cols.start < kept.cols.stop and cols.stop > kept.cols.start
        assert chip.write in writes or not is_near


def test_only_the_blocks_of_the_box_and_its_halo_are_read_over_http(tmp_path, model):
    [path] = write_items(tmp_path, 1, height=1830, width=1830, seed=1)
    for name in ("blue", "green", "red", "nir", "scl"):
        tiled(path.parent / f"{name}.tif")
    window = Window(700, 800, 100, 100)
    settings = settings_of(model, max_halo=300.0)
    with serve(tmp_path) as site:
        url = f"{site.url}/{path.relative_to(tmp_path)}"
        scm.cloud_mask(url, bbox=box_of(window), settings=settings)
        given = sum(count for name, count in site.given.items() if name.endswith(".tif"))
    sources = Sources(item_id="x", bands=(), scl=None, sun=(160.0, 50.0))
    grid = replace(GRID, height=1830, width=1830)
    place = clip(sources, grid, replace(settings, area=area_of(bbox=box_of(window))))
    share = place.read.height * place.read.width / 1830**2
    files = sum((path.parent / f"{name}.tif").stat().st_size for name in ("blue", "green", "red", "nir", "scl"))
    assert given < 3 * share * files
    assert given < files / 4


def tiled(path):
    """Write a file again in blocks of 128 pixels, so that a small scene has many."""
    with rasterio.open(path) as raster:
        pixels, profile = raster.read(), raster.profile
    profile.update(driver="GTiff", tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(pixels)


def test_clip_masks_the_area_of_a_search_and_of_named_items(cli, source, model, tmp_path):
    small = ["--cloud-model", model, "--shadow-model", model, "--threads", "1"]
    box = box_of(Window(300, 400, 60, 80))
    catalog = ["--catalog", source.parents[2]]
    assert cli("process", *catalog, "--bbox", *box, "--clip", "--out", tmp_path / "a", *small)[0] == 0
    area = tmp_path / "area.geojson"
    area.write_text(shapely.to_geojson(shapely.box(*box)))
    assert cli("process", source, "--intersects", area, "--clip", "--out", tmp_path / "b", *small)[0] == 0
    assert checked(tmp_path / "a") == checked(tmp_path / "b")
    code, out, _ = cli("process", source, "--bbox", 100, 10, 101, 11, "--clip", "--out", tmp_path / "c", *small)
    assert code == 0
    assert out.startswith("skipped     item 'scene-0000' does not touch the area")
    code, out, err = cli("report", tmp_path / "c")
    assert (code, out) == (2, "")
    assert (
        err == f"error: {tmp_path / 'c'} has no masks, as the last run made none; its run.json says why, item by item\n"
    )


def test_an_area_beside_named_items_needs_clip_and_clip_an_area(cli, source, model, tmp_path):
    box = box_of(Window(300, 400, 60, 80))
    code, _, err = cli("process", source, "--bbox", *box, "--out", tmp_path)
    assert code == 2
    assert "add --clip" in err
    code, _, err = cli("process", source, "--datetime", "2023-08", "--out", tmp_path)
    assert code == 2
    assert "no effect" in err
    code, _, err = cli("process", source, "--clip", "--out", tmp_path)
    assert code == 2
    assert "--bbox or --intersects" in err
