"""Bring your own model: an ONNX file, an MLM item that describes it, a check, and a mask made with it.

Runs anywhere and offline, and writes into output/bring_your_own_model: python examples/03_bring_your_own_model.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import stac_cloudmask as scm
from stac_cloudmask.models.check import check_model
from stac_cloudmask.models.spec import read_model_item
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

OUT = Path("output/bring_your_own_model")
MODEL, ITEM = OUT / "my-model" / "model.onnx", OUT / "my-model" / "my-model.json"
MODEL.parent.mkdir(parents=True, exist_ok=True)

# 1. A model. Here two thresholds: bright blue is cloud, dark near infrared is shadow. Yours comes from training
weights = np.array([[0, 0], [30, 0], [0, -60]], np.float32)[:, :, None, None]  # (class, band, 1, 1)
tensors = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.float32([0, -7.5, 6]), "bias")]
given = helper.make_tensor_value_info("bands", TensorProto.FLOAT, ["n", 2, "height", "width"])
result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "height", "width"])
node = helper.make_node("Conv", ["bands", "weights", "bias"], ["logits"])
graph = helper.make_graph([node], "thresholds", [given], [result], tensors)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), MODEL)

# 2. Its MLM item: which bands in which order, what the output channels mean, and which file it is
bands, tasks = [{"name": "blue"}, {"name": "nir"}], ["semantic-segmentation"]
mlm = {"mlm:name": "my-model", "mlm:architecture": "thresholds", "mlm:framework": "ONNX", "mlm:tasks": tasks}
shape = {"shape": [-1, 2, -1, -1], "dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
mlm["mlm:input"] = [{"name": "bands", "bands": ["blue", "nir"], "input": shape}]
shape = {"shape": [-1, 3, -1, -1], "dim_order": ["batch", "classes", "height", "width"], "data_type": "float32"}
output = {"name": "logits", "tasks": tasks, "result": shape}
names = enumerate(["background", "cloud", "cloud_shadow"])
output["classification:classes"] = [{"value": channel, "name": name, "description": name} for channel, name in names]
output["post_processing_function"] = {"format": "python", "expression": "scipy.special.softmax"}
mlm |= {"mlm:output": [output], "stac_cloudmask:window": {"size": 512, "multiple": 1, "overlap": 0}}
asset = {"href": f"./{MODEL.name}", "roles": ["mlm:model"], "mlm:artifact_type": "onnx", "bands": bands}
asset["file:checksum"] = f"1220{hashlib.sha256(MODEL.read_bytes()).hexdigest()}"  # 1220 says SHA-256
item = {"type": "Feature", "stac_version": "1.1.0", "id": "my-model", "geometry": None, "links": []}
item["stac_extensions"] = ["https://stac-extensions.github.io/mlm/v1.5.2/schema.json"]
item |= {"properties": {"datetime": "2026-01-01T00:00:00Z", **mlm, "bands": bands}, "assets": {"model": asset}}
ITEM.write_text(json.dumps(item, indent=2))

# 3. Check it, as `stac-cloudmask models check my-model/my-model.json` does, and mask a simulated scene with it
for finding in check_model(read_model_item(ITEM)):
    print(finding.level, finding.text)
scene = write_simulated_item(OUT / "scene", Recipe(height=512, width=512))
mine = scm.Settings(cloud_model=(str(ITEM),), shadow_model=str(ITEM))
for done in scm.process(scene, out=OUT / "masks", settings=mine):
    print(done.status, done.item_id, dict(done.cover), done.output)
