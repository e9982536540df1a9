"""The back ends through which a model is called: eager, compiled, or replayed as a CUDA graph."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices.base import Device
from vbench.plan import Backend


class Compilations:
    """Counts what torch.compile compiles, and the seconds it takes. Use as a context manager.

    It compiles on `threads` threads, into a folder of its own that is removed at the end: a cache of an earlier run
    would make a compilation look quick. For another back end it does nothing.
    """

    def __init__(self, backend: Backend, threads: int) -> None:
        self._threads = threads
        self.count = 0
        self.seconds = 0.0
        self._begin = 0.0
        self._counts = backend == "compile"

    def __enter__(self) -> Compilations:
        if self._counts:
            from torch._dynamo.callback import callback_handler

            self._folder = tempfile.mkdtemp(prefix="vbench-compiled-")
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._folder
            os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(self._threads)
            callback_handler.register_start_callback(self._start)
            callback_handler.register_end_callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._counts:
            from torch._dynamo.callback import callback_handler

            callback_handler.remove_start_callback(self._start)
            callback_handler.remove_end_callback(self._end)
            shutil.rmtree(self._folder, ignore_errors=True)

    def cost(self) -> dict[str, Any]:
        """What compiling cost: `compile_s` and `compilations`; empty for another back end."""
        return {"compile_s": self.seconds, "compilations": self.count} if self._counts else {}

    def _start(self, *_: Any) -> None:
        self._begin = time.perf_counter()

    def _end(self, *_: Any) -> None:
        self.count += 1
        self.seconds += time.perf_counter() - self._begin


def prepared(backend: Backend, model: nn.Module) -> nn.Module:
    """The module that is called. With "compile" it is compiled at its first call."""
    if backend != "compile":
        return model
    compiled = torch.compile(model, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


def call(backend: Backend, device: Device, module: nn.Module, batch: Tensor) -> Callable[[], Any]:
    """The call that is measured: `module(batch)`, or its replay as a CUDA graph."""

    def once() -> Any:
        return module(batch)

    return device.captured(once) if backend == "cudagraph" else once
