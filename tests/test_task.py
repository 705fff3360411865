from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import ClassVar

import pytest
import shapely
from offline import Validator
from outputs import read_items
from pieces import cut
from rasterio.windows import Window
from s3 import s3_server

pytest.importorskip("stactask", reason="needs the extra: pip install 'stac-cloudmask[task]'")
from stactask.exceptions import InvalidInput

from stac_cloudmask.errors import ReadError
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.task import CloudMaskTask

pytestmark = [
    # stac-task warns of the old way to choose collections even where a payload does not use it
    pytest.mark.filterwarnings("ignore:'upload_options.collections' is deprecated:DeprecationWarning"),
]

OUTPUT = "cloudn_chip1_cloudmask"


@pytest.fixture
def item(shared, tmp_path):
    """A piece of a real scene without SCL, as pipelines have it: hrefs absolute."""
    (source,) = read_items(shared / "data" / "cloudn-chips" / "cloudn_chip1" / "cloudn_chip1.json")
    source.make_asset_hrefs_absolute()
    (tmp_path / "scene").mkdir()
    cut(source, Window(col_off=64, row_off=64, width=160, height=160), tmp_path / "scene")
    return source.to_dict(include_self_link=True, transform_hrefs=False)


@pytest.fixture
def valid(shared):
    return Validator(shared / "data" / "schemas")


def payload(*items, process=None, **parameters):
    parameters = {"missing_scl": "model-only", **parameters}
    definition = {"workflow": "masks", "tasks": {"stac-cloudmask": parameters}, **(process or {})}
    return {"type": "FeatureCollection", "id": "run-1", "features": list(items), "process": [definition]}


def test_a_payload_is_masked_into_a_catalog(item, tmp_path, valid):
    given = payload(item, out=str(tmp_path / "out"), merge="union", cloud_thr=0.4)
    done = CloudMaskTask.handler(given)
    (body,) = done["features"]
    assert (body["id"], body["collection"]) == (OUTPUT, "cloudn-chips-cloudmask")
    assert body["properties"]["stac_cloudmask:settings"]["cloud_thr"] == 0.4
    assert body["properties"]["stac_cloudmask:merge"]["policy"] == "union"
    assert body["assets"]["cloud_mask"]["href"] == str(
        tmp_path / "out" / body["collection"] / OUTPUT / "cloud_mask.tif"
    )
    valid(body)
    assert list(OutputCatalog(tmp_path / "out").listed()) == [("cloudn-chips-cloudmask", OUTPUT)]
    assert done["process"] == given["process"]


def test_what_is_up_to_date_is_not_made_again(item, tmp_path):
    given = payload(item, out=str(tmp_path / "out"))
    first = CloudMaskTask.handler(given)["features"]
    assert CloudMaskTask.handler(payload(item, out=str(tmp_path / "out")))["features"] == first


def test_without_upload_everything_stays_in_the_work_directory(item, tmp_path, valid):
    given = payload(item, out=str(tmp_path / "out"))
    (body,) = CloudMaskTask.handler(given, upload=False, workdir=tmp_path / "work")["features"]
    assert body["assets"]["cloud_mask"]["href"].startswith(str(tmp_path / "work"))
    assert not (tmp_path / "out").exists()
    valid(body)


def test_files_go_where_the_upload_options_say(item, valid):
    with s3_server() as bucket:
        code = "import json, sys; from stac_cloudmask.task import CloudMaskTask; CloudMaskTask.cli()"
        options = {"path_template": f"{bucket}/${{collection}}/${{year}}/${{id}}", "s3_urls": True}
        given = payload(item, process={"upload_options": options})
        command = [sys.executable, "-W", "ignore", "-c", code, "run", "--logging", "ERROR"]
        done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (body,) = json.loads(done.stdout)["features"]
        place = f"{bucket}/cloudn-chips-cloudmask/2019/{OUTPUT}"
        own = {key: asset for key, asset in body["assets"].items() if asset["href"].startswith("s3://")}
        files = {"cloud_mask.tif", "cloud_mask.qml", "cloud_mask.tif.aux.xml", "thumbnail.png"}
        assert {asset["href"] for asset in own.values()} == {f"{place}/{name}" for name in files}
        sizes = OutputCatalog(bucket)._store.sizes(place.removeprefix(f"{bucket}/"))
        assert sizes.keys() == files
        stated = {asset["href"]: asset["file:size"] for asset in own.values() if "file:size" in asset}
        assert stated == {f"{place}/{name}": sizes[name] for name in ("cloud_mask.tif", "thumbnail.png")}
        assert "/masks/" not in json.dumps(body)
        assert body["properties"]["stac_cloudmask:models"][0]["name"] == "ukis-csmask-4b-l2a"
        valid(body)


def test_the_collection_of_the_source_is_never_the_masks_own(item, tmp_path):
    """Collections written for source items match our ids too, as these begin with the source's."""
    source = item | {"id": "S2A_36MYB_20190101_0_L2A", "collection": "sentinel-2-l2a"}
    old = {"upload_options": {"collections": {"sentinel-2-l2a": "$[?(@.id =~ 'S2[AB].*')]"}}}
    new = {"collection_matchers": [{"type": "jsonpath", "pattern": "$[?(@.id =~ 'S2.*')]", "collection_name": "l2a"}]}
    for definition in (old, new):
        given = payload(source, process=definition, out=str(tmp_path / "out"))
        (body,) = CloudMaskTask.handler(given)["features"]
        assert body["collection"] == "sentinel-2-l2a-cloudmask"


