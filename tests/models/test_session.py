from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from onnx import helper
from scipy.special import expit, softmax

from stac_cloudmask.errors import ConfigError, ModelError
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.models.spec import read_model_item
from stac_cloudmask.simulate.scene import Recipe, simulate

WEIGHTS = np.array([[2, -1], [0, 3], [1, 1]], np.float32)
CUDA = "CUDAExecutionProvider"
UNKNOWN_FIELD = b"\xa2\x1f\x00"
"""An empty protobuf field 500: the same graph in a file of another size."""


def reflectance(n=1, bands=2, height=40, width=56, seed=0):
    return np.random.default_rng(seed).random((n, bands, height, width), np.float32)


def logits(chips, weights=WEIGHTS):
    return np.einsum("cb,nbyx->ncyx", weights, chips)


@pytest.fixture
def segmenter(tiny_onnx, model_item):
    def make(weights=WEIGHTS, **options):
        item = model_item(tiny_onnx(weights, side=options.pop("file_side", None)), **options)
        return OnnxSegmenter(read_model_item(item), threads=1)

    return make


def test_probabilities_are_those_that_numpy_gives(segmenter):
    chips = reflectance()
    answer = segmenter().predict(chips)
    expected = softmax(logits(chips), axis=1)
    np.testing.assert_allclose(answer["cloud"], expected[:, 1], atol=1e-6)
    np.testing.assert_allclose(answer["shadow"], expected[:, 2], atol=1e-6)


def test_scaling_is_applied_band_by_band(segmenter):
    scaling = [{"type": "z-score", "mean": 0.5, "stddev": 0.25}, {"type": "scale", "value": 2}]
    chips = reflectance()
    scaled = (chips - np.array([0.5, 0])[:, None, None]) / np.array([0.25, 2])[:, None, None]
    answer = segmenter(value_scaling=scaling).predict(chips)
    np.testing.assert_allclose(answer["cloud"], softmax(logits(scaled), axis=1)[:, 1], atol=1e-6)


def test_a_sigmoid_and_one_channel(segmenter):
    chips = reflectance()
    weights = np.array([[3, -2]], np.float32)
    model = segmenter(weights, classes=("background", "cloud"), channels=1, activation="scipy.special.expit")
    np.testing.assert_allclose(model.predict(chips)["cloud"], expit(logits(chips, weights))[:, 0], atol=1e-6)


def test_a_graph_that_gives_probabilities_is_taken_at_its_word(segmenter):
    weights = np.array([[0.2, 0.1], [0.5, 0.2], [0.3, 0.7]], np.float32)
    chips = reflectance()
    answer = segmenter(weights, activation=None).predict(chips)
    np.testing.assert_allclose(answer["cloud"], logits(chips, weights)[:, 1], atol=1e-6)


def test_several_classes_of_a_role_add_up(segmenter):
    roles = {"cloud": ["thick", "thin"]}
    chips = reflectance()
    answer = segmenter(classes=("clear", "thick", "thin"), **{"stac_cloudmask:roles": roles}).predict(chips)
    np.testing.assert_allclose(answer["cloud"], softmax(logits(chips), axis=1)[:, 1:].sum(axis=1), atol=1e-6)
    assert set(answer) == {"cloud"}


def test_a_model_of_digital_numbers_gets_whole_numbers_back(segmenter):
    dn = np.arange(1, 2 * 8 * 8 + 1, dtype=np.float32).reshape(1, 2, 8, 8) * 71
    weights = np.array([[0, 0], [1e-4, 0], [0, 1e-4]], np.float32)
    model = segmenter(weights, activation=None, **{"stac_cloudmask:input_kind": "dn"})
    answer = model.predict(dn * np.float32(1e-4))
    np.testing.assert_array_equal(answer["cloud"], np.clip(logits(dn, weights)[:, 1], 0, 1))


@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_and_batch_gives_what_each_pixel_gives_alone(segmenter, n, height, width):
    chips = reflectance(n, 2, height, width)
    answer = segmenter().predict(chips)
    np.testing.assert_allclose(answer["shadow"], softmax(logits(chips), axis=1)[:, 2], atol=1e-6)


