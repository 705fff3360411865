from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from stac_cloudmask.models.graph import load_graph, simplified
from stac_cloudmask.models.registry import find_model, locate
from stac_cloudmask.models.surgery import (
    Wiring,
    enlarge_later,
    expand_in_groups,
    localize_means,
    quantize,
    replace,
    round_weights,
    widen,
)

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


def run(graph, chips):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: chips})[0]


def answer(model, chips):
    return run(model.SerializeToString(), chips)


def localize(model):
    """Make the means of a model local, and return it."""
    replace(model.graph, localize_means(Wiring(model, 8), side=40))
    return model


def enlarge(model, *, transposed=True):
    """Let the decoder of a model enlarge later; return how many convolutions do."""
    changes = enlarge_later(Wiring(model, 8), transposed=transposed)
    replace(model.graph, changes)
    return len(changes)


@pytest.fixture
def chips():
    return RNG.normal(0, 1, (1, 2, 256, 256)).astype(np.float32)


@pytest.mark.parametrize(
    "mean",
    [{"mean": "GlobalAveragePool"}, {"mean": "ReduceMean", "axes": [-2, -1]}, {"mean": "ReduceMean", "axes": [2, 3]}],
)
def test_a_pixel_is_moved_by_its_surroundings_and_by_nothing_farther_away(mean, chips):
    model = block(**mean)
    assert operators(localize(model))["AveragePool"] == 2
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
    localize(model)
    np.testing.assert_allclose(answer(model, chips)[..., 64:], answer(model, chips[..., 64:])[..., 32:], atol=1e-5)


def test_a_scene_that_is_the_same_everywhere_has_the_answer_of_the_whole_mean():
    flat = np.ones((1, 2, 64, 64), np.float32)
    model = block()
    before = answer(model, flat)
    localize(model)
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
    assert localize_means(Wiring(other, 8), side=40) == {}
    assert other.SerializeToString() == before


def test_features_finer_or_coarser_than_a_cell_allows_stay_as_they_are():
    assert localize_means(Wiring(block(), 3), side=9) == {}


def decoder(*, factor=2, mode="nearest", skip=True, norm=True, relu=True, axis=1, half=False):
    """Features at half the resolution that are enlarged, joined with finer ones and convolved."""
    kind = np.float16 if half else np.float32
    shapes = {"join_w": (5, 9 if skip else 6, 3, 3), "coarse_w": (6, 2, 3, 3)}
    shapes |= {"fine_w": (3, 2, 3, 3)} if skip else {}
    weights = {name: RNG.normal(0, 0.3, shape) for name, shape in shapes.items()}
    weights |= {name: RNG.uniform(0.5, 1.5, 5) for name in ("gain", "offset", "mean", "variance")}
    inputs = [numpy_helper.from_array(value.astype(kind), name) for name, value in weights.items()]
    inputs.append(numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), "scales"))
    inputs.append(numpy_helper.from_array(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), "pads"))
    resize = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    last = "normal" if norm else "joint"
    nodes = [
        helper.make_node("Cast", ["chips"], ["given"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        helper.make_node("Identity", ["pads"], ["computed"]),
        helper.make_node("Pad", ["given", "computed"], ["padded"]),
        helper.make_node("Conv", ["padded", "coarse_w"], ["coarse"], strides=[2, 2], pads=[0, 0, 0, 0]),
        *([helper.make_node("Conv", ["given", "fine_w"], ["fine"], pads=[1] * 4)] if skip else []),
        helper.make_node("Cast", ["coarse"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["wide", "", "scales"], ["large"], **resize),
        helper.make_node("Cast", ["large"], ["up"], to=TensorProto.FLOAT16 if half else TensorProto.FLOAT),
        *([helper.make_node("Concat", ["up", "fine"], ["all"], axis=axis)] if skip else []),
        helper.make_node("Conv", ["all" if skip else "up", "join_w"], ["joint"], pads=[1] * 4),
        *(
            [helper.make_node("BatchNormalization", ["joint", "gain", "offset", "mean", "variance"], ["normal"])]
            if norm
            else []
        ),
        *([helper.make_node("Relu", [last], ["cut"])] if relu else []),
        helper.make_node("Cast", ["cut" if relu else last], ["logits"], to=TensorProto.FLOAT),
    ]
    given = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", 2, "height", "width"])
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5, None, None])
    graph = helper.make_graph(nodes, "decoder", [given], [out], inputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"skip": False}, {"norm": False, "relu": False}, {"skip": False, "relu": False}]
)
def test_a_decoder_that_convolves_before_it_enlarges_gives_the_same(options, transposed, chips):
    model = decoder(**options)
    before = answer(model, chips[..., :34, :46])
    model = simplified(model, "decoder")
    assert enlarge(model, transposed=transposed) == 1
    onnx.checker.check_model(model)
    assert operators(model).keys().isdisjoint({"Resize", "Concat", "BatchNormalization", "Pad"})
    np.testing.assert_allclose(answer(model, chips[..., :34, :46]), before, atol=1e-4)


