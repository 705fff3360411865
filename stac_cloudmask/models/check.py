"""Check a model against its item by running it on a fixed chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from stac_cloudmask.core.predict import ROLES, Role
from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.models.spec import ModelSpec

GROUND_AND_CLOUD: Final = {
    "coastal": (0.03, 0.58),
    "blue": (0.04, 0.60),
    "green": (0.07, 0.60),
    "red": (0.05, 0.62),
    "rededge1": (0.11, 0.63),
    "rededge2": (0.25, 0.64),
    "rededge3": (0.30, 0.65),
    "nir": (0.32, 0.65),
    "nir08": (0.33, 0.65),
    "nir09": (0.33, 0.60),
    "swir16": (0.20, 0.45),
    "swir22": (0.10, 0.35),
}
"""Reflectance of green fields and of a thick cloud, by common name: typical values, not measured ones."""
SHADE: Final = 0.25
"""Fraction of the ground's reflectance that remains in a shadow."""
PLACES: Final = (0.3, 0.7)
"""Centers of cloud and shadow, as fractions of the width."""
PATTERN_SIDE: Final = 256
"""Maximum side in pixels of the pattern of cloud and shadow; larger ones would be uniformly white and black."""
SHORT_SIDE: Final = 64
"""Length in pixels of the shorter side with which a free window is tested."""


@dataclass(frozen=True)
class Finding:
    """A problem of a model.

    ``level`` is ``error`` if masks would be wrong or impossible, ``warning`` if that is only likely.
    """

    level: Literal["error", "warning"]
    text: str


def check_model(spec: ModelSpec, *, cache: Path | None = None) -> list[Finding]:
    """Return contradictions between an item, its file and the requirements of this package; empty if there are none.

    Args:
        spec: The item's contract.
        cache: Directory of downloaded weights; None for the user's cache.
    """
    return list(_findings(OnnxSegmenter(spec, cache=cache, local_means=False)))


def fixed_chip(bands: tuple[str, ...], height: int, width: int) -> NDArray[np.float32]:
    """Return reflectance ``(1, band, y, x)`` of fields with a cloud in the left half and its shadow in the right."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    texture = 1 + 0.15 * np.sin(x / 7) * np.cos(y / 5) + 0.05 * np.sin(x * y / 31)
    radius = min(height, width) / 5
    cloud, shadow = (expit((radius - np.hypot(x - width * at, y - height / 2)) / 2) for at in PLACES)
    ground = texture * (1 - (1 - SHADE) * shadow)
    spectra = [GROUND_AND_CLOUD[name] for name in bands]
    return np.stack([near * ground * (1 - cloud) + far * cloud for near, far in spectra])[None].astype(np.float32)


def _findings(model: OnnxSegmenter) -> Iterator[Finding]:
    spec = model.spec
    if spec.sha256 is None:
        yield Finding("warning", "its item has no file:checksum, so other weights would go unnoticed")
    size = min(spec.window.size, PATTERN_SIDE) if spec.window.multiple else spec.window.size
    try:
        answer = model.channels(fixed_chip(spec.bands, size, size))
        model.channels(np.zeros((1, len(spec.bands), size, size), np.float32))
    except ModelError as error:
        yield Finding("error", str(error))
        return
    yield from _activation(answer, spec)
    yield from _class_order(model, size)
    if multiple := spec.window.multiple:  # windows of another size are needed at the border of a scene
        height = -(-SHORT_SIDE // multiple) * multiple
        width = 2 * height + multiple
        try:
            model.predict(fixed_chip(spec.bands, height, width))
        except ModelError as error:
            yield Finding("error", f"windows of {height} x {width} do not work: {error}")


def _activation(answer: NDArray[np.float32], spec: ModelSpec) -> Iterator[Finding]:
    low, high = float(answer.min()), float(answer.max())
    probable = low >= 0 and high <= 1
    if spec.activation == "none" and not probable:
        yield Finding(
            "error",
            f"its output ranges from {low:.3g} to {high:.3g}, which are not probabilities; "
            f"name a post_processing_function in the item: scipy.special.softmax or scipy.special.expit",
        )
    if spec.activation == "softmax" and probable and np.allclose(answer.sum(axis=1), 1, atol=1e-3):
        yield Finding("warning", "its output adds up to 1 before the softmax: the graph seems to hold one already")
    if spec.activation == "sigmoid" and probable and high > low:
        yield Finding("warning", "its output lies in 0..1 before the sigmoid: the graph seems to hold one already")


def _class_order(model: OnnxSegmenter, size: int) -> Iterator[Finding]:
    """Yield a finding unless a cloud looks more like cloud than a shadow does, and the reverse."""
    answer = model.predict(fixed_chip(model.spec.bands, size, size))
    row, places = size // 2, dict(zip(ROLES, (int(size * at) for at in PLACES), strict=True))
    for role, p in answer.items():
        other: Role = "shadow" if role == "cloud" else "cloud"
        own, foreign = float(p[0, row, places[role]]), float(p[0, row, places[other]])
        if own <= foreign:
            yield Finding(
                "warning",
                f"{role}: probability {own:.2f} in a {role}, {foreign:.2f} in a {other}; "
                f"the order of the classes or the scaling of the values may differ from the item",
            )
