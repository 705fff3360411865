from __future__ import annotations

import random

import pytest
from scenes import write_items, write_model

from benchmarks.faults import one_round

pytestmark = pytest.mark.slow


def test_killed_workers_and_clients_lose_nothing_leave_nothing_half_and_repeat_nothing(tmp_path):
    """The full count is benchmarks/faults.py: 40 items, ten rounds."""
    scenes, model = write_items(tmp_path / "source", 12), write_model(tmp_path / "model")
    done = one_round(scenes, model, tmp_path / "out", chance=random.Random(1), workers=2, kills=2)  # noqa: S311
    assert done.killed == {"worker": 1, "client": 1}
    assert (done.repeated, done.failed) == ([], [])
    assert done.runs == 2
