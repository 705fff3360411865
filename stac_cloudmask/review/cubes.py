"""Mask NumPy arrays and cubes of odc-stac and stackstac; apply published masks to cubes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import odc.geo.xr  # noqa: F401  (the accessor of cubes)
import pystac
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.pixels import HIGHEST_DN, SATURATED_DN, U16
from stac_cloudmask.core.predict import Bands
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.mask import bands_needed, mask_pixels, resolve_sources
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.retry import DEFAULT_POLICY
from stac_cloudmask.review.layers import MASK, U8, MaskItem, mask_item_of
from stac_cloudmask.stac.assets import OWN
from stac_cloudmask.stac.bands import ESA_SCALE, key_band
from stac_cloudmask.stac.catalog import existing_catalog
from stac_cloudmask.stac.gdal import gdal_env
from stac_cloudmask.stac.geometry import touches
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.metadata import number, sun_angles, times_of
from stac_cloudmask.stac.providers import SCL, sign
from stac_cloudmask.stac.warp import ground

Values = NDArray[np.integer | np.floating]
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

ZERO: Final = 1000
"""Digital number of reflectance 0, which leaves room for slightly negative reflectance."""
LIKELY: Final = 1.6
"""Median above which the values of a scene are taken for digital numbers."""
ANY_ZONE: Final = 32631
"""EPSG code of arrays, which have no location; any metric CRS would do."""


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
    import odc.stac  # noqa: PLC0415  (a second, which plots do not need)

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
        names = [(item.id, item.properties.get(f"{OWN}source", {}).get("id")) for item in items]
        found = [[item for item, known in zip(items, names, strict=True) if label in known] for label in labels]
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


@dataclass(frozen=True, kw_only=True)
class ArrayMask:
    """The mask of a scene in arrays.

    Attributes:
        cloud_mask: ``(y, x)`` uint8: 0 clear, 1 cloud, 2 cloud shadow, 255 nodata.
        cloud_probability: ``(y, x)`` uint8 whole percents, 255 = nodata.
        shadow_probability: The same for cloud shadow.
        mask_votes: ``(y, x)`` uint8 bits of what each source found, 255 = nodata.
        notes: Rules that were skipped, and why.
    """

    cloud_mask: U8
    cloud_probability: U8
    shadow_probability: U8
    mask_votes: U8
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ArrayPixels:
    """The digital numbers of a scene in memory, for inference.

    Attributes:
        grid: Grid of all bands.
        bands: Common names, scales and offsets, in the order of the band axis.
        pixels: ``(band, y, x)``; 0 is nodata.
        strip: Preferred number of rows to read at a time.
    """

    grid: Grid
    bands: Bands
    pixels: U16
    strip: int = 512

    def dn(self, row_off: int, height: int) -> U16:
        """Return rows ``(band, height, x)``."""
        return self.pixels[:, row_off : row_off + height]


def mask_array(
    *,
    blue: Values,
    green: Values,
    red: Values,
    nir: Values,
    scl: U8 | None = None,
    gsd: float = 10.0,
    sun: tuple[float, float] | None = None,
    more: Mapping[str, Values] | None = None,
    settings: Settings | None = None,
) -> ArrayMask:
    """Mask a scene in numpy arrays; north is up.

    Reflectance is rounded to steps of 0.0001 like Sentinel-2's digital numbers, which makes the mask equal to that of
    an item with the same pixels.

    Args:
        blue: ``(y, x)`` surface reflectance, 0 to about 1, NaN or masked = nodata; without the BOA offset of baseline
            04.00.
        green: The same, for this band.
        red: The same, for this band.
        nir: The same, for the near infrared at 842 nm (B08).
        scl: ``(y, x)`` codes of SCL, of the same shape or coarser by a whole number; without it only the models vote.
        gsd: Side of a pixel in meters.
        sun: Azimuth (clockwise from north) and elevation in degrees; without it shadows are not matched with clouds.
        more: Other bands by common name (``swir16``, ...), for models that read them.
        settings: Settings of the mask.

    Raises:
        ConfigError: Shapes differ, arrays hold digital numbers, or a band of the model is missing.
        ModelError: A model is unknown or its weights are not installed.
    """
    settings = settings or Settings()
    arrays = {"blue": blue, "green": green, "red": red, "nir": nir, **(more or {})}
    given = {name: np.ma.asarray(band) for name, band in arrays.items()}
    names = _needed(settings, given)
    shapes = {band.shape for band in given.values()}
    if len(shapes) > 1 or given["blue"].ndim != 2 or not given["blue"].size:  # noqa: PLR2004  (y, x)
        raise ConfigError(f"bands are (y, x) arrays of one shape, got { ({k: v.shape for k, v in given.items()}) }")
    return _masked({name: given[name] for name in names}, scl, None, sun=sun, gsd=gsd, settings=settings)


def _needed(settings: Settings, given: Iterable[str]) -> tuple[str, ...]:
    """Return the bands that the models read."""
    names = bands_needed(settings)
    if missing := [name for name in names if name not in set(given)]:
        raise ConfigError(f"the models read {', '.join(names)}; {', '.join(missing)} is not given")
    return names


def _masked(
    values: Mapping[str, Values],
    scl: U8 | None,
    bands: Bands | None,
    *,
    nodata: float | None = None,
    sun: tuple[float, float] | None,
    gsd: float,
    settings: Settings,
) -> ArrayMask:
    """Return the mask of one date, made in the same steps as that of an item.

    Args:
        values: ``(y, x)`` values of each band by common name.
        scl: ``(y, x)`` codes of SCL; None if there are none.
        bands: Their names, scales and offsets if they are digital numbers; None if they are reflectance.
        nodata: The digital number of pixels without data, in addition to NaN.
        sun: Azimuth from the grid's north and elevation, in degrees; None if unknown.
        gsd: Side of a pixel on the ground, in meters.
        settings: Settings of the mask.
    """
    if not (1 <= gsd <= 1000 and np.isfinite(sun or 0.0).all()):  # noqa: PLR2004  (far from 10 m no model is right)
        raise ConfigError(f"gsd is 1 to 1000 m, sun is azimuth and elevation in degrees; got {gsd:g} and {sun}")
    if bands is None:
        bands = Bands(tuple(values), (ESA_SCALE,) * len(values), (-ZERO,) * len(values))
        pixels = np.stack([_digital(name, band) for name, band in values.items()])
    else:
        pixels = np.stack([_whole(band, nodata) for band in values.values()])
    height, width = pixels.shape[1:]
    grid = Grid(epsg=ANY_ZONE, left=0, top=0, gsd=gsd, height=height, width=width)
    scene = ArrayPixels(grid=grid, bands=bands, pixels=pixels)
    classes = None
    if scl is not None:
        scl = np.ma.filled(scl, 0)
        factor = max(1, round(height / scl.shape[0]))
        if grid.coarsen(factor).shape != scl.shape:
            raise ConfigError(f"scl has {scl.shape} pixels, which do not fit {grid.shape} by a whole number")
        classes = np.ascontiguousarray(scl, np.uint8), factor
    place = None if sun is None else Sun(azimuth=float(sun[0]) % 360, elevation=float(sun[1]))
    evidence, decision, _ = mask_pixels(scene, scl=classes, sun=place, settings=settings)
    return ArrayMask(
        cloud_mask=decision.class_map, cloud_probability=evidence.cloud, shadow_probability=evidence.shadow,
        mask_votes=decision.published_votes, notes=decision.notes,
    )  # fmt: skip


def _digital(name: str, reflectance: Values) -> U16:
    """Convert reflectance to digital numbers, 0 = nodata."""
    if reflectance.dtype.kind != "f":
        raise ConfigError(f"{name} is {reflectance.dtype}; reflectance is a float of 0 to about 1: scale it first")
    reflectance = np.ma.filled(reflectance, np.nan)
    valid = np.isfinite(reflectance)
    if valid.any() and (median := float(np.median(reflectance[valid]))) > LIKELY:
        raise ConfigError(f"{name} has a median of {median:g}: digital numbers, not reflectance; scale them first")
    dn = np.rint(np.where(valid, reflectance, 0) / ESA_SCALE) + ZERO
    return np.where(valid, np.where(dn > HIGHEST_DN, SATURATED_DN, np.maximum(dn, 1)), 0).astype(np.uint16)


def _whole(values: Values, nodata: float | None) -> U16:
    """Return digital numbers, 0 = nodata, from integers, or from floats that hold digital numbers."""
    empty = ~np.isfinite(values) | (values == (nodata or 0)) | (values < 0)
    return np.where(empty, 0, values).astype(np.uint16)


def mask_cube(
    cube: xr.DataArray | xr.Dataset,
    items: Iterable[pystac.Item] | pystac.Item | None = None,
    *,
    scale: float | Literal["items"] | None = None,
    offset: float = 0.0,
    sun: tuple[float, float] | None = None,
    settings: Settings | None = None,
) -> xr.DataArray:
    """Mask every date of a cube that odc-stac or stackstac loaded. A lazy cube is masked lazily, one date at a time.

    The cube has the bands of the model (blue, green, red and nir, by common name or as B02, ...), and SCL if it is to
    have a vote. The conversion to reflectance is never guessed: it uses ``scale`` and ``offset``, otherwise the
    attributes ``scale_factor`` and ``add_offset`` of the bands, otherwise, for digital numbers, the items, with the
    same rule for the BOA offset as ``process``.

    Args:
        cube: A Dataset of bands or a DataArray with the dimension ``band``, of many dates or one, in a metric CRS.
        items: The source items of all dates, for scale, offset and sun.
        scale: Reflectance per unit; 1 for reflectance. ``"items"`` means that floats are the items' digital numbers.
        offset: Reflectance to add after scaling.
        sun: Azimuth and elevation of the sun in degrees for all dates; by default those of the items or of stackstac's
            coordinates ``view:sun_azimuth`` and ``view:sun_elevation``.
        settings: Settings of the masks.

    Returns:
        ``(time, y, x)``, or ``(y, x)`` for a single date, uint8: 0 clear, 1 cloud, 2 cloud shadow, 255 nodata.

    Raises:
        ConfigError: Bands or SCL are missing, the conversion to reflectance is unknown, or the CRS is not metric.
    """
    settings = settings or Settings()
    bands, box = _bands_of(cube), geobox(cube)
    names = _needed(settings, bands)
    if SCL not in bands and settings.missing_scl == "fail":
        raise ConfigError("the cube has no SCL; also load 'scl', or use the models alone: missing_scl='model-only'")
    chosen = [bands[name] for name in names]
    many = [items] if isinstance(items, pystac.Item) else None if items is None else list(items)
    count = chosen[0].sizes.get("time", 1)
    by_step = [[]] * count if many is None else items_by_step(cube, many, box, what="item in `items`")
    read, axes = [*chosen, *([bands[SCL]] if SCL in bands else [])], spatial_axes(cube)
    nodata, (gsd, north) = chosen[0].odc.nodata, _ground(box)
    pairs = _stated(chosen, scale, offset, has_items=many is not None)
    layers = []
    for at, here in enumerate(by_step):
        scaled = _bands_of_items(names, here, settings) if pairs is None else _bands_as_stated(names, pairs)
        angles = sun or next(filter(None, map(sun_angles, here)), None) or _sun_of(chosen[0], at)
        turned = None if angles is None else (angles[0] - north, angles[1])
        step = partial(_masked, bands=scaled, nodata=nodata, sun=turned, gsd=gsd, settings=settings)
        layer = xr.apply_ufunc(
            partial(_class_map, step, names),
            *(band.variable[{"time": at}] if "time" in band.dims else band.variable for band in read),
            input_core_dims=[axes] * len(read),
            output_core_dims=[axes],
            dask="parallelized",
            dask_gufunc_kwargs={"allow_rechunk": True},
            output_dtypes=[np.uint8],
        )
        layers.append(layer.data)
    dims, data = (("time", *axes), np.stack(layers)) if "time" in cube.dims else (axes, layers[0])
    return xr.DataArray(data, chosen[0].coords, dims, MASK, _attributes(cube))


def _class_map(step: Callable[..., ArrayMask], names: tuple[str, ...], *planes: Values) -> U8:
    """Return the class map of one date from its bands followed by its SCL."""
    scl = np.nan_to_num(planes[-1], nan=0).astype(np.uint8) if len(planes) > len(names) else None
    return step(dict(zip(names, planes, strict=False)), scl).cloud_mask


def _attributes(cube: xr.DataArray | xr.Dataset) -> dict[str, object]:
    place = {key: cube.attrs[key] for key in ("crs", "transform", "grid_mapping") if key in cube.attrs}
    values, names = zip(*((int(info.code), info.name) for info in CLASSES[:-1]), strict=True)
    return {**place, "flag_values": [*values], "flag_meanings": " ".join(names), "nodata": int(CloudClass.NODATA)}


def _bands_of(cube: xr.DataArray | xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the bands of a cube by common name, and its SCL; 10 m bands win over others of the same name."""
    if isinstance(cube, xr.DataArray):
        if "band" not in cube.dims:
            raise ConfigError(f"the cube has no dimension 'band', only {', '.join(map(str, cube.dims))}")
        cube = cube.to_dataset("band")
    found: dict[str, xr.DataArray] = {}
    for key, band in cube.data_vars.items():
        name = SCL if str(key).lower().startswith(SCL) else key_band(str(key))
        if name is not None and (name not in found or "10m" in str(key).lower()):
            found[name] = band
    return found


