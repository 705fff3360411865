from __future__ import annotations

import pytest

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.bands import Offset, boa_offset, scale_of
from stac_cloudmask.stac.metadata import baseline
from tests.stac.items import genuine, made_up

OLD = {"s2:processing_baseline": "03.01"}
NEW = {"s2:processing_baseline": "05.10"}
APPLIED = {"earthsearch:boa_offset_applied": True}
NOT_APPLIED = {"earthsearch:boa_offset_applied": False}


def decide(properties, offset=None, *, suffix="tif"):
    item = made_up(**properties)
    item.assets["B02"].href = f"./B02.{suffix}"
    if offset is not None:
        item.assets["B02"].extra_fields["raster:bands"] = [{"scale": 0.0001, "offset": offset}]
    found = boa_offset(item, "B02")
    return found.dn, found.doubtful


@pytest.mark.parametrize(
    ("properties", "declared", "dn", "doubtful"),
    [
        (OLD, None, 0, False),
        (NEW, None, -1000, False),
        ({}, None, 0, True),
        (OLD, 0, 0, False),
        (NEW, -0.1, -1000, False),
        ({}, 0, 0, False),
        ({}, -0.1, -1000, False),
        (OLD, -0.1, 0, True),
        (NEW, 0, 0, True),
        (NEW | APPLIED, -0.1, 0, False),
        (NEW | APPLIED, 0, 0, False),
        (OLD | APPLIED, 0, 0, False),
        (APPLIED, -0.1, 0, False),
        (NEW | NOT_APPLIED, -0.1, -1000, True),
        (NEW | NOT_APPLIED, 0, -1000, True),
        (OLD | NOT_APPLIED, 0, 0, False),
        (NOT_APPLIED, -0.1, 0, True),
    ],
)
def test_flag_then_declaration_then_baseline_decide_and_contradictions_are_doubtful(properties, declared, dn, doubtful):
    assert decide(properties, declared) == (dn, doubtful)


@pytest.mark.parametrize("flag", [{}, APPLIED, NOT_APPLIED])
def test_an_original_jpeg_2000_file_goes_by_its_baseline_alone(flag):
    assert decide(NEW | flag, 0, suffix="jp2") == (-1000, False)
    assert decide(OLD | flag, -0.1, suffix="jp2") == (0, False)


def test_a_jpeg_2000_file_without_baseline_goes_by_what_is_declared():
    assert decide({}, -0.1, suffix="jp2") == (-1000, False)


def test_the_same_item_has_another_offset_for_its_cog_than_for_its_jpeg_2000(shared):
    item = genuine(shared, "earth-search__sentinel-2-l2a__S2A_32TMS")
    assert boa_offset(item, "blue").dn == 0
    assert boa_offset(item, "blue-jp2").dn == -1000


def test_baselines_compare_as_numbers_and_the_date_is_no_signal():
    assert decide({"s2:processing_baseline": "05.10", "datetime": "2017-01-01T00:00:00Z"}) == (-1000, False)
    assert decide({"s2:processing_baseline": "02.14", "datetime": "2024-01-01T00:00:00Z"}) == (0, False)


@pytest.mark.parametrize("key", ["SCL_20m", "CLD_20m", "SNW_20m", "AOT_10m", "WVP_10m", "TCI_10m", "Product"])
def test_only_reflectance_has_an_offset(shared, key):
    item = genuine(shared, "cdse__sentinel-2-l2a__S2C")
    assert boa_offset(item, key) == Offset(dn=0, reason="not a reflectance band")


def test_a_scale_of_one_counts_as_no_statement():
    item = made_up(**NEW)
    item.assets["B02"].extra_fields["raster:bands"] = [{"scale": 1.0, "offset": 0.0}]
    assert boa_offset(item, "B02").dn == -1000


def test_an_offset_beyond_belief_is_refused():
    item = made_up(**NEW)
    item.assets["B02"].extra_fields["raster:offset"] = -50.0
    with pytest.raises(UnsupportedItemError, match="'B02' declares offset -50"):
        boa_offset(item, "B02")


GRANULE = "S2A_OPER_MSI_L2A_TL_2APS_20230818T143300_A042590_T33TWL_N05.09"


@pytest.mark.parametrize(
    "properties",
    [
        *({"s2:processing_baseline": spelled} for spelled in (5.09, 509, "5.09", "05.09", "0509", "N0509", "05.09.00")),
        {"processing:version": "05.09"},
        {"processing:version": "05.09.00"},
        {"processing:baseline": "05.09"},
        {"s2:datatake_id": "GS2A_20230818T100031_042590_N05.09"},
        {"eopf:datatake_id": "GS2A_20230818T100031_042590_N05.09"},
        {"s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20230818T143300_S20230818T100032_N05.09"},
        {"s2:granule_id": GRANULE},
        {"s2:product_uri": "S2A_MSIL2A_20230818T100031_N0509_R122_T33TWL_20230818T143300.SAFE"},
    ],
)
def test_a_baseline_is_read_in_every_spelling_and_from_every_name_of_esa(properties):
    assert baseline(made_up(**properties)) == 5.09
    assert decide(properties) == (-1000, False)


def test_a_granule_that_gives_the_item_its_id_states_its_baseline():
    item = made_up()
    item.id = GRANULE
    assert baseline(item) == 5.09


@pytest.mark.parametrize(
    "properties",
    [
        {"processing:version": "1.2.3"},
        {"processing:version": "5.09"},
        {"s2:processing_baseline": "latest"},
        {"s2:processing_baseline": True},
        {"s2:datatake_id": "GS2A_20230818T100031_042590_N05.091"},
        {"processing:software": {"Sen2Cor": "02.12.03"}},
    ],
)
def test_what_is_no_baseline_is_none(properties):
    assert baseline(made_up(**properties)) is None


@pytest.mark.parametrize(
    "properties",
    [
        {"s2:product_uri": "S2A_MSIL2A_20190818T100031_N9999_R122_T33TWL_20230818T143300.SAFE"},
        {"s2:processing_baseline": "99.99"},
        {"s2:processing_baseline": "N9999", "s2:datatake_id": "GS2A_20190818T100031_021690_N02.08"},
    ],
)
def test_the_baseline_of_users_own_processors_is_unknown_and_doubtful(properties):
    assert baseline(made_up(**properties)) is None
    assert decide(properties) == (0, True)


@pytest.mark.parametrize(
    ("declared", "dn", "doubtful"),
    [
        ({"scale": 1e-4, "offset": -1000}, -1000, False),
        ({"scale": 1, "offset": -1000}, -1000, False),
        ({"offset": -1000}, -1000, False),
        ({"offset": -0.1}, -1000, False),
        ({"scale": 1, "offset": 0}, -1000, False),
        ({"scale": 10000, "offset": -1000}, -1000, False),
        ({"scale": 10000, "offset": 0}, 0, True),
    ],
)
def test_an_offset_may_be_stated_in_digital_numbers_as_esa_does(declared, dn, doubtful):
    item = made_up(**NEW)
    item.assets["B02"].extra_fields["raster:bands"] = [declared]
    found = boa_offset(item, "B02")
    assert (found.dn, found.doubtful) == (dn, doubtful)
    assert scale_of(item, "B02") == 1e-4
