"""Make the mask of an item, or of the part of it in an area, in memory: read, run the models, merge."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac
import shapely
from dask.system import CPU_COUNT
from numpy.typing import NDArray

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass, Scl, improved_scl
from stac_cloudmask.core.grid import Chip, Grid, Window
from stac_cloudmask.core.merge import FARMVIBES, Decision, decide
from stac_cloudmask.core.merge_calibrated import NO_SUN, RULES
from stac_cloudmask.core.pixels import step_of
from stac_cloudmask.core.predict import PERCENT_NODATA, Role
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun
from stac_cloudmask.errors import ConfigError, OutsideAreaError
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.spec import ModelSpec
from stac_cloudmask.pipeline.inference import Part, Pass, Pixels, infer, plan_passes
from stac_cloudmask.pipeline.result import Stopwatch
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import Sources, resolve
from stac_cloudmask.stac.connection import Connection
from stac_cloudmask.stac.geometry import Area, Bbox, asked_box, bbox_of, footprint, pixels_of, read_area
from stac_cloudmask.stac.hrefs import HrefRule, unsigned
from stac_cloudmask.stac.reader import open_scene

if TYPE_CHECKING:
    from stac_cloudmask.models.session import OnnxSegmenter

logger = logging.getLogger(__name__)

THREADS: Final = 2
"""Default number of threads that read and write: more do not read one scene faster."""

OUTSIDE_GSD: Final = "the result is doubtful at a pixel size of"
DOUBTS: Final = (OUTSIDE_GSD, NO_SUN)
"""Beginnings of notes that a run also logs."""

DIGITS: Final = 7
"""Decimal places of the degrees of an area, for a precision of a centimeter."""
STRIDE: Final = 96
"""The windows that are read are snapped to multiples of this number of pixels: a multiple of the models' strides (32),
and of the pixels of coarser bands and the cells of the merge (6 of 10 m in 60 m)."""
CONTEXT: Final = 192
"""Pixels around an area that the models need: pixels further away change no probability by 3 percent."""
MERGE_MARGIN: Final = 2_000.0
"""Meters around an area that the merge needs: twice the standard deviation of its smoothing of lit ground."""
HIGHEST: Final = 8_000.0
"""Height in meters of the highest clouds outside an area whose shadows are searched; few clouds are higher. A whole
scene, where this costs nothing, is searched up to `core.merge_calibrated.RULES.highest`."""

Models = dict["ModelSpec", "tuple[Role, ...]"]
"""The models of a run and the roles of each."""


@dataclass(frozen=True)
class Mask:
    """A mask in memory, with its inputs.

    Attributes:
        sources: The assets that were read.
        grid: Grid of all arrays.
        evidence: Probabilities, product mask and sun.
        decision: Class map and votes, and how they were made.
        quicklook: ``(y, x, 3)`` uint8, the scene as people see it, small; None where red, green, blue were not read.
    """

    sources: Sources
    grid: Grid
    evidence: Evidence
    decision: Decision
    quicklook: NDArray[np.uint8] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Decisions made during processing that the user may want to know."""
        doubtful = {band.offset.reason: band.offset.dn for band in self.sources.bands if band.offset.doubtful}
        taken = (f"BOA offset is doubtful, took {dn} DN: {reason}" for reason, dn in doubtful.items())
        return (*taken, *self.sources.notes, *self.decision.notes)


def area_of(*, bbox: Bbox | None = None, geometry: Area | None = None) -> str | None:
    """Return an area in the form of ``Settings.area``, well-known text in longitude and latitude; None without one.

    Args:
        bbox: West, south, east, north in degrees; west beyond east crosses the antimeridian.
        geometry: Any input of `read_area`.

    Raises:
        ConfigError: Both are given, or one is not an area on Earth.
    """
    if bbox is not None and geometry is not None:
        raise ConfigError("give either bbox or geometry, not both")
    if bbox is None and geometry is None:
        return None
    area = read_area(geometry) if geometry is not None else asked_box(() if bbox is None else bbox)
    return str(shapely.to_wkt(shapely.normalize(area), rounding_precision=DIGITS, trim=True))


def part_of(item: pystac.Item, area: str) -> shapely.Geometry:
    """Return the part of an area inside an item's footprint.

    Raises:
        OutsideAreaError: They do not intersect.
    """
    wanted = read_area(area)
    lies = footprint(item.geometry, item.bbox)
    if lies.is_empty:
        return wanted
    part = shapely.intersection(wanted, shapely.make_valid(lies))
    if part.is_empty:
        area_box, item_box = ([round(value, 4) for value in bbox_of(where)] for where in (wanted, lies))
        within = shapely.box(*wanted.bounds).intersects(shapely.box(*lies.bounds))
        hint = ", but according to its footprint it has no data there" if within else ""
        raise OutsideAreaError(
            f"item {item.id!r} does not touch the area: the area has bbox {area_box}, the item {item_box}{hint}"
        )
    return part


