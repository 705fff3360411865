from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pystac
import pystac_client
import pytest
from offline import Validator
from outputs import class_map, facts_of, read_items, write_files
from pgstac import pgstac_server
from s3 import s3_server
from strict_api import Fault, strict_api

from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.item import clipped_item
from stac_cloudmask.pipeline.mask import area_of
from stac_cloudmask.pipeline.publish import GIVE_UP, publish
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import new_collection
from stac_cloudmask.stac.mask_item import attached, detached, mask_item
from stac_cloudmask.stac.transactions import StacApi

HURRIED = RetryPolicy(seconds=0.3, pause=0.1)
COLLECTION = "earth-search-33twl-cloudmask"
SERVED = "https://masks.example.org"
SOURCES = "https://sources.example.org"


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
def roots(shared):
    """Where the local sources of the test data would be served from."""
    return {str(shared / "data"): SOURCES}


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
def test_a_catalog_goes_to_a_real_api_and_is_found_by_search(source, roots):
    with pgstac_server() as server:
        for _ in range(2):
            results = list(publish(source.out, to=server.url, asset_root=SERVED, source_roots=roots, retry=HURRIED))
            assert statuses(results) == ["done"] * 6
        client = pystac_client.Client.open(server.url)
        found = {item.id: item for item in client.search(bbox=[15, 45, 16.4, 46]).items()}
        extent = client.get_collection(COLLECTION).extent.to_dict()
    assert set(found) == {r.item_id for r in results if "33TWL" in r.item_id}
    for item in found.values():
        assert item.assets["cloud_mask"].href == f"{SERVED}/{COLLECTION}/{item.id}/cloud_mask.tif"
    assert extent == source.collection(COLLECTION)["extent"]


def test_a_catalog_goes_to_another_store_whole_and_once(source, target, shared, roots):
    assert statuses(publish(source.out, to=target, source_roots=roots)) == ["done"] * 6
    copied = OutputCatalog(target)
    assert sorted(copied.listed()) == sorted(source.listed())
    valid = Validator(shared / "data" / "schemas")
    for ids in copied.listed():
        assert copied.state(*ids) == source.state(*ids) == "0123456789abcdef"
        valid(pystac.Item.from_dict(copied.item(*ids), migrate=False).to_dict(transform_hrefs=False))
    valid(copied.collection(COLLECTION))
    again = list(publish(source.out, to=target, source_roots=roots))
    assert statuses(again) == ["up-to-date"] * 6
    assert {result.output for result in again} == {copied.href(*ids) for ids in copied.listed()}


def test_sources_are_named_by_their_urls_also_in_another_folder(source, roots, shared, tmp_path):
    assert statuses(publish(source.out, to=str(tmp_path / "kept"))) == ["done"] * 6
    assert statuses(publish(source.out, to=str(tmp_path / "served"), source_roots=roots)) == ["done"] * 6
    kept, served = (OutputCatalog(tmp_path / name).item(*next(source.listed())) for name in ("kept", "served"))
    assert kept["assets"]["red"]["href"].startswith(str(shared))
    assert served["assets"]["red"]["href"].startswith(f"{SOURCES}/")
    others = publish(source.out, to=str(tmp_path / "other"), source_roots={str(tmp_path / "nothing"): SOURCES})
    assert statuses(others) == ["failed"] * 6


def test_what_a_target_cannot_do_is_refused_before_anything_is_changed(source, api, tmp_path):
    for to, how in ((api.url, "Attach"), (str(tmp_path / "folder"), "attach")):
        with pytest.raises(ConfigError, match="attached or detached at a STAC API"):
            next(publish(source.out, to=to, how=how))
    assert api.requests == []
    assert not (tmp_path / "folder").exists()
    with pytest.raises(ConfigError, match="is empty"):
        next(publish(source.out, to=""))


def test_the_source_stays_as_it_was(source, target, roots):
    before = list(source.items())
    list(publish(source.out, to=target, source_roots=roots))
    assert list(source.items()) == before
    assert all(source.state(*ids) for ids in source.listed())


