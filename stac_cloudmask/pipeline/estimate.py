"""Estimate the effort of masks: pixels, bytes and windows for a dry run, and advice for a long run."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np
import pystac

from stac_cloudmask.config import FAST, Settings
from stac_cloudmask.errors import BandNotFoundError, StacCloudmaskError
from stac_cloudmask.pipeline.item import plan_item
from stac_cloudmask.pipeline.mask import THREADS, clip, models_of, passes_of, resolve_sources, segmenter
from stac_cloudmask.pipeline.result import Estimate, Result, failed
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.parse import Failure, Found
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.reader import open_files, whole_factor

if TYPE_CHECKING:
    from stac_cloudmask.pipeline.inference import Pass
    from stac_cloudmask.stac.bands import BandSource, Sources
    from stac_cloudmask.stac.catalog import OutputCatalog

LONG: Final = 600.0
"""Seconds of work from which advice on faster settings is given."""
SLOWEST: Final = 6e-6
"""Seconds per pixel on a slow machine: if the run would be short even there, nothing is measured."""
MOST_EXAMINED: Final = 500
"""Maximum number of items that are examined."""
TIMED_SIDE: Final = 256
"""Side in pixels of the window that is timed."""
TILE_SHAPE: Final = (10980, 10980)
"""Assumed number of 10 m pixels of an item that does not state its grid."""


def preview_item(item: pystac.Item, *, settings: Settings, catalog: OutputCatalog) -> Result:
    """Return what `process_item` would do, with an estimate of the effort; nothing is written.

    An item that cannot be masked according to metadata, headers or models is a failed result.
    """
    try:
        plan = plan_item(item, settings=settings)
        sources = resolve_sources(item, settings=settings)
        made = plan.made(catalog)
        return made or replace(plan.result("planned"), estimate=estimate_mask(sources, settings=settings))
    except StacCloudmaskError as error:
        return failed(item.id, error)


def estimate_mask(sources: Sources, *, settings: Settings) -> Estimate:
    """Return the estimated effort of an item's mask.

    A file is opened only if its item does not state its grid, if neither the item nor the disk states its size, or if a
    coarser mask may be made from its overviews.

    Raises:
        StacCloudmaskError: The item cannot be masked according to metadata and headers.
    """
    resolution, retry = settings.resolution, RetryPolicy(seconds=settings.retry_seconds)
    sizes = {source: _size(source) for source in sources.assets}
    grids = {source: source.grid for source in sources.assets if source.grid is not None}
    unclear = [
        source
        for source in sources.assets
        if sizes[source] is None
        or source not in grids
        or (source.common_name != SCL and (resolution or 0) > grids[source].gsd)
    ]
    opened = open_files(unclear, resolution=resolution, threads=settings.threads or THREADS, retry=retry)
    for source, file in zip(unclear, opened, strict=True):
        grids[source] = file.grid
        if sizes[source] is None or file.level is not None:
            sizes[source] = file.stored
    finest = min((grids[band] for band in sources.bands), key=lambda grid: grid.gsd)
    grid = finest.coarsen(whole_factor(finest, resolution, where=sources.bands[0].where))
    place = clip(sources, grid, settings)
    share = place.read.height * place.read.width / (grid.height * grid.width)
    known = [size for size in sizes.values() if size is not None]
    return Estimate(
        pixels=place.kept.height * place.kept.width,
        bytes=round(share * sum(known)) if len(known) == len(sizes) else None,
        windows=sum(len(row) for one in place.passes for row in one.plan),
        computed=_computed(place.passes),
    )


def advice(items: Iterable[Found], settings: Settings, *, long: float = LONG) -> tuple[list[Found], str | None]:
    """Return the examined items, and advice on faster settings if they are much work for this machine.

    Args:
        items: Items of a run; only as many are taken as make a long run.
        settings: Settings of the masks.
        long: Seconds of work from which advice is given.
    """
    pixels, pace = 0, 0.0
    seen: list[Found] = []
    for item in islice(items, MOST_EXAMINED):
        seen.append(item)
        pixels += 0 if isinstance(item, Failure) else _pixels_of(item, settings)
        if not pace and pixels * SLOWEST > long:
            pace = _pace(settings)
        if pixels * pace > long:
            return seen, f"more than {long / 60:.0f} minutes of work; {_faster(settings, pace)}"
    return seen, None


def _pixels_of(item: pystac.Item, settings: Settings) -> int:
    """Return the number of pixels of an item's windows according to its metadata."""
    try:
        bands = resolve_sources(item, settings=settings).bands
    except StacCloudmaskError:  # the run itself will report it
        return 0
    grids = [band.grid for band in bands if band.grid is not None]
    shape, gsd = min(((grid.shape, grid.gsd) for grid in grids), key=itemgetter(1), default=(TILE_SHAPE, 10.0))
    factor = max(1, round((settings.resolution or gsd) / gsd))
    return _computed(passes_of(settings, (shape[0] // factor, shape[1] // factor)))


def _computed(passes: list[Pass]) -> int:
    """Count the pixels of windows for each model, padding included, as if there were no nodata."""
    return sum(
        part.spec.window.padded(chip.read.height) * part.spec.window.padded(chip.read.width)
        for one in passes
        for part in one.parts
        for row in one.plan
        for chip in row
    )


def _pace(settings: Settings) -> float:
    """Return the seconds per pixel of the models on this machine, measured on one window of noise."""
    total = 0.0
    for spec in models_of(settings):
        model = segmenter(spec, settings)
        side = spec.window.padded(min(TIMED_SIDE, spec.window.size))
        chips = np.random.default_rng(0).random((1, len(spec.bands), side, side), np.float32)
        model.predict(chips)  # loads the model
        begun = perf_counter()
        model.predict(chips)
        total += (perf_counter() - begun) / side**2
    return total


def _faster(settings: Settings, seconds: float) -> str:
    """Return options that would help, with the measured speedup of a window."""
    choices = {"--fast": replace(settings, cloud_model=(FAST,), shadow_model=FAST)}
    if settings.provider == "cpu" and find_spec("openvino") is not None:
        choices["--provider openvino"] = replace(settings, provider="openvino")
    times = {}
    for option, choice in choices.items():
        with suppress(StacCloudmaskError):  # a runtime can be installed and broken
            times[option] = 1.0 if choice == settings else seconds / _pace(choice)
    measured = [f"`{option}` is {ratio:.1f} times as fast here" for option, ratio in times.items() if ratio > 1]
    coarser = [] if settings.resolution else ["`--resolution 20` takes a quarter of the time"]
    return ", ".join([*measured, *coarser, "`--clip` masks only an area"])


def _size(source: BandSource) -> int | None:
    """Return the size of a file in bytes.

    Raises:
        BandNotFoundError: A local file does not exist.
    """
    if is_remote(source.href):
        return source.size
    try:
        return Path(source.href).stat().st_size
    except OSError:
        raise BandNotFoundError(f"{source.where}: there is no file {source.href}; is the item up to date?") from None
