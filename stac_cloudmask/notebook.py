"""What a notebook shows of datasets and results: small pictures with their numbers, as HTML."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import xarray as xr
from PIL import Image

from stac_cloudmask.look import look_at
from stac_cloudmask.plotting import plot
from stac_cloudmask.results import PICTURE_SIDE, block_html, figure_html, legend_html, numbers_html

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


@xr.register_dataset_accessor("cloudmask")  # type: ignore[no-untyped-call]  # xarray has no types for it
class CloudmaskAccessor:
    """``dataset.cloudmask``: what ``cloud_mask`` has returned, to be looked at."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def plot(self, *, width: float = 12.0) -> Figure:
        """Draw scene, product's mask and improved mask, see ``stac_cloudmask.plot``."""
        return plot(self._dataset, width=width)

    def _repr_html_(self) -> str:
        look = look_at(self._dataset, side=PICTURE_SIDE)
        covers = look.covers
        figures = [
            figure_html(_png(picture), f"{title} {numbers_html(covers.get(title, {}))}")
            for title, picture in look.pictures.items()
        ]
        return block_html(look.title, figures) + legend_html()


def _png(picture: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
