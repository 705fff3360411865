"""Versions that decide a result."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from types import MappingProxyType
from typing import Final

VERSION: Final = version("stac-cloudmask")


@cache
def software() -> Mapping[str, str]:
    """Versions by name of the packages that pixels and probabilities pass through."""
    names = ("numpy", "scipy", "onnxruntime", "rasterio", "stackstac", "odc-stac")
    return MappingProxyType({name: version(name) for name in names})
