"""What FarmVibes.AI's own operators gave on the parity rasters, and how near another processor can come to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from scipy import ndimage

CASES = ("default", "pixelwise_inmem", "closing3_minarea200", "overlap_half_256", "ensemble")
PROCESSORS = 2e-5
"""Most by which a probability differs between processors: kernels of onnxruntime add in another order where a CPU has
no AVX-512. Measured: 1.2e-7 with it, 6.8e-6 without."""


def read(path: Path) -> NDArray[Any]:
    """The first band."""
    with rasterio.open(path) as source:
        pixels: NDArray[Any] = source.read(1)
    return pixels


def options_of(parity: Path, case: str) -> dict[str, Any]:
    """What the workflow was asked for."""
    options: dict[str, Any] = json.loads((parity / case / "case.json").read_text())
    return options


def settled(parity: Path, case: str) -> NDArray[np.bool_]:
    """True where the mask must be the same on every processor: no probability so near its threshold is in reach."""
    options = options_of(parity, case)
    files = {"cloud_prob.tif": options["cloud_thr"], "shadow_prob.tif": options["shadow_thr"]}
    near = [np.abs(read(parity / case / file) - threshold) <= PROCESSORS for file, threshold in files.items()]
    reach = options["closing_size"] + int(np.sqrt(options["min_area"]))
    far: NDArray[np.bool_] = ndimage.distance_transform_edt(~np.logical_or(*near)) > reach
    return far
