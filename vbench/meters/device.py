"""What timing needs of a device: a clock, a wait, samples of single calls, and a word on its clocks.

`timing` knows no more than this, so that tests can put a simulated device in its place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from vbench.meters import memory, state

IN_FLIGHT = 64  # CUDA launches queued before the host waits
Call = Callable[[], Any]


class Device(Protocol):
    """A device that calls run on. Times in seconds, samples in milliseconds."""

    asynchronous: bool  # whether a call may return before it is done

    def now(self) -> float:
        """As `time.monotonic`, which other processes share."""

    def pause(self, seconds: float) -> None: ...
    def wait(self) -> None:
        """Until the device has nothing left to do."""

    def samples(self, call: Call, count: int) -> list[float]:
        """The device's time for each of `count` calls, in order; at most `IN_FLIGHT` are queued."""

    def returns_ms(self, call: Call) -> float:
        """The host's time until one call, on an idle device, returns."""

    def fits(self, nbytes: int) -> bool:
        """Whether an allocation of that size leaves a tenth of what is free."""

    def throttled(self, begin: float, end: float) -> str | None:
        """Why the device ran below its clock between two times, or None."""


class Cpu:
    """The processor: a call has returned when it is done, and the host's clock times it."""

    asynchronous = False

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self) -> None:
        pass

    def samples(self, call: Call, count: int) -> list[float]:
        found = []
        for _ in range(count):
            begin = time.perf_counter_ns()
            call()
            found.append((time.perf_counter_ns() - begin) / 1e6)
        return found

    def returns_ms(self, call: Call) -> float:
        return self.samples(call, 1)[0]

    def fits(self, nbytes: int) -> bool:
        return memory.fits(nbytes, torch.device("cpu"))

    def throttled(self, begin: float, end: float) -> str | None:
        return None  # CPUs report no throttle reasons; see `cpu.CpuWatch`


class Cuda:
    """A GPU: calls are queued, and events around each say how long the device took.

    Args:
        watch: the "file" of a `state.Sampler` and the clock "reference_mhz" under load; None if clocks are not watched.
    """

    asynchronous = True

    def __init__(self, device: torch.device, watch: dict[str, Any] | None = None) -> None:
        self._device, self._watch = device, watch

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self) -> None:
        torch.cuda.synchronize(self._device)

    def samples(self, call: Call, count: int) -> list[float]:
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for i, (begin, end) in enumerate(events):
            if i % IN_FLIGHT == 0:
                self.wait()
            begin.record()
            call()
            end.record()
        self.wait()
        return [begin.elapsed_time(end) for begin, end in events]

    def returns_ms(self, call: Call) -> float:
        self.wait()
        begin = time.perf_counter()
        call()
        passed = time.perf_counter() - begin
        self.wait()
        return passed * 1e3

    def fits(self, nbytes: int) -> bool:
        return memory.fits(nbytes, self._device)

    def throttled(self, begin: float, end: float) -> str | None:
        if self._watch is None:
            return None
        seen = state.window(Path(self._watch["file"]), begin, end)
        if not state.throttled(seen, self._watch["reference_mhz"]) or seen is None:
            return None
        return f"{', '.join(seen['throttle'] or []) or 'slow clock'}: {seen['sm_mhz_median']} MHz"


def device_for(device: torch.device, watch: dict[str, Any] | None) -> Device:
    """The clock of a torch device; `watch` as in `Cuda`."""
    return Cuda(device, watch) if device.type == "cuda" else Cpu()
