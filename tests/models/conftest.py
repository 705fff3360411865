"""Tiny models: a 1x1 convolution whose answer numpy can give, and an MLM item for it."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("background", "cloud", "cloud_shadow")


def conv_graph(weights, *, side=None, domain="", output_channels=None):
    channels, bands = weights.shape
    sides = ["height", "width"] if side is None else [side, side]
    kernel = numpy_helper.from_array(np.asarray(weights, np.float32)[:, :, None, None], "kernel")
    shapes = (["n", bands, *sides], ["n", output_channels or channels, *sides])
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(("chips", "logits"), shapes, strict=True)
    )
    node = helper.make_node("Conv", ["chips", "kernel"], ["logits"], domain=domain)
    graph = helper.make_graph([node], "tiny", [given], [result], [kernel])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def tiny_onnx(tmp_path):
    def make(weights, name="tiny.onnx", **options):
        path = tmp_path / name
        onnx.save(conv_graph(np.asarray(weights), **options), path)
        return path

    return make


@pytest.fixture
def model_item(tmp_path):
    def make(onnx_path, *, bands=("blue", "red"), side=-1, classes=CLASSES, name="tiny", checked=True, **properties):
        data = onnx_path.read_bytes() if onnx_path.exists() else b""
        channels = properties.pop("channels", len(classes))
        structure = {"dim_order": ["batch", "bands", "height", "width"], "data_type": "float32"}
        given = {"name": "chips", "bands": list(bands), "input": {"shape": [-1, len(bands), side, side], **structure}}
        given["value_scaling"] = properties.pop("value_scaling", None)
        structure["dim_order"] = ["batch", "classes", "height", "width"]
        result = {"name": "logits", "tasks": ["semantic-segmentation"]}
        result["result"] = {"shape": [-1, channels, side, side], **structure}
        result["classification:classes"] = [
            {"value": value, "name": label, "description": label} for value, label in enumerate(classes)
        ]
        expression = properties.pop("activation", "scipy.special.softmax")
        if expression:
            result["post_processing_function"] = {"format": "python", "expression": expression}
        asset = {"href": f"./{onnx_path.name}", "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}
        if checked:
            asset |= {"file:size": len(data), "file:checksum": "1220" + hashlib.sha256(data).hexdigest()}
        document = {
            "type": "Feature",
            "id": name,
            "properties": {
                "mlm:input": [given],
                "mlm:output": [result],
                "stac_cloudmask:window": {"size": 64, "multiple": 8, "overlap": 8},
                **properties,
            },
            "links": [],
            "assets": {"model": asset},
        }
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        return path

    return make
