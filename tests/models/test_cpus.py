from __future__ import annotations

import os

import pytest

from stac_cloudmask.models.session import usable_cpus


@pytest.fixture
def cgroups(tmp_path):
    own = tmp_path / "own"
    own.write_text("1:cpu:/old\n0::/box/inner\n")
    (tmp_path / "groups/box/inner").mkdir(parents=True)
    return tmp_path / "groups", own


def cpus(cgroups):
    folder, own = cgroups
    return usable_cpus(cgroups=folder, own_cgroup=own)


def test_without_a_quota_the_affinity_counts(cgroups):
    assert cpus(cgroups) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("place", ["cpu.max", "box/cpu.max", "box/inner/cpu.max"])
def test_the_tightest_quota_above_the_process_counts(cgroups, place):
    (cgroups[0] / "box/cpu.max").write_text("max 100000\n")
    (cgroups[0] / place).write_text("50000 100000\n")
    assert cpus(cgroups) == 1


def test_a_quota_of_a_part_of_a_cpu_is_rounded_up_and_never_above_the_affinity(cgroups):
    (cgroups[0] / "cpu.max").write_text("99900000 100000\n")
    assert cpus(cgroups) == len(os.sched_getaffinity(0))


def test_old_cgroups_are_understood(cgroups):
    (cgroups[0] / "cpu").mkdir()
    (cgroups[0] / "cpu/cpu.cfs_quota_us").write_text("100000\n")
    (cgroups[0] / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpus(cgroups) == 1


def test_a_quota_of_minus_one_is_none(cgroups):
    (cgroups[0] / "cpu").mkdir()
    (cgroups[0] / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    (cgroups[0] / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpus(cgroups) == len(os.sched_getaffinity(0))
