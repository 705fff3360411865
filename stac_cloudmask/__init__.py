"""Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stac_cloudmask.api import cloud_mask, process
    from stac_cloudmask.config import Settings
    from stac_cloudmask.cubes import apply_mask
    from stac_cloudmask.errors import StacCloudmaskError, StacCloudmaskWarning
    from stac_cloudmask.plotting import plot
    from stac_cloudmask.results import Result
    from stac_cloudmask.seed import ImprovedMask, improve_cloud_mask
    from stac_cloudmask.stac.search import search
    from stac_cloudmask.versions import VERSION as __version__  # noqa: N811

__all__ = [
    "ImprovedMask",
    "Result",
    "Settings",
    "StacCloudmaskError",
    "StacCloudmaskWarning",
    "__version__",
    "apply_mask",
    "cloud_mask",
    "improve_cloud_mask",
    "plot",
    "process",
    "search",
]

_HOMES: Final = {
    "ImprovedMask": "seed",
    "Result": "results",
    "Settings": "config",
    "StacCloudmaskError": "errors",
    "StacCloudmaskWarning": "errors",
    "apply_mask": "cubes",
    "cloud_mask": "api",
    "improve_cloud_mask": "seed",
    "plot": "plotting",
    "process": "api",
    "search": "stac.search",
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: the raster libraries take seconds."""
    if name == "__version__":
        return import_module("stac_cloudmask.versions").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
