"""Does the timer tell the truth here, and how far apart are two measurements of the same thing?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from vbench import jobs
from vbench.devices import kind_of, open_device
from vbench.jobs.launch import Launcher
from vbench.plan import RIGORS, Case, Protocol, Sweep, plan

ASLEEP_S = 0.005
SLEEPS = 40
EMPTY_CALLS = 2000
CALLS = (10, 20, 40, 80)
ROUNDS = 50
LONG = 1000  # units of work: about a tenth of a second of a GPU
LAUNCHES = 5
LAUNCH_LIMIT_S = 120.0


def timer(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"device"} -> "sleep", "empty_call_us", "linear", on a GPU "events": the clock against what is known.

    "sleep": {"asked_ms", "shortest_ms", "median_ms"} of a sleep of known length. "empty_call_us": what timing
    nothing costs. "linear": {"calls", "ms", "worst"}: how long k equal calls took, and the largest relative
    distance of those times from a straight line through zero. "events": {"host_ms", "device_ms"} of one long
    piece of work, by the host's clock and by the device's.
    """
    import torch

    torch.set_num_threads(1)
    device = open_device(argument["device"])
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


def linear(time_ms: Callable[[int], float]) -> dict[str, Any]:
    """Whether k calls take k times one call, `time_ms(k)` being the time of k: {"calls", "ms", "worst"}."""
    time_ms(CALLS[0])
    rounds = [[time_ms(calls) for calls in CALLS] for _ in range(ROUNDS)]
    best = [min(times) for times in zip(*rounds, strict=True)]  # whatever others do only adds
    one_ms = sum(calls * ms for calls, ms in zip(CALLS, best, strict=True)) / sum(calls**2 for calls in CALLS)
    worst = max(abs(ms / (one_ms * calls) - 1) for calls, ms in zip(CALLS, best, strict=True))
    return {"calls": list(CALLS), "ms": best, "worst": worst}


def _host_ms(call: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1e6


def noise(launcher: Launcher, device: str, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure one small cell in fresh processes, and say by how much equal measurements differ.

    Args:
        device: "cpu" or "cuda:0".
        tell: is told of each launch.

    Returns: `cell`, what was measured; `launches`, how many ended well, and `reason` of the first that did not;
        `latency_ms`, `throughput_img_s`, `peak_memory_bytes`, each as `spread` describes, or None.
    """
    side = kind_of(device).noise_px
    case = plan(Sweep(("deit_t",), ((side, side),), ("parallel",), (1,), device=device))[0]
    protocol = RIGORS["quick"]
    found: dict[str, list[float]] = {"latency_ms": [], "throughput_img_s": [], "peak_memory_bytes": []}
    reason = None
    for launch in range(1, LAUNCHES + 1):
        tell(f"the same cell again, {launch} of {LAUNCHES}")
        parts, ended = _launch(launcher, case, protocol)
        if parts is None:
            reason = reason or ended
            continue
        found["latency_ms"].append(median(parts["latency"]["samples_ms"]))
        found["throughput_img_s"].append(parts["throughput"]["images_per_s"])
        found["peak_memory_bytes"].append(parts["memory"]["peak_bytes"])
    return {
        "cell": str(case),
        "launches": len(found["latency_ms"]),
        "reason": reason,
        **{metric: spread(values) for metric, values in found.items()},
    }


def _launch(launcher: Launcher, case: Case, protocol: Protocol) -> tuple[dict[str, Any] | None, str | None]:
    ending = launcher.run(*jobs.measure(case, protocol), LAUNCH_LIMIT_S)
    return (ending.parts, None) if ending.status == "ok" else (None, f"{ending.status}, {ending.reason}")


def spread(values: list[float]) -> dict[str, Any] | None:
    """How far apart equal measurements lie, as shares of their median; None for fewer than two.

    Returns: `values`; `range`, largest less smallest; `sd`, 1.4826 times the median distance from the median.
    """
    if len(values) < 2:
        return None
    middle = median(values)
    distance = median(abs(value - middle) for value in values)
    return {"values": values, "range": (max(values) - min(values)) / middle, "sd": 1.4826 * distance / middle}
