"""Measures the peaks of a device, for rooflines and for predictions of time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from vbench.devices import kind_of, open_device

if TYPE_CHECKING:
    import torch

    from vbench.devices.base import Device

TIMED_S = 0.25  # for each figure; its best window counts, because other processes can only make it slower
BRIEF_S = 0.1  # likewise, for a roof
CACHED_BYTES = (2**18, 2**22, 2**25)  # of copies that may fit into a cache
WINDOWS_MIN = 3
SLOWEST_S = 0.1  # a product that would take longer is not tried, except the smallest


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device", "dtype", "threads"} -> "gemm_flops_per_s", "operator_s", "copy_bytes_per_s", "busy".

    In this order: the best square matrix product in that dtype (1 MAC = 2 FLOPs, no TF32); the time of a small
    pointwise operator with its launch; bytes read plus bytes written by a copy; the values of `time.monotonic()` at
    begin and end.
    """
    import torch

    torch.set_num_threads(argument["threads"])
    device, dtype = open_device(argument["device"]), getattr(torch, argument["dtype"])
    device.select()
    begin = time.monotonic()
    with torch.inference_mode():
        yield "gemm_flops_per_s", _gemm_flops_per_s(device, dtype)
        small = torch.randn(6, 32, 64, device=device.name)
        yield "operator_s", _seconds(lambda: small * small, device)
        source = torch.zeros(kind_of(device.name).peak_copied_bytes // 4, device=device.name)
        target = torch.empty_like(source)
        yield "copy_bytes_per_s", 2 * source.nbytes / _seconds(lambda: target.copy_(source), device)
    yield "busy", [begin, time.monotonic()]


def roof(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device", "dtypes", "threads", "tf32"} -> "flops_per_s", "bytes_per_s", "copy_bytes_per_s".

    What no honest call can exceed, in about a second. In this order: the best rate in any of the dtypes of a matrix
    product or a 3 × 3 convolution, which may take fewer multiplications than are counted; the best rate of a copy of
    any size, from one that fits into a cache of a core; the rate of a copy that fits into no cache. 1 MAC = 2 FLOPs;
    bytes are those read plus those written.
    """
    import torch

    torch.set_num_threads(argument["threads"])
    device, dtypes = open_device(argument["device"]), [getattr(torch, name) for name in argument["dtypes"]]
    device.select(tf32=argument["tf32"])
    with torch.inference_mode():
        products = [_gemm_flops_per_s(device, dtype, BRIEF_S) for dtype in dtypes]
        convolutions = [_convolution_flops_per_s(device, dtype) for dtype in dtypes]
        yield "flops_per_s", max(products + convolutions)
        copies = [
            _copy_bytes_per_s(device, size) for size in (*CACHED_BYTES, kind_of(device.name).peak_copied_bytes // 2)
        ]
        yield "bytes_per_s", max(copies)
        yield "copy_bytes_per_s", copies[-1]


def _copy_bytes_per_s(device: Device, nbytes: int) -> float:
    import torch

    source = torch.zeros(nbytes // 4, device=device.name)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / _seconds(lambda: target.copy_(source), device, BRIEF_S)


def _convolution_flops_per_s(device: Device, dtype: torch.dtype) -> float:
    import torch

    channels, side, best = 64, 56, 0.0
    weight = torch.randn(channels, channels, 3, 3, device=device.name).to(dtype)
    for batch in (1, 16, 256):
        image = torch.randn(batch, channels, side, side, device=device.name).to(dtype)
        call_s = _seconds(lambda image=image: torch.conv2d(image, weight, padding=1), device, BRIEF_S)  # type: ignore[misc]
        best = max(best, 2 * 9 * channels**2 * side**2 * batch / call_s)
        if call_s > SLOWEST_S / 100:
            break
    return best


def _gemm_flops_per_s(device: Device, dtype: torch.dtype, timed_s: float = TIMED_S) -> float:
    import torch

    best = 0.0
    for side in kind_of(device.name).peak_sides:
        a, b = (torch.randn(side, side, device=device.name).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        call_s = _seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, timed_s)  # type: ignore[misc]
        best = max(best, 2 * side**3 / call_s)
        if call_s > SLOWEST_S / 8:  # the next one has twice the side and eight times the work
            break
    return best


def _seconds(call: Callable[[], Any], device: Device, timed_s: float = TIMED_S) -> float:
    """Seconds a call, of many calls in a queue: the least of several windows, after a warm-up."""

    def timed(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        device.wait()
        return time.perf_counter() - begin

    timed(1)
    calls = max(1, min(1000, int(kind_of(device.name).peak_window_s / timed(1))))
    windows: list[float] = []
    begin = time.perf_counter()
    while len(windows) < WINDOWS_MIN or time.perf_counter() - begin < timed_s:
        windows.append(timed(calls))
    return min(windows) / calls
