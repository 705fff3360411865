"""The `calibrated` merge policy: votes weighted by the strengths of each source.

The whole scene is surveyed on cells of 60 to 80 m: which clouds are credible, where they can cast shadow, and how dark
the ground is there. Based on the survey, pixels are selected strip by strip.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log2, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.classes import Scl
from stac_cloudmask.core.grid import Window, in_order, strips
from stac_cloudmask.core.morphology import EIGHT_CONNECTED, objects
from stac_cloudmask.core.pixels import block_sum, repeat
from stac_cloudmask.core.shadow import BoolGrid, Search, kept_objects, reachable, shadowless, window_sum
from stac_cloudmask.core.votes import Evidence, Sun, Vote, any_vote, vote

if TYPE_CHECKING:
    from stac_cloudmask.core.merge import Policy, Select


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of votes and shadows. The vote of a pixel counts strictly above its percent.

    Attributes:
        cell: Side in meters of the cells on which a scene is surveyed; rounded to a power of two of pixels.
        certain: Mean cloud percent that at least one cell of a cloud object must have for the model to be trusted.
            Roofs in Bolzano reach 95 on 3,400 m2, yet no cell there has a mean of 60.
        cirrus: Cloud percent above which product cirrus counts. In alberta_20200625 the product calls 92 % of the
            scene cirrus, and the model stays below 1 for 95 % of it.
        hint: Percent of cloud that supports a product cloud, and of shadow from which product shadow counts: the
            product's shadows are right nine times in ten (Alberta), and include some that the model misses at 120 m.
        support: A product cloud counts if this share of the pixels around it has a hint of cloud.
        around: Distance in meters, to all sides, within which pixels count as around.
        veil: Range of blue minus half of red, above that of clear ground, where thin cloud veils the ground: at least
            0.03 and at most 0.1; brighter pixels are snow, a roof, or cloud that the model detects.
        deep: Mean shadow percent of a cell in the core of a shadow.
        clean: Mean cloud and shadow percent below which a cell is lit ground.
        fallen: Required drop of near infrared from lit ground (0) to the core of the scene's shadows (1), times the
            probability of shadow, times the share of the cells around that clouds can shade. In Alberta's labels shadow
            and clear are equally frequent at 0.45 where the model is certain, at 0.65 where it has 60 to 80 %. The core
            has 0.20 and 0.23 of lit ground on clear Alberta dates, 0.43 in haze, 0.55 under thin cloud in the Sahara.
        dim: Ground darker than this share of the lit ground nearby must be explained by clouds.
        background: Standard deviation in meters of the smoothing for the near infrared of lit ground nearby.
        water: Near-infrared reflectance up to which ground that is brighter in green is water.
        shore: Cells around water that decide whether it is shaded; cells next to it are mixed.
        lowest: Height in meters of the lowest cloud whose shadow is searched; shadows of fog do not matter.
        highest: Highest such cloud, in meters: the tropopause.
        step: Relative increment of the tried shadow lengths; at least one cell.
        window: Width in meters of the window in which clouds must explain dark ground.
        prior: Weight, as an area of dark ground in square meters, of the whole scene's match at a length. Without it, a
            single dark pond would match some cloud on its sunny side.
        explained: Share of dark ground that clouds must explain, and of a small cloud's shadow that must be dark.
        slack: Dilation in meters of the shaded area, for rounding to cells, view angle and cloud edges not flagged.
        overlap: A dark object is shadow as a whole if at least this share of it can be shaded.
        small: Area in square meters below which a cloud must have a visible shadow: roofs have up to 200,000.
        usual: Height in meters of fair-weather cumulus, for whether a missing shadow would be visible.
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
    fallen: float = 0.45
    dim: float = 0.85
    background: float = 1_000.0
    water: float = 0.12
    shore: int = 4
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

    def cell_factor(self, gsd: float) -> int:
        """Return the pixels of ``gsd`` meters along the side of a cell: a power of two, like the models' stride.

        A scene that is clipped at multiples of the stride therefore has the same cells.
        """
        return 1 << max(0, round(log2(self.cell / gsd)))


RULES: Final = Rules()
FloatGrid = NDArray[np.float32]

MAJORITY: Final = 0.5
"""Minimum share for most of a cell or object."""
CELL_ROWS: Final = 192
"""Approximate number of rows of pixels that are reduced to cells at once."""


class Cells(NamedTuple):
    """A scene on the grid of cells; all ``(y, x)``, bool or the share 0..1 of a cell.

    Attributes:
        valid: At least half of the cell has data.
        certain: The model is certain of cloud: the cell's mean is at least ``Rules.certain``.
        hint: At least one pixel has more than ``Rules.hint`` percent cloud.
        cloud: Share of candidates for cloud.
        product: Share that is cloud by the product, thin cirrus left out.
        cirrus: Share that is thin cirrus by the product.
        shadow: Share of candidates for shadow whose cloud probability is not higher.
        deep: The model finds shadow in nearly all of the cell.
        clean: The model finds almost no cloud and no shadow.
    """

    valid: BoolGrid
    certain: BoolGrid
    hint: BoolGrid
    cloud: FloatGrid
    product: FloatGrid
    cirrus: FloatGrid
    shadow: FloatGrid
    deep: BoolGrid
    clean: BoolGrid


class Candidates(NamedTuple):
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


LEAST_SUM: Final = 1e-4
"""Minimum sum of green and near-infrared reflectance for a ratio."""
FULLY_WET: Final = 0.02
"""Normalized difference of green and near infrared (NDWI) from which a cell is water only."""
SMOOTHINGS: Final = ((4.0, 0.01), (1.0, 0.05))
"""Width of the smoothing relative to ``Rules.background``, and the minimum share of lit ground for its use: the wider
surroundings replace the scene's median, the closer ones replace the wider."""


