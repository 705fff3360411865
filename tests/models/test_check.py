from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from stac_cloudmask.models.check import GROUND_AND_CLOUD, check_model, fixed_chip
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.spec import COMMON_NAMES, read_model_item

RIGHT = np.array([[0, 0], [8, 8], [-8, -8]], np.float32)
"""Bright is cloud, dark is shadow."""


@pytest.fixture
def findings(tiny_onnx, model_item):
    def check(weights=RIGHT, *, file_side=None, **options):
        scaling = options.pop("value_scaling", [{"type": "offset", "value": 0.03}])
        return check_model(
            read_model_item(model_item(tiny_onnx(weights, side=file_side), value_scaling=scaling, **options))
        )

    return check


def texts(found, level="error"):
    return [finding.text for finding in found if finding.level == level]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a"])
def test_the_bundled_models_fit(name):
    assert check_model(find_model(name)) == []


def test_a_model_that_does_what_its_item_says_fits(findings):
    assert findings() == []


def test_a_fixed_window_fits(findings):
    window = {"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}}
    assert findings(file_side=64, side=64, **window) == []


def test_weights_that_are_not_here_are_found(tmp_path):
    [text] = texts(check_model(find_model("farmvibes-shadow"), cache=tmp_path))
    assert "models fetch farmvibes-shadow" in text


def test_all_that_contradicts_the_file_is_found_at_once(findings):
    window = {"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}}
    [text] = texts(findings(file_side=32, bands=("blue", "red", "nir"), classes=("clear", "cloud"), **window))
    assert "its input has 2 channels" in text
    assert "its output has 3 channels" in text
    assert "wants windows of 32 x 32" in text


def test_another_checksum_is_found(tiny_onnx, model_item):
    spec = read_model_item(model_item(tiny_onnx(RIGHT)))
    tiny_onnx(RIGHT + 1)
    assert "SHA-256" in texts(check_model(spec))[0]


def test_a_missing_checksum_is_found(findings):
    assert "no file:checksum" in texts(findings(checked=False), "warning")[0]


def test_logits_without_an_activation_are_found(findings):
    assert "are not probabilities" in texts(findings(activation=None))[0]


def test_classes_in_another_order_are_found(findings):
    found = texts(findings(classes=("background", "cloud_shadow", "cloud")), "warning")
    assert ["cloud: probability" in text or "shadow: probability" in text for text in found] == [True, True]


def test_output_that_is_not_finite_is_found(findings):
    assert "not finite" in texts(findings(np.full((3, 2), np.nan, np.float32)))[0]


@pytest.mark.parametrize(
    ("weights", "options"),
    [
        ([[1 / 3, 0], [1 / 3, 0], [1 / 3, 0]], {}),
        ([[0.9, 0]], {"classes": ("background", "cloud"), "channels": 1, "activation": "scipy.special.expit"}),
    ],
)
def test_an_activation_that_the_graph_already_holds_is_found(findings, weights, options):
    ones = [{"type": "min-max", "minimum": -1e6, "maximum": 1}] if len(weights) == 3 else None
    assert any("already" in text for text in texts(findings(weights, value_scaling=ones, **options), "warning"))


def test_a_window_that_only_pretends_to_be_free_is_found(tiny_onnx, model_item):
    path = tiny_onnx(RIGHT, side=64)
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 64, 64], np.int64), "shape"))
    model.graph.node[0].output[0] = "flat"
    model.graph.node.append(helper.make_node("Reshape", ["flat", "shape"], ["logits"]))
    onnx.save(model, path)
    spec = read_model_item(model_item(path, value_scaling=[{"type": "offset", "value": 0.03}]))
    [text] = texts(check_model(spec))
    assert text.startswith("windows of 64 x 136 do not work")


def test_the_chip_knows_every_band():
    assert set(GROUND_AND_CLOUD) == COMMON_NAMES
    chip = fixed_chip(tuple(sorted(COMMON_NAMES)), 64, 96)
    assert chip.shape == (1, 12, 64, 96)
    assert chip.min() > 0
    assert chip.max() < 1
