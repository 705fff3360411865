from __future__ import annotations

import copy
import hashlib
import json
import re

import numpy as np
import pytest
from offline import Validator, no_network
from outputs import MODEL, NO_SOURCES, class_map, facts_of, read_items, source_paths, write_files
from pystac.errors import STACValidationError

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.geometry import check_footprint
from stac_cloudmask.stac.hrefs import unsigned
from stac_cloudmask.stac.mask_item import class_counts, file_fields, mask_item, output_collection, output_id

OWN_KEYS = {
    *("cloud_mask", "cloud_mask_qgis", "cloud_mask_gdal", "cloud_probability", "shadow_probability", "mask_votes"),
    "thumbnail",
}


@pytest.fixture(scope="module")
def valid(shared):
    return Validator(shared / "data" / "schemas")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("files"), class_map())


@pytest.fixture
def source(shared):
    """A genuine Earth Search item."""
    name = "earth-search__sentinel-2-l2a__S2B_20EPT_20250731_0_L2A.json"
    return read_items(shared / "data" / "items" / name)[0]


@pytest.fixture
def make(files):
    def made(item, **changes):
        with no_network():
            return mask_item(item, facts_of(item, class_map(), files, **changes))

    return made


@pytest.mark.slow
def test_every_genuine_source_gives_a_valid_item_with_and_without_its_assets(shared, valid, make):
    for path in source_paths(shared):
        for item in read_items(path):
            for scheme in item.properties.get("storage:schemes", {}).values():
                scheme.setdefault("type", "custom-s3")  # CDSE's items of 2024 are not valid themselves
            for mask_only in (False, True):
                assert len(valid(make(item, settings=Settings(mask_only=mask_only)))) >= 9, path.name


def test_the_validator_finds_faults(valid, make, source):
    body = make(source)
    body["assets"]["cloud_mask"]["file:checksum"] = "not hex"
    with pytest.raises(STACValidationError):
        valid(body)


def test_ids_and_relative_links_follow_the_layout_of_the_catalog(make, source):
    body = make(source)
    assert body["id"] == "S2B_20EPT_20250731_0_L2A_cloudmask"
    assert body["collection"] == "sentinel-2-l2a-cloudmask"
    structure = {link["rel"]: link["href"] for link in body["links"] if link["rel"] in {"root", "parent", "collection"}}
    assert structure == {
        "root": "../../catalog.json",
        "parent": "../collection.json",
        "collection": "../collection.json",
    }


def test_the_mask_asset_says_what_its_pixels_are(make, source, files):
    asset = make(source)["assets"]["cloud_mask"]
    counts = class_counts(class_map())
    assert {c["value"]: c["count"] for c in asset["classification:classes"]} == counts
    percentages = {c["value"]: c.get("percentage") for c in asset["classification:classes"]}
    assert percentages[0] + percentages[1] + percentages[2] == pytest.approx(100)
    assert percentages[255] is None
    assert [c["value"] for c in asset["classification:classes"] if c.get("nodata")] == [255]
    assert {c["name"]: c["color_hint"] for c in asset["classification:classes"]} == {
        c.name: c.color_hint for c in CLASSES
    }
    assert asset["href"] == "./cloud_mask.tif"
    assert asset["file:size"] == files["cloud_mask"].stat().st_size
    assert asset["file:checksum"] == "1220" + hashlib.sha256(files["cloud_mask"].read_bytes()).hexdigest()
    assert (asset["data_type"], asset["nodata"], asset["proj:shape"]) == ("uint8", 255, [60, 80])


def test_cover_is_of_valid_pixels_and_the_sources_own_goes_to_the_link(make, source):
    body = make(source)
    codes = class_map()
    valid_pixels = (codes != CloudClass.NODATA).sum()
    assert body["properties"]["eo:cloud_cover"] == pytest.approx(100 * (codes == 1).sum() / valid_pixels, abs=1e-4)
    listed = {c["name"]: c for c in body["assets"]["cloud_mask"]["classification:classes"]}
    assert listed["cloud"]["percentage"] == pytest.approx(body["properties"]["eo:cloud_cover"], abs=1e-4)
    assert body["properties"]["s2:cloud_shadow_percentage"] == pytest.approx(
        100 * (codes == 2).sum() / valid_pixels, abs=1e-4
    )
    back = next(link for link in body["links"] if link["rel"] == "derived_from")
    assert back["href"] == source.get_self_href()
    assert back["eo:cloud_cover"] == source.properties["eo:cloud_cover"] == 26.02542


