"""Measurements in processes of their own, so that none pays for what another has loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from stac_cloudmask.pipeline.estimate import peak_bytes

if TYPE_CHECKING:
    import pystac

Figures = dict[str, Any]


def apart(module: str, *arguments: str) -> Figures:
    """The JSON that ``python -m module --only ARGUMENTS`` prints as its last line."""
    command = [sys.executable, "-m", module, "--only", *arguments]
    found: Figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    return found


def peak_megabytes() -> float:
    """The most memory that this process ever had."""
    return peak_bytes() / 2**20


def source_item(path: str) -> pystac.Item:
    """An item whose assets can be read from anywhere."""
    import pystac  # noqa: PLC0415  (not every process needs it)

    item = pystac.Item.from_file(path)
    item.make_asset_hrefs_absolute()
    return item
