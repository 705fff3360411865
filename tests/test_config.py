from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest

from stac_cloudmask.config import Runtime, Settings
from stac_cloudmask.errors import ConfigError


def fingerprint(**changes):
    return tuple(sorted(Settings(**changes).fingerprint_fields().items()))


def test_every_runtime_makes_masks_of_its_own():
    assert len({fingerprint(provider=name) for name in get_args(Runtime)}) == len(get_args(Runtime))


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 1},
        {"in_memory": True},
        {"overwrite": True},
        {"model_cache": "x"},
        {"private_hosts": ("h",)},
        {"local_roots": ()},
    ],
)
def test_how_a_mask_is_made_is_no_part_of_what_it_is(changes):
    assert fingerprint(**changes) == fingerprint()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cloud_model": "ukis"}, "cloud_model is a tuple"),
        ({"cloud_model": ()}, "at least one model"),
        ({"cloud_thr": "0.3"}, "cloud_thr is a number from 0 to 1"),
        ({"cloud_thr": True}, "cloud_thr is a number"),
        ({"cloud_thr": 1.01}, "cloud_thr is a number from 0 to 1"),
        ({"buffer": [1]}, "buffer is a number"),
        ({"threads": 1.5}, "threads is a whole number from 1 to 10000"),
        ({"threads": 0}, "threads is a whole number from 1"),
        ({"scl_cloud": (8.5,)}, "a tuple of whole numbers"),
        ({"scl_cloud": (3, 8)}, "mean one thing each"),
        ({"merge": ["union"]}, "merge is one of"),
        ({"merge": "x"}, "merge is one of"),
        ({"mask_only": "yes"}, "mask_only is true or false"),
        ({"resolution": float("nan")}, "resolution is a number from 1"),
        ({"cloud_thr": 0.123}, "whole percents"),
    ],
)
def test_settings_of_another_kind_are_refused_by_name(changes, says):
    with pytest.raises(ConfigError, match=says):
        Settings(**changes)


def test_numbers_of_numpy_are_numbers():
    assert Settings(cloud_thr=np.float32(0.5), buffer=np.int64(20), threads=np.int32(2)).buffer == 20


@pytest.mark.parametrize("name", ["buffer", "min_area", "hole_area", "resolution"])
@pytest.mark.parametrize("value", [10**400, 1e13, -1, math.nan, math.inf])
def test_sizes_beyond_the_earth_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"{name} is a number"):
        Settings(**{name: value})
