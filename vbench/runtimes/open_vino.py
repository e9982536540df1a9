"""OpenVINO on the CPU. Its package of telemetry is not loaded: nothing is sent while something is measured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vbench.errors import UnsupportedError
from vbench.runtimes.base import Runtime, Session

TYPES = {"float32": "f32"}  # torch's name, OpenVINO's


class OpenVino(Runtime):
    """A model on one stream. Left alone, OpenVINO may compute float32 in bfloat16; it is told the type, and asked."""

    title = "OpenVINO"
    _compiled: Any = None

    def __init__(self, device: str, threads: int, *, tf32: bool = False) -> None:
        super().__init__(device, threads, tf32=tf32)
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed
        import openvino
        from openvino import opset8

        self._version = openvino.__version__.partition("-")[0]
        self._core = openvino.Core()
        given = opset8.parameter([1], np.float32)
        self._ready(openvino.Model([opset8.relu(given)], [given], "one"), "float32")(np.zeros(1, np.float32))

    @property
    def name(self) -> str:
        return f"openvino {self._version}, CPU"

    def session(self, file: Path, image: Tensor) -> Session:
        wanted = str(image.dtype).removeprefix("torch.")
        try:
            run = self._ready(str(file), wanted)
        except Exception as error:
            raise self.refused(error) from error
        if self.computes_in() != wanted:
            raise UnsupportedError(f"OpenVINO computes {wanted} in {self.computes_in()} on this processor")
        return lambda batch: run(batch.numpy())

    def computes_in(self) -> str:
        told = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        return {own: torchs for torchs, own in TYPES.items()}.get(told, str(told))

    def _ready(self, model: Any, dtype: str) -> Any:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self.threads,
            "INFERENCE_PRECISION_HINT": TYPES[dtype],
            "ENABLE_CPU_PINNING": False,  # the system places the threads, as it does those of torch
        }
        self._compiled = self._core.compile_model(model, "CPU", settings)
        request = self._compiled.create_infer_request()

        def run(batch: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
            return list(request.infer([batch], share_inputs=True, share_outputs=True).values())

        return run
