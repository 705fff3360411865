"""From an item to a mask in memory: what is read, what the models say, what the merge makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.policy import FARMVIBES, Decision, decide, nir_factor
from stac_cloudmask.core.predict import PERCENT_NODATA, Bands, Member, Role
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter, usable_cpus
from stac_cloudmask.pipeline.inference import Part, Quicklook, infer, step_of
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.hrefs import HrefRule
from stac_cloudmask.stac.reader import open_scene
from stac_cloudmask.stac.static import Connection

if TYPE_CHECKING:
    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.models.spec import ModelSpec
    from stac_cloudmask.stac.bands import Sources
    from stac_cloudmask.stac.reader import Scene

THREADS: Final = 2
"""Threads that read and write where the user does not say: more do not read one scene faster."""

Progress = Callable[[str, int, int], None]
"""Told a stage, and how much of it is done, of how much."""


def no_progress(stage: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Mask:
    """A mask in memory, with all that it came from.

    Attributes:
        sources: What was read.
        grid: Of all arrays.
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
        """What was decided on the way that the user may want to know."""
        doubtful = {band.offset.reason: band.offset.dn for band in self.sources.bands if band.offset.doubtful}
        taken = (f"BOA offset is doubtful, took {dn} DN: {reason}" for reason, dn in doubtful.items())
        return (*taken, *self.decision.notes)


@dataclass(frozen=True)
class OpenPixels:
    """A scene as inference wants it, and a look at it on the way."""

    scene: Scene
    look: Quicklook

    @property
    def grid(self) -> Grid:
        """Of all bands, and of the mask."""
        return self.scene.grid

    @property
    def bands(self) -> Bands:
        """Names, scales and offsets of the digital numbers."""
        return bands_of(self.scene)

    @property
    def strip(self) -> int:
        """Rows in which it is read best."""
        return self.scene.strip

    def dn(self, row_off: int, height: int) -> NDArray[np.uint16]:
        """``(band, height, x)`` digital numbers; 0 is nodata."""
        return self.look.read(row_off, height)


def bands_of(scene: Scene) -> Bands:
    """Names, scales and offsets of a scene's digital numbers."""
    return Bands(scene.bands, scene.scales, scene.offsets)


class Stopwatch:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 3)


def choose_models(settings: Settings) -> dict[ModelSpec, tuple[Role, ...]]:
    """The models of a run and the roles that each has, every distinct model once.

    Raises:
        ModelError: A model is not known, or cannot play its role.
    """
    roles: dict[ModelSpec, tuple[Role, ...]] = {}
    for name in dict.fromkeys(settings.cloud_model):
        spec = find_model(name, role="cloud")
        roles[spec] = ("cloud",)
    shadow = find_model(settings.shadow_model, role="shadow")
    roles[shadow] = (*roles.get(shadow, ()), "shadow")
    return roles


def resolve_sources(item: pystac.Item, *, models: Iterable[ModelSpec], settings: Settings) -> Sources:
    """What is to be read of an item for these models; nothing is read yet.

    Raises:
        StacCloudmaskError: The item does not have it.
    """
    names = tuple(dict.fromkeys(name for spec in models for name in spec.bands))
    want_scl = settings.missing_scl == "fail"
    return resolve(item, names, boa_offset=settings.boa_offset, want_scl=want_scl, rule=href_rule(settings))


def href_rule(settings: Settings) -> HrefRule:
    """Which hrefs may be read."""
    return HrefRule(private_hosts=settings.private_hosts, local_roots=settings.local_roots)


def connection_of(settings: Settings) -> Connection:
    """How catalogs and items are read."""
    return Connection(rule=href_rule(settings), policy=RetryPolicy(seconds=settings.retry_seconds))


def segmenter(spec: ModelSpec, settings: Settings) -> OnnxSegmenter:
    """A model as the settings would have it run; its file is opened at the first use."""
    cache = None if settings.model_cache is None else Path(settings.model_cache)
    return OnnxSegmenter(spec, threads=settings.threads, provider=settings.provider, cache=cache)