@pytest.mark.parametrize("options", [{"mode": "linear"}, {"factor": 3, "skip": False}])
def test_other_ways_to_enlarge_stay_as_they_are(options):
    model = simplified(decoder(norm=False, **options), "decoder")
    before = operators(model)
    assert enlarge(model) == 0
    assert operators(model) == before


@pytest.mark.parametrize("name", ["all", "joint"])
def test_what_others_use_too_keeps_its_values(name, chips):
    model = decoder(norm=False)
    channels = {"all": 9, "joint": 5}[name]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, None, None]))
    model = simplified(model, "decoder")

    def both():
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"chips": chips[..., :34, :46]})

    before = both()
    assert enlarge(model) == 1
    for after, expected in zip(both(), before, strict=True):
        np.testing.assert_allclose(after, expected, atol=1e-4)


def residual(*, channels=40, expand=1, swish="Sigmoid", group=None, result="out"):
    """Features that are expanded by a convolution and a swish, and convolved channel by channel."""
    group = group or channels
    shapes = {"expand_w": (channels, 2, expand, expand), "deep_w": (channels, channels // group, 3, 3)}
    weights = {name: RNG.normal(0, 1, shape) for name, shape in shapes.items()} | {"bias": RNG.normal(0, 1, channels)}
    inputs = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Conv", ["chips", "expand_w", "bias"], ["wide"], pads=[expand // 2] * 4),
        helper.make_node(swish, ["wide"], ["gate"]),
        helper.make_node("Mul", ["wide", "gate"], ["active"]),
        helper.make_node("Conv", ["active", "deep_w", "bias"], ["out"], pads=[1] * 4, strides=[2, 2], group=group),
    ]
    given = helper.make_tensor_value_info("chips", TensorProto.FLOAT, ["n", 2, "height", "width"])
    names = dict.fromkeys([result, "out"])
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", channels, None, None]) for name in names]
    graph = helper.make_graph(nodes, "residual", [given], outs, inputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def group_up(model):
    """Let the residual of a model be computed in groups; return how many are."""
    changes = expand_in_groups(Wiring(model, 8))
    replace(model.graph, changes)
    return len(changes)


@pytest.mark.parametrize("result", ["out", "wide", "active"])
def test_wide_features_that_are_computed_in_groups_of_channels_have_the_same_values(result, chips):
    model = residual(result=result)
    before = answer(model, chips)
    assert group_up(model) == 1
    onnx.checker.check_model(model)
    assert operators(model)["Concat"] == 1
    assert sorted(tensor.dims[0] for tensor in model.graph.initializer if "_deep_w" in tensor.name) == [4, 12, 12, 12]
    np.testing.assert_array_equal(answer(model, chips), before)


@pytest.mark.parametrize("options", [{"channels": 12}, {"expand": 3}, {"swish": "Tanh"}, {"group": 20}, {"group": 1}])
def test_narrow_features_and_those_that_mix_channels_are_computed_at_once(options, chips):
    model = residual(**options)
    assert group_up(model) == 0
    assert "Concat" not in operators(model)


def test_widened_weights_keep_their_values_and_nothing_is_narrow_any_more(chips):
    model = decoder(half=True)
    before = answer(model, chips[..., :34, :46])
    narrow = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    widen(model)
    for tensor in model.graph.initializer:
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), narrow[tensor.name])
        assert tensor.data_type != TensorProto.FLOAT16
    np.testing.assert_allclose(answer(model, chips[..., :34, :46]), before, atol=0.05)


