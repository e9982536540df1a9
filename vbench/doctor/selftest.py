"""Tests the timer, and measures how far apart measurements of the same thing are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from vbench import jobs
from vbench.devices import kind_of, open_device
from vbench.devices.base import Device
from vbench.jobs.launch import Launcher
from vbench.plan import RIGORS, Sweep, plan

ASLEEP_S = 0.005
SLEEPS = 40
EMPTY_CALLS = 2000
CALLS = (10, 20, 40, 80)
ROUNDS = 50
LONG = 1000  # units of work: about a tenth of a second of a GPU
LAUNCHES = 5
LAUNCH_LIMIT_S = 120.0


def timer(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device"} -> "energy", then the clock against known times: "sleep", "empty_call_us", "linear"; on a GPU
    also "events".

    "energy": {"counter"}, what counts the device's energy, or {"reason"}.
    "sleep": {"asked_ms", "shortest_ms", "median_ms"} of a sleep of known length. "empty_call_us": the time of an empty
    call. "linear": as `linear` returns it. "events": {"host_ms", "device_ms"}, the time of one long piece of work by
    the clocks of the host and of the device.
    """
    import torch

    torch.set_num_threads(1)
    device = open_device(argument["device"])
    yield "energy", _energy(device)
    slept = [_host_ms(lambda: time.sleep(ASLEEP_S)) for _ in range(SLEEPS)]
    yield "sleep", {"asked_ms": ASLEEP_S * 1e3, "shortest_ms": min(slept), "median_ms": median(slept)}
    yield "empty_call_us", median(_host_ms(lambda: None) for _ in range(EMPTY_CALLS)) * 1e3
    device.select()
    work = device.worker()

    def equal_calls(calls: int) -> None:
        for _ in range(calls):
            work(1)

    yield "linear", linear(lambda calls: device.samples(lambda: equal_calls(calls), 1)[0])
    if device.asynchronous:
        device.samples(lambda: work(LONG), 1)
        found: list[float] = []
        host_ms = _host_ms(lambda: found.extend(device.samples(lambda: work(LONG), 1)))
        yield "events", {"host_ms": host_ms, "device_ms": found[0]}


def _energy(device: Device) -> dict[str, str]:
    try:
        return {"counter": device.energy_counter().name}
    except OSError as error:
        return {"reason": str(error)}


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


def noise(launcher: Launcher, device: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure one small cell several times in fresh processes: by how much do equal measurements differ?

    Args:
        device: "cpu" or "cuda:0".
        tell: is told of each launch.

    Returns: `cell`, the name of the cell; `launches`, how many ended ok; `reason`, why the first one failed, or None;
        `latency_ms`, `throughput_img_s`, `peak_memory_bytes`, each as `spread` returns it.
    """
    side = kind_of(device).noise_px
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
