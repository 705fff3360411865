from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from stac_cloudmask.core.metrics import Agreement, agreement

CODES = st.sampled_from([0, 1, 2, 255])
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def pairs(draw):
    shape = draw(SHAPES)
    return draw(arrays(np.uint8, shape, elements=CODES)), draw(arrays(np.uint8, shape, elements=CODES))


def compare(mask, reference, *, judged=(1, 2), gsd=10.0, tolerance=0.0):
    return agreement(
        np.asarray(mask, np.uint8), np.asarray(reference, np.uint8), judged=judged, gsd=gsd, tolerance=tolerance
    )


@given(pairs())
def test_counts_cover_exactly_the_pixels_with_data_on_both_sides(pair):
    mask, reference = pair
    assert compare(mask, reference).pixels == np.count_nonzero((mask != 255) & (reference != 255))


@given(pairs())
def test_swapping_mask_and_reference_swaps_users_and_producers_accuracy(pair):
    mask, reference = pair
    there, back = compare(mask, reference).scores(1), compare(reference, mask).scores(1)
    assert (there.producers_accuracy, there.users_accuracy) == (back.users_accuracy, back.producers_accuracy)
    assert (there.f1, there.iou, there.tolerant_f1) == (back.f1, back.iou, back.tolerant_f1)


@given(pairs())
def test_f1_follows_from_iou(pair):
    scores = compare(*pair).scores(2)
    assert (scores.f1 is None) == (scores.iou is None)
    if scores.iou is not None:
        assert scores.f1 == pytest.approx(2 * scores.iou / (1 + scores.iou))


@given(pairs())
def test_a_tolerance_of_nothing_is_plain_f1(pair):
    scores = compare(*pair).scores(1)
    assert scores.tolerant_f1 == (None if scores.f1 is None else pytest.approx(scores.f1))


@given(pairs(), st.floats(0, 60), st.floats(0, 60))
def test_a_wider_tolerance_never_lowers_the_score(pair, one, other):
    narrow, wide = (compare(*pair, tolerance=t).scores(1).tolerant_f1 for t in sorted([one, other]))
    assert (narrow or 0) <= (wide or 0)


@given(arrays(np.uint8, SHAPES, elements=CODES))
def test_a_mask_agrees_fully_with_itself(mask):
    same = compare(mask, mask, tolerance=20)
    assert same.overall_accuracy in (None, 1.0)
    assert same.balanced_overall_accuracy in (None, 1.0)
    assert {same.scores(code).f1 for code in (0, 1, 2)} <= {None, 1.0}


@given(pairs(), pairs())
def test_counts_of_scenes_add_up(one, other):
    total = compare(*one) + compare(*other)
    flat = [np.concatenate([a.ravel(), b.ravel()])[None] for a, b in zip(one, other, strict=True)]
    assert total == compare(*flat)


@given(pairs())
def test_classes_that_are_not_judged_are_one_class(pair):
    mask, reference = pair
    merged = [np.where(side == 1, 0, side) for side in pair]
    assert compare(mask, reference, judged=(2,)) == compare(*merged, judged=(2,))


def test_scores_of_a_mask_worked_out_by_hand():
    reference = [[1, 1, 1, 0, 0, 0, 0, 2, 2, 255]]
    mask = [[1, 1, 0, 1, 0, 0, 255, 2, 0, 1]]
    found = compare(mask, reference)
    cloud = found.scores(1)
    assert found.counts == ((2, 1, 0), (1, 2, 0), (1, 0, 1))
    assert cloud.producers_accuracy == pytest.approx(2 / 3)
    assert cloud.users_accuracy == pytest.approx(2 / 3)
    assert cloud.iou == pytest.approx(2 / 4)
    assert cloud.balanced_accuracy == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.overall_accuracy == pytest.approx(5 / 8)
    assert found.balanced_overall_accuracy == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize(("tolerance", "expected"), [(9.9, 0.0), (10.0, 1.0)])
def test_the_tolerance_is_in_metres_and_inclusive(tolerance, expected):
    assert compare([[1, 0, 0, 0]], [[0, 1, 0, 0]], tolerance=tolerance).scores(1).tolerant_f1 == expected


def test_a_class_that_neither_side_has_gets_no_score():
    scores = compare([[0, 0]], [[0, 0]], tolerance=20).scores(1)
    assert (scores.f1, scores.iou, scores.tolerant_f1, scores.balanced_accuracy) == (None, None, None, None)


def test_a_class_that_only_the_mask_has_scores_zero():
    scores = compare([[1, 0]], [[0, 0]], tolerance=20).scores(1)
    assert (scores.f1, scores.iou, scores.tolerant_f1, scores.producers_accuracy) == (0, 0, 0, None)


def test_nothing_judged_gives_no_accuracy():
    nothing = compare([[255]], [[1]])
    assert (nothing.pixels, nothing.overall_accuracy, nothing.balanced_overall_accuracy) == (0, None, None)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"differ in shape: \(1, 2\) and \(1, 3\)"):
        compare([[0, 0]], [[0, 0, 0]])


@pytest.mark.parametrize("code", [0, 255])
def test_clear_and_nodata_are_not_judged(code):
    with pytest.raises(ValueError, match="not classes to judge"):
        compare([[0]], [[0]], judged=(1, code))


def test_agreements_on_other_classes_do_not_add_up():
    with pytest.raises(ValueError, match="different classes"):
        compare([[0]], [[0]], judged=(1,)) + compare([[0]], [[0]], judged=(2,))


def test_an_agreement_is_a_plain_value():
    assert compare([[1]], [[1]], judged=(1,)) == Agreement(codes=(0, 1), counts=((0, 0), (0, 1)), near=((0, 0), (1, 1)))
