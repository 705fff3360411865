"""The `calibrated` merge policy: votes weighted by what each source is good at.

The whole scene is surveyed on cells of some 60 m: which clouds are to be believed, where they can cast shadow, and how
dark the ground is there. With that, rows of pixels are selected one strip after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stac_cloudmask.core.cells import Cells, candidates, reduce_scene
from stac_cloudmask.core.darkness import bilinear, darkness
from stac_cloudmask.core.reflectance import repeat
from stac_cloudmask.core.sun import Search, kept_objects, objects, reachable
from stac_cloudmask.core.windows import Window

if TYPE_CHECKING:
    from stac_cloudmask.core.evidence import Evidence
    from stac_cloudmask.core.merge import Thresholds
    from stac_cloudmask.core.rules import Rules

BoolGrid = NDArray[np.bool_]
FloatGrid = NDArray[np.float32]

BELIEVED: Final = np.uint8(1)
"""Bit of a cell: candidates for cloud count here."""
SUPPORTED: Final = np.uint8(2)
"""The product's clouds count here."""
DARK: Final = np.uint8(4)
"""Candidates for shadow count here: every pixel is dark, and a cloud can cast its shadow here."""
EDGE: Final = np.uint8(8)
"""The same, but only where the pixel itself is dark: near infrared crosses the shadow's edge here."""

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
        flags: ``(y, x)`` uint8 bits of each cell: `BELIEVED`, `SUPPORTED`, `DARK`, `EDGE`.
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
        if not votes.any():
            none = np.zeros(votes.shape, np.bool_)
            return none, none
        factor = self.rules.cell_factor(self.evidence.gsd)
        flags = repeat(self.flags, factor, window=Window(start, 0, stop - start, votes.shape[1]))
        found = candidates(self.evidence, start, stop, votes, self.rules)
        cloud = found.cloud | (found.product & ((flags & SUPPORTED) > 0))
        cloud &= (flags & BELIEVED) > 0
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
    cell = factor * evidence.gsd
    cells = reduce_scene(evidence, thresholds, rules, threads=threads)
    supported = _supported(cells, rules)
    believed = _believed(cells, supported)
    cloudy = believed & (cells.cloud_most | (cells.product_most & supported))
    sunlit = evidence.sun is not None and 0 < evidence.sun.elevation <= 90  # noqa: PLR2004 (the zenith)
    dark = None if evidence.nir is None else darkness(cells, evidence.nir, cloudy, cell=cell, rules=rules)
    dim = np.ones(cloudy.shape, np.bool_) if dark is None else dark <= rules.dim
    allowed = np.ones(cloudy.shape, np.bool_)
    if evidence.sun is not None and sunlit:
        allowed = reachable(
            Search(
                cloud=cloudy, shadow=cells.shadow * dim, valid=cells.valid,
                sun=evidence.sun, cell=cell, reach=rules.reach, threads=threads,
            )
        )  # fmt: skip
    flags = believed * BELIEVED | supported * SUPPORTED
    edge = 0.0
    if dark is None:
        flags |= allowed * DARK
    else:
        edge = _edge(dark[allowed & dim & ~cloudy & cells.deep], rules)
        flags |= _shades(dark, edge, allowed)
    missing = {
        NO_PRODUCT: evidence.product is None,
        NO_SUN: not sunlit,
        NO_NIR: evidence.nir is None,
        NO_GROUND: evidence.nir is not None and dark is None,
    }
    notes = tuple(note for note, applies in missing.items() if applies)
    return Calibrated(evidence, rules, flags, dark, edge, sunlit, notes)


def _supported(cells: Cells, rules: Rules) -> BoolGrid:
    """Cloud objects of the product in which the model sees at least a hint of cloud in enough places."""
    hint = ndimage.maximum_filter(cells.hint, size=3)
    return kept_objects(objects(cells.product_any), hint, share=rules.support)


def _believed(cells: Cells, supported: BoolGrid) -> BoolGrid:
    """Cloud objects that are certain somewhere: by the model, or by most of a cell of supported product cloud."""
    labels = objects(cells.cloud_any | (cells.product_any & supported))
    certain = np.zeros(labels.max(initial=0) + 1, np.bool_)
    certain[labels[cells.certain | (cells.product_most & supported)]] = True
    certain[0] = False
    believed: BoolGrid = certain[labels]
    return believed


def _edge(core: FloatGrid, rules: Rules) -> float:
    """Darkness of a shadow's edge: halfway between lit ground (1) and the core of this scene's shadows."""
    deepest = float(np.median(core)) if core.size else rules.core
    return min(1 - rules.halfway * (1 - deepest), rules.dim)


def _shades(dark: FloatGrid, edge: float, allowed: BoolGrid) -> NDArray[np.uint8]:
    """`DARK` where all that lies between a cell's and its neighbors' centers is dark; `EDGE` where some is."""
    all_dark = ndimage.maximum_filter(dark, size=3) <= edge
    some_dark = ndimage.minimum_filter(dark, size=3) <= edge
    shades: NDArray[np.uint8] = (allowed & all_dark) * DARK | (allowed & some_dark & ~all_dark) * EDGE
    return shades
