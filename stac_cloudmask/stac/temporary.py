"""Names of temporary folders that tell whether the process that made them is still at work."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid
from pathlib import Path
from typing import Final

NAME: Final = re.compile(r"run-(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}")
ABANDONED: Final = 24 * 3600.0
"""Seconds without change after which a folder of another machine, whose processes cannot be seen, counts as dead."""


def new_name() -> str:
    """A name that no other process, thread or machine gives."""
    pid = os.getpid()
    return f"run-{_machine()}-{pid}-{_start(pid) or 0}-{uuid.uuid4().hex[:8]}"


def is_abandoned(path: Path) -> bool:
    """Whether the run that made a temporary folder is over; what has another kind of name is not ours to judge."""
    found = NAME.fullmatch(path.name)
    if found is None:
        return False
    if found["machine"] == _machine():
        return _start(int(found["pid"])) != int(found["start"])
    try:
        return time.time() - path.stat().st_mtime > ABANDONED
    except FileNotFoundError:
        return False


def _machine() -> str:
    """The running kernel and the process numbers within it: containers can share a host name, but not these."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        boot, space = "unknown", uuid.getnode()
    return hashlib.sha256(f"{os.uname().nodename} {boot} {space}".encode()).hexdigest()[:12]


def _start(pid: int) -> int | None:
    """When a process was started, in ticks since boot, as a number can be given again; None if there is no such."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state_on = stat.rpartition(")")[2].split()
    return None if state_on[0] in {"Z", "X"} else int(state_on[19])