def darkness(nir: FloatGrid, lit: BoolGrid, *, width: float) -> FloatGrid:
    """Return near infrared as a share of the lit ground nearby, ``(y, x)``.

    Args:
        nir: Near-infrared reflectance of cells, NaN = nodata: these take the value of the nearest known cell, so that
            the edge of a scene looks neither dark nor lit.
        lit: True where a cell is lit, dry, clear ground; at least one is.
        width: Standard deviation of the smoothing in cells.
    """
    ground = np.full(nir.shape, np.median(nir[lit]), np.float32)
    values = np.where(lit, nir, np.float32(0))
    for relative, enough in SMOOTHINGS:
        weight = smooth(lit.astype(np.float32), relative * width)
        np.divide(smooth(values, relative * width), weight, out=ground, where=weight > enough)
    dark = nir / ground
    unknown = np.isnan(dark)
    if unknown.any():
        nearest = ndimage.distance_transform_edt(unknown, return_distances=False, return_indices=True)
        dark = dark[tuple(nearest)]
    return dark


def smooth(grid: FloatGrid, sigma: float) -> FloatGrid:
    """Apply three box filters: nearly a Gaussian of this standard deviation in cells, at a cost independent of it."""
    width = round((sqrt(4 * sigma**2 + 1) - 1) / 2) * 2 + 1
    for _ in range(3):
        grid = ndimage.uniform_filter(grid, width, mode="reflect")
    return grid


def spline(grid: FloatGrid, factor: int, window: Window) -> FloatGrid:
    """Interpolate cells to the pixels of a window, ``factor`` per cell, by a quadratic B-spline for smooth contours."""
    for size, start in ((window.height, window.row_off), (window.width, window.col_off)):
        pixel = np.arange(start, start + size)
        cell, at = pixel // factor, ((pixel % factor + 0.5) / factor)[:, None].astype(np.float32)
        padded = np.pad(grid, ((1, 1), (0, 0)), mode="edge")
        before, after = np.square(1 - at) / 2, np.square(at) / 2
        lines = before * padded[cell] + (1 - before - after) * padded[cell + 1] + after * padded[cell + 2]
        grid = lines.T.astype(np.float32, copy=False)
    return grid


NO_PRODUCT: Final = "no product mask: the models decide alone"
NO_SUN: Final = "the sun's direction is unknown: no shadow was matched with a cloud, and a cloud's buffer covers shadow"
NO_NIR: Final = "no near-infrared band was read: the darkness of shadows was not tested"
NO_GROUND: Final = "no lit ground is in sight: the darkness of shadows was not tested"


