from __future__ import annotations

import json
from datetime import UTC, datetime

import pystac
import pytest

from stac_cloudmask.errors import ReadError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac import static
from stac_cloudmask.stac.search import Failure, Query, load_items, search
from stac_cloudmask.stac.static import MAX_DEPTH, Connection, read_json
from tests.stac.range_server import serve

HASTY = RetryPolicy(seconds=0.4, pause=0.05)


def read(href):
    return read_json(href, connection=Connection(policy=HASTY))


def test_a_document_is_read_with_its_absolute_href(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text('{"a": 1}')
    monkeypatch.chdir(tmp_path)
    assert read("a.json") == ({"a": 1}, str(tmp_path / "a.json"))
    with serve(tmp_path) as site:
        assert read(f"{site.url}/a.json") == ({"a": 1}, f"{site.url}/a.json")


def test_a_redirect_on_the_same_host_is_followed(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    with serve(tmp_path, lambda _, __, path: "http://127.0.0.1/" if path == "/moved" else None) as site:
        site.fault = lambda _, __, path: f"{site.url}/a.json" if path == "/moved" else None
        assert read(f"{site.url}/moved")[0] == {"a": 1}


def test_redirects_in_a_circle_are_left(tmp_path):
    with serve(tmp_path) as site:
        site.fault = lambda *_: f"{site.url}/again"
        with pytest.raises(ReadError, match="redirects more than 5 times") as caught:
            read(f"{site.url}/again")
    assert not caught.value.retryable


@pytest.mark.parametrize(("fault", "retryable"), [(503, True), (404, False), ("reset", True)])
def test_a_server_that_fails_is_asked_again_if_that_can_help(tmp_path, fault, retryable):
    with serve(tmp_path, lambda *_: fault) as site:
        with pytest.raises(ReadError) as caught:
            read(f"{site.url}/a.json?token=SECRET")
        assert (sum(site.asked.values()) > 1) == retryable
    assert caught.value.retryable == retryable
    assert "SECRET" not in str(caught.value)


def test_a_document_beyond_belief_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(static, "MAX_BYTES", 10)
    (tmp_path / "a.json").write_text('{"a": "long"}')
    with pytest.raises(ReadError, match="larger than 10 bytes"):
        read(str(tmp_path / "a.json"))
    with serve(tmp_path) as site, pytest.raises(ReadError, match="larger than 10 bytes"):
        read(f"{site.url}/a.json")


def test_a_catalog_that_cannot_be_read_is_a_failure_of_every_id(tmp_path):
    found = list(load_items(["a", "b"], catalog=str(tmp_path / "nowhere.json")))
    assert [failure.ref for failure in found] == ["a", "b"]
    assert all("there is no file" in str(failure.error) for failure in found)


def test_a_feature_collection_is_a_catalog(tmp_path):
    bodies = [
        pystac.Item(name, None, None, datetime(2024, 1, day, tzinfo=UTC), {}).to_dict()
        for day, name in enumerate(["first", "second"], start=1)
    ]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": bodies}))
    assert [item.id for item in search(str(tmp_path / "items.json"), datetime="2024-01-02/..")] == ["second"]


def test_catalogs_are_followed_only_so_deep(tmp_path):
    for depth in range(MAX_DEPTH + 5):
        item = pystac.Item(f"i{depth}", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
        (tmp_path / f"i{depth}.json").write_text(json.dumps(item.to_dict()))
        links = [{"rel": "item", "href": f"i{depth}.json"}, {"rel": "child", "href": f"c{depth + 1}.json"}]
        (tmp_path / f"c{depth}.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    assert len(list(search(str(tmp_path / "c0.json")))) == MAX_DEPTH + 1


@pytest.mark.parametrize("geometry", [None, {"type": "Polygon"}, {"type": "Polygon", "coordinates": "x"}])
def test_an_item_that_lies_nowhere_is_in_no_box(geometry):
    item = pystac.Item("i", geometry, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    assert not Query(bbox=(-180, -90, 180, 90)).matches(item)
    assert Query().matches(item)


def test_an_item_with_start_and_end_matches_what_overlaps_it():
    times = {"start_datetime": "2024-01-01T00:00:00Z", "end_datetime": "2024-01-31T00:00:00Z"}
    item = pystac.Item("i", None, None, None, times)
    for stated, matches in {
        "2024-01-31T00:00:00Z/..": True,
        "2024-02-01T00:00:00Z/..": False,
        "../2024-01-01T00:00:00Z": True,
        "../2023-12-31T00:00:00Z": False,
        "2024-01-10T00:00:00Z": True,
    }.items():
        assert Query(datetime=stated).matches(item) == matches


def test_what_a_static_catalog_lists_twice_is_read_once(tmp_path):
    item = pystac.Item("i", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    (tmp_path / "i.json").write_text(json.dumps(item.to_dict()))
    links = [{"rel": "item", "href": "i.json"}, {"rel": "item", "href": "./x/../i.json"}]
    (tmp_path / "c.json").write_text(json.dumps({"type": "Catalog", "id": "c", "links": links}))
    assert not any(isinstance(found, Failure) for found in search(str(tmp_path / "c.json")))
    assert len(list(search(str(tmp_path / "c.json")))) == 1


def test_a_footprint_of_numbers_that_no_float_holds_lies_nowhere():
    geometry = {"type": "Polygon", "coordinates": [[[10**400, 0], [1, 1], [0, 1], [10**400, 0]]]}
    item = pystac.Item("i", geometry, None, datetime(2024, 1, 1, tzinfo=UTC), {})
    assert not Query(bbox=(-180, -90, 180, 90)).matches(item)
