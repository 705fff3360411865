"""How much there is to read of an item: by its metadata where they say it, else by the headers of its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stac_cloudmask.errors import BandNotFoundError
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.read import PATIENCE, Access, whole_factor
from stac_cloudmask.stac.scene import STRIP

if TYPE_CHECKING:
    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource, Sources


@dataclass(frozen=True)
class Part:
    """What is to be read of one file: on which grid, and its bytes, None where nothing says how many."""

    source: BandSource
    grid: Grid
    read_grid: Grid
    size: int | None

    @property
    def pixels(self) -> int:
        """That are read."""
        return self.read_grid.height * self.read_grid.width


@dataclass(frozen=True)
class Sizes:
    """What is to be read of an item.

    Attributes:
        grid: Of the mask.
        parts: The bands, then SCL.
    """

    grid: Grid
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int | None:
        """Of all parts; None where that of one is not known."""
        sizes = [part.size for part in self.parts]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def pixels(self) -> int:
        """That are read, of all parts."""
        return sum(part.pixels for part in self.parts)

    def held(self, *, in_memory: bool) -> int:
        """Bytes of what is whole in memory: SCL, bands of larger pixels than the finest, all bands if ``in_memory``.

        And of the rows of the others: those that windows are cut from, and those that are read ahead.
        """
        bands = [part for part in self.parts if part.source.common_name != SCL]
        finest = min(part.grid.gsd for part in bands)
        whole = sum(part.pixels * (2 if part in bands else 1) for part in self.parts if part.grid.gsd > finest)
        rows = self.grid.height if in_memory else min(2 * STRIP, self.grid.height)
        return whole + 2 * len(bands) * rows * self.grid.width


def size_up(sources: Sources, *, resolution: float | None, loader: Loader, threads: int) -> Sizes:
    """What ``read.open_scene`` would read.

    A file is opened only where its item does not state its grid, or neither the item nor the disk its size; or where a
    coarser mask may be made from its overviews.

    Raises:
        StacCloudmaskError: As ``read.open_scene``, as far as it has been looked.
    """
    every = [*sources.bands, *([] if sources.scl is None else [sources.scl])]
    known = {source: _by_metadata(source, resolution) for source in every}
    unknown = [source for source, part in known.items() if part is None]
    access = Access(loader=loader, threads=threads, patience=PATIENCE)
    for one in access.look(unknown, rule=sources.rule, resolution=resolution):
        facts = one.facts
        size = None if facts.overview else _size(one.source)
        known[one.source] = Part(one.source, one.grid, facts.read_grid, size or facts.stored)
    parts = tuple(part for part in known.values() if part is not None)
    finest = min(parts[: len(sources.bands)], key=lambda part: part.grid.gsd)
    factor = whole_factor(finest.grid, resolution, where=finest.source.where)
    return Sizes(finest.grid.coarsen(factor), parts)


def _by_metadata(source: BandSource, resolution: float | None) -> Part | None:
    """What the item and the disk say; None where that is not enough."""
    size, grid = _size(source), source.grid
    if size is None or grid is None:
        return None
    may_have_overviews = source.common_name != SCL and resolution is not None and resolution > grid.gsd
    return None if may_have_overviews else Part(source, grid, grid, size)


def _size(source: BandSource) -> int | None:
    """Bytes of the file.

    Raises:
        BandNotFoundError: It should be here, and is not.
    """
    if is_remote(source.href):
        return source.size
    try:
        return Path(source.href).stat().st_size
    except OSError:
        raise BandNotFoundError(f"{source.where}: there is no file {source.href}; is the item up to date?") from None
