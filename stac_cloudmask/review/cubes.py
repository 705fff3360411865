"""Masks on data cubes, as stackstac and odc-stac load them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, TypeVar

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  (registers the accessor)
import pystac
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.review.layers import MASK
from stac_cloudmask.review.show import mask_item_of
from stac_cloudmask.stac.gdal import Patience
from stac_cloudmask.stac.item import SUFFIX
from stac_cloudmask.stac.warp import Frame, Views

if TYPE_CHECKING:
    from numpy.typing import NDArray

Cube = TypeVar("Cube", xr.DataArray, xr.Dataset)
One = pystac.Item | str | PathLike[str] | Result
Masks = One | Iterable[One]
"""Output items, their URLs or paths, or what ``process`` returned."""

Sources = list[tuple[str, str | None]]
"""Hrefs of masks, and where their items were read from."""

SAME: Final = np.timedelta64(1, "s")
"""Times that lie no further apart are one; loaders and catalogs round them differently."""
SECONDS_PER_DEGREE: Final = 240
"""Of longitude: the sun takes a day for 360."""
SLACK: Final = 0.01
"""In pixels, for coordinates that were rounded."""


def apply_mask(
    cube: Cube, masks: Masks, *, keep: Sequence[str] = (CLASSES[0].name,), fill: float | None = None
) -> Cube:
    """A cube without the pixels that masks hide; read when the cube is, if that is lazy.

    Each time step gets the masks of its items: by the ids that stackstac keeps, else by time, else by solar day, which
    odc-stac can group by. Masks are taken to the grid of the cube, whatever that is, by their nearest pixel; where
    there is none, or it has no data, the cube is hidden.

    Args:
        cube: As stackstac or odc-stac loaded it, or a part of that.
        masks: Of every time step; those of others do no harm.
        keep: Names of the classes that stay.
        fill: What hidden pixels get; NaN by default, or the nodata value that an integer variable states.

    Raises:
        ConfigError: A time step has no mask, masks lie elsewhere, the cube does not say where it lies or has no nodata
            value, or a class is not known.
        ReadError: A mask cannot be read; for a lazy cube when it is computed.
    """
    many = [masks] if isinstance(masks, pystac.Item | str | PathLike | Result) else masks
    items = sorted((mask_item_of(mask) for mask in many), key=_time_of)
    codes = [_code(name) for name in keep]
    box = _geobox(cube)
    kept = _classes(cube, _steps(cube, items, box), box).isin(codes)
    if isinstance(cube, xr.Dataset):
        spatial = {name for name, variable in cube.data_vars.items() if set(_axes(cube)) <= set(variable.dims)}
        return cube.assign({name: _hidden(cube[name], kept, fill) for name in spatial})
    return _hidden(cube, kept, fill)


def _code(name: str) -> int:
    known = {info.name: int(info.code) for info in CLASSES if info.code != CloudClass.NODATA}
    if name not in known:
        raise ConfigError(f"keep has {name!r}; the classes are {', '.join(known)}")
    return known[name]


def _hidden(variable: xr.DataArray, kept: xr.DataArray, fill: float | None) -> xr.DataArray:
    if fill is None and variable.dtype.kind not in "fc":
        fill = variable.attrs.get("nodata", variable.attrs.get("_FillValue"))
        if fill is None:
            raise ConfigError(
                f"variable {variable.name!r} is {variable.dtype} and states no nodata value; give fill=, or load floats"
            )
    other = variable.dtype.type(np.nan if fill is None else fill)
    hidden: xr.DataArray = variable.where(kept, other).transpose(*variable.dims).assign_attrs(variable.attrs)
    return hidden


def _axes(cube: xr.DataArray | xr.Dataset) -> tuple[str, str]:
    """Names of the vertical and the horizontal dimension."""
    found = cube.odc.spatial_dims
    if found is None:
        raise ConfigError(f"the cube has no dimensions y and x, only {', '.join(map(str, cube.dims))}")
    return str(found[0]), str(found[1])


def _geobox(cube: xr.DataArray | xr.Dataset) -> GeoBox:
    """Where the pixels of a cube lie: by the transform that stackstac keeps, else by the centers that others name."""
    axes, transform, crs = _axes(cube), cube.attrs.get("transform"), cube.odc.crs
    if isinstance(transform, Affine) and crs is not None:
        return _stackstac_box(cube[axes[0]].values, cube[axes[1]].values, transform, str(crs))
    if crs is None or "spatial_ref" not in cube.coords or cube.odc.geobox is None:
        raise ConfigError(
            "the cube does not say where its pixels lie: it has neither the attribute 'transform' of stackstac nor a "
            "coordinate 'spatial_ref'; apply the mask before arithmetic, or under xarray.set_options(keep_attrs=True)"
        )
    box: GeoBox = cube.odc.geobox
    return box


def _stackstac_box(ys: NDArray[np.float64], xs: NDArray[np.float64], transform: Affine, crs: str) -> GeoBox:
    """The grid of a cube of stackstac, which names corners of pixels or, if told to, centers; the transform tells."""
    rows, cols = (ys - transform.f) / transform.e, (xs - transform.c) / transform.a
    for places in (rows, cols):
        if np.abs(2 * places - np.rint(2 * places)).max() > SLACK or (np.abs(np.diff(places) - 1) > SLACK).any():
            raise ConfigError(
                "the coordinates of the cube are not those that stackstac gave it; mask it before resampling"
            )
    left, top = (np.floor(places[0] + SLACK) for places in (cols, rows))
    moved = Affine(transform.a, 0, transform.c + left * transform.a, 0, transform.e, transform.f + top * transform.e)
    return GeoBox((len(rows), len(cols)), moved, crs)


def _steps(cube: xr.DataArray | xr.Dataset, items: list[pystac.Item], box: GeoBox) -> list[list[pystac.Item]]:
    """The masks of each time step of a cube, or of the one that it is."""
    if not any(_overlaps(item, box) for item in items):
        where = f"the first is {items[0].id!r}, at {items[0].bbox}" if items else "none is given"
        raise ConfigError(f"no mask lies where the cube does: {where}")
    if "id" in cube.coords:
        labels = [str(name) for name in np.atleast_1d(cube["id"].values)]
        found = [[item for item in items if item.id in {name, f"{name}_{SUFFIX}"}] for name in labels]
    elif "time" in cube.coords:
        times = np.atleast_1d(cube["time"].values).astype("datetime64[us]")
        labels, found = [f"{time} UTC" for time in times], _by_time(times, items, _longitude(box))
    else:
        labels, found = ["the only one"], [items]
    missing = [label for label, masks in zip(labels, found, strict=True) if not masks]
    if missing:
        raise ConfigError(
            f"{len(missing)} of {len(labels)} time steps of the cube have no mask, first {missing[0]}; "
            "process their items, or leave them out of the cube"
        )
    return found


def _by_time(times: NDArray[np.datetime64], items: list[pystac.Item], longitude: float) -> list[list[pystac.Item]]:
    """Masks by time step: those of the same time, and those of the same solar day that have no step of their own."""
    found: list[list[pystac.Item]] = [[] for _ in times]
    days = _solar_days(times, longitude)
    for item in items:
        time = _time_of(item)
        same = np.abs(times - time) <= SAME
        if not same.any():
            same = days == _solar_days(np.array([time]), longitude)
        for step in np.flatnonzero(same):
            found[step].append(item)
    return found


def _solar_days(times: NDArray[np.datetime64], longitude: float) -> NDArray[np.datetime64]:
    seconds = round(longitude * SECONDS_PER_DEGREE)
    return (times + np.timedelta64(seconds, "s")).astype("datetime64[D]")


def _time_of(item: pystac.Item) -> np.datetime64:
    time = item.datetime or item.common_metadata.start_datetime
    if time is None:
        raise ConfigError(f"item {item.id!r} has no time")
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")


def _longitude(box: GeoBox) -> float:
    return float(box.extent.to_crs("EPSG:4326").centroid.coords[0][0])


def _overlaps(item: pystac.Item, box: GeoBox) -> bool:
    fields = item.properties | item.assets[MASK].extra_fields
    grid = GeoBox(tuple(fields["proj:shape"]), Affine(*fields["proj:transform"][:6]), fields["proj:code"])
    return bool(grid.extent.to_crs(str(box.crs)).intersects(box.extent))


def _classes(cube: xr.DataArray | xr.Dataset, steps: list[list[pystac.Item]], box: GeoBox) -> xr.DataArray:
    """Class codes on the grid of a cube, with the coordinates that it has: ``(time, y, x)``, or as many as it has."""
    height, width = box.shape
    frame = Frame(crs=str(box.crs), transform=tuple(box.transform)[:6], shape=(height, width))
    axes = _axes(cube)
    chunks = [dict(cube.chunksizes).get(axis) for axis in axes]
    sources = [[(item.assets[MASK].href, item.get_self_href()) for item in items] for items in steps]
    if None in chunks:
        layers = [_read(frame, step) for step in sources]
    else:
        layers = [da.map_blocks(_block, chunks=tuple(chunks), dtype=np.uint8, frame=frame, sources=s) for s in sources]  # type: ignore[no-untyped-call]  # dask has no types
    coords = {axis: cube[axis] for axis in axes}
    if "time" not in cube.dims:
        return xr.DataArray(layers[0], dims=axes, coords=coords)
    return xr.DataArray(np.stack(layers), dims=("time", *axes), coords={"time": cube["time"], **coords})


def _block(*, frame: Frame, sources: Sources, block_info: dict[Any, Any]) -> NDArray[np.uint8]:
    rows, cols = (slice(*ends) for ends in block_info[None]["array-location"])
    return _read(frame.part(rows, cols), sources)


def _read(frame: Frame, sources: Sources) -> NDArray[np.uint8]:
    """The masks of one time step; where several have data the first counts."""
    views = Views(Patience())
    seen = np.full(frame.shape, CloudClass.NODATA, np.uint8)
    for href, base in sources:
        codes = views.nearest(href, frame, base=base, fill=CloudClass.NODATA)
        np.copyto(seen, codes, where=seen == CloudClass.NODATA)
    return seen
