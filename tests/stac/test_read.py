from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pystac
import pytest
import rasterio
from hypothesis import given, settings, strategies as st
from pyproj import Geod, Transformer
from rasterio.transform import from_origin

from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.pixels import block_mean, is_damaged, mean_by_twos, mode_of_blocks, repeat, up_bilinear
from stac_cloudmask.core.predict import Bands
from stac_cloudmask.errors import BandNotFoundError, ConfigError, ReadError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.providers import BANDS
from stac_cloudmask.stac.reader import open_scene
from stac_cloudmask.stac.warp import ground
from tests.offline import no_network
from tests.stac.rasters import EPSG, LEFT, TOP, digital_numbers, item_of, scl_codes, write

LOADERS = ["stackstac", "odc"]
SCENES = [
    "alberta-2020/alberta_20200615",
    "alberta-2020/alberta_20200625",
    "alberta-2020/alberta_20200720",
    "bolzano-2022/bolzano_20220612",
    "cloudn-chips/cloudn_chip1",
    "cloudn-chips/cloudn_chip2",
    "earth-search-33twl/S2A_33TWL_20230815_0_L2A",
    "earth-search-33twl/S2A_33TWL_20230818_0_L2A",
    "earth-search-33twl/S2B_33TWL_20230810_0_L2A",
    "earth-search-33twl/S2B_33TWL_20230813_0_L2A",
    "earth-search-33twl/S2B_33TWL_20230820_0_L2A",
    "sahara-29rkh/S2A_29RKH_20200219_0_L2A",
]
SHAPE = (2160, 90)
"""Of the made-up 10 m bands: more than two strips; a multiple of 6 so that 20 m and 60 m bands nest."""


def local_item(shared, scene):
    path = shared / "data" / scene / f"{scene.split('/')[1]}.json"
    return pystac.Item.from_dict(json.loads(path.read_text()), href=str(path), migrate=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with bands of 10, 20 and 60 m and an SCL of 20 m, and the arrays in it by name."""
    folder = tmp_path_factory.mktemp("made")
    arrays = {}
    for seed, (name, gsd) in enumerate({"blue": 10, "red": 10, "swir16": 20, "rededge1": 20, "nir09": 60}.items()):
        arrays[name] = digital_numbers((SHAPE[0] * 10 // gsd, SHAPE[1] * 10 // gsd), seed)
        write(folder / f"{name}.tif", arrays[name], gsd)
    arrays["scl"] = scl_codes((SHAPE[0] // 2, SHAPE[1] // 2))
    write(folder / "scl.tif", arrays["scl"], 20)
    return folder, arrays


def scl_of(scene):
    """The scene classification, pixel for pixel on the scene's grid."""
    classes, factor = scene.scl()
    return repeat(classes, factor, window=Window(0, 0, *scene.grid.shape))


def made_scene(made, names, **options):
    folder, _ = made
    item = item_of(folder, {name: f"{name}.tif" for name in [*names, "scl"]})
    return open_scene(resolve(item, names), **options)


@pytest.mark.parametrize("scene", SCENES)
def test_both_loaders_give_the_files_own_bits_of_every_real_scene_without_network(shared, scene):
    item = local_item(shared, scene)
    names = list(BANDS) if "sahara" in scene else ["blue", "green", "red", "nir"]
    sources = resolve(item, names, want_scl=False)
    with no_network():
        one, other = (open_scene(sources, loader=loader) for loader in LOADERS)
        assert one.grid == other.grid
        dn = one.dn(0, one.grid.height)
        np.testing.assert_array_equal(dn, other.dn(0, one.grid.height))
        scl = None if sources.scl is None else scl_of(one)
        np.testing.assert_array_equal(scl, None if sources.scl is None else scl_of(other))
    for band, source in zip(dn, sources.bands, strict=True):
        with rasterio.open(source.href) as file:
            factor = round(file.res[0] / one.grid.gsd)
            expected = up_bilinear(file.read(1), factor) if factor > 1 else file.read(1)
        np.testing.assert_array_equal(band, expected)
    if sources.scl is not None:
        with rasterio.open(sources.scl.href) as file:
            factor = round(file.res[0] / one.grid.gsd)
            np.testing.assert_array_equal(scl, repeat(file.read(1), factor))


@pytest.mark.parametrize("loader", LOADERS)
def test_bands_of_10_20_and_60_m_come_onto_the_finest_grid_in_the_order_asked_for(made, loader):
    scene = made_scene(made, ["swir16", "blue", "nir09", "red"], loader=loader)
    arrays = made[1]
    assert scene.grid == Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=10.0, height=SHAPE[0], width=SHAPE[1])
    assert scene.bands == Bands(names=("swir16", "blue", "nir09", "red"), scales=(1e-4,) * 4, offsets=(0,) * 4)
    dn = scene.dn(0, SHAPE[0])
    np.testing.assert_array_equal(dn[0], up_bilinear(arrays["swir16"], 2))
    np.testing.assert_array_equal(dn[1], arrays["blue"])
    np.testing.assert_array_equal(dn[2], up_bilinear(arrays["nir09"], 6))
    np.testing.assert_array_equal(dn[3], arrays["red"])
    np.testing.assert_array_equal(scl_of(scene), repeat(arrays["scl"], 2))


