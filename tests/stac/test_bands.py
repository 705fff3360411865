from __future__ import annotations

from dataclasses import dataclass

import pytest

from stac_cloudmask.errors import BandNotFoundError, UnsupportedItemError
from stac_cloudmask.stac.bands import is_scl, key_band, resolve
from stac_cloudmask.stac.metadata import asset_grid, sun_angles
from stac_cloudmask.stac.providers import AWS, BANDS, BEARER
from tests.stac.items import as_read, features, genuine, made_up

ESA = {name: band.esa for name, band in BANDS.items()} | {"scl": "SCL"}
NAMES = {name: name for name in ESA}
WITH_GSD = {name: f"{band.esa}_{band.gsd}m" for name, band in BANDS.items()} | {"scl": "SCL_20m"}
NATIVE_GSD = {name: band.gsd for name, band in BANDS.items()} | {"scl": 20}


@dataclass(frozen=True)
class Expected:
    """What an item must resolve to."""

    keys: dict[str, str]
    dn: int
    suffix: str = ".tif"
    start: str = "https://sentinel-cogs.s3.us-west-2.amazonaws.com/"
    doubtful: bool = False
    sun: bool = True


V1 = Expected(NAMES, 0)
C1 = Expected(NAMES, -1000, start="https://e84-earth-search-sentinel-data.s3.us-west-2.amazonaws.com/")
MPC = Expected(ESA, 0, start="https://sentinel2l2a01.blob.core.windows.net/")
CDSE = Expected(WITH_GSD, -1000, ".jp2", "s3://eodata/Sentinel-2/MSI/L2A")
AWS_JP2 = Expected(NAMES, -1000, ".jp2", "s3://sentinel-s2-l2a/tiles/")
V1_JP2 = Expected(NAMES, -1000, ".jp2", "s3://sentinel-s2-l2a/tiles/")
LOCAL = "{folder}/"

GOLDEN: dict[str, list[Expected | type[Exception]]] = {
    "cdse__sentinel-2-l2a__S2B_MSIL2A_20200322T074609_N0500_R135_T36NYH_20230612T214223": [CDSE],
    "cdse__sentinel-2-l2a__S2C_MSIL2A_20260527T014651_N0512_R017_T55WFR_20260527T042005": [CDSE],
    "collection__issue1049-api-empty-data-cube__sentinel-2-l2a": [],
    "earth-search-baselines__S2A_12RWT_20240106_0_L2A": [V1],
    "earth-search-baselines__S2A_32TMS_20221207_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20161202_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20171005_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20181119_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20190707_1_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20200202_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20210328_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20210629_0_L2A": [V1],
    "earth-search-baselines__S2A_33TWN_20220122_0_L2A": [V1],
    "earth-search-baselines__S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCR": [AWS_JP2],
    "earth-search-baselines__S2B_33TWN_20180521_1_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20180806_0_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20181005_0_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20181104_0_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20190503_0_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20220130_0_L2A": [V1],
    "earth-search-baselines__S2B_33TWN_20220226_0_L2A": [Expected(NAMES, -1000, doubtful=True)],
    "earth-search-staticcatalog__sentinel-2-l2a__S2A_33TWL_20230815_0_L2A": [V1],
    "earth-search-v0__sentinel-s2-l2a-cogs__S2A_28QCH_20200714_0_L2A": [
        Expected(ESA, 0, sun=False),
    ],
    "earth-search__sentinel-2-c1-l2a__S2B_T20EPT_20250731T131905_L2A": [C1],
    "earth-search__sentinel-2-c1-l2a__S2B_T24MUV_20250731T130245_L2A": [C1],
    "earth-search__sentinel-2-l1c__S2B_20EPT_20250731_0_L1C": [UnsupportedItemError],
    "earth-search__sentinel-2-l1c__S2B_24MUV_20250731_0_L1C": [UnsupportedItemError],
    "earth-search__sentinel-2-l2a__S2A_12RWT_20240106_0_L2A": [V1],
    "earth-search__sentinel-2-l2a__S2A_13TDE_20231008_0_L2A": [V1],
    "earth-search__sentinel-2-l2a__S2A_32TMS_20221207_0_L2A": [V1],
    "earth-search__sentinel-2-l2a__S2B_20EPT_20250731_0_L2A": [V1],
    "earth-search__sentinel-2-l2a__S2B_24MUV_20250731_0_L2A": [V1],
    "local-safe__collection__S2A_MSIL2A_20181229T095411_N0211_R079_T33SVB_20181229T112231": [
        Expected(ESA, 0, ".jp2", LOCAL, sun=False),
    ],
    "mpc-TRIMMED__sentinel-2-l2a__S2B_MSIL2A_20230101T102339_R065_T32UPC_20240806T223544": [BandNotFoundError],
    "mpc__sentinel-2-l2a__S2A_MSIL2A_20190101T000001_R116_T60VUJ_20201007T214652": [MPC],
    "mpc__sentinel-2-l2a__S2A_MSIL2A_20190101T000001_R116_T60VUK_20201007T214652": [MPC],
    "mpc__sentinel-2-l2a__S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531": [MPC],
    "s2aws-jp2-antimeridian__sentinel-s2-l2a__S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCQ": [AWS_JP2],
    "stac-task-payload__sentinel2-l2a-j2k-payload": [V1_JP2, V1_JP2],
    "stactools-sentinel2-antimeridian__None__S2A_T01WCS_20230625T234624_L2A": [
        Expected(NAMES, -1000, ".jp2", LOCAL),
    ],
    "stactools-sentinel2__None__S2B_T33XWJ_20220413T150756_L2A": [Expected(NAMES, -1000, ".tif", LOCAL)],
}
"""For every genuine file, what each of its items resolves to for all twelve bands and SCL."""