@pytest.mark.parametrize("name", ["ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a"])
def test_the_ukis_models_are_made_faster_and_give_the_same(name):
    spec = find_model(name)
    model = onnx.load_model_from_string(load_graph(locate(spec), spec))
    chips = RNG.normal(0, 1, (1, len(spec.bands), 96, 128)).astype(np.float32)
    widen(model)
    before = run(model.SerializeToString(), chips)
    model = simplified(model, "ukis")
    assert enlarge(model) == 5
    assert operators(model).keys().isdisjoint({"Concat", "BatchNormalization", "Pad", "Reshape", "Resize"})
    np.testing.assert_allclose(run(model.SerializeToString(), chips), before, atol=1e-3)


@pytest.mark.parametrize("name", ["ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a"])
def test_all_blocks_of_the_ukis_models_are_found(name):
    spec = find_model(name)
    model = onnx.load_model_from_string(load_graph(locate(spec), spec, local_means=True))
    onnx.checker.check_model(model)
    assert operators(model)["AveragePool"] == 2 * 32
    assert operators(model)["Concat"] == 1
    assert "GlobalAveragePool" not in operators(model)


def test_convolutions_in_whole_numbers_give_nearly_the_same_and_others_stay(chips):
    model = decoder(norm=False)
    before = answer(model, chips[..., :34, :46])
    model = simplified(model, "decoder")
    enlarge(model, transposed=False)
    kernels = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantize(model, {"coarse": (-6.0, 6.0), "fine": (-6.0, 6.0)})
    assert operators(model)["QuantizeLinear"] == 2
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name in (name.removesuffix("_whole") for name in found if name.endswith("_whole")):
        steps = found[f"{name}_whole"] - kernels[name] / found[f"{name}_scale"][:, None, None, None]
        plainly = np.rint(steps) - steps
        assert np.abs(steps.sum((2, 3))).mean() < 0.7 * np.abs(plainly.sum((2, 3))).mean()
    onnx.checker.check_model(model)
    difference = answer(model, chips[..., :34, :46]) - before
    assert 0 < np.abs(difference).mean() < 0.02 * before.std()


@pytest.mark.parametrize("shape", [(5, 1, 3, 3), (4, 6, 2, 2), (7, 48, 1, 1)])
def test_rounded_weights_are_bfloat16_and_keep_their_sums(shape):
    weights = RNG.normal(0, 1, shape).astype(np.float32)
    node = helper.make_node("Conv", ["given", "weights"], ["made"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("given", "made")]
    graph = helper.make_graph([node], "one", values[:1], values[1:], [numpy_helper.from_array(weights, "weights")])
    round_weights(graph)
    rounded = numpy_helper.to_array(graph.initializer[0])
    axes = (1, 2, 3) if shape[2] == 1 else (2, 3)
    assert not (rounded.view(np.uint32) & 0xFFFF).any()
    np.testing.assert_allclose(rounded, weights, atol=0.02)
    plain = ((weights.view(np.uint32) + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    lost, lost_plainly = (np.abs((one - weights).sum(axes)).mean() for one in (rounded, plain))
    assert lost < lost_plainly / 4


def test_without_ranges_nothing_is_turned_into_whole_numbers():
    model = decoder()
    before = operators(model)
    quantize(model, {})
    assert operators(model) == before
