"""ONNX Runtime on its CPU and its CUDA provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from vbench.errors import UnsupportedError
from vbench.runtimes.base import Runtime, Session

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
ERRORS_ONLY = 3  # of its log
TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(bfloat16)": torch.bfloat16}


class OnnxRuntime(Runtime):
    """A session on one provider. On CUDA it works on torch's tensors, on a stream that it shares with torch.

    Its products are of the type of the file: the CPU's provider has no option that lowers it, and the CUDA provider is
    told of TF32.
    """

    title = "ONNX Runtime"
    _dtype = ""

    def __init__(self, device: str, threads: int, *, tf32: bool = False) -> None:
        super().__init__(device, threads, tf32=tf32)
        self._kind = device.partition(":")[0]
        self._provider = PROVIDERS[self._kind]
        available = onnxruntime.get_available_providers()
        if self._provider not in available:
            raise UnsupportedError(
                f"this onnxruntime has no {self._provider}; it has {', '.join(available)}; install onnxruntime-gpu"
            )
        onnxruntime.set_default_logger_severity(ERRORS_ONLY)
        self._call_of(self._session(_identity()))(torch.zeros(1, device=device))

    @property
    def name(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}, {self._provider}"

    def session(self, file: Path, image: Tensor) -> Session:
        try:
            session = self._session(str(file))
        except Exception as error:
            raise self.refused(error) from error
        self._dtype = str(TYPES[session.get_inputs()[0].type]).removeprefix("torch.")
        return self._call_of(session)

    def computes_in(self) -> str:
        return self._dtype

    def _session(self, model: str | bytes) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = ERRORS_ONLY
        providers: list[Any] = [self._provider]
        if self._kind == "cuda":
            stream = torch.cuda.Stream(self.device)
            torch.cuda.set_stream(stream)  # so that torch's events are on the stream of these calls
            how = {"device_id": torch.device(self.device).index or 0, "user_compute_stream": str(stream.cuda_stream)}
            providers = [(self._provider, how | {"use_tf32": str(int(self.tf32))}), PROVIDERS["cpu"]]
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        if self._provider not in session.get_providers():  # it falls back to the CPU with a line in its log
            raise UnsupportedError(f"onnxruntime could not load its {self._provider}, and would run on the CPU")
        return session

    def _call_of(self, session: Any) -> Session:
        return _on_host(session) if self._kind == "cpu" else _on_cuda(session, self.device)


def _on_host(session: Any) -> Session:
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image.numpy()})


def _on_cuda(session: Any, device: str) -> Session:
    given, binding = session.get_inputs()[0].name, session.io_binding()
    index = torch.device(device).index or 0
    outputs = [torch.empty(each.shape, dtype=TYPES[each.type], device=device) for each in session.get_outputs()]
    about = onnxruntime.RunOptions()
    about.add_run_config_entry("disable_synchronize_execution_providers", "1")  # calls are queued, as torch's are

    def bind(kind: str, name: str, tensor: Tensor) -> None:
        which = binding.bind_input if kind == "input" else binding.bind_output
        which(name, "cuda", index, _numpy_type(tensor.dtype), tuple(tensor.shape), tensor.data_ptr())

    for each, output in zip(session.get_outputs(), outputs, strict=True):
        bind("output", each.name, output)

    def call(image: Tensor) -> list[Tensor]:
        bind("input", given, image)
        session.run_with_iobinding(binding, about)
        return outputs

    return call


def _numpy_type(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype.type


def _identity() -> bytes:
    """The smallest model: one number, as it is."""
    from onnx import TensorProto, helper

    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "one", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    written: bytes = model.SerializeToString()
    return written
