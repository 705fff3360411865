from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pystac
import pytest

from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.connection import Connection
from stac_cloudmask.stac.hrefs import HrefRule
from stac_cloudmask.stac.parse import Failure
from stac_cloudmask.stac.search import Query, find, load_items, search, without_masks
from tests.offline import no_network
from tests.stac.range_server import serve
from tests.stac_api import Api, serve_api

TWL = "earth-search-33twl"
IDS = {
    "alberta_20200615",
    "alberta_20200625",
    "alberta_20200720",
    "bolzano_20220612",
    "cloudn_chip1",
    "cloudn_chip2",
    "S2A_33TWL_20230815_0_L2A",
    "S2A_33TWL_20230818_0_L2A",
    "S2B_33TWL_20230810_0_L2A",
    "S2B_33TWL_20230813_0_L2A",
    "S2B_33TWL_20230820_0_L2A",
    "S2A_29RKH_20200219_0_L2A",
}
FILTERS = [
    {},
    {"collection": TWL},
    {"collection": TWL, "max_cloud_cover": 30},
    {"max_cloud_cover": 100},
    {"collection": TWL, "datetime": "2023-08-15/2023-08-18"},
    {"datetime": "2023-08-15/.."},
    {"datetime": "../2020-06-25"},
    {"datetime": "2020-06"},
    {"datetime": "2020-06-25T18:40:00Z"},
    {"bbox": (-114, 51, -113, 52)},
    {"bbox": (11.3, 46.4, 11.4, 46.6), "datetime": "2022"},
    {"bbox": (0, 0, 1, 1)},
    {"collection": "alberta-2020", "max_items": 2},
    {"collection": ["alberta-2020", "bolzano-2022"]},
    {"ids": ["cloudn_chip1", "alberta_20200615"]},
    {"tile": "33TWL", "max_cloud_cover": 30},
    {"tile": "33TWL", "collection": TWL},
    {"tile": "T29RKH"},
    {"intersects": "POLYGON ((-114 51, -113 51, -113 52, -114 51))"},
    {"intersects": "POLYGON ((-114 51, 12 51, 12 46, -114 51))", "bbox": (11, 46, 12, 47)},
]


@pytest.fixture(scope="module")
def catalog(shared):
    return shared / "data" / "catalog.json"


@pytest.fixture(scope="module")
def small(shared, tmp_path_factory):
    """The JSON of the static catalog, without rasters, to be bent by tests."""
    folder = tmp_path_factory.mktemp("catalog")
    for path in [shared / "data" / "catalog.json", *(shared / "data").glob("*/collection.json")]:
        body = json.loads(path.read_text())
        target = folder / path.relative_to(shared / "data")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(body))
        for link in body["links"]:
            if link["rel"] == "item":
                item = target.parent / link["href"]
                item.parent.mkdir(exist_ok=True)
                shutil.copy(path.parent / link["href"], item)
    return folder


@pytest.fixture
def bent(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "bent"))


@pytest.fixture(scope="module")
def features(small):
    """The items of the static catalog as an API would have them: absolute hrefs, no links."""
    found = []
    for path in sorted(small.glob("*/*/*.json")):
        body = json.loads(path.read_text())
        for asset in body["assets"].values():
            asset["href"] = f"https://data.example.com/{body['id']}/{asset['href'].removeprefix('./')}"
        found.append({key: value for key, value in body.items() if key != "links"})
    return found


def edit(path, change):
    body = json.loads(path.read_text())
    change(body)
    path.write_text(json.dumps(body))


def ids(items):
    return {item.id for item in items}


@pytest.mark.parametrize("options", FILTERS)
def test_api_by_post_by_get_without_query_and_static_local_and_remote_find_the_same(catalog, features, options):
    with no_network():
        local = list(search(str(catalog), **options))
    with serve(catalog.parent) as site:
        remote = list(search(f"{site.url}/catalog.json", **options))
    assert ids(local) == ids(remote)
    for api in (Api(features, page=2), Api(features, page=5, post=False), Api(features, query=False)):
        with serve_api(api):
            found = list(search(api.url, **options))
        assert len(found) == len(local)
        assert ids(found) <= ids(search(str(catalog), **{k: v for k, v in options.items() if k != "max_items"}))


