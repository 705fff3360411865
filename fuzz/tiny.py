"""A scene and a model small enough to be processed in a blink."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import rasterio
from onnx import TensorProto, helper, numpy_helper
from rasterio.transform import from_origin

if TYPE_CHECKING:
    import random

SIDE: Final = 96
LEFT, TOP, EPSG = 300000, 5000040, 32633
BANDS: Final = {"red": "red", "nir": "nir"}
FOOTPRINT: Final = [[[15.0, 45.0], [15.01, 45.0], [15.01, 45.01], [15.0, 45.0]]]


def write_raster(path: Path, pixels: np.ndarray, gsd: float, **profile: Any) -> None:
    """A GeoTIFF, tiled unless ``profile`` says otherwise, of ``(y, x)`` or ``(band, y, x)``."""
    bands = pixels if pixels.ndim == 3 else pixels[None]
    given: dict[str, Any] = {"driver": "GTiff", "nodata": 0, "tiled": True, "blockxsize": 32, "blockysize": 32}
    given |= {"crs": f"EPSG:{EPSG}", "transform": from_origin(LEFT, TOP, gsd, gsd), "compress": "deflate"} | profile
    given |= {"count": len(bands), "height": bands.shape[1], "width": bands.shape[2], "dtype": bands.dtype}
    with rasterio.open(path, "w", **given) as file:
        file.write(bands)


def pixels_of(name: str) -> tuple[np.ndarray, float]:
    """Good pixels of a band or of the scene classification, and their size in metres."""
    rng = np.random.default_rng(7)
    if name == "scl":
        return rng.integers(0, 12, (SIDE // 2, SIDE // 2), np.uint8), 20.0
    dn = rng.integers(1, 9000, (SIDE, SIDE), np.uint16)
    dn[:, :9] = 0
    return dn, 10.0


def write_scene(folder: Path) -> None:
    """The files of a good scene."""
    for name in (*BANDS, "scl"):
        pixels, gsd = pixels_of(name)
        write_raster(folder / f"{name}.tif", pixels, gsd)


def item_body(chance: random.Random, *, title: str) -> dict[str, Any]:
    """An item that leads to ``red.tif``, ``nir.tif`` and ``scl.tif`` beside it, sometimes with their grids."""
    says_grid = chance.random() < 0.4
    assets: dict[str, Any] = {}
    for key in (*BANDS, "scl"):
        gsd = 20 if key == "scl" else 10
        grid = {"proj:transform": [gsd, 0, LEFT, 0, -gsd, TOP], "proj:shape": [SIDE * 10 // gsd] * 2}
        assets[key] = {"href": f"./{key}.tif", "type": "image/tiff", "title": title, **(grid if says_grid else {})}
    properties = {
        "datetime": "2024-01-01T10:00:00Z",
        "platform": "sentinel-2a",
        "proj:code": f"EPSG:{EPSG}",
        "s2:processing_baseline": chance.choice(["02.14", "05.09"]),
        "view:sun_azimuth": 160.0,
        "view:sun_elevation": chance.choice([5.0, 40.0]),
        "description": title,
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "id": "S2_tiny",
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": FOOTPRINT},
        "bbox": [15.0, 45.0, 15.01, 45.01],
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def graph(nodes: list[Any] | None = None, *, channels: int = 3, bands: int = 2, weights: Any = None) -> Any:
    """A model of one convolution, or of the nodes given, from ``chips`` to ``logits``."""
    kernel = np.random.default_rng(0).normal(0, 5, (channels, bands, 1, 1)) if weights is None else weights
    tensor = numpy_helper.from_array(np.asarray(kernel, np.float32), "kernel")
    given = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", bands, "height", "width"])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", channels, "height", "width"])
    body = nodes or [helper.make_node("Conv", ["chips", "kernel"], ["logits"])]
    whole = helper.make_graph(body, "tiny", [given], [result], [tensor])
    return helper.make_model(whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def model_body(href: str = "./tiny.onnx") -> dict[str, Any]:
    """The MLM item of ``graph``."""
    shape = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
    given = {"name": "chips", "bands": list(BANDS), "input": {"shape": [-1, 2, -1, -1], **shape}}
    classes = [{"value": n, "name": name} for n, name in enumerate(("background", "cloud", "cloud_shadow"))]
    result = {
        "name": "logits",
        "tasks": ["semantic-segmentation"],
        "result": {"shape": [-1, 3, -1, -1], **shape, "dim_order": ["batch", "classes", "height", "width"]},
        "classification:classes": classes,
        "post_processing_function": {"format": "python", "expression": "scipy.special.softmax"},
    }
    window = {"size": 64, "multiple": 8, "overlap": 8}
    return {
        "type": "Feature",
        "id": "tiny",
        "properties": {"mlm:input": [given], "mlm:output": [result], "stac_cloudmask:window": window},
        "links": [],
        "assets": {"model": {"href": href, "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}},
    }


def write_model(folder: Path) -> Path:
    """The model and its item; the path of the item."""
    onnx.save(graph(), folder / "tiny.onnx")
    path = folder / "tiny.json"
    path.write_text(json.dumps(model_body()))
    return path