def test_every_genuine_item_is_in_the_golden_table(shared):
    assert sorted(path.stem for path in (shared / "data" / "items").glob("*.json")) == sorted(GOLDEN)


@pytest.mark.parametrize("stem", [stem for stem, expected in GOLDEN.items() if expected])
def test_a_genuine_item_resolves_to_the_right_assets_offsets_and_scl_or_a_clear_error(shared, stem):
    path = shared / "data" / "items" / f"{stem}.json"
    for feature, expected in zip(features(path), GOLDEN[stem], strict=True):
        item = as_read(feature, path)
        if not isinstance(expected, Expected):
            with pytest.raises(expected, match=item.id):
                resolve(item, list(BANDS))
            continue
        sources = resolve(item, list(BANDS))
        read = {source.common_name: source for source in (*sources.bands, sources.scl)}
        assert {name: source.asset_key for name, source in read.items()} == expected.keys
        assert {source.offset.dn for source in sources.bands} == {expected.dn}
        assert {source.scale for source in sources.bands} == {1e-4}
        assert {source.offset.doubtful for source in sources.bands} == {expected.doubtful}
        assert (sources.sun is not None) == expected.sun
        start = expected.start.format(folder=path.parent)
        local = [source.href for source in read.values() if source.href.startswith(str(path.parent))]
        assert all(source.href.startswith(start) or source.href in local for source in read.values())
        assert bool(local) == (item.get_self_href() == str(path))
        assert all(source.href.endswith(expected.suffix) for source in read.values())
        grids = {name: source.grid.gsd for name, source in read.items() if source.grid}
        assert grids == (NATIVE_GSD if stem[:10] != "local-safe" else {})


def test_the_trimmed_item_resolves_for_the_bands_it_has_with_the_baseline_of_its_hrefs(shared):
    sources = resolve(genuine(shared, "mpc-TRIMMED"), ["swir22", "coastal"])
    assert [source.asset_key for source in sources.bands] == ["B12", "B01"]
    assert {source.offset.dn for source in sources.bands} == {-1000}


