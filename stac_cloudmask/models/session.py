"""Run ONNX models on ONNX Runtime or OpenVINO."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from scipy.special import expit, softmax

from stac_cloudmask.core.predict import Role
from stac_cloudmask.errors import ConfigError, ModelError
from stac_cloudmask.models.graph import ERRORS, FREE_AXES, load_graph, open_session
from stac_cloudmask.models.registry import int8_ranges, locate
from stac_cloudmask.models.spec import ModelSpec

F32 = NDArray[np.float32]

DN_PER_REFLECTANCE: Final = np.float32(1e4)
"""Sentinel-2's quantification value."""
EXECUTION: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Onnxruntime's names of the providers that it runs."""

Run = Callable[["F32"], "F32"]
"""A function that runs a graph: ``(n, band, y, x)`` -> ``(n, channel, y, x)``."""

_sessions: dict[tuple[object, ...], Run] = {}
_opening = threading.Lock()


@dataclass(frozen=True)
class OnnxSegmenter:
    """A ``core.predict.Segmenter`` that runs an ONNX file.

    The session is opened on first use, once per process for each file. Windows of several threads run one after
    another, which limits memory; their preparation and the conversion of their output do not wait.

    Attributes:
        spec: The model's contract.
        threads: CPUs to use; None for all that the process may use.
        provider: See ``config.Settings``.
        cache: Directory of downloaded weights; None for the user's cache.
        local_means: Whether global means become local ones and the graph is optimized; FarmVibes.AI's workflow runs
            it unchanged.
        any_shape: Whether windows have many shapes. If so, one session handles all; otherwise it is prepared for the
            shape of the last window, which makes it 6 % faster, but takes longer than computing a window.
    """

    spec: ModelSpec
    threads: int | None = None
    provider: str = "cpu"
    cache: Path | None = None
    local_means: bool = True
    any_shape: bool = False

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of the model's input bands, in its order."""
        return self.spec.bands

    def predict(self, reflectance: F32) -> dict[Role, F32]:
        """Return probabilities 0..1 by role, ``(n, y, x)``, of reflectance ``(n, band, y, x)`` of any size.

        Raises:
            ModelError: The weights are missing, broken or malicious, or do not give probabilities.
        """
        return _probabilities(self.channels(reflectance), self.spec)

    def channels(self, reflectance: F32) -> F32:
        """Return the output of the graph, ``(n, channel, y, x)``: logits if the item names an activation.

        Raises:
            ModelError: See ``predict``.
        """
        height, width = reflectance.shape[2:]
        given = _prepare(reflectance, self.spec)
        result = self.open()(given)
        expected = (given.shape[0], self.spec.channels, *given.shape[2:])
        if result.shape != expected:
            raise ModelError(f"model {self.spec.name!r}: its output has shape {result.shape}, expected {expected}")
        result = result[..., :height, :width]
        if not np.isfinite(result).all():
            raise ModelError(f"model {self.spec.name!r}: its output is not finite; `models check` may say why")
        return result

    def open(self) -> Run:
        """Return the session, which is opened if this process does not have it yet.

        Raises:
            ModelError: The weights are missing, broken or malicious, or contradict the item.
            ConfigError: The provider is not installed or not available on this machine.
        """
        path = locate(self.spec, self.cache)
        state = path.stat()
        key = (self, path, state.st_size, state.st_mtime_ns)
        with _opening:
            if key not in _sessions:
                _sessions[key] = self._open(path, self.threads or CPU_COUNT)
            return _sessions[key]

    def _open(self, path: Path, threads: int) -> Run:
        if self.provider in EXECUTION:
            graph = load_graph(path, self.spec, local_means=self.local_means)
            _prepare_provider(self.provider)
            prepare = partial(_onnxruntime, graph, path, threads=threads, provider=self.provider)
        else:
            ranges = int8_ranges(self.spec, self.cache) if self.provider == "openvino-int8" else None
            bfloat16 = self.provider != "openvino-f32"
            options = {"local_means": self.local_means, "transposed": False, "bfloat16": bfloat16}
            graph = load_graph(path, self.spec, ranges=ranges, **options)
            prepare = partial(_openvino, graph, path, threads=threads, bfloat16=bfloat16)
        ready = lru_cache(maxsize=1)(prepare)  # all windows of a large scene have one shape; each shape takes 0.3 GB
        turn = threading.Lock()

        def run(chips: F32) -> F32:
            with turn:
                return ready((-1, chips.shape[1], -1, -1) if self.any_shape else chips.shape)(chips)

        return run


