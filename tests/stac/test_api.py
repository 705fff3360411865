from __future__ import annotations

import json
import logging

import pystac_client
import pytest
from outputs import class_map, facts_of, read_items, write_files
from pgstac import pgstac_server
from strict_api import Fault, strict_api

from stac_cloudmask.errors import ConfigError, PublishError, WriteError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import covering, new_collection
from stac_cloudmask.stac.mask_item import mask_item
from stac_cloudmask.stac.transactions import StacApi

HURRIED = RetryPolicy(seconds=0.5, pause=0.1)
SERVED = "https://masks.example.org"
SECRET = "Bearer s3cr3t-t0ken"  # noqa: S105  (a made-up one)


@pytest.fixture(scope="module")
def pgstac():
    with pgstac_server() as server:
        yield server


@pytest.fixture
def server():
    with strict_api() as running:
        yield running


@pytest.fixture
def api(server):
    with StacApi(server.url, headers={"Authorization": SECRET}, retry=HURRIED) as client:
        yield client


@pytest.fixture(scope="module")
def published(shared, tmp_path_factory):
    """Collection and items of a catalog with the five dates of one tile."""
    catalog = OutputCatalog(tmp_path_factory.mktemp("out"))
    hrefs = []
    for path in (shared / "data" / "earth-search-33twl").glob("*/*.json"):
        (source,) = read_items(path)
        with catalog.workdir() as work:
            files = write_files(work, class_map(), everything=False)
            hrefs.append(catalog.write_item(mask_item(source, facts_of(source, class_map(), files)), files))
    catalog.link(hrefs)
    items = catalog.items(catalog.roots(SERVED, {str(shared / "data"): "https://sources.example.org"}))
    return catalog.collection("earth-search-33twl-cloudmask"), list(items)


def an_item(name="a"):
    return {
        "type": "Feature",
        "id": name,
        "collection": "x-cloudmask",
        "bbox": [0, 0, 1, 1],
        "properties": {"datetime": "2023-01-01T00:00:00Z"},
        "links": [
            {"rel": "parent", "href": "../collection.json"},
            {"rel": "derived_from", "href": "https://example.org/items/a", "eo:cloud_cover": 7},
        ],
        "assets": {"cloud_mask": {"href": "s3://masks/a/cloud_mask.tif"}},
    }


def a_collection():
    return covering(new_collection("x-cloudmask"), [an_item()])


def stated(item):
    """Without nulls, which pgSTAC does not keep."""
    return json.loads(json.dumps(item), object_hook=lambda some: {k: v for k, v in some.items() if v is not None})


def test_a_real_server_takes_the_items_and_search_finds_them(pgstac, published):
    collection, items = published
    with StacApi(pgstac.url, retry=HURRIED) as api:
        for _ in range(2):
            api.ensure_collection(collection)
        assert [api.put_item(item) for item in items] == ["created"] * 5
        assert [api.put_item(item) for item in items] == ["updated"] * 5
    client = pystac_client.Client.open(pgstac.url)
    query = {"op": "<=", "args": [{"property": "eo:cloud_cover"}, 100]}
    found = list(client.search(collections=[collection["id"]], filter=query).items())
    assert {item.id for item in found} == {item["id"] for item in items}
    sent = {item["id"]: stated(item) for item in items}
    for item in found:
        body = stated(item.to_dict(transform_hrefs=False))
        assert body["properties"] == sent[item.id]["properties"]
        assert body["assets"] == sent[item.id]["assets"]
        kept = {link["href"] for link in body["links"] if link["rel"] == "derived_from"}
        assert "https://models.example.org/ukis-csmask-4b-l2a/ukis-csmask-4b-l2a.json" in kept
        name = item.id.removesuffix("_cloudmask")
        assert f"s3://sentinel-cogs/sentinel-s2-l2a-cogs/33/T/WL/2023/8/{name}/" in str(kept)
        assert not [link for link in body["links"] if link["href"].startswith((".", "/"))]


def test_a_real_server_keeps_a_wider_extent(pgstac, published):
    collection, items = published
    narrow = collection | {
        "id": "narrow-cloudmask",
        "extent": {
            "spatial": {"bbox": [[15.1, 45.5, 15.2, 45.6]]},
            "temporal": {"interval": [["2023-08-15T00:00:00Z", "2023-08-15T00:00:00Z"]]},
        },
    }
    with StacApi(pgstac.url, retry=HURRIED) as api:
        api.ensure_collection(narrow)
        api.cover("narrow-cloudmask", items)
    found = pystac_client.Client.open(pgstac.url).get_collection("narrow-cloudmask")
    assert found.extent.spatial.bboxes == collection["extent"]["spatial"]["bbox"]
    assert found.extent.to_dict()["temporal"] == collection["extent"]["temporal"]


def test_a_real_server_refuses_for_good_what_it_cannot_take(pgstac, published):
    collection, items = published
    with StacApi(pgstac.url, retry=HURRIED) as api:
        api.ensure_collection(collection)
        with pytest.raises(PublishError, match="400"):
            api.put_item(items[0] | {"id": "a:b"})


def test_a_new_item_is_put_then_posted(server, api):
    api.ensure_collection(a_collection())
    assert api.put_item(an_item()) == "created"
    assert [method for method, _ in server.requests] == ["GET", "POST", "PUT", "POST"]
    assert api.put_item(an_item()) == "updated"


def test_an_item_that_somebody_else_created_in_between_is_put_again(server, api):
    api.ensure_collection(a_collection())
    server.items["x-cloudmask", "a"] = {}
    server.faults = [Fault("PUT", 404)]
    assert api.put_item(an_item()) == "updated"
    assert [method for method, _ in server.requests][2:] == ["PUT", "POST", "PUT"]