def test_a_missing_band_is_named_with_what_there_is():
    with pytest.raises(BandNotFoundError, match=r"'S2_made_up' has no band 'red'.*blue, nir08.*B02, B8A, SCL"):
        resolve(made_up(), ["red"])


def test_a_missing_scl_is_an_error_unless_the_caller_does_without():
    item = made_up(**{"s2:processing_baseline": "05.09"})
    del item.assets["SCL"]
    with pytest.raises(BandNotFoundError, match=r"'S2_made_up' has no SCL asset \(has B02, B8A\).*model-only"):
        resolve(item, ["blue"])
    assert resolve(item, ["blue"], want_scl=False).scl is None


def test_scl_is_used_where_it_is_there_although_the_caller_could_do_without():
    item = made_up(**{"s2:processing_baseline": "05.09"})
    assert resolve(item, ["blue"], want_scl=False).scl.asset_key == "SCL"


@pytest.mark.parametrize(
    "properties",
    [
        {"s2:product_type": "S2MSI1C"},
        {"processing:level": "L1C"},
        {"s2:product_uri": "S2B_MSIL1C_20250731T131909_N0511_R095_T20EPT_20250731T143530.SAFE"},
        {"platform": "landsat-8"},
    ],
)
def test_another_level_or_satellite_is_refused(properties):
    with pytest.raises(UnsupportedItemError, match="S2_made_up"):
        resolve(made_up(**properties), ["blue"])


@pytest.mark.parametrize("bad", ["../up", "a/b", ".hidden", "-option", "a b", "", "x" * 201, "\u00e9t\u00e9", "a\n"])
def test_an_id_that_cannot_be_part_of_a_path_is_refused(bad):
    item = made_up()
    item.id = bad
    with pytest.raises(UnsupportedItemError, match="cannot be part of a path"):
        resolve(item, ["blue"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("proj:shape", [10**9, 10**9]),
        ("proj:shape", [0, 10]),
        ("proj:shape", [1.5, 10]),
        ("proj:shape", "big"),
        ("proj:transform", [10, 1, 300000, 0, -10, 5000040]),
        ("proj:transform", [10, 0, 300000, 0, -20, 5000040]),
        ("proj:transform", [-10, 0, 300000, 0, 10, 5000040]),
        ("proj:transform", [10, 0, float("nan"), 0, -10, 5000040]),
        ("proj:transform", [10, 0, 1e300, 0, -10, 5000040]),
        ("proj:transform", [1e300, 0, 300000, 0, -1e300, 5000040]),
        ("nodata", 65535),
        ("raster:scale", -1e-4),
        ("raster:scale", 1e-300),
    ],
)
def test_impossible_metadata_of_an_asset_are_refused_with_item_and_asset(field, value):
    item = made_up(**{"s2:processing_baseline": "05.09"})
    item.assets["B02"].extra_fields[field] = value
    with pytest.raises(UnsupportedItemError, match="'S2_made_up': asset 'B02'"):
        resolve(item, ["blue"])


def test_an_asset_that_contradicts_its_key_is_refused():
    item = made_up()
    item.assets["B02"].extra_fields["eo:bands"] = [{"name": "B04"}]
    with pytest.raises(UnsupportedItemError, match=r"should hold 'blue'.*'red'"):
        resolve(item, ["blue"])


def test_hostile_hrefs_are_refused_with_item_and_asset():
    item = made_up()
    item.assets["B02"].href = "/vsicurl/https://example.com/x.tif"
    with pytest.raises(UnsupportedItemError, match="'S2_made_up': asset 'B02': href"):
        resolve(item, ["blue"])


def test_bands_of_an_unknown_provider_are_found_by_their_metadata():
    item = made_up(**{"s2:processing_baseline": "05.09"})
    for key, band in {
        "one": {"name": "x", "common_name": "rededge", "center_wavelength": 0.7405},
        "two": {"name": "B8A", "common_name": "rededge", "center_wavelength": 0.865},
        "three": {"name": "y", "eo:common_name": "rededge071"},
        "four": {"common_name": "red"},
    }.items():
        item.assets[key] = item.assets["B02"].clone()
        item.assets[key].extra_fields["bands"] = [band]
    del item.assets["B8A"]
    found = resolve(item, ["rededge2", "nir08", "rededge1", "red"])
    assert [source.asset_key for source in found.bands] == ["one", "two", "three", "four"]


