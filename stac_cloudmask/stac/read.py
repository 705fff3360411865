"""From sources to a scene: look into the files, fit their grids together, decide what is held and what is streamed."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from stac_cloudmask.errors import ConfigError, StacCloudmaskWarning, UnsupportedItemError
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.inspection import FileFacts, inspect, same_place, shown
from stac_cloudmask.stac.offset import settle
from stac_cloudmask.stac.scene import Classes, Held, Layer, Reader, Scene, Streamed
from stac_cloudmask.stac.sign import sign
from stac_cloudmask.stac.transport import Patience, check_redirects, gdal_env, persist, quiet_loaders, require_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stac_cloudmask.config import Loader
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.stac.bands import BandSource, Sources
    from stac_cloudmask.stac.hrefs import HrefRule
    from stac_cloudmask.stac.overviews import Overview

PATIENCE: Final = Patience()


@dataclass(frozen=True)
class Looked:
    """A source and what its file turned out to be."""

    source: BandSource
    facts: FileFacts

    @property
    def grid(self) -> Grid:
        """That of the file."""
        return self.facts.grid


@dataclass(frozen=True, kw_only=True)
class Access:
    """How files are read: by which library, by how many threads, with how much patience.

    Local files are read by one thread: there is no latency to hide, and each thread holds copies of what it reads.
    """

    loader: Loader
    threads: int
    patience: Patience

    def look(self, sources: Sequence[BandSource], *, rule: HrefRule, resolution: float | None) -> list[Looked]:
        """Follow the redirects of sources and look into their files, for what pixels of ``resolution`` metres take."""

        def look_at(source: BandSource) -> Looked:
            check_redirects(sign(source.href), base=source.base, rule=rule)

            def attempt(*, fresh: bool) -> FileFacts:
                if not fresh:  # persist does for the others
                    require_answer(source)
                env = gdal_env([source.href], patience=self.patience, fresh=fresh)
                return inspect(source, sign(source.href), env, resolution=resolution)

            return Looked(source, persist(attempt, source=source, patience=self.patience))

        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(look_at, sources))

    def reader(self, group: Sequence[Looked]) -> Reader:
        """Reads sources of one grid together."""
        return Reader(
            sources=tuple(looked.source for looked in group),
            grid=group[0].facts.read_grid,
            overview=group[0].facts.overview,
            block=max(looked.facts.block for looked in group),
            loader=self.loader,
            threads=self.threads if is_remote(group[0].source.href) else 1,
            patience=self.patience,
        )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How rasters come onto the scene's grid, whose pixels are ``factor`` x ``factor`` of the finest band's."""

    finest: Looked
    factor: int
    access: Access

    def layer(self, indexes: Sequence[int], group: Sequence[Looked], *, in_memory: bool) -> Layer:
        """The bands of one grid: upsampled to the coarsest grid that nests in theirs and the scene's, then averaged.

        Or averaged from an overview, which only bands have that need no upsampling.
        """
        ratio = self._ratio(self.finest, group[0])
        common = math.gcd(ratio, self.factor)
        begun = group[0].facts.read_factor
        between = self.finest.grid.coarsen(common * begun)
        reader = self.access.reader(group)
        held = in_memory or ratio > 1
        return Layer(
            indexes=tuple(indexes),
            rows=Held(reader.whole(), ratio // common, between.width) if held else Streamed(reader),
            height=between.height,
            down=self.factor // (common * begun),
        )

    def classes(self, scl: Looked) -> Classes:
        """The scene classification, whose pixels may be larger or smaller than the finest band's."""
        if scl.grid.gsd < self.finest.grid.gsd:
            down = self._ratio(scl, self.finest) * self.factor
            return Classes(reader=self.access.reader([scl]), up=1, down=down, between=scl.grid.shape)
        ratio = self._ratio(self.finest, scl)
        common = math.gcd(ratio, self.factor)
        between = self.finest.grid.coarsen(common).shape
        reader = self.access.reader([scl])
        return Classes(reader=reader, up=ratio // common, down=self.factor // common, between=between)

    def _ratio(self, fine: Looked, coarse: Looked) -> int:
        ratio = round(coarse.grid.gsd / fine.grid.gsd)
        if not same_place(fine.grid.coarsen(ratio), coarse.grid):
            raise UnsupportedItemError(
                f"{coarse.source.where} does not fit {fine.source.where}: {shown(coarse.grid)} against "
                f"{shown(fine.grid)}; both must share CRS and corner, one pixel size a whole multiple of the other"
            )
        return ratio


def open_scene(
    sources: Sources,
    *,
    loader: Loader = "stackstac",
    resolution: float | None = None,
    in_memory: bool = False,
    threads: int = 2,
    patience: Patience = PATIENCE,
) -> Scene:
    """Open the files of an item and fit them onto one grid: that of its finest band, or a coarser one.

    Bands of the finest pixel size are read when they are asked for, the others here, whole.

    Args:
        sources: What to read.
        loader: The library that reads; both give the same bits.
        resolution: Pixel size in metres, a whole multiple of the finest band's; None takes that one.
        in_memory: Whether all bands are read here.
        threads: That read at once.
        patience: With servers that fail.

    Raises:
        BandNotFoundError: A file is not there.
        UnsupportedItemError: Files are not what the item says, or do not fit together.
        ReadError: A file is damaged, or its server fails.
        ConfigError: No such resolution is possible.
    """
    quiet_loaders()
    access = Access(loader=loader, threads=threads, patience=patience)
    every = [*sources.bands, *([] if sources.scl is None else [sources.scl])]
    looked = access.look(every, rule=sources.rule, resolution=resolution)
    bands = looked[: len(sources.bands)]
    finest = min(bands, key=lambda band: band.grid.gsd)
    fit = Fit(finest=finest, factor=whole_factor(finest.grid, resolution, where=finest.source.where), access=access)
    classes = None if sources.scl is None else fit.classes(looked[-1])
    settled = _settled(sources, bands)
    return Scene(
        sources=settled,
        grid=finest.grid.coarsen(fit.factor),
        bands=tuple(band.common_name for band in sources.bands),
        scales=tuple(band.scale for band in settled.bands),
        offsets=tuple(band.offset.dn for band in settled.bands),
        strip=max(1, access.reader([finest]).strip * finest.facts.read_factor // fit.factor),
        layers=_layers(bands, fit, in_memory=in_memory),
        classes=classes,
    )


def _settled(sources: Sources, looked: Sequence[Looked]) -> Sources:
    """The sources with doubtful offsets as the pixels have them; says so where that changes one."""
    dark = max((band.facts.dark for band in looked if band.facts.dark is not None), default=None)
    bands = tuple(replace(band, offset=settle(band.offset, dark)) for band in sources.bands)
    changed = {
        new.offset.reason for new, old in zip(bands, sources.bands, strict=True) if new.offset.dn != old.offset.dn
    }
    if changed:
        text = f"item {sources.item_id!r}: BOA offset is 0 DN ({'; '.join(sorted(changed))})"
        warnings.warn(text, StacCloudmaskWarning, stacklevel=3)
    return replace(sources, bands=bands)


def whole_factor(grid: Grid, resolution: float | None, *, where: str) -> int:
    """Pixels of the finest band along the side of one of ``resolution`` metres.

    Raises:
        ConfigError: They are no whole number.
    """
    factor = 1.0 if resolution is None else resolution / grid.gsd
    if factor < 1 or not math.isclose(factor, round(factor), rel_tol=1e-9):
        raise ConfigError(f"resolution {resolution:g} is no whole multiple of {grid.gsd:g}, the pixel size of {where}")
    return round(factor)


def _layers(bands: Sequence[Looked], fit: Fit, *, in_memory: bool) -> tuple[Layer, ...]:
    by_grid: dict[tuple[Grid, Overview | None], list[int]] = {}
    for index, band in enumerate(bands):
        by_grid.setdefault((band.grid, band.facts.overview), []).append(index)
    return tuple(
        fit.layer(indexes, [bands[index] for index in indexes], in_memory=in_memory) for indexes in by_grid.values()
    )