def test_a_scene_without_a_valid_pixel_has_no_cloud_cover(make, source, valid):
    nothing = np.full((10, 10), 255, np.uint8)
    for mask_only in (False, True):
        body = make(source, counts=class_counts(nothing), settings=Settings(mask_only=mask_only))
        valid(body)
        assert "eo:cloud_cover" not in body["properties"]
        assert body["properties"]["s2:nodata_pixel_percentage"] == 100


def test_decisions_are_recorded(make, source):
    properties = make(source)["properties"]
    assert properties["stac_cloudmask:fingerprint"] == "0123456789abcdef"
    assert properties["stac_cloudmask:boa_offset"]["blue"]["offset"] == 0
    assert "boa_offset_applied" in properties["stac_cloudmask:boa_offset"]["blue"]["reason"]
    assert properties["stac_cloudmask:merge"] == {"policy": "calibrated", "cloud_thr": 0.3, "shadow_thr": 0.2}
    assert properties["stac_cloudmask:product_mask"] == "scl"
    assert properties["stac_cloudmask:models"][0]["sha256"] == MODEL.sha256


def test_a_mask_from_models_alone_says_so(make, source):
    assert make(source, sources=NO_SOURCES)["properties"]["stac_cloudmask:product_mask"] is None


def test_carried_bands_have_the_offset_that_was_used_whatever_the_source_declares(make, source):
    declared = source.assets["blue"].extra_fields["raster:bands"][0]["offset"]
    carried = make(source)["assets"]
    assert declared == -0.1
    for key in ("blue", "rededge1"):
        assert (carried[key]["raster:scale"], carried[key]["raster:offset"]) == (0.0001, 0)
    assert carried["blue-jp2"]["raster:offset"] == -0.1
    assert "raster:offset" not in carried["scl"] or carried["scl"]["raster:offset"] == 0


def test_an_offset_set_by_the_user_holds_for_every_carried_band(make, source):
    carried = make(source, sources=NO_SOURCES, settings=Settings(boa_offset="-1000"))["assets"]
    assert {carried[key]["raster:offset"] for key in ("blue", "rededge1", "blue-jp2")} == {-0.1}


def test_carried_assets_are_rasters_by_absolute_href(make, source):
    assets = make(source)["assets"]
    own = {*OWN_KEYS}
    assert {"blue", "scl", "visual", "blue-jp2"} < set(assets)
    assert not {"granule_metadata", "product_metadata", "tileinfo_metadata"} & set(assets)
    for key, asset in assets.items():
        assert key in own or asset["href"].startswith(("https://", "s3://")), key
    assert assets["thumbnail"]["href"] == "./thumbnail.png"


def test_mask_only_leaves_the_sources_assets_out(make, source):
    body = make(source, settings=Settings(mask_only=True))
    assert set(body["assets"]) == OWN_KEYS
    assert body["properties"]["processing:level"] == "L4"


def test_relative_hrefs_of_a_local_source_become_absolute_paths(shared, make):
    path = shared / "data" / "bolzano-2022" / "bolzano_20220612" / "bolzano_20220612.json"
    assets = make(read_items(path)[0])["assets"]
    assert assets["blue"]["href"] == str(path.parent / "blue.tif")


def genuine(shared, start):
    return read_items(next((shared / "data" / "items").glob(f"{start}*.json")))[0]


def test_what_the_source_says_of_its_scene_and_of_its_files_is_carried_as_it_says_it(shared, make):
    cdse = genuine(shared, "cdse__sentinel-2-l2a__S2C")
    body = make(cdse)
    for name in ("sat:relative_orbit", "product:type", "auth:schemes", "storage:schemes", "eopf:datatake_id"):
        assert body["properties"][name] == cdse.properties[name]
    blue = body["assets"]["B02_10m"]
    assert blue["alternate"] == cdse.assets["B02_10m"].extra_fields["alternate"]
    assert blue["storage:refs"] == ["cdse-s3", "creodias-s3"]
    assert any("alternate-assets" in schema for schema in body["stac_extensions"])
    earth_search = genuine(shared, "earth-search__sentinel-2-c1-l2a")
    assert make(earth_search)["properties"]["mgrs:grid_square"] == earth_search.properties["mgrs:grid_square"]


def test_how_files_are_reached_is_not_carried_without_the_files(shared, make):
    properties = make(genuine(shared, "cdse__sentinel-2-l2a__S2C"), settings=Settings(mask_only=True))["properties"]
    assert not [name for name in properties if name.startswith(("auth:", "storage:"))]
    assert "sat:relative_orbit" in properties


