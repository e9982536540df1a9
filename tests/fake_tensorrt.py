"""A stand-in for the module `tensorrt`: its networks return twice their input, through pointers, as an engine would."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar


class ILogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 1


BuilderFlag = SimpleNamespace(TF32="tf32")
TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
__version__ = "10.8.0"


class Builder:
    """What it is asked is in `asked`. A file of ONNX is JSON here: {"shape", "refuses"}."""

    asked: ClassVar[dict[str, Any]] = {}

    def __init__(self, log: ILogger) -> None:
        self.log = log

    def create_network(self, flags: int) -> SimpleNamespace:
        Builder.asked = {"flags": flags}
        return SimpleNamespace()

    def create_builder_config(self) -> SimpleNamespace:
        def say(value: bool) -> Any:
            return lambda flag: Builder.asked.update({flag: value})

        return SimpleNamespace(set_flag=say(True), clear_flag=say(False))

    def build_serialized_network(self, network: SimpleNamespace, config: object) -> bytes | None:
        if network.model.get("refuses") == "builder":
            self.log.log(ILogger.Severity.WARNING, "a warning")  # type: ignore[attr-defined]
            self.log.log(ILogger.Severity.ERROR, "no tactic for node_of_scan")  # type: ignore[attr-defined]
            return None
        return json.dumps(network.model).encode()


class OnnxParser:
    def __init__(self, network: SimpleNamespace, log: ILogger) -> None:
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        self.network.model = json.loads(Path(path).read_text())
        self.num_errors = int(self.network.model.get("refuses") == "parser")
        return not self.num_errors

    def get_error(self, number: int) -> SimpleNamespace:
        return SimpleNamespace(node_operator=lambda: "Scan", desc=lambda: "no importer registered")


class Runtime:
    def __init__(self, log: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, plan: bytes) -> Engine:
        return Engine(json.loads(plan))


class Engine:
    num_io_tensors = 2

    def __init__(self, model: dict[str, Any]) -> None:
        self.shape = model["shape"]

    def get_tensor_name(self, number: int) -> str:
        return ("image", "logits")[number]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == "image" else "out"

    def get_tensor_shape(self, name: str) -> list[int]:
        return list(self.shape)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="FLOAT")

    def create_execution_context(self) -> Context:
        return Context(self.shape)


class Context:
    """`streams` are those on which calls were queued."""

    streams: ClassVar[list[int]] = []

    def __init__(self, shape: list[int]) -> None:
        self.size, self.places = 1, dict[str, int]()
        for side in shape:
            self.size *= side

    def set_tensor_address(self, name: str, place: int) -> None:
        self.places[name] = place

    def execute_async_v3(self, stream: int) -> bool:
        Context.streams.append(stream)
        given, found = ((ctypes.c_float * self.size).from_address(self.places[name]) for name in ("image", "logits"))
        for at, value in enumerate(given):
            found[at] = 2 * value
        return True