def test_filters_find_what_they_should(catalog):
    assert ids(search(str(catalog))) == IDS
    assert ids(search(str(catalog), collection=TWL)) == {name for name in IDS if "33TWL" in name}
    assert ids(search(str(catalog), datetime="2023-08-18/..")) == {
        "S2A_33TWL_20230818_0_L2A",
        "S2B_33TWL_20230820_0_L2A",
    }
    assert ids(search(str(catalog), bbox=(11.3, 46.4, 11.4, 46.6))) == {"bolzano_20220612"}
    assert ids(search(str(catalog), datetime="2020-06-25T18:40:00Z")) == {"alberta_20200625"}


def test_an_item_that_does_not_state_its_cloud_cover_does_not_match_any(catalog):
    assert not list(search(str(catalog), collection="alberta-2020", max_cloud_cover=100))


def test_a_box_across_the_antimeridian_finds_both_sides(bent):
    def move(west, east):
        ring = [[west, 0], [east, 0], [east, 1], [west, 1], [west, 0]]
        return lambda body: body.update(geometry={"type": "Polygon", "coordinates": [ring]}, bbox=[west, 0, east, 1])

    edit(bent / "alberta-2020/alberta_20200615/alberta_20200615.json", move(179.5, 179.9))
    edit(bent / "alberta-2020/alberta_20200625/alberta_20200625.json", move(-179.9, -179.5))
    assert ids(search(str(bent), bbox=(179, -1, -179, 2))) == {"alberta_20200615", "alberta_20200625"}
    assert ids(search(str(bent), bbox=(179, -1, 180, 2))) == {"alberta_20200615"}


def test_an_item_without_geometry_goes_by_its_bbox_also_across_the_antimeridian(bent):
    edit(
        bent / "alberta-2020/alberta_20200615/alberta_20200615.json",
        lambda body: body.update(geometry=None, bbox=[179.5, 0, 0, -179.5, 1, 100]),
    )
    assert ids(search(str(bent), bbox=(-179.9, 0, -179.8, 1))) == {"alberta_20200615"}


@pytest.mark.parametrize(
    "options",
    [
        {"bbox": (1, 2, 3)},
        {"bbox": (0, 50, 10, 40)},
        {"bbox": (0, 0, float("nan"), 1)},
        {"bbox": (-190, 0, 10, 1)},
        {"datetime": "yesterday"},
        {"datetime": "2023-13"},
        {"datetime": "2023-09/2023-08"},
        {"datetime": "../.."},
        {"max_cloud_cover": 101},
        {"max_cloud_cover": -1},
        {"max_items": 0},
    ],
)
def test_options_that_cannot_match_are_refused_before_anything_is_read(options):
    with pytest.raises(ConfigError):
        search("https://unreachable.invalid", **options)


def test_an_unknown_collection_of_a_static_catalog_is_named_with_those_there_are(catalog):
    with pytest.raises(ConfigError, match=r"no collection 'sentinel'; it has alberta-2020, .*sahara-29rkh"):
        list(search(str(catalog), collection="sentinel"))


def test_a_folder_stands_for_its_catalog_or_collection(small):
    assert ids(search(str(small))) > ids(search(str(small / "bolzano-2022"))) == {"bolzano_20220612"}
    with pytest.raises(ReadError, match=r"there is no file .*/bolzano_20220612/catalog\.json"):
        next(search(str(small / "bolzano-2022" / "bolzano_20220612")))


def test_a_static_catalog_is_read_only_as_far_as_it_must(catalog):
    with serve(catalog.parent) as site:
        found = search(f"{site.url}/catalog.json")
        assert not site.asked
        next(found)
        assert sum(site.asked.values()) == 3
        next(found)
        assert sum(site.asked.values()) == 4


