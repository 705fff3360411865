"""Memory of this process: the most that it had, and what it no longer needs."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path
from typing import Final

STATUS: Final = Path("/proc/self/status")
PEAK: Final = "VmHWM:"
KILOBYTE: Final = 1 if sys.platform == "darwin" else 1024
"""Unit in which the system states resident memory."""


def peak_bytes() -> int:
    """The most resident memory that this process ever had.

    Of its own where the system says it: ``ru_maxrss`` begins with what the parent had when it started this process.
    """
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    own = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(PEAK)), None)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTE if own is None else own


def give_back() -> None:
    """Return what was freed to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