def test_cog_goes_before_jpeg_2000_and_measured_pixels_before_resampled_ones():
    item = made_up(**{"s2:processing_baseline": "05.09"})
    for key, gsd, suffix in (("a", 10, "jp2"), ("b", 20, "tif"), ("c", 10, "tif"), ("d", 60, "tif")):
        item.assets[key] = item.assets["B02"].clone()
        item.assets[key].href = f"./{key}.{suffix}"
        item.assets[key].extra_fields |= {
            "bands": [{"name": "B04"}],
            "proj:transform": [gsd, 0, 300000, 0, -gsd, 5000040],
        }
    assert resolve(item, ["red"]).bands[0].asset_key == "c"


def test_an_offset_set_by_the_user_holds_and_warns_of_nothing():
    sources = resolve(made_up(), ["blue"], boa_offset="-1000")
    assert sources.bands[0].offset.dn == -1000
    assert sources.bands[0].offset.reason == "set by the user"


@pytest.mark.parametrize(
    ("key", "band"),
    [
        ("B02", "blue"), ("b02", "blue"), ("B2", "blue"), ("Blue", "blue"), ("B8A", "nir08"), ("b8a", "nir08"),
        ("B8", "nir"), ("B11", "swir16"), ("B02.tif", "blue"), ("B02_10m.jp2", "blue"), ("B02_R10m", "blue"),
        ("B02-10m", "blue"), ("blue-jp2", "blue"), ("T33TWL_20230818T100031_B02_10m", "blue"), ("data_B02", "blue"),
        ("IMG_DATA/R10m/B02", "blue"), ("red.tiff", "red"),
        ("B13", None), ("B00", None), ("visual", None), ("MSK_DETFOO_B02", None), ("MSK_QUALIT_B02", None),
        ("preview_B02", None), ("overview_red", None), ("AB02", None),
    ],
)  # fmt: skip
def test_the_key_of_an_asset_tells_its_band_in_every_usual_spelling(key, band):
    assert key_band(key) == band


@pytest.mark.parametrize(
    ("key", "found"),
    [("SCL", True), ("scl_20m", True), ("SCL.tif", True), ("T33TWL_20230818T100031_SCL_20m.jp2", True),
     ("scene_classification", True), ("MSK_CLASSI_B00", False), ("scl_preview", False)],
)  # fmt: skip
def test_the_key_of_an_asset_tells_the_scene_classification(key, found):
    item = made_up()
    item.add_asset(key, item.assets.pop("SCL"))
    assert is_scl(item, key) == found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("product:type", "S2MSI1C"),
        ("processing:level", "L1C"),
        ("s2:product_type", "S2MSI1C"),
        ("s2:product_uri", "S2A_MSIL1C_20230818T100031_N0509_R122_T33TWL_20230818T143300.SAFE"),
    ],
)
def test_one_statement_of_level_1c_is_enough_to_refuse(name, value):
    item = made_up(**{"s2:product_type": "S2MSI2A", "processing:level": "L2A"} | {name: value})
    with pytest.raises(UnsupportedItemError, match="top-of-atmosphere"):
        resolve(item, ["blue"])


def test_an_id_or_collection_of_level_1c_is_refused():
    for change in ({"id": "S2A_T33TWL_20230818T100031_L1C"}, {"collection_id": "sentinel-2-l1c"}):
        item = made_up()
        for name, value in change.items():
            setattr(item, name, value)
        with pytest.raises(UnsupportedItemError, match="top-of-atmosphere"):
            resolve(item, ["blue"])


