"""Measurements in processes of their own, so that none pays for what another has loaded."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pystac

Figures = dict[str, Any]


def apart(module: str, *arguments: str) -> Figures:
    """The JSON that ``python -m module --only ARGUMENTS`` prints as its last line."""
    command = [sys.executable, "-m", module, "--only", *arguments]
    found: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return found


def peak_megabytes() -> float:
    """The most memory that this process ever had.

    Of its own where the system says it: ``ru_maxrss`` begins with what the parent had when it started this process.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit if own is None else own / 2**10


def source_item(path: str) -> pystac.Item:
    """An item whose assets can be read from anywhere."""
    import pystac  # noqa: PLC0415  (not every process needs it)

    item = pystac.Item.from_file(path)
    item.make_asset_hrefs_absolute()
    return item