def test_no_field_that_is_deprecated_or_of_the_software_stands_on_the_item(make, source):
    properties = make(source)["properties"]
    assert {"s2:product_type", "s2:generation_time"} <= source.properties.keys()
    deprecated = {"s2:product_type", "s2:granule_id", "s2:processing_baseline", "s2:generation_time", "s2:mgrs_tile"}
    assert not {*deprecated, "version", "processing:version"} & properties.keys()
    assert properties["processing:software"]["stac_cloudmask"] == "0.2.0"


def test_the_level_is_that_of_the_mask_and_each_carried_band_has_its_own(make, source):
    body = make(source)
    assert body["properties"]["processing:level"] == "L4"
    assert {a.get("processing:level") for k, a in body["assets"].items() if k in OWN_KEYS} == {None}
    assert body["assets"]["blue"]["processing:level"] == "L2A"


def test_the_mask_is_metadata_as_the_best_practices_have_it(make, source):
    assert make(source)["assets"]["cloud_mask"]["roles"] == ["metadata", "cloud", "cloud-shadow"]


def test_there_is_a_render_of_every_raster_of_its_own_and_every_link_has_a_title(make, source):
    body = make(source)
    rasters = {key for key in OWN_KEYS if "bands" in body["assets"][key]}
    assert {asset for render in body["properties"]["renders"].values() for asset in render["assets"]} == rasters
    assert all(link.get("title") for link in body["links"])


def test_styles_are_assets_without_a_checksum_as_qgis_and_gdal_write_to_them(make, source):
    assets = make(source)["assets"]
    assert (assets["cloud_mask_qgis"]["href"], assets["cloud_mask_qgis"]["roles"]) == ("./cloud_mask.qml", ["style"])
    assert assets["cloud_mask_gdal"]["href"] == "./cloud_mask.tif.aux.xml"
    assert not [key for key in ("cloud_mask_qgis", "cloud_mask_gdal") if "file:checksum" in assets[key]]


SECRETS = {
    "sas": "?st=2026-01-01&se=2026-01-02&sp=rl&sv=2024-05-04&sr=c&skoid=1&sig=SECRET%3D",
    "aws": "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIASECRET&X-Amz-Signature=SECRET",
    "old aws": "?AWSAccessKeyId=AKIASECRET&Signature=SECRET&Expires=1",
    "google": "?X-Goog-Signature=SECRET",
    "token": "?token=SECRET",
    "unknown": "?k=SECRET",
    "fragment": "#access_token=SECRET",
}


@pytest.mark.parametrize("query", SECRETS.values(), ids=SECRETS)
def test_signatures_never_reach_the_output(shared, make, query):
    for name in (
        "mpc__sentinel-2-l2a__S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531",
        "cdse__sentinel-2-l2a__S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005",
    ):
        item = read_items(shared / "data" / "items" / f"{name}.json")[0]
        for asset in item.assets.values():
            asset.href += query
        item.set_self_href(f"https://example.org/items/{item.id}{query}")
        for link in item.links:
            if link.rel == "license":
                link.target = f"{link.target}{query}"
        text = json.dumps(make(item))
        assert "SECRET" not in text
        assert not re.search(r"[?&#](st|se|sig|X-Amz|X-Goog)", text)
        assert "B02" in text


def test_user_info_is_taken_out_and_harmless_queries_stay():
    assert unsigned("https://me:pw@example.org/a.tif") == "https://example.org/a.tif"
    assert unsigned("https://example.org/a.tif?versionId=7") == "https://example.org/a.tif?versionId=7"
    assert unsigned("s3://bucket/a b.tif") == "s3://bucket/a b.tif"
    assert unsigned("/data/a#1.tif") == "/data/a#1.tif"


def test_a_remote_item_cannot_pass_on_files_of_this_machine(make, source):
    source.assets["blue"].href = "file:///etc/passwd.tif"
    source.assets["red"].href = "/vsicurl/http://169.254.169.254/x.tif"
    source.assets["green"].href = "http://127.0.0.1/x.tif"
    source.assets["nir"].href = "javascript:alert(1)"
    source.assets["scl"].href = "/host.tif"
    assets = make(source, sources=NO_SOURCES)["assets"]
    assert not {"blue", "red", "green", "nir"} & set(assets)
    assert assets["scl"]["href"] == "https://earth-search.aws.element84.com/host.tif"


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "", ".hidden", "x" * 300, "a\n", "ü"])
def test_ids_that_could_be_paths_are_refused(make, source, name):
    hostile = copy.deepcopy(source)
    hostile.id = name
    with pytest.raises(UnsupportedItemError, match="item id"):
        make(hostile)
    with pytest.raises(UnsupportedItemError, match="collection id"):
        output_collection(name or "../x")


