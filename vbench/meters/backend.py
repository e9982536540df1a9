"""The back ends through which a model is called: eager, compiled, or replayed as a CUDA graph."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from vbench.devices.base import Device
from vbench.errors import CompileError
from vbench.plan import Backend

SIZES = 256  # of inputs that one function may be compiled for


class Compilations:
    """Counts what torch.compile compiles, and the seconds it takes. Use as a context manager.

    It compiles on `threads` threads, into a folder of its own that is removed at the end: a cache of an earlier run
    would make a compilation look quick. Every input size may be compiled: by default torch stops after eight, and runs
    what comes later without compiled code. For another back end it does nothing.
    """

    def __init__(self, backend: Backend, threads: int) -> None:
        self._threads = threads
        self.count = 0
        self.seconds = 0.0
        self._begin = 0.0
        self._counts = backend == "compile"

    def __enter__(self) -> Compilations:
        if self._counts:
            import torch._dynamo.config
            import torch._inductor.config
            from torch._dynamo.callback import callback_handler

            self._folder = tempfile.mkdtemp(prefix="vbench-compiled-")
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = self._folder
            # An environment variable would come too late: the configuration was read when torch was imported.
            threads = torch._inductor.config.patch(compile_threads=self._threads)
            limits = torch._dynamo.config.patch(
                recompile_limit=SIZES,
                accumulated_recompile_limit=SIZES**2,
                fail_on_recompile_limit_hit=True,
                suppress_errors=False,
            )
            self._patches = (threads, limits)
            for patch in self._patches:
                patch.__enter__()
            callback_handler.register_start_callback(self._start)
            callback_handler.register_end_callback(self._end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._counts:
            from torch._dynamo.callback import callback_handler

            callback_handler.remove_start_callback(self._start)
            callback_handler.remove_end_callback(self._end)
            for patch in self._patches:
                patch.__exit__(None, None, None)
            shutil.rmtree(self._folder, ignore_errors=True)

    def first(self, call: Callable[[], object], what: str) -> None:
        """Make the first call of a size, and see that it compiles; for another back end do nothing.

        Raises: CompileError if nothing was compiled: then later calls would not run compiled code.
        """
        if not self._counts:
            return
        before = self.count
        call()
        if self.count == before:
            raise CompileError(f"torch.compile compiled nothing for {what}: its calls would run without compiled code")

    def cost(self) -> dict[str, Any]:
        """What compiling cost: `compile_s` and `compilations`; empty for another back end."""
        return {"compile_s": self.seconds, "compilations": self.count} if self._counts else {}

    def _start(self, *_: Any) -> None:
        self._begin = perf_counter()

    def _end(self, *_: Any) -> None:
        self.count += 1
        self.seconds += perf_counter() - self._begin


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