def _onnxruntime(graph: bytes, path: Path, shape: tuple[int, ...], *, threads: int, provider: str) -> Run:
    """Return the graph prepared for windows of a shape, whose axes may be free."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that wait in a loop would take the CPU from reading and blending
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The ukis models on windows of 1024 need 328 MB instead of 584 MB, at the same speed
    options.enable_mem_pattern = False
    for axis in (axis for axis, side in enumerate(shape) if side > 0 and axis != 1):
        options.add_free_dimension_override_by_name(FREE_AXES[axis], shape[axis])
    session = open_session(graph, path, options, provider=EXECUTION[provider])
    if session.get_providers()[0] != EXECUTION[provider]:
        raise ConfigError(
            f"provider {provider!r}: onnxruntime would silently use the CPU, because it found no GPU or no usable "
            f"CUDA libraries; check whether `nvidia-smi` lists a GPU, and run "
            f"`pip install 'onnxruntime-gpu[cuda,cudnn]'`"
        )
    given, result = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(chips: F32) -> F32:
        try:
            answer: F32 = session.run([result], {given: chips})[0]
        except ERRORS as error:
            raise ModelError(f"{path}: failed on windows of {chips.shape}: {error}") from error
        return answer

    return run


def _openvino(graph: bytes, path: Path, shape: tuple[int, ...], *, threads: int, bfloat16: bool) -> Run:
    """Return the graph compiled by OpenVINO for windows of a shape, whose axes may be free.

    bfloat16 is used if the CPU supports it.
    """
    try:
        import openvino  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ModelError("provider openvino needs a library; run `pip install stac-cloudmask[openvino]`") from error
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    if not bfloat16:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        core = openvino.Core()
        model = core.read_model(io.BytesIO(graph))
        model.reshape({0: list(shape)})
        request = core.compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot run it on windows of {shape}: {error}") from error
    return lambda chips: request.infer({0: chips})[0].copy()


def _prepare_provider(provider: str) -> None:
    if EXECUTION[provider] not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"provider {provider!r} needs the package onnxruntime-gpu in place of onnxruntime; run "
            f"`pip uninstall onnxruntime`, then `pip install 'onnxruntime-gpu[cuda,cudnn]'`"
        )
    preload = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if provider == "cuda" and preload is not None:
        with redirect_stdout(sys.stderr):  # it prints missing libraries
            preload()


def _prepare(reflectance: F32, spec: ModelSpec) -> F32:
    """Return reflectance scaled as the model expects, and padded to an accepted size by repeating the edge."""
    height, width = reflectance.shape[2:]
    below, right = spec.window.padded(height) - height, spec.window.padded(width) - width
    if min(below, right) < 0:
        found = f"got {height} x {width}"
        raise ModelError(f"model {spec.name!r}: needs windows of {spec.window.size} pixels, {found}")
    # Digital numbers are exact whole numbers again
    given = np.rint(reflectance * DN_PER_REFLECTANCE) if spec.input_kind == "dn" else reflectance
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (spec.mean, spec.std))
    given = given - mean
    given /= std
    if below or right:
        given = np.pad(given, [(0, 0), (0, 0), (0, below), (0, right)], mode="edge")
    return np.ascontiguousarray(given)


def _probabilities(result: F32, spec: ModelSpec) -> dict[Role, F32]:
    if spec.activation == "softmax":
        result = softmax(result, axis=1)
    elif spec.activation == "sigmoid":
        result = expit(result)
    return {role: np.clip(result[:, list(places)].sum(axis=1), 0, 1) for role, places in spec.outputs}