def test_items_of_other_collections_are_not_read(catalog):
    with serve(catalog.parent) as site:
        list(search(f"{site.url}/catalog.json", collection="bolzano-2022"))
        assert [path for path in site.asked if path.count("/") == 3] == [
            "/bolzano-2022/bolzano_20220612/bolzano_20220612.json"
        ]


def test_an_api_is_read_page_by_page(features):
    with serve_api(Api(features, page=3)) as api:
        found = search(api.url)
        next(found)
        assert api.asked["/search"] == 1
        list(found)
        assert api.asked["/search"] == 4


def test_few_items_are_few_requests_of_an_api(features):
    with serve_api(Api(features)) as api:
        assert len(list(search(api.url, max_items=2))) == 2
        assert api.asked["/search"] == 1


def test_items_found_are_never_a_reason_to_go_online_again(features):
    with serve_api(Api(features)) as api:
        items = list(search(api.url, collection=TWL))
    with no_network():
        for item in items:
            assert item.get_root() is None
            body = item.to_dict(include_self_link=True)
            again = pystac.Item.from_dict(body, migrate=False)
            assert again.get_self_href() == f"{api.url}/collections/{TWL}/items/{item.id}"
            assert item.clone().to_dict() == item.to_dict()
            assert resolve(again, ["blue"]).bands[0].href.startswith("https://data.example.com/")


def test_local_items_are_never_a_reason_to_go_online(catalog):
    with no_network():
        for item in search(str(catalog)):
            item.to_dict()
            assert item.get_self_href().endswith(f"{item.id}.json")
            assert all(
                asset.href.startswith(str(catalog.parent)) for asset in item.assets.values() if asset.href[0] == "/"
            )
            assert {link.rel for link in item.links}.isdisjoint({"root", "parent"})


def test_ids_hrefs_paths_items_and_payloads_load_in_the_order_given(catalog, shared):
    path = catalog.parent / "bolzano-2022/bolzano_20220612/bolzano_20220612.json"
    payload = shared / "data/items/stac-task-payload__sentinel2-l2a-j2k-payload.json"
    with serve(catalog.parent) as site:
        href = f"{site.url}/cloudn-chips/cloudn_chip1/cloudn_chip1.json"
        refs = ["alberta_20200615", href, str(path), pystac.Item.from_file(str(path)), str(payload), "alberta_20200720"]
        items = list(load_items(refs, catalog=str(catalog)))
    assert [item.id for item in items] == [
        "alberta_20200615",
        "cloudn_chip1",
        "bolzano_20220612",
        "bolzano_20220612",
        "S2A_52HGH_20221007_0_L2A",
        "S2B_5CNL_20221009_0_L2A",
        "alberta_20200720",
    ]
    assert items[1].assets["blue"].href == f"{site.url}/cloudn-chips/cloudn_chip1/B02.tif"
    assert items[3].assets["blue"].href == str(path.parent / "blue.tif")


def test_a_path_that_goes_up_is_kept_in_its_plain_form(catalog):
    plain = catalog.parent / "bolzano-2022/bolzano_20220612/bolzano_20220612.json"
    (item,) = load_items([str(catalog.parent / "alberta-2020/../bolzano-2022/bolzano_20220612" / plain.name)])
    assert item.get_self_href() == str(plain.resolve())


def test_an_id_of_a_static_catalog_is_found_without_reading_all_items(catalog):
    with serve(catalog.parent) as site:
        (item,) = load_items(["cloudn_chip2"], catalog=f"{site.url}/catalog.json")
        assert item.id == "cloudn_chip2"
        assert [path for path in site.asked if path.count("/") == 3] == ["/cloudn-chips/cloudn_chip2/cloudn_chip2.json"]


def test_an_id_that_is_not_in_its_link_is_found_all_the_same(bent):
    edit(bent / "cloudn-chips/cloudn_chip2/cloudn_chip2.json", lambda body: body.update(id="other"))
    (item,) = load_items(["other"], catalog=str(bent))
    assert item.id == "other"


