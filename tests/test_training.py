"""What of the training can be tried without training."""

from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.votes import Evidence
from training.data import decided
from training.sharpen import Scene, agreement


@pytest.mark.parametrize(
    ("cloud", "shadow", "code"),
    [
        (0.30, 0.60, CloudClass.CLEAR),  # thresholds are exceeded, not reached
        (0.31, 0.60, CloudClass.CLOUD),
        (0.30, 0.61, CloudClass.CLOUD_SHADOW),
        (0.35, 0.65, CloudClass.CLOUD_SHADOW),  # of both, the more probable one
    ],
)
def test_what_is_decided_has_the_thresholds_of_the_default_policy(cloud, shadow, code):
    assert decided(np.array([[[cloud]], [[shadow]]], np.float32)) == code


def test_a_student_that_says_what_the_default_says_agrees_unless_its_logits_are_shifted():
    cloud = np.zeros((64, 64), np.uint8)
    cloud[16:48, 16:48] = 90
    evidence = Evidence(cloud=cloud, shadow=np.zeros_like(cloud), gsd=10)
    scene = Scene("square", evidence, decide(evidence, Settings()).class_map)
    assert agreement(scene, factor=1, shift=0) == 1
    assert agreement(scene, factor=1, shift=-5) < 0.9