def test_a_model_with_a_fixed_window_takes_smaller_chips(segmenter):
    window = {"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}}
    chips = reflectance(1, 2, 20, 64)
    answer = segmenter(file_side=64, side=64, **window).predict(chips)
    np.testing.assert_allclose(answer["cloud"], softmax(logits(chips), axis=1)[:, 1], atol=1e-6)


def test_a_model_with_a_fixed_window_refuses_larger_chips(segmenter):
    window = {"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}}
    with pytest.raises(ModelError, match="needs windows of 64 pixels, got 65"):
        segmenter(file_side=64, side=64, **window).predict(reflectance(1, 2, 65, 20))


def test_one_process_opens_a_file_once(segmenter):
    model = segmenter()
    with ThreadPoolExecutor(4) as pool:
        sessions = set(pool.map(lambda _: model.open(), range(8)))
    assert sessions == {OnnxSegmenter(model.spec, threads=1).open()}


def test_a_file_that_changed_is_opened_anew(segmenter, tiny_onnx):
    model = segmenter(checked=False)
    before = model.predict(reflectance())["cloud"]
    path = tiny_onnx(WEIGHTS[::-1].copy())
    path.write_bytes(path.read_bytes() + UNKNOWN_FIELD)
    assert not np.array_equal(model.predict(reflectance())["cloud"], before)


def test_output_that_is_not_finite_is_refused(segmenter):
    with pytest.raises(ModelError, match="not finite"):
        segmenter(np.full((3, 2), np.inf, np.float32)).predict(reflectance())


def test_an_output_of_another_size_is_refused(segmenter, tiny_onnx, model_item):
    path = tiny_onnx(WEIGHTS)
    model = onnx.load(path)
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"its output has shape \(1, 3, 20, 28\), expected \(1, 3, 40, 56\)"):
        OnnxSegmenter(read_model_item(model_item(path)), threads=1).predict(reflectance())


def test_a_graph_that_onnxruntime_cannot_run_is_a_model_error(tiny_onnx, model_item):
    path = tiny_onnx(WEIGHTS)
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    with pytest.raises(ModelError, match="onnxruntime cannot run it"):
        OnnxSegmenter(read_model_item(model_item(path)), threads=1).predict(reflectance())


def test_a_graph_that_fails_while_running_is_a_model_error(tiny_onnx, model_item):
    path = tiny_onnx(WEIGHTS)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "bands"
    model.graph.initializer[0].dims[:] = [3, 1, 1, 2]
    onnx.save(model, path)
    with pytest.raises(ModelError, match="failed on windows"):
        OnnxSegmenter(read_model_item(model_item(path)), threads=1).predict(reflectance())


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed")
def test_a_gpu_without_its_package_is_a_config_error_that_names_the_package(segmenter):
    with pytest.raises(ConfigError, match="needs the package onnxruntime-gpu"):
        OnnxSegmenter(segmenter().spec, provider="cuda").predict(reflectance())


@pytest.mark.skipif(CUDA in onnxruntime.get_available_providers(), reason="onnxruntime-gpu is installed")
@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_a_gpu_that_onnxruntime_cannot_use_is_not_replaced_by_the_cpu(segmenter, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    with pytest.raises(ConfigError, match="would silently use the CPU"):
        OnnxSegmenter(segmenter().spec, provider="cuda").predict(reflectance())


@pytest.mark.parametrize(("provider", "tolerance"), [("openvino-f32", 1e-5), ("openvino", 0.02)])
def test_openvino_gives_what_onnxruntime_gives(segmenter, provider, tolerance):
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    model = segmenter()
    other = OnnxSegmenter(model.spec, threads=1, provider=provider)
    for chips in (reflectance(), reflectance(2, 2, 20, 31)):
        expected, answer = model.predict(chips), other.predict(chips)
        for role in ("cloud", "shadow"):
            np.testing.assert_allclose(answer[role], expected[role], atol=tolerance)


def test_8_bits_are_refused_for_weights_whose_ranges_nobody_measured(segmenter):
    with pytest.raises(ConfigError, match="no ranges are known for model 'tiny'; use 'openvino'"):
        OnnxSegmenter(segmenter().spec, provider="openvino-int8").predict(reflectance())


@pytest.mark.parametrize(("provider", "least"), [("openvino", 0.99), ("openvino-int8", 0.985)])
def test_the_default_model_tells_the_same_classes_on_openvino(provider, least):
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    spec = find_model("ukis-csmask-4b-l2a")
    scene = simulate(Recipe(height=192, width=192, cumulus=0.4))
    chips = np.stack([scene.layer(band) for band in spec.bands])[None].astype(np.float32) / 1e4
    expected, answer = (OnnxSegmenter(spec, provider=name).channels(chips).argmax(1) for name in ("cpu", provider))
    assert (expected == answer).mean() > least
