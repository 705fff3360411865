"""The constants of the `calibrated` merge policy, each with its unit and the measurement behind it.

`docs/accuracy.md` has the sensitivity of the result to each one.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where a shadow may lie relative to its cloud.

    Attributes:
        lowest: Lowest cloud searched for, in metres; fog casts no shadow worth having.
        highest: Highest cloud searched for, in metres: the tropopause.
        step: Share by which the shadow lengths that are tried grow, at least by one cell.
        window: Width in metres within which clouds agree on one height.
        prior: Area in square metres of shadow with which the whole scene speaks for a height, against what is seen
            in one window. Without it small cumulus picks any dark field.
        doubt: Area in square metres with which no shadow at all speaks against what the scene shows: a lone cloud needs
            some 60,000 m2 to be believed a shadow.
        seen: A length is judged where this share of the cloud's shadow would fall on visible ground.
        nearly: Every length whose fit is this close to the best counts too: a tall or wide cloud has many.
        slack: Growth in metres of what clouds cast: rounding to cells, view angle, cloud edges not flagged.
        agreement: A cloud whose best shadow looks like shadow by less than this share casts none: roofs, sand.
        overlap: A dark object that lies in the cast area by this share is shadow as a whole.
    """

    lowest: float = 200.0
    highest: float = 12_000.0
    step: float = 0.05
    window: float = 1_000.0
    prior: float = 720_000.0
    doubt: float = 180_000.0
    seen: float = 0.2
    nearly: float = 0.05
    slack: float = 100.0
    agreement: float = 0.3
    overlap: float = 0.75


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a vote is worth. Votes of a pixel count strictly above their percent.

    Attributes:
        cell: Side in metres of the cells on which a scene is surveyed; rounded to whole pixels.
        seed: Mean cloud percent that one cell of a cloud object must have for the model to be believed. Roofs of
            Bolzano reach 95 on 3,400 m2, yet no cell there has a mean of 60.
        cirrus: Percent from which product cirrus counts. On alberta_20200625 the product calls 92 % of the scene
            cirrus, where the model stays below 1 for 95 % of it.
        hint: Cloud percent that supports a product cloud. Roofs and quarries that the product takes for cloud
            (33TWL, 13 August 2023) stay below 3 for 95 % of their pixels; true clouds are above it for 95 %.
        support: A cloud object of the product counts if this share of its cells has a hint of cloud near.
        product_shadow: Percent from which product shadow counts. The product is right nine times in ten where it says
            shadow (Alberta), and sees at 120 m what the model does not.
        deep: Mean shadow percent of a cell in the core of a shadow.
        clean: Mean cloud and shadow percent below which a cell is lit ground.
        halfway: A shadow's edge is where near infrared has fallen this far from lit ground to the shadow's core. The
            core has 0.20 and 0.23 of lit ground on clear Alberta dates, 0.43 in haze, 0.55 under Sahara's thin cloud.
        core: The core's near infrared, as a share of lit ground, where a scene shows none.
        dim: Ground must be darker than this share of the lit ground nearby to be shadow at all.
        background: Standard deviation in metres of the smoothing that gives the near infrared of lit ground nearby.
        water: Near-infrared reflectance up to which clear ground is water and says nothing of lit ground.
        reach: Sun geometry.
    """

    cell: float = 60.0
    seed: int = 70
    cirrus: int = 20
    hint: int = 5
    support: float = 0.1
    product_shadow: int = 5
    deep: int = 90
    clean: int = 20
    halfway: float = 0.5
    core: float = 0.3
    dim: float = 0.85
    background: float = 1_000.0
    water: float = 0.12
    reach: Reach = field(default_factory=Reach)

    def cell_factor(self, gsd: float) -> int:
        """Pixels of ``gsd`` metres along the side of a cell, at least one."""
        return max(1, round(self.cell / gsd))
