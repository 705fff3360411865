"""Changes to a graph as it is loaded. They keep its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    F32 = NDArray[np.float32]

POINTWISE: Final = frozenset(
    {"Add", "BatchNormalization", "Cast", "Clip", "Conv", "HardSigmoid", "HardSwish", "Identity", "Mul", "Relu",
     "Sigmoid"}
)  # fmt: skip
"""Operators that may lie between a mean and its gate; a convolution only if it is 1 x 1."""
KEEPS_SIZE: Final = POINTWISE | {"Concat", "Pad"}
"""Operators after which a pixel covers as much of the input as before; a Pad is part of the convolution after it."""
STRIDED: Final = frozenset({"Conv", "AveragePool", "MaxPool"})
"""Operators after which a pixel covers as many times more as their stride."""

NEAREST: Final = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
"""Options of a Resize by 2 that repeats each pixel."""
SMALLEST: Final = 1e-8
"""Least largest weight or value: what is zero throughout stays zero."""
PAIR: Final = 2
"""Inputs of a concatenation that can be taken apart."""
TAPS: Final = (((0, 1), (2,)), ((0,), (1, 2)))
"""By phase and place in a kernel of 2, the places in a kernel of 3 that fall onto the same pixel of lower resolution.

Phase 0 are the odd rows 2j-1, whose three neighbors are the pixels j-1, j-1, j; phase 1 the even ones 2j: j-1, j, j."""
ARITHMETIC: Final = frozenset(
    {"Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Gather", "Identity", "Mul", "Reshape", "Shape", "Slice",
     "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)  # fmt: skip
"""Operators that exporters make shapes, pads and scales with."""


@dataclass(frozen=True)
class _Gate:
    """A squeeze-and-excitation block: ``product`` multiplies features with what is computed from their ``mean``.

    ``squeeze`` is the convolution to fewer channels that alone uses the mean, if there is one.
    """

    mean: NodeProto
    product: NodeProto
    stride: int
    squeeze: NodeProto | None

    @property
    def factor(self) -> str:
        """Return the name of what the features are multiplied with."""
        [factor] = [name for name in map(str, self.product.input) if name != self.mean.input[0]]
        return factor


class _Wiring:
    """Which node of a graph makes a tensor, and which ones use it."""

    def __init__(self, graph: GraphProto) -> None:
        self.constants: dict[str, TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
        self.makers: dict[str, NodeProto] = {}
        self.users: dict[str, list[NodeProto]] = {value.name: [] for value in graph.output}
        self.results = frozenset(self.users)
        for node in graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = node.attribute[0].t
            for name in node.output:
                self.makers[name] = node
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)

    def gates(self, graph: GraphProto, cell: int) -> list[_Gate]:
        """Find the blocks whose features have a resolution that divides ``cell``."""
        found = []
        for mean in graph.node:
            if self._is_global_mean(mean):
                product, stride = self._product(mean), self._stride(mean.input[0])
                if product is not None and stride and cell % stride == 0:
                    found.append(_Gate(mean, product, stride, self.only_user(mean.output[0], "Conv")))
        return found

    def _is_global_mean(self, node: NodeProto) -> bool:
        """Return whether a node takes the mean over height and width and keeps both axes."""
        if node.op_type != "ReduceMean":
            return node.op_type == "GlobalAveragePool"
        axes = _options(node).get("axes", [])
        if len(node.input) > 1 and node.input[1] in self.constants:
            axes = numpy_helper.to_array(self.constants[node.input[1]]).tolist()
        return bool(_options(node).get("keepdims", 1)) and sorted(axis % 4 for axis in axes) == [2, 3]

    def _stride(self, name: str) -> int | None:
        """Return how many pixels of the input lie along the side of a pixel of a tensor; None where that is unclear."""
        stride = 1
        while name in self.makers:
            node = self.makers[name]
            steps = set(_options(node).get("strides", [1])) if node.op_type in STRIDED else {1}
            known = node.op_type in KEEPS_SIZE | STRIDED or self._is_global_mean(
                node
            )  # a gate's features have its size
            if not known or len(steps) > 1:
                return None
            stride *= steps.pop()
            name = next(given for given in node.input if given not in self.constants)
        return stride

    def _product(self, mean: NodeProto) -> NodeProto | None:
        """Return the only node that uses what becomes of a mean, if it multiplies with it what the mean is of."""
        products: dict[str, NodeProto] = {}
        inside, waiting = {mean.output[0]}, [mean.output[0]]
        between: list[NodeProto] = []
        while waiting:
            name = waiting.pop()
            if name in self.results:
                return None
            for node in self.users.get(name, ()):
                if node.op_type == "Mul" and mean.input[0] in node.input:
                    products[node.output[0]] = node
                elif not self._is_pointwise(node):
                    return None
                elif node.output[0] not in inside:
                    inside.add(node.output[0])
                    waiting.append(node.output[0])
                    between.append(node)
        foreign = {name for node in between for name in node.input if name} - inside - self.constants.keys()
        return next(iter(products.values())) if len(products) == 1 and not foreign else None

    def _is_pointwise(self, node: NodeProto) -> bool:
        if node.op_type != "Conv":
            return node.op_type in POINTWISE
        weights = self.constants.get(node.input[1])
        options = _options(node)
        plain = not any(options.get("pads", ())) and set(options.get("strides", [1])) == {1}
        return plain and weights is not None and list(weights.dims[2:]) == [1, 1]

    def source(self, name: str) -> NodeProto | None:
        """Return the node that makes a tensor, but for changes of its type."""
        return self.makers.get(self.through_casts(name))

    def through_casts(self, name: str) -> str:
        """Return the tensor that a tensor has its numbers from, whatever their type."""
        while (node := self.makers.get(name)) is not None and node.op_type == "Cast":
            name = node.input[0]
        return name

    def is_passed_on(self, name: str, last: NodeProto) -> bool:
        """Return whether all that becomes of a tensor, but for changes of its type, is an input of one node."""
        users = self.users.get(name, [])
        if name in self.results or len(users) != 1:
            return False
        return users[0] is last or (users[0].op_type == "Cast" and self.is_passed_on(users[0].output[0], last))

    def only_user(self, name: str, operator: str) -> NodeProto | None:
        """Return the node that alone uses a tensor, if it is of a kind."""
        users = self.users.get(name, [])
        return users[0] if name not in self.results and len(users) == 1 and users[0].op_type == operator else None

    def channels(self, name: str) -> int | None:
        """Return the channels of features; None where that is unclear."""
        while (node := self.makers.get(name)) is not None and node.op_type != "Conv":
            if node.op_type not in POINTWISE:
                return None
            name = next(given for given in node.input if given not in self.constants)
        return None if node is None or node.input[1] not in self.constants else self.constants[node.input[1]].dims[0]

    def arithmetic(self, name: str) -> set[str] | None:
        """Return all tensors that lead from constants to a tensor; None where others do, too."""
        found, waiting = set(), [name]
        while waiting:
            one = waiting.pop()
            node = self.makers.get(one)
            if node is None and one not in self.constants:
                return None
            if node is not None and one not in found:
                if node.op_type not in ARITHMETIC:
                    return None
                found.add(one)
                waiting += filter(None, node.input)
        return found


def localize_means(graph: GraphProto, *, cell: int, side: int) -> int:
    """Let each squeeze-and-excitation block see the mean around a pixel instead of the mean of its whole window.

    With means of whole windows every answer depends on where the windows lie. Here a block averages the features in
    cells and then the cells within ``side`` pixels; the gate that follows from these means is interpolated linearly
    between the cells (Chu et al., "Improving Image Restoration by Revisiting Global Information Aggregation", ECCV
    2022). Other global means, and features whose resolution does not divide ``cell``, stay as they are.

    Args:
        graph: Changed in place; takes windows whose sides are multiples of ``cell``.
        cell: Side of a cell in pixels of the input.
        side: Side in pixels of the area that a mean is taken over.

    Returns:
        How many blocks were changed.
    """
    gates = _Wiring(graph).gates(graph, cell)
    changed: dict[str, list[NodeProto]] = {}
    for gate in gates:
        changed[gate.mean.output[0]], around = _local_mean(gate, cell=cell, cells=side // cell | 1)
        if gate.squeeze is not None:
            changed[gate.squeeze.output[0]] = around
        changed[gate.product.output[0]] = _enlarged(gate, graph, factor=cell // gate.stride)
    nodes = [new for node in graph.node for new in changed.get(node.output[0], [node])]
    del graph.node[:]
    graph.node.extend(nodes)
    return len(gates)


def _local_mean(gate: _Gate, *, cell: int, cells: int) -> tuple[list[NodeProto], list[NodeProto]]:
    """Return what takes the place of the mean, and of the squeeze after it.

    Means of cells are squeezed before the mean around them is taken, which is the same with far fewer channels.
    """
    features, mean, across = gate.mean.input[0], gate.mean.output[0], cell // gate.stride
    by_cell = f"{mean}_by_cell"
    pool = helper.make_node(
        "AveragePool", [features], [by_cell], by_cell, kernel_shape=[across] * 2, strides=[across] * 2
    )
    given, made = (by_cell, mean) if gate.squeeze is None else (f"{mean}_squeezed", gate.squeeze.output[0])
    around = helper.make_node(
        "AveragePool", [given], [made], f"{mean}_around",
        kernel_shape=[cells] * 2, strides=[1, 1], pads=[cells // 2] * 4, count_include_pad=0,
    )  # fmt: skip
    if gate.squeeze is None:
        return [pool, around], []
    squeeze = helper.make_node("Conv", [by_cell, *gate.squeeze.input[1:]], [given], gate.squeeze.name)
    return [pool], [squeeze, around]


def _enlarged(gate: _Gate, graph: GraphProto, *, factor: int) -> list[NodeProto]:
    """Return the product with its gate at the size of the features."""
    if factor == 1:
        return [gate.product]
    large = f"{gate.product.output[0]}_gate"
    scales = numpy_helper.from_array(np.array([1, 1, factor, factor], np.float32), f"{large}_scales")
    graph.initializer.append(scales)
    resize = helper.make_node(
        "Resize", [gate.factor, "", scales.name], [large], large,
        mode="linear", coordinate_transformation_mode="half_pixel",
    )  # fmt: skip
    product = helper.make_node("Mul", [gate.mean.input[0], large], [gate.product.output[0]], gate.product.name)
    return [resize, product]


def is_flat(model: ModelProto) -> bool:
    """Return whether all nodes of a model stand in one graph, without local functions and branches."""
    inner = (attribute.g.node or attribute.graphs for node in model.graph.node for attribute in node.attribute)
    return not model.functions and not any(inner)


def wide(tensor: TensorProto) -> F32:
    """Return the values of a tensor as float32."""
    return numpy_helper.to_array(tensor).astype(np.float32)


def widen(model: ModelProto) -> int:
    """Turn float16 into float32, as CPUs compute it; the weights keep their values.

    Returns:
        How many tensors were widened.
    """
    graph = model.graph
    inner = [attribute.t for node in graph.node for attribute in node.attribute if attribute.HasField("t")]
    narrow = [tensor for tensor in (*graph.initializer, *inner) if tensor.data_type == TensorProto.FLOAT16]
    for tensor in narrow:
        tensor.CopyFrom(numpy_helper.from_array(wide(tensor), tensor.name))
    for attribute in (a for n in graph.node if n.op_type == "Cast" for a in n.attribute if a.name == "to"):
        attribute.i = TensorProto.FLOAT if attribute.i == TensorProto.FLOAT16 else attribute.i
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    if narrow:
        del graph.value_info[:]
    return len(narrow)


def fold_padding(model: ModelProto) -> int:
    """Let convolutions pad their input themselves where a node before them pads it with zeros.

    Returns:
        How many such nodes are gone.
    """
    wiring = _Wiring(model.graph)
    pads = [node for node in model.graph.node if _is_zero_pad(node, wiring)]
    known = _evaluate(model, {node.input[1] for node in pads})
    gone = set()
    for pad in pads:
        users = wiring.users.get(pad.output[0], [])
        sides = known.get(pad.input[1])
        if sides is None or len(users) != 1 or users[0].op_type != "Conv" or users[0].input[0] != pad.output[0]:
            continue
        before, after = np.split(sides, 2)
        if before.shape != (4,) or sides.min() < 0 or any([*before[:2], *after[:2]]):
            continue
        own = _options(users[0]).get("pads", [0] * 4)
        _set(users[0], "pads", [int(a) + int(b) for a, b in zip(own, [*before[2:], *after[2:]], strict=True)])
        users[0].input[0] = pad.input[0]
        gone.add(pad.output[0])
    _keep(model.graph, [node for node in model.graph.node if node.output[0] not in gone])
    return len(gone)


def _is_zero_pad(node: NodeProto, wiring: _Wiring) -> bool:
    if node.op_type != "Pad" or len(node.input) not in (2, 3) or _options(node).get("mode", b"constant") != b"constant":
        return False
    value = wiring.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None  # noqa: PLR2004
    return len(node.input) == 2 or (value is not None and not numpy_helper.to_array(value).any())  # noqa: PLR2004


def fold_norms(model: ModelProto) -> int:
    """Give convolutions the weights that they have with the batch normalization after them, as float32.

    Returns:
        How many normalizations are gone.
    """
    graph, wiring = model.graph, _Wiring(model.graph)
    folded: dict[str, NodeProto] = {}
    gone = set()
    for norm in graph.node:
        conv = wiring.makers.get(norm.input[0]) if norm.op_type == "BatchNormalization" else None
        if conv is None or conv.op_type != "Conv" or wiring.only_user(norm.input[0], norm.op_type) is None:
            continue
        if not wiring.constants.keys() >= {*conv.input[1:], *norm.input[1:]}:
            continue
        weights, *biases = (wide(wiring.constants[name]) for name in conv.input[1:])
        gain, offset, mean, variance = (wide(wiring.constants[name]) for name in norm.input[1:])
        factor = gain / np.sqrt(variance + np.float32(_options(norm).get("epsilon", 1e-5)))
        values = (weights * factor[:, None, None, None], (sum(biases) - mean) * factor + offset)
        names = [f"{norm.output[0]}_{what}" for what in ("weights", "bias")]
        graph.initializer.extend(numpy_helper.from_array(v, n) for v, n in zip(values, names, strict=True))
        folded[norm.output[0]] = helper.make_node("Conv", [conv.input[0], *names], [norm.output[0]], conv.name)
        folded[norm.output[0]].attribute.extend(conv.attribute)
        gone.add(conv.output[0])
    _keep(graph, [folded.get(node.output[0], node) for node in graph.node if node.output[0] not in gone])
    return len(folded)


def enlarge_later(model: ModelProto, *, transposed: bool) -> int:
    """Let decoders convolve before they double the resolution, which spares them more than half of these products.

    Each pixel doubled, joined with finer features and convolved 3 x 3 is the same as the low resolution convolved 2 x 2
    into the four pixels of each square, plus the finer features convolved 3 x 3 (Shi et al., "Real-Time Single Image
    and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016).

    Args:
        model: Changed in place.
        transposed: Whether a transposed convolution puts the four pixels in their places, which is twice as fast as
            DepthToSpace in ONNX Runtime; in OpenVINO it is ten times slower.

    Returns:
        How many blocks were changed.
    """
    wiring = _Wiring(model.graph)
    blocks = [block for node in model.graph.node if (block := _doubling(node, wiring)) is not None]
    known = _evaluate(model, {block.resize.input[2] for block in blocks})
    blocks = [block for block in blocks if np.array_equal(known.get(block.resize.input[2], ()), [1, 1, 2, 2])]
    changed = {block.last.output[0]: _subpixel(block, wiring, model.graph, transposed=transposed) for block in blocks}
    gone = {node.output[0] for block in blocks for node in block.replaced}
    nodes = []
    for node in model.graph.node:
        nodes += changed.get(node.output[0], [] if node.output[0] in gone else [node])
    _keep(model.graph, nodes)
    return len(blocks)


def quantize(model: ModelProto, ranges: Mapping[str, tuple[float, float]]) -> int:
    """Let convolutions take whole numbers of 8 bits where the range of what they are given is known.

    Sums take the same numbers, so that they need not be converted there and back.

    Args:
        model: Changed in place.
        ranges: Least and largest value by tensor.

    Returns:
        How many convolutions were changed.
    """
    graph, wiring, count = model.graph, _Wiring(model.graph), 0
    nodes: list[NodeProto] = []

    def restored(name: str, scale: NDArray[np.float32], zero: NDArray[Any], **options: Any) -> NodeProto:  # noqa: ANN401
        """Return the node that turns the whole numbers of a tensor back, with its scale."""
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero"))
        given = [f"{name}_whole", f"{name}_scale", f"{name}_zero"]
        return helper.make_node("DequantizeLinear", given, [f"{name}_restored"], f"{name}_restored", **options)

    for node in graph.node:
        kernel = wiring.constants.get(node.input[1]) if node.op_type == "Conv" and node.input[0] in ranges else None
        if kernel is not None and _options(node).get("group", 1) == 1:
            weights = numpy_helper.to_array(kernel)
            scale = np.maximum(np.abs(weights).max((1, 2, 3)), SMALLEST) / np.float32(127)
            whole = np.rint(weights / scale[:, None, None, None]).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(whole, f"{kernel.name}_whole"))
            nodes.append(restored(kernel.name, scale, np.zeros(len(scale), np.int8), axis=0))
            node.input[1] = f"{kernel.name}_restored"
            count += 1
        if node.op_type == "Add" or (kernel is not None and node.input[1] != kernel.name):
            for place, name in enumerate(node.input):
                node.input[place] = f"{name}_restored" if name in ranges else name
        nodes.append(node)
        for name in set(node.output) & ranges.keys():
            low, high = min(ranges[name][0], 0.0), max(ranges[name][1], SMALLEST)
            step = (high - low) / 255
            after = restored(name, np.array(step, np.float32), np.array(round(-low / step), np.uint8))
            whole_name = f"{name}_whole"
            nodes += [helper.make_node("QuantizeLinear", [name, *after.input[1:]], [whole_name], whole_name), after]
    _keep(graph, nodes)
    return count


@dataclass(frozen=True)
class _Doubling:
    """Features of low resolution that are doubled, joined with finer ones, convolved and cut at zero."""

    low: str
    channels: int
    resize: NodeProto
    joint: NodeProto | None
    conv: NodeProto
    relu: NodeProto | None

    @property
    def replaced(self) -> list[NodeProto]:
        """Return the nodes in their order."""
        return [node for node in (self.resize, self.joint, self.conv, self.relu) if node is not None]

    @property
    def last(self) -> NodeProto:
        """Return the node whose output is that of the block."""
        return self.replaced[-1]


def _doubling(conv: NodeProto, wiring: _Wiring) -> _Doubling | None:
    """Return the block that a convolution belongs to; None where it does not follow a doubling that only it uses."""
    options = _options(conv)
    plain = {*options.get("strides", [1]), *options.get("dilations", [1]), options.get("group", 1)} == {1}
    kernel = (
        list(wiring.constants[conv.input[1]].dims)
        if conv.op_type == "Conv" and conv.input[1] in wiring.constants
        else []
    )
    if kernel[2:] != [3, 3] or not plain or options.get("pads") != [1] * 4:
        return None
    before = wiring.source(conv.input[0])
    joint = before if before is not None and before.op_type == "Concat" and _options(before)["axis"] == 1 else None
    resize = before if joint is None else wiring.source(joint.input[0])
    if before is None or resize is None or resize.op_type != "Resize" or NEAREST.items() - _options(resize).items():
        return None
    parts = [resize.input[0]] if joint is None else [resize.input[0], *joint.input[1:]]
    known = [wiring.channels(wiring.through_casts(name)) or 0 for name in parts]
    alone = wiring.is_passed_on(resize.output[0], joint or conv) and wiring.is_passed_on(before.output[0], conv)
    if not alone or (joint is not None and len(joint.input) != PAIR) or sum(known) != kernel[1]:
        return None
    relu = wiring.only_user(conv.output[0], "Relu")
    return _Doubling(wiring.through_casts(resize.input[0]), known[0], resize, joint, conv, relu)


def _subpixel(block: _Doubling, wiring: _Wiring, graph: GraphProto, *, transposed: bool) -> list[NodeProto]:
    """Return the nodes that take a block's place; their weights are added to the graph."""
    weights, *biases = (numpy_helper.to_array(wiring.constants[name]) for name in block.conv.input[1:])
    bias = biases[0] if biases else np.zeros(len(weights), np.float32)
    out, channels = block.last.output[0], len(weights)
    corner = f"{out}_corner"

    def node(operator: str, given: list[str], made: str, **options: Any) -> NodeProto:  # noqa: ANN401  (as of make_node)
        return helper.make_node(operator, given, [made], made, **options)

    def constant(what: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{corner}_{what}"))
        return f"{corner}_{what}"

    def interleaved(given: str, made: str) -> list[NodeProto]:
        """Return nodes that set the four pixels of each square in their places, without those around the features."""
        if transposed:
            places = np.tile(np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2), (channels, 1, 1, 1))
            options = {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1] * 4, "group": channels}
            return [node("ConvTranspose", [given, constant("places", places)], made, **options)]
        cut = [
            constant("from", np.array([1, 1])),
            constant("to", np.array([-1, -1])),
            constant("axes", np.array([2, 3])),
        ]
        high = f"{out}_high"
        return [node("DepthToSpace", [given], high, blocksize=2, mode="CRD"), node("Slice", [high, *cut], made)]

    low = [block.low, constant("phases", _phases(weights[:, : block.channels]))]
    if block.joint is None:
        low.append(constant("bias", np.repeat(bias, 4)))
    nodes = [node("Conv", low, corner, kernel_shape=[2, 2], pads=[1] * 4)]
    if block.joint is None:
        if block.relu is not None:
            nodes.append(node("Relu", [corner], f"{corner}_positive"))
        return [*nodes, *interleaved(nodes[-1].output[0], out)]
    fine = [block.joint.input[1], constant("fine", weights[:, block.channels :]), constant("bias", bias)]
    total = out if block.relu is None else f"{out}_sum"
    nodes += [
        *interleaved(corner, f"{out}_coarse"),
        node("Conv", fine, f"{out}_beside", kernel_shape=[3, 3], pads=[1] * 4),
        node("Add", [f"{out}_beside", f"{out}_coarse"], total),
    ]
    return nodes if block.relu is None else [*nodes, node("Relu", [total], out)]


