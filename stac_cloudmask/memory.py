"""Memory that this process no longer needs."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Return what was freed to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
