"""Real source items and made-up masks of them, for tests of what is written."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
from pystac.utils import datetime_to_str

from stac_cloudmask.config import Settings
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import StacCloudmaskError, StacCloudmaskWarning
from stac_cloudmask.stac.assets import file_name_of
from stac_cloudmask.stac.bands import Sources, resolve
from stac_cloudmask.stac.cog import write_cog, write_thumbnail
from stac_cloudmask.stac.mask_item import MaskFacts, ModelUse, class_counts, file_fields, output_collection

MODEL = ModelUse(
    name="ukis-csmask-4b-l2a",
    roles=("cloud", "shadow"),
    sha256="ab" * 32,
    href="https://models.example.org/ukis-csmask-4b-l2a/ukis-csmask-4b-l2a.json",
)
CREATED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def read_items(path: Path) -> list[pystac.Item]:
    """The items in a file, as they are, with the file as their home unless they name a remote one."""
    body = json.loads(path.read_text())
    features = body["features"] if body["type"] == "FeatureCollection" else [body]
    items = [pystac.Item.from_dict(feature, migrate=False) for feature in features if feature["type"] == "Feature"]
    for item in items:
        if not item.get_self_href():
            item.set_self_href(str(path))
    return items


def source_paths(shared: Path) -> list[Path]:
    """Every file with L2A items: the genuine ones of the providers, and those of the five catalogs."""
    data = shared / "data"
    provided = [
        p
        for p in (data / "items").glob("*.json")
        if not p.name.startswith(("collection__", "earth-search__sentinel-2-l1c"))
    ]
    scenes = [p for p in data.glob("*/*/*.json") if p.parent.name == p.stem]
    return sorted([*provided, *scenes])


def class_map(height: int = 60, width: int = 80) -> np.ndarray:
    """A map with every class, ``(y, x)`` uint8."""
    pattern = np.zeros((height, width), np.uint8)
    pattern[: height // 2, : width // 4] = 1
    pattern[height // 2 :, : width // 8] = 2
    pattern[:, -width // 10 :] = 255
    return pattern


def grid_of(array: np.ndarray) -> Grid:
    return Grid(epsg=32633, left=600000, top=5000000, gsd=20, height=array.shape[0], width=array.shape[1])


def write_files(folder: Path, array: np.ndarray, *, everything: bool = True) -> dict[str, Path]:
    """The files of a mask by asset key."""
    grid = grid_of(array)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {"cloud_mask": array}
    if everything:
        layers |= {"cloud_probability": array, "shadow_probability": array, "mask_votes": array & 3}
    for key, layer in layers.items():
        write_cog(folder, key, layer, grid)
    write_thumbnail(folder / "thumbnail.png", array)
    return {key: folder / file_name_of(key) for key in ("cloud_mask_qgis", "cloud_mask_gdal", "thumbnail", *layers)}


NO_SOURCES = Sources(item_id="", bands=(), scl=None, sun=None)


def sources_of(item: pystac.Item) -> Sources:
    """What a run would read of an item, without the bands where they cannot be read."""
    for names in (("blue", "green", "red", "nir"), ()):
        with suppress(StacCloudmaskError), warnings.catch_warnings():
            warnings.simplefilter("ignore", StacCloudmaskWarning)
            return resolve(item, names, want_scl=False)
    return NO_SOURCES


def facts_of(item: pystac.Item, array: np.ndarray, files: dict[str, Path], **changes: object) -> MaskFacts:
    """What a run would know of a mask of this item."""
    stated: dict = {
        "settings": Settings(),
        "sources": sources_of(item),
        "source_id": item.id,
        "collection_id": output_collection(item.collection_id),
        "models": (MODEL,),
        "grid": grid_of(array),
        "counts": class_counts(array),
        "files": {key: file_fields(path) for key, path in files.items()},
        "parameters": {"cloud_thr": 0.3, "shadow_thr": 0.2},
        "fingerprint": "0123456789abcdef",
        "created": datetime_to_str(CREATED),
        "software": {"stac_cloudmask": "0.2.0", "onnxruntime": "1.30.0"},
        "lineage": "Models merged with the scene classification (SCL).",
        "notes": (),
        "seconds": {},
    }
    return MaskFacts(**stated | changes)


def item_path(out: Path, ending: str) -> Path:
    """JSON of the one item in a catalog whose id ends so."""
    (path,) = out.glob(f"*/*{ending}/*{ending}.json")
    return path