def _stated(
    bands: list[xr.DataArray], scale: float | Literal["items"] | None, offset: float, *, has_items: bool
) -> list[tuple[float, float]] | None:
    """Return scale and offset by band as stated by the user or the bands; None where the items tell them."""
    if isinstance(scale, Real):
        if not (0 < scale <= 1 and abs(offset) <= 1):
            raise ConfigError(f"scale and offset are in reflectance, such as 0.0001 and -0.1; got {scale} and {offset}")
        return [(float(scale), offset)] * len(bands)
    stated = [(number(band.attrs.get("scale_factor")), number(band.attrs.get("add_offset"))) for band in bands]
    if scale is None and all(factor is not None for factor, _ in stated):
        return [(factor or 1.0, added or 0.0) for factor, added in stated]
    if has_items and (scale == "items" or all(band.dtype.kind in "iu" for band in bands)):
        return None
    raise ConfigError(
        f"bands are {bands[0].dtype} and do not state how to convert them; give scale=1 for reflectance, scale=0.0001 "
        "and offset=-0.1 (or the values that apply) for digital numbers, or the items: these apply to integers, and "
        "with scale='items' also to floats"
    )


def _bands_of_items(names: tuple[str, ...], items: list[pystac.Item], settings: Settings) -> Bands:
    """Return how the digital numbers of items become reflectance."""
    sources = [resolve_sources(item, settings=settings).bands for item in items]
    found = {Bands(names, tuple(b.scale for b in read), tuple(b.offset.dn for b in read)) for read in sources}
    if len(found) > 1:
        raise ConfigError(f"items {', '.join(item.id for item in items)} share a date and differ in BOA offset")
    return found.pop()


