"""Simulate Sentinel-2 L2A scenes with known truth as STAC items, for the demo, tests and benchmarks.

These scenes support no claims about real clouds. They are realistic enough for models that were not trained on them:
see ``benchmarks/README.md`` for the scores of the bundled model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.resampling import block_mean
from stac_cloudmask.core.votes import Scl, Sun
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.simulate.clouds import STEP, draw_sky, look_down, scene_classification
from stac_cloudmask.simulate.item import RAISED, STEPS, source_item, store_item, write_layer
from stac_cloudmask.simulate.landscape import landscape
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.providers import BANDS, SCL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Plane = NDArray[np.uint16] | NDArray[np.uint8]

GSD: Final = 10.0
"""Pixel size of the finest bands and of the truth, in meters."""
REFERENCE: Final = "reference"
FACTORS: Final = {name: round(band.gsd / GSD) for name, band in BANDS.items()} | {SCL: STEP, REFERENCE: 1}
"""Pixel size of each layer relative to the finest, by asset key."""
PATCH: Final = 1830
"""Maximum side of the simulated patch, in pixels; a larger scene repeats it, without seams because it wraps around.

A sixth of a whole tile's 10980 and a multiple of 6, so that the bands of all pixel sizes repeat exactly."""
LEAST: Final = 4
"""Smallest side of a scene, in pixels."""
MORNING: Final = Sun(azimuth=150.0, elevation=50.0)
CIRRUS: Final = 0.10
"""Share of the scene with high, thin clouds."""
NOISE: Final = 0.002
"""Standard deviation of the sensor noise, in reflectance."""
EPSG, LEFT, TOP = 32633, 600000.0, 5000040.0
COLLECTION: Final = "simulated-sentinel-2-l2a"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The parameters of a simulated scene; equal recipes give bit-identical scenes.

    Attributes:
        height: Rows of the finest bands, which have 10 m.
        width: Columns of the finest bands.
        seed: Another number, another scene.
        place: Number of the landscape: scenes of one place differ in their clouds only. None takes ``seed``, too.
        cumulus: Share (0..1) of the scene with low, thick clouds, without their fringes.
        sun: Position of the sun.
        wedge: Leave the east of the scene without data, as at the edge of a swath.
        bands: Common names of the bands to write.
        scl: Whether there is a scene classification.
    """

    height: int = 1080
    width: int = 1080
    seed: int = 0
    place: int | None = None
    cumulus: float = 0.22
    sun: Sun = MORNING
    wedge: bool = False
    bands: tuple[str, ...] = tuple(BANDS)
    scl: bool = True

    def __post_init__(self) -> None:
        """Reject parameters that cannot be drawn."""
        drawable = min(self.height, self.width) >= LEAST and min(self.seed, self.place or 0) >= 0
        if not (drawable and 0 <= self.cumulus <= 1 and self.sun.elevation > 0 and set(self.bands) <= set(BANDS)):
            raise ConfigError(
                f"{self} cannot be drawn: height and width are at least {LEAST}, seed and place at least 0, cumulus is "
                f"a share in [0, 1], the sun stands above the horizon, and bands are of {', '.join(BANDS)}"
            )

    @property
    def grid(self) -> Grid:
        """The grid of the finest bands and of the truth."""
        return Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=GSD, height=self.height, width=self.width)

    def layer_grid(self, key: str) -> Grid:
        """Return the grid of a layer."""
        return self.grid.coarsen(FACTORS[key])

    @property
    def layers(self) -> tuple[str, ...]:
        """Asset keys of the written layers."""
        return (*self.bands, *([SCL] if self.scl else []), REFERENCE)


DEFAULT: Final = Recipe()


@dataclass(frozen=True, kw_only=True)
class SimulatedScene:
    """The layers of a simulated scene.

    Attributes:
        recipe: Parameters of the scene.
        patches: Repeated layers by asset key: uint16 digital numbers of the bands (0 = nodata), uint8 codes of
            ``scl`` (0 = nodata) and ``reference`` (class map, 255 = nodata).
    """

    recipe: Recipe
    patches: Mapping[str, Plane]

    def layer(self, key: str) -> Plane:
        """Return a layer of the whole scene, ``(y, x)``."""
        patch, grid = self.patches[key], self.recipe.layer_grid(key)
        copies = tuple(-(-whole // part) for whole, part in zip(grid.shape, patch.shape, strict=True))
        layer = cast("Plane", np.tile(patch, copies)[: grid.height, : grid.width])
        if self.recipe.wedge:
            first_empty = grid.width * np.linspace(0.95, 0.65, grid.height)
            layer[np.arange(grid.width) >= first_empty[:, None]] = nodata_of(key)
        return layer


def nodata_of(key: str) -> int:
    """Return the nodata value of a layer."""
    return int(CloudClass.NODATA) if key == REFERENCE else 0


def simulate(recipe: Recipe = DEFAULT) -> SimulatedScene:
    """Draw a landscape, clouds over it, and the satellite's bands and SCL."""
    rng = np.random.default_rng(recipe.seed)
    shape = min(recipe.height, PATCH), min(recipe.width, PATCH)
    ground, cover = landscape(rng if recipe.place is None else np.random.default_rng(recipe.place), shape, GSD)
    sky = draw_sky(rng, shape, GSD, cumulus=recipe.cumulus, cirrus=CIRRUS, sun=recipe.sun)
    patches: dict[str, Plane] = {}
    for name, plane in zip(BANDS, look_down(ground, sky, GSD), strict=True):
        noisy = plane + NOISE * rng.standard_normal(plane.shape, np.float32)
        dn = np.rint(noisy * STEPS) + RAISED
        patches[name] = block_mean(np.clip(dn, 1, np.iinfo(np.uint16).max).astype(np.uint16), FACTORS[name])
    patches[SCL] = scene_classification(rng, cover, sky, GSD)
    patches[REFERENCE] = sky.truth()
    return SimulatedScene(recipe=recipe, patches=patches)


def write_simulated_item(
    folder: Path | str, recipe: Recipe = DEFAULT, *, item_id: str | None = None, collection: str = COLLECTION
) -> Path:
    """Simulate a scene and write it as a STAC item, listed in the catalog in ``folder``.

    Args:
        folder: Folder of ``catalog.json``, created if needed. Items written one after another are listed together.
        recipe: Parameters of the scene.
        item_id: Id of the item; by default one made from ``Recipe.seed``.
        collection: Id of its collection.

    Returns:
        The item's JSON file. Beside it are the bands, ``scl.tif`` and ``reference.tif``, the truth.
    """
    scene = simulate(recipe)
    name = safe_id(item_id or f"SIM_33TXK_{recipe.seed:06d}_L2A")
    home = Path(folder) / collection / name
    home.mkdir(parents=True, exist_ok=True)
    for key in recipe.layers:
        write_layer(home / f"{key}.tif", scene.layer(key), recipe.layer_grid(key), nodata=nodata_of(key))
    clouds = np.isin(scene.patches[SCL], (Scl.MEDIUM_CLOUD, Scl.HIGH_CLOUD, Scl.CIRRUS))
    return store_item(Path(folder), source_item(name, recipe, round(100 * float(clouds.mean()), 4)), collection)
