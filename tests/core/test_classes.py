from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from stac_cloudmask.core.classes import CLASSES, CloudClass

SEEN_BY = {
    "normal vision": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
"""Machado, Oliveira and Fernandes (2009), on linear RGB."""
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
LAND = [(100, 95, 60), (60, 80, 40), (170, 140, 100), (35, 45, 35)]
WHITE = (255, 255, 255)


def lab(rgb, vision):
    linear = np.where(np.array(rgb) > 10, ((np.array(rgb) / 255 + 0.055) / 1.055) ** 2.4, np.array(rgb) / 255 / 12.92)
    xyz = np.array(TO_XYZ) @ np.clip(np.array(SEEN_BY[vision]) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", SEEN_BY)
def test_cloud_and_shadow_are_told_from_each_other_from_white_and_from_land_by_every_eye(vision):
    cloud, shadow = (CLASSES[code].rgb for code in (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW))
    pairs = [(cloud, shadow), *((color, other) for color in (cloud, shadow) for other in [WHITE, *LAND])]
    assert min(np.linalg.norm(lab(one, vision) - lab(other, vision)) for one, other in pairs) > 34


@pytest.mark.parametrize("vision", SEEN_BY)
def test_the_classes_of_a_chart_are_told_apart_by_every_eye(vision):
    colors = [info.rgb for info in CLASSES]
    assert min(np.linalg.norm(lab(a, vision) - lab(b, vision)) for a, b in combinations(colors, 2)) > 34