def test_a_matcher_for_masks_chooses_their_collection(item, tmp_path):
    matchers = [
        {"type": "jsonpath", "pattern": "$[?(@.id =~ '.*_cloudmask')]", "collection_name": "our-masks"},
        {"type": "catch_all", "collection_name": "others"},
    ]
    given = payload(item, process={"collection_matchers": matchers}, out=str(tmp_path / "out"))
    assert CloudMaskTask.handler(given)["features"][0]["collection"] == "our-masks"
    given["process"][0]["collection_matchers"] = matchers[1:]
    assert CloudMaskTask.handler(payload(item) | given)["features"][0]["collection"] == "others"


def test_the_item_is_ours_and_not_a_copy_of_the_source_with_its_extensions(item, tmp_path):
    (body,) = CloudMaskTask.handler(payload(item, out=str(tmp_path / "out")))["features"]
    assert [url for url in body["stac_extensions"] if "/processing/" in url] == [
        "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
    ]
    assert "onnxruntime" in body["properties"]["processing:software"]
    sources = [
        link["type"] for link in body["links"] if link["rel"] == "derived_from" and "cloudn_chip1" in link["href"]
    ]
    assert sources == ["application/geo+json"]


def test_a_message_is_masked_with_the_parameters_of_a_derived_task(item, tmp_path):
    class Masks(CloudMaskTask):
        defaults: ClassVar = {"out": str(tmp_path / "out"), "missing_scl": "model-only", "mask_only": True}

    assets = {key: asset | {"href": f"file://{asset['href']}"} for key, asset in item["assets"].items()}
    remote = item | {"links": [{"rel": "self", "href": "https://example.org/items/cloudn_chip1"}], "assets": assets}
    event = {"Records": [{"body": json.dumps({"Type": "Notification", "Message": json.dumps(remote)})}]}
    with pytest.raises(InvalidInput, match="may not name local files"):
        Masks.handler(event)
    (body,) = Masks.handler(item)["features"]
    assert set(body["assets"]) == {"cloud_mask", "cloud_mask_gdal", "cloud_mask_qgis", "thumbnail"}


def test_options_of_the_workflow_hold_and_those_for_other_tasks_are_left_alone(item, tmp_path):
    shared = {"workflow_options": {"out": str(tmp_path / "out"), "mask_only": True, "some_other_task": 1}}
    (body,) = CloudMaskTask.handler(payload(item, process=shared))["features"]
    assert "blue" not in body["assets"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"no_such": 1}, "no parameter no_such"),
        ({"merge": "magic"}, "merge is one of"),
        ({"cloud_thr": "high"}, "cloud_thr is a number from 0 to 1"),
        ({"mask_only": "yes"}, "true or false"),
        ({"out": "https://example.org"}, "web address"),
        ({"cloud_model": "no-such-model"}, "no-such-model"),
    ],
)
def test_bad_parameters_are_invalid_input(item, tmp_path, parameters, message):
    with pytest.raises(InvalidInput, match=message):
        CloudMaskTask.handler(payload(item, **({"out": str(tmp_path)} | parameters)))


def test_json_lists_and_numbers_are_taken_as_settings(item, tmp_path):
    given = payload(item, out=str(tmp_path), cloud_model=["ukis-csmask-4b-l2a"], boa_offset=0, scl_cloud=[8, 9])
    (body,) = CloudMaskTask.handler(given)["features"]
    assert body["properties"]["stac_cloudmask:settings"]["boa_offset"] == "0"


def test_a_payload_without_items_is_invalid_input():
    with pytest.raises(InvalidInput, match="no items"):
        CloudMaskTask.handler(payload())


def test_bad_items_are_invalid_input_and_the_others_are_kept(item, tmp_path):
    bandless = item | {"id": "bandless", "assets": {}}
    with pytest.raises(InvalidInput, match="bandless"):
        CloudMaskTask.handler(payload(bandless, item, out=str(tmp_path / "out")))
    assert [name for _, name in OutputCatalog(tmp_path / "out").listed()] == [OUTPUT]
    with pytest.raises(InvalidInput, match="no valid assets"):
        CloudMaskTask.handler(payload(item | {"assets": None}, out=str(tmp_path / "out")))


@pytest.mark.parametrize("form", [list, lambda box: shapely.geometry.mapping(shapely.box(*box))])
def test_an_area_of_the_payload_is_masked_and_items_beside_it_give_nothing(item, tmp_path, form):
    west, south, east, north = item["bbox"]
    middle = ((west * 3 + east) / 4, (south * 3 + north) / 4, (west + east * 3) / 4, (south + north * 3) / 4)
    done = CloudMaskTask.handler(payload(item, out=str(tmp_path), area=form(middle)))
    [feature] = done["features"]
    assert feature["bbox"] == pytest.approx(middle, abs=1e-6)
    assert CloudMaskTask.handler(payload(item, out=str(tmp_path), area=[100, 10, 101, 11]))["features"] == []


def test_a_failure_that_may_pass_is_not_invalid_input(item, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ReadError, match="file/out"):
        CloudMaskTask.handler(payload(item, out=str(tmp_path / "file" / "out")))


def test_the_command_line_tells_bad_input_from_trouble(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["task", "run", "--logging", "CRITICAL"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(payload())))
    with pytest.raises(SystemExit) as caught:
        CloudMaskTask.cli()
    assert caught.value.code == 65
    assert capsys.readouterr().err == "error: the payload has no items\n"


def test_a_payload_file_gives_a_payload_file(item, tmp_path, monkeypatch):
    (tmp_path / "in.json").write_text(json.dumps(payload(item, out=str(tmp_path / "out"))))
    monkeypatch.setattr(sys, "argv", ["task", "run", str(tmp_path / "in.json"), "--output", str(tmp_path / "out.json")])
    CloudMaskTask.cli()
    assert json.loads((tmp_path / "out.json").read_text())["features"][0]["id"] == OUTPUT
