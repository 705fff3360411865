"""Masks in notebooks: pictures, plots, HTML."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from PIL import Image

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.result import NOTEBOOK_SIDE, cover_text, notebook_html
from stac_cloudmask.review.layers import (
    MASK,
    MASK_VOTES,
    MaskItem,
    MaskLayers,
    classes_of_votes,
    coarse,
    mask_item_of,
    painted,
)  # fmt: skip
from stac_cloudmask.stac.mask_item import class_counts, cover_of
from stac_cloudmask.stac.warp import Views

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]

BARE: Final = (120, 120, 120)
"""Gray background of a mask without a picture."""
SCL, IMPROVED = "SCL mask", "Improved mask"
"""Titles of pictures."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """The pictures of a mask, with sides of at most some thousand pixels.

    Attributes:
        title: Id of the item.
        rgb: ``(y, x, 3)`` uint8; None where there is no picture.
        product: ``(y, x)`` codes of `CloudClass` that SCL stands for; None where it was not used.
        improved: ``(y, x)`` codes of the mask.
    """

    title: str
    rgb: U8 | None
    product: U8 | None
    improved: U8

    @property
    def masks(self) -> dict[str, U8]:
        """The masks by title, ``(y, x)`` codes of `CloudClass`."""
        return ({} if self.product is None else {SCL: self.product}) | {IMPROVED: self.improved}

    @property
    def pictures(self) -> dict[str, U8]:
        """Pictures by title: ``(y, x, 4)`` uint8, transparent where nodata."""
        valid = np.where(self.improved == CloudClass.NODATA, CloudClass.NODATA, CloudClass.CLEAR).astype(np.uint8)
        shown = ({} if self.rgb is None else {"Scene": valid}) | self.masks
        return {title: self._over_scene(codes) for title, codes in shown.items()}

    def _over_scene(self, codes: U8) -> U8:
        alpha = np.where(codes == CloudClass.NODATA, 0, 255)[..., None]
        seen = np.concatenate((painted(codes, self.rgb, bare=BARE), alpha), axis=-1)
        return seen.round().astype(np.uint8)

    @property
    def covers(self) -> dict[str, dict[str, float]]:
        """Percent of the valid pixels by class name, and nodata of all pixels, at this resolution, by title."""
        return {title: cover_of(class_counts(codes)) for title, codes in self.masks.items()}


def preview(mask: MaskItem | xr.Dataset, *, side: int) -> Preview:
    """Return the pictures of a mask, their longest side at most ``side`` pixels.

    Raises:
        ConfigError: The item or dataset is not a mask.
        ReadError: It cannot be read.
    """
    if isinstance(mask, xr.Dataset):
        return _of_dataset(mask, side)
    item = mask_item_of(mask)
    layers = MaskLayers.of(item.to_dict(include_self_link=True, transform_hrefs=False), Views())
    grid = coarse(layers.grid, side)
    scl = layers.scl(grid)
    product = layers.product_classes(scl, layers.votes(grid) if scl is None else None)
    return Preview(title=item.id, rgb=layers.picture(grid), product=product, improved=layers.classes(grid))


def _of_dataset(dataset: xr.Dataset, side: int) -> Preview:
    if MASK not in dataset:
        raise ConfigError(f"the dataset has no variable {MASK!r}: give the result of cloud_mask")
    step = max(1, -(-max(dataset[MASK].shape) // side))
    improved = dataset[MASK].values[::step, ::step]
    product = None
    if "product_mask" in dataset.attrs and MASK_VOTES in dataset:
        product = classes_of_votes(dataset[MASK_VOTES].values[::step, ::step])
        product[improved == CloudClass.NODATA] = CloudClass.NODATA
    return Preview(title=str(dataset.attrs.get("item_id", "")), rgb=_rgb(dataset), product=product, improved=improved)


def _rgb(dataset: xr.Dataset) -> U8 | None:
    """Return the quicklook of a dataset, which may be a part of a scene."""
    if "quicklook" not in dataset:
        return None
    inside = {}
    for axis in ("y", "x"):
        at, of = dataset[f"quicklook_{axis}"].values, dataset[axis].values
        inside[f"quicklook_{axis}"] = (at >= of.min()) & (at <= of.max())
    part: U8 = dataset["quicklook"].isel({name: np.flatnonzero(here) for name, here in inside.items()}).values
    return part if part.size else None


SIDE: Final = 1200
"""Longest side of a picture, in pixels."""
MARGIN: Final = 1.3
"""Height of titles and legend, in inches."""


def plot(mask: MaskItem | xr.Dataset, *, width: float = 12.0) -> Figure:
    """Draw a scene, the mask of its SCL and the improved mask side by side, with a legend.

    Args:
        mask: An output item, its URL or path, what ``process`` returned for it, or what ``cloud_mask`` returned.
        width: Width of the figure, in inches.

    Returns:
        A pyplot figure: a notebook shows it, ``savefig`` writes it. Missing layers are left out.

    Raises:
        ConfigError: The item or dataset is not a mask, or matplotlib is not installed.
        ReadError: It cannot be read.
    """
    seen = preview(mask, side=SIDE)
    pictures, covers = seen.pictures, seen.covers
    aspect = seen.improved.shape[0] / seen.improved.shape[1]
    figure = new_figure(width, width / len(pictures) * aspect + MARGIN)
    row = figure.subplots(1, len(pictures), squeeze=False)[0]
    for axes, (title, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture, extent=(0, 1, 0, aspect))
        cover = covers.get(title)
        numbers = f"cloud {cover['cloud']:.1f} %, shadow {cover['cloud_shadow']:.1f} %" if cover else ""
        axes.set_title(f"{title}\n{numbers}", fontsize="medium")
        axes.set_axis_off()
    figure.suptitle(seen.title, fontsize="medium", family="monospace")
    add_legend(figure, {info.title: info.rgb for info in CLASSES if info.painted})
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'stac-cloudmask[plot]'") from error
    figure = plt.figure(figsize=(width, height), layout="constrained")
    plt.close(figure)  # pyplot would keep it in memory, and a notebook would show it twice
    return figure


def add_legend(figure: Figure, colors: Mapping[str, tuple[int, int, int]]) -> None:
    """Add a legend of titles and their colors below a figure."""
    from matplotlib.patches import Patch  # noqa: PLC0415  (an extra)

    patches = [Patch(color=f"#{bytes(color).hex()}", label=title) for title, color in colors.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)


@xr.register_dataset_accessor("cloudmask")  # type: ignore[no-untyped-call]  # xarray has no types for it
class CloudmaskAccessor:
    """The accessor ``dataset.cloudmask``, which shows the result of ``cloud_mask`` as pictures."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def plot(self, *, width: float = 12.0) -> Figure:
        """Draw scene, SCL and improved mask, see ``stac_cloudmask.plot``."""
        return plot(self._dataset, width=width)

    def _repr_html_(self) -> str:
        seen = preview(self._dataset, side=NOTEBOOK_SIDE)
        covers = seen.covers
        pictures = {
            f"{title} {cover_text(covers.get(title, {}))}": _png(picture) for title, picture in seen.pictures.items()
        }
        return notebook_html(seen.title, pictures)


def _png(picture: U8) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
