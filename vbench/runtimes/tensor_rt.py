"""TensorRT: an engine built for one GPU from a model of ONNX. Written without a GPU, and not yet run on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorrt
import torch
from torch import Tensor

from vbench.errors import UnsupportedError
from vbench.runtimes.base import Runtime, Session, words

TYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16}


class Log(tensorrt.ILogger):  # type: ignore[misc, unused-ignore]
    """Keeps what TensorRT says of errors; by itself it prints them."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Called by TensorRT."""
        if severity in (tensorrt.ILogger.Severity.ERROR, tensorrt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message)

    def last(self) -> str:
        """What it said last."""
        return words(self.errors[-1] if self.errors else "")


class TensorRt(Runtime):
    """An engine of a strongly typed network: it computes in the types that the file has, and TF32 if that is allowed.

    Inputs and outputs are torch's tensors, and calls are queued on torch's current stream.
    """

    title = "TensorRT"
    _engine: Any = None

    def __init__(self, device: str, threads: int, *, tf32: bool = False) -> None:
        super().__init__(device, threads, tf32=tf32)
        self._log = Log()
        self._runtime = tensorrt.Runtime(self._log)

    @property
    def name(self) -> str:
        return f"tensorrt {tensorrt.__version__}"

    def compiled(self, file: Path) -> Path:
        builder = tensorrt.Builder(self._log)
        typed = 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = tensorrt.OnnxParser(network, self._log)
        if not parser.parse_from_file(str(file)):
            errors = [parser.get_error(number) for number in range(parser.num_errors)]
            said = "; ".join(dict.fromkeys(f"{error.node_operator()}: {error.desc()}" for error in errors))
            raise UnsupportedError(f"{self.title} does not take this model: {words(said)}")
        config = builder.create_builder_config()
        (config.set_flag if self.tf32 else config.clear_flag)(tensorrt.BuilderFlag.TF32)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise UnsupportedError(f"{self.title} does not take this model: {self._log.last()}")
        made = file.with_suffix(".engine")
        made.write_bytes(plan)
        return made

    def session(self, file: Path, image: Tensor) -> Session:
        self._engine = engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if engine is None:
            raise UnsupportedError(f"{self.title} does not load its engine: {self._log.last()}")
        context = engine.create_execution_context()
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        (given,) = (name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT)
        outputs = {name: self._like(name, image) for name in names if name != given}
        for name, output in outputs.items():
            context.set_tensor_address(name, output.data_ptr())

        def run(batch: Tensor) -> list[Tensor]:
            context.set_tensor_address(given, batch.data_ptr())
            if not context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
                raise RuntimeError(f"{self.title}: {self._log.last()}")
            return list(outputs.values())

        return run

    def computes_in(self) -> str:
        given = self._engine.get_tensor_name(0)
        return str(TYPES[self._engine.get_tensor_dtype(given).name]).removeprefix("torch.")

    def _like(self, name: str, image: Tensor) -> Tensor:
        dtype = TYPES[self._engine.get_tensor_dtype(name).name]
        return torch.empty(tuple(self._engine.get_tensor_shape(name)), dtype=dtype, device=image.device)