def test_a_damaged_item_fails_and_the_others_go_on(source, target, roots):
    damaged = source.href(*next(source.listed()))
    tif = Path(damaged).with_name("cloud_mask.tif")
    content = bytearray(tif.read_bytes())
    content[-1] ^= 1
    tif.write_bytes(content)
    results = list(publish(source.out, to=target, source_roots=roots))
    assert statuses(results).count("done") == 5
    (failed,) = [result for result in results if result.status == "failed"]
    assert "cloud_mask" in failed.error
    assert damaged in failed.error
    assert (failed.kind, failed.output) == ("infrastructure", None)
    assert len(list(OutputCatalog(target).listed())) == 5


def test_hrefs_of_this_machine_are_refused_with_what_would_help(source, api, roots):
    results = list(publish(source.out, to=api.url, retry=HURRIED))
    assert statuses(results) == ["failed"] * 6
    assert "--asset-root" in results[0].error
    assert api.requests == []
    results = list(publish(source.out, to=api.url, asset_root=SERVED, retry=HURRIED))
    assert statuses(results) == ["failed"] * 6
    assert all("--source-root" in result.error for result in results)
    assert api.requests == []


def test_what_others_can_follow_is_published_and_nothing_is_dropped(source, api, roots, shared):
    results = list(publish(source.out, to=api.url, asset_root=SERVED, source_roots=roots, retry=HURRIED))
    assert statuses(results) == ["done"] * 6
    for (collection, name), body in api.items.items():
        assert str(shared) not in json.dumps(body)
        assert str(source.root) not in json.dumps(body)
        origin = next(link for link in body["links"] if link["rel"] == "derived_from")
        own = "s3://sentinel-cogs/" if collection.startswith("earth-search") else SOURCES  # the former states its URL
        assert origin["href"].startswith(own)
        assert body["assets"]["cloud_mask"]["href"] == f"{SERVED}/{collection}/{name}/cloud_mask.tif"


def test_a_remote_source_needs_no_root_for_itself(source, api, shared):
    remote = read_items(next((shared / "data" / "items").glob("earth-search__sentinel-2-c1*.json")))[0]
    catalog = OutputCatalog(f"{source.out}-remote")
    with catalog.workdir() as work:
        files = write_files(work, class_map(), everything=False)
        href = catalog.write_item(mask_item(remote, facts_of(remote, class_map(), files)), files)
    catalog.link([href])
    remote_store = list(publish(catalog.out, to=api.url, asset_root=SERVED, retry=HURRIED))
    assert statuses(remote_store) == ["done"], remote_store


def test_a_copy_in_an_object_store_names_no_file_of_this_machine(source, bucket, roots, tmp_path):
    place = f"{bucket}/{tmp_path.name}-clean"
    assert statuses(publish(source.out, to=place)) == ["failed"] * 6
    assert statuses(publish(source.out, to=place, source_roots=roots)) == ["done"] * 6
    for body in OutputCatalog(place).items():
        assert not [a["href"] for a in body["assets"].values() if not a["href"].startswith(("s3://", "https://"))]
        assert next(link["href"] for link in body["links"] if link["rel"] == "self").startswith("s3://")


@pytest.fixture
def held(api, source, shared):
    """The source items, as an API of one's own holds them."""
    for path in sorted((shared / "data").glob("*/*/*.json")):
        if path.parts[-3] in {"earth-search-33twl", "bolzano-2022"}:
            (item,) = read_items(path)
            body = item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []}
            for asset in body["assets"].values():
                asset["href"] = f"{SOURCES}/{item.id}/{asset['href'].removeprefix('./')}"
            api.items[item.collection_id, item.id] = body
    return json.loads(json.dumps([*api.items.items()]))


