"""Source items made here: COGs, STAC item, collection and catalog in the manner of Earth Search."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import rasterio
from rasterio.warp import transform

from stac_cloudmask.stac.assets import COG, class_list
from stac_cloudmask.stac.item import timestamp
from stac_cloudmask.stac.providers import BANDS, SCL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid

VERSION: Final = "1.0.0"
EXTENSIONS: Final = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in (
        "classification/v2.0.0",
        "eo/v1.1.0",
        "projection/v1.1.0",
        "raster/v1.1.0",
        "sentinel-2/v1.0.0",
        "view/v1.0.0",
    )
]
SCALE: Final = 0.0001
WGS84: Final = "EPSG:4326"


@dataclass(frozen=True, kw_only=True)
class SimulatedProperties:
    """What an item says of its scene.

    Attributes:
        item_id: Its id, safe as part of a path.
        collection: Id of its collection, likewise.
        datetime: When it was taken; timezone-aware.
        sun: Azimuth and elevation of the sun in degrees.
        cloud_cover: Percent of the valid pixels, as the product has it.
        baseline: ESA's processing baseline.
        offset: Reflectance to add after scaling, as the bands declare it; None where they do not.
        applied: The flag that an offset is already applied; None where there is no flag.
        seed: The number that the scene was made from.
    """

    item_id: str
    collection: str
    datetime: datetime
    sun: tuple[float, float]
    cloud_cover: float
    baseline: str
    offset: float | None
    applied: bool | None
    seed: int


def write_layer(
    path: Path, layer: NDArray[np.uint16] | NDArray[np.uint8], grid: Grid, *, nodata: int, threads: int = 2
) -> None:
    """Write one layer as COG: the fastest compression, overviews by mean (uint16) or mode (uint8, codes)."""
    resampling = "average" if layer.dtype == np.uint16 else "mode"
    with rasterio.open(
        path, "w", driver="COG", count=1, dtype=layer.dtype, nodata=nodata, height=grid.height, width=grid.width,
        crs=grid.code, transform=rasterio.Affine(*grid.transform), blocksize=512, compress="deflate", level=1,
        predictor=2, num_threads=threads, overview_resampling=resampling,
    ) as cog:  # fmt: skip
        cog.write(layer, 1)


def source_item(facts: SimulatedProperties, grids: Mapping[str, Grid]) -> dict[str, Any]:
    """The item of a scene with a layer of each key in ``grids``, in ``<key>.tif`` beside it."""
    finest = min(grids.values(), key=lambda grid: grid.gsd)
    ring = _footprint(finest)
    lons, lats = zip(*ring, strict=True)
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": EXTENSIONS,
        "id": facts.item_id,
        "collection": facts.collection,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": _properties(facts, finest),
        "links": [
            {"rel": "root", "href": "../../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../collection.json", "type": "application/json"},
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": {key: _asset(key, grid, facts.offset) for key, grid in grids.items()},
    }


def store_item(folder: Path, item: Mapping[str, Any]) -> Path:
    """Write an item beside its files, and list it in the collection and the catalog in ``folder``."""
    name, collection = str(item["id"]), str(item["collection"])
    home = folder / collection
    path = home / name / f"{name}.json"
    _write_json(path, item)
    listed = _read_json(home / "collection.json") or _collection(item)
    _link(listed, f"./{name}/{name}.json", "item")
    _extend(listed["extent"], item)
    _write_json(home / "collection.json", listed)
    catalog = _read_json(folder / "catalog.json") or _catalog()
    _link(catalog, f"./{collection}/collection.json", "child")
    _write_json(folder / "catalog.json", catalog)
    return path


def _footprint(grid: Grid) -> list[tuple[float, float]]:
    left, bottom, right, top = grid.bounds
    xs, ys = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
    lons, lats = transform(grid.code, WGS84, xs, ys)[:2]
    return [(round(lon, 7), round(lat, 7)) for lon, lat in zip(lons, lats, strict=True)]


def _properties(facts: SimulatedProperties, grid: Grid) -> dict[str, Any]:
    stamp = timestamp(facts.datetime)
    flag = {} if facts.applied is None else {"earthsearch:boa_offset_applied": facts.applied}
    return {
        "datetime": stamp,
        "title": f"Simulated scene, seed {facts.seed}",
        "platform": "sentinel-2a",
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": grid.gsd,
        "eo:cloud_cover": facts.cloud_cover,
        "view:sun_azimuth": facts.sun[0],
        "view:sun_elevation": facts.sun[1],
        "proj:epsg": grid.epsg,
        "s2:product_type": "S2MSI2A",
        "s2:processing_baseline": facts.baseline,
        **flag,
    }


def _asset(key: str, grid: Grid, offset: float | None) -> dict[str, Any]:
    asset: dict[str, Any] = {
        "href": f"./{key}.tif",
        "type": COG,
        "gsd": grid.gsd,
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.transform),
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": grid.gsd}],
        "roles": ["data"],
    }
    if key in BANDS:
        band = BANDS[key]
        declared = {} if offset is None else {"scale": SCALE, "offset": offset}
        asset["raster:bands"] = [{"nodata": 0, "data_type": "uint16", "spatial_resolution": grid.gsd, **declared}]
        common_name = key.rstrip("123") if key.startswith("rededge") else key
        asset["eo:bands"] = [{"name": band.esa, "common_name": common_name, "center_wavelength": band.wavelength}]
        asset["roles"] = ["data", "reflectance"]
    elif key != SCL:
        asset["raster:bands"][0]["nodata"] = 255
        asset["classification:classes"] = class_list()
        asset["roles"] = ["reference"]
    return asset


def _collection(item: Mapping[str, Any]) -> dict[str, Any]:
    stamp = item["properties"]["datetime"]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "id": item["collection"],
        "title": "Simulated Sentinel-2 L2A",
        "description": "Simulated scenes with a reference mask; nothing here was seen by a satellite.",
        "license": "MIT",
        "extent": {"spatial": {"bbox": [item["bbox"]]}, "temporal": {"interval": [[stamp, stamp]]}},
        "links": [
            {"rel": "root", "href": "../catalog.json", "type": "application/json"},
            {"rel": "parent", "href": "../catalog.json", "type": "application/json"},
        ],
    }


def _catalog() -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": "simulated",
        "description": "Simulated Sentinel-2 scenes.",
        "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}],
    }


def _link(parent: dict[str, Any], href: str, rel: str) -> None:
    link = {"rel": rel, "href": href, "type": "application/geo+json" if rel == "item" else "application/json"}
    if link not in parent["links"]:
        parent["links"].append(link)


def _extend(extent: dict[str, Any], item: Mapping[str, Any]) -> None:
    known, new = extent["spatial"]["bbox"][0], item["bbox"]
    extent["spatial"]["bbox"][0] = [*map(min, known[:2], new[:2]), *map(max, known[2:], new[2:])]
    first, last = extent["temporal"]["interval"][0]
    stamp = item["properties"]["datetime"]
    extent["temporal"]["interval"][0] = [min(first, stamp), max(last, stamp)]


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n")
