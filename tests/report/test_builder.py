"""What a report is made of; how it looks and behaves is in test_page."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from base64 import b64decode
from functools import partial

import numpy as np
import pystac
import pytest
from PIL import Image
from typer.testing import CliRunner

import stac_cloudmask as scm
from stac_cloudmask.cli.app import app
from stac_cloudmask.core.classes import ADDED, CLASSES, MISSED, RAMP
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import ConfigError, WriteError
from stac_cloudmask.review.layers import MaskLayers
from stac_cloudmask.review.report import (
    LEAST_BYTES,
    build_report,
    link_to,
    links,
    mask_tiles,
    pack,
    script_json,
    thumbnail,
    webp_within,
)
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.cog import write_cog, write_thumbnail
from stac_cloudmask.stac.mask_item import mask_item
from stac_cloudmask.stac.warp import Views
from tests.outputs import CREATED, facts_of, item_path
from tests.stac.rasters import write

GRID = Grid(epsg=32633, left=300000, top=5000040, gsd=10, height=1100, width=1000)


def blocks(path):
    """The data of a report, by the id of its element."""
    found = re.findall(r'<script type="application/json" id="([^"]+)">(.*)</script>', path.read_text())
    return {name: json.loads(text) for name, text in found}


def planes(data):
    raw, start, out = zlib.decompress(b64decode(data["data"]), -15), 0, {}
    for plane in data["planes"]:
        height, width = plane["shape"]
        out[plane["name"]] = np.frombuffer(raw, np.uint8, height * width, start).reshape(height, width)
        start += height * width
    assert start == len(raw)
    return out


@pytest.fixture
def copied(catalog, tmp_path):
    shutil.copytree(catalog, tmp_path / "out")
    return tmp_path / "out"


def change(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def ragged(tmp_path_factory):
    """A catalog with one item of the worst kind: noise in every layer, at many pixels."""
    folder = tmp_path_factory.mktemp("ragged")
    rng = np.random.default_rng(0)
    item = pystac.Item(
        "noise",
        {"type": "Point", "coordinates": [15, 45]},
        [15, 45, 15, 45],
        CREATED,
        {"datetime": CREATED.isoformat()},
    )
    item.set_self_href(str(folder / "noise.json"))
    for key in ("blue", "green", "red", "nir"):
        write(folder / f"{key}.tif", rng.integers(1, 12000, GRID.shape, np.uint16), 10)
        item.add_asset(key, pystac.Asset(str(folder / f"{key}.tif"), media_type="image/tiff"))
    write(folder / "scl.tif", rng.integers(1, 12, GRID.shape, np.uint8), 10)
    item.add_asset("scl", pystac.Asset(str(folder / "scl.tif"), media_type="image/tiff"))
    array = rng.integers(0, 3, GRID.shape, np.uint8)
    layers = {"cloud_mask": array, "mask_votes": rng.integers(0, 64, GRID.shape, np.uint8)}
    for key in ("cloud_probability", "shadow_probability"):
        layers[key] = np.kron(rng.integers(0, 101, (110, 100), np.uint8), np.ones((10, 10), np.uint8))
    for key, layer in layers.items():
        write_cog(folder, key, layer, GRID)
    files = {key: folder / f"{key}.tif" for key in layers}
    write_thumbnail(folder / "thumbnail.png", array)
    out = OutputCatalog(folder / "out")
    facts = facts_of(item, array, files | {"thumbnail": folder / "thumbnail.png"}, grid=GRID)
    out.link([out.write_item(mask_item(item, facts), files | {"thumbnail": folder / "thumbnail.png"})])
    return folder / "out"


def test_the_most_ragged_item_among_many_stays_below_100_kb_with_all_its_layers(ragged):
    (item,) = OutputCatalog(ragged).items()
    layers = MaskLayers.of(item, Views())
    entry, shown = pack(layers, room=LEAST_BYTES)
    assert len(script_json(shown)) + len(entry["thumb"]) < 100_000
    assert [plane["name"] for plane in shown["planes"]] == ["mask", "scl", "cloud", "shadow"]
    assert "picture" in shown


def test_a_scene_alone_is_drawn_pixel_by_pixel(ragged, tmp_path):
    data = blocks(build_report(ragged, tmp_path / "r.html"))["item-0"]
    assert data["planes"][0] == {"name": "mask", "factor": 1, "shape": list(GRID.shape)}
    assert "tiles" not in data


def test_a_scene_larger_than_the_screen_keeps_its_own_pixels_in_tiles(ragged):
    (item,) = OutputCatalog(ragged).items()
    layers = MaskLayers.of(item, Views())
    whole = planes(pack(layers, room=6_000_000)[1])["mask"]
    tiles = [zlib.decompress(tile, -15) for tile in mask_tiles(layers, 6_000_000)]
    assert [len(tile) for tile in tiles] == [1024 * 1000, 76 * 1000]
    np.testing.assert_array_equal(np.frombuffer(b"".join(tiles), np.uint8).reshape(GRID.shape), whole)
    assert mask_tiles(layers, 1000) == []


def test_layers_hold_what_the_files_hold(page, catalog):
    data = blocks(page)
    shown = next(n for n, item in enumerate(data["index"]["items"]) if item["id"].endswith("2_L2A_cloudmask"))
    layers = planes(data[f"item-{shown}"])
    files = OutputCatalog(catalog).item("simulated-sentinel-2-l2a-cloudmask", data["index"]["items"][shown]["id"])[
        "assets"
    ]
    mask, votes, cloud, scl = (
        np.asarray(read(files[key])) for key in ("cloud_mask", "mask_votes", "cloud_probability", "scl")
    )
    scl = scl.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(layers["mask"] & 3, np.minimum(mask, 3))
    product = np.select([np.isin(scl, (8, 9, 10)), scl == 3, scl == 0], [1, 2, 3], 0)
    np.testing.assert_array_equal(layers["mask"] >> 2 & 3, product)
    np.testing.assert_array_equal(layers["mask"] >> 4, votes >> 2)
    np.testing.assert_array_equal(layers["cloud"], cloud // 5)
    np.testing.assert_array_equal(layers["scl"], scl)


def test_the_page_knows_what_made_a_mask_and_its_colors(page):
    data = blocks(page)
    assert dict(data["item-0"]["facts"])["Made"].endswith(f"Z, by stac_cloudmask {scm.__version__}")
    assert [entry["color"] for entry in data["index"]["classes"]] == [[*info.rgb] for info in CLASSES]
    assert data["index"]["colors"] == {"removed": [*MISSED], "added": [*ADDED], "ramp": [[*color] for color in RAMP]}


def read(asset):
    import rasterio  # noqa: PLC0415

    with rasterio.open(asset["href"]) as file:
        return file.read(1)


def test_bands_that_are_gone_leave_out_the_picture_with_a_note(copied, tmp_path):
    path = item_path(copied, "2_L2A_cloudmask")
    body = json.loads(path.read_text())
    body["assets"]["red"]["href"] = str(tmp_path / "gone.tif")
    change(path, assets=body["assets"])
    data = blocks(build_report(copied, tmp_path / "r.html"))
    (noted,) = [data[name] for name in data if name != "index" and "picture" not in data[name]]
    assert any("red is not shown" in note and "gone.tif" in note for note in noted["notes"])
    assert set(planes(noted)) == {"mask", "scl", "cloud", "shadow"}


@pytest.mark.parametrize(
    "changes",
    [
        {"assets": {}},
        {"assets": []},
        {"properties": None},
        {"links": [3]},
        {"id": "another"},
        {"properties": {}, "assets": {"cloud_mask": {"href": "./cloud_mask.tif"}}},
    ],
)
def test_an_item_that_is_not_one_is_listed_with_what_is_wrong_and_harms_no_other(copied, tmp_path, changes):
    change(item_path(copied, "2_L2A_cloudmask"), **changes)
    items = blocks(build_report(copied, tmp_path / "r.html"))["index"]["items"]
    assert ["problem" in item for item in items].count(True) == 1
    assert len(items) == 3


def test_a_mask_that_cannot_be_read_is_a_problem_of_its_item_alone(copied, tmp_path):
    item_path(copied, "2_L2A_cloudmask").with_name("cloud_mask.tif").write_bytes(b"no raster")
    items = blocks(build_report(copied, tmp_path / "r.html"))["index"]["items"]
    (bad,) = [item for item in items if "problem" in item]
    assert "cloud_mask.tif" in bad["problem"]


def test_without_a_word_of_the_source_the_products_cover_is_counted(copied, tmp_path):
    path = item_path(copied, "2_L2A_cloudmask")
    body = json.loads(path.read_text())
    stated = next(link for link in body["links"] if "eo:cloud_cover" in link)
    bare = {key: value for key, value in stated.items() if ":" not in key}
    change(path, links=[bare if link is stated else link for link in body["links"]])
    items = blocks(build_report(copied, tmp_path / "r.html"))["index"]["items"]
    (counted,) = [item["product"] for item in items if item["product"]["by"] == "picture"]
    assert counted["cloud"] == pytest.approx(stated["eo:cloud_cover"], abs=0.01)


def test_only_web_and_file_references_become_links(tmp_path):
    hrefs = {
        "https://example.org/a?sig=x": "https://example.org/a",
        "/data/elsewhere/b c.tif": "file:///data/elsewhere/b%20c.tif",
        "javascript:alert(1)": None,
        "data:text/html,x": None,
        "s3://bucket/key": None,
        "package://model.json": None,
        "//host/x": "file:////host/x",
    }
    assert {href: link_to(href, catalog="/data/out", page=tmp_path) for href in hrefs} == hrefs
    inside = link_to(str(tmp_path / "a" / "b#1.tif"), catalog=str(tmp_path), page=tmp_path / "pages")
    assert inside == "../a/b%231.tif"


def test_references_are_shown_without_secrets(catalog):
    item = next(OutputCatalog(catalog).items())
    item["assets"]["x"] = {"href": "s3://key:secret@bucket/x?sig=secret"}
    assert "secret" not in json.dumps(links(item, partial(link_to, catalog=str(catalog), page=catalog)))


def test_a_catalog_without_masks_is_a_wrong_command(tmp_path):
    with pytest.raises(ConfigError, match="give the folder that"):
        build_report(tmp_path, tmp_path / "r.html")


def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(catalog, tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(WriteError, match="taken"):
        build_report(catalog, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_progress_is_told(catalog, tmp_path):
    told = []
    build_report(catalog, tmp_path / "r.html", progress=lambda *at: told.append(at))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_picture_takes_the_room_it_has(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 500, 3), np.uint8)
    small, large = webp_within(noise, 20_000), webp_within(noise, 1_000_000)
    assert len(small) <= 20_000 < len(large)
    for data, side in ((small, 256), (large, 512)):
        (tmp_path / "p.webp").write_bytes(data)
        with Image.open(tmp_path / "p.webp") as image:
            assert max(image.size) >= side


def test_a_thumbnail_shows_the_mask_with_and_without_a_picture(tmp_path):
    classes = np.zeros((200, 100), np.uint8)
    classes[100:] = 1
    for rgb in (None, np.full((50, 25, 3), 90, np.uint8)):
        (tmp_path / "t.webp").write_bytes(thumbnail(rgb, classes))
        with Image.open(tmp_path / "t.webp") as image:
            assert image.size == (48, 96)
            above, below = image.getpixel((24, 20)), image.getpixel((24, 70))
        assert max(above) - min(above) < 25
        assert below[0] - below[1] > 60


def test_the_command_says_where_the_file_is(catalog, tmp_path):
    done = CliRunner().invoke(app, ["report", str(catalog), "--out", str(tmp_path / "new" / "r.html")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'new' / 'r.html'}\n")
    assert (tmp_path / "new" / "r.html").stat().st_size > 10_000


def test_the_report_of_a_remote_catalog_needs_a_place():
    done = CliRunner().invoke(app, ["report", "s3://bucket/masks"])
    assert isinstance(done.exception, ConfigError)
