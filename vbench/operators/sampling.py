"""How one call of an operator is timed: repeated, as a CUDA graph, with caches warm or cold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from vbench.meters.device import Call, Device

REPEATED_MS = 0.5  # CUDA calls are repeated to at least this, so that a launch's own time does not count
REPEATS = 50
FLUSHED_BYTES = 2**28  # written between cold calls; larger than any cache of the last level
Backend = Literal["eager", "cudagraph"]
Cache = Literal["warm", "cold"]


def taker(
    call: Call, about_ms: float, backend: Backend, cache: Cache, where: str, device: Device
) -> Callable[[], float]:
    """What takes one sample: the milliseconds of one call, warm among its like or cold and alone."""
    if not device.asynchronous:
        flush = _flusher(where) if cache == "cold" else None

        def one() -> float:
            if flush:
                flush()
            return device.samples(call, 1)[0]

        return one
    repeats = 1 if cache == "cold" else max(1, min(REPEATS, math.ceil(REPEATED_MS / about_ms)))
    queued = _repeated(call, repeats)
    if backend == "cudagraph":
        queued = _captured(queued)
    if cache == "warm":
        return lambda: device.samples(queued, 1)[0] / repeats
    return _cold(queued, _flusher(where))


def _repeated(call: Call, repeats: int) -> Call:
    def calls() -> None:
        for _ in range(repeats):
            call()

    return calls


def _captured(call: Call) -> Call:
    """A CUDA graph's replay; memory that the calls take stays theirs."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def _flusher(device: str) -> Call:
    """Writes so much that no input is left in a cache; it also keeps a GPU busy until the timed call is queued."""
    import torch

    buffer = torch.empty(FLUSHED_BYTES // 4, device=device)
    return lambda: buffer.fill_(1.0)


def _cold(call: Call, flush: Call) -> Callable[[], float]:
    """One call right behind a flush: events are queued while that still runs, so that the host's time is not in it."""
    import torch

    def one() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush()
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end))

    return one