def test_an_item_without_collection_goes_to_that_of_sentinel_2():
    assert output_collection(None) == "sentinel-2-l2a-cloudmask"
    assert output_id("a.b-c_1") == "a.b-c_1_cloudmask"


def test_tile_codes_are_padded_and_names_spelled_as_stac_wants_them(shared, make):
    by_name = {path.name: read_items(path)[0] for path in source_paths(shared)}
    antimeridian = next(item for name, item in by_name.items() if name.startswith("s2aws-jp2"))
    assert antimeridian.properties["grid:code"] == "MGRS-1WCQ"
    assert make(antimeridian)["properties"]["grid:code"] == "MGRS-01WCQ"
    assert make(antimeridian)["geometry"] == antimeridian.geometry
    computer = next(item for name, item in by_name.items() if name.startswith("mpc__sentinel-2-l2a__S2B"))
    properties = make(computer)["properties"]
    assert (properties["platform"], properties["constellation"]) == ("sentinel-2b", "sentinel-2")
    assert properties["grid:code"] == "MGRS-06VVN"
    cdse = next(item for name, item in by_name.items() if "S2C_MSIL2A" in name)
    assert make(cdse)["properties"]["s2:product_uri"] == f"{cdse.id}.SAFE"
    assert make(cdse)["assets"]["B02_10m"]["processing:version"] == "05.12"


def test_the_sources_own_percentages_are_not_copied(make, source):
    properties = make(source)["properties"]
    assert not {"s2:vegetation_percentage", "s2:thin_cirrus_percentage", "s2:sequence"} & set(properties)
    assert properties["s2:product_uri"] == source.properties["s2:product_uri"]


def test_a_missing_bounding_box_is_that_of_the_footprint(make, source):
    source.bbox = None
    west, south, east, north = make(source)["bbox"]
    ring = source.geometry["coordinates"][0]
    assert (west, north) == (min(x for x, _ in ring), max(y for _, y in ring))
    assert (south, east) == (min(y for _, y in ring), max(x for x, _ in ring))


def test_an_item_without_footprint_is_refused(source):
    source.geometry = None
    with pytest.raises(UnsupportedItemError, match="no geometry"):
        check_footprint(source)


def test_metadata_that_no_schema_allows_does_not_stop_a_mask_and_stays_json(make, source):
    source.properties |= {
        "grid:code": 7,
        "view:azimuth": "north",
        "platform": 3,
        "instruments": "msi",
        "sat:x": float("nan"),
    }
    for number, asset in enumerate(source.assets.values()):
        asset.extra_fields |= {
            "proj:shape": "big",
            "raster:bands": [None, {"nodata": {}, "scale": float("inf")}],
            "eo:bands": [{"common_name": "infrablue", "name": number}],
            "alternate": {"other": {"href": "file:///etc/passwd"}, "bad": 3},
        }
    text = json.dumps(make(source, sources=NO_SOURCES), allow_nan=False)
    assert "passwd" not in text


def test_the_source_item_is_not_changed(make, source):
    before = source.to_dict(transform_hrefs=False)
    make(source)
    assert source.to_dict(transform_hrefs=False) == before


def test_file_fields_and_counts_are_of_what_is_there(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc" * 700_000)
    checksum = "1220" + hashlib.sha256(b"abc" * 700_000).hexdigest()
    assert file_fields(path) == {"file:size": 2_100_000, "file:checksum": checksum}
    assert class_counts(np.array([[0, 1, 1], [2, 255, 255]], np.uint8)) == {0: 1, 1: 2, 2: 1, 255: 2}


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, float("nan")], [1, 1], [0, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, "9" * 400], [1, 1], [0, 0]]]},
        {"type": "Polygon"},
        {"type": "Circle", "coordinates": [0, 0]},
        {"type": "Point", "coordinates": "x"},
        "x",
        [1],
    ],
)
def test_a_footprint_that_is_none_is_refused(source, geometry):
    source.geometry = geometry
    with pytest.raises(UnsupportedItemError, match="geometry"):
        check_footprint(source)


@pytest.mark.parametrize("bbox", [None, [], [1, 2, 3], [0, 0, float("inf"), 1], "x", [0, 0, "1", 1]])
def test_a_bounding_box_that_is_none_is_that_of_the_footprint(make, source, bbox):
    source.bbox = None
    expected = make(source)["bbox"]
    source.bbox = bbox
    assert make(source)["bbox"] == expected
