"""ONNX files that come from outside: refused where hostile or unfit, and freed from a fixed window where allowed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, without types
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from stac_cloudmask.errors import ChecksumError, ModelError
from stac_cloudmask.models.spec import LONGEST_SIDE
from stac_cloudmask.models.weights import HEAD, mismatch, recognise

if TYPE_CHECKING:
    from stac_cloudmask.models.spec import ModelSpec

Called = tuple[str, str, str]
"""Domain, name and overload of an operator or local function."""

LARGEST_FILE: Final = 2_000_000_000
"""Bytes; protobuf's own limit is 2 GiB."""
MOST_ELEMENTS: Final = 2**31
"""Elements of a tensor that a graph may ask for by a constant shape."""
DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets that onnxruntime itself brings."""
ENDLESS: Final = "Loop"
"""The one operator that may never end; models of images have no use for it."""
FILLERS: Final = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators that make a tensor of any size from a shape of a few bytes, and which of their inputs is that shape."""
RANK: Final = 4
MOST_NODES: Final = 100_000
"""Nodes of a graph whose local functions are written out in place, as onnxruntime does."""
DEEPEST: Final = 20
"""Local functions that call one another."""


def load_graph(path: Path, spec: ModelSpec) -> bytes:
    """A serialized graph that fits the contract and takes the windows that it states.

    The bytes that are checked are the bytes that are used.

    Raises:
        ChecksumError: The file is not the one that the item promises.
        ModelError: It is no ONNX file, is hostile, or has other inputs or outputs than the item says.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ModelError(f"{path}: more than {LARGEST_FILE} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if stranger := recognise(data[:HEAD]):
        raise ModelError(f"{path}: is {stranger}")
    if found := mismatch(data, sha256=spec.sha256, file_size=spec.file_size):
        raise ChecksumError(f"{path}: {found}; model {spec.name!r} is not used")
    model = _parse(data, path)
    _refuse_hostile(model, path)
    height, width = _refuse_unfit(model.graph, spec, path)
    if spec.window.multiple and (height or width):
        del data  # before there is another copy
        _free_window(model.graph)
        data = model.SerializeToString()
    return data


def _parse(data: bytes, path: Path) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut off: {error}") from error
    if not model.graph.node:
        raise ModelError(f"{path}: is not an ONNX file: it holds no graph")
    return model


def _refuse_hostile(model: ModelProto, path: Path) -> None:
    known = DOMAINS | {function.domain for function in model.functions}
    for graph in _graphs(model):
        for node in graph.node:
            if node.domain not in known:
                raise ModelError(f"{path}: operator {node.domain}.{node.op_type} is custom; only ONNX's own are run")
            if node.op_type == ENDLESS:
                raise ModelError(f"{path}: operator {ENDLESS} may never end; export the model without it")
        for tensor in _tensors(graph):
            _refuse_tensor(tensor, path)
        _refuse_bombs(graph, path)
    _refuse_explosion(model, path)


def _refuse_explosion(model: ModelProto, path: Path) -> None:
    """Local functions that call others many times over make billions of nodes out of a few bytes."""
    calls = {(f.domain, f.name, f.overload): _calls(GraphProto(node=f.node)) for f in model.functions}
    sizes = dict.fromkeys(calls, 1)
    for _ in range(DEEPEST):
        before, sizes = sizes, {name: _written_out(called, sizes) for name, called in calls.items()}
        if sizes == before:
            break
    if calls and (sizes != before or _written_out(_calls(model.graph), sizes) > MOST_NODES):
        raise ModelError(f"{path}: its local functions, written out, are more than {MOST_NODES} nodes or have no end")


def _calls(graph: GraphProto) -> Counter[Called]:
    return Counter((node.domain, node.op_type, node.overload) for inner in _within(graph) for node in inner.node)


def _written_out(called: Counter[Called], sizes: dict[Called, int]) -> int:
    return min(sum(sizes.get(name, 1) * count for name, count in called.items()), MOST_NODES + 1)


def _refuse_tensor(tensor: TensorProto, path: Path) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ModelError(
            f"{path}: tensor {tensor.name!r} lies in another file, which no checksum covers; "
            f"save the model as one file: onnx.save(onnx.load(path), path)"
        )
    if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > MOST_ELEMENTS:
        raise ModelError(f"{path}: tensor {tensor.name!r} claims the absurd shape {list(tensor.dims)}")


def _refuse_bombs(graph: GraphProto, path: Path) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    constants |= {
        n.output[0]: a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"
    }
    for node in graph.node:
        place = FILLERS.get(node.op_type)
        shape = constants.get(node.input[place]) if place is not None and len(node.input) > place else None
        if shape is not None and _product(shape) > MOST_ELEMENTS:
            raise ModelError(f"{path}: node {node.name!r} ({node.op_type}) asks for a tensor of absurd size")


def _product(shape: TensorProto) -> int:
    try:
        return math.prod(int(side) for side in np.abs(numpy_helper.to_array(shape)).ravel())
    except (ValueError, TypeError) as error:
        raise ModelError(f"tensor {shape.name!r} does not hold what its shape says: {error}") from error


def _graphs(model: ModelProto) -> Iterator[GraphProto]:
    """All graphs, those inside loops and branches too; local functions count as graphs of nodes."""
    yield from _within(model.graph, *(GraphProto(node=function.node) for function in model.functions))


def _within(*graphs: GraphProto) -> Iterator[GraphProto]:
    waiting = [*graphs]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += [inner for node in graph.node for inner in _inner_graphs(node)]


def _inner_graphs(node: NodeProto) -> list[GraphProto]:
    return [g for attribute in node.attribute for g in (attribute.g, *attribute.graphs) if g.node]


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _refuse_unfit(graph: GraphProto, spec: ModelSpec, path: Path) -> tuple[int, int]:
    """The fixed height and width of the input, 0 where free."""
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initial]
    if len(inputs) != 1 or not graph.output:
        raise ModelError(f"{path}: has {len(inputs)} inputs and {len(graph.output)} outputs; models have one input")
    given, result = _sides(inputs[0]), _sides(graph.output[0])
    for what, sides in (("input", given), ("output", result)):
        if len(sides) != RANK:
            raise ModelError(f"{path}: its {what} has {len(sides)} axes; (n, channel, y, x) are expected")
    wrong = [*_wrong_channels(given[1], result[1], spec), *_wrong_window(given[2], given[3], spec)]
    if inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        wrong.append("its input is not float32")
    if wrong:
        raise ModelError(f"{path}: {'; '.join(wrong)}")
    return given[2], given[3]


def _wrong_channels(given: int, result: int, spec: ModelSpec) -> Iterator[str]:
    if given not in (0, len(spec.bands)):
        yield f"its input has {given} channels, but the item of {spec.name!r} says {len(spec.bands)}"
    if result not in (0, spec.channels):
        yield f"its output has {result} channels, but the item of {spec.name!r} says {spec.channels}"


def _wrong_window(height: int, width: int, spec: ModelSpec) -> Iterator[str]:
    if max(height, width) > LONGEST_SIDE:
        yield f"wants windows of {height} x {width}; at most {LONGEST_SIDE} are supported"
    elif not spec.window.multiple and any(side not in (0, spec.window.size) for side in (height, width)):
        yield f"wants windows of {height} x {width}, but the item of {spec.name!r} says {spec.window.size}"


def _sides(value: onnx.ValueInfoProto) -> list[int]:
    """Lengths of the axes; 0 where they are free."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _free_window(graph: GraphProto) -> None:
    """Forget the fixed height and width, and all shapes that were inferred from them."""
    initial = {tensor.name for tensor in graph.initializer}
    [given] = [value for value in graph.input if value.name not in initial]
    for value in (given, *graph.output):
        dims = value.type.tensor_type.shape.dim
        for dim, name in ((dims[2], "height"), (dims[3], "width")) if len(dims) == RANK else ():
            dim.dim_param = name
    del graph.value_info[:]
