from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.classes import Scl, ground_codes, improved_scl


def improved(mask, scl, *, cloud=0, ground=Scl.BARE):
    codes = (np.array([[value]], np.uint8) for value in (mask, cloud, ground))
    return improved_scl(*codes, None if scl is None else np.array([[scl]], np.uint8)).item()


@pytest.mark.parametrize("scl", [8, 9, 10])
def test_cloud_keeps_the_products_code_for_cloud(scl):
    assert improved(1, scl, cloud=3) == scl


@pytest.mark.parametrize(("percent", "code"), [(65, 8), (66, 9)])
def test_cloud_that_the_product_does_not_see_has_a_code_by_its_probability(percent, code):
    assert improved(1, 4, cloud=percent) == code


@pytest.mark.parametrize("scl", [2, 4, 6, 9, 11])
def test_shadow_is_shadow_whatever_the_product_says(scl):
    assert improved(2, scl) == 3


@pytest.mark.parametrize("scl", [3, 8, 9, 10])
@pytest.mark.parametrize("ground", [4, 5, 6, 7])
def test_false_cloud_and_shadow_become_what_the_ground_is(scl, ground):
    assert improved(0, scl, ground=ground) == ground


@pytest.mark.parametrize("scl", [1, 2, 4, 5, 6, 7, 11])
def test_all_else_stays(scl):
    assert improved(0, scl, ground=5) == scl


def test_nodata_is_nodata_and_without_a_product_ground_is_what_its_colors_say():
    assert improved(255, 9) == 0
    assert improved(0, None, ground=6) == 6
    assert improved(1, None, cloud=90) == 9


@pytest.mark.parametrize(
    ("green", "red", "nir", "code"),
    [(0.06, 0.04, 0.35, 4), (0.09, 0.12, 0.15, 5), (0.05, 0.03, 0.01, 6), (0.08, 0.09, 0.17, 7), (0.4, 0.4, 0.35, 5)],
)
def test_ground_is_told_by_its_colors(green, red, nir, code):
    assert ground_codes(*(np.array([value], np.float32) for value in (green, red, nir))).item() == code
