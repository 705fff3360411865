from __future__ import annotations

from typing import get_args

import pytest

from stac_cloudmask.config import Provider, Settings


def fingerprint(**changes):
    return tuple(sorted(Settings(**changes).fingerprint_fields().items()))


def test_every_runtime_makes_masks_of_its_own():
    assert len({fingerprint(provider=name) for name in get_args(Provider)}) == len(get_args(Provider))


@pytest.mark.parametrize("changes", [{"threads": 1}, {"in_memory": True}, {"overwrite": True}, {"model_cache": "x"}])
def test_how_a_mask_is_made_is_no_part_of_what_it_is(changes):
    assert fingerprint(**changes) == fingerprint()
