from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline import Validator

from stac_cloudmask.stac.collection import Entry, new_catalog, new_collection, with_child, with_entries


def entry(name="a", bbox=(10, 40, 12, 42), moment="2023-08-18T10:08:08.248Z", **values):
    return Entry(href=f"./{name}/{name}.json", bbox=bbox, start=moment, end=moment, values=tuple(values.items()))


@pytest.fixture
def valid(shared):
    return Validator(shared / "data" / "schemas")


def test_collection_and_catalog_are_valid(valid):
    collection = with_entries(new_collection("sentinel-2-l2a-cloudmask"), [entry(platform="sentinel-2a")])
    assert len(valid(collection)) == 4
    valid(with_child(new_catalog(), collection))


def test_the_collection_describes_every_asset_that_an_item_can_have():
    assets = new_collection("x-cloudmask")["item_assets"]
    assert set(assets) == {"cloud_mask", "cloud_probability", "shadow_probability", "mask_votes", "thumbnail"}
    assert [c["value"] for c in assets["cloud_mask"]["classification:classes"]] == [0, 1, 2, 255]
    assert [b["offset"] for b in assets["mask_votes"]["classification:bitfields"]] == [0, 1, 2, 3, 4, 5]


def test_times_are_compared_as_times_not_as_text():
    both = [entry("a", moment="2023-08-18T10:00:00.5Z"), entry("b", moment="2023-08-18T10:00:00Z")]
    extent = with_entries(new_collection("x-cloudmask"), both)["extent"]["temporal"]["interval"]
    assert extent == [["2023-08-18T10:00:00Z", "2023-08-18T10:00:00.5Z"]]


def test_a_box_across_the_antimeridian_goes_around_the_world():
    both = [entry("a"), entry("b", bbox=(179, 60, -179, 61))]
    assert with_entries(new_collection("x-cloudmask"), both)["extent"]["spatial"]["bbox"] == [[-180, 40, 180, 61]]


def test_an_entry_is_read_from_an_item_with_heights_and_an_interval():
    item = {
        "id": "a",
        "bbox": [1, 2, 100, 3, 4, 200],
        "properties": {
            "datetime": None,
            "start_datetime": "2020-01-01T00:00:00Z",
            "end_datetime": "2020-01-02T00:00:00Z",
            "gsd": 10,
        },
    }
    found = Entry.of(item)
    assert (found.bbox, found.start, found.end) == ((1, 2, 3, 4), "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
    assert found.values == (("gsd", 10),)


entries = st.lists(
    st.builds(
        entry,
        name=st.sampled_from("abcdef"),
        bbox=st.tuples(st.integers(-10, 0), st.integers(-10, 0), st.integers(1, 10), st.integers(1, 10)),
        moment=st.datetimes().map(lambda t: f"{t.isoformat()}Z"),
        platform=st.sampled_from(["sentinel-2a", "sentinel-2b"]),
    ),
    min_size=1,
    max_size=6,
)


@given(entries, st.randoms())
def test_adding_entries_again_or_in_another_order_covers_the_same(listed, random):
    once = with_entries(new_collection("x-cloudmask"), listed)
    assert with_entries(once, listed) == once
    shuffled = listed[:]
    random.shuffle(shuffled)
    other = with_entries(new_collection("x-cloudmask"), shuffled)
    assert (other["extent"], other["summaries"]) == (once["extent"], once["summaries"])


@given(entries)
def test_every_item_is_linked_once(listed):
    hrefs = [
        link["href"] for link in with_entries(new_collection("x-cloudmask"), listed)["links"] if link["rel"] == "item"
    ]
    assert sorted(hrefs) == sorted({e.href for e in listed})


def test_what_others_wrote_into_a_collection_stays():
    mine = new_collection("x-cloudmask") | {"title": "Ours", "sci:doi": "10.1/x"}
    mine["summaries"] = {"eo:cloud_cover": {"minimum": 0, "maximum": 5}}
    changed = with_entries(mine, [entry()])
    assert (changed["title"], changed["sci:doi"]) == ("Ours", "10.1/x")
    assert changed["summaries"]["eo:cloud_cover"] == {"minimum": 0, "maximum": 5}
    assert with_entries(mine, []) == mine


def test_a_child_is_listed_once():
    collection = new_collection("x-cloudmask")
    catalog = with_child(with_child(new_catalog(), collection), collection)
    assert [link["href"] for link in catalog["links"] if link["rel"] == "child"] == ["./x-cloudmask/collection.json"]
