from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.metrics import OUTCOMES, colored, outcomes


def outcome(truth, found, judged=(1, 2)):
    codes = outcomes(np.array([[found]], np.uint8), np.array([[truth]], np.uint8), judged=judged)
    return list(OUTCOMES)[codes[0, 0]]


@pytest.mark.parametrize(
    ("truth", "found", "expected"),
    [
        (0, 0, "clear in both"),
        (1, 1, "cloud in both"),
        (2, 2, "shadow in both"),
        (1, 0, "missed by the mask"),
        (2, 0, "missed by the mask"),
        (0, 1, "only in the mask"),
        (0, 2, "only in the mask"),
        (1, 2, "cloud and shadow mistaken"),
        (2, 1, "cloud and shadow mistaken"),
        (255, 1, "not judged"),
        (1, 255, "not judged"),
    ],
)
def test_every_pair_has_its_outcome(truth, found, expected):
    assert outcome(truth, found) == expected


def test_a_class_that_is_not_judged_counts_as_clear():
    assert outcome(0, 1, judged=(2,)) == "clear in both"
    assert outcome(1, 1, judged=(2,)) == "clear in both"
    assert outcome(1, 2, judged=(2,)) == "only in the mask"
    assert outcome(2, 1, judged=(2,)) == "missed by the mask"


def test_every_outcome_has_a_color_of_its_own():
    picture = colored(np.arange(len(OUTCOMES), dtype=np.uint8)[None])
    assert (picture.shape, picture.dtype) == ((1, len(OUTCOMES), 3), np.uint8)
    assert len({tuple(color) for color in picture[0].tolist()}) == len(OUTCOMES)
