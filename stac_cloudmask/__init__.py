"""Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stac_cloudmask.api import cloud_mask, process
    from stac_cloudmask.config import Settings
    from stac_cloudmask.errors import StacCloudmaskError, StacCloudmaskWarning
    from stac_cloudmask.farmvibes import ImprovedMask, improve_cloud_mask
    from stac_cloudmask.pipeline.publish import publish
    from stac_cloudmask.pipeline.result import VERSION as __version__  # noqa: N811
    from stac_cloudmask.pipeline.result import Result
    from stac_cloudmask.review.arrays import ArrayMask, mask_array, mask_cube
    from stac_cloudmask.review.cubes import apply_mask
    from stac_cloudmask.review.evaluate import evaluate
    from stac_cloudmask.review.explain import explain
    from stac_cloudmask.review.series import clear_share, plot_clear_share
    from stac_cloudmask.review.show import plot
    from stac_cloudmask.stac.search import search

__all__ = [
    "ArrayMask",
    "ImprovedMask",
    "Result",
    "Settings",
    "StacCloudmaskError",
    "StacCloudmaskWarning",
    "__version__",
    "apply_mask",
    "clear_share",
    "cloud_mask",
    "evaluate",
    "explain",
    "improve_cloud_mask",
    "mask_array",
    "mask_cube",
    "plot",
    "plot_clear_share",
    "process",
    "publish",
    "search",
]

_HOMES: Final = {
    "ArrayMask": "review.arrays",
    "ImprovedMask": "farmvibes",
    "Result": "pipeline.result",
    "Settings": "config",
    "StacCloudmaskError": "errors",
    "StacCloudmaskWarning": "errors",
    "apply_mask": "review.cubes",
    "clear_share": "review.series",
    "cloud_mask": "api",
    "evaluate": "review.evaluate",
    "explain": "review.explain",
    "improve_cloud_mask": "farmvibes",
    "mask_array": "review.arrays",
    "mask_cube": "review.arrays",
    "plot": "review.show",
    "plot_clear_share": "review.series",
    "process": "api",
    "publish": "pipeline.publish",
    "search": "stac.search",
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is asked for: the raster libraries take seconds."""
    if name == "__version__":
        return import_module("stac_cloudmask.pipeline.result").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
