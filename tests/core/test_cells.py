import numpy as np
import pytest
from cumulus import cumulus, product

from stac_cloudmask.core import merge_calibrated as module
from stac_cloudmask.core.merge import POLICIES
from stac_cloudmask.core.merge_calibrated import RULES, Survey
from stac_cloudmask.core.votes import Evidence, vote

POLICY = POLICIES["calibrated"]


@pytest.mark.parametrize(("gsd", "factor"), [(10, 8), (20, 4), (30, 2), (60, 1), (120, 1), (1, 64)])
def test_cells_are_some_60_m_on_any_grid_by_a_power_of_two(gsd, factor):
    assert RULES.cell_factor(gsd) == factor


def test_strips_reduce_to_the_same_cells_as_the_whole(monkeypatch):
    evidence = cumulus(shape=(250, 301))
    whole = Survey(evidence, POLICY).cells
    monkeypatch.setattr(module, "CELL_ROWS", 7)
    cut = Survey(evidence, POLICY).cells
    assert whole.valid.shape == (32, 38)
    for name in whole._fields:
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), err_msg=name)


def one_row(cloud, shadow, scl, *, cloud_codes=(8, 9, 10)):
    mask = None if scl is None else product([scl], cloud_codes=cloud_codes)
    evidence = Evidence(cloud=np.array([cloud], np.uint8), shadow=np.array([shadow], np.uint8), gsd=10.0, product=mask)
    votes, _ = vote(evidence, 0, 1, POLICY)
    return Survey(evidence, POLICY).candidates(0, 1, votes)


def test_votes_of_little_weight_need_a_model_that_half_agrees():
    found = one_row([31, 30, 21, 20, 0, 0, 21], [0] * 7, [4, 4, 10, 10, 8, 9, 4])
    np.testing.assert_array_equal(found.cloud[0], [True, False, True, False, False, False, False])
    np.testing.assert_array_equal(found.product[0], [False, False, False, False, True, True, False])
    found = one_row([0] * 4, [61, 60, 6, 5], [4, 4, 3, 3])
    np.testing.assert_array_equal(found.shadow[0], [True, False, True, False])


def test_codes_are_what_the_user_says_they_are():
    found = one_row([25] * 4, [0] * 4, [7, 8, 9, 10], cloud_codes=(7, 9))
    np.testing.assert_array_equal(found.product[0], [True, False, True, False])
    assert not found.cloud.any()


def test_nodata_is_no_candidate_whatever_the_product_says():
    found = one_row([255, 90], [255, 90], [9, 0])
    assert not (found.cloud | found.product | found.shadow).any()


def test_without_a_product_the_models_decide():
    found = one_row([31, 30], [61, 60], None)
    np.testing.assert_array_equal(found.cloud[0], [True, False])
    np.testing.assert_array_equal(found.shadow[0], [True, False])
