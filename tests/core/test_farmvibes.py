from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from stac_cloudmask.config import Settings
from stac_cloudmask.core.merge import decide, merge_farmvibes
from stac_cloudmask.core.predict import percent
from stac_cloudmask.core.votes import Evidence, ProductMask
from stac_cloudmask.farmvibes import PROBABILITY_NODATA, flagged_pixels

SHAPE = (24, 31)
probabilities = arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32))
masks = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 0, 0, 1, 3, 100]))
thresholds = st.integers(0, 99).map(lambda t: t / 100)


def disk(radius):
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return x * x + y * y <= radius * radius


def merge(cloud, shadow, product, *, cloud_thr=0.3, shadow_thr=0.2, closing_size=0, min_area=0):
    flagged = flagged_pixels(cloud, shadow, product, cloud_thr=cloud_thr, shadow_thr=shadow_thr)
    return merge_farmvibes(flagged, closing_size=closing_size, min_area=min_area)


@given(probabilities, probabilities, masks, st.tuples(thresholds, thresholds), st.integers(0, 4))
def test_percents_give_the_same_mask_as_the_probabilities_they_came_from(cloud, shadow, product, at, size):
    exact = merge(cloud, shadow, product, cloud_thr=at[0], shadow_thr=at[1], closing_size=size)
    scl = ProductMask(scl=product + np.uint8(1), factor=1, shape=SHAPE, cloud_codes=(2, 4, 101), shadow_codes=())
    evidence = Evidence(cloud=percent(cloud), shadow=percent(shadow), gsd=10.0, product=scl)
    settings = Settings(merge="farmvibes", cloud_thr=at[0], shadow_thr=at[1], buffer=10.0 * size)
    np.testing.assert_array_equal(decide(evidence, settings).class_map, exact)


@given(masks, st.integers(0, 4))
def test_the_mask_grows_by_a_disk(product, size):
    clear = np.zeros(SHAPE, np.float32)
    grown = ndimage.binary_dilation(product > 0, disk(size))
    np.testing.assert_array_equal(merge(clear, clear, product, closing_size=size), grown)


def test_thresholds_are_strict():
    clear, product = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    at = np.full(SHAPE, 0.3, np.float32)
    assert not merge(at, clear, product).any()
    assert merge(np.nextafter(at, np.float32(1)), clear, product).all()


def test_nodata_is_cloud_unless_an_ensemble_has_lost_it():
    clear, product = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    empty, lost = np.full(SHAPE, PROBABILITY_NODATA), np.full(SHAPE, np.float32(np.nan))
    assert merge(empty, clear, product).all()
    assert not merge(lost, clear, product).any()
    assert merge(lost, empty, product).all()


@given(arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 20, 40, 255])), masks, st.integers(0, 2))
def test_nodata_of_an_ensemble_is_as_clear_as_no_cloud(percents, product, size):
    known, empty = (percents / 100).astype(np.float32), percents == 255
    lost, filled = (np.where(empty, np.float32(value), known) for value in (np.nan, 0))
    clear = np.zeros(SHAPE, np.float32)
    found = merge(lost, clear, product, closing_size=size)
    np.testing.assert_array_equal(found, merge(filled, clear, product, closing_size=size))


def test_small_objects_go_after_growing_and_then_small_holes_are_filled():
    product = np.zeros((40, 40), np.uint8)
    product[5, 5] = 1
    product[15:35, 15:35] = 1
    product[22:28, 22:28] = 0
    clear = np.zeros((40, 40), np.float32)
    kept = merge(clear, clear, product, closing_size=1, min_area=5)
    assert kept[5, 5]
    cleaned = merge(clear, clear, product, closing_size=1, min_area=6)
    assert not cleaned[5, 5]
    assert not cleaned[25, 25]
    assert merge(clear, clear, product, closing_size=1, min_area=17)[25, 25]
