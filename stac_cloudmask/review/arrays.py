"""Masks of what is loaded already: numpy arrays, and cubes of odc-stac and stackstac."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import dask.array as da
import numpy as np
import pystac
import xarray as xr
from dask.delayed import delayed
from pyproj import Proj

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.votes import VOTES_NODATA, Sun
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.mask import choose_models, mask_pixels, resolve_sources
from stac_cloudmask.review.cubes import SLACK, geobox, items_by_step, lon_lat_of, spatial_axes
from stac_cloudmask.review.layers import MASK
from stac_cloudmask.stac.metadata import key_band, number, sun_angles
from stac_cloudmask.stac.providers import SCL

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from odc.geo.geobox import GeoBox

    U8 = NDArray[np.uint8]
    U16 = NDArray[np.uint16]

SCALE: Final = 1e-4
"""Reflectance of one step of the digital numbers that arrays are turned into, as Sentinel-2 has it."""
RAISED: Final = 1000
"""Digital number of reflectance 0, so that a little less than 0 is still data."""
SATURATED: Final = 65535
BRIGHTEST: Final = 32767
"""Largest digital number that is data, but for saturated ones."""
LIKELY: Final = 1.6
"""A scene whose median reflectance is above this is one of digital numbers."""
NOWHERE: Final = 32631
"""EPSG code of arrays, which lie nowhere; any metric CRS would do."""


@dataclass(frozen=True, kw_only=True)
class ArrayMask:
    """The mask of arrays.

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
    """The digital numbers of a scene in memory, as inference reads them.

    Attributes:
        grid: Grid of all bands.
        bands: Common names, in the order of the band axis.
        scales: Reflectance per digital number, by band.
        offsets: Digital numbers to add before scaling, by band.
        pixels: ``(band, y, x)``; 0 is nodata.
    """

    grid: Grid
    bands: tuple[str, ...]
    scales: tuple[float, ...]
    offsets: tuple[int, ...]
    pixels: U16

    @property
    def strip(self) -> int:
        """Number of rows that are best read at a time."""
        return min(512, self.grid.height)

    def dn(self, row_off: int, height: int) -> U16:
        """Return rows ``(band, height, x)``."""
        return self.pixels[:, row_off : row_off + height]


def mask_array(
    *,
    blue: NDArray[np.floating],
    green: NDArray[np.floating],
    red: NDArray[np.floating],
    nir: NDArray[np.floating],
    scl: U8 | None = None,
    gsd: float = 10.0,
    sun: tuple[float, float] | None = None,
    more: Mapping[str, NDArray[np.floating]] | None = None,
    settings: Settings | None = None,
) -> ArrayMask:
    """Mask a scene in numpy arrays; north is up.

    Reflectance is taken in steps of 0.0001, as Sentinel-2's digital numbers are, so that the mask is that of the item
    whose pixels these are.

    Args:
        blue: ``(y, x)`` surface reflectance, 0 to about 1, NaN = nodata; without the BOA offset of baseline 04.00.
        green: The same, for this band.
        red: The same, for this band.
        nir: The same, for the near infrared at 842 nm (B08).
        scl: ``(y, x)`` codes of SCL, of the same shape or coarser by a whole number; without it only the models vote.
        gsd: Side of a pixel in meters.
        sun: Azimuth (clockwise from north) and elevation in degrees; without it any cloud may cast any shadow.
        more: Other bands by common name (``swir16``, ...), for models that read them.
        settings: How the mask is made.

    Raises:
        ConfigError: Shapes differ, arrays hold digital numbers, or a band that the model reads is missing.
        ModelError: A model is not known or its weights are not here.
    """
    settings = settings or Settings()
    given = {"blue": blue, "green": green, "red": red, "nir": nir, **(more or {})}
    names = _needed(settings, given)
    if len({band.shape for band in given.values()}) > 1 or blue.ndim != 2:  # noqa: PLR2004  (y, x)
        raise ConfigError(f"bands are (y, x) arrays of one shape, got { ({k: v.shape for k, v in given.items()}) }")
    pixels = np.stack([_digital(name, given[name]) for name in names])
    scene = ArrayPixels(
        grid=_plain_grid(blue.shape, gsd), bands=names, scales=(SCALE,) * len(names), offsets=(-RAISED,) * len(names),
        pixels=pixels,
    )  # fmt: skip
    return _masked(scene, scl, sun, settings)


