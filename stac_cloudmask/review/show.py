"""Masks in notebooks: pictures, plots, HTML."""

from __future__ import annotations

import io
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.votes import Vote
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.result import PICTURE_SIDE, Result, block_html, figure_html, legend_html, numbers_html
from stac_cloudmask.review.report.layers import UNKNOWN, Scene
from stac_cloudmask.stac.search import load_items
from stac_cloudmask.stac.static import Failure
from stac_cloudmask.stac.warp import Views

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]


class ShownFigure(Figure):
    """A figure without pyplot: no window is opened, and none is kept open; a notebook shows it as an image."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


Mask = pystac.Item | str | PathLike[str] | Result | xr.Dataset
"""An output item, its URL or path, what ``process`` returned for it, or what ``cloud_mask`` returned."""

MASK: Final = "cloud_mask"
OPACITY: Final = 0.55
"""Of cloud and shadow over a picture."""
BARE: Final = 120
"""Gray below a mask that has no picture."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What there is to be seen of a mask, at some thousand pixels a side at most.

    Attributes:
        title: Id of the item.
        rgb: ``(y, x, 3)`` uint8; None where there is no picture.
        product: ``(y, x)`` codes of the product's own mask; None where it has none or did not say.
        improved: ``(y, x)`` codes of the mask.
        notes: What could not be read, and why.
    """

    title: str
    rgb: U8 | None
    product: U8 | None
    improved: U8
    notes: tuple[str, ...] = ()

    @property
    def pictures(self) -> dict[str, U8]:
        """What can be shown, by its title: ``(y, x, 4)`` uint8, transparent where nodata."""
        valid = np.where(self.improved == CloudClass.NODATA, CloudClass.NODATA, CloudClass.CLEAR).astype(np.uint8)
        shown = {} if self.rgb is None else {"Scene": self._painted(valid)}
        if self.product is not None:
            shown["Product's mask"] = self._painted(self.product)
        return shown | {"Improved mask": self._painted(self.improved)}

    def _painted(self, codes: U8) -> U8:
        below = np.full((*codes.shape, 3), BARE, np.float32) if self.rgb is None else _resampled(self.rgb, codes.shape)
        for info in CLASSES:
            if info.overlay is not None:
                here = codes == info.code
                below[here] = (1 - OPACITY) * below[here] + OPACITY * np.array(info.overlay, np.float32)
        alpha = np.where(codes == CloudClass.NODATA, 0, 255)[..., None]
        return np.concatenate((below, alpha), axis=-1).round().astype(np.uint8)

    @property
    def covers(self) -> dict[str, dict[str, float]]:
        """Percent of the valid pixels by class name, as seen here, for the masks among ``pictures``."""
        product = {} if self.product is None else {"Product's mask": _cover(self.product)}
        return product | {"Improved mask": _cover(self.improved)}


def look_at(mask: Mask, *, side: int) -> Look:
    """The pictures of a mask, their longest side at most ``side`` pixels.

    Raises:
        ConfigError: It is no mask.
        ReadError: It cannot be read.
    """
    return _of_dataset(mask, side) if isinstance(mask, xr.Dataset) else _of_item(mask_item_of(mask), side)


def mask_item_of(mask: pystac.Item | str | PathLike[str] | Result) -> pystac.Item:
    """The output item that is meant.

    Raises:
        ConfigError: There is none, or it is the item of a scene rather than of a mask.
    """
    if isinstance(mask, Result):
        if mask.output is None:
            raise ConfigError(f"item {mask.item_id!r} has no mask: {mask.error or mask.status}")
        mask = mask.output
    if not isinstance(mask, pystac.Item):
        found = next(load_items([fspath(mask)]))
        if isinstance(found, Failure):
            raise found.error
        mask = found
    if MASK not in mask.assets:
        raise ConfigError(f"item {mask.id!r} has no asset {MASK!r}: it is no mask; give what process has written")
    return mask


def _of_item(item: pystac.Item, side: int) -> Look:
    body = item.to_dict(include_self_link=True, transform_hrefs=False)
    scene = Scene.of(body, Views(), side=side)
    codes = scene.codes()
    product = _wide(codes >> 2 & np.uint8(UNKNOWN))
    return Look(
        title=item.id,
        rgb=scene.picture(),
        product=None if (product == CloudClass.NODATA).all() else product,
        improved=_wide(codes & np.uint8(UNKNOWN)),
        notes=tuple(scene.notes),
    )


def _of_dataset(dataset: xr.Dataset, side: int) -> Look:
    if MASK not in dataset:
        raise ConfigError(f"the dataset has no variable {MASK!r}: give what cloud_mask has returned")
    step = max(1, -(-max(dataset[MASK].shape) // side))
    improved = dataset[MASK].values[::step, ::step]
    product = None
    if "product_mask" in dataset.attrs and "mask_votes" in dataset:
        votes = dataset["mask_votes"].values[::step, ::step]
        named = np.select([votes & Vote.PRODUCT_CLOUD > 0, votes & Vote.PRODUCT_SHADOW > 0], [1, 2], 0)
        product = np.where(improved == CloudClass.NODATA, CloudClass.NODATA, named).astype(np.uint8)
    return Look(title=str(dataset.attrs.get("item_id", "")), rgb=_rgb(dataset), product=product, improved=improved)


def _rgb(dataset: xr.Dataset) -> U8 | None:
    """The quicklook of what is left of a dataset, which may be a part of a scene."""
    if "quicklook" not in dataset:
        return None
    inside = {}
    for axis in ("y", "x"):
        at, of = dataset[f"quicklook_{axis}"].values, dataset[axis].values
        inside[f"quicklook_{axis}"] = (at >= of.min()) & (at <= of.max())
    part: U8 = dataset["quicklook"].isel({name: np.flatnonzero(here) for name, here in inside.items()}).values
    return part if part.size else None


def _resampled(rgb: U8, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The nearest pixels of a picture of the same extent."""
    rows, cols = (
        ((np.arange(side) + 0.5) / side * old).astype(int) for side, old in zip(shape, rgb.shape, strict=False)
    )
    return rgb[np.ix_(rows, cols)].astype(np.float32)