def test_ids_are_looked_up_in_an_api(features):
    with serve_api(Api(features)) as api:
        found = list(load_items(["cloudn_chip2", "nowhere", "cloudn_chip1"], catalog=api.url))
    assert [item.id if isinstance(item, pystac.Item) else item for item in found][::2] == [
        "cloudn_chip2",
        "cloudn_chip1",
    ]
    assert found[1].ref == "nowhere"
    assert isinstance(found[1].error, ConfigError)


def test_an_id_in_two_collections_needs_to_be_told_apart(features):
    twin = copy.deepcopy(next(body for body in features if body["id"] == "cloudn_chip1")) | {"collection": "twins"}
    with serve_api(Api([*features, twin])) as api:
        (found,) = load_items(["cloudn_chip1"], catalog=api.url)
        assert isinstance(found, Failure)
        assert "cloudn-chips" in str(found.error)
        assert "twins" in str(found.error)
        (found,) = load_items(["cloudn_chip1"], catalog=api.url, collection="twins")
        assert found.collection_id == "twins"


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (None, ReadError, "there is no file"),
        ("{", ReadError, "is not JSON"),
        ("[1]", ReadError, "not a JSON object but a list"),
        ("[" * 100_000, ReadError, "is not JSON"),
        ('{"type": "Collection", "id": "c"}', UnsupportedItemError, "holds 'Collection' rather than an item"),
        ('{"type": "Feature", "id": "x"}', UnsupportedItemError, "no valid properties, assets"),
        ('{"type": "Feature", "id": 5, "properties": {}, "assets": {}}', UnsupportedItemError, "no valid id"),
        ('{"type": "Feature", "id": "x", "properties": {}, "assets": {}}', UnsupportedItemError, "datetime"),
        (
            '{"type": "Feature", "id": "x", "properties": {"datetime": "noon"}, "assets": {}}',
            UnsupportedItemError,
            "datetime 'noon' is not a time",
        ),
    ],
)
def test_what_is_no_item_is_a_failure_and_the_others_go_on(tmp_path, catalog, content, error, said):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    good = catalog.parent / "bolzano-2022/bolzano_20220612/bolzano_20220612.json"
    bad, item = load_items([str(path), str(good)])
    assert bad.ref == str(path)
    assert isinstance(bad.error, error)
    assert said in str(bad.error)
    assert not bad.error.retryable
    assert item.id == "bolzano_20220612"


def test_an_id_without_catalog_says_what_is_missing():
    (failure,) = load_items(["S2A_33TWL_20230818_0_L2A"])
    assert "needs a catalog" in str(failure.error)


def test_a_broken_item_of_a_static_catalog_is_a_failure_among_the_others(bent):
    (bent / "alberta-2020/alberta_20200615/alberta_20200615.json").write_text("{")
    (bent / "cloudn-chips/collection.json").unlink()
    found = list(find(str(bent), Query()))
    failures = [item for item in found if isinstance(item, Failure)]
    assert [f.ref for f in failures] == ["./alberta_20200615/alberta_20200615.json", "./cloudn-chips/collection.json"]
    assert len(found) - len(failures) == len(IDS) - 3
    with pytest.raises(ReadError, match="is not JSON"):
        list(search(str(bent)))


def test_links_in_a_circle_are_followed_once(bent):
    edit(
        bent / "alberta-2020/collection.json",
        lambda body: body["links"].append({"rel": "child", "href": "../alberta-2020/../catalog.json"}),
    )
    assert len(list(search(str(bent)))) == len(IDS)


def link_to(href, rel="child"):
    return lambda body: body["links"].insert(0, {"rel": rel, "href": href})


@pytest.mark.parametrize("rel", ["child", "item"])
@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "http://localhost:1/x.json",
        "http://169.254.169.254/latest",
        "https://u:p@example.com/x.json",
    ],
)
def test_a_remote_catalog_cannot_lead_to_local_files_or_private_hosts(bent, rel, href):
    edit(bent / "alberta-2020/collection.json", link_to(href, rel))
    with serve(bent) as site:
        first = next(find(f"{site.url}/catalog.json", Query(collection="alberta-2020")))
        while not isinstance(first, Failure):
            first = next(item for item in find(f"{site.url}/catalog.json", Query()) if isinstance(item, Failure))
    assert isinstance(first.error, UnsupportedItemError)
    assert "u:p" not in str(first.error) + first.ref


