"""EOPF Zarr products as ESA's sample service lays them out, written by hand, and the items that lead to them."""

from __future__ import annotations

import json
import zlib
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.stac.rasters import EPSG, LEFT, TOP, item_of

if TYPE_CHECKING:
    from pathlib import Path

    import pystac
    from numpy.typing import NDArray

    Bands = dict[str, tuple[int, NDArray[Any]]]

PRODUCT = "S2C_MSIL2A_20250518T114401_N0511_R123_T29UMV_20250518T152215.zarr"
GROUPS = {10: "measurements/reflectance/r10m", 20: "measurements/reflectance/r20m"}
SCL_GROUP = "conditions/mask/l2a_classification/r20m"
CHUNK = 96
ESA = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}


def write_array(folder: Path, pixels: NDArray[Any], dims: list[str], attributes: dict[str, Any]) -> None:
    """One array of format 2, compressed by zlib; chunks of nothing but 0 are left out."""
    folder.mkdir(parents=True)
    chunks = [min(CHUNK, side) for side in pixels.shape]
    array = {
        "zarr_format": 2, "shape": pixels.shape, "chunks": chunks, "dtype": pixels.dtype.str, "fill_value": 0,
        "order": "C", "filters": None, "compressor": {"id": "zlib", "level": 1},
    }  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(array))
    (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims} | attributes))
    for place in product(*(range(-(-side // chunk)) for side, chunk in zip(pixels.shape, chunks, strict=True))):
        part = pixels[tuple(slice(i * chunk, (i + 1) * chunk) for i, chunk in zip(place, chunks, strict=True))]
        if part.any():
            whole = np.zeros(chunks, pixels.dtype)
            whole[tuple(map(slice, part.shape))] = part
            (folder / ".".join(map(str, place))).write_bytes(zlib.compress(whole.tobytes()))


def write_group(folder: Path, arrays: dict[str, NDArray[Any]], gsd: float, attributes: dict[str, Any]) -> None:
    """Arrays of one grid and its coordinates, which are the middles of pixels."""
    height, width = next(iter(arrays.values())).shape
    for name, pixels in arrays.items():
        write_array(folder / name, pixels, ["y", "x"], attributes)
    write_array(folder / "x", (LEFT + gsd / 2 + gsd * np.arange(width)).astype("<i8"), ["x"], {})
    write_array(folder / "y", (TOP - gsd / 2 - gsd * np.arange(height)).astype("<i8"), ["y"], {})


def write_product(folder: Path, bands: Bands, scl: NDArray[Any], *, attributes: dict[str, Any]) -> None:
    """A product of bands, by common name their pixel size and digital numbers, and the scene classification."""
    root = folder / PRODUCT
    for gsd, group in GROUPS.items():
        arrays = {ESA[name].lower(): dn for name, (size, dn) in bands.items() if size == gsd}
        if arrays:
            write_group(root / group, arrays, gsd, attributes)
    write_group(root / SCL_GROUP, {"scl": scl}, 20, {})


def item_of_arrays(home: str, bands: Bands, **properties: object) -> pystac.Item:
    """An item with an asset for each array."""
    assets = {f"{ESA[name]}_{gsd}m": f"{PRODUCT}/{GROUPS[gsd]}/{ESA[name].lower()}" for name, (gsd, _) in bands.items()}
    return _item(home, assets, properties)


def item_of_groups(home: str, bands: Bands, **properties: object) -> pystac.Item:
    """An item with an asset for each group, which lists its bands."""
    sizes = {gsd for gsd, _ in bands.values()}
    item = _item(home, {f"SR_{gsd}m": f"{PRODUCT}/{GROUPS[gsd]}" for gsd in sizes}, properties)
    for gsd in sizes:
        names = [{"name": ESA[name]} for name, (size, _) in bands.items() if size == gsd]
        fields = {"gsd": gsd, "bands": [*names, {"name": "B99"}]}
        item.assets[f"SR_{gsd}m"].extra_fields |= fields
    return item


def _item(home: str, assets: dict[str, str], properties: dict[str, object]) -> pystac.Item:
    given = {"proj:code": f"EPSG:{EPSG}", "s2:processing_baseline": "05.11"} | properties
    item = item_of(home, assets | {"SCL_20m": f"{PRODUCT}/{SCL_GROUP}/scl", "product": PRODUCT}, **given)
    for asset in item.assets.values():
        asset.media_type = "application/vnd+zarr"
    return item
