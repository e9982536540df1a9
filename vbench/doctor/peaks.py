"""Measures the peaks of a device, for rooflines and for predictions of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TIMED_S = 0.25  # for each figure; its best window counts, because other processes can only make it slower
WINDOWS_MIN = 3
WINDOW_S = {"cpu": 0.002, "cuda": 0.05}  # so short that the scheduler interrupts only some
SIDES = {"cpu": (512, 1024, 2048, 4096), "cuda": (2048, 4096, 8192)}  # of the square matrices
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**30}  # far larger than any cache
SLOWEST_S = 0.1  # a product that would take longer is not tried, except the smallest


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device", "dtype", "threads"} -> "gemm_flops_per_s", "operator_s", "copy_bytes_per_s", "busy".

    In this order: the best square matrix product in that dtype (1 MAC = 2 FLOPs, no TF32); the time of a small
    pointwise operator with its launch; bytes read plus bytes written by a copy; the values of `time.monotonic()` at
    begin and end.
    """
    import torch

    torch.set_num_threads(argument["threads"])
    torch.backends.cuda.matmul.allow_tf32 = False
    device, dtype = torch.device(argument["device"]), getattr(torch, argument["dtype"])
    begin = time.monotonic()
    with torch.inference_mode():
        yield "gemm_flops_per_s", _gemm_flops_per_s(device, dtype)
        small = torch.randn(6, 32, 64, device=device)
        yield "operator_s", _seconds(lambda: small * small, device)
        source = torch.zeros(COPIED_BYTES[device.type] // 4, device=device)
        target = torch.empty_like(source)
        yield "copy_bytes_per_s", 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)
    yield "busy", [begin, time.monotonic()]


def _gemm_flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    import torch

    best = 0.0
    for side in SIDES[device.type]:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        call_s = _seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device)  # type: ignore[misc]
        best = max(best, 2 * side**3 / call_s)
        if call_s > SLOWEST_S / 8:  # the next one has twice the side and eight times the work
            break
    return best


def _seconds(call: Callable[[], Any], device: torch.device) -> float:
    """Seconds a call, of many calls in a queue: the least of several windows, after a warm-up."""
    import torch

    def timed(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    timed(1)
    calls = max(1, min(1000, int(WINDOW_S[device.type] / timed(1))))
    windows: list[float] = []
    begin = time.perf_counter()
    while len(windows) < WINDOWS_MIN or time.perf_counter() - begin < TIMED_S:
        windows.append(timed(calls))
    return min(windows) / calls