def test_a_local_catalog_can_be_kept_to_its_folder(bent, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    edit(bent / "alberta-2020/collection.json", link_to("../../secret.json", "item"))
    failures = [
        f
        for f in find(str(bent), Query(), connection=Connection(rule=HrefRule(local_roots=(str(bent),))))
        if isinstance(f, Failure)
    ]
    assert [failure.ref for failure in failures] == ["../../secret.json"]
    assert "outside of local_roots" in str(failures[0].error)


def test_an_item_of_an_api_cannot_pass_for_a_local_one(features):
    liar = copy.deepcopy(features[0]) | {"links": [{"rel": "self", "href": "/home/me/item.json"}]}
    liar["assets"]["blue"]["href"] = "./secret.tif"
    with serve_api(Api([liar])) as api:
        (item,) = search(api.url)
        assert item.get_self_href().startswith(f"{api.url}/collections/")
        assert item.assets["blue"].href.startswith(f"{api.url}/")
    given = pystac.Item.from_dict(liar, migrate=False)
    given.add_link(pystac.Link("root", "https://stac.example.com/"))
    with no_network():
        (item,) = load_items([given])
        with pytest.raises(UnsupportedItemError, match=r"a remote item .* may not name local files"):
            resolve(item, ["blue"])


def test_an_api_that_leads_elsewhere_is_left(features):
    with serve_api(Api(features)) as api:
        api.fault = lambda _, path: "http://localhost:1/" if path == "/search" else None
        with pytest.raises(UnsupportedItemError, match="'localhost' on a private network"):
            list(search(api.url))


def test_a_redirect_of_a_document_to_a_private_host_is_not_followed(bent):
    with (
        serve(bent, lambda *_: "http://localhost:1/x.json") as site,
        pytest.raises(UnsupportedItemError, match="localhost"),
    ):
        list(search(f"{site.url}/catalog.json"))


def test_failing_servers_are_asked_again(catalog, features):
    with serve_api(Api(features)) as api:
        api.fault = lambda number, _: 503 if number in {1, 4} else None
        assert len(list(search(api.url))) == len(IDS)
    with serve(catalog.parent, lambda number, *_: {2: 503, 5: "reset"}.get(number)) as site:
        assert len(list(search(f"{site.url}/catalog.json", collection="bolzano-2022"))) == 1


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (400, False)])
def test_an_api_that_refuses_is_a_read_error_without_secrets(features, status, retryable):
    with serve_api(Api(features)) as api:
        api.fault = lambda _, path: status if path == "/search" else None
        with pytest.raises(ReadError, match=r"/search answers with status 40[04]") as caught:
            list(search(f"{api.url}/?token=SECRET"))
    assert caught.value.retryable == retryable
    assert "SECRET" not in str(caught.value)


def test_a_page_of_an_api_is_followed_to_the_last_one(features):
    with serve_api(Api(features, page=2)) as api:
        for place in (f"{api.url}/collections/{TWL}/items", f"{api.url}/search?collections={TWL}&limit=1"):
            expected = {name for name in IDS if "33TWL" in name}
            assert ids(load_items([place])) == expected
            assert ids(search(place)) == expected
            assert ids(search(place, max_cloud_cover=30)) == ids(search(api.url, collection=TWL, max_cloud_cover=30))


def test_a_local_page_of_an_api_is_taken_as_it_is(features, tmp_path):
    page = {
        "type": "FeatureCollection",
        "features": features[:2],
        "links": [{"rel": "next", "href": "http://127.0.0.1:1/"}],
    }
    (tmp_path / "page.json").write_text(json.dumps(page))
    with no_network():
        assert len(list(load_items([str(tmp_path / "page.json")]))) == 2


