"""Changes to a graph as it is loaded. They keep its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

POINTWISE: Final = frozenset(
    {"Add", "BatchNormalization", "Cast", "Clip", "Conv", "HardSigmoid", "HardSwish", "Identity", "Mul", "Relu",
     "Sigmoid"}
)  # fmt: skip
"""Operators that may lie between a mean and its gate; a convolution only if it is 1 x 1."""
KEEPS_SIZE: Final = POINTWISE | {"Concat", "Pad"}
"""Operators after which a pixel covers as much of the input as before; a Pad is part of the convolution after it."""
STRIDED: Final = frozenset({"Conv", "AveragePool", "MaxPool"})
"""Operators after which a pixel covers as many times more as their stride."""


@dataclass(frozen=True)
class _Gate:
    """A squeeze-and-excitation block: ``product`` multiplies features with what is computed from their ``mean``."""

    mean: NodeProto
    product: NodeProto
    stride: int

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
                    found.append(_Gate(mean, product, stride))
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
    means = {gate.mean.output[0]: gate for gate in gates}
    products = {gate.product.output[0]: gate for gate in gates}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] in means:
            nodes += _local_mean(means[node.output[0]], cell=cell, cells=side // cell | 1)
        else:
            gate = products.get(node.output[0])
            nodes += [node] if gate is None else _enlarged(gate, graph, factor=cell // gate.stride)
    del graph.node[:]
    graph.node.extend(nodes)
    return len(gates)


def _local_mean(gate: _Gate, *, cell: int, cells: int) -> list[NodeProto]:
    features, mean, across = gate.mean.input[0], gate.mean.output[0], cell // gate.stride
    by_cell = f"{mean}_by_cell"
    return [
        helper.make_node(
            "AveragePool", [features], [by_cell], by_cell, kernel_shape=[across] * 2, strides=[across] * 2
        ),
        helper.make_node(
            "AveragePool", [by_cell], [mean], f"{mean}_around",
            kernel_shape=[cells] * 2, strides=[1, 1], pads=[cells // 2] * 4, count_include_pad=0,
        ),
    ]  # fmt: skip


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


def _options(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