@given(cuts=st.lists(st.integers(1, SHAPE[0] - 1), max_size=6, unique=True))
@settings(max_examples=8, deadline=None)
def test_rows_do_not_depend_on_the_strips_they_are_read_in(made, cuts):
    names = ["blue", "swir16", "nir09"]
    whole = made_scene(made, names).dn(0, SHAPE[0])
    scene = made_scene(made, names)
    edges = [0, *sorted(cuts), SHAPE[0]]
    parts = [scene.dn(start, stop - start) for start, stop in itertools.pairwise(edges)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.parametrize(
    ("resolution", "expected"),
    [
        (20, {"blue": lambda a: block_mean(a["blue"], 2), "swir16": lambda a: a["swir16"]}),
        (30, {"blue": lambda a: block_mean(a["blue"], 3), "nir09": lambda a: up_bilinear(a["nir09"], 2)}),
        (60, {"swir16": lambda a: block_mean(a["swir16"], 3), "nir09": lambda a: a["nir09"]}),
        (40, {"blue": lambda a: mean_by_twos(a["blue"], 4), "swir16": lambda a: block_mean(a["swir16"], 2)}),
        (30, {"swir16": lambda a: block_mean(up_bilinear(a["swir16"], 2), 3)}),
    ],
)
def test_a_coarser_resolution_averages_and_never_resamples_what_has_it_already(made, resolution, expected):
    names = ["blue", "swir16", "nir09"]
    scene = made_scene(made, names, resolution=resolution)
    assert scene.grid.shape == (-(-SHAPE[0] * 10 // resolution), -(-SHAPE[1] * 10 // resolution))
    parts = [scene.dn(row, min(77, scene.grid.height - row)) for row in range(0, scene.grid.height, 77)]
    dn = dict(zip(names, np.concatenate(parts, axis=1), strict=True))
    for name, make in expected.items():
        np.testing.assert_array_equal(dn[name], make(made[1])[: scene.grid.height, : scene.grid.width])


@pytest.mark.parametrize(
    ("names", "resolution", "expected"),
    [
        (["blue"], None, lambda scl: repeat(scl, 2)),
        (["swir16"], None, lambda scl: scl),
        (["nir09"], None, lambda scl: mode_of_blocks(scl, 3)),
        (["blue"], 30, lambda scl: mode_of_blocks(repeat(scl, 2), 3)),
        (["blue"], 40, lambda scl: mode_of_blocks(scl, 2)),
    ],
)
def test_scl_is_repeated_or_reduced_to_the_grid_of_the_bands(made, names, resolution, expected):
    scene = made_scene(made, names, resolution=resolution)
    scl = scl_of(scene)
    assert scl.shape == scene.grid.shape
    np.testing.assert_array_equal(scl, expected(made[1]["scl"])[: scl.shape[0], : scl.shape[1]])


def test_larger_pixels_of_the_scl_are_held_as_they_are(made):
    classes, factor = made_scene(made, ["blue"]).scl()
    assert (classes.shape, factor) == (made[1]["scl"].shape, 2)


def test_the_mode_of_a_block_counts_valid_pixels_and_lets_cloud_win_a_tie():
    scl = np.array([[4, 4, 9, 4, 0], [5, 9, 4, 9, 0], [0, 0, 7, 7, 3]], np.uint8)
    np.testing.assert_array_equal(mode_of_blocks(scl, 2), [[4, 9, 0], [0, 7, 3]])


@pytest.mark.parametrize("resolution", [5, 15, 10.5])
def test_a_resolution_that_is_no_whole_multiple_is_refused(made, resolution):
    with pytest.raises(ConfigError, match=f"resolution {resolution:g} is not a whole multiple of 10"):
        made_scene(made, ["blue"], resolution=resolution)


def test_reading_whole_strips_is_what_a_scene_advertises(made):
    assert made_scene(made, ["blue"]).strip == 512
    assert made_scene(made, ["blue"], resolution=20).strip == 256


def damaged_scene(tmp_path, change, *, names=("blue", "red"), loader="stackstac"):
    """A scene of two good bands and an SCL, after ``change(folder, item)``."""
    for name in ("blue", "red"):
        write(tmp_path / f"{name}.tif", digital_numbers((256, 256)), 10)
    write(tmp_path / "scl.tif", scl_codes((128, 128)), 20)
    item = item_of(tmp_path, {name: f"{name}.tif" for name in ("blue", "red", "scl")})
    change(tmp_path, item)
    scene = open_scene(resolve(item, names), loader=loader)
    return scene.dn(0, scene.grid.height), scene.scl()


def truncate(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def wrong_transform(_, item):
    item.assets["red"].extra_fields |= {
        "proj:code": f"EPSG:{EPSG}",
        "proj:transform": [10, 0, LEFT + 10, 0, -10, TOP],
        "proj:shape": [256, 256],
    }


def wrong_crs_in_metadata(_, item):
    wrong_transform(_, item)
    item.assets["red"].extra_fields |= {"proj:code": "EPSG:32634", "proj:transform": [10, 0, LEFT, 0, -10, TOP]}


def other_crs(folder, _):
    write(folder / "red.tif", digital_numbers((256, 256)), 10, epsg=32634)


def other_corner(folder, _):
    write(folder / "red.tif", digital_numbers((256, 256)), 10, left=LEFT + 5)


def no_multiple(folder, _):
    write(folder / "red.tif", digital_numbers((171, 171)), 15)


def degrees(folder, _):
    write(folder / "red.tif", digital_numbers((256, 256)), 1e-4, left=10, epsg=4326)


def wrong_dtype(folder, _):
    write(folder / "red.tif", digital_numbers((256, 256)).astype(np.float32), 10)


def two_bands(folder, _):
    write(folder / "red.tif", np.stack([digital_numbers((256, 256))] * 2), 10)


def other_nodata(folder, _):
    write(folder / "red.tif", digital_numbers((256, 256)), 10, nodata=65535)


@pytest.mark.parametrize(
    ("change", "error", "found"),
    [
        (lambda folder, _: (folder / "red.tif").unlink(), BandNotFoundError, "there is no file"),
        (lambda folder, _: truncate(folder / "red.tif", 0.5), ReadError, "damaged, truncated"),
        (lambda folder, _: truncate(folder / "red.tif", 0.001), ReadError, "damaged, truncated"),
        (lambda folder, _: (folder / "red.tif").write_text("<html>"), ReadError, "damaged, truncated or not an image"),
        (wrong_transform, UnsupportedItemError, r"300010, 5000040\) in the item.*300000, 5000040\) in the file"),
        (wrong_crs_in_metadata, UnsupportedItemError, "EPSG:32634.*in the item.*EPSG:32633"),
        (other_crs, UnsupportedItemError, "does not fit.*EPSG:32634.*EPSG:32633"),
        (other_corner, UnsupportedItemError, "does not fit.*300005.*300000"),
        (no_multiple, UnsupportedItemError, "does not fit"),
        (degrees, UnsupportedItemError, "EPSG:4326"),
        (wrong_dtype, UnsupportedItemError, "float32 pixels; uint16"),
        (two_bands, UnsupportedItemError, "has 2 bands"),
        (other_nodata, UnsupportedItemError, "nodata 65535"),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_bad_file_gives_a_named_error_with_item_and_asset_and_what_was_found(tmp_path, change, error, found, loader):
    with pytest.raises(error, match=rf"(?s)item 'S2_test': asset 'red'.*{found}") as caught:
        damaged_scene(tmp_path, change, loader=loader)
    assert not caught.value.retryable


def test_a_bad_scl_is_named_too(tmp_path):
    with pytest.raises(ReadError, match=r"asset 'scl'.*damaged"):
        damaged_scene(tmp_path, lambda folder, _: truncate(folder / "scl.tif", 0.5))


def test_formats_that_lead_to_other_files_are_not_opened(tmp_path):
    vrt = '<VRTDataset rasterXSize="256" rasterYSize="256"><SRS>EPSG:32633</SRS></VRTDataset>'
    with pytest.raises(ReadError, match=r"asset 'red'.*not recognized"):
        damaged_scene(tmp_path, lambda folder, _: (folder / "red.tif").write_text(vrt))


def test_files_that_are_no_files_are_not_waited_for(tmp_path):
    with pytest.raises(BandNotFoundError, match="no file /dev/zero"):
        damaged_scene(tmp_path, lambda _, item: setattr(item.assets["red"], "href", "/dev/zero"))


@pytest.mark.parametrize("loader", LOADERS)
def test_jpeg_2000_reads_the_same_by_both_loaders(tmp_path, loader):
    dn = digital_numbers((128, 128))
    options = {"driver": "JP2OpenJPEG", "nodata": None, "tiled": False, "QUALITY": "100", "REVERSIBLE": "YES"}
    write(tmp_path / "blue.jp2", dn, 10, **options)
    scene = open_scene(resolve(item_of(tmp_path, {"blue": "blue.jp2"}), ["blue"], want_scl=False), loader=loader)
    np.testing.assert_array_equal(scene.dn(0, 128)[0], dn)


def test_reading_warns_of_nothing(made):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Use `@` matmul")
        made_scene(made, ["blue"]).dn(0, 10)


NOT_APPLIED = {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "04.00"}
UNKNOWN = {"s2:processing_baseline": None}


@pytest.mark.parametrize(
    ("properties", "added", "expected"),
    [
        (NOT_APPLIED, 0, (0, "below 500 DN", 1)),
        (NOT_APPLIED, 1000, (-1000, "baseline 04.00", 1)),
        ({"s2:processing_baseline": "05.09"}, 0, (-1000, "baseline 05.09", 0)),
        (UNKNOWN, 0, (0, "below 500 DN", 1)),
        (UNKNOWN, 1000, (0, "baseline unknown", 1)),
    ],
)
@pytest.mark.parametrize("side", [64, 2048])
def test_pixels_settle_a_doubtful_offset_and_only_that(tmp_path, properties, added, expected, side):
    dark = np.random.default_rng(0).integers(100, 3000, (side, side), np.uint16)
    write(tmp_path / "blue.tif", dark + np.uint16(added), 10)
    if side > 64:
        with rasterio.open(tmp_path / "blue.tif", "r+") as file:
            file.build_overviews([4], rasterio.enums.Resampling.nearest)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", StacCloudmaskWarning)
        sources = resolve(item_of(tmp_path, {"blue": "blue.tif"}, **properties), ["blue"], want_scl=False)
        scene = open_scene(sources)
    dn, reason, warned = expected
    assert scene.bands.offsets == (dn,)
    assert reason in scene.sources.bands[0].offset.reason
    assert len(caught) == warned


def test_a_large_file_without_overviews_is_not_read_to_settle_an_offset(tmp_path):
    write(tmp_path / "blue.tif", np.full((1100, 1100), 100, np.uint16), 10)
    sources = resolve(item_of(tmp_path, {"blue": "blue.tif"}, **NOT_APPLIED), ["blue"], want_scl=False)
    with pytest.warns(StacCloudmaskWarning, match="BOA offset is doubtful, took -1000 DN"):
        assert open_scene(sources).bands.offsets == (-1000,)


@pytest.mark.parametrize("variable", ["PROJ_LIB", "PROJ_DATA"])
def test_a_proj_of_another_installation_is_named_as_the_cause(made, tmp_path, variable):
    (tmp_path / "proj.db").write_text("of another layout")
    item = item_of(made[0], {"blue": "blue.tif"})
    item.save_object(dest_href=str(made[0] / "proj.json"))
    code = (
        "import sys, pystac; from stac_cloudmask.stac.bands import resolve; "
        "from stac_cloudmask.stac.reader import open_scene; "
        "open_scene(resolve(pystac.Item.from_file(sys.argv[1]), ['blue'], want_scl=False))"
    )
    environment = os.environ | {variable: str(tmp_path)}
    command = [sys.executable, "-c", code, made[0] / "proj.json"]
    ran = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert b"unset the environment variables PROJ_LIB and PROJ_DATA" in ran.stderr


@pytest.mark.parametrize("resolution", [None, 20, 30])
def test_damaged_digital_numbers_stay_so_in_each_pixel_that_they_touch_and_change_no_other(tmp_path, resolution):
    dn = digital_numbers((240, 240))
    dn[10:20, 10:20], dn[50, 50] = 65200, 65535
    write(tmp_path / "blue.tif", dn, 10)
    write(tmp_path / "swir16.tif", dn[:120, :120], 20)
    item = item_of(tmp_path, {"blue": "blue.tif", "swir16": "swir16.tif"})
    scene = open_scene(resolve(item, ["blue", "swir16"], want_scl=False), resolution=resolution)
    found = scene.dn(0, scene.grid.height)
    damaged = is_damaged(found)
    factor = 1 if resolution is None else resolution // 10
    np.testing.assert_array_equal(damaged[0], block_mean((dn == 65200).astype(np.uint16), factor) > 0)
    coarse = repeat((dn[:120, :120] == 65200).astype(np.uint16), 2)
    np.testing.assert_array_equal(damaged[1], block_mean(coarse, factor) > 0)
    clean = np.where(dn == 65200, 0, dn).astype(np.uint16)
    for name, pixels in (("blue", clean), ("swir16", clean[:120, :120])):
        write(tmp_path / f"{name}.tif", pixels, 10 if name == "blue" else 20)
    expected = open_scene(resolve(item, ["blue", "swir16"], want_scl=False), resolution=resolution).dn(0, len(found[0]))
    np.testing.assert_array_equal(found[~damaged], expected[~damaged])
    assert found[0, 50 // factor, 50 // factor] > 12000


def test_a_scene_in_utm_by_day_has_no_notes(made):
    scene = made_scene(made, ["blue"])
    assert scene.sources.notes == ()
    assert scene.gsd == 10.0


@pytest.mark.parametrize("epsg", [3857, 3035, 3577, 3031])
def test_sizes_and_north_are_those_of_the_ground_on_any_projected_grid(epsg):
    middle = {3857: (15.5, 45.6), 3035: (25.0, 60.0), 3577: (147.0, -36.0), 3031: (60.0, -75.0)}[epsg]
    to_grid = Transformer.from_crs(4326, epsg, always_xy=True)
    x, y = to_grid.transform(*middle)
    gsd, turn = ground(Grid(epsg=epsg, left=x - 1000, top=y + 1000, gsd=20.0, height=100, width=100))
    geod = Geod(ellps="WGS84")
    east = to_grid.transform(*geod.fwd(*middle, 90, 1000)[:2])
    north = to_grid.transform(*geod.fwd(*middle, 0, 1000)[:2])
    area = abs((east[0] - x) * (north[1] - y) - (east[1] - y) * (north[0] - x))
    assert gsd == pytest.approx(20 * 1000 / area**0.5, rel=1e-3)
    seen = np.degrees(np.arctan2(north[0] - x, north[1] - y))
    assert (turn + seen) % 360 == pytest.approx(0, abs=0.1) or (turn + seen) % 360 == pytest.approx(360, abs=0.1)


def test_the_sun_is_turned_into_a_grid_whose_north_is_not_up(tmp_path):
    grid = from_origin(5_000_000, 4_000_000, 10, 10)
    with rasterio.open(
        tmp_path / "blue.tif", "w", driver="GTiff", dtype="uint16", count=1, height=64, width=64, nodata=0,
        crs="EPSG:3035", transform=grid, tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(digital_numbers((64, 64)), 1)
    item = item_of(tmp_path, {"blue": "blue.tif"}, **{"view:sun_azimuth": 160.0, "view:sun_elevation": 40.0})
    scene = open_scene(resolve(item, ["blue"], want_scl=False))
    turn = ground(scene.grid)[1]
    assert turn > 5
    assert scene.sources.sun == (pytest.approx(160.0 - turn), 40.0)
    assert "north is turned by" in scene.sources.notes[0]


def test_a_sun_below_the_horizon_is_noted(made):
    item = item_of(made[0], {"blue": "blue.tif"}, **{"view:sun_azimuth": 10.0, "view:sun_elevation": -3.0})
    scene = open_scene(resolve(item, ["blue"], want_scl=False))
    assert scene.sources.notes == ("the item states a sun at -3 degrees, which is not above the horizon",)
