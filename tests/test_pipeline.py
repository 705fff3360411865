from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
import stackstac
from checks import MAPS, checked, hrefs, layers, read
from offline import Validator, no_network
from PIL import Image
from scenes import WEIGHTS, settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.core.pixels import to_rgb
from stac_cloudmask.pipeline import item
from stac_cloudmask.pipeline.item import plan_item
from stac_cloudmask.stac.parse import parse_item

COLLECTION = "simulated-sentinel-2-l2a-cloudmask"
NAME = "scene-0000_cloudmask"


@pytest.fixture(scope="module")
def valid(shared):
    return Validator(shared / "data" / "schemas")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One simulated item with clouds, shadows and an edge without data."""
    return write_items(tmp_path_factory.mktemp("source"), 1, height=192, width=224, seed=3, wedge=True)[0]


@pytest.fixture
def own(source, tmp_path):
    """The same item in a folder of the test's own."""
    shutil.copytree(source.parent, tmp_path / "own" / source.stem)
    return tmp_path / "own" / source.stem / source.name


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def process(item, out, model, **changes):
    (result,) = scm.process(item, out=out, settings=settings_of(model, **changes))
    return result


def item_file(out):
    return out / COLLECTION / NAME / f"{NAME}.json"


def test_a_local_item_becomes_a_valid_catalog_and_nothing_leaves_this_machine(source, model, valid, tmp_path):
    with no_network():
        result = process(source, tmp_path / "out", model, probabilities=True, votes=True)
    assert (result.status, result.error) == ("done", None)
    assert result.output == str(item_file(tmp_path / "out"))
    assert checked(tmp_path / "out", valid) == {NAME}
    assert set(layers(item_file(tmp_path / "out").parent)) == set(MAPS)
    assert set(result.seconds) == {"open", "infer", "merge", "write"}


def test_the_result_and_the_item_state_the_cover_of_the_map(source, model, tmp_path):
    result = process(source, tmp_path, model)
    codes = layers(item_file(tmp_path).parent)["cloud_mask"]
    share = 100 * np.count_nonzero(codes == 1) / np.count_nonzero(codes != 255)
    assert result.cover["cloud"] == pytest.approx(share, abs=1e-4)
    assert read(item_file(tmp_path))["properties"]["eo:cloud_cover"] == result.cover["cloud"]
    assert result.cover["nodata"] == pytest.approx(100 * np.mean(codes == 255), abs=1e-4)
    assert {0, 1, 2, 255} == set(np.unique(codes))


def test_both_libraries_load_mask_and_bands_from_the_output_item_exactly(source, model, tmp_path):
    process(source, tmp_path, model)
    expected = layers(item_file(tmp_path).parent)["cloud_mask"]
    with rasterio.open(source.parent / "red.tif") as raster:
        red = raster.read(1)
    item = pystac.Item.from_file(str(item_file(tmp_path)))
    by_odc = odc.stac.load([item], bands=["cloud_mask", "red"])
    item.make_asset_hrefs_absolute()
    by_stackstac = stackstac.stack([item.to_dict()], assets=["cloud_mask"], epsg=32633, resolution=10, bounds=
        item.properties["proj:bbox"], dtype="uint8", fill_value=np.uint8(255), rescale=False)  # fmt: skip
    np.testing.assert_array_equal(by_odc["cloud_mask"].values[0], expected)
    np.testing.assert_array_equal(by_odc["red"].values[0], red)
    np.testing.assert_array_equal(by_stackstac.values[0, 0], expected)


def test_running_again_does_nothing_and_gives_the_same_result(source, model, tmp_path):
    first = process(source, tmp_path, model)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in {"run.json", "lock"}]
    before = {path: path.stat().st_mtime_ns for path in files}
    result = process(source, tmp_path, model)
    assert (result.status, result.output) == ("up-to-date", str(item_file(tmp_path)))
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert (result.cover, result.notes, result.product_cover) == (first.cover, first.notes, first.product_cover)
    assert set(result.seconds) == {"open", "infer", "merge"}


@pytest.mark.parametrize("lost", ["cloud_mask.tif", "thumbnail.png", f"{NAME}.json"])
def test_what_is_deleted_is_repaired(source, model, tmp_path, lost):
    process(source, tmp_path, model)
    before = layers(item_file(tmp_path).parent)
    (item_file(tmp_path).parent / lost).unlink()
    assert process(source, tmp_path, model).status == "done"
    assert checked(tmp_path) == {NAME}
    np.testing.assert_equal(layers(item_file(tmp_path).parent), before)


def test_overwrite_makes_it_again_to_the_same_bits(source, model, tmp_path):
    process(source, tmp_path, model)
    before = layers(item_file(tmp_path).parent)
    assert process(source, tmp_path, model, overwrite=True).status == "done"
    np.testing.assert_equal(layers(item_file(tmp_path).parent), before)


