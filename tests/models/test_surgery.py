from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stac_cloudmask.models.graph import load_graph
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.surgery import localize_means
from stac_cloudmask.models.weights import locate

RNG = np.random.default_rng(7)
CONVS = {
    "stem": RNG.normal(0, 1, (4, 2, 2, 2)), "squeeze": RNG.normal(0, 1, (2, 4, 1, 1)),
    "excite": RNG.normal(0, 1, (4, 2, 1, 1)), "wide": RNG.normal(0, 1, (4, 2, 3, 3)),
}  # fmt: skip


def block(*, mean="GlobalAveragePool", excite="excite", pads=(0, 0, 0, 0), result="gated", **options):
    """A convolution of stride 2, then a squeeze-and-excitation block of its features, on windows of any size."""
    nodes = [
        helper.make_node("Conv", ["chips", "stem"], ["features"], strides=[2, 2]),
        helper.make_node(mean, ["features"], ["mean"], **options),
        helper.make_node("Conv", ["mean", "squeeze"], ["squeezed"]),
        helper.make_node("Relu", ["squeezed"], ["active"]),
        helper.make_node("Conv", ["active", excite], ["excited"], pads=list(pads)),
        helper.make_node("Sigmoid", ["excited"], ["gate"]),
        helper.make_node("Mul", ["gate", "features"], ["gated"]),
    ]
    given = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", 2, "height", "width"])
    out = helper.make_tensor_value_info(result, TensorProto.FLOAT, ["n", 4, None, None])
    used = {name: CONVS[name].astype(np.float32) for node in nodes for name in node.input if name in CONVS}
    weights = [numpy_helper.from_array(kernel, name) for name, kernel in used.items()]
    graph = helper.make_graph(nodes, "block", [given], [out], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model, chips):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"chips": chips})[0]


@pytest.fixture
def chips():
    return RNG.normal(0, 1, (1, 2, 256, 256)).astype(np.float32)


@pytest.mark.parametrize(
    "mean",
    [{"mean": "GlobalAveragePool"}, {"mean": "ReduceMean", "axes": [-2, -1]}, {"mean": "ReduceMean", "axes": [2, 3]}],
)
def test_a_pixel_is_moved_by_its_surroundings_and_by_nothing_farther_away(mean, chips):
    model = block(**mean)
    assert localize_means(model.graph, cell=8, side=40) == 1
    far = chips.copy()
    far[..., 160:] += 5
    moved = np.abs(answer(model, far) - answer(model, chips)).max((0, 1, 2))
    assert moved[:64].max() == 0
    assert moved[70:].max() > 0.01


def test_a_mean_over_the_whole_window_is_moved_from_anywhere(chips):
    far = chips.copy()
    far[..., 160:] += 5
    assert np.abs(answer(block(), far) - answer(block(), chips)).max((0, 1, 2)).min() > 0


def test_where_a_scene_is_cut_does_not_matter_far_from_the_cut(chips):
    model = block()
    localize_means(model.graph, cell=8, side=40)
    np.testing.assert_allclose(answer(model, chips)[..., 64:], answer(model, chips[..., 64:])[..., 32:], atol=1e-5)


def test_a_scene_that_is_the_same_everywhere_has_the_answer_of_the_whole_mean():
    flat = np.ones((1, 2, 64, 64), np.float32)
    model = block()
    before = answer(model, flat)
    localize_means(model.graph, cell=8, side=40)
    np.testing.assert_allclose(answer(model, flat), before, atol=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        block(excite="wide", pads=(1, 1, 1, 1)),
        block(result="mean"),
        block(mean="ReduceMean", axes=[1]),
        block(mean="GlobalMaxPool"),
    ],
    ids=["a gate that looks around", "a mean that is a result", "a mean over channels", "a maximum"],
)
def test_what_is_not_such_a_block_stays_as_it_is(other):
    before = other.SerializeToString()
    assert localize_means(other.graph, cell=8, side=40) == 0
    assert other.SerializeToString() == before


def test_features_finer_or_coarser_than_a_cell_allows_stay_as_they_are():
    assert localize_means(block().graph, cell=3, side=9) == 0


@pytest.mark.parametrize("name", ["ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a"])
def test_all_blocks_of_the_ukis_models_are_found(name):
    spec = find_model(name)
    model = onnx.load_model_from_string(load_graph(locate(spec), spec))
    means = sum(node.op_type == "GlobalAveragePool" for node in model.graph.node)
    assert localize_means(model.graph, cell=32, side=256) == means == 32
    onnx.checker.check_model(model)
