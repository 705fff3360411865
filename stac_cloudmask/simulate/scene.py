"""Simulate Sentinel-2 L2A scenes with known truth as STAC items, for the demo, tests and benchmarks.

These scenes support no claims about real clouds. They are realistic enough for models that were not trained on them:
see ``benchmarks/README.md`` for the scores of the bundled model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from rasterio.warp import transform_geom
from shapely.geometry import shape

from stac_cloudmask.core.classes import CloudClass, Scl
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.pixels import block_mean
from stac_cloudmask.core.votes import Sun
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.simulate.clouds import SCL_STEP, draw_sky, look_down, scene_classification
from stac_cloudmask.simulate.landscape import landscape
from stac_cloudmask.stac.assets import COG, class_list
from stac_cloudmask.stac.bands import BOA_OFFSET, QUANTIFICATION
from stac_cloudmask.stac.geometry import LON_LAT
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.providers import BANDS, SCL

GSD: Final = 10.0
"""Pixel size of the finest bands and of the truth, in meters."""
REFERENCE: Final = "reference"
FACTORS: Final = {name: round(band.gsd / GSD) for name, band in BANDS.items()} | {SCL: SCL_STEP, REFERENCE: 1}
"""Pixel size of each layer relative to the finest, by asset key."""
PATCH: Final = 1830
"""Maximum side of the simulated patch, in pixels; a larger scene repeats it, without seams because it wraps around.

