"""Small simulated items, and models so small that a run of many items takes seconds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from stac_cloudmask.config import Settings
from stac_cloudmask.models.registry import find_model, model_document
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

BANDS = ("blue", "green", "red", "nir")
SIDE = 96
WEIGHTS = np.array([[0, 0, 0, 0], [40, 0, 0, 0], [0, 0, 0, -40]], np.float32)
BIAS = np.array([0, -10, 5], np.float32)
"""Cloud is brighter than 0.25 in blue, shadow darker than 0.125 in near infrared. Rows: background, cloud, shadow."""


def write_items(folder: Path, count: int, **recipe: object) -> list[Path]:
    """Simulated items in the catalog in ``folder``: one scene for all, as scenes take time, but ids of their own."""
    chosen = {"height": SIDE, "width": SIDE, "bands": BANDS} | recipe
    return [write_simulated_item(folder, Recipe(**chosen), item_id=f"scene-{number:04}") for number in range(count)]


def write_model(folder: Path, weights: np.ndarray = WEIGHTS, name: str = "tiny", **properties: object) -> Path:
    """The MLM item of a model that looks at one pixel at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    channels, bands = weights.shape
    kernel = numpy_helper.from_array(np.asarray(weights, np.float32)[:, :, None, None], "kernel")
    bias = numpy_helper.from_array(BIAS[:channels], "bias")
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count, "height", "width"])
        for name, count in (("chips", bands), ("logits", channels))
    )
    node = helper.make_node("Conv", ["chips", "kernel", "bias"], ["logits"])
    graph = helper.make_graph([node], "tiny", [given], [result], [kernel, bias])
    path = folder / f"{name}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    body = model_document(find_model("ukis-csmask-4b-l2a"))
    body["id"] = name
    body["properties"] |= properties
    body["properties"]["stac_cloudmask:window"] = {"size": 64, "multiple": 32, "overlap": 16}
    (stated,) = body["properties"]["mlm:input"]
    stated["value_scaling"] = None
    stated["input"]["shape"] = [-1, bands, -1, -1]
    body["properties"]["mlm:output"][0]["result"]["shape"] = [-1, channels, -1, -1]
    (asset,) = body["assets"].values()
    data = path.read_bytes()
    asset |= {"href": f"./{path.name}", "file:size": len(data)}
    asset["file:checksum"] = "1220" + hashlib.sha256(data).hexdigest()
    item = folder / f"{name}.json"
    item.write_text(json.dumps(body))
    return item


def settings_of(model: Path, **changes: object) -> Settings:
    """Settings with one small model for both roles, on one thread."""
    return Settings(**{"cloud_model": (str(model),), "shadow_model": str(model), "threads": 1} | changes)