def _phases(weights: F32) -> F32:
    """Return the kernels of 2 x 2 ``(channel * phase, given, y, x)`` that do at low resolution what 3 x 3 do."""
    made, given = weights.shape[:2]
    phases = np.zeros((made, 2, 2, given, 2, 2), np.float32)
    for row, column, y, x in np.ndindex(2, 2, 2, 2):
        taps = weights[:, :, TAPS[row][y]][:, :, :, TAPS[column][x]]
        phases[:, row, column, :, y, x] = taps.sum((2, 3))
    return phases.reshape(4 * made, given, 2, 2)


def _evaluate(model: ModelProto, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return the values of tensors that follow from constants alone."""
    wiring = _Wiring(model.graph)
    ancestors = {name: found for name in names if (found := wiring.arithmetic(name)) is not None}
    wanted = {tensor for found in ancestors.values() for tensor in found}
    nodes = [node for node in model.graph.node if node.output[0] in wanted]
    used = {name for node in nodes for name in node.input} | ancestors.keys()
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    results = [ValueInfoProto(name=name) for name in ancestors]
    graph = helper.make_graph(nodes, "constants", [], results, tensors)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    values = ReferenceEvaluator(part).run(None, {}) if ancestors else []
    return {name: np.asarray(value) for name, value in zip(ancestors, values, strict=True)}


def _set(node: NodeProto, name: str, value: list[int]) -> None:
    kept = [attribute for attribute in node.attribute if attribute.name not in {name, "auto_pad"}]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _keep(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Replace the nodes of a graph, and leave out nodes and weights that no result needs."""
    used, kept = {value.name for value in graph.output}, []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(tensors)


def _options(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