@pytest.mark.parametrize("searches", [True, False])
def test_the_url_of_a_collection_of_an_api_is_a_catalog(features, searches):
    with serve_api(Api(features, page=2)) as api:
        place = f"{api.url}/collections/{TWL}"
        api.fault = lambda _, path: None if searches or path != "/" else 404
        if searches:
            assert ids(search(place)) == {name for name in IDS if "33TWL" in name}
            (item,) = load_items(["S2B_33TWL_20230810_0_L2A"], catalog=place)
            assert item.id == "S2B_33TWL_20230810_0_L2A"
        else:
            with pytest.raises(ReadError, match="status 404"):
                list(search(place))


@pytest.mark.parametrize("post", [True, False])
def test_pages_that_are_too_large_for_a_server_are_asked_for_in_a_smaller_size(features, post):
    with serve_api(Api(features, most=30, post=post)) as api:
        assert ids(search(api.url)) == IDS
        assert api.asked["/search"] == 2


def test_a_search_that_fails_in_any_size_names_the_page(features):
    with serve_api(Api(features, page=2)) as api:
        api.fault = lambda number, path: 404 if path == "/search" and number > 4 else None
        with pytest.raises(ReadError, match=rf"{api.url}/search.* answers with status 404"):
            list(search(api.url))


OTHER = {"mgrs:utm_zone": 32, "mgrs:latitude_band": "T", "mgrs:grid_square": "QM"}


@pytest.mark.parametrize(
    ("named", "spelling"),
    [
        ({"grid:code": "MGRS-{}"}, "1WCR"),
        ({"grid:code": "MGRS-{}"}, "01WCR"),
        ({"s2:mgrs_tile": "{}"}, "01WCR"),
        ({"mgrs:utm_zone": 1, "mgrs:latitude_band": "W", "mgrs:grid_square": "CR"}, ""),
        ({}, ""),
    ],
)
def test_a_tile_is_found_by_whatever_field_the_provider_has(features, named, spelling):
    tile = copy.deepcopy(features[0]) | {"id": "S2A_T01WCR_20230602T025701_L2A"}
    properties = {"datetime": tile["properties"]["datetime"]}
    tile["properties"] = properties | {
        name: value.format(spelling) if isinstance(value, str) else value for name, value in named.items()
    }
    other = copy.deepcopy(tile) | {"id": "S2A_T32TQM_20230602T025701_L2A"}
    other["properties"] = properties | {
        name: {"mgrs:utm_zone": 32, "mgrs:latitude_band": "T", "mgrs:grid_square": "QM"}.get(
            name, str(value).format("32TQM")
        )
        for name, value in named.items()
    }
    for query in (True, False):
        with serve_api(Api([other, tile], query=query)) as api:
            for asked in ("01WCR", "1wcr", "T01WCR"):
                assert ids(search(api.url, tile=asked, collection=tile["collection"])) == {tile["id"]}


def test_items_in_memory_whose_links_lead_to_an_api_are_refused_where_they_name_files(features, tmp_path):
    self_link = {"rel": "self", "href": "https://stac.example.com/collections/c/items/i"}
    for links in ([self_link], [self_link | {"rel": "root"}]):
        for href in ("./B02.tif", "../B02.tif", f"{tmp_path}/B02.tif"):
            body = copy.deepcopy(features[0]) | {"links": links}
            body["assets"]["blue"]["href"] = href
            with no_network():
                (item,) = load_items([pystac.Item.from_dict(body, migrate=False)])
                with pytest.raises(UnsupportedItemError, match="may not name local files"):
                    resolve(item, ["blue"])


def test_an_item_in_memory_that_was_read_from_its_file_is_local_whatever_its_root(features, tmp_path):
    body = copy.deepcopy(features[0]) | {"links": [{"rel": "root", "href": "https://stac.example.com/"}]}
    body["assets"]["blue"]["href"] = "./B02.tif"
    (tmp_path / "i.json").write_text(json.dumps(body))
    with no_network():
        (item,) = load_items([pystac.Item.from_file(str(tmp_path / "i.json"))])
    assert item.assets["blue"].href == str(tmp_path / "B02.tif")


