"""What accelerators have in common: calls are queued, and events of the device say how long they took."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from vbench.devices.base import IN_FLIGHT, Call, Device, make_ready

SIDE = 1024  # of the matrices whose product is one unit of `worker`


class Event(Protocol):
    """A moment on the device."""

    def record(self) -> None:
        """Put the moment into the queue."""
        ...

    def elapsed_time(self, later: Any, /) -> float:
        """Milliseconds from this moment to a later one."""
        ...


class Queued(Device):
    """A device that works through a queue of calls. A kind must give `event`, and what `Device` asks for."""

    asynchronous = True
    pooled = True
    lazy = True

    def event(self) -> Event:
        """A new event that can be timed."""
        raise NotImplementedError

    def events(self) -> tuple[Any, Any]:
        """A pair of events that exist: torch makes one as it is first recorded, and that takes the host's time."""
        begin, end = self.event(), self.event()
        begin.record()
        end.record()
        return begin, end

    def samples(self, call: Call, count: int) -> list[float]:
        """At most `IN_FLIGHT` calls are queued at a time."""
        events = [self.events() for _ in range(count)]
        for i, (begin, end) in enumerate(events):
            if i % IN_FLIGHT == 0:
                self.wait()
            make_ready(call)
            begin.record()
            call()
            end.record()
        self.wait()
        return [float(begin.elapsed_time(end)) for begin, end in events]

    def worker(self) -> Callable[[int], None]:
        matrix = torch.full((SIDE, SIDE), 1 / SIDE, device=self.name)
        product = torch.empty_like(matrix)

        def multiply(calls: int) -> None:
            for _ in range(calls):
                torch.mm(matrix, matrix, out=product)

        return multiply

    def begin_memory(self) -> int:
        """Make a product, forward and backward, so that the libraries take their workspaces.

        cuBLAS takes one for each thread that calls it, 32 MiB on sm_90, from torch's allocator and for good.
        """
        before = self.used_bytes()
        with torch.inference_mode(False), torch.enable_grad():
            for dtype in (torch.float32, torch.float16):
                x = torch.ones(256, 256, device=self.name, dtype=dtype, requires_grad=True)
                F.linear(x, x, x[0]).sum().backward()
        self.wait()
        del x
        gc.collect()
        return self.used_bytes() - before
