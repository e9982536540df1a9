"""Tests the timer, and measures how far apart measurements of the same thing are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from vbench import jobs
from vbench.jobs.launch import Launcher
from vbench.plan import RIGORS, Sweep, plan

ASLEEP_S = 0.005
SLEEPS = 40
EMPTY_CALLS = 2000
CALLS = (10, 20, 40, 80)
ROUNDS = 50
DEVICE_CYCLES = 200_000_000  # about a tenth of a second of a GPU
LAUNCHES = 5
SIDE = {"cpu": 96, "cuda": 224}  # px; small, because only the scatter matters
LAUNCH_LIMIT_S = 120.0


def timer(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device"} -> "sleep", "empty_call_us", "linear", and on CUDA "events": the clock against known times.

    "sleep": {"asked_ms", "shortest_ms", "median_ms"} of a sleep of known length. "empty_call_us": the time of an empty
    call. "linear": as `linear` returns it. "events": {"host_ms", "device_ms"}, the time of one long piece of work by
    the clocks of the host and of the device.
    """
    import torch

    torch.set_num_threads(1)
    device = torch.device(argument["device"])
    slept = [_host_ms(lambda: time.sleep(ASLEEP_S)) for _ in range(SLEEPS)]
    yield "sleep", {"asked_ms": ASLEEP_S * 1e3, "shortest_ms": min(slept), "median_ms": median(slept)}
    yield "empty_call_us", median(_host_ms(lambda: None) for _ in range(EMPTY_CALLS)) * 1e3
    if device.type == "cuda":
        torch.cuda.set_device(device)
        yield "linear", linear(lambda calls: _device_ms(lambda: _spin(DEVICE_CYCLES // 1000, calls)))
        _device_ms(lambda: _spin(DEVICE_CYCLES, 1))
        device_ms: list[float] = []
        host_ms = _host_ms(lambda: device_ms.append(_device_ms(lambda: _spin(DEVICE_CYCLES, 1))))
        yield "events", {"host_ms": host_ms, "device_ms": device_ms[0]}
        return
    matrix = torch.full((64, 64), 1 / 64)  # so small that the scheduler interrupts few rounds
    product = torch.empty_like(matrix)  # an allocation would take an unknown time

    def multiply(calls: int) -> None:
        for _ in range(calls):
            torch.mm(matrix, matrix, out=product)

    yield "linear", linear(lambda calls: _host_ms(lambda: multiply(calls)))


def linear(time_ms: Callable[[int], float]) -> dict[str, Any]:
    """Whether k calls take k times as long as one: {"calls", "ms", "worst"}.

    `time_ms(k)` is the time of k calls. "worst" is the largest relative distance from a straight line through zero.
    """
    time_ms(CALLS[0])
    rounds = [[time_ms(calls) for calls in CALLS] for _ in range(ROUNDS)]
    best = [min(times) for times in zip(*rounds, strict=True)]  # other processes can only add time
    one_ms = sum(calls * ms for calls, ms in zip(CALLS, best, strict=True)) / sum(calls**2 for calls in CALLS)
    worst = max(abs(ms / (one_ms * calls) - 1) for calls, ms in zip(CALLS, best, strict=True))
    return {"calls": list(CALLS), "ms": best, "worst": worst}


def _host_ms(call: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e6


def _device_ms(call: Callable[[], Any]) -> float:
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def _spin(cycles: int, times: int) -> None:
    """Keep the device busy for `times` times that many of its cycles."""
    import torch

    for _ in range(times):
        torch.cuda._sleep(cycles)


def noise(launcher: Launcher, device: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure one small cell several times in fresh processes: by how much do equal measurements differ?

    Args:
        device: "cpu" or "cuda:N".
        tell: is told of each launch.

    Returns: `cell`, the name of the cell; `launches`, how many ended ok; `reason`, why the first one failed, or None;
        `latency_ms`, `throughput_img_s`, `peak_memory_bytes`, each as `spread` returns it.
    """
    side = SIDE[device.partition(":")[0]]
    case = plan(Sweep(("deit_t",), ((side, side),), ("parallel",), (1,), device=device))[0]
    values: dict[str, list[float]] = {"latency_ms": [], "throughput_img_s": [], "peak_memory_bytes": []}
    reason = None
    for launch in range(1, LAUNCHES + 1):
        tell(f"the same cell again, {launch} of {LAUNCHES}")
        ending = launcher.run(*jobs.measure(case, RIGORS["quick"]), LAUNCH_LIMIT_S)
        if ending.status != "ok":
            reason = reason or f"{ending.status}, {ending.reason}"
            continue
        values["latency_ms"].append(median(ending.parts["latency"]["samples_ms"]))
        values["throughput_img_s"].append(ending.parts["throughput"]["images_per_s"])
        values["peak_memory_bytes"].append(ending.parts["memory"]["peak_bytes"])
    spreads = {metric: spread(each) for metric, each in values.items()}
    return {"cell": str(case), "launches": len(values["latency_ms"]), "reason": reason, **spreads}


def spread(values: list[float]) -> dict[str, Any] | None:
    """How far apart equal measurements are; None for fewer than two.

    Returns: `values`; `range`, largest less smallest, and `sd`, 1.4826 times the median distance from the median, both
        as shares of the median.
    """
    if len(values) < 2:
        return None
    middle = median(values)
    distance = median(abs(value - middle) for value in values)
    return {"values": values, "range": (max(values) - min(values)) / middle, "sd": 1.4826 * distance / middle}