def models_of(settings: Settings) -> Models:
    """Return the models of a run and the roles of each, every distinct model once.

    Raises:
        ModelError: A model is unknown, or does not have the role.
    """
    roles: Models = {find_model(name, role="cloud"): ("cloud",) for name in settings.cloud_model}
    shadow = find_model(settings.shadow_model, role="shadow")
    return roles | {shadow: (*roles.get(shadow, ()), "shadow")}


def named(models: Models) -> str:
    """Return the names and roles of models as text."""
    return ", ".join(f"{spec.name} ({' and '.join(roles)})" for spec, roles in models.items())


def bands_needed(settings: Settings) -> tuple[str, ...]:
    """Return the common names of the bands that the models read, each once."""
    return tuple(dict.fromkeys(name for spec in models_of(settings) for name in spec.bands))


def resolve_sources(item: pystac.Item, *, settings: Settings) -> Sources:
    """Return the assets to read of an item for its mask; nothing is read yet.

    Raises:
        StacCloudmaskError: The item lacks an asset.
    """
    names = bands_needed(settings)
    want_scl = settings.missing_scl == "fail"
    return resolve(item, names, boa_offset=settings.boa_offset, want_scl=want_scl, rule=href_rule(settings))


def href_rule(settings: Settings) -> HrefRule:
    """Return the rule for which hrefs may be read."""
    return HrefRule(private_hosts=settings.private_hosts, local_roots=settings.local_roots)


def connection_of(settings: Settings, headers: Mapping[str, str] | None = None) -> Connection:
    """Return the connection for reading catalogs and items."""
    retry = RetryPolicy(seconds=settings.retry_seconds)
    return Connection(rule=href_rule(settings), policy=retry, headers=headers or {})


def segmenter(spec: ModelSpec, settings: Settings) -> OnnxSegmenter:
    """Return a model with the runtime of some settings; its file is opened at the first use."""
    from stac_cloudmask.models.session import OnnxSegmenter  # noqa: PLC0415  (a second, which plots do not need)

    return OnnxSegmenter(
        spec,
        threads=settings.threads,
        provider=settings.provider,
        cache=Path(settings.model_cache) if settings.model_cache else None,
        local_means=settings.merge != FARMVIBES,
        any_shape=settings.area is not None,
    )


def passes_of(settings: Settings, shape: tuple[int, int]) -> list[Pass]:
    """Return the passes of the settings' models over a scene of ``shape``; no file is opened yet."""
    models = models_of(settings)
    parts = [Part(segmenter(spec, settings), roles, spec) for spec, roles in models.items()]
    return plan_passes(parts, shape, as_farmvibes=settings.merge == FARMVIBES)


