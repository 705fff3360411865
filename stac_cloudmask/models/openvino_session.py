"""The extra ``[openvino]``: the same models, run by OpenVINO. The only place that knows openvino."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stac_cloudmask.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    F32 = NDArray[np.float32]


def open_openvino(graph: bytes, path: Path, *, threads: int, bfloat16: bool) -> Callable[[F32], F32]:
    """A graph compiled by OpenVINO, anew for each shape of windows; the last shape is kept.

    Args:
        graph: A serialized ONNX graph.
        path: Its file, for messages.
        threads: CPUs to use.
        bfloat16: Compute in bfloat16 where the CPU does so natively; otherwise in float32 always.
    """
    try:
        import openvino  # noqa: PLC0415  (extra)
    except ImportError as error:
        raise ModelError("provider openvino needs a library; run `pip install stac-cloudmask[openvino]`") from error
    core = openvino.Core()
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    if not bfloat16:
        settings["INFERENCE_PRECISION_HINT"] = "f32"

    @lru_cache(maxsize=1)
    def compiled(shape: tuple[int, ...]) -> Any:  # noqa: ANN401  (openvino has no types)
        model = core.read_model(io.BytesIO(graph))
        model.reshape({0: list(shape)})
        return core.compile_model(model, "CPU", settings).create_infer_request()

    one_at_a_time = threading.Lock()

    def run(chips: F32) -> F32:
        with one_at_a_time:
            try:
                answer: F32 = compiled(chips.shape).infer({0: chips})[0].copy()
            except RuntimeError as error:
                raise ModelError(f"{path}: OpenVINO failed on windows of {chips.shape}: {error}") from error
            return answer

    return run