def test_masks_are_attached_to_the_source_items_and_taken_away_again_without_a_trace(source, api, held, roots):
    def send(how):
        options = {"asset_root": SERVED, "source_roots": roots, "retry": HURRIED}
        return statuses(publish(source.out, to=api.url, how=how, **options))

    assert send("attach") == ["done"] * 6
    for (collection, name), before in ((tuple(ids), body) for ids, body in held):
        after = api.items[collection, name]
        place = f"{SERVED}/{collection}-cloudmask/{name}_cloudmask"
        assert after["assets"]["cloud_mask"]["href"] == f"{place}/cloud_mask.tif"
        assert after["assets"]["cloud_mask_thumbnail"]["roles"] == ["overview"]
        assert before["assets"].items() <= after["assets"].items()
        assert before["properties"].items() <= after["properties"].items()
        assert any("classification" in schema for schema in after["stac_extensions"])
    assert send("attach") == ["up-to-date"] * 6
    assert send("detach") == ["done"] * 6
    assert send("detach") == ["up-to-date"] * 6
    links = ("links",)  # the API sets those
    now = [[list(ids), {k: v for k, v in body.items() if k not in links}] for ids, body in api.items.items()]
    assert now == [[ids, {k: v for k, v in body.items() if k not in links}] for ids, body in held]


def test_masks_of_two_areas_and_of_the_whole_are_attached_to_one_item_and_each_is_taken_away_by_itself(shared):
    source = read_items(next((shared / "data" / "items").glob("earth-search__sentinel-2-c1*.json")))[0]
    west, south, east, north = source.bbox
    middle = (west + east) / 2
    halves = [area_of(bbox=(west, south, middle, north)), area_of(bbox=(middle, south, east, north))]
    parts = [source, *(clipped_item(source, half) for half in halves)]
    file = {"file:size": 1, "file:checksum": "1220" + "ab" * 32}
    facts = replace(facts_of(source, class_map(), {}), files={"cloud_mask": file})
    bodies = [mask_item(part, facts) for part in parts]
    before = item = source.to_dict(transform_hrefs=False)
    for body in bodies:
        item = attached(item, body)
    areas = [part.id.removeprefix(f"{source.id}_") for part in parts[1:]]
    keys = {"cloud_mask", *(f"cloud_mask_{area}" for area in areas)}
    assert item["assets"].keys() - before["assets"].keys() == keys
    assert item["assets"][f"cloud_mask_{areas[0]}"]["title"] == f"Cloud and cloud-shadow mask, area {areas[0]}"
    item = detached(item, bodies[0])
    assert item["assets"].keys() - before["assets"].keys() == keys - {"cloud_mask"}
    assert any("classification" in schema for schema in item["stac_extensions"])
    assert detached(detached(item, bodies[1]), bodies[2]) == before


def test_an_asset_of_the_source_is_never_replaced(source, api, held, roots):
    ids = next(iter(api.items))
    api.items[ids]["assets"]["cloud_mask"] = {"href": "https://theirs.example.org/cloud_mask.tif"}
    results = publish(source.out, to=api.url, how="attach", asset_root=SERVED, source_roots=roots, retry=HURRIED)
    (failed,) = [result for result in results if result.status == "failed"]
    assert "cloud_mask of its own" in failed.error
    assert api.items[ids]["assets"]["cloud_mask"] == {"href": "https://theirs.example.org/cloud_mask.tif"}


def test_a_source_item_that_the_api_does_not_hold_is_named(source, api, roots):
    results = list(publish(source.out, to=api.url, how="attach", asset_root=SERVED, source_roots=roots, retry=HURRIED))
    assert statuses(results) == ["failed"] * 6
    assert "copy the source item to this API first" in results[0].error


