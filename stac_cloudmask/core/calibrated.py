"""The `calibrated` merge policy: votes weighted by what each source is good at.

The whole scene is surveyed on cells of some 60 m: which clouds are to be believed, where they can cast shadow, and how
dark the ground is there. With that, rows of pixels are selected one strip after the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from math import log2, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.merge import Thresholds, strips, vote
from stac_cloudmask.core.morphology import EIGHT_CONNECTED
from stac_cloudmask.core.reflectance import repeat
from stac_cloudmask.core.shadow import MOST, Search, objects, reachable, shadowless, window_sum
from stac_cloudmask.core.strips import in_order
from stac_cloudmask.core.votes import Evidence, Vote


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where a shadow may lie relative to its cloud. Each constant may be halved or doubled for at most 0.01 of F1.

    Attributes:
        lowest: Lowest cloud searched for, in meters; fog casts no shadow worth having.
        highest: Highest cloud searched for, in meters: the tropopause.
        step: Share by which the shadow lengths that are tried grow, at least by one cell.
        window: Width in meters within which clouds have to explain what is dark.
        prior: Area in square meters of dark ground with which the whole scene speaks for a length. Without it a lone
            dark pond finds some cloud on its sunny side.
        explained: Share of what is dark that clouds have to explain, and of a small cloud's shadow that has to be dark.
        slack: Growth in meters of what clouds shade: rounding to cells, view angle, cloud edges not flagged.
        overlap: A dark object that lies in reach by this share is shadow as a whole.
        small: Area in square meters below which a cloud without a shadow is none: roofs have up to 200,000.
        usual: Height in meters of fair-weather cumulus: where its shadow would be out of sight, nothing is missed.
    """

    lowest: float = 200.0
    highest: float = 12_000.0
    step: float = 0.05
    window: float = 1_000.0
    prior: float = 1_440_000.0
    explained: float = 0.4
    slack: float = 100.0
    overlap: float = 0.5
    small: float = 300_000.0
    usual: float = 1_500.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a vote is worth. Votes of a pixel count strictly above their percent.

    Attributes:
        cell: Side in meters of the cells on which a scene is surveyed; rounded to whole pixels.
        certain: Mean cloud percent that one cell of a cloud object must have for the model to be believed. Roofs of
            Bolzano reach 95 on 3,400 m2, yet no cell there has a mean of 60.
        cirrus: Percent from which product cirrus counts. On alberta_20200625 the product calls 92 % of the scene
            cirrus, where the model stays below 1 for 95 % of it.
        hint: Percent of cloud that supports a product cloud, and of shadow from which product shadow counts: the
            product is right nine times in ten where it says shadow (Alberta), sees what the model does not at 120 m.
        support: A product cloud counts where this share of the pixels around has a hint of cloud.
        around: Meters to all sides that count as around.
        veil: What blue has above half of red beyond clear ground where thin cloud dims the ground: at least 0.03, and
            no more than 0.1: what is brighter is snow, a roof, or cloud that the model sees.
        deep: Mean shadow percent of a cell in the core of a shadow.
        clean: Mean cloud and shadow percent below which a cell is lit ground.
        halfway: A shadow's edge is where near infrared has fallen this far from lit ground to the shadow's core. The
            core has 0.20 and 0.23 of lit ground on clear Alberta dates, 0.43 in haze, 0.55 under Sahara's thin cloud.
        dim: Ground must be darker than this share of the lit ground nearby to be shadow at all.
        background: Standard deviation in meters of the smoothing that gives the near infrared of lit ground nearby.
        water: Near-infrared reflectance up to which ground that is brighter in green is water.
        shore: Cells around water that tell whether it lies in shade; those next to it are mixed.
        reach: Sun geometry.
    """

    cell: float = 60.0
    certain: int = 70
    cirrus: int = 20
    hint: int = 5
    support: float = 0.25
    around: float = 250.0
    veil: tuple[float, float] = (0.03, 0.1)
    deep: int = 90
    clean: int = 20
    halfway: float = 0.5
    dim: float = 0.85
    background: float = 1_000.0
    water: float = 0.12
    shore: int = 4
    reach: Reach = field(default_factory=Reach)

    def cell_factor(self, gsd: float) -> int:
        """Pixels of ``gsd`` meters along the side of a cell: a power of two, as the stride of the models is.

        So a scene that is cut where its windows may be cut has the same cells.
        """
        return 1 << max(0, round(log2(self.cell / gsd)))


BoolGrid = NDArray[np.bool_]

SCL_CIRRUS: Final = 10
"""The cloud code of the product that can cover a whole clear scene."""
STRIP_ROWS: Final = 192
"""Rows of pixels reduced at once, about."""
CLOUD_MODEL: Final = np.uint8(Vote.CLOUD_MODEL)
SHADOW_MODEL: Final = np.uint8(Vote.SHADOW_MODEL)
PRODUCT_CLOUD: Final = np.uint8(Vote.PRODUCT_CLOUD)
PRODUCT_SHADOW: Final = np.uint8(Vote.PRODUCT_SHADOW)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A scene on the grid of cells; all ``(y, x)``, bool unless said otherwise.

    Attributes:
        valid: At least half of the cell has data.
        certain: The model is certain of cloud: the cell's mean is at least ``Rules.certain``.
        hint: Some pixel has more than ``Rules.hint`` percent cloud.
        cloud_any: Some pixel is a candidate for cloud.
        cloud_most: At least half are.
        product_any: Some pixel is cloud by the product, thin cirrus left out.
        product_most: At least half are.
        cirrus_any: Some pixel is thin cirrus by the product.
        cirrus_most: At least half are.
        shadow: Percent, uint8, of the pixels that are candidates for shadow and not rather cloud.
        deep: Nearly all of the cell is shadow to the model.
        clean: The model sees next to no cloud and no shadow.
    """

    valid: BoolGrid
    certain: BoolGrid
    hint: BoolGrid
    cloud_any: BoolGrid
    cloud_most: BoolGrid
    product_any: BoolGrid
    product_most: BoolGrid
    cirrus_any: BoolGrid
    cirrus_most: BoolGrid
    shadow: NDArray[np.uint8]
    deep: BoolGrid
    clean: BoolGrid


