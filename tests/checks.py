"""What must hold for an output catalog at any time, whatever happened to the runs that wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rasterio
from rio_cogeo import cog_validate

from stac_cloudmask.stac.mask_item import file_fields

if TYPE_CHECKING:
    import numpy as np

MAPS = ("cloud_mask", "cloud_probability", "shadow_probability", "mask_votes")


def checked(out: Path, valid: Callable[[dict], object] | None = None) -> set[str]:
    """Ids of all listed items, after a look at each: it is there, valid, and its files and models are as it says."""
    ids = set()
    root = read(out / "catalog.json")
    for child in hrefs(root, "child"):
        collection = read(out / child)
        for body in (root, collection):
            if valid is not None:
                valid(body)
        listed = hrefs(collection, "item")
        assert len(listed) == len(set(listed)), "an item is listed twice"
        for href in listed:
            path = (out / child).parent / href
            check_item(path, valid)
            ids.add(path.stem)
    return ids


def check_item(path: Path, valid: Callable[[dict], object] | None = None) -> None:
    """Raise unless the files beside an item are those that it states, and lead to where they should."""
    body = read(path)
    if valid is not None:
        valid(body)
    own = {key: path.parent / asset["href"] for key, asset in body["assets"].items() if asset["href"].startswith("./")}
    assert "cloud_mask" in own
    for key, file in own.items():
        stated = body["assets"][key]
        if stated["type"] != "application/xml":  # QGIS and GDAL write to theirs
            assert file_fields(file).items() <= stated.items(), file
        if file.suffix == ".tif":
            assert cog_validate(str(file), strict=True, quiet=True)[0], file
    left = {file.name for file in path.parent.iterdir()} - {path.name, *(file.name for file in own.values())}
    assert not left, f"{path.parent} has files that its item does not know: {left}"
    models = [href for href in hrefs(body, "derived_from") if href.startswith("../")]
    assert models
    for href in models:
        assert read(path.parent / href)["type"] == "Feature"


def layers(folder: Path) -> dict[str, np.ndarray]:
    """The pixels of all maps in an item's folder, by asset key."""
    pixels = {}
    for key in MAPS:
        if (folder / f"{key}.tif").exists():
            with rasterio.open(folder / f"{key}.tif") as raster:
                pixels[key] = raster.read(1)
    return pixels


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def hrefs(body: dict, rel: str) -> list[str]:
    return [link["href"] for link in body["links"] if link["rel"] == rel]