@pytest.mark.parametrize("changes", [{"in_memory": True}, {"loader": "odc"}, {"threads": 2}], ids=str)
def test_how_pixels_are_read_changes_no_bit(source, model, tmp_path, changes):
    process(source, tmp_path / "one", model, probabilities=True, votes=True)
    process(source, tmp_path / "other", model, probabilities=True, votes=True, **changes)
    expected = layers(item_file(tmp_path / "one").parent)
    assert set(expected) == set(MAPS)
    np.testing.assert_equal(layers(item_file(tmp_path / "other").parent), expected)


def test_only_what_is_asked_for_is_published(source, model, valid, tmp_path):
    process(source, tmp_path, model)
    assert set(layers(item_file(tmp_path).parent)) == {"cloud_mask"}
    assert "red" in read(item_file(tmp_path))["assets"]
    process(source, tmp_path, model, mask_only=True, votes=True)
    assert set(read(item_file(tmp_path))["assets"]) == {
        *("cloud_mask", "cloud_mask_gdal", "cloud_mask_qgis", "mask_votes", "thumbnail")
    }
    assert checked(tmp_path, valid) == {NAME}


def test_a_coarser_mask_is_on_the_coarser_grid(source, model, valid, tmp_path):
    process(source, tmp_path, model, resolution=20)
    assert checked(tmp_path, valid) == {NAME}
    body = read(item_file(tmp_path))
    assert layers(item_file(tmp_path).parent)["cloud_mask"].shape == (96, 112)
    assert body["properties"]["gsd"] == body["assets"]["cloud_mask"]["raster:spatial_resolution"] == 20


def test_a_resolution_that_does_not_fit_is_refused(source, model, tmp_path):
    result = process(source, tmp_path, model, resolution=15)
    assert (result.status, result.kind) == ("failed", "input")
    assert "15 is not a whole multiple of 10" in result.error


def test_an_item_without_scl_is_masked_by_models_alone_only_on_request(own, model, valid, tmp_path):
    body = read(own)
    del body["assets"]["scl"]
    own.write_text(json.dumps(body))
    refused = process(own, tmp_path, model)
    assert (refused.status, refused.kind) == ("failed", "input")
    assert "no SCL" in refused.error
    assert "model-only" in refused.error
    done = process(own, tmp_path, model, missing_scl="model-only")
    assert done.status == "done"
    assert done.notes
    properties = read(item_file(tmp_path))["properties"]
    assert properties["stac_cloudmask:product_mask"] is None
    assert "without a product mask" in properties["processing:lineage"]
    assert checked(tmp_path, valid) == {NAME}


@pytest.mark.parametrize("merge", ["calibrated", "union", "farmvibes"])
def test_every_policy_gives_the_same_in_memory_and_as_published(source, model, valid, tmp_path, merge):
    settings = settings_of(model, merge=merge, probabilities=True, votes=True)
    scm.process(source, out=tmp_path, settings=settings)
    assert checked(tmp_path, valid) == {NAME}
    assert read(item_file(tmp_path))["properties"]["stac_cloudmask:merge"]["policy"] == merge
    dataset = scm.cloud_mask(source, settings=settings)
    for key, pixels in layers(item_file(tmp_path).parent).items():
        np.testing.assert_array_equal(dataset[key].values, pixels)


def test_union_takes_whatever_model_or_product_says(source, model, tmp_path):
    process(source, tmp_path, model, merge="union", buffer=0.0, probabilities=True, cloud_thr=0.5)
    found = layers(item_file(tmp_path).parent)
    with rasterio.open(source.parent / "scl.tif") as raster:
        scl = raster.read(1).repeat(2, axis=0).repeat(2, axis=1)
    has_data = found["cloud_mask"] != 255
    expected = (found["cloud_probability"] > 50) | np.isin(scl, (8, 9, 10))
    np.testing.assert_array_equal((found["cloud_mask"] == 1)[has_data], expected[has_data])


def test_models_of_an_ensemble_are_averaged_and_all_named(source, model, valid, tmp_path):
    other = write_model(tmp_path / "model", WEIGHTS * 0, name="undecided")
    process(source, tmp_path / "a", model, probabilities=True)
    process(source, tmp_path / "b", other, probabilities=True)
    both = settings_of(model, cloud_model=(str(model), str(other)), probabilities=True)
    scm.process(source, out=tmp_path / "both", settings=both)
    one, two, mean = (layers(item_file(tmp_path / name).parent)["cloud_probability"] for name in ("a", "b", "both"))
    has_data = mean != 255
    assert np.abs((one.astype(int) + two) / 2 - mean)[has_data].max() <= 1
    links = [link for link in read(item_file(tmp_path / "both"))["links"] if "mlm:name" in link]
    assert [link["mlm:name"] for link in links] == ["tiny", "undecided"]
    assert checked(tmp_path / "both", valid) == {NAME}