def test_names_that_end_like_a_level_are_names():
    for change in ({"id": "S2A_T33TWL_20230818T100031_parcel1"}, {"collection_id": "scl1"}, {"id": "portugal1"}):
        item = made_up()
        for name, value in change.items():
            setattr(item, name, value)
        assert resolve(item, ["blue"]).bands


VIEW = {"view:sun_azimuth": 156.7, "view:sun_elevation": 55.5}
MEAN = {"s2:mean_solar_azimuth": 150.0, "s2:mean_solar_zenith": 30.0}


@pytest.mark.parametrize(
    ("properties", "sun"),
    [
        (VIEW, (156.7, 55.5)),
        (MEAN, (150.0, 60.0)),
        (VIEW | MEAN, (156.7, 55.5)),
        ({"view:sun_azimuth": -203.5, "view:sun_elevation": 55.5}, (156.5, 55.5)),
        ({"view:sun_azimuth": 156.7, "s2:mean_solar_zenith": 30.0}, (156.7, 60.0)),
        (VIEW | {"view:sun_elevation": 555.0} | MEAN, (156.7, 60.0)),
        (VIEW | {"view:sun_azimuth": 1e9} | MEAN, (150.0, 55.5)),
        (VIEW | {"view:sun_elevation": 0.0} | MEAN, (156.7, 60.0)),
        (VIEW | {"view:sun_elevation": -3.0}, (156.7, -3.0)),
        ({"view:sun_elevation": 55.5}, None),
        ({"view:sun_azimuth": "156.7", "view:sun_elevation": None}, None),
    ],
)
def test_each_angle_of_the_sun_comes_from_the_first_place_that_states_a_possible_one(properties, sun):
    found = sun_angles(made_up(**properties))
    assert found == (None if sun is None else pytest.approx(sun))


def test_a_transform_in_the_order_of_gdal_is_the_same_grid():
    item = made_up()
    expected = asset_grid(item, "B02")
    item.assets["B02"].extra_fields["proj:transform"] = [300000, 10, 0, 5000040, 0, -10]
    assert asset_grid(item, "B02") == expected


S3, HTTPS = "s3://eodata/B02.jp2", "https://download.dataspace.copernicus.eu/B02.jp2"
KEYS = {"AWS_ACCESS_KEY_ID": "k"}
LOGIN = {"GDAL_HTTP_HEADERS": "Authorization: Bearer t"}


@pytest.mark.parametrize(
    ("hrefs", "credentials", "chosen"),
    [
        ((S3, HTTPS), {}, S3),
        ((S3, HTTPS), KEYS, S3),
        ((S3, HTTPS), LOGIN, HTTPS),
        ((HTTPS, S3), KEYS, S3),
        ((S3, "https://example.com/B02.jp2"), {}, "https://example.com/B02.jp2"),
        (("https://example.com/B02.tif", "s3://bucket/B02.tif"), KEYS, "https://example.com/B02.tif"),
        (("s3://bucket/B02.tif", "https://example.com/B02.tif"), {"AWS_NO_SIGN_REQUEST": "YES"}, "s3://bucket/B02.tif"),
    ],
)
def test_of_alternates_the_one_is_read_whose_credentials_are_there(hrefs, credentials, chosen, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*AWS, *BEARER):
        monkeypatch.delenv(name, raising=False)
    for name, value in credentials.items():
        monkeypatch.setenv(name, value)
    item = made_up(**{"s2:processing_baseline": "05.10"})
    item.assets["B02"].href = hrefs[0]
    item.assets["B02"].extra_fields["alternate"] = {"other": {"href": hrefs[1]}, "broken": {"title": "none"}}
    assert resolve(item, ["blue"]).bands[0].href == chosen


def test_an_alternate_is_held_to_the_rule_of_hrefs():
    item = made_up()
    item.assets["B02"].href = S3
    item.assets["B02"].extra_fields["alternate"] = {"other": {"href": "http://10.0.0.1/B02.tif"}}
    with pytest.raises(UnsupportedItemError, match="private network"):
        resolve(item, ["blue"])
