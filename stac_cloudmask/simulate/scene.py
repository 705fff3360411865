"""Simulated Sentinel-2 L2A scenes whose truth is known, as STAC items: for the demo, tests and benchmarks.

No claim about real clouds rests on these scenes. They are real enough for models that have never seen them: see
``benchmarks/README.md`` for what the bundled model scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, cast, get_args

import numpy as np

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.reflectance import block_mean
from stac_cloudmask.core.votes import Scl, Sun
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.simulate.clouds import STEP, average, draw_sky, look_down, scene_classification
from stac_cloudmask.simulate.item import SimulatedProperties, source_item, store_item, write_layer
from stac_cloudmask.simulate.landscape import BANDS, landscape
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.providers import SCL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Plane = NDArray[np.uint16] | NDArray[np.uint8]

Boa = Literal["declared", "undeclared", "applied", "none"]

FACTORS: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(BANDS, 2) | dict.fromkeys(("blue", "green", "red", "nir"), 1) | dict.fromkeys(("coastal", "nir09"), 6)
)
"""Pixel size of each band relative to the finest, as Sentinel-2 has it."""
PATCH: Final = 1830
"""Largest side of what is simulated, in pixels; a larger scene repeats it, without seams as patches wrap around.

A sixth of a whole tile's 10980 and a multiple of 6, so that the bands of all pixel sizes repeat exactly."""
FINE: Final = 10.0
"""Pixel size in meters at which light is reckoned; coarser scenes are means of it."""
LEAST: Final = 4
"""Smallest side of a scene, in pixels."""
NOISE: Final = 0.002
"""Deviation of the sensor's noise, in reflectance."""
SCALE: Final = 10_000
"""Digital numbers per reflectance."""
EPSG, LEFT, TOP = 32633, 600000.0, 5000040.0
FIRST_DAY: Final = datetime(2023, 6, 1, 10, 0, tzinfo=UTC)
DAYS: Final = 3650
COLLECTION: Final = "simulated-sentinel-2-l2a"
REFERENCE: Final = "reference"


@dataclass(frozen=True, kw_only=True)
class _Offset:
    """How pixels and item look: see `Recipe.boa`.

    Attributes:
        baseline: ESA's processing baseline.
        raised: What is added to the digital numbers.
        declared: Reflectance to add after scaling, as the item's bands say; None where they are silent.
        applied: The item's flag that the offset is out of the pixels; None where it has none.
    """

    baseline: str
    raised: int
    declared: float | None
    applied: bool | None = None


