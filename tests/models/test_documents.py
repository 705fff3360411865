from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from offline import Validator

from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.registry import find_model, is_followable, list_models, model_document
from stac_cloudmask.models.spec import read_model_item


@pytest.fixture
def valid(shared):
    return Validator(shared / "data" / "schemas")


@pytest.mark.parametrize("spec", [spec for spec in list_models() if spec.sha256], ids=lambda spec: spec.name)
def test_the_shipped_models_are_valid_where_their_catalog_is_not(spec, valid):
    document = model_document(spec)
    assert any("/mlm/" in schema for schema in valid(document))
    assert {link["rel"] for link in document["links"]}.isdisjoint({"root", "parent", "self", "collection"})
    assert not is_followable(spec)


def test_the_document_states_the_same_contract(tmp_path):
    spec = find_model("ukis-csmask-4b-l2a")
    path = tmp_path / "copy.json"
    path.write_text(json.dumps(model_document(spec)))
    copied = read_model_item(path)
    assert copied.__dict__ | {"item_href": spec.item_href} == spec.__dict__


def test_weights_that_nobody_promised_anything_of_are_stated_as_they_are(tiny_onnx, model_item):
    path = tiny_onnx(np.eye(3, 2))
    spec = read_model_item(model_item(path, checked=False))
    (asset,) = model_document(spec)["assets"].values()
    assert asset["href"] == str(path)
    assert asset["file:size"] == path.stat().st_size
    assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_farmvibes_takes_over_the_item_of_its_model(tmp_path):
    path = tmp_path / "shadow.onnx"
    path.write_bytes(b"other weights")
    document = model_document(find_model(path))
    assert document["id"] == document["properties"]["mlm:name"] == "shadow"
    (asset,) = document["assets"].values()
    assert (asset["href"], asset["file:size"]) == (str(path), 13)


def test_an_item_with_an_address_of_its_own_needs_no_copy(tiny_onnx, model_item):
    path = model_item(tiny_onnx(np.eye(3, 2)))
    body = json.loads(path.read_text())
    body["links"] = [{"rel": "self", "href": "https://models.example.org/tiny.json"}]
    path.write_text(json.dumps(body))
    assert is_followable(read_model_item(path))


def test_an_item_that_vanished_is_an_error(tiny_onnx, model_item):
    path = model_item(tiny_onnx(np.eye(3, 2)))
    spec = read_model_item(path)
    path.unlink()
    with pytest.raises(ModelError, match=r"tiny\.json: can no longer"):
        model_document(spec)


def test_weights_on_the_web_need_no_size_and_not_be_here(tiny_onnx, model_item):
    path = model_item(tiny_onnx(np.eye(3, 2)))
    body = json.loads(path.read_text())
    body["assets"]["model"]["href"] = "https://models.invalid/tiny.onnx"
    del body["assets"]["model"]["file:size"]
    path.write_text(json.dumps(body))
    (asset,) = model_document(read_model_item(path))["assets"].values()
    assert asset["href"] == "https://models.invalid/tiny.onnx"
    assert asset["file:checksum"] == body["assets"]["model"]["file:checksum"]