@dataclass(frozen=True)
class Survey:
    """A survey of a scene: which clouds are credible, where they can cast shadow, how dark it is there.

    Without a product mask, the sun's position or a near-infrared band, the rules that need them are skipped and noted.
    Grids are ``(y, x)`` in cells; ``select`` applies the policy to pixels.

    Attributes:
        evidence: Evidence of every pixel, with ``nir`` and ``visible`` in blocks of ``factor`` pixels.
        policy: Thresholds of the models.
        rules: Constants of the policy.
        threads: Number of worker threads.
    """

    evidence: Evidence
    policy: Policy
    rules: Rules = RULES
    threads: int = 1

    @property
    def factor(self) -> int:
        """Pixels along the side of a cell."""
        return self.rules.cell_factor(self.evidence.gsd)

    def candidates(self, start: int, stop: int, votes: NDArray[np.uint8]) -> Candidates:
        """Return the candidates of rows ``start`` to ``stop``, whose ``Vote`` bits are given; never where nodata."""
        evidence = self.evidence
        cloud, shadow = any_vote(votes, Vote.CLOUD_MODEL), any_vote(votes, Vote.SHADOW_MODEL)
        product, said = any_vote(votes, Vote.PRODUCT_CLOUD), any_vote(votes, Vote.PRODUCT_SHADOW)
        cirrus = np.zeros(votes.shape, np.bool_)
        if evidence.product is not None and (product.any() or said.any()):
            shadow |= said & (evidence.shadow[start:stop] > self.rules.hint)
            cirrus = product & (evidence.product.classes(start, stop) == Scl.CIRRUS)
            product &= ~cirrus
            cloud |= cirrus & (evidence.cloud[start:stop] > self.rules.cirrus)
        return Candidates(cloud, product, cirrus, shadow)

    @cached_property
    def cells(self) -> Cells:
        """The scene in cells; a last, partial cell counts its pixels."""
        rows = max(1, CELL_ROWS // self.factor) * self.factor
        parts = list(in_order(self._reduced, strips(self.evidence.shape[0], rows), threads=self.threads))
        return Cells(*(np.concatenate(layers) for layers in zip(*parts, strict=True)))

    def _reduced(self, strip: tuple[int, int]) -> Cells:
        rules, factor = self.rules, self.factor
        votes, valid = vote(self.evidence, *strip, self.policy)
        sides = (np.minimum(factor, size - np.arange(0, size, factor)) for size in votes.shape)
        area = np.multiply.outer(*sides).astype(np.float32)

        def share(pixels: BoolGrid | NDArray[np.uint8]) -> FloatGrid:
            shares: FloatGrid = (block_sum(pixels, factor) / area).astype(np.float32)
            return shares

        cloud_percent, shadow_percent = (a[slice(*strip)] * valid for a in (self.evidence.cloud, self.evidence.shadow))
        found = self.candidates(*strip, votes)
        cloud, shadow = share(cloud_percent), share(shadow_percent)
        return Cells(
            valid=share(valid) >= MAJORITY,
            certain=cloud >= rules.certain,
            hint=share(cloud_percent > rules.hint) > 0,
            cloud=share(found.cloud),
            product=share(found.product),
            cirrus=share(found.cirrus),
            shadow=share(found.shadow & ~(found.cloud & (cloud_percent >= shadow_percent))),
            deep=shadow >= rules.deep,
            clean=(cloud < rules.clean) & (shadow < rules.clean),
        )

    @property
    def select(self) -> Select:
        """Function that returns cloud and shadow by the votes that count; the survey is made before it is called."""
        evidence, shade = self.evidence, self.shade
        grids = np.stack([self.believed, self.supported, self.veiled, self.bright_holes])

        def select(start: int, stop: int, votes: NDArray[np.uint8]) -> tuple[BoolGrid, BoolGrid]:
            window = Window(start, 0, stop - start, votes.shape[1])
            believed, supported, veiled, bright = repeat(grids, self.factor, window=window)
            found = self.candidates(start, stop, votes)
            cloud = believed & (found.cloud | (found.product & supported) | (found.cirrus & veiled)) | bright
            shadow = found.shadow & ~bright
            if shadow.any():
                percents = np.where(any_vote(votes, Vote.PRODUCT_SHADOW), np.uint8(100), evidence.shadow[start:stop])
                shadow &= percents * spline(shade, self.factor, window) >= 100  # noqa: PLR2004 (percent)
            if self.sun is not None:
                cloud &= ~(shadow & (evidence.shadow[start:stop] > evidence.cloud[start:stop]))
            return cloud, shadow

        return select

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on skipped rules, with the reason."""
        missing = {
            NO_PRODUCT: self.evidence.product is None,
            NO_SUN: self.sun is None,
            NO_NIR: self.evidence.nir is None,
            NO_GROUND: self.evidence.nir is not None and self.dark is None,
        }
        return tuple(note for note, applies in missing.items() if applies)

    @property
    def sun(self) -> Sun | None:
        """Position of the sun; None if it is unknown or below the horizon.

        If it is known, shadow is matched with clouds, and wins against their buffer.
        """
        sun = self.evidence.sun
        return sun if sun is not None and 0 < sun.elevation <= 90 else None  # noqa: PLR2004 (the zenith)

    @property
    def meters(self) -> float:
        """Side of a cell."""
        return self.factor * self.evidence.gsd

    @property
    def shade(self) -> FloatGrid:
        """Darkness of cells, 1 at the edge of shadow, times the share of the cells around that clouds can shade.

        Where it is below 1, not even a pixel of which the model is certain is shadow. Cells of unknown brightness count
        as the core of a shadow.
        """
        near: FloatGrid = ndimage.uniform_filter(self.allowed.astype(np.float32), 3, mode="nearest")
        if self.light is None:
            return near / np.float32(self.rules.fallen)
        return near * (1 - self.light) / np.float32(1 - self.edge)

    @cached_property
    def edge(self) -> float:
        """Near infrared up to which ground is shadow where the model is certain; see ``Rules.fallen``."""
        core = self.allowed & self.dim & ~self.cloudy & self.cells.deep & ~self.water
        if self.light is None or not core.any():
            return self.rules.dim
        return min(1 - self.rules.fallen * (1 - float(np.median(self.light[core]))), self.rules.dim)

    @cached_property
    def nir(self) -> FloatGrid:
        """Near-infrared reflectance, NaN where unknown."""
        nir = self.evidence.nir
        return np.full(self.cells.valid.shape, np.nan, np.float32) if nir is None else nir

    @cached_property
    def visible(self) -> FloatGrid:
        """Blue, green and red reflectance, NaN where unknown."""
        visible = self.evidence.visible
        return np.full((3, *self.cells.valid.shape), np.nan, np.float32) if visible is None else visible

    @cached_property
    def supported(self) -> BoolGrid:
        """True where the product's clouds count: enough cells around have a hint of cloud, or there is a veil.

        Or they are brighter than a veil and hang together with certain cloud: the model sees nothing in the middle of
        some thick clouds.
        """
        width = max(3, int(2 * self.rules.around / self.meters) | 1)
        hints = window_sum((self.cells.hint & self.cells.valid).astype(np.uint32), width)
        places = window_sum(self.cells.valid.astype(np.uint32), width)
        bright = (self.cells.product >= MAJORITY) & (self._above_ground(self.visible[2]) > self.rules.veil[1])
        cloud = bright | (self.cells.cloud >= MAJORITY)
        thick: BoolGrid = bright & ndimage.binary_propagation(cloud & self.cells.certain, EIGHT_CONNECTED, mask=cloud)
        return (hints >= self.rules.support * np.maximum(places, 1)) | self.veiled | thick

    @cached_property
    def veiled(self) -> BoolGrid:
        """True where blue is brighter, relative to red, than on clear ground: haze, cirrus, contrails.

        Blue of clear ground is about half its red; thin cloud adds equally to both.
        """
        above = ndimage.uniform_filter(self._above_ground(self.visible[0] - self.visible[2] / 2), 3)
        least, most = self.rules.veil
        veiled: BoolGrid = (above > least) & (above < most) & self.cells.valid
        return veiled

    def _above_ground(self, layer: FloatGrid) -> FloatGrid:
        """Return a layer less its median on clear ground, without what the product calls cloud; 0 where unknown."""
        said = (self.cells.product > 0) | (self.cells.cirrus > 0)
        clear = self.cells.clean & self.cells.valid & np.isfinite(layer)
        ground = clear & ~said if 100 * np.count_nonzero(clear & ~said) >= np.count_nonzero(clear) else clear
        return np.nan_to_num(layer - np.median(layer[ground])) if ground.any() else np.zeros_like(layer)

    @cached_property
    def product(self) -> BoolGrid:
        """True where most pixels are cloud by the product, and it counts."""
        return ((self.cells.product >= MAJORITY) & self.supported) | ((self.cells.cirrus >= MAJORITY) & self.veiled)

    @cached_property
    def convincing(self) -> BoolGrid:
        """Cloud objects with at least one certain cell, by the model or by product cloud in most of the cell."""
        cells = self.cells
        some = (cells.cloud > 0) | ((cells.product > 0) & self.supported) | ((cells.cirrus > 0) & self.veiled)
        sure = some & (cells.certain | self.product)
        convincing: BoolGrid = ndimage.binary_propagation(sure, EIGHT_CONNECTED, mask=some)
        return convincing

    @cached_property
    def believed(self) -> BoolGrid:
        """Convincing clouds, without small ones whose shadow would be visible but is missing."""
        search = self._search(self.convincing)
        if search is None or self.dark is None:
            return self.convincing
        labels = objects(self.convincing)
        bare = shadowless(search, labels)[labels] & ~kept_objects(labels, self.product, share=MAJORITY)
        return self.convincing & ~bare

    @cached_property
    def cloudy(self) -> BoolGrid:
        """True where most of a cell is cloud."""
        return self.believed & ((self.cells.cloud >= MAJORITY) | self.product)

    @property
    def bright_holes(self) -> BoolGrid:
        """Holes in cloud that are as bright: in the light as certain cloud around them, in near infrared.

        What the model takes for shadow is cloud in the shade of cloud if it is brighter than clear ground and the veil
        of thin cloud, and in red, in which ground is dark, looks more like the cloud around it than like the ground.
        """
        holes = ndimage.binary_fill_holes(self.cloudy) & ~self.cloudy & self.cells.valid
        above, shaded = self._above_ground(self.visible[2]), self.cells.shadow >= MAJORITY
        lit = self._like_rim(holes & ~shaded, self.nir, share=1, certain=self.rules.support)
        return lit | self._like_rim(holes & shaded & (above > self.rules.veil[1]), above, share=MAJORITY)

    def _like_rim(self, holes: BoolGrid, layer: FloatGrid, *, share: float, certain: float = 0) -> BoolGrid:
        """Return holes whose mean of a layer is at least a share of that of the cloud around, partly certain cloud."""
        labels = objects(holes)
        every = np.arange(labels.max(initial=0) + 1)
        rim = ndimage.maximum_filter(labels, size=3) * (self.cloudy & np.isfinite(layer))
        with np.errstate(invalid="ignore"):  # some rims have no data
            inside, around = (ndimage.mean(np.nan_to_num(layer), where, every) for where in (labels, rim))
            sure = ndimage.mean(self.cells.certain, rim, every)
        alike: BoolGrid = ((inside >= share * around) & (sure >= certain))[labels] & holes
        return alike

    @cached_property
    def water(self) -> BoolGrid:
        """True where ground is dark in near infrared and darker than in green: lit or shaded water, not shaded land."""
        water: BoolGrid = (self.visible[1] > self.nir) & (self.nir <= self.rules.water)
        return water

    @cached_property
    def dark(self) -> FloatGrid | None:
        """Near infrared as a share of lit ground nearby; None if there is no lit ground."""
        cloudy = self.convincing & ((self.cells.cloud >= MAJORITY) | self.product)
        lit = self.cells.valid & self.cells.clean & ~cloudy & (self.nir > self.rules.water)
        return darkness(self.nir, lit, width=self.rules.background / self.meters) if lit.any() else None

    @cached_property
    def dim(self) -> BoolGrid:
        """True where ground is dark enough for shadow."""
        return np.ones(self.cells.valid.shape, np.bool_) if self.dark is None else self.dark <= self.rules.dim

    @cached_property
    def shaded(self) -> BoolGrid:
        """True where most of a cell looks like shadow on dark land."""
        return (self.cells.shadow >= MAJORITY) & self.dim & ~self.water

    @cached_property
    def allowed(self) -> BoolGrid:
        """True where clouds can cast shadow, given the sun's direction."""
        search = self._search(self.believed)
        return np.ones(self.cells.valid.shape, np.bool_) if search is None else reachable(search)

    @cached_property
    def light(self) -> FloatGrid | None:
        """Darkness in which lit water is as bright as lit ground; water is shaded if most land around it is.

        Between land and water the darkness changes gradually like their colors, which avoids visible edges.
        """
        if self.dark is None:
            return None
        labels = objects(self.water)
        near = ndimage.maximum_filter(labels, size=2 * self.rules.shore + 1)
        near[~self.cells.valid | self.cloudy | ndimage.binary_dilation(self.water, EIGHT_CONNECTED)] = 0
        with np.errstate(invalid="ignore"):  # water without land around
            shaded = ndimage.mean(self.shaded & self.allowed, near, np.arange(labels.max(initial=0) + 1))
        lit = self.water & ~(shaded >= MAJORITY)[labels]
        green = self.visible[1]
        wet = np.nan_to_num((green - self.nir) / np.maximum(green + self.nir, LEAST_SUM) / FULLY_WET)
        wet = np.clip(wet, 0, 1) * ndimage.binary_dilation(lit, EIGHT_CONNECTED)
        light: FloatGrid = (self.dark + wet * (1 - np.minimum(self.dark, 1))).astype(np.float32)
        return light

    def _search(self, cloud: BoolGrid) -> Search | None:
        """Return a shadow search with some cells as clouds; None if the sun is unknown or below the horizon."""
        if self.sun is None:
            return None
        grids = {"cloud": cloud, "dark": self.shaded, "valid": self.cells.valid}
        return Search(**grids, sun=self.sun, cell=self.meters, rules=self.rules, threads=self.threads)