def _needed(settings: Settings, given: Iterable[str]) -> tuple[str, ...]:
    """The bands that the models read."""
    names = tuple(dict.fromkeys(name for spec in choose_models(settings) for name in spec.bands))
    if missing := [name for name in names if name not in set(given)]:
        raise ConfigError(f"the models read {', '.join(names)}; {', '.join(missing)} is not given")
    return names


def _plain_grid(shape: tuple[int, ...], gsd: float) -> Grid:
    return Grid(epsg=NOWHERE, left=0, top=0, gsd=gsd, height=shape[0], width=shape[1])


def _digital(name: str, reflectance: NDArray[np.floating]) -> U16:
    """Reflectance as digital numbers, 0 = nodata."""
    if reflectance.dtype.kind != "f":
        raise ConfigError(f"{name} is {reflectance.dtype}; reflectance is a float of 0 to about 1: scale it first")
    valid = np.isfinite(reflectance)
    if valid.any() and (median := float(np.median(reflectance[valid]))) > LIKELY:
        raise ConfigError(f"{name} has a median of {median:g}: digital numbers, not reflectance; scale them first")
    dn = np.rint(np.where(valid, reflectance, 0) / SCALE) + RAISED
    return np.where(valid, np.where(dn > BRIGHTEST, SATURATED, np.maximum(dn, 1)), 0).astype(np.uint16)


def _masked(scene: ArrayPixels, scl: U8 | None, sun: tuple[float, float] | None, settings: Settings) -> ArrayMask:
    """The mask of digital numbers, by the same steps as that of an item."""
    classes = (
        None if scl is None else (np.ascontiguousarray(scl, np.uint8), _times_coarser(scene.grid.shape, scl.shape))
    )
    angles = None if sun is None else Sun(azimuth=float(sun[0]) % 360, elevation=float(sun[1]))
    evidence, decision, _ = mask_pixels(scene, scl=classes, sun=angles, settings=settings)
    votes = np.where(decision.class_map == CloudClass.NODATA, np.uint8(VOTES_NODATA), decision.votes)
    return ArrayMask(
        cloud_mask=decision.class_map, cloud_probability=evidence.cloud, shadow_probability=evidence.shadow,
        mask_votes=votes, notes=decision.notes,
    )  # fmt: skip


