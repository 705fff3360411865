"""Show masks: datasets, plots, pictures in notebooks, and how much of an area is clear over time."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
import pystac
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from PIL import Image
from rasterio import Affine
from rasterio.features import geometry_mask
from rasterio.warp import transform_geom
from shapely.geometry import mapping, shape

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.pixels import step_of
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.mask import Mask, models_of, named
from stac_cloudmask.pipeline.result import NOTEBOOK_SIDE, VERSION, cover_text, notebook_html
from stac_cloudmask.review.cubes import Masks, mask_items, time_of
from stac_cloudmask.review.layers import MASK, MASK_VOTES, U8, MaskItem, MaskLayers, mask_item_of, painted, vote_classes
from stac_cloudmask.stac.assets import VOTES
from stac_cloudmask.stac.geometry import LON_LAT, Area, Bbox, asked_box, read_area, touches
from stac_cloudmask.stac.hrefs import unsigned
from stac_cloudmask.stac.mask_item import class_counts, cover_of
from stac_cloudmask.stac.metadata import mask_grid
from stac_cloudmask.stac.warp import Views

if TYPE_CHECKING:
    import shapely
    from matplotlib.figure import Figure


def to_dataset(mask: Mask, item: pystac.Item, *, settings: Settings) -> xr.Dataset:
    """Return the arrays of a mask with coordinates, CRS and attributes by the CF conventions.

    Args:
        mask: The mask.
        item: The item that it was made from.
        settings: Settings with which it was made.

    Returns:
        Variables on ``(y, x)``, uint8 with ``_FillValue`` 255: ``cloud_mask`` (0 clear, 1 cloud, 2 cloud shadow),
        ``cloud_probability`` and ``shadow_probability`` (whole percents), and ``mask_votes`` (bits).
        ``y`` and ``x`` are the centers of pixels; ``time`` is a scalar coordinate, in UTC. If red, green and blue
        were read there is also ``quicklook``, ``(quicklook_y, quicklook_x, rgb)`` uint8: the scene in natural colors,
        sampled at these coordinates; ``dataset.cloudmask`` shows it in a notebook.
    """
    grid, decision = mask.grid, mask.decision
    classes = [(info.code, info.name) for info in CLASSES if info.code != CloudClass.NODATA]
    bits = [(1 << bit, name) for bit, (name, _) in enumerate(VOTES)]
    dataset = xr.Dataset(
        {
            MASK: _layer(decision.class_map, "cloud and cloud-shadow mask", _flags("flag_values", classes)),
            "cloud_probability": _layer(mask.evidence.cloud, "cloud probability", {"units": "%"}),
            "shadow_probability": _layer(mask.evidence.shadow, "cloud-shadow probability", {"units": "%"}),
            MASK_VOTES: _layer(decision.published_votes, "sources that flagged a pixel", _flags("flag_masks", bits)),
        },
        coords=xr_coords(GeoBox(grid.shape, Affine(*grid.transform), grid.code)),
        attrs=_origin(mask, item, settings),
    )
    if (time := item.datetime or item.common_metadata.start_datetime) is not None:
        utc = time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        dataset = dataset.assign_coords(time=np.datetime64(utc, "ns"))
    if mask.quicklook is None:
        return dataset
    axes = {f"quicklook_{axis}": dataset[axis].values[:: step_of(grid.shape)] for axis in ("y", "x")}
    return dataset.assign(quicklook=((*axes, "rgb"), mask.quicklook)).assign_coords(axes)


def _layer(array: U8, title: str, attrs: Mapping[str, object]) -> xr.Variable:
    shared = {"_FillValue": np.uint8(CloudClass.NODATA), "grid_mapping": "spatial_ref"}
    return xr.Variable(("y", "x"), array, {"long_name": title, **attrs, **shared})


def _flags(kind: str, meanings: Sequence[tuple[int, str]]) -> dict[str, object]:
    values = np.array([value for value, _ in meanings], np.uint8)
    return {kind: values, "flag_meanings": " ".join(name for _, name in meanings)}


def _origin(mask: Mask, item: pystac.Item, settings: Settings) -> dict[str, object]:
    """Return the attributes on the provenance of a mask."""
    attrs: dict[str, object] = {
        "Conventions": "CF-1.11",
        "title": f"Cloud and cloud-shadow mask of {item.id}",
        "item_id": item.id,
        "source": unsigned(item.get_self_href() or ""),
        "models": named(models_of(settings)),
        "policy": settings.merge,
        "version": VERSION,
        "notes": "; ".join(mask.notes),
        "product_mask": mask.sources.scl and mask.sources.scl.asset_key,
    }
    return {name: value for name, value in attrs.items() if value}


PREVIEW_BACKGROUND: Final = (120, 120, 120)
"""Background of a mask without a picture: red, green, blue."""


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
        return ({} if self.product is None else {"SCL mask": self.product}) | {"Improved mask": self.improved}

    @property
    def pictures(self) -> dict[str, U8]:
        """Pictures by title: ``(y, x, 4)`` uint8, transparent where nodata."""
        bare = np.where(self.improved == CloudClass.NODATA, self.improved, np.uint8(CloudClass.CLEAR))
        shown = ({} if self.rgb is None else {"Scene": bare}) | self.masks
        drawn = {}
        for title, codes in shown.items():
            opacity = 255 * (codes != CloudClass.NODATA)
            drawn[title] = np.dstack((painted(codes, self.rgb, bare=PREVIEW_BACKGROUND), opacity)).astype(np.uint8)
        return drawn

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
    grid = layers.coarse(side)
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
        product = vote_classes(dataset[MASK_VOTES].values[::step, ::step])
        product[improved == CloudClass.NODATA] = CloudClass.NODATA
    return Preview(title=str(dataset.attrs.get("item_id", "")), rgb=_rgb(dataset), product=product, improved=improved)


def _rgb(dataset: xr.Dataset) -> U8 | None:
    """Return the quicklook of a dataset, which may be a part of a scene."""
    if "quicklook" not in dataset:
        return None
    y, x = dataset["y"].values, dataset["x"].values
    here = {"quicklook_y": slice(y.max(), y.min()), "quicklook_x": slice(x.min(), x.max())}
    part: U8 = dataset["quicklook"].sel(here).values
    return part if part.size else None


PLOT_SIDE: Final = 1200
"""Longest side of a picture, in pixels."""
TITLES: Final = 1.3
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
    seen = preview(mask, side=PLOT_SIDE)
    pictures, covers = seen.pictures, seen.covers
    aspect = seen.improved.shape[0] / seen.improved.shape[1]
    figure = new_figure(width, width / len(pictures) * aspect + TITLES)
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
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


PASS: Final = np.timedelta64(30, "m")
"""Maximum time difference of items from one pass of a satellite."""
FULL: Final = 99.5
"""Percent of valid pixels that counts as complete."""
UPRIGHT: Final = 12
"""Maximum number of dates that fit horizontally below a chart; more are rotated."""


def clear_share(masks: Masks, *, bbox: Bbox | None = None, geometry: Area | None = None) -> pd.DataFrame:
    """Return the shares of clear, cloud and cloud shadow in an area on every date.

    Masks of one pass, such as neighboring tiles, are merged. The table counts whole pixels of the first mask's
    grid: for a geometry those whose middle lies in it, or, where there is none, those that it touches.

    Args:
        masks: Output items, their URLs or paths, what ``process`` returned, or the folder that it wrote.
        bbox: The area as west, south, east, north in degrees.
        geometry: The area as GeoJSON, well-known text, the path of a vector file, or a geometry of shapely.

    Returns:
        A row for each pass that touches the area, by ``time`` in UTC: ``clear``, ``cloud`` and ``cloud_shadow`` in
        percent of the area's valid pixels (NaN where none is valid), ``valid`` in percent of the area's pixels, and
        ``items``, the ids of the masks.

    Raises:
        ConfigError: There is no area, or no mask touches it.
        ReadError: A mask cannot be read.
    """
    if (bbox is None) == (geometry is None):
        raise ConfigError("give the area, by either bbox or geometry")
    area = asked_box(bbox) if bbox is not None else read_area(geometry)
    items = [item for item in mask_items(masks) if touches(item, area)]
    if not items:
        raise ConfigError(f"no mask touches the area, whose bbox is {tuple(round(edge, 5) for edge in area.bounds)}")
    grid, inside = _pixels(area, mask_grid(items[0].to_dict(transform_hrefs=False), MASK))
    rows = [_row(members, grid, inside) for members in _passes(items)]
    return pd.DataFrame(rows).set_index("time")


def _pixels(area: shapely.Geometry, grid: Grid) -> tuple[Grid, NDArray[np.bool_]]:
    """Return the part of a grid, extended if necessary, that encloses an area; True for pixels inside."""
    placed = shape(transform_geom(LON_LAT, grid.code, mapping(area)))
    west, south, east, north = placed.bounds
    left, top = math.floor((west - grid.left) / grid.gsd), math.floor((grid.top - north) / grid.gsd)
    right, bottom = math.ceil((east - grid.left) / grid.gsd), math.ceil((grid.top - south) / grid.gsd)
    part = grid.cut(Window(top, left, max(1, bottom - top), max(1, right - left)))
    inside = partial(geometry_mask, [placed], part.shape, Affine(*part.transform), invert=True)
    centers = inside()
    return part, centers if centers.any() else inside(all_touched=True)


def _passes(items: list[pystac.Item]) -> list[list[pystac.Item]]:
    """Return items, which are sorted by time, in groups of one pass each."""
    groups: list[list[pystac.Item]] = []
    for item in items:
        if not groups or time_of(item) - time_of(groups[-1][0]) > PASS:
            groups.append([])
        groups[-1].append(item)
    return groups


def _row(items: list[pystac.Item], grid: Grid, inside: NDArray[np.bool_]) -> dict[str, object]:
    codes = np.full(grid.shape, CloudClass.NODATA, np.uint8)
    for item in items:
        layers = MaskLayers.of(item.to_dict(include_self_link=True, transform_hrefs=False), Views())
        np.copyto(codes, layers.classes(grid), where=codes == CloudClass.NODATA)
    here = codes[inside]
    counts = np.bincount(here, minlength=CloudClass.NODATA)[: CloudClass.NODATA]
    valid = int(counts.sum())
    found = {info.name: 100 * counts[info.code] / valid if valid else math.nan for info in CLASSES[:-1]}
    share, names = 100 * valid / here.size, ", ".join(item.id for item in items)
    return {"time": time_of(items[0]), **found, "valid": share, "items": names}


def plot_clear_share(table: pd.DataFrame, *, width: float = 12.0, height: float = 3.5) -> Figure:
    """Draw the table of ``clear_share``: a bar for each date, clear at the bottom and cloud on top.

    Args:
        table: The table.
        width: Width of the figure, in inches.
        height: Height of the figure, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = new_figure(width, height)
    axes = figure.subplots()
    places, bottom = np.arange(len(table)), np.zeros(len(table))
    shown = [CLASSES[code] for code in (CloudClass.CLEAR, CloudClass.CLOUD_SHADOW, CloudClass.CLOUD)]
    for info in shown:
        part = np.nan_to_num(table[info.name].to_numpy())
        axes.bar(places, part, bottom=bottom, color=f"#{info.color_hint}", width=0.8)
        bottom += part
    notes = ["" if valid > FULL else f"\n{valid:.0f} % valid" for valid in table["valid"]]
    dates = [f"{time:%Y-%m-%d}{note}" for time, note in zip(table.index, notes, strict=True)]
    axes.set_xticks(places, dates, rotation=0 if len(table) <= UPRIGHT else 90)
    axes.set_ylim(0, 100)
    axes.set_ylabel("% of the valid pixels")
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, {info.title: info.rgb for info in shown})
    return figure
