"""How one call of an operator is timed: repeated, as a CUDA graph, with caches warm or cold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vbench.devices.base import Call, Device

REPEATED_MS = 0.5  # queued calls are repeated to at least this, so that a launch's own time does not count
REPEATS = 50
FLUSHED_BYTES = 2**28  # written between cold calls; larger than any cache of the last level
Backend = Literal["eager", "cudagraph"]
Cache = Literal["warm", "cold"]


def taker(call: Call, about_ms: float, backend: Backend, cache: Cache, device: Device) -> Callable[[], float]:
    """What takes one sample: the milliseconds of one call, warm among its like or cold and alone."""
    alone = cache == "cold" or not device.asynchronous
    repeats = 1 if alone else max(1, min(REPEATS, math.ceil(REPEATED_MS / about_ms)))
    queued = call if repeats == 1 else _repeated(call, repeats)
    if backend == "cudagraph":
        queued = device.captured(queued)
    if cache == "warm":
        return lambda: device.samples(queued, 1)[0] / repeats
    flush = _flusher(device.name)
    return lambda: device.sample_after(flush, queued)


def _repeated(call: Call, repeats: int) -> Call:
    def calls() -> None:
        for _ in range(repeats):
            call()

    return calls


def _flusher(device: str) -> Call:
    """Writes so much that no input is left in a cache; it also keeps a GPU busy until the timed call is queued."""
    import torch

    buffer = torch.empty(FLUSHED_BYTES // 4, device=device)
    return lambda: buffer.fill_(1.0)
