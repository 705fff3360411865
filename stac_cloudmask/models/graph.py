"""Check ONNX files against their items, and prepare their graphs to be run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # comes with onnx, without types
from onnx import GraphProto, ModelProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from stac_cloudmask.errors import ChecksumError, ModelError
from stac_cloudmask.models import surgery
from stac_cloudmask.models.registry import HEAD, diagnose, mismatch
from stac_cloudmask.models.spec import LONGEST_SIDE, ModelSpec

ERRORS: Final = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
    UnicodeError,  # a broken file's names in onnxruntime's message
)
"""Exceptions of onnxruntime for graphs that it cannot run."""
RANK: Final = 4
FREE_AXES: Final = ("windows", "band", "window_height", "window_width")
"""Names of the input's free axes."""
MEAN_SIDE: Final = 0.5
"""Side of local means relative to the windows for which a model was made. With the ukis models, half is as accurate on
labeled scenes as the whole, and windows with an overlap of 192 pixels agree with one large window in 99.9 % of pixels
instead of 99.7 %."""


def load_graph(
    path: Path,
    spec: ModelSpec,
    *,
    local_means: bool = False,
    transposed: bool = True,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    bfloat16: bool = False,
) -> bytes:
    """Return a serialized graph that fits the contract and accepts the stated windows.

    The bytes that are checked are the bytes that are used.

    Args:
        path: The file.
        spec: Contract of its item.
        local_means: Whether global means become local ones, so that it does not matter where windows lie, and the
            graph is made faster; see ``surgery``. A model with a fixed window keeps what it has.
        transposed: See ``surgery.enlarge_later``.
        ranges: See ``surgery.quantize``.
        bfloat16: See ``surgery.round_weights``.

    Raises:
        ChecksumError: The file does not match the checksum in the item.
        ModelError: It is not a valid ONNX file, or its inputs or outputs differ from the item.
    """
    data = _read(path, spec)
    model = _parse(data, path)
    height, width = _refuse_unfit(model.graph, spec, path)
    if not spec.window.multiple:
        return data
    _free_window(model.graph)
    if local_means and surgery.is_flat(model):
        surgery.widen(model)
        model = simplified(model, path)
        wiring = surgery.Wiring(model, spec.window.multiple)
        around = surgery.localize_means(wiring, side=round(MEAN_SIDE * (height or width or spec.window.size)))
        changes = around | surgery.expand_in_groups(wiring) | surgery.enlarge_later(wiring, transposed=transposed)
        surgery.replace(model.graph, changes)
        if ranges:
            surgery.quantize(model, ranges)
        if bfloat16:
            surgery.round_weights(model.graph)
    return bytes(model.SerializeToString())


def simplified(model: ModelProto, path: Path) -> ModelProto:
    """Return a graph with constants folded, and padding and normalization merged into convolutions.

    Raises:
        ModelError: ONNX Runtime cannot run it; the message names ``path``.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/simplified.onnx"
        open_session(model.SerializeToString(), path, options)
        return onnx.load_model(options.optimized_model_filepath)


def open_session(
    graph: bytes, path: Path, options: onnxruntime.SessionOptions, *, provider: str = "CPUExecutionProvider"
) -> onnxruntime.InferenceSession:
    """Return ONNX Runtime's session for a graph.

    Raises:
        ModelError: ONNX Runtime cannot run it; the message names ``path``.
    """
    options.log_severity_level = 3
    try:
        # A fallback would print to stdout, between the results
        return onnxruntime.InferenceSession(graph, options, providers=[provider], enable_fallback=0)
    except ERRORS as error:
        raise ModelError(f"{path}: onnxruntime cannot run it: {error}") from error


def _read(path: Path, spec: ModelSpec) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    if other := diagnose(data[:HEAD]):
        raise ModelError(f"{path}: is {other}")
    if found := mismatch(data, spec):
        raise ChecksumError(f"{path}: {found}; model {spec.name!r} is not used")
    return data


def _parse(data: bytes, path: Path) -> ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelError(f"{path}: is not an ONNX file, or is cut off: {error}") from error
    if not model.graph.node:
        raise ModelError(f"{path}: is not an ONNX file: it holds no graph")
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f"{path}: tensor {tensor.name!r} is in another file, which no checksum covers; "
                f"save the model as one file: onnx.save(onnx.load(path), path)"
            )
    try:
        onnx.checker.check_model(data)
    except (onnx.checker.ValidationError, UnicodeError) as error:
        raise ModelError(f"{path}: is not valid ONNX: {str(error).splitlines()[0]}") from error
    return model


def _refuse_unfit(graph: GraphProto, spec: ModelSpec, path: Path) -> tuple[int, int]:
    """Return the fixed height and width of the input, 0 where free."""
    inputs = surgery.inputs_of(graph)
    if len(inputs) != 1 or not graph.output:
        raise ModelError(f"{path}: has {len(inputs)} inputs and {len(graph.output)} outputs; models have one input")
    shapes = [value.type.tensor_type.shape for value in (inputs[0], graph.output[0])]
    given, result = ([dim.dim_value for dim in shape.dim] for shape in shapes)  # 0 where an axis is free
    for what, sides in (("input", given), ("output", result)):
        if len(sides) != RANK:
            raise ModelError(f"{path}: its {what} has {len(sides)} axes; (n, channel, y, x) are expected")
    item, (height, width) = f"but the item of {spec.name!r} says", given[2:]
    wants, is_vast = f"wants windows of {height} x {width}", max(height, width) > LONGEST_SIDE
    is_other = not spec.window.multiple and not {height, width} <= {0, spec.window.size}
    wrong = {
        f"its input has {given[1]} channels, {item} {len(spec.bands)}": given[1] not in (0, len(spec.bands)),
        f"its output has {result[1]} channels, {item} {spec.channels}": result[1] not in (0, spec.channels),
        f"{wants}; at most {LONGEST_SIDE} are supported": is_vast,
        f"{wants}, {item} {spec.window.size}": is_other and not is_vast,
        "its input is not float32": inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT,
    }
    if any(wrong.values()):
        raise ModelError(f"{path}: {'; '.join(text for text, applies in wrong.items() if applies)}")
    return height, width


def _free_window(graph: GraphProto) -> None:
    """Remove a fixed height and width, and all shapes that were inferred from them."""
    for axis in (0, 2, 3):
        surgery.inputs_of(graph)[0].type.tensor_type.shape.dim[axis].dim_param = FREE_AXES[axis]
    for value in graph.output:
        for dim in list(value.type.tensor_type.shape.dim)[2:]:
            dim.Clear()
    del graph.value_info[:]
