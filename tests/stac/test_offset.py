from __future__ import annotations

import pytest

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.boa_offset import Offset, boa_offset
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