def make_mask(
    item: pystac.Item,
    *,
    settings: Settings,
    models: Mapping[ModelSpec, tuple[Role, ...]] | None = None,
    keep_probabilities: bool = True,
    progress: Progress = no_progress,
    watch: Stopwatch | None = None,
) -> Mask:
    """Read an item, ask the models, merge their answers with the product's mask.

    Args:
        item: Sentinel-2 L2A of any provider, its asset hrefs absolute.
        settings: How.
        models: From ``choose_models``, if they are chosen already.
        keep_probabilities: Without them a mask takes half the memory; those of its evidence are then empty.
        progress: Told what is being done.
        watch: Given the time that each stage takes.

    Raises:
        StacCloudmaskError: The item, a model or a setting does not work; says which and why.
    """
    watch = watch or Stopwatch()
    models = models or choose_models(settings)
    with watch.stage("open"):
        sources = resolve_sources(item, models=models, settings=settings)
    segmenters = {spec: segmenter(spec, settings) for spec in models}
    with watch.stage("open"):
        scene = open_scene(
            sources, loader=settings.loader, resolution=settings.resolution, threads=settings.threads or THREADS
        )
    look = Quicklook(bands_of(scene), scene.grid.shape, scene.dn)
    with watch.stage("infer"):
        parts = [Part(spec, Member(segmenters[spec], roles)) for spec, roles in models.items()]
        percents = infer(
            OpenPixels(scene, look),
            parts,
            nir_factor=nir_factor(scene.grid.gsd),
            in_memory=settings.in_memory,
            progress=partial(progress, "infer"),
            as_farmvibes=settings.merge == FARMVIBES,
        )
    with watch.stage("infer"):  # when the models have given back what they worked in
        product = _product_mask(scene, settings)
    evidence = Evidence(
        cloud=percents.cloud,
        shadow=percents.shadow,
        gsd=scene.grid.gsd,
        product=product,
        sun=None if sources.sun is None else Sun(azimuth=sources.sun[0], elevation=sources.sun[1]),
        nir=percents.nir,
        nir_factor=percents.nir_factor,
        expendable=not keep_probabilities,
    )
    with watch.stage("merge"):
        progress("merge", 0, 1)
        decision = decide(
            evidence,
            merge=settings.merge,
            cloud_thr=settings.cloud_thr,
            shadow_thr=settings.shadow_thr,
            buffer=settings.buffer,
            min_area=settings.min_area,
            hole_area=settings.hole_area,
            threads=settings.threads or usable_cpus(),
        )
        progress("merge", 1, 1)
    kept = evidence if keep_probabilities else evidence.without_probabilities()
    return Mask(scene.sources, scene.grid, kept, decision, look.rgb)


def _product_mask(scene: Scene, settings: Settings) -> ProductMask | None:
    classes = scene.scl()
    if classes is None:
        return None
    scl, factor = classes
    return ProductMask(
        scl=scl,
        factor=factor,
        shape=scene.grid.shape,
        cloud_codes=settings.scl_cloud,
        shadow_codes=settings.scl_shadow,
    )


def to_dataset(mask: Mask) -> xr.Dataset:
    """The arrays of a mask with coordinates and CRS.

    Returns:
        Variables on ``(y, x)``, uint8 with ``_FillValue`` 255: ``cloud_mask`` (0 clear, 1 cloud, 2 cloud shadow),
        ``cloud_probability`` and ``shadow_probability`` (whole percents), and ``mask_votes`` (bits, 0 where nodata).
        ``y`` and ``x`` are the centres of pixels. Where red, green and blue were read there is also ``quicklook``,
        ``(quicklook_y, quicklook_x, rgb)`` uint8: the scene as people see it, sampled at these coordinates;
        ``dataset.cloudmask`` shows it in a notebook.
    """
    grid = mask.grid
    coords = xr_coords(GeoBox(grid.shape, Affine(*grid.transform), grid.code))
    classes = [info for info in CLASSES if info.code != CloudClass.NODATA]
    flags = {
        "flag_values": np.array([info.code for info in classes], np.uint8),
        "flag_meanings": " ".join(info.name for info in classes),
    }
    percent = {"units": "%", "_FillValue": PERCENT_NODATA}
    variables = {
        "cloud_mask": _variable(mask.decision.class_map, {**flags, "_FillValue": int(CloudClass.NODATA)}),
        "cloud_probability": _variable(mask.evidence.cloud, percent),
        "shadow_probability": _variable(mask.evidence.shadow, percent),
        "mask_votes": _variable(mask.decision.votes, {}),
    }
    attrs = {"item_id": mask.sources.item_id}
    if mask.sources.scl is not None:
        attrs["product_mask"] = mask.sources.scl.asset_key
    dataset = xr.Dataset(variables, coords=coords, attrs=attrs)
    return dataset if mask.quicklook is None else _with_quicklook(dataset, mask.quicklook)


def _with_quicklook(dataset: xr.Dataset, quicklook: NDArray[np.uint8]) -> xr.Dataset:
    height, width = dataset["cloud_mask"].shape
    step = step_of((height, width))
    axes = {f"quicklook_{axis}": dataset[axis].values[::step] for axis in ("y", "x")}
    return dataset.assign(quicklook=((*axes, "rgb"), quicklook)).assign_coords(axes)


def _variable(array: NDArray[np.uint8], attrs: Mapping[str, object]) -> xr.Variable:
    return xr.Variable(("y", "x"), array, attrs={**attrs, "grid_mapping": "spatial_ref"})