def _bands_as_stated(names: tuple[str, ...], pairs: list[tuple[float, float]]) -> Bands | None:
    """Return how digital numbers become reflectance by scale and offset of each band; None if they are reflectance."""
    if set(pairs) == {(1.0, 0.0)}:
        return None
    offsets = [added / factor for factor, added in pairs]
    if any(abs(dn - round(dn)) > SLACK for dn in offsets):
        raise ConfigError(f"scale {pairs[0][0]:g} and offset {pairs[0][1]:g} are not a whole number of steps apart")
    return Bands(names, tuple(factor for factor, _ in pairs), tuple(round(dn) for dn in offsets))


def _sun_of(band: xr.DataArray, at: int) -> tuple[float, float] | None:
    """Return the sun's position by the coordinates that stackstac copies from items."""
    names = [name for name in ("view:sun_azimuth", "view:sun_elevation") if name in band.coords]
    azimuth, elevation = [number(np.atleast_1d(band[name])[at].item()) for name in names] or (None, None)
    return None if azimuth is None or elevation is None else (azimuth, elevation)


def _ground(box: GeoBox) -> tuple[float, float]:
    """Return the side of a pixel on the ground in meters, and the degrees of grid north east of true north."""
    crs, x, y = box.crs, box.resolution.x, box.resolution.y
    if crs is None or crs.epsg is None or crs.geographic or crs.proj.axis_info[0].unit_conversion_factor != 1.0:
        raise ConfigError(f"the cube has CRS {box.crs}; a metric CRS is needed, such as the item's UTM zone")
    if y >= 0 or x <= 0 or abs(x + y) > SLACK * x:
        raise ConfigError(f"pixels are {x:g} by {y:g}; square pixels, north up, are needed")
    left, top = box.affine.c, box.affine.f
    return ground(Grid(epsg=crs.epsg, left=left, top=top, gsd=x, height=box.height, width=box.width))