OFFSETS: Final[Mapping[Boa, _Offset]] = MappingProxyType(
    {
        "declared": _Offset(baseline="05.11", raised=1000, declared=-0.1),
        "undeclared": _Offset(baseline="05.11", raised=1000, declared=None),
        "applied": _Offset(baseline="05.11", raised=0, declared=-0.1, applied=True),
        "none": _Offset(baseline="02.14", raised=0, declared=0.0),
    }
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a simulated scene is made from; the same recipe gives the same scene to the bit.

    Attributes:
        height: Rows of the finest bands.
        width: Columns of the finest bands.
        gsd: Side of their pixels in meters; the other bands have 2 and 6 times this.
        seed: Another number, another scene.
        place: Number of the landscape: scenes of one place differ in their clouds only. None takes ``seed``, too.
        cumulus: Share (0..1) of the scene with low, thick clouds, without their fringes.
        cirrus: Share with high, thin clouds.
        sun: Where the sun stands.
        boa: How the item treats the offset of ESA's baseline 04.00 and later. ``declared``: it is in the pixels, and
            the item says so; ``undeclared``: it is in the pixels, and only the baseline tells; ``applied``: it is out
            of the pixels, as a flag says, although the item declares it; ``none``: an earlier baseline without it.
        wedge: Leave the east of the scene without data, as at the edge of a swath.
        bands: Common names of the bands to write.
        scl: Whether there is a scene classification.
    """

    height: int = 1080
    width: int = 1080
    gsd: float = 10.0
    seed: int = 0
    place: int | None = None
    cumulus: float = 0.22
    cirrus: float = 0.10
    sun: Sun = field(default=Sun(azimuth=150.0, elevation=50.0))
    boa: Boa = "declared"
    wedge: bool = False
    bands: tuple[str, ...] = BANDS
    scl: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.height, self.width) < LEAST or self.gsd <= 0 or min(self.seed, self.place or 0) < 0:
            raise ConfigError(
                f"no scene has {self.height} x {self.width} pixels of {self.gsd:g} m and seed {self.seed}"
            )
        if not (0 <= self.cumulus <= 1 and 0 <= self.cirrus <= 1):
            raise ConfigError(f"cumulus and cirrus are shares in [0, 1], got {self.cumulus:g} and {self.cirrus:g}")
        if not 0 < self.sun.elevation <= 90:  # noqa: PLR2004  (degrees)
            raise ConfigError(
                f"the sun must stand above the horizon, got an elevation of {self.sun.elevation:g} degrees"
            )
        if self.boa not in get_args(Boa):
            raise ConfigError(f"boa is one of {', '.join(get_args(Boa))}, got {self.boa!r}")
        if unknown := set(self.bands) - set(BANDS):
            raise ConfigError(f"no such bands: {', '.join(sorted(unknown))}; there are {', '.join(BANDS)}")

    @property
    def grid(self) -> Grid:
        """The grid of the finest bands and of the truth."""
        return Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=self.gsd, height=self.height, width=self.width)


DEFAULT: Final = Recipe()


@dataclass(frozen=True, kw_only=True)
class SimulatedScene:
    """The layers of a simulated scene.

    Attributes:
        recipe: What it was made from.
        patches: By asset key, what the layer repeats: uint16 digital numbers of the bands (0 = nodata), uint8 codes of
            ``scl`` (0 = nodata) and ``reference`` (class map, 255 = nodata).
        factors: By asset key, the pixel size relative to the finest.
    """

    recipe: Recipe
    patches: Mapping[str, Plane]
    factors: Mapping[str, int]

    def grid(self, key: str) -> Grid:
        """The grid of a layer."""
        return self.recipe.grid.coarsen(self.factors[key])

    def layer(self, key: str) -> Plane:
        """A layer of the whole scene, ``(y, x)``."""
        patch, grid = self.patches[key], self.grid(key)
        copies = tuple(-(-whole // part) for whole, part in zip(grid.shape, patch.shape, strict=True))
        layer = cast("Plane", np.tile(patch, copies)[: grid.height, : grid.width])
        if self.recipe.wedge:
            first_empty = grid.width * np.linspace(0.95, 0.65, grid.height)
            nodata = CloudClass.NODATA if key == REFERENCE else 0
            layer[np.arange(grid.width) >= first_empty[:, None]] = nodata
        return layer


def simulate(recipe: Recipe = DEFAULT) -> SimulatedScene:
    """Draw a landscape, clouds over it, and what the satellite and its SCL make of them."""
    rng = np.random.default_rng(recipe.seed)
    detail = max(1, round(recipe.gsd / FINE))
    most = max(PATCH // detail // 6, 1) * 6
    shape = min(recipe.height, most) * detail, min(recipe.width, most) * detail
    fine = recipe.gsd / detail
    ground, cover = landscape(rng if recipe.place is None else np.random.default_rng(recipe.place), shape, fine)
    sky = draw_sky(rng, shape, fine, cumulus=recipe.cumulus, cirrus=recipe.cirrus, sun=recipe.sun)
    seen = average(look_down(ground, sky, fine), detail)
    sky, cover = sky.coarsen(detail), cover[::detail, ::detail]
    raised = OFFSETS[recipe.boa].raised
    patches: dict[str, Plane] = {}
    for name, plane in zip(BANDS, seen, strict=True):
        noisy = plane + NOISE * rng.standard_normal(plane.shape, np.float32)
        dn = np.clip(np.rint(noisy * SCALE) + raised, 1, np.iinfo(np.uint16).max).astype(np.uint16)
        patches[name] = block_mean(dn, FACTORS[name])
    patches[SCL] = scene_classification(rng, cover, sky, recipe.gsd)
    patches[REFERENCE] = sky.truth()
    wanted = [*recipe.bands, *([SCL] if recipe.scl else []), REFERENCE]
    return SimulatedScene(
        recipe=recipe,
        patches={key: patches[key] for key in wanted},
        factors={**FACTORS, SCL: STEP, REFERENCE: 1},
    )


def write_simulated_item(
    folder: Path | str, recipe: Recipe = DEFAULT, *, item_id: str | None = None, collection: str = COLLECTION
) -> Path:
    """Simulate a scene and write it as a STAC item, listed in the catalog in ``folder``.

    Args:
        folder: Of ``catalog.json``; made if need be. Items written one after the other are listed together.
        recipe: What the scene is made from.
        item_id: Id of the item; by default one made from ``Recipe.seed``.
        collection: Id of its collection.

    Returns:
        The item's JSON file. Beside it are the bands, ``scl.tif`` and ``reference.tif``, the truth.
    """
    scene = simulate(recipe)
    name = safe_id(item_id or f"SIM_33TXK_{recipe.seed:06d}_L2A")
    home = Path(folder) / collection / name
    home.mkdir(parents=True, exist_ok=True)
    for key in scene.patches:
        nodata = CloudClass.NODATA if key == REFERENCE else 0
        write_layer(home / f"{key}.tif", scene.layer(key), scene.grid(key), nodata=nodata)
    offset = OFFSETS[recipe.boa]
    facts = SimulatedProperties(
        item_id=name,
        collection=collection,
        datetime=FIRST_DAY + timedelta(days=recipe.seed % DAYS),
        sun=(recipe.sun.azimuth, recipe.sun.elevation),
        cloud_cover=_product_cover(scene),
        baseline=offset.baseline,
        offset=offset.declared,
        applied=offset.applied,
        seed=recipe.seed,
    )
    return store_item(Path(folder), source_item(facts, {key: scene.grid(key) for key in scene.patches}))


def _product_cover(scene: SimulatedScene) -> float:
    """Cloud cover in percent as the product states it: by its SCL, or the truth where it has none."""
    if SCL in scene.patches:
        return round(100 * float(np.isin(scene.patches[SCL], (Scl.MEDIUM_CLOUD, Scl.HIGH_CLOUD, Scl.CIRRUS)).mean()), 4)
    return round(100 * float((scene.patches[REFERENCE] == CloudClass.CLOUD).mean()), 4)
