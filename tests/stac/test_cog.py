from __future__ import annotations

import json
import shutil
import subprocess
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
from disks import room_for_files_of
from PIL import Image
from rio_cogeo.cogeo import cog_validate

from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import WriteError
from stac_cloudmask.stac.cog import write_cog, write_thumbnail


def grid_of(array):
    return Grid(epsg=32633, left=600000, top=5000000, gsd=10, height=array.shape[0], width=array.shape[1])


def blobs(height, width):
    rng = np.random.default_rng(1)
    coarse = rng.choice(np.array([0, 1, 2, 255], np.uint8), (height // 7 + 1, width // 7 + 1))
    return coarse.repeat(7, 0).repeat(7, 1)[:height, :width]


RASTERS = ["cloud_mask", "cloud_probability", "mask_votes"]


@pytest.mark.parametrize("shape", [(1, 1), (37, 90), (512, 512), (705, 935), (1098, 1300)])
@pytest.mark.parametrize("key", RASTERS)
def test_every_size_is_a_strictly_valid_cog_that_gives_back_its_pixels(tmp_path, key, shape):
    array = blobs(*shape)
    write_cog(tmp_path, key, array, grid_of(array))
    valid, errors, warnings = cog_validate(tmp_path / f"{key}.tif", strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(tmp_path / f"{key}.tif") as cog:
        np.testing.assert_array_equal(cog.read(1), array)
        assert cog.crs.to_epsg() == 32633
        assert cog.transform[:6] == (10, 0, 600000, 0, -10, 5000000)
    assert {path.name for path in tmp_path.iterdir()} <= {f"{key}.tif", "cloud_mask.tif.aux.xml", "cloud_mask.qml"}


def test_the_color_table_is_that_of_the_classes_and_lets_the_map_below_clear_ground_through(tmp_path):
    array = blobs(40, 40)
    write_cog(tmp_path, "cloud_mask", array, grid_of(array))
    with rasterio.open(tmp_path / "cloud_mask.tif") as cog:
        assert cog.nodata == 255
        assert cog.compression.name == "deflate"
        colors = cog.colormap(1)
    assert {int(c.code): colors[c.code] for c in CLASSES} == {int(c.code): c.rgba for c in CLASSES}
    assert colors[0][3] == 0


def test_a_file_says_what_it_is_without_anything_beside_it(tmp_path):
    array = blobs(40, 40)
    tags = {"TIFFTAG_SOFTWARE": "stac_cloudmask 1.2.3", "SOURCE_ITEM": "S2A_x"}
    for key in RASTERS:
        write_cog(tmp_path, key, array, grid_of(array), tags=tags)
    (tmp_path / "cloud_mask.tif.aux.xml").unlink()
    with rasterio.open(tmp_path / "cloud_mask.tif") as cog:
        assert cog.descriptions == ("Cloud and cloud-shadow mask",)
        assert cog.tags(1)["CLASS_1"] == "Cloud"
        assert cog.colormap(1)[1] == (*CLASSES[1].rgb, 255)
        assert tags.items() <= cog.tags().items()
    with rasterio.open(tmp_path / "cloud_probability.tif") as cog:
        assert (cog.units, cog.descriptions) == (("%",), ("Cloud probability",))
        assert tags.items() <= cog.tags().items()
    with rasterio.open(tmp_path / "mask_votes.tif") as cog:
        assert cog.tags(1)["BIT_0"] == "product_cloud: The product's own mask says cloud."
        assert tags.items() <= cog.tags().items()


@pytest.mark.parametrize(("key", "classes"), [("cloud_mask", CLASSES), ("scl", SCL_CLASSES)])
def test_gdal_names_the_classes(tmp_path, key, classes):
    gdalinfo = shutil.which("gdalinfo") or pytest.skip("needs gdalinfo (Debian: gdal-bin)")
    array = np.array([[info.code for info in classes]], np.uint8)
    write_cog(tmp_path, key, array, grid_of(array))
    told = json.loads(subprocess.check_output([gdalinfo, "-json", tmp_path / f"{key}.tif"]))
    named = [info for info in classes if info.code != 255]
    assert told["bands"][0]["noDataValue"] == next(info.code for info in classes if "no" in info.name[:2])
    rows = {row["f"][0]: row["f"][1:] for row in told["rat"]["row"]}
    assert rows == {info.code: [info.title, *info.rgba] for info in classes}
    text = subprocess.check_output([gdalinfo, tmp_path / f"{key}.tif"], text=True)
    categories = text[text.index("Categories:") :].splitlines()[1:]
    assert [line.split(": ")[1] for line in categories[: len(named)]] == [info.title for info in named]


def test_the_style_for_qgis_names_every_class_and_leaves_clear_ground_transparent(tmp_path):
    array = blobs(40, 40)
    write_cog(tmp_path, "cloud_mask", array, grid_of(array))
    entries = ET.parse(tmp_path / "cloud_mask.qml").iter("paletteEntry")  # noqa: S314  (our own)
    assert [(e.get("value"), e.get("label"), e.get("color"), e.get("alpha")) for e in entries] == [
        ("0", "Clear", "#c8c8be", "0"),
        ("1", "Cloud", "#ff6400", "255"),
        ("2", "Cloud shadow", "#508cff", "255"),
    ]


def test_class_overviews_hold_the_majority_and_never_a_class_in_between(tmp_path):
    array = np.zeros((1024, 1024), np.uint8)
    array[::2, ::2] = 2
    array[:512] = 255
    write_cog(tmp_path, "cloud_mask", array, grid_of(array))
    with rasterio.open(tmp_path / "cloud_mask.tif", overview_level=0) as half:
        np.testing.assert_array_equal(
            half.read(1), np.repeat(np.array([255, 0], np.uint8), 256)[:, None].repeat(512, 1)
        )


def test_percent_overviews_are_means_that_leave_nodata_out(tmp_path):
    array = np.full((1024, 1024), 255, np.uint8)
    array[::2, ::2] = 40
    array[1::2, ::2] = 80
    write_cog(tmp_path, "cloud_probability", array, grid_of(array))
    with rasterio.open(tmp_path / "cloud_probability.tif", overview_level=0) as half:
        assert half.nodata == 255
        np.testing.assert_array_equal(half.read(1), np.full((512, 512), 60, np.uint8))


def test_votes_have_a_nodata_value_that_is_no_combination_of_their_bits(tmp_path):
    array = np.full((1024, 1024), 255, np.uint8)
    array[::2, ::2] = 0b101
    write_cog(tmp_path, "mask_votes", array, grid_of(array))
    with rasterio.open(tmp_path / "mask_votes.tif", overview_level=0) as half:
        assert half.nodata == 255
        np.testing.assert_array_equal(half.read(1), np.full((512, 512), 0b101, np.uint8))


def test_a_map_of_another_shape_than_its_grid_is_refused(tmp_path):
    array = blobs(40, 40)
    with pytest.raises(ValueError, match=r"\(40, 40\).*\(40, 50\)"):
        write_cog(tmp_path, "cloud_mask", array, grid_of(blobs(40, 50)))


@pytest.fixture
def small_files():
    with room_for_files_of(300_000):
        yield


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path, small_files):
    noise = np.random.default_rng(0).integers(0, 100, (700, 700), dtype=np.uint8)
    with pytest.raises(WriteError, match=r"cloud_probability\.tif"):
        write_cog(tmp_path, "cloud_probability", noise, grid_of(noise))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_an_error_that_names_the_file(tmp_path):
    array = blobs(40, 40)
    (tmp_path / "nowhere").touch()
    with pytest.raises(WriteError, match=r"nowhere/cloud_mask\.tif"):
        write_cog(tmp_path / "nowhere", "cloud_mask", array, grid_of(array))
    with pytest.raises(WriteError, match=r"nowhere/t\.png"):
        write_thumbnail(tmp_path / "nowhere" / "t.png", array)


def test_a_file_that_was_there_stays_whole_when_writing_fails(tmp_path, small_files):
    calm, noise = blobs(700, 700), np.random.default_rng(0).integers(0, 100, (700, 700), dtype=np.uint8)
    write_cog(tmp_path, "cloud_mask", calm, grid_of(calm))
    with pytest.raises(WriteError):
        write_cog(tmp_path, "cloud_mask", noise, grid_of(noise))
    with rasterio.open(tmp_path / "cloud_mask.tif") as cog:
        np.testing.assert_array_equal(cog.read(1), calm)


@pytest.mark.parametrize(("shape", "size"), [((3000, 1500), (300, 600)), ((40, 90), (90, 40)), ((1, 1), (1, 1))])
def test_thumbnails_fit_600_pixels_and_keep_the_shape(tmp_path, shape, size):
    write_thumbnail(tmp_path / "t.png", blobs(*shape))
    with Image.open(tmp_path / "t.png") as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", size)


def test_a_thumbnail_paints_each_class_and_leaves_nodata_transparent(tmp_path):
    array = np.repeat(np.array([0, 1, 2, 255], np.uint8), 50)[None].repeat(50, 0)
    write_thumbnail(tmp_path / "t.png", array)
    with Image.open(tmp_path / "t.png") as picture:
        seen = [picture.getpixel((25 + 50 * k, 25)) for k in range(4)]
    assert seen == [*((*info.rgb, 255) for info in CLASSES[:3]), (0, 0, 0, 0)]


def test_over_a_quicklook_clear_ground_is_seen_shadow_is_tinted_and_nodata_lets_the_page_through(tmp_path):
    array = np.repeat(np.array([0, 2, 255], np.uint8), 200)[None].repeat(600, 0)
    scene = np.full((60, 60, 3), 100, np.uint8)
    write_thumbnail(tmp_path / "t.png", array, quicklook=scene)
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.size == (600, 600)
        seen = picture.convert("RGBA")
    clear, shadow, nodata = (np.array(seen.getpixel((x, 100)), int) for x in (100, 300, 500))
    assert abs(clear - [100, 100, 100, 255]).max() <= 3
    assert abs(shadow - [90, 120, 178, 255]).max() <= 3
    assert nodata[3] == 0