@dataclass(frozen=True)
class Candidates:
    """Pixels that may be flagged: ``(y, x)`` bool.

    Attributes:
        cloud: The model says cloud, or sees some where the product says cirrus.
        product: The product says cloud, thin cirrus left out.
        cirrus: The product says thin cirrus.
        shadow: The model says shadow, or sees some where the product says so.
    """

    cloud: BoolGrid
    product: BoolGrid
    cirrus: BoolGrid
    shadow: BoolGrid


def candidates(evidence: Evidence, start: int, stop: int, votes: NDArray[np.uint8], rules: Rules) -> Candidates:
    """The candidates of rows ``start`` to ``stop``, whose ``Vote`` bits are given; never where nodata."""
    cloud = (votes & CLOUD_MODEL) > 0
    shadow = (votes & SHADOW_MODEL) > 0
    product = (votes & PRODUCT_CLOUD) > 0
    cirrus = np.zeros(votes.shape, np.bool_)
    if evidence.product is not None and (votes & (PRODUCT_CLOUD | PRODUCT_SHADOW)).any():
        shadow |= ((votes & PRODUCT_SHADOW) > 0) & (evidence.shadow[start:stop] > rules.hint)
        cirrus = product & (evidence.product.classes(start, stop) == SCL_CIRRUS)
        product &= ~cirrus
        cloud |= cirrus & (evidence.cloud[start:stop] > rules.cirrus)
    return Candidates(cloud, product, cirrus, shadow)


def reduce_scene(evidence: Evidence, thresholds: Thresholds, rules: Rules, *, threads: int = 1) -> Cells:
    """The scene in cells of ``rules.cell_factor`` pixels; a last, partial cell is filled by repeating its edge."""
    factor = rules.cell_factor(evidence.gsd)
    rows = max(1, STRIP_ROWS // factor) * factor

    def reduced(strip: tuple[int, int]) -> Cells:
        return _reduce_rows(evidence, *strip, thresholds, rules)

    parts = list(in_order(reduced, strips(evidence.shape[0], rows), threads=threads))
    return Cells(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Cells)})


