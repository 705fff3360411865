"""Masks drawn with matplotlib, which the extra ``plot`` brings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.look import Mask, look_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

        from stac_cloudmask.figure import ShownFigure  # noqa: PLC0415
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
