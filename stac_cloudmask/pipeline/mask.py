"""Make the mask of an item in memory: read, run the models, merge."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from affine import Affine
from dask.system import CPU_COUNT
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from stac_cloudmask.core.classes import CLASSES, CloudClass, improved_scl
from stac_cloudmask.core.merge import FARMVIBES, Decision, decide, nir_factor
from stac_cloudmask.core.predict import Member, Role
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.pipeline.area import Clip, clip, part_of
from stac_cloudmask.pipeline.inference import Part, Pass, Pixels, infer, plan_passes, step_of
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.assets import VOTES, unsigned
from stac_cloudmask.stac.bands import Sources, resolve
from stac_cloudmask.stac.connection import Connection
from stac_cloudmask.stac.hrefs import HrefRule
from stac_cloudmask.stac.reader import open_scene

if TYPE_CHECKING:
    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.grid import Grid, Window
    from stac_cloudmask.models.spec import ModelSpec

logger = logging.getLogger(__name__)

THREADS: Final = 2
"""Default number of threads that read and write: more do not read one scene faster."""

OUTSIDE_GSD: Final = "the result is doubtful at a pixel size of"

Models = Mapping["ModelSpec", "tuple[Role, ...]"]
"""The models of a run and the roles of each."""

Progress = Callable[[str, int, int], None]
"""A function called with a stage, how much of it is done, and its total."""


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


class Stopwatch:
    """A stopwatch for wall seconds by stage, with a function that is called with the progress of each."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = progress or (lambda *_: None)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 3)


def choose_models(settings: Settings) -> dict[ModelSpec, tuple[Role, ...]]:
    """Return the models of a run and the roles of each, every distinct model once.

    Raises:
        ModelError: A model is unknown, or does not have the role.
    """
    roles: dict[ModelSpec, tuple[Role, ...]] = {
        find_model(name, role="cloud"): ("cloud",) for name in settings.cloud_model
    }
    shadow = find_model(settings.shadow_model, role="shadow")
    return roles | {shadow: (*roles.get(shadow, ()), "shadow")}


def named(models: Models) -> str:
    """Return the names and roles of models as text."""
    return ", ".join(f"{spec.name} ({' and '.join(roles)})" for spec, roles in models.items())


def bands_needed(settings: Settings) -> tuple[str, ...]:
    """Return the common names of the bands that the models read, each once."""
    return tuple(dict.fromkeys(name for spec in choose_models(settings) for name in spec.bands))


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
    models = choose_models(settings)
    parts = [Part(spec, Member(segmenter(spec, settings), roles)) for spec, roles in models.items()]
    return plan_passes(parts, shape, as_farmvibes=settings.merge == FARMVIBES)


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
            place = clip_of(sources, grid, settings)
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


def clip_of(sources: Sources, grid: Grid, settings: Settings) -> Clip:
    """Return the pixels to read and compute of an item whose whole mask would have a grid; see ``clip``."""
    return clip(grid, settings, passes_of(settings, grid.shape), item_id=sources.item_id, sun=sun_of(sources))


def _log_reading(sources: Sources, grid: Grid) -> None:
    places = sorted({unsigned(band.href).rpartition("/")[0] for band in sources.assets})
    logger.info(
        "item %r: reading %s, %d x %d pixels of %g m, from %s",
        *(sources.item_id, ", ".join(band.asset_key for band in sources.assets)),
        *(grid.height, grid.width, grid.gsd, ", ".join(places)),
    )


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
        found = infer(
            scene,
            passes,
            nir_factor=nir_factor(gsd),
            in_memory=settings.in_memory,
            as_farmvibes=settings.merge == FARMVIBES,
            want_ground=settings.scl,
            progress=partial(watch.progress, "infer"),
        )
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
    notes = [*decision.notes, *_gsd_notes(settings, gsd)]
    if found.damaged:
        notes.append(
            f"{found.damaged} pixels have digital numbers between 32768 and 65534, which cannot be reflectance: no data"
        )
    return evidence, replace(decision, notes=tuple(notes)), found.quicklook


def _gsd_notes(settings: Settings, gsd: float) -> Iterator[str]:
    """Yield a note for each model that was made for other pixel sizes."""
    for spec in choose_models(settings):
        if spec.gsd is not None and not spec.gsd[0] <= gsd <= spec.gsd[1]:
            yield f"{OUTSIDE_GSD} {gsd:g} m: model {spec.name} is made for {spec.gsd[0]:g} to {spec.gsd[1]:g} m"


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
    grid = mask.grid
    classes = [(info.code, info.name) for info in CLASSES if info.code != CloudClass.NODATA]
    percent: dict[str, object] = {"units": "%"}
    bits = [(1 << bit, name) for bit, (name, _) in enumerate(VOTES)]
    layers = {
        "cloud_mask": (mask.decision.class_map, "cloud and cloud-shadow mask", _flags("flag_values", classes)),
        "cloud_probability": (mask.evidence.cloud, "cloud probability", percent),
        "shadow_probability": (mask.evidence.shadow, "cloud-shadow probability", percent),
        "mask_votes": (mask.decision.published_votes, "sources that flagged a pixel", _flags("flag_masks", bits)),
    }
    shared = {"_FillValue": np.uint8(CloudClass.NODATA), "grid_mapping": "spatial_ref"}
    dataset = xr.Dataset(
        {
            name: (("y", "x"), array, {"long_name": title, **attrs, **shared})
            for name, (array, title, attrs) in layers.items()
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
        "models": named(choose_models(settings)),
        "policy": settings.merge,
        "version": VERSION,
        "notes": "; ".join(mask.notes),
        "product_mask": mask.sources.scl and mask.sources.scl.asset_key,
    }
    return {name: value for name, value in attrs.items() if value}
