from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from stac_cloudmask.core.votes import ProductMask, Vote


@st.composite
def masks(draw):
    """A product's mask, whose last pixels may reach beyond the scene, and rows of it; a code may mean both."""
    factor = draw(st.integers(1, 4))
    shape = draw(st.tuples(st.integers(1, 14), st.integers(1, 14)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scl = rng.choice(np.array([0, 3, 4, 8, 255], np.uint8), [-(-side // factor) for side in shape])
    codes = st.lists(st.sampled_from([0, 3, 8, 255]), max_size=4).map(tuple)
    start, stop = sorted(draw(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0]))))
    product = ProductMask(scl=scl, factor=factor, shape=shape, cloud_codes=draw(codes), shadow_codes=draw(codes))
    return product, start, stop


@given(masks())
def test_every_pixel_of_the_rows_has_the_class_of_the_pixel_of_the_mask_that_covers_it(case):
    product, start, stop = case
    width = product.shape[1]
    expected = [
        [product.scl[y // product.factor, x // product.factor] for x in range(width)] for y in range(start, stop)
    ]
    found = product.classes(start, stop)
    np.testing.assert_array_equal(found, np.array(expected, np.uint8).reshape(stop - start, width))


@given(masks())
def test_the_product_votes_for_cloud_and_shadow_by_its_codes_and_for_nothing_else(case):
    product = case[0]
    votes = product.votes(product.scl)
    cloud, shadow = (np.isin(product.scl, codes) for codes in (product.cloud_codes, product.shadow_codes))
    assert votes.dtype == np.uint8
    np.testing.assert_array_equal((votes & Vote.PRODUCT_CLOUD) > 0, cloud)
    np.testing.assert_array_equal((votes & Vote.PRODUCT_SHADOW) > 0, shadow)
    assert not (votes & ~np.uint8(Vote.PRODUCT_CLOUD | Vote.PRODUCT_SHADOW)).any()