@pytest.mark.slow
def test_a_real_api_keeps_attached_masks_and_gives_the_items_back_as_they_were(source, roots, shared):
    (item,) = read_items(shared / "data" / "bolzano-2022" / "bolzano_20220612" / "bolzano_20220612.json")
    body = item.to_dict(include_self_link=False, transform_hrefs=False) | {"links": []}
    for asset in body["assets"].values():
        asset["href"] = f"{SOURCES}/{asset['href'].removeprefix('./')}"
    collection = new_collection("bolzano-2022") | {"extent": source.collection("bolzano-2022-cloudmask")["extent"]}
    with pgstac_server() as server, StacApi(server.url, retry=HURRIED) as real:
        real.ensure_collection(collection)
        real.put_item(body)
        before = real.item("bolzano-2022", item.id)
        for how in ("attach", "detach"):
            sent = publish(source.out, to=server.url, how=how, asset_root=SERVED, source_roots=roots, retry=HURRIED)
            assert [result.item_id for result in sent if result.status == "done"] == [f"{item.id}_cloudmask"]
            if how == "attach":
                found = pystac_client.Client.open(server.url).get_collection("bolzano-2022").get_item(item.id)
                assert found.assets["cloud_mask"].href.startswith(f"{SERVED}/bolzano-2022-cloudmask/")
                assert found.assets["red"].href == body["assets"]["red"]["href"]
        assert real.item("bolzano-2022", item.id) == before


def test_a_refused_item_fails_and_the_others_go_on(source, api, roots):
    api.faults = [Fault("PUT", 400, text="no such thing")]
    results = list(publish(source.out, to=api.url, asset_root=SERVED, source_roots=roots, retry=HURRIED))
    assert sorted(statuses(results)) == ["done"] * 5 + ["failed"]
    assert next(result.kind for result in results if result.error) == "input"
    assert "no such thing" in next(result.error for result in results if result.error)


def test_a_server_that_is_down_is_not_asked_for_every_item(source, api, roots):
    api.faults = [Fault("PUT", 503)] * 100
    options = {"asset_root": SERVED, "source_roots": roots, "retry": RetryPolicy(seconds=0)}
    results = list(publish(source.out, to=api.url, **options))
    assert statuses(results) == ["failed"] * 6
    assert sum(method == "PUT" for method, _ in api.requests) == GIVE_UP
    assert "not tried" in results[-1].error
    api.faults = []
    assert statuses(publish(source.out, to=api.url, **options)) == ["done"] * 6


def test_headers_reach_the_api_and_no_record(source, api, roots):
    api.faults = [Fault("PUT", 403, text="who is s3cr3t?")]
    headers = {"X-Api-Key": "s3cr3t"}
    results = list(
        publish(source.out, to=api.url, asset_root=SERVED, source_roots=roots, headers=headers, retry=HURRIED)
    )
    assert {sent["X-Api-Key"] for sent in api.headers} == {"s3cr3t"}
    assert "s3cr3t" not in json.dumps([result.to_dict() for result in results])


@pytest.mark.parametrize("wrong", ["nothing", "source/earth-search-33twl-cloudmask", ".", "file.tif"])
def test_a_folder_without_a_catalog_is_a_settings_error_that_says_what_would_help(source, tmp_path, wrong, api):
    (tmp_path / "file.tif").touch()
    with pytest.raises(ConfigError) as caught:
        list(publish(str(tmp_path / wrong), to=api.url))
    near = {"source/earth-search-33twl-cloudmask": "source has one", ".": "source has one"}
    assert near.get(wrong, "give the folder that `process --out` wrote") in str(caught.value)


def test_a_catalog_may_be_named_by_its_file(source, target, roots):
    sent = publish(f"{source.out}/catalog.json", to=target, source_roots=roots)
    assert statuses(sent) == ["done"] * 6


def test_an_address_that_cannot_be_written_is_a_settings_error(source):
    with pytest.raises(ConfigError, match="nosuch"):
        list(publish(source.out, to="nosuch://x/y"))


@pytest.mark.parametrize("to", ["store", "api"])
def test_an_item_that_says_it_is_another_is_not_published(source, tmp_path, to, roots):
    path = next((tmp_path / "source" / COLLECTION).glob("*/*.json"))
    body = json.loads(path.read_text())
    path.write_text(json.dumps(body | {"collection": "precious", "id": "theirs"}))
    with strict_api() as api:
        place = api.url if to == "api" else str(tmp_path / "copy")
        results = list(publish(source.out, to=place, asset_root=SERVED, source_roots=roots, retry=HURRIED))
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
