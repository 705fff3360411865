"""Apply published masks to cubes of odc-stac and stackstac; find the location and time of their pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import odc.stac
import pystac
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.retry import DEFAULT_POLICY
from stac_cloudmask.review.layers import MASK, MaskItem, mask_item_of
from stac_cloudmask.stac.catalog import existing_catalog
from stac_cloudmask.stac.gdal import gdal_env
from stac_cloudmask.stac.geometry import touches
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.mask_item import SUFFIX
from stac_cloudmask.stac.metadata import times_of
from stac_cloudmask.stac.providers import sign

Times = NDArray[np.datetime64]
Cube = TypeVar("Cube", xr.DataArray, xr.Dataset)
Masks = MaskItem | Iterable[MaskItem]
"""Output items, their URLs or paths, results of ``process``, or the folder that it wrote."""

SAME: Final = np.timedelta64(1, "s")
"""Maximum difference of equal times; loaders and catalogs round them differently."""
SECONDS_PER_DEGREE: Final = 240
"""Solar time per degree of longitude: a day for 360 degrees."""
SLACK: Final = 0.01
"""Tolerance in pixels for rounded coordinates."""


def apply_mask(
    cube: Cube, masks: Masks, *, keep: Sequence[str] = (CLASSES[0].name,), fill: float | None = None
) -> Cube:
    """Return a cube without the pixels that masks hide. A lazy cube stays lazy.

    Each time step gets the masks of its items: by the ids that stackstac keeps, otherwise by time, otherwise by solar
    day, by which odc-stac can group. Masks are resampled to the grid of the cube by nearest neighbor; pixels without a
    mask, or where it has no data, are hidden.

    Args:
        cube: A cube as stackstac or odc-stac loaded it, or a part of one.
        masks: The masks of every time step; those of other dates are ignored.
        keep: Names of the classes that are kept.
        fill: What hidden pixels get; NaN by default, or the nodata value that an integer variable states.

    Raises:
        ConfigError: A time step has no mask, masks do not overlap the cube, the cube is not georeferenced or has no
            nodata value, or a class is unknown.
        rasterio.errors.RasterioError: A mask cannot be read; for a lazy cube, when it is computed.
    """
    known = {info.name: int(info.code) for info in CLASSES if info.code != CloudClass.NODATA}
    if unknown := [name for name in keep if name not in known]:
        raise ConfigError(f"keep has {unknown[0]!r}; the classes are {', '.join(known)}")
    items, box = mask_items(masks), geobox(cube)
    if not any(touches(item, box.geographic_extent.geom) for item in items):
        where = f"the first is {items[0].id!r}, at {items[0].bbox}" if items else "none is given"
        raise ConfigError(f"no mask overlaps the cube: {where}")
    steps = items_by_step(cube, items, box, what="mask; process their items, or leave them out of the cube")
    kept = _published(cube, steps, box).isin([known[name] for name in keep])
    if isinstance(cube, xr.Dataset):
        spatial = {name for name, variable in cube.data_vars.items() if set(spatial_axes(cube)) <= set(variable.dims)}
        return cube.assign({name: _hidden(cube[name], kept, fill) for name in spatial})
    return _hidden(cube, kept, fill)


def mask_items(masks: Masks) -> list[pystac.Item]:
    """Return the output items that are referenced, sorted by time.

    Raises:
        ConfigError: An item is not a mask, or a folder lists none.
    """
    items: list[pystac.Item] = []
    for mask in [masks] if isinstance(masks, pystac.Item | str | PathLike | Result) else masks:
        if isinstance(mask, str | PathLike) and Path(mask).is_dir():
            listed = [pystac.Item.from_dict(body) for body in existing_catalog(str(mask)).items()]
            if not listed:
                raise ConfigError(f"{mask}: this folder lists no masks; give the one that process wrote")
            items += listed
        else:
            items.append(mask_item_of(mask))
    return sorted(items, key=time_of)


def _hidden(variable: xr.DataArray, kept: xr.DataArray, fill: float | None) -> xr.DataArray:
    if fill is None and variable.dtype.kind not in "fc":
        fill = variable.odc.nodata
        if fill is None:
            raise ConfigError(
                f"variable {variable.name!r} is {variable.dtype} and states no nodata value; give fill=, or load floats"
            )
    other = variable.dtype.type(np.nan if fill is None else fill)
    hidden: xr.DataArray = variable.where(kept, other).transpose(*variable.dims).assign_attrs(variable.attrs)
    return hidden


def _published(cube: xr.DataArray | xr.Dataset, steps: list[list[pystac.Item]], box: GeoBox) -> xr.DataArray:
    """Return class codes of masks on the grid of a cube, with its coordinates; the first mask with data counts."""
    axes = spatial_axes(cube)
    chunks = [cube.chunksizes[axis] for axis in axes if axis in cube.chunksizes]
    lazy: dict[str, Any] | None = {"y": chunks[0][0], "x": chunks[1][0]} if chunks else None
    layers = []
    for step in steps:
        items = [_mask_only(item) for item in step]
        with rasterio.Env(**gdal_env(items[0].assets[MASK].href, retry=DEFAULT_POLICY, fresh=False)):
            layer = odc.stac.load(
                items, bands=[MASK], geobox=box, chunks=lazy, groupby=lambda *_: 0, resampling="nearest",
                dtype="uint8", nodata=int(CloudClass.NODATA), patch_url=sign, fail_on_error=True,
            )[MASK].data[0]  # fmt: skip
        layers.append(layer if lazy is None else layer.rechunk(tuple(chunks)))
    dims, data = (("time", *axes), np.stack(layers)) if "time" in cube.dims else (axes, layers[0])
    return xr.DataArray(data, dims=dims, coords={dim: cube[dim] for dim in dims})


def _mask_only(item: pystac.Item) -> pystac.Item:
    """Return the item with only the mask, its href checked; odc-stac cannot fail on other assets then."""
    only, mask = item.clone(), item.assets[MASK].clone()
    only.stac_extensions = [name for name in item.stac_extensions if "/projection/" in name]
    mask.href, mask.roles = check_href(mask.href, base=item.get_self_href()), ["data"]
    only.assets = {MASK: mask}
    return only


def spatial_axes(cube: xr.DataArray | xr.Dataset) -> tuple[str, str]:
    """Return the names of the vertical and the horizontal dimension.

    Raises:
        ConfigError: The cube has none.
    """
    found = cube.odc.spatial_dims
    if found is None:
        raise ConfigError(f"the cube has no dimensions y and x, only {', '.join(map(str, cube.dims))}")
    return str(found[0]), str(found[1])


def geobox(cube: xr.DataArray | xr.Dataset) -> GeoBox:
    """Return the grid of a cube: by stackstac's transform, otherwise by the coordinates of pixel centers.

    Raises:
        ConfigError: The cube is not georeferenced.
    """
    axes, transform, crs = spatial_axes(cube), cube.attrs.get("transform"), cube.odc.crs
    if isinstance(transform, Affine) and crs is not None:
        return _stackstac_box(cube[axes[0]].values, cube[axes[1]].values, transform, str(crs))
    if crs is None or "spatial_ref" not in cube.coords or cube.odc.geobox is None:
        raise ConfigError(
            "the cube is not georeferenced: it has neither the attribute 'transform' of stackstac nor a "
            "coordinate 'spatial_ref'; use it before arithmetic, or under xarray.set_options(keep_attrs=True)"
        )
    box: GeoBox = cube.odc.geobox
    return box


def _stackstac_box(ys: NDArray[np.float64], xs: NDArray[np.float64], transform: Affine, crs: str) -> GeoBox:
    """Return the grid of a cube of stackstac, whose coordinates are corners of pixels or, on request, centers."""
    rows, cols = (ys - transform.f) / transform.e, (xs - transform.c) / transform.a
    for places in (rows, cols):
        if np.abs(2 * places - np.rint(2 * places)).max() > SLACK or (np.abs(np.diff(places) - 1) > SLACK).any():
            raise ConfigError("the coordinates of the cube differ from those of stackstac; mask it before resampling")
    left, top = (np.floor(places[0] + SLACK) for places in (cols, rows))
    moved = Affine(transform.a, 0, transform.c + left * transform.a, 0, transform.e, transform.f + top * transform.e)
    return GeoBox((len(rows), len(cols)), moved, crs)


def items_by_step(
    cube: xr.DataArray | xr.Dataset, items: list[pystac.Item], box: GeoBox, *, what: str
) -> list[list[pystac.Item]]:
    """Return the items of each time step of a cube, or of its only one.

    Raises:
        ConfigError: A time step has none; ``what`` names what is missing and a remedy.
    """
    if "id" in cube.coords:
        labels = [str(name) for name in np.atleast_1d(cube["id"].values)]
        found = [[item for item in items if item.id in {name, f"{name}_{SUFFIX}"}] for name in labels]
    elif "time" in cube.coords:
        times = np.atleast_1d(cube["time"].values).astype("datetime64[us]")
        longitude = box.geographic_extent.centroid.coords[0][0]
        labels, found = [f"{time} UTC" for time in times], _by_time(times, items, longitude)
    else:
        labels, found = ["the only one"], [items]
    missing = [label for label, those in zip(labels, found, strict=True) if not those]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(labels)} time steps of the cube have no {what}; the first is {missing[0]}"
        )
    return found


def _by_time(times: Times, items: list[pystac.Item], longitude: float) -> list[list[pystac.Item]]:
    """Return items by time step: of the same time, or of the same solar day if they have no step of their own."""
    taken = np.array([time_of(item) for item in items], times.dtype)
    same = np.abs(times[:, None] - taken) <= SAME
    same_day = _solar_days(times, longitude)[:, None] == _solar_days(taken, longitude)
    chosen = np.where(same.any(axis=0), same, same_day)
    return [[items[at] for at in np.flatnonzero(row)] for row in chosen]


def _solar_days(times: Times, longitude: float) -> Times:
    seconds = round(longitude * SECONDS_PER_DEGREE)
    return (times + np.timedelta64(seconds, "s")).astype("datetime64[D]")


def time_of(item: pystac.Item) -> np.datetime64:
    """Return the acquisition time of an item, in UTC.

    Raises:
        ConfigError: It has no valid time.
    """
    try:
        time = times_of(item.properties)[0]
    except ValueError as error:
        raise ConfigError(f"item {item.id!r} has no valid time: {error}") from None
    return np.datetime64(time.replace(tzinfo=None), "us")
