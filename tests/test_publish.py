from __future__ import annotations

import json
from pathlib import Path

import pystac
import pystac_client
import pytest
from offline import Validator
from outputs import class_map, facts_of, read_items, write_files
from pgstac import pgstac_server
from s3 import s3_server
from strict_api import Fault, strict_api

from stac_cloudmask.errors import ConfigError, StacCloudmaskWarning
from stac_cloudmask.pipeline.publish import GIVE_UP, publish
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.item import mask_item
from stac_cloudmask.stac.transactions import Patience

HURRIED = Patience(attempts=2, pause=0.001, timeout=10)
COLLECTION = "earth-search-33twl-cloudmask"
SERVED = "https://masks.example.org"


@pytest.fixture
def source(shared, tmp_path):
    """A catalog of two collections: five dates of a tile, and one other scene."""
    catalog = OutputCatalog(tmp_path / "source")
    hrefs = []
    for path in sorted((shared / "data").glob("*/*/*.json")):
        if path.parts[-3] in {"earth-search-33twl", "bolzano-2022"}:
            (item,) = read_items(path)
            with catalog.workdir() as work:
                files = write_files(work, class_map(), everything=False)
                hrefs.append(catalog.write_item(mask_item(item, facts_of(item, class_map(), files)), files))
    catalog.link(hrefs)
    return catalog


@pytest.fixture
def api():
    with strict_api() as server:
        yield server


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


@pytest.fixture(params=["directory", "s3"])
def target(request, tmp_path):
    return (
        str(tmp_path / "target")
        if request.param == "directory"
        else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    )


def statuses(results):
    return [result.status for result in results]


@pytest.mark.slow
def test_a_catalog_goes_to_a_real_api_and_is_found_by_search(source):
    with pgstac_server() as server:
        for _ in range(2):
            results = list(publish(source.out, to=server.url, asset_root=SERVED, patience=HURRIED))
            assert statuses(results) == ["done"] * 6
        client = pystac_client.Client.open(server.url)
        found = {item.id: item for item in client.search(bbox=[15, 45, 16.4, 46]).items()}
        extent = client.get_collection(COLLECTION).extent.to_dict()
    assert set(found) == {r.item_id for r in results if "33TWL" in r.item_id}
    for item in found.values():
        assert item.assets["cloud_mask"].href == f"{SERVED}/{COLLECTION}/{item.id}/cloud_mask.tif"
    assert extent == source.collection(COLLECTION)["extent"]


def test_a_catalog_goes_to_another_store_whole_and_once(source, target, shared):
    assert statuses(publish(source.out, to=target)) == ["done"] * 6
    copied = OutputCatalog(target)
    assert sorted(copied.listed()) == sorted(source.listed())
    valid = Validator(shared / "data" / "schemas")
    for ids in copied.listed():
        assert copied.state(*ids) == source.state(*ids) == "0123456789abcdef"
        valid(pystac.Item.from_dict(copied.item(*ids), migrate=False).to_dict(transform_hrefs=False))
    valid(copied.collection(COLLECTION))
    again = list(publish(source.out, to=target))
    assert statuses(again) == ["up-to-date"] * 6
    assert {result.output for result in again} == {copied.href(*ids) for ids in copied.listed()}


def test_the_source_stays_as_it_was(source, target):
    before = list(source.items())
    list(publish(source.out, to=target))
    assert list(source.items()) == before
    assert all(source.state(*ids) for ids in source.listed())


def test_a_damaged_item_fails_and_the_others_go_on(source, target):
    damaged = source.href(*next(source.listed()))
    tif = Path(damaged).with_name("cloud_mask.tif")
    content = bytearray(tif.read_bytes())
    content[-1] ^= 1
    tif.write_bytes(content)
    results = list(publish(source.out, to=target))
    assert statuses(results).count("done") == 5
    (failed,) = [result for result in results if result.status == "failed"]
    assert "cloud_mask" in failed.error
    assert damaged in failed.error
    assert (failed.kind, failed.output) == ("infrastructure", None)
    assert len(list(OutputCatalog(target).listed())) == 5


def test_only_some_items_can_be_published(source, target):
    one = source.href(*next(source.listed()))
    assert statuses(publish(source.out, to=target, only={one})) == ["done"]