@pytest.fixture
def products(features, tmp_path):
    """Paths of two products of one id, the older first."""
    paths = []
    for baseline, updated in (("04.00", "2023-09-01T00:00:00Z"), ("05.10", "2023-08-19T00:00:00Z")):
        body = copy.deepcopy(features[0])
        body["properties"] |= {"s2:processing_baseline": baseline, "updated": updated}
        paths.append(tmp_path / f"{baseline}.json")
        paths[-1].write_text(json.dumps(body))
    return [str(path) for path in paths]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_products_of_one_id_the_newest_is_loaded_and_that_is_said(products, order):
    with pytest.warns(StacCloudmaskWarning, match=r"2 products of this id.* not that of baseline 04\.00"):
        (item,) = load_items(products[::order])
    assert item.properties["s2:processing_baseline"] == "05.10"


def test_two_products_of_one_id_are_one_place_also_without_a_collection(products):
    edit(Path(products[0]), lambda body: body.update(collection="sentinel-2-l2a"))
    edit(Path(products[1]), lambda body: body.update(collection=None))
    with pytest.warns(StacCloudmaskWarning, match="2 products"):
        assert len(list(load_items(products))) == 1


def test_two_products_of_one_id_are_both_loaded_on_request_under_ids_of_their_own(products, features):
    found = list(load_items(products, versions="all"))
    assert [item.id for item in found] == [f"{features[0]['id']}_N0400", f"{features[0]['id']}_N0510"]
    for path in products:
        edit(Path(path), lambda body: body["properties"].update({"s2:processing_baseline": "05.10"}))
    found = list(load_items(products, versions="all"))
    assert [item.id for item in found] == [
        f"{features[0]['id']}_20230901T000000Z", f"{features[0]['id']}_20230819T000000Z",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:item")
def test_products_of_one_id_are_found_by_that_id_and_a_damaged_one_says_why(products, tmp_path):
    bodies = [json.loads(Path(path).read_text()) for path in products]
    catalog = tmp_path / "both.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": bodies}))
    name = bodies[0]["id"]
    (newest,) = load_items([name], catalog=str(catalog))
    assert newest.properties["s2:processing_baseline"] == "05.10"
    both = list(load_items([name], catalog=str(catalog), versions="all"))
    assert [item.id for item in both] == [f"{name}_N0400", f"{name}_N0510"]
    bodies[0]["properties"]["datetime"] = "yesterday"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": bodies[:1]}))
    (failure,) = load_items([name], catalog=str(catalog))
    assert "yesterday" in str(failure.error)


def test_the_same_product_twice_is_no_matter(products):
    assert len(list(load_items([products[0], products[0]]))) == 2


def test_masks_in_a_catalog_are_left_out_of_what_is_to_be_masked(features):
    mask = copy.deepcopy(features[0]) | {"id": "mask"}
    mask["properties"]["stac_cloudmask:fingerprint"] = "abc"
    with serve_api(Api([features[0], mask])) as api:
        assert ids(search(api.url)) == {features[0]["id"], "mask"}
        assert ids(without_masks(find(api.url, Query()))) == {features[0]["id"]}
        with pytest.raises(UnsupportedItemError, match="'mask' is a mask of stac_cloudmask already"):
            resolve(next(item for item in search(api.url) if item.id == "mask"), ["blue"])


def test_a_broken_item_of_a_page_fails_alone(features, tmp_path):
    late = copy.deepcopy(features[0]) | {"id": "late"}
    late["properties"]["datetime"] = "noon"
    page = {"type": "FeatureCollection", "features": [late, 5, features[1]], "links": 5}
    (tmp_path / "page.json").write_text(json.dumps(page))
    *failures, item = load_items([str(tmp_path / "page.json")])
    assert [failure.ref for failure in failures] == ["late", "5"]
    assert "'noon' is not a time" in str(failures[0].error)
    assert item.id == features[1]["id"]
    with serve(tmp_path) as site:
        assert len([found for found in find(f"{site.url}/page.json", Query()) if isinstance(found, Failure)]) == 2
