"""Latency of single calls and throughput of batches. Milliseconds, images a second; every sample is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from vbench import memory
from vbench.plan import Batch, Protocol

IN_FLIGHT = 64  # CUDA launches queued before the host waits


def latency(
    call: Callable[[], Any], device: torch.device, protocol: Protocol, *, pass_s: float = 0.0
) -> dict[str, Any]:
    """Time single calls, warm.

    Args:
        call: one pass at batch 1.
        pass_s: what an earlier pass in this process took, if there was one.

    Returns: `samples_ms`, one a call, in order; `warmup_calls`; `stop`, why sampling ended; on the CPU
        `cpu_share`, processor time over wall time. On CUDA a sample is the device's time between two events
        around the call, with at most `IN_FLIGHT` calls queued.
    """
    sample = _cuda_samples if device.type == "cuda" else _cpu_samples
    begin = time.perf_counter()
    warmup, step = 0, 1
    while pass_s < protocol.slow_s and (warmup == 0 or time.perf_counter() - begin < protocol.warmup_s):
        last_ms = sample(call, step)[-1]
        warmup += step
        step = max(1, min(16, int(100 / last_ms))) if device.type == "cuda" else 1

    samples: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    while (stop := _enough(len(samples), time.perf_counter() - begin, protocol)) is None:
        samples += sample(call, step)
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    found = {"batch": 1, "samples_ms": samples, "warmup_calls": warmup, "stop": stop, "wall_s": wall}
    return found if device.type == "cuda" else {**found, "cpu_share": cpu / wall / protocol.threads}


def _enough(samples: int, elapsed_s: float, protocol: Protocol) -> str | None:
    """Why to stop sampling, or None to go on."""
    if samples >= protocol.samples_max:
        return f"{protocol.samples_max} samples"
    if samples >= protocol.samples_min and elapsed_s >= protocol.sample_s:
        return f"{protocol.sample_s:g} s and {protocol.samples_min} samples"
    for least, limit in ((3, protocol.slow_s), (2, 2 * protocol.slow_s)):
        if samples >= least and elapsed_s >= limit:
            return f"slow: {limit:g} s passed with {least} samples"
    return None


def _cpu_samples(call: Callable[[], Any], count: int) -> list[float]:
    samples = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        call()
        samples.append((time.perf_counter_ns() - begin) / 1e6)
    return samples


def _cuda_samples(call: Callable[[], Any], count: int) -> list[float]:
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
    for i, (begin, end) in enumerate(events):
        if i % IN_FLIGHT == 0:
            torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def throughput(
    caller: Callable[[int], Callable[[], Any]],
    device: torch.device,
    protocol: Protocol,
    batch: Batch,
    *,
    first_ms: Sequence[float],
    image_bytes: int,
) -> dict[str, Any]:
    """Images a second, queued, at a batch of that size; "auto" doubles it until the gain is small.

    Args:
        caller: makes the call for a batch size; only one lives at a time.
        first_ms: the samples of `latency`, which foretell what a larger batch costs.
        image_bytes: what one image needs beside the weights; a batch that would not fit is not tried.

    Returns: `batch`, `images_per_s`, `curve` (each batch tried), and `stop`, why the search ended.
    Raises: an out-of-memory error at a fixed batch; under "auto" it ends the search.
    """
    if batch != "auto":
        curve = [_queued(caller(batch), batch, device, protocol)]
        return {**curve[0], "policy": "fixed", "curve": curve, "stop": "fixed batch"}
    if device.type == "cpu" or 2 * median(first_ms) / 1e3 > protocol.throughput_s:
        # A call on the CPU returns when it is done: single calls are back to back already.
        best = {"batch": 1, "images_per_s": len(first_ms) * 1e3 / sum(first_ms), "calls": len(first_ms)}
    else:
        best = _queued(caller(1), 1, device, protocol)
    curve = [best]
    stop = f"largest batch tried, {protocol.batch_max}"
    size = 2
    while size <= protocol.batch_max:
        if 2 * size / best["images_per_s"] > protocol.throughput_s:
            stop = f"two calls at batch {size} would take longer than {protocol.throughput_s:g} s"
            break
        if not memory.fits(image_bytes * size, device):
            stop = f"batch {size} would not fit in memory"
            break
        try:
            point = _queued(caller(size), size, device, protocol)
        except Exception as error:
            if not memory.is_oom(error):
                raise
            stop = f"out of memory at batch {size}"
            break
        curve.append(point)
        gain = point["images_per_s"] / best["images_per_s"] - 1
        if gain < protocol.batch_gain:
            stop = f"batch {size} gains {gain:+.1%}, less than {protocol.batch_gain:.0%}"
            break
        best = point
        size *= 2
    return {**best, "policy": "auto", "curve": curve, "stop": stop}


def _queued(call: Callable[[], Any], batch: int, device: torch.device, protocol: Protocol) -> dict[str, Any]:
    """Calls back to back for about `sample_s` after one warm-up call; the clock is read at the ends."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    wait()
    begin = time.perf_counter()
    calls = 0
    while calls == 0 or time.perf_counter() - begin < protocol.sample_s / 4:
        call()
        calls += 1
        if calls % IN_FLIGHT == 0:
            wait()
    wait()
    return {"batch": batch, "images_per_s": calls * batch / (time.perf_counter() - begin), "calls": calls}