A sixth of a whole tile's 10980 and a multiple of 6, so that the bands of all pixel sizes repeat exactly."""
SHORTEST: Final = 4
"""Smallest side of a scene, in pixels."""
MORNING: Final = Sun(azimuth=150.0, elevation=50.0)
CIRRUS: Final = 0.10
"""Share of the scene with high, thin clouds."""
NOISE: Final = 0.002
"""Standard deviation of the sensor noise, in reflectance."""
EPSG, LEFT, TOP = 32633, 600000.0, 5000040.0
COLLECTION: Final = "simulated-sentinel-2-l2a"
SOURCE_EXTENSIONS: Final = ("classification/v2.0.0", "eo/v1.1.0", "projection/v1.1.0", "raster/v1.1.0", "view/v1.0.0")
FIRST_DAY: Final = datetime(2023, 6, 1, 10, 0, tzinfo=UTC)
DAYS: Final = 3650


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
        drawable = min(self.height, self.width) >= SHORTEST and min(self.seed, self.place or 0) >= 0
        if not (drawable and 0 <= self.cumulus <= 1 and self.sun.elevation > 0 and set(self.bands) <= set(BANDS)):
            raise ConfigError(
                f"{self} cannot be drawn: height and width are at least {SHORTEST}, seed and place at least 0, cumulus "
                f"is a share in [0, 1], the sun stands above the horizon, and bands are of {', '.join(BANDS)}"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """Asset keys of the written layers."""
        return (*self.bands, *([SCL] if self.scl else []), REFERENCE)

    def layer_grid(self, key: str) -> Grid:
        """Return the grid of a layer."""
        finest = Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=GSD, height=self.height, width=self.width)
        return finest.coarsen(FACTORS[key])


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
    patches: Mapping[str, NDArray[Any]]

    def layer(self, key: str) -> NDArray[Any]:
        """Return a layer of the whole scene, ``(y, x)``."""
        patch, grid = self.patches[key], self.recipe.layer_grid(key)
        copies = tuple(-(-whole // part) for whole, part in zip(grid.shape, patch.shape, strict=True))
        layer: NDArray[Any] = np.tile(patch, copies)[: grid.height, : grid.width]
        if self.recipe.wedge:
            first_empty = grid.width * np.linspace(0.95, 0.65, grid.height)
            layer[np.arange(grid.width) >= first_empty[:, None]] = _nodata_of(key)
        return layer


def simulate(recipe: Recipe = DEFAULT) -> SimulatedScene:
    """Draw a landscape, clouds over it, and the satellite's bands and SCL."""
    rng = np.random.default_rng(recipe.seed)
    shape = min(recipe.height, PATCH), min(recipe.width, PATCH)
    ground, cover = landscape(rng if recipe.place is None else np.random.default_rng(recipe.place), shape, GSD)
    sky = draw_sky(rng, shape, GSD, cumulus=recipe.cumulus, cirrus=CIRRUS, sun=recipe.sun)
    patches: dict[str, NDArray[Any]] = {}
    for name, plane in zip(BANDS, look_down(ground, sky, GSD), strict=True):
        noisy = plane + NOISE * rng.standard_normal(plane.shape, np.float32)
        dn = np.rint(noisy * QUANTIFICATION) - BOA_OFFSET
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
        layer, grid = scene.layer(key), recipe.layer_grid(key)
        with rasterio.open(
            home / f"{key}.tif", "w", driver="COG", count=1, dtype=layer.dtype, nodata=_nodata_of(key),
            crs=grid.code, transform=rasterio.Affine(*grid.transform), height=grid.height, width=grid.width,
            blocksize=512, compress="deflate", level=1, predictor=2, num_threads=2,
            overview_resampling="average" if key in BANDS else "mode",
        ) as cog:  # fmt: skip
            cog.write(layer, 1)
    clouds = np.isin(scene.patches[SCL], (Scl.MEDIUM_CLOUD, Scl.HIGH_CLOUD, Scl.CIRRUS))
    _list_in_catalog(Path(folder), collection, _source_item(name, recipe, round(100 * float(clouds.mean()), 4)))
    return home / f"{name}.json"


def _nodata_of(key: str) -> int:
    return int(CloudClass.NODATA) if key == REFERENCE else 0


def _source_item(item_id: str, recipe: Recipe, cloud_cover: float) -> pystac.Item:
    """Return the item of a scene in the style of Earth Search; its files are ``<key>.tif`` beside it.

    Args:
        item_id: Its id.
        recipe: Parameters of the scene.
        cloud_cover: Percent of the valid pixels, as the product has it.
    """
    grid = recipe.layer_grid(REFERENCE)
    left, bottom, right, top = grid.bounds
    ring = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    outline = transform_geom(grid.code, LON_LAT, {"type": "Polygon", "coordinates": [ring]}, precision=7)
    properties = {
        "title": f"Simulated scene, seed {recipe.seed}",
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": grid.gsd,
        "eo:cloud_cover": cloud_cover,
        "view:sun_azimuth": recipe.sun.azimuth,
        "view:sun_elevation": recipe.sun.elevation,
        "proj:epsg": grid.epsg,
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": "05.11",
    }
    return pystac.Item(
        item_id, outline, [*shape(outline).bounds], FIRST_DAY + timedelta(days=recipe.seed % DAYS), properties,
        stac_extensions=[f"https://stac-extensions.github.io/{name}/schema.json" for name in SOURCE_EXTENSIONS],
        assets={key: _asset(key, recipe.layer_grid(key)) for key in recipe.layers},
    )  # fmt: skip


def _asset(key: str, grid: Grid) -> pystac.Asset:
    fields: dict[str, Any] = {"gsd": grid.gsd, "proj:shape": [*grid.shape], "proj:transform": [*grid.transform]}
    pixels: dict[str, Any] = {"nodata": _nodata_of(key), "data_type": "uint8", "spatial_resolution": grid.gsd}
    roles = ["data"]
    if key in BANDS:
        band, common_name = BANDS[key], key.rstrip("123") if key.startswith("rededge") else key
        pixels |= {"data_type": "uint16", "scale": 1 / QUANTIFICATION, "offset": BOA_OFFSET / QUANTIFICATION}
        fields["eo:bands"] = [{"name": band.esa, "common_name": common_name, "center_wavelength": band.wavelength}]
        roles = ["data", "reflectance"]
    elif key == REFERENCE:
        fields["classification:classes"] = class_list()
        roles = ["reference"]
    return pystac.Asset(f"./{key}.tif", media_type=COG, roles=roles, extra_fields=fields | {"raster:bands": [pixels]})


def _list_in_catalog(folder: Path, collection_id: str, item: pystac.Item) -> None:
    """Write an item beside its files, and list it in the collection and the catalog in ``folder``."""
    root, home = folder / "catalog.json", folder / collection_id / "collection.json"
    made = pystac.Catalog("simulated", "Simulated Sentinel-2 scenes.", href=str(root))
    catalog = pystac.Catalog.from_file(root) if root.exists() else made
    if home.exists():
        collection = pystac.Collection.from_file(home)
        collection.remove_item(item.id)
    else:
        about = "Simulated scenes with a reference mask; nothing here was seen by a satellite."
        extent, title = pystac.Extent.from_items([item]), "Simulated Sentinel-2 L2A"
        collection = pystac.Collection(collection_id, about, extent, title, license="MIT")
        catalog.add_child(collection)
    collection.add_item(item)
    collection.update_extent_from_items()
    for written in (catalog, collection, item):
        written.save_object(include_self_link=False)
