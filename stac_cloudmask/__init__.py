"""Cloud and cloud-shadow masks for Sentinel-2 L2A, from STAC item to published STAC item."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stac_cloudmask.api import cloud_mask as cloud_mask, process as process
    from stac_cloudmask.config import Settings as Settings
    from stac_cloudmask.errors import (
        StacCloudmaskError as StacCloudmaskError,
        StacCloudmaskWarning as StacCloudmaskWarning,
    )
    from stac_cloudmask.farmvibes import ImprovedMask as ImprovedMask, improve_cloud_mask as improve_cloud_mask
    from stac_cloudmask.pipeline.publish import publish as publish
    from stac_cloudmask.pipeline.result import Result as Result
    from stac_cloudmask.review.cubes import (
        ArrayMask as ArrayMask,
        apply_mask as apply_mask,
        mask_array as mask_array,
        mask_cube as mask_cube,
    )
    from stac_cloudmask.review.evaluate import evaluate as evaluate
    from stac_cloudmask.review.explain import explain as explain
    from stac_cloudmask.review.show import (
        clear_share as clear_share,
        plot as plot,
        plot_clear_share as plot_clear_share,
    )
    from stac_cloudmask.stac.search import search as search

    __version__: str

_MODULES: Final = {
    "api": ("cloud_mask", "process"),
    "config": ("Settings",),
    "errors": ("StacCloudmaskError", "StacCloudmaskWarning"),
    "farmvibes": ("ImprovedMask", "improve_cloud_mask"),
    "pipeline.publish": ("publish",),
    "pipeline.result": ("Result",),
    "review.cubes": ("ArrayMask", "apply_mask", "mask_array", "mask_cube"),
    "review.evaluate": ("evaluate",),
    "review.explain": ("explain",),
    "review.show": ("clear_share", "plot", "plot_clear_share"),
    "stac.search": ("search",),
}
_HOMES: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605  (sorted returns a list)


def __getattr__(name: str) -> object:
    """Import a name on first access: the raster libraries take seconds to load."""
    if name == "__version__":
        return import_module("stac_cloudmask.pipeline.result").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