def _wide(codes: NDArray[np.integer]) -> U8:
    """Codes of two bits as those of the class table."""
    wide: U8 = np.where(codes == UNKNOWN, CloudClass.NODATA, codes).astype(np.uint8)
    return wide


def _cover(codes: U8) -> dict[str, float]:
    counts = np.bincount(codes.ravel(), minlength=CloudClass.NODATA + 1)
    valid = max(1, int(counts[: CloudClass.NODATA].sum()))
    return {info.name: 100 * float(counts[info.code]) / valid for info in CLASSES if info.code != CloudClass.NODATA}


SIDE: Final = 1200
"""Longest side of a picture, in pixels."""
MARGIN: Final = 1.3
"""Height of titles and legend, in inches."""


def plot(mask: Mask, *, width: float = 12.0) -> Figure:
    """Draw a scene, the product's own mask and the improved mask side by side, with a legend.

    Args:
        mask: An output item, its URL or path, what ``process`` returned for it, or what ``cloud_mask`` returned.
        width: Of the figure, in inches.

    Returns:
        A figure that a notebook shows and that ``savefig`` writes; what the item lacks is left out of it.

    Raises:
        ConfigError: It is no mask, or matplotlib is not installed.
        ReadError: It cannot be read.
    """
    try:
        from matplotlib.patches import Patch  # noqa: PLC0415  (an extra)

    except ImportError as error:
        raise ConfigError("plot needs matplotlib: pip install 'stac-cloudmask[plot]'") from error
    look = look_at(mask, side=SIDE)
    pictures, covers = look.pictures, look.covers
    aspect = look.improved.shape[0] / look.improved.shape[1]
    figure = ShownFigure(figsize=(width, width / len(pictures) * aspect + MARGIN), layout="constrained")
    for axes, (title, picture) in zip(
        figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items(), strict=True
    ):
        axes.imshow(picture, extent=(0, 1, 0, aspect))
        said = covers.get(title)
        numbers = f"cloud {said['cloud']:.1f} %, shadow {said['cloud_shadow']:.1f} %" if said else ""
        axes.set_title(f"{title}\n{numbers}", fontsize="medium")
        axes.set_axis_off()
    figure.suptitle(look.title, fontsize="medium", family="monospace")
    painted = {info.title: info.overlay for info in CLASSES if info.overlay is not None}
    patches = [Patch(color=f"#{bytes(color).hex()}", label=title) for title, color in painted.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False)
    return figure


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