def _reduce_rows(evidence: Evidence, start: int, stop: int, thresholds: Thresholds, rules: Rules) -> Cells:
    factor = rules.cell_factor(evidence.gsd)
    area = factor * factor
    votes, valid = vote(evidence, start, stop, thresholds)
    p_cloud, p_shadow = (layer[start:stop] * valid for layer in (evidence.cloud, evidence.shadow))
    found = candidates(evidence, start, stop, votes, rules)
    clouds, products, cirrus = (block_sum(layer, factor) for layer in (found.cloud, found.product, found.cirrus))
    cloud_percent, shadow_percent = block_sum(p_cloud, factor), block_sum(p_shadow, factor)
    rather_shadow = found.shadow & ~(found.cloud & (p_cloud >= p_shadow))
    return Cells(
        valid=2 * block_sum(valid, factor) >= area,
        certain=cloud_percent >= rules.certain * area,
        hint=block_sum(p_cloud > rules.hint, factor) > 0,
        cloud_any=clouds > 0,
        cloud_most=2 * clouds >= area,
        product_any=products > 0,
        product_most=2 * products >= area,
        cirrus_any=cirrus > 0,
        cirrus_most=2 * cirrus >= area,
        shadow=(100 * block_sum(rather_shadow, factor) // area).astype(np.uint8),
        deep=shadow_percent >= rules.deep * area,
        clean=(cloud_percent < rules.clean * area) & (shadow_percent < rules.clean * area),
    )


def block_sum(pixels: NDArray[np.bool_] | NDArray[np.uint8], factor: int) -> NDArray[np.uint32]:
    """Sums of blocks of ``factor`` x ``factor``, ``(y, x)``; a last, partial block repeats its edge pixels.

    Adds whole rows, then columns: many times faster than a sum over the axes of a reshaped array.
    """
    height, width = pixels.shape
    whole = pixels.view(np.uint8)
    if height % factor or width % factor:
        whole = np.pad(whole, ((0, -height % factor), (0, -width % factor)), mode="edge")
    lines = whole[::factor].astype(np.uint16)
    for row in range(1, factor):
        lines += whole[row::factor]
    total = lines[:, ::factor].astype(np.uint32)
    for col in range(1, factor):
        total += lines[:, col::factor]
    return total


FloatGrid = NDArray[np.float32]

LEAST_SUM: Final = 1e-4
"""Reflectance of green and near infrared together, at least, of which a ratio is taken."""
FULLY_WET: Final = 0.02
"""Normalized difference of green and near infrared (NDWI) from which a cell is nothing but water."""
SMOOTHINGS: Final = ((4.0, 0.01), (1.0, 0.05))
"""Width of the smoothing relative to ``Rules.background``, and the share of lit ground in it from which it is used:
the scene's median gives way to the wider surroundings, these to the closer ones."""


def darkness(cells: Cells, nir: FloatGrid, cloudy: BoolGrid, *, cell: float, rules: Rules) -> FloatGrid | None:
    """Near infrared as a share of the lit, dry, clear ground nearby, ``(y, x)``; None where no such ground is seen.

    Args:
        cells: The scene.
        nir: Near-infrared reflectance of its cells, NaN = nodata: these take the value of the nearest known cell, so
            that the edge of a scene looks neither dark nor lit.
        cloudy: True where a cell is cloud.
        cell: Side of a cell in meters.
        rules: The constants.
    """
    lit = cells.valid & cells.clean & ~cloudy & (nir > rules.water)
    if not lit.any():
        return None
    ground = np.full(cloudy.shape, np.median(nir[lit]), np.float32)
    values = np.where(lit, nir, np.float32(0))
    for relative, enough in SMOOTHINGS:
        sigma = relative * rules.background / cell
        weight = smooth(lit.astype(np.float32), sigma)
        np.divide(smooth(values, sigma), weight, out=ground, where=weight > enough)
    return _filled(nir / ground)


def smooth(grid: FloatGrid, sigma: float) -> FloatGrid:
    """Three box filters in a row: nearly a Gaussian of this standard deviation in cells, at a cost free of it."""
    width = round((sqrt(4 * sigma**2 + 1) - 1) / 2) * 2 + 1
    for _ in range(3):
        grid = ndimage.uniform_filter(grid, width, mode="reflect")
    return grid


def bilinear(grid: FloatGrid, rows: NDArray[np.intp], cols: NDArray[np.intp], factor: int) -> FloatGrid:
    """The grid between the centers of its cells, at pixels of ``factor`` per cell; constant beyond the outermost."""
    places = [(at + 0.5) / factor - 0.5 for at in (rows, cols)]
    values: FloatGrid = ndimage.map_coordinates(grid, places, order=1, mode="nearest")
    return values


def _filled(grid: FloatGrid) -> FloatGrid:
    unknown = np.isnan(grid)
    if not unknown.any():
        return grid
    nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
    filled: FloatGrid = grid[tuple(nearest)]
    return filled


BELIEVED: Final = np.uint8(1)
"""Bit of a cell: candidates for cloud count here."""
SUPPORTED: Final = np.uint8(2)
"""The product's clouds count here."""
DARK: Final = np.uint8(4)
"""Candidates for shadow count here: every pixel is dark, and a cloud can cast its shadow here."""
EDGE: Final = np.uint8(8)
"""The same, but only where the pixel itself is dark: near infrared crosses the shadow's edge here."""
VEILED: Final = np.uint8(16)
"""The product's thin cirrus counts here."""
BRIGHT: Final = np.uint8(32)
"""All pixels are cloud: a hole in certain cloud that is as bright as the cloud."""

NO_PRODUCT: Final = "no product mask: the models decide alone"
NO_SUN: Final = "the sun's direction is unknown: no shadow was matched with a cloud, and a cloud's buffer covers shadow"
NO_NIR: Final = "no near-infrared band was read: the darkness of shadows was not tested"
NO_GROUND: Final = "no lit ground is in sight: the darkness of shadows was not tested"


@dataclass(frozen=True)
class Calibrated:
    """What the survey of a scene found; its ``select`` is the policy.

    Attributes:
        evidence: What is known of every pixel.
        rules: The constants.
        flags: ``(y, x)`` uint8 bits of each cell: `BELIEVED`, `SUPPORTED`, `DARK`, `EDGE`, `VEILED`, `BRIGHT`.
        darkness: ``(y, x)`` near infrared as a share of lit ground nearby; None where it was not tested.
        edge: Darkness up to which ground is shadow.
        sunlit: Whether the sun's direction is known: shadow is then matched with clouds, and wins against their buffer.
        notes: Rules that were skipped, and why.
    """

    evidence: Evidence
    rules: Rules
    flags: NDArray[np.uint8]
    darkness: FloatGrid | None
    edge: float
    sunlit: bool
    notes: tuple[str, ...]

    def select(self, start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[BoolGrid, BoolGrid]:
        """Cloud and shadow of rows ``start`` to ``stop``, before clean-up; see ``merge.Select``."""
        factor = self.rules.cell_factor(self.evidence.gsd)
        flags = repeat(self.flags, factor, window=Window(start, 0, stop - start, votes.shape[1]))
        found = candidates(self.evidence, start, stop, votes, self.rules)
        cloud = found.cloud | (found.product & ((flags & SUPPORTED) > 0)) | (found.cirrus & ((flags & VEILED) > 0))
        cloud &= (flags & BELIEVED) > 0
        cloud |= (flags & BRIGHT) > 0
        shadow = found.shadow & ((flags & DARK) > 0)
        if self.darkness is not None:
            rows, cols = np.nonzero(found.shadow & ((flags & EDGE) > 0))
            shadow[rows, cols] = bilinear(self.darkness, rows + start, cols, factor) <= self.edge
        if self.sunlit:
            cloud &= ~(shadow & (self.evidence.shadow[start:stop] > self.evidence.cloud[start:stop]))
        return cloud, shadow


def calibrated(evidence: Evidence, rules: Rules, thresholds: Thresholds, *, threads: int = 1) -> Calibrated:
    """Survey a scene: which clouds to believe, where they can cast shadow, how dark it is there.

    Without a product mask, a sun or a near-infrared band the rules that need them are skipped, and noted.

    Args:
        evidence: What is known; ``nir`` comes in blocks of ``rules.cell_factor`` pixels.
        rules: The constants.
        thresholds: Percents above which a model votes.
        threads: That survey at once.
    """
    factor = rules.cell_factor(evidence.gsd)
    if evidence.nir is not None and evidence.nir_factor != factor:
        raise ValueError(f"nir must come in blocks of {factor} pixels of {evidence.gsd:g} m, not {evidence.nir_factor}")
    cells = reduce_scene(evidence, thresholds, rules, threads=threads)
    sunlit = evidence.sun is not None and 0 < evidence.sun.elevation <= 90  # noqa: PLR2004 (the zenith)
    survey = _Survey(evidence, rules, cells, factor * evidence.gsd, threads)
    allowed, edge = survey.allowed, 0.0
    dark = None if survey.dark is None else survey.without_lit_water(survey.dark)
    flags = survey.believed * BELIEVED | survey.supported * SUPPORTED | survey.veiled * VEILED
    flags |= survey.bright_holes * BRIGHT
    if dark is None:
        flags |= allowed * DARK
    else:
        edge = _edge(dark[allowed & survey.dim & ~survey.cloudy & cells.deep & ~survey.water], rules)
        flags |= _shades(dark, edge, allowed)
    missing = {
        NO_PRODUCT: evidence.product is None,
        NO_SUN: not sunlit,
        NO_NIR: evidence.nir is None,
        NO_GROUND: evidence.nir is not None and dark is None,
    }
    notes = tuple(note for note, applies in missing.items() if applies)
    return Calibrated(evidence, rules, flags, dark, edge, sunlit, notes)


@dataclass(frozen=True)
class _Survey:
    """What the cells of a scene tell; grids are ``(y, x)``.

    Attributes:
        evidence: What is known of every pixel.
        rules: The constants.
        cells: The scene in cells.
        cell: Side of a cell in meters.
        threads: That survey at once.
    """

    evidence: Evidence
    rules: Rules
    cells: Cells
    cell: float
    threads: int

    @cached_property
    def supported(self) -> BoolGrid:
        """Where the product's clouds count: the model has hints of cloud in enough cells around, or there is a veil."""
        width = max(3, int(2 * self.rules.around / self.cell) | 1)
        hints = window_sum((self.cells.hint & self.cells.valid).astype(np.uint32), width)
        places = window_sum(self.cells.valid.astype(np.uint32), width)
        return (hints >= self.rules.support * np.maximum(places, 1)) | self.veiled

    @cached_property
    def veiled(self) -> BoolGrid:
        """Where blue is brighter than red tells, beyond what clear ground has: haze, cirrus, contrails.

        Clear ground has blue near half its red; thin cloud adds to both alike.
        """
        visible = self.evidence.visible
        if visible is None:
            return np.zeros(self.cells.valid.shape, np.bool_)
        haze = visible[0] - visible[2] / 2
        said = self.cells.product_any | self.cells.cirrus_any
        clear = self.cells.clean & self.cells.valid & np.isfinite(haze)
        ground = clear & ~said if 100 * np.count_nonzero(clear & ~said) >= np.count_nonzero(clear) else clear
        if not ground.any():
            return np.zeros(haze.shape, np.bool_)
        usual = np.median(haze[ground])
        above = ndimage.uniform_filter(np.where(np.isfinite(haze), haze, usual), 3) - usual
        least, most = self.rules.veil
        veiled: BoolGrid = (above > least) & (above < most) & self.cells.valid
        return veiled

    @cached_property
    def some_cloud(self) -> BoolGrid:
        """Where some pixel may be cloud."""
        cells = self.cells
        return cells.cloud_any | (cells.product_any & self.supported) | (cells.cirrus_any & self.veiled)

    @cached_property
    def product(self) -> BoolGrid:
        """Where most pixels are cloud by the product, and that counts."""
        return (self.cells.product_most & self.supported) | (self.cells.cirrus_most & self.veiled)

    @cached_property
    def convincing(self) -> BoolGrid:
        """Cloud objects that are certain somewhere: by the model, or by most of a cell of the product's cloud."""
        labels = objects(self.some_cloud)
        certain = np.zeros(labels.max(initial=0) + 1, np.bool_)
        certain[labels[self.cells.certain | self.product]] = True
        certain[0] = False
        convincing: BoolGrid = certain[labels]
        return convincing

    @cached_property
    def believed(self) -> BoolGrid:
        """The convincing clouds, without small ones whose shadow would be seen and is not."""
        search = self._search(self.convincing)
        if search is None or self.dark is None:
            return self.convincing
        labels = objects(self.convincing)
        bare = shadowless(search, labels)
        said = np.bincount(labels[self.product], minlength=bare.size)
        bare &= 2 * said < np.bincount(labels.ravel(), minlength=bare.size)
        return self.convincing & ~bare[labels]

    @cached_property
    def cloudy(self) -> BoolGrid:
        """Where most of a cell is cloud."""
        return self.believed & (self.cells.cloud_most | self.product)

    @cached_property
    def bright_holes(self) -> BoolGrid:
        """Holes in certain cloud that are as bright as the cloud around them."""
        nir = self.evidence.nir
        none = np.zeros(self.cells.valid.shape, np.bool_)
        if nir is None:
            return none
        holes = ndimage.binary_fill_holes(self.cloudy) & ~self.cloudy & self.cells.valid & (self.cells.shadow < MOST)
        labels = objects(holes)
        rim = ndimage.maximum_filter(labels, size=3) * (self.cloudy & np.isfinite(nir))
        count = np.maximum(np.bincount(rim.ravel(), minlength=labels.max(initial=0) + 1), 1)
        around = np.bincount(rim.ravel(), np.nan_to_num(nir).ravel(), minlength=count.size) / count
        sure = np.bincount(rim.ravel(), self.cells.certain.ravel(), minlength=count.size) / count
        inside = ndimage.mean(np.nan_to_num(nir), labels, np.arange(count.size))
        bright = (inside >= around) & (sure >= self.rules.support) & (np.bincount(labels.ravel()) > 0)
        bright[0] = False
        found: BoolGrid = bright[labels] if bright.any() else none
        return found

    @cached_property
    def water(self) -> BoolGrid:
        """Where ground is dark in near infrared and darker than in green: water, lit or not, and no land in shade."""
        nir, visible = self.evidence.nir, self.evidence.visible
        if nir is None or visible is None:
            return np.zeros(self.cells.valid.shape, np.bool_)
        water: BoolGrid = (visible[1] > nir) & (nir <= self.rules.water)
        return water

    @cached_property
    def dark(self) -> FloatGrid | None:
        """Near infrared as a share of lit ground nearby."""
        if self.evidence.nir is None:
            return None
        cloudy = self.convincing & (self.cells.cloud_most | self.product)
        return darkness(self.cells, self.evidence.nir, cloudy, cell=self.cell, rules=self.rules)

    @cached_property
    def dim(self) -> BoolGrid:
        """Where ground is dark enough for shadow."""
        return np.ones(self.cells.valid.shape, np.bool_) if self.dark is None else self.dark <= self.rules.dim

    @cached_property
    def allowed(self) -> BoolGrid:
        """Where the sun allows shadow."""
        search = self._search(self.believed)
        return np.ones(self.cells.valid.shape, np.bool_) if search is None else reachable(search)

    def without_lit_water(self, dark: FloatGrid) -> FloatGrid:
        """Return darkness with water in the sun as light as lit ground; where most land around is shaded, it is shaded.

        Between land and water it changes as their colors do, not from cell to cell, so that no line shows.
        """
        visible, nir = self.evidence.visible, self.evidence.nir
        if visible is None or nir is None:
            return dark
        labels = objects(self.water)
        near = ndimage.maximum_filter(labels, size=2 * self.rules.shore + 1)
        near[~self.cells.valid | self.cloudy | ndimage.binary_dilation(self.water, EIGHT_CONNECTED)] = 0
        count = np.bincount(near.ravel(), minlength=labels.max(initial=0) + 1)
        shaded = np.bincount(near[(self.looks_shaded >= MOST) & self.allowed], minlength=count.size)
        lit = 2 * shaded < np.maximum(count, 1)
        lit[0] = False
        wet = np.nan_to_num((visible[1] - nir) / np.maximum(visible[1] + nir, LEAST_SUM) / FULLY_WET)
        wet = np.clip(wet, 0, 1) * ndimage.binary_dilation(lit[labels], EIGHT_CONNECTED)
        light: FloatGrid = (dark + wet * (1 - np.minimum(dark, 1))).astype(np.float32)
        return light

    @property
    def looks_shaded(self) -> NDArray[np.uint8]:
        """Percent of each cell that looks like shadow on dark land."""
        return self.cells.shadow * (self.dim & ~self.water)

    def _search(self, cloud: BoolGrid) -> Search | None:
        """Return the scene with some cells as clouds; None where the sun is not known or not up."""
        sun = self.evidence.sun
        if sun is None or not 0 < sun.elevation <= 90:  # noqa: PLR2004 (the zenith)
            return None
        return Search(
            cloud=cloud & (self.some_cloud | self.product), shadow=self.looks_shaded,
            valid=self.cells.valid, sun=sun, cell=self.cell, reach=self.rules.reach, threads=self.threads,
        )  # fmt: skip


def _edge(core: FloatGrid, rules: Rules) -> float:
    """Darkness of a shadow's edge: halfway between lit ground (1) and the core of this scene's shadows."""
    if not core.size:
        return rules.dim
    deepest = float(np.median(core))
    return min(1 - rules.halfway * (1 - deepest), rules.dim)


def _shades(dark: FloatGrid, edge: float, allowed: BoolGrid) -> NDArray[np.uint8]:
    """`DARK` where all that lies between a cell's and its neighbors' centers is dark; `EDGE` where some is."""
    all_dark = ndimage.maximum_filter(dark, size=3) <= edge
    some_dark = ndimage.minimum_filter(dark, size=3) <= edge
    shades: NDArray[np.uint8] = (allowed & all_dark) * DARK | (allowed & some_dark & ~all_dark) * EDGE
    return shades
