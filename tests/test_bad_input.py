"""Each kind of bad input fails its own item with a reason that helps, leaves nothing behind, and stops nobody else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import rasterio
from checks import checked, read
from rasterio.transform import from_origin
from scenes import WEIGHTS, settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.errors import WriteError
from stac_cloudmask.pipeline import item
from stac_cloudmask.stac.parse import parse_item
from stac_cloudmask.stac.store import WORK
from tests.stac.range_server import serve

COLLECTION = "simulated-sentinel-2-l2a-cloudmask"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 2)


@pytest.fixture
def items(made, tmp_path):
    """A good item, and one to spoil."""
    shutil.copytree(made[0].parents[2], tmp_path / "source")
    return [tmp_path / "source" / path.relative_to(made[0].parents[2]) for path in made]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def change(path, edit):
    body = read(path)
    edit(body)
    path.write_text(json.dumps(body))


def missing_band(path):
    change(path, lambda body: body["assets"].pop("nir"))


def missing_scl(path):
    change(path, lambda body: body["assets"].pop("scl"))


def level_1c(path):
    change(path, lambda body: body["properties"].update({"s2:product_type": "S2MSI1C"}))


def missing_file(path):
    (path.parent / "red.tif").unlink()


def truncated(path):
    os.truncate(path.parent / "red.tif", (path.parent / "red.tif").stat().st_size // 2)


def not_a_raster(path):
    (path.parent / "red.tif").write_text("<html>please log in</html>")


def in_another_crs(path):
    rewrite(path.parent / "red.tif", crs="EPSG:32634")


def in_another_place(path):
    rewrite(path.parent / "red.tif", transform=from_origin(700000, 5000040, 10, 10))


def rewrite(path, **profile):
    with rasterio.open(path) as raster:
        pixels, profile = raster.read(), raster.profile | profile
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(pixels)


def wrong_transform(path):
    change(path, lambda body: body["assets"]["red"].update({"proj:transform": [10, 0, 1, 0, -10, 1]}))


def wrong_shape(path):
    change(path, lambda body: body["assets"]["red"].update({"proj:shape": [7, 7]}))


def climbing_id(path):
    change(path, lambda body: body.update({"id": "../../scene"}))


def id_with_a_slash(path):
    change(path, lambda body: body.update({"id": "a/b"}))


def climbing_collection(path):
    change(path, lambda body: body.update({"collection": "../x"}))


def prefix_of_gdal(path):
    change(path, lambda body: body["assets"]["red"].update({"href": "/vsicurl/http://169.254.169.254/red.tif"}))


def without_footprint(path):
    change(path, lambda body: body.update({"geometry": None, "bbox": None}))


CASES = [
    (missing_band, "scene-0001", ["'nir'", "blue, green, red", "take a model"]),
    (missing_scl, "scene-0001", ["no SCL", "model-only"]),
    (level_1c, "scene-0001", ["S2MSI1C", "L2A"]),
    (missing_file, "scene-0001", ["'red'"]),
    (truncated, "scene-0001", ["'red'", "damaged"]),
    (not_a_raster, "scene-0001", ["'red'"]),
    (in_another_crs, "scene-0001", ["'red'", "32634", "32633"]),
    (in_another_place, "scene-0001", ["'red'", "700000", "600000"]),
    (wrong_transform, "scene-0001", ["'red'", "600000"]),
    (wrong_shape, "scene-0001", ["'red'", "7 x 7", "96 x 96"]),
    (climbing_id, "../../scene", ["cannot be part of a path", "letters, digits"]),
    (id_with_a_slash, "a/b", ["cannot be part of a path"]),
    (climbing_collection, "scene-0001", ["cannot be part of a path"]),
    (prefix_of_gdal, "scene-0001", ["'red'", "refused"]),
    (without_footprint, "scene-0001", ["no geometry"]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0].__name__)
def test_bad_input_is_named_and_the_other_items_go_on(items, model, tmp_path, case):
    spoil, name, told = case
    spoil(items[1])
    results = scm.process(items[::-1], out=tmp_path / "out", settings=settings_of(model))
    failed, done = results
    assert (failed.item_id, failed.status, failed.kind) == (name, "failed", "input")
    for words in (name, *told):
        assert words in failed.error
    assert "\n" not in failed.error
    assert done.status == "done"
    assert checked(tmp_path / "out") == {"scene-0000_cloudmask"}
    assert nothing_is_left(tmp_path / "out")


def nothing_is_left(out):
    """Whether the catalog has no files but those of whole items."""
    folders = {path.name for path in (out / COLLECTION).iterdir()} if (out / COLLECTION).exists() else set()
    return folders <= {"collection.json", "items.parquet", "scene-0000_cloudmask"} and not list(
        (out / WORK).glob("run-*")
    )


def test_an_asset_that_its_server_does_not_have_is_named(items, model, tmp_path):
    with serve(items[1].parent) as site:
        change(items[1], lambda body: body["assets"]["red"].update({"href": f"{site.url}/nowhere.tif"}))
        (failed,) = scm.process(items[1], out=tmp_path / "out", settings=settings_of(model))
    assert (failed.status, failed.kind) == ("failed", "input")
    assert "'scene-0001': asset 'red'" in failed.error
    assert "404" in failed.error


def no_onnx(path):
    path.with_suffix(".onnx").write_bytes(b"this is no model, whatever its name says" * 100)


def another_number_of_bands(path):
    other = write_model(path.parent / "other", np.ones((3, 2), np.float32))
    shutil.copy(other.with_suffix(".onnx"), path.with_suffix(".onnx"))


def another_file(path):
    graph = onnx.load(path.with_suffix(".onnx"))
    graph.doc_string = "changed"
    onnx.save(graph, path.with_suffix(".onnx"))


def no_weights(path):
    path.with_suffix(".onnx").unlink()


MODELS = [
    (no_onnx, False, ["tiny.onnx", "ONNX"]),
    (another_number_of_bands, False, ["tiny.onnx", "2", "4"]),
    (another_file, True, ["tiny.onnx", "promises"]),
]


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case[0].__name__)
def test_a_model_that_is_not_what_its_item_says_fails_every_item_by_name(items, tmp_path, case):
    spoil, promised, told = case
    model = write_model(tmp_path / "model", WEIGHTS)
    spoil(model)
    if not promised:
        change(model, lambda body: [body["assets"]["model"].pop(key) for key in ("file:checksum", "file:size")])
    results = scm.process(items, out=tmp_path / "out", settings=settings_of(model))
    assert [(result.status, result.kind) for result in results] == [("failed", "input")] * 2
    for result in results:
        for words in (result.item_id, *told):
            assert words in result.error
    assert nothing_is_left(tmp_path / "out")


def test_weights_that_are_not_there_end_the_run_before_it_starts(items, tmp_path):
    model = write_model(tmp_path / "model")
    no_weights(model)
    change(model, lambda body: [body["assets"]["model"].pop(key) for key in ("file:checksum", "file:size")])
    with pytest.raises(scm.StacCloudmaskError, match=r"tiny\.onnx"):
        scm.process(items, out=tmp_path / "out", settings=settings_of(model))


def test_an_output_that_is_no_directory_ends_the_run_before_anything_is_read(items, model, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(WriteError, match="needs a writable directory"):
        scm.process(items, out=tmp_path / "out", settings=settings_of(model))


FULL = """
import resource, sys
from stac_cloudmask.cli.app import main
sys.dont_write_bytecode = True  # what the limit cut short would break every later import
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.argv = sys.argv[1:]
main()
"""
LARGEST = 8192
"""Bytes that a file may have: enough for an item's JSON, too few for an uncompressed strip of a mask."""


def test_a_disk_without_room_fails_items_and_leaves_nothing_half_written(items, model, tmp_path):
    command = [sys.executable, "-c", FULL, str(LARGEST), "process", *map(str, items), "--out", str(tmp_path / "out")]
    command += ["--cloud-model", str(model), "--shadow-model", str(model), "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("failed") == 2
    assert "scene-0001" in done.stdout
    assert nothing_is_left(tmp_path / "out")
    again = scm.process(items, out=tmp_path / "out", settings=settings_of(model))
    assert [result.status for result in again] == ["done", "done"]


def test_what_nobody_foresaw_fails_one_item_and_says_where(items, tmp_path):
    source = parse_item(read(items[0]), origin=str(items[0]))
    failed = item.attempt(source, settings=None, out=str(tmp_path / "out"))
    assert (failed.status, failed.kind) == ("failed", "unexpected")
    assert "'scene-0000': unexpected AttributeError in " in failed.error
    assert "report" in failed.error
