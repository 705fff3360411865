from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from offline import Validator

from stac_cloudmask.errors import ConfigError, UnsupportedItemError
from stac_cloudmask.stac.assets import ASSETS
from stac_cloudmask.stac.collection import (
    ESA,
    MAX_LISTED,
    configured,
    covering,
    item_href,
    listing,
    new_catalog,
    new_collection,
    place_and_time,
    read_config,
    with_child,
)


def entry(name="a", bbox=(10, 40, 12, 42), moment="2023-08-18T10:08:08.248Z", assets=None, **values):
    return {"id": name, "bbox": list(bbox), "properties": {"datetime": moment, **values}, "assets": assets or {}}


def with_entries(collection, items):
    return listing(covering(collection, items), map(item_href, items))


@pytest.fixture
def valid(shared):
    return Validator(shared / "data" / "schemas")


def test_collection_and_catalog_are_valid(valid):
    collection = with_entries(new_collection("sentinel-2-l2a-cloudmask"), [entry(platform="sentinel-2a")])
    assert len(valid(collection)) >= 4
    valid(with_child(new_catalog(), "./sentinel-2-l2a-cloudmask/collection.json", collection["title"]))


def test_the_collection_describes_every_asset_that_an_item_can_have():
    assets = new_collection("x-cloudmask")["item_assets"]
    assert set(assets) == set(ASSETS)
    assert [c["value"] for c in assets["cloud_mask"]["classification:classes"]] == [0, 1, 2, 255]
    assert [b["offset"] for b in assets["mask_votes"]["classification:bitfields"]] == [0, 1, 2, 3, 4, 5]


def test_the_collection_describes_the_bands_that_its_items_carry_without_what_is_of_one_file():
    blue = {"href": "https://a/b.tif", "type": "image/tiff", "proj:code": "EPSG:1", "bands": [{"name": "B02"}]}
    collection = with_entries(new_collection("x-cloudmask"), [entry(assets={"blue": blue})])
    assert collection["item_assets"]["blue"] == {"type": "image/tiff", "bands": [{"name": "B02"}]}
    assert collection["item_assets"]["cloud_mask"] == dict(ASSETS["cloud_mask"])


def test_values_are_listed_and_cover_has_a_range():
    values = [{"eo:cloud_cover": 3.5, "proj:code": "EPSG:32633", "grid:code": "MGRS-33TWL"}, {"eo:cloud_cover": 97}]
    both = [entry(name, **value) for name, value in zip("ab", values, strict=True)]
    summaries = with_entries(new_collection("x-cloudmask"), both)["summaries"]
    assert summaries["eo:cloud_cover"] == {"minimum": 3.5, "maximum": 97}
    assert (summaries["proj:code"], summaries["grid:code"]) == (["EPSG:32633"], ["MGRS-33TWL"])


def test_times_are_compared_as_times_not_as_text():
    both = [entry("a", moment="2023-08-18T10:00:00.5Z"), entry("b", moment="2023-08-18T10:00:00Z")]
    extent = with_entries(new_collection("x-cloudmask"), both)["extent"]["temporal"]["interval"]
    assert extent == [["2023-08-18T10:00:00Z", "2023-08-18T10:00:00.500000Z"]]


def test_a_box_across_the_antimeridian_goes_around_the_world():
    both = [entry("a"), entry("b", bbox=(179, 60, -179, 61))]
    assert with_entries(new_collection("x-cloudmask"), both)["extent"]["spatial"]["bbox"] == [[-180, 40, 180, 61]]


def test_an_item_with_heights_and_an_interval_is_covered():
    item = entry(bbox=(1, 2, 100, 3, 4, 200), moment=None, gsd=10)
    item["properties"] |= {"start_datetime": "2020-01-01T00:00:00Z", "end_datetime": "2020-01-02T00:00:00Z"}
    place_and_time(item)
    covered = with_entries(new_collection("x-cloudmask"), [item])
    assert covered["extent"]["spatial"]["bbox"] == [[1, 2, 3, 4]]
    assert covered["extent"]["temporal"]["interval"] == [["2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"]]
    assert covered["summaries"]["gsd"] == [10]


@pytest.mark.parametrize("change", [{"bbox": None}, {"bbox": ["west"] * 4}, {"properties": {"datetime": "then"}}])
def test_an_item_without_place_or_time_cannot_be_covered(change):
    with pytest.raises(UnsupportedItemError, match="no valid bbox or datetime"):
        place_and_time(entry() | change)


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
    assert sorted(hrefs) == sorted({item_href(each) for each in listed})


def test_what_others_wrote_into_a_collection_stays():
    mine = new_collection("x-cloudmask") | {"title": "Ours", "sci:doi": "10.1/x"}
    mine["summaries"] = {"eo:cloud_cover": {"minimum": 0, "maximum": 5}}
    changed = with_entries(mine, [entry()])
    assert (changed["title"], changed["sci:doi"]) == ("Ours", "10.1/x")
    assert changed["summaries"]["eo:cloud_cover"] == {"minimum": 0, "maximum": 5}
    assert with_entries(mine, []) == mine


def test_a_child_is_listed_once():
    href = "./x-cloudmask/collection.json"
    catalog = with_child(with_child(new_catalog(), href, "X"), href, "X")
    assert [link["href"] for link in catalog["links"] if link["rel"] == "child"] == [href]


def test_no_file_lists_items_without_an_end():
    full = listing(new_collection("x-cloudmask"), [f"./{n}/{n}.json" for n in range(MAX_LISTED + 5)])
    assert sum(link["rel"] == "item" for link in full["links"]) == MAX_LISTED
    assert listing(full, ["./z/z.json"]) == full


OWNERS = {
    "id": "our-masks",
    "title": "Our masks",
    "license": "CC-BY-4.0",
    "keywords": ["ours"],
    "providers": [{"name": "We", "roles": ["processor", "host"], "url": "https://we.example.org"}],
    "links": [{"rel": "license", "href": "https://creativecommons.org/licenses/by/4.0/"}],
}


def test_the_owner_says_what_the_collection_is_and_esa_stays_named_as_producer(valid):
    collection = configured(new_collection("our-masks"), OWNERS)
    assert (collection["title"], collection["license"], collection["keywords"]) == ("Our masks", "CC-BY-4.0", ["ours"])
    assert collection["providers"] == [ESA, *OWNERS["providers"]]
    assert [link["href"] for link in collection["links"] if link["rel"] == "license"] == [OWNERS["links"][0]["href"]]
    assert configured(collection, OWNERS) == collection
    valid(with_entries(collection, [entry()]))


def test_without_an_owner_the_collection_names_esa_and_the_software():
    roles = {part["name"]: part["roles"] for part in new_collection("x-cloudmask")["providers"]}
    assert roles == {"ESA": ["producer", "licensor"], "stac_cloudmask": ["processor"]}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ('{"caption": "x"}', "caption"),
        ('{"title": 3}', "not a text"),
        ('{"providers": {}}', "not a list"),
        ('{"links": [{"rel": "about"}]}', "not a link"),
        ('{"id": "../up"}', "cannot be part of a path"),
        ("{", "cannot be read as JSON"),
        ("nowhere.json", "nowhere.json cannot be read as JSON"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_with_the_reason(config, why):
    with pytest.raises(ConfigError, match=why):
        read_config(config)


def test_a_configuration_is_read_from_a_file_or_given_as_it_is(tmp_path):
    (tmp_path / "ours.json").write_text('{"title": "Ours"}')
    assert read_config(str(tmp_path / "ours.json")) == read_config('{"title": "Ours"}') == {"title": "Ours"}
