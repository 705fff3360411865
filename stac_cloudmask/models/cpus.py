"""How many CPUs this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")
OWN_CGROUP: Final = Path("/proc/self/cgroup")


def usable_cpus(*, cgroups: Path = CGROUPS, own_cgroup: Path = OWN_CGROUP) -> int:
    """CPUs of this process's affinity, or fewer where a cgroup grants it less time; at least 1.

    onnxruntime and OpenVINO would start a thread for every CPU of the host, also in a container that may use one.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _granted(cgroups, own_cgroup))))


def _granted(cgroups: Path, own_cgroup: Path) -> float:
    """CPUs by the tightest quota of the process's cgroup and all above it; infinite without a quota."""
    lines = _text(own_cgroup).splitlines()
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = cgroups / own
    quotas = [_text(above / "cpu.max").split() for above in (folder, *folder.parents) if above.is_relative_to(cgroups)]
    first = [_text(cgroups / "cpu" / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    return min((_cpus(quota) for quota in (*quotas, first)), default=math.inf)


def _cpus(quota: list[str]) -> float:
    """CPUs of ``[microseconds, period]``; ``max`` and -1 are no limit."""
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:  # noqa: PLR2004
        return int(quota[0]) / int(quota[1])
    return math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
