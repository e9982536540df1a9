"""How one call of an operator is timed: repeated, as a CUDA graph, with caches warm or cold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vbench.devices.base import Call, Device

REPEATED_MS = 0.5  # queued calls are repeated to at least this, so that a launch's own time does not count
REPEATS = 200
TRIES = 3  # of a graph of one call, whose shortest time says how often the call is repeated
FLUSHED_BYTES = 2**28  # written between cold calls; larger than any cache of the last level
Backend = Literal["eager", "cudagraph"]
Cache = Literal["warm", "cold"]


def taker(call: Call, about_ms: float, backend: Backend, cache: Cache, device: Device) -> Callable[[], float]:
    """What takes one sample: the milliseconds of one call, warm among its like or cold and alone.

    Args:
        about_ms: of one eager call, with the host's part. A graph's own time is found here, for it has no such part.

    Cold calls and graphs are queued while the device is kept busy, so that the host's time does not count. Warm eager
    calls follow one another as in a program: where the host is slower than the device, its time is what they take.
    """
    graph = backend == "cudagraph"
    queued = device.captured(call) if graph else call
    if cache == "cold":
        return _behind(_flusher(device.name), queued, device)
    if not device.asynchronous:
        return lambda: device.samples(queued, 1)[0]
    if graph:
        alone = _behind(_nothing, queued, device)
        about_ms = min(alone() for _ in range(TRIES))
    repeats = max(1, min(REPEATS, math.ceil(REPEATED_MS / max(about_ms, 1e-6))))
    if repeats > 1:
        queued = device.captured(_repeated(call, repeats)) if graph else _repeated(call, repeats)
    take = _behind(_nothing, queued, device) if graph else lambda: device.samples(queued, 1)[0]
    return lambda: take() / repeats


def _behind(earlier: Call, call: Call, device: Device) -> Callable[[], float]:
    """Takes the device's time for a call that is queued behind another one and behind the host's own time for it."""
    host_ms = device.returns_ms(call)
    return lambda: device.sample_after(earlier, call, host_ms)


def _nothing() -> None:
    pass


def _repeated(call: Call, repeats: int) -> Call:
    def calls() -> None:
        for _ in range(repeats):
            call()

    return calls


def _flusher(device: str) -> Call:
    """Writes so much that no input is left in a cache."""
    import torch

    buffer = torch.empty(FLUSHED_BYTES // 4, device=device)
    return lambda: buffer.fill_(1.0)
