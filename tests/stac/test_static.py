from __future__ import annotations

import json
import time
from datetime import UTC, datetime

import pystac
import pytest
import shapely

from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac import connection
from stac_cloudmask.stac.connection import Connection, JsonReader, read_json
from stac_cloudmask.stac.mask_item import self_href
from stac_cloudmask.stac.parse import Failure, items_in, parse_item
from stac_cloudmask.stac.search import MAX_DEPTH, Query, load_items, search
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
    monkeypatch.setattr(connection, "MAX_BYTES", 10)
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


def body(**changes):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "i",
        "geometry": None,
        "properties": {"datetime": "2023-08-18T10:08:08Z"},
        "assets": {},
        "links": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("stated", "first", "last"),
    [
        ("2023-08-18T10:08:08.248Z", "2023-08-18T10:08:08.248Z", "2023-08-18T10:08:08.248Z"),
        ("2023-08-18T10:08:08", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("2023-08-18 10:08:08", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("2023-08-18t10:08:08z", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("2023-08-18T12:08:08+02:00", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("2023-08-17T23:08:08-11:00", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("20230818T100808Z", "2023-08-18T10:08:08Z", "2023-08-18T10:08:08Z"),
        ("2023-08-17T24:00:00Z", "2023-08-18T00:00:00Z", "2023-08-18T00:00:00Z"),
        ("2023-08-18", "2023-08-18T00:00:00Z", "2023-08-18T23:59:59Z"),
        ("2024-02", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59Z"),
        ("2023-12", "2023-12-01T00:00:00Z", "2023-12-31T23:59:59Z"),
        ("2023", "2023-01-01T00:00:00Z", "2023-12-31T23:59:59Z"),
    ],
)
def test_times_are_in_utc_whatever_their_spelling_and_the_zone_of_the_machine(monkeypatch, stated, first, last):
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    ends = {"datetime": None, "start_datetime": stated, "end_datetime": stated}
    spans = parse_item(body(properties=ends), origin=None)
    assert spans.properties["start_datetime"] == first
    assert spans.properties["end_datetime"] == last
    instant = parse_item(body(properties={"datetime": stated}), origin=None)
    assert datetime.fromisoformat(instant.to_dict()["properties"]["datetime"]) == datetime.fromisoformat(first)
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("stated", ["noon", "2023-13", "2023-02-30", "", 20230818, ["2023"], "2023-08-18T25:00Z", {}])
@pytest.mark.parametrize("name", ["datetime", "start_datetime", "end_datetime"])
def test_a_time_that_cannot_be_read_is_named(name, stated):
    times = {"datetime": None, "start_datetime": "2023", "end_datetime": "2023", name: stated}
    with pytest.raises(UnsupportedItemError, match=f"item 'i' of memory: {name} .* is not a time such as"):
        parse_item(body(properties=times), origin=None)


def test_assets_that_are_null_or_lead_nowhere_are_absent():
    assets = {"blue": {"href": "/b.tif"}, "coastal": None, "thumbnail": {"type": "image/png"}, "nir": {"href": 5}}
    assert list(parse_item(body(assets=assets), origin=None).assets) == ["blue"]


def test_an_item_without_geometry_lies_where_its_bbox_does():
    item = parse_item(body(bbox=[15, 45, 16, 46]), origin=None)
    assert shapely.geometry.shape(item.geometry).equals(shapely.box(15, 45, 16, 46))
    assert parse_item(body(), origin=None).geometry is None


UNSPLIT = [[179, -17], [-178, -17], [-178, -16], [179, -16], [179, -17]]
BEYOND = [[181, -1], [182, -1], [182, 1], [181, -1]]


@pytest.mark.parametrize("ring", [UNSPLIT, BEYOND])
def test_a_footprint_that_crosses_the_antimeridian_is_split_there(ring):
    item = parse_item(body(geometry={"type": "Polygon", "coordinates": [ring]}), origin=None)
    west, _, east, _ = shapely.geometry.shape(item.geometry).bounds
    assert -180 <= west <= east <= 180
    assert -180 <= item.bbox[0] <= 180
    assert not shapely.geometry.shape(item.geometry).intersects(shapely.box(-170, -90, 170, 90))


LOCAL = "/data/downloads/items.json"
API = "https://stac.example.com/v1/collections/c/items/i"


def asset_of(item, key="blue"):
    return item.assets[key].href


@pytest.mark.parametrize(
    ("href", "found"),
    [
        ("/data/downloads/B02.tif", "/data/downloads/B02.tif"),
        ("./B02.tif", "/data/downloads/B02.tif"),
        ("../B02.tif", "/data/B02.tif"),
        ("file:///data/B%2002.tif", "/data/B 02.tif"),
        ("https://data.example.com/B02.tif", "https://data.example.com/B02.tif"),
    ],
)
def test_items_that_were_downloaded_beside_their_json_are_local_wherever_their_links_lead(href, found):
    feature = body(assets={"blue": {"href": href}}, links=[{"rel": "self", "href": API}, {"rel": "root", "href": API}])
    for document in (feature, {"type": "FeatureCollection", "features": [feature]}):
        (item,) = items_in(document, LOCAL)
        assert asset_of(item) == found
        assert item.get_self_href() == LOCAL
        assert self_href(item) == API


def test_a_self_link_on_disk_does_not_make_a_remote_item_local():
    feature = body(assets={"blue": {"href": "./B02.tif"}}, links=[{"rel": "self", "href": "/home/me/i.json"}])
    (item,) = items_in({"type": "FeatureCollection", "features": [feature]}, "https://stac.example.com/items.json")
    assert asset_of(item) == "https://stac.example.com/B02.tif"


def test_headers_go_to_the_server_of_the_catalog_only(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    login = Connection(policy=HASTY, headers={"Authorization": "Bearer SECRET"})
    with (
        serve(tmp_path) as home,
        serve(tmp_path) as other,
        JsonReader(login, home=f"{home.url}/c.json") as reader,
    ):
        reader.read(f"{home.url}/a.json")
        reader.read(f"{other.url}/a.json")
        home.fault = lambda _, __, path: f"{other.url}/a.json" if path == "/away" else None
        reader.read(f"{home.url}/away")
        assert home.logins == ["Bearer SECRET"] * 2
        assert other.logins == [None] * 2
    assert "SECRET" not in repr(login)


@pytest.mark.parametrize("asked", ["1800", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_a_wait_beyond_the_limit_is_said_instead_of_waited_for(tmp_path, asked):
    with serve(tmp_path, lambda *_: 429) as site:
        site.extra = {"Retry-After": asked}
        with pytest.raises(ReadError, match=r"asks to wait \d+ s"):
            read(f"{site.url}/a.json")
        assert sum(site.asked.values()) == 1