@dataclass(frozen=True)
class Clip:
    """The pixels of an item to read, compute and keep.

    Attributes:
        read: Window that is read: the area with its surroundings, or the whole grid.
        kept: Window of the pixels that the area touches.
        inside: ``(y, x)`` of ``kept``, True where the area touches a pixel; None where that is everywhere.
        passes: The windows of the models, counted from the first pixel of ``read``.
    """

    read: Window
    kept: Window
    inside: NDArray[np.bool_] | None
    passes: list[Pass]

    def apply(self, mask: Mask) -> Mask:
        """Return the part of a mask that is kept, nodata outside the area.

        Inputs that only the merge needs, such as the product's mask, are left out.

        Raises:
            OutsideAreaError: The item has no data there.
        """
        inner = self.kept.within(self.read)

        def cut(array: NDArray[np.uint8], nodata: int) -> NDArray[np.uint8]:
            part = array[inner.slices]
            return part.copy() if self.inside is None else np.where(self.inside, part, np.uint8(nodata))

        evidence, decision, picture = mask.evidence, mask.decision, mask.quicklook
        cloud, shadow = cut(evidence.cloud, PERCENT_NODATA), cut(evidence.shadow, PERCENT_NODATA)
        if (cloud == PERCENT_NODATA).all():
            raise OutsideAreaError(f"item {mask.sources.item_id!r} has no data in the area")
        evidence = replace(evidence, cloud=cloud, shadow=shadow, product=None, nir=None, visible=None)
        decision = replace(
            decision,
            class_map=cut(decision.class_map, CloudClass.NODATA),
            votes=cut(decision.votes, 0),
            scl=None if decision.scl is None else cut(decision.scl, Scl.NODATA),
        )
        if picture is not None:  # sampled like a quicklook of this size
            step, coarse = step_of((inner.height, inner.width)), step_of((self.read.height, self.read.width))
            rows, cols = (np.arange(side.start, side.stop, step) // coarse for side in inner.slices)
            picture = picture[rows[:, None], cols]
        return replace(mask, grid=mask.grid.cut(inner), evidence=evidence, decision=decision, quicklook=picture)


def clip(sources: Sources, grid: Grid, settings: Settings) -> Clip:
    """Return the pixels of an item to read and compute for the area of the settings; all of them without an area.

    Windows are placed as in the whole item: they overlap in the same places, and the models give the same results.
    Pixels beyond the surroundings of the area are cut off, unless a model has a fixed window.

    Args:
        sources: The assets of the item.
        grid: Grid of the whole item's mask.
        settings: Settings of the mask.

    Raises:
        OutsideAreaError: The area has no pixel on the grid.
    """
    passes = passes_of(settings, grid.shape)
    if settings.area is None:
        whole = Window(0, 0, *grid.shape)
        return Clip(whole, whole, None, passes)
    found = pixels_of(shapely.from_wkt(settings.area), grid)
    if found is None:
        raise OutsideAreaError(f"item {sources.item_id!r}: the area is outside its pixels")
    kept, inside = found
    around = _joined([surroundings(kept, grid, settings.max_halo, sun_of(sources))], grid)
    parts = [Pass(needed(one.plan, kept, around), one.parts) for one in passes]
    fixed = [chip.read for one in parts if one.is_fixed for row in one.plan for chip in row]
    read = _joined([around, *fixed], grid)
    return Clip(read, kept, inside, [one.within(read) for one in parts])


def surroundings(kept: Window, grid: Grid, limit: float, sun: Sun | None) -> Window:
    """Return a window extended by the surroundings that models and merge need.

    These are `CONTEXT` and `MERGE_MARGIN`, and toward the sun the distance of clouds whose shadows can fall into the
    window, by the sun's elevation, at most ``limit`` meters. If the sun's position is unknown, the limit applies on all
    sides.
    """
    sides = [limit] * 4
    if sun is not None and sun.elevation > 0:
        far = min(HIGHEST / math.tan(math.radians(sun.elevation)), limit)
        north, east = far * math.cos(math.radians(sun.azimuth)), far * math.sin(math.radians(sun.azimuth))
        sides = [min(MERGE_MARGIN, limit) + max(reach, 0.0) for reach in (north, -north, -east, east)]
    up, down, left, right = (max(CONTEXT, math.ceil(reach / grid.gsd)) for reach in sides)
    height, width = kept.height + up + down, kept.width + left + right
    return Window(kept.row_off - up, kept.col_off - left, height, width).overlap(Window(0, 0, *grid.shape))


def needed(plan: list[list[Chip]], kept: Window, around: Window) -> list[list[Chip]]:
    """Return the windows of a plan that touch the kept window, or are needed to cover its surroundings."""
    rows = _run([row[0].write.rows for row in plan], kept.rows, around.rows)
    cols = _run([chip.write.cols for chip in plan[0]], kept.cols, around.cols)
    return [row[cols] for row in plan[rows]]


def _run(spans: list[slice], kept: slice, around: slice) -> slice:
    """Return the indexes of these spans along an axis, which are contiguous."""
    first = max(i for i, span in enumerate(spans) if span.start <= around.start)
    last = min(i for i, span in enumerate(spans) if span.stop >= around.stop)
    touching = [i for i, span in enumerate(spans) if span.start < kept.stop and span.stop > kept.start]
    return slice(min(first, *touching), max(last, *touching) + 1)


def _joined(windows: list[Window], grid: Grid) -> Window:
    """Return the smallest window of the grid that contains all others and begins and ends at multiples of `STRIDE`."""
    axes = list(zip(*(window.slices for window in windows), strict=True))
    top, left = (min(side.start for side in sides) // STRIDE * STRIDE for sides in axes)
    bottom, right = (math.ceil(max(side.stop for side in sides) / STRIDE) * STRIDE for sides in axes)
    return Window(top, left, bottom - top, right - left).overlap(Window(0, 0, *grid.shape))


def make_mask(item: pystac.Item, *, settings: Settings, watch: Stopwatch | None = None) -> Mask:
    """Read an item, run the models, and merge their results with the product's mask.

    Args:
        item: Sentinel-2 L2A of any provider, its asset hrefs absolute.
        settings: Settings of the mask.
        watch: Given the time that each stage takes.

    Raises:
        StacCloudmaskError: The item, a model or a setting does not work; the message says which and why.
    """
    watch = watch or Stopwatch()
    with watch.stage("open"):
        if settings.area is not None:
            part_of(item, settings.area)  # before any file is opened
        sources = resolve_sources(item, settings=settings)
        place: Clip

        def window(grid: Grid) -> Window:
            nonlocal place
            place = clip(sources, grid, settings)
            return place.read

        scene = open_scene(
            sources,
            loader=settings.loader,
            resolution=settings.resolution,
            threads=settings.threads or THREADS,
            retry=RetryPolicy(seconds=settings.retry_seconds),
            window=window,
        )
        _log_reading(scene.sources, scene.grid)
        scl = scene.scl()
    sun, passes = sun_of(scene.sources), place.passes
    found = mask_pixels(scene, gsd=scene.gsd, scl=scl, sun=sun, settings=settings, passes=passes, watch=watch)
    mask = Mask(scene.sources, scene.grid, *found)
    return mask if settings.area is None else place.apply(mask)


def sun_of(sources: Sources) -> Sun | None:
    """Return the position of the sun for an item; None if unknown."""
    return None if sources.sun is None else Sun(azimuth=sources.sun[0], elevation=sources.sun[1])


def _log_reading(sources: Sources, grid: Grid) -> None:
    keys = ", ".join(band.asset_key for band in sources.assets)
    places = ", ".join(sorted({unsigned(band.href).rpartition("/")[0] for band in sources.assets}))
    size = f"{grid.height} x {grid.width} pixels of {grid.gsd:g} m"
    logger.info("item %r: reading %s, %s, from %s", sources.item_id, keys, size, places)


def mask_pixels(
    scene: Pixels,
    *,
    gsd: float | None = None,
    scl: tuple[NDArray[np.uint8], int] | None,
    sun: Sun | None,
    settings: Settings,
    passes: Sequence[Pass] | None = None,
    watch: Stopwatch | None = None,
) -> tuple[Evidence, Decision, NDArray[np.uint8] | None]:
    """Run the models over pixels from any source, and merge the results with the scene classification.

    Args:
        scene: The digital numbers of at least the bands of the models.
        gsd: Pixel size on the ground in meters; None if it is that of the grid.
        scl: The scene classification ``(y, x)``, and how many pixels of the scene one of its own spans along an axis.
        sun: Position of the sun; None if unknown.
        settings: Settings of the mask.
        passes: The windows of the models; None covers the scene.
        watch: Given the time that each stage takes.

    Returns:
        The evidence of the merge with the probabilities, its class map and votes, and a picture of the scene.
    """
    watch, gsd = watch or Stopwatch(), gsd or scene.grid.gsd
    passes = passes or passes_of(settings, scene.grid.shape)
    with watch.stage("infer"):
        progress = partial(watch.progress, "infer")
        found = infer(scene, passes, settings=settings, nir_factor=RULES.cell_factor(gsd), progress=progress)
    codes = {"cloud_codes": settings.scl_cloud, "shadow_codes": settings.scl_shadow}
    evidence = Evidence(
        cloud=found.cloud,
        shadow=found.shadow,
        gsd=gsd,
        product=None if scl is None else ProductMask(scl=scl[0], factor=scl[1], shape=scene.grid.shape, **codes),
        sun=sun,
        nir=found.nir,
        visible=found.visible,
    )
    with watch.stage("merge"):
        watch.progress("merge", 0, 1)
        decision = decide(evidence, settings, threads=settings.threads or CPU_COUNT)
        watch.progress("merge", 1, 1)
    if found.ground is not None:
        given = None if evidence.product is None else evidence.product.classes(0, scene.grid.height)
        decision = replace(decision, scl=improved_scl(decision.class_map, found.cloud, found.ground, given))
    notes = [
        f"{OUTSIDE_GSD} {gsd:g} m: model {spec.name} is made for {spec.gsd[0]:g} to {spec.gsd[1]:g} m"
        for spec in models_of(settings)
        if spec.gsd is not None and not spec.gsd[0] <= gsd <= spec.gsd[1]
    ]
    if found.damaged:
        notes.append(
            f"{found.damaged} pixels have digital numbers between 32768 and 65534, which cannot be reflectance: no data"
        )
    return evidence, replace(decision, notes=(*decision.notes, *notes)), found.quicklook