def _times_coarser(shape: tuple[int, int], coarse: tuple[int, ...]) -> int:
    factor = max(1, round(shape[0] / coarse[0]))
    if tuple(-(-side // factor) for side in shape) != coarse:
        raise ConfigError(f"scl has {coarse} pixels, which do not fit {shape} by a whole number")
    return factor


@dataclass(frozen=True, kw_only=True)
class Step:
    """How the values of one date are to be read.

    Attributes:
        scales: Reflectance per digital number, by band; None where the values are reflectance.
        offsets: Digital numbers to add before scaling, by band.
        nodata: The value of pixels without data, besides NaN.
        sun: Azimuth from the grid's north and elevation, in degrees; None if unknown.
        gsd: Side of a pixel on the ground, in meters.
    """

    scales: tuple[float, ...] | None
    offsets: tuple[int, ...]
    nodata: float | None
    sun: tuple[float, float] | None
    gsd: float


def mask_cube(
    cube: xr.DataArray | xr.Dataset,
    items: Iterable[pystac.Item] | pystac.Item | None = None,
    *,
    scale: float | Literal["items"] | None = None,
    offset: float | None = None,
    sun: tuple[float, float] | None = None,
    settings: Settings | None = None,
) -> xr.DataArray:
    """Mask every date of a cube as odc-stac or stackstac loaded it; lazily, one date a block, where the cube is lazy.

    The cube has the bands that the model reads (blue, green, red and nir, by common name or as B02, ...), and SCL if
    that shall have a vote. How values become reflectance is never guessed: by ``scale`` and ``offset``, else by the
    attributes ``scale_factor`` and ``add_offset`` of the bands, else, for digital numbers, by the items, whose BOA
    offset is decided as ``process`` does.

    Args:
        cube: A Dataset of bands or a DataArray with the dimension ``band``, of many dates or one, in a metric CRS.
        items: The source items of all dates, for scale, offset and sun.
        scale: Reflectance per unit; 1 for reflectance. ``"items"`` says that floats are the items' digital numbers.
        offset: Reflectance to add after scaling; 0 by default.
        sun: Azimuth and elevation of the sun in degrees for all dates; else as the items or the coordinates
            ``view:sun_azimuth`` and ``view:sun_elevation`` of stackstac have it.
        settings: How masks are made.

    Returns:
        ``(time, y, x)``, or ``(y, x)`` of a single date, uint8: 0 clear, 1 cloud, 2 cloud shadow, 255 nodata.

    Raises:
        ConfigError: Bands or SCL are missing, values cannot be read without a guess, or the CRS is not metric.
    """
    settings = settings or Settings()
    bands, box = _bands_of(cube), geobox(cube)
    names = _needed(settings, bands)
    if SCL not in bands and settings.missing_scl == "fail":
        raise ConfigError("the cube has no SCL; load 'scl' too, or leave it to the models: missing_scl='model-only'")
    chosen = [bands[name] for name in names] + ([bands[SCL]] if SCL in bands else [])
    many = [items] if isinstance(items, pystac.Item) else None if items is None else list(items)
    by_step = None if many is None else items_by_step(cube, many, box, what="item in `items`")
    steps = _steps(chosen[: len(names)], by_step, box, scale=scale, offset=offset, sun=sun, settings=settings)
    lazy = all(band.chunks is not None for band in chosen)
    layers = []
    for number_of_step, step in enumerate(steps):
        planes = [band.isel(time=number_of_step) if "time" in band.dims else band for band in chosen]
        layers.append(_layer([plane.data for plane in planes], names, step, settings, lazy=lazy))
    axes = spatial_axes(cube)
    dims, data = (("time", *axes), np.stack(layers)) if "time" in cube.dims else (axes, layers[0])
    kept = {key: value for key, value in chosen[0].coords.items() if set(value.dims) <= set(dims) and key != "band"}
    return xr.DataArray(data, dims=dims, coords=kept, name=MASK, attrs=_attributes(cube))


def _attributes(cube: xr.DataArray | xr.Dataset) -> dict[str, object]:
    known = [info for info in CLASSES if info.code != CloudClass.NODATA]
    place = {key: cube.attrs[key] for key in ("crs", "transform", "grid_mapping") if key in cube.attrs}
    flags = {"flag_values": [int(info.code) for info in known], "flag_meanings": " ".join(one.name for one in known)}
    return {**place, **flags, "nodata": int(CloudClass.NODATA)}


def _bands_of(cube: xr.DataArray | xr.Dataset) -> dict[str, xr.DataArray]:
    """The bands of a cube by common name, and its SCL; 10 m bands before others of the same name."""
    if isinstance(cube, xr.DataArray):
        if "band" not in cube.dims:
            raise ConfigError(f"the cube has no dimension 'band', only {', '.join(map(str, cube.dims))}")
        named = {str(key): cube.isel(band=at) for at, key in enumerate(cube["band"].values)}
    else:
        named = {str(key): variable for key, variable in cube.data_vars.items()}
    found: dict[str, xr.DataArray] = {}
    for key, band in named.items():
        name = SCL if key.lower().startswith(SCL) else key_band(key)
        if name is not None and (name not in found or "10m" in key.lower()):
            found[name] = band
    return found


def _steps(
    bands: list[xr.DataArray],
    by_step: list[list[pystac.Item]] | None,
    box: GeoBox,
    *,
    scale: float | Literal["items"] | None,
    offset: float | None,
    sun: tuple[float, float] | None,
    settings: Settings,
) -> list[Step]:
    """How the values of each date are to be read."""
    count = bands[0].sizes.get("time", 1)
    ground, turned = _ground(box)
    steps = []
    for at in range(count):
        here = [] if by_step is None else by_step[at]
        scales, offsets = _scaling(bands, here, scale=scale, offset=offset, settings=settings)
        angles = sun or next(filter(None, map(sun_angles, here)), None) or _sun_of(bands[0], at)
        turned_sun = None if angles is None else (angles[0] - turned, angles[1])
        nodata = bands[0].attrs.get("nodata", bands[0].attrs.get("_FillValue"))
        steps.append(Step(scales=scales, offsets=offsets, nodata=nodata, sun=turned_sun, gsd=ground))
    return steps


def _scaling(
    bands: list[xr.DataArray],
    items: list[pystac.Item],
    *,
    scale: float | Literal["items"] | None,
    offset: float | None,
    settings: Settings,
) -> tuple[tuple[float, ...] | None, tuple[int, ...]]:
    """Scales and offsets in digital numbers by band; no scales where values are reflectance."""
    if isinstance(scale, int | float):
        return _as_digital([(float(scale), offset or 0.0)] * len(bands))
    stated = [(number(band.attrs.get("scale_factor")), number(band.attrs.get("add_offset"))) for band in bands]
    if scale is None and all(factor is not None for factor, _ in stated):
        return _as_digital([(factor or 1.0, added or 0.0) for factor, added in stated])
    if items and (scale == "items" or all(band.dtype.kind in "iu" for band in bands)):
        sources = [resolve_sources(item, models=choose_models(settings), settings=settings).bands for item in items]
        read = {tuple((band.scale, band.offset.dn) for band in bands_of_item) for bands_of_item in sources}
        if len(read) > 1:
            raise ConfigError(f"items {', '.join(item.id for item in items)} share a date and differ in BOA offset")
        [pairs] = read
        return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    raise ConfigError(
        f"bands are {bands[0].dtype} and do not say how they become reflectance; give scale=1 for reflectance, "
        "scale=0.0001 and offset=-0.1 (or what holds) for digital numbers, or the items: those tell of integers, and "
        "with scale='items' of floats, too"
    )


def _as_digital(pairs: list[tuple[float, float]]) -> tuple[tuple[float, ...] | None, tuple[int, ...]]:
    """Offsets in digital numbers where they are whole ones; none of it for values that are reflectance."""
    if set(pairs) == {(1.0, 0.0)}:
        return None, ()
    offsets = [added / factor for factor, added in pairs]
    if any(abs(dn - round(dn)) > SLACK for dn in offsets):
        raise ConfigError(f"scale {pairs[0][0]:g} and offset {pairs[0][1]:g} are not a whole number of steps apart")
    return tuple(factor for factor, _ in pairs), tuple(round(dn) for dn in offsets)


def _sun_of(band: xr.DataArray, at: int) -> tuple[float, float] | None:
    """The sun by the coordinates that stackstac takes from items."""
    found = []
    for name in ("view:sun_azimuth", "view:sun_elevation"):
        value = number(np.atleast_1d(band.coords[name].values)[at].item()) if name in band.coords else None
        if value is None:
            return None
        found.append(value)
    return found[0], found[1]


def _ground(box: GeoBox) -> tuple[float, float]:
    """Side of a pixel on the ground in meters, and how far grid north lies east of north in degrees.

    Zones of UTM are taken as they are, as for items: they are true to 0.1 % and to 3 degrees.
    """
    crs = box.crs.proj if box.crs is not None else None
    x, y = box.resolution.x, box.resolution.y
    if crs is None or not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1.0:
        raise ConfigError(f"the cube lies in {box.crs}; a metric CRS is needed, as the item's own UTM zone")
    if y >= 0 or x <= 0 or abs(x + y) > SLACK * x:
        raise ConfigError(f"pixels are {x:g} by {y:g}; square ones are needed, north up")
    if crs.utm_zone is not None:
        return float(x), 0.0
    factors = Proj(crs).get_factors(*lon_lat_of(box))
    return float(x / np.sqrt(factors.areal_scale)), float(factors.meridian_convergence)


def _layer(
    planes: list[NDArray[np.integer | np.floating]],
    names: tuple[str, ...],
    step: Step,
    settings: Settings,
    *,
    lazy: bool,
) -> U8 | da.Array:
    if not lazy:
        return _mask_step(planes, names, step, settings)
    made = delayed(_mask_step, pure=True)(planes, names, step, settings)
    layer: da.Array = da.from_delayed(made, shape=planes[0].shape, dtype=np.uint8)  # type: ignore[no-untyped-call]
    return layer


def _mask_step(
    planes: list[NDArray[np.integer | np.floating]], names: tuple[str, ...], step: Step, settings: Settings
) -> U8:
    """The class map of one date."""
    bands, scl = planes[: len(names)], planes[len(names) :]
    if step.scales is None:
        pixels = np.stack([_digital(name, np.asarray(band)) for name, band in zip(names, bands, strict=True)])
        scales, offsets = (SCALE,) * len(names), (-RAISED,) * len(names)
    else:
        pixels = np.stack([_whole(np.asarray(band), step.nodata) for band in bands])
        scales, offsets = step.scales, step.offsets
    scene = ArrayPixels(
        grid=_plain_grid(pixels.shape[1:], step.gsd), bands=names, scales=scales, offsets=offsets, pixels=pixels
    )
    classes = np.nan_to_num(np.asarray(scl[0]), nan=0).astype(np.uint8) if scl else None
    return _masked(scene, classes, step.sun, settings).cloud_mask


def _whole(values: NDArray[np.integer | np.floating], nodata: float | None) -> U16:
    """Digital numbers, 0 = nodata, of integers or of floats that hold some."""
    empty = ~np.isfinite(values) | (values == (0 if nodata is None else nodata)) | (values < 0)
    return np.where(empty, 0, values).astype(np.uint16)