def test_paths_of_this_machine_are_warned_about(source, api):
    with pytest.warns(StacCloudmaskWarning, match="asset_root"):
        assert statuses(publish(source.out, to=api.url, patience=HURRIED)) == ["done"] * 6
    item = next(body for (collection, _), body in api.items.items() if collection == COLLECTION)
    assert item["assets"]["cloud_mask"]["href"] == f"{source.root}/{COLLECTION}/{item['id']}/cloud_mask.tif"


def test_a_refused_item_fails_and_the_others_go_on(source, api):
    api.faults = [Fault("PUT", 400, text="no such thing")]
    results = list(publish(source.out, to=api.url, asset_root=SERVED, patience=HURRIED))
    assert sorted(statuses(results)) == ["done"] * 5 + ["failed"]
    assert next(result.kind for result in results if result.error) == "input"
    assert "no such thing" in next(result.error for result in results if result.error)


def test_a_collection_that_may_not_be_created_fails_its_items_only(source, api):
    api.collections["bolzano-2022-cloudmask"] = source.collection("bolzano-2022-cloudmask")
    results = list(publish(source.out, to=api.url, asset_root=SERVED, create_collections=False, patience=HURRIED))
    assert {result.item_id for result in results if result.status == "done"} == {"bolzano_20220612_cloudmask"}
    assert all(COLLECTION in result.error for result in results if result.status == "failed")


def test_a_server_that_is_down_is_not_asked_for_every_item(source, api):
    only = {source.href(*ids) for ids in source.listed() if ids[0] == COLLECTION}
    api.faults = [Fault("PUT", 503)] * 100
    results = list(publish(source.out, to=api.url, asset_root=SERVED, only=only, patience=HURRIED))
    assert statuses(results) == ["failed"] * 5
    assert sum(method == "PUT" for method, _ in api.requests) == GIVE_UP * HURRIED.attempts
    assert "not tried" in results[-1].error
    api.faults = []
    again = publish(source.out, to=api.url, asset_root=SERVED, only=only, patience=HURRIED)
    assert statuses(again) == ["done"] * 5


def test_headers_reach_the_api_and_no_record(source, api):
    api.faults = [Fault("PUT", 403, text="who is s3cr3t?")]
    headers = {"X-Api-Key": "s3cr3t"}
    results = list(publish(source.out, to=api.url, asset_root=SERVED, headers=headers, patience=HURRIED))
    assert {sent["X-Api-Key"] for sent in api.headers} == {"s3cr3t"}
    assert "s3cr3t" not in json.dumps([result.to_dict() for result in results])


def test_an_empty_catalog_publishes_nothing(tmp_path, target):
    assert list(publish(str(tmp_path / "nothing"), to=target)) == []


def test_an_address_that_cannot_be_written_is_a_settings_error(source):
    with pytest.raises(ConfigError, match="nosuch"):
        list(publish(source.out, to="nosuch://x/y"))


@pytest.mark.parametrize("to", ["store", "api"])
def test_an_item_that_says_it_is_another_is_not_published(source, tmp_path, to):
    path = next((tmp_path / "source" / COLLECTION).glob("*/*.json"))
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"collection": "precious", "id": "theirs"}))
    with strict_api() as api:
        place = api.url if to == "api" else str(tmp_path / "copy")
        results = list(publish(source.out, to=place, asset_root=SERVED, patience=HURRIED))
    failed = [result for result in results if result.status == "failed"]
    assert [result.item_id for result in failed] == [path.stem]
    assert "is another item" in failed[0].error
    assert all(result.output for result in results if result.status != "failed")


def test_no_document_of_a_catalog_replaces_what_the_target_has(source, tmp_path):
    path = next((tmp_path / "source" / COLLECTION).glob("*/*.json"))
    body = json.loads(path.read_text())
    body["links"].append({"rel": "derived_from", "href": "../../catalog.json"})
    path.write_text(json.dumps(body))
    target = tmp_path / "copy" / "catalog.json"
    target.parent.mkdir()
    target.write_text('{"id": "mine", "links": []}')
    results = {result.item_id: result for result in publish(source.out, to=str(target.parent))}
    assert results[path.stem].status == "failed"
    assert json.loads(target.read_text())["id"] == "mine"


def test_an_item_without_place_or_time_is_refused_by_name(source, tmp_path):
    path = next((tmp_path / "source" / COLLECTION).glob("*/*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bbox": ["west"] * 4}))
    results = {result.item_id: result for result in publish(source.out, to=str(tmp_path / "copy"))}
    assert "no valid bbox or datetime" in results[path.stem].error