def test_a_collection_that_somebody_else_created_in_between_is_fine(server, api):
    server.collections["x-cloudmask"] = {"title": "Theirs"}
    server.faults = [Fault("GET", 404)]
    api.ensure_collection(a_collection())
    assert server.collections["x-cloudmask"] == {"title": "Theirs"}


@pytest.mark.parametrize(
    "fault", [Fault("PUT", 429, {"retry-after": "0"}), Fault("PUT", 503), Fault("PUT", 500), Fault("PUT", 0, drop=True)]
)
def test_a_busy_server_is_asked_again(server, api, fault):
    server.collections["x-cloudmask"] = {}
    server.faults = [fault, fault]
    assert api.put_item(an_item()) == "created"
    assert len(server.requests) == 4


def test_a_server_that_stays_busy_is_an_error_that_may_pass(server, api):
    server.faults = [Fault("PUT", 503, text="overloaded")] * 30
    with pytest.raises(WriteError, match=r"items/a.*503.*overloaded.*try again later") as caught:
        api.put_item(an_item())
    assert caught.value.retryable
    assert len(server.requests) >= 3


def test_a_server_that_is_not_there_is_an_error_that_names_it():
    with (
        StacApi("http://127.0.0.1:9", retry=HURRIED) as api,
        pytest.raises(WriteError, match=r"127\.0\.0\.1:9.*cannot be reached"),
    ):
        api.put_item(an_item())


@pytest.mark.parametrize("status", [400, 401, 403, 405])
def test_what_is_refused_is_not_sent_again(server, api, status):
    server.faults = [Fault("PUT", status, text="no")]
    with pytest.raises(PublishError, match=str(status)) as caught:
        api.put_item(an_item())
    assert not caught.value.retryable
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [307, 308])
def test_redirects_on_the_same_host_are_followed_with_what_was_sent(server, api, status):
    server.collections["x-cloudmask"] = {}
    moved = {"location": "/collections/x-cloudmask/items/a?moved"}
    server.faults = [Fault("PUT", status, moved), Fault("PUT", 404), Fault("POST", status, {"location": "items"})]
    assert api.put_item(an_item()) == "created"
    assert [path for method, path in server.requests if method == "PUT"][1].endswith("?moved")
    assert server.items["x-cloudmask", "a"]["assets"] == an_item()["assets"]


@pytest.mark.parametrize(
    "location", ["https://elsewhere.example.org/?token=abc", "http://localhost:1/", "//elsewhere.example.org/"]
)
def test_redirects_to_another_host_are_not_followed_as_headers_would_travel_along(server, api, location):
    server.faults = [Fault("PUT", 307, {"location": location})]
    with pytest.raises(PublishError, match="it leads to") as caught:
        api.put_item(an_item())
    assert "abc" not in str(caught.value)
    assert len(server.requests) == 1


def test_other_redirects_are_not_followed_as_they_lose_what_was_sent(server, api):
    server.faults = [Fault("PUT", 302, {"location": "/collections"})]
    with pytest.raises(PublishError, match="it leads to"):
        api.put_item(an_item())


def test_redirects_in_a_circle_end(server, api):
    server.faults = [Fault("PUT", 308, {"location": "/again"})] * 50
    with pytest.raises(PublishError, match="redirects more than 5 times"):
        api.put_item(an_item())
    assert len(server.requests) < 10


def test_headers_are_sent_and_never_shown(server, api, caplog):
    caplog.set_level(logging.DEBUG)
    server.faults = [Fault("PUT", 503, text=f"you sent {SECRET}"), Fault("PUT", 403, text=f"I do not know {SECRET}")]
    with pytest.raises(PublishError) as caught:
        api.put_item(an_item())
    assert server.headers[0]["Authorization"] == SECRET
    assert "s3cr3t" not in str(caught.value)
    assert "s3cr3t" not in caplog.text
    assert "s3cr3t" not in repr(vars(caught.value))


def test_bad_headers_and_addresses_are_settings_errors_without_secrets():
    with pytest.raises(ConfigError) as caught:
        StacApi("https://example.org", headers={"X-Key": "s3cr3t\u2014\n"})
    assert "s3cr3t" not in str(caught.value)
    with pytest.raises(ConfigError, match="https://"):
        StacApi("example.org")


def test_only_links_that_lead_somewhere_are_sent(server, api):
    server.collections["x-cloudmask"] = {}
    api.put_item(an_item())
    links = server.items["x-cloudmask", "a"]["links"]
    base = f"{server.url}/collections/x-cloudmask"
    assert links == [
        {"rel": "derived_from", "href": "https://example.org/items/a", "eo:cloud_cover": 7},
        {"rel": "root", "href": server.url, "type": "application/json"},
        {"rel": "parent", "href": base, "type": "application/json"},
        {"rel": "collection", "href": base, "type": "application/json"},
    ]
    assert api.item_href("x-cloudmask", "a") == f"{base}/items/a"


def test_an_extent_that_may_not_be_changed_is_only_a_warning(server, api, caplog):
    server.collections["x-cloudmask"] = a_collection()
    server.faults = [Fault("PUT", 405)]
    api.cover("x-cloudmask", [an_item() | {"bbox": [5, 5, 6, 6]}])
    assert "was not changed" in caplog.text


def test_an_extent_that_is_wide_enough_is_not_sent(server, api):
    server.collections["x-cloudmask"] = a_collection()
    api.cover("x-cloudmask", [an_item()])
    assert [method for method, _ in server.requests] == ["GET"]
