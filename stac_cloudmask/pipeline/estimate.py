"""What a mask would take, for a dry run: pixels, bytes to read, windows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.policy import FARMVIBES
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.errors import BandNotFoundError
from stac_cloudmask.pipeline.area import clip
from stac_cloudmask.pipeline.inference import plan_passes, plan_windows
from stac_cloudmask.pipeline.mask import THREADS, parts_of
from stac_cloudmask.pipeline.result import Estimate
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.reader import open_files, whole_factor

if TYPE_CHECKING:
    from stac_cloudmask.config import Settings
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.pipeline.mask import Models
    from stac_cloudmask.stac.bands import BandSource, Sources


class FileToRead(NamedTuple):
    """The grid of a file, and the bytes to read of it; None where nothing states them."""

    grid: Grid
    size: int | None


def estimate_mask(sources: Sources, *, models: Models, settings: Settings) -> Estimate:
    """Return what the mask of an item would take.

    A file is opened only where its item does not state its grid, or neither the item nor the disk its size; or where a
    coarser mask may be made from its overviews.

    Raises:
        StacCloudmaskError: The item cannot be masked, as far as metadata and headers tell.
    """
    every = [*sources.bands, *([] if sources.scl is None else [sources.scl])]
    stated = {source: _stated(source, settings.resolution) for source in every}
    retry = RetryPolicy(seconds=settings.retry_seconds)
    unknown = [source for source, file in stated.items() if file is None]
    opened = open_files(unknown, resolution=settings.resolution, threads=settings.threads or THREADS, retry=retry)
    files = {source: file for source, file in stated.items() if file is not None}
    for file in opened:
        size = None if file.level is not None else _size(file.source)
        files[file.source] = FileToRead(file.grid, size or file.stored)
    finest = min((files[band].grid for band in sources.bands), key=lambda grid: grid.gsd)
    grid = finest.coarsen(whole_factor(finest, settings.resolution, where=sources.bands[0].where))
    sun = None if sources.sun is None else Sun(azimuth=sources.sun[0], elevation=sources.sun[1])
    place = clip(grid, settings, item_id=sources.item_id, sun=sun)
    read, kept = (Window(0, 0, *grid.shape),) * 2 if place is None else (place.read, place.kept)
    windows, computed = _work((read.height, read.width), models, settings)
    share = read.height * read.width / (grid.height * grid.width)
    sizes = [file.size for file in files.values() if file.size is not None]
    return Estimate(
        pixels=kept.height * kept.width,
        bytes=round(share * sum(sizes)) if len(sizes) == len(files) else None,
        windows=windows,
        computed=computed,
    )


def _stated(source: BandSource, resolution: float | None) -> FileToRead | None:
    """What the item and the disk state of a file; None where that is not enough."""
    size, grid = _size(source), source.grid
    if size is None or grid is None:
        return None
    may_have_overviews = source.common_name != SCL and resolution is not None and resolution > grid.gsd
    return None if may_have_overviews else FileToRead(grid, size)


def _size(source: BandSource) -> int | None:
    """Return the bytes of a file.

    Raises:
        BandNotFoundError: A local file does not exist.
    """
    if is_remote(source.href):
        return source.size
    try:
        return Path(source.href).stat().st_size
    except OSError:
        raise BandNotFoundError(f"{source.where}: there is no file {source.href}; is the item up to date?") from None


def _work(shape: tuple[int, int], models: Models, settings: Settings) -> tuple[int, int]:
    """Count the windows of a scene without nodata, and their pixels for each model, padding included."""
    windows = computed = 0
    for window, group in plan_passes(parts_of(models, settings)):
        plan = plan_windows(*shape, window, as_farmvibes=settings.merge == FARMVIBES)
        reads = [chip.read for row in plan for chip in row]
        windows += len(reads)
        paddings = [part.spec.window.padded for part in group]
        computed += sum(padded(read.height) * padded(read.width) for read in reads for padded in paddings)
    return windows, computed