def test_the_link_to_the_model_leads_to_its_valid_item(source, model, valid, tmp_path):
    process(source, tmp_path, model)
    item = pystac.Item.from_file(str(item_file(tmp_path)))
    (link,) = [link for link in item.links if link.rel == "derived_from" and "mlm:name" in link.extra_fields]
    path = Path(link.get_absolute_href())
    assert path.is_relative_to(tmp_path)
    assert any("/mlm/" in schema for schema in valid(read(path)))
    assert read(path)["assets"]["model"]["href"] == str(model.with_suffix(".onnx"))
    assert item.assets["cloud_mask"].extra_fields["processing:expression"]["expression"] == link.href


def test_a_model_with_an_address_is_linked_there(source, tmp_path):
    model = write_model(tmp_path / "model")
    address = "https://models.example.org/tiny.json"
    model.write_text(json.dumps(read(model) | {"links": [{"rel": "self", "href": address}]}))
    process(source, tmp_path / "out", model)
    assert address in hrefs(read(item_file(tmp_path / "out")), "derived_from")
    assert not (tmp_path / "out" / "models").exists()


def fingerprint(path, model, **changes):
    return plan_item(parse_item(read(path), origin=str(path)), settings=settings_of(model, **changes)).fingerprint


@pytest.mark.parametrize("change", [{"threads": 2}, {"in_memory": True}, {"overwrite": True}], ids=str)
def test_what_changes_no_bit_leaves_a_mask_up_to_date(source, model, change):
    assert fingerprint(source, model, **change) == fingerprint(source, model)


@pytest.mark.parametrize(
    "change", [{"cloud_thr": 0.4}, {"merge": "union"}, {"votes": True}, {"resolution": 20.0}, {"buffer": 0.0}], ids=str
)
def test_a_changed_setting_makes_a_mask_again(source, model, tmp_path, change):
    process(source, tmp_path, model)
    assert process(source, tmp_path, model, **change).status == "done"
    assert process(source, tmp_path, model, **change).status == "up-to-date"


def test_a_model_counts_by_what_it_is_not_by_where_it_is(source, model, tmp_path):
    moved = write_model(tmp_path / "elsewhere")
    assert fingerprint(source, moved) == fingerprint(source, model)
    assert fingerprint(source, write_model(tmp_path / "bytes", WEIGHTS * 2)) != fingerprint(source, model)
    window = {"stac_cloudmask:gsd": [10, 20]}
    assert fingerprint(source, write_model(tmp_path / "item", **window)) != fingerprint(source, model)


def test_a_changed_source_makes_a_mask_again(own, model, tmp_path):
    process(own, tmp_path, model)
    body = read(own)
    body["properties"]["updated"] = "2031-01-01T00:00:00Z"
    own.write_text(json.dumps(body))
    assert process(own, tmp_path, model).status == "done"
    body["assets"]["red"]["file:checksum"] = "1220" + 64 * "0"
    own.write_text(json.dumps(body))
    assert process(own, tmp_path, model).status == "done"


def test_signatures_and_links_of_a_source_do_not_matter(source, model):
    body = read(source)
    at = "https://example.blob.core.windows.net/a/"

    def fetched(sign, **properties):
        assets = {key: asset | {"href": f"{at}{key}.tif{sign}"} for key, asset in body["assets"].items()}
        given = body | {"assets": assets, "properties": body["properties"] | properties, "links": []}
        return plan_item(parse_item(given, origin=f"{at}x.json"), settings=settings_of(model)).fingerprint

    assert fetched("?sig=1") == fetched("?sig=2&se=3", **{"msft:expiry": "2031-01-01T00:00:00Z"})


def test_another_version_makes_a_mask_again(source, model, tmp_path, monkeypatch):
    process(source, tmp_path, model)
    monkeypatch.setattr(item, "VERSION", "99.0.0")
    assert process(source, tmp_path, model).status == "done"


def test_the_thumbnail_shows_the_scene_below_the_mask(source, model, tmp_path):
    folder = Path(process(source, tmp_path, model).output).parent
    clear = layers(folder)["cloud_mask"] == 0
    bands = [rasterio.open(source.parent / f"{name}.tif").read(1)[clear].mean() for name in ("red", "green", "blue")]
    expected = to_rgb(np.array(bands, np.float32).reshape(3, 1, 1) / 10000 - 0.1)[0, 0]
    with Image.open(folder / "thumbnail.png") as picture:
        assert picture.size == clear.shape[::-1]
        seen = np.asarray(picture.convert("RGBA"))[clear][:, :3].mean(axis=0)
    assert np.abs(seen - expected).max() < 12
