"""The jobs that measure a cell: one launch of it, alone or in turn with another process.

Each yields (part, value) pairs; `sweep.loop` makes records of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    from vbench.devices.base import Device


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "launch", "batch", "watch"} -> one launch of a cell, in these parts and this order:
    "settings", "memory", "warmup", "latency", "throughput", "state", "energy", "spent".

    "launch" is 0 for the cell's first. "batch" is the batch for throughput that an earlier launch or a search has
    settled on, or None. "watch" is None, or the "uuid" of the GPU, the "file" of what a sibling process writes of it,
    and the clock "reference_mhz" of earlier launches. "spent" says how many seconds went into measured passes, of
    these into throughput, and into warm-up.
    """
    from vbench.devices import process
    from vbench.meters import backend, cpu, energy, state, timing
    from vbench.meters.workload import workload

    case, protocol, watch = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["watch"]
    device = _prepared(case, protocol)

    with backend.Compilations(case.backend, protocol.threads) as compilations:
        # Whether memory grows is asked once, where the peak is the first call's and the other calls add nothing else.
        once = argument["launch"] > 0 and case.phase == "infer" and not device.pooled
        measured = workload(case, device, repeat_below_s=0.0 if once else protocol.warmup_max_s)
        yield "settings", measured.settings
        with spending() as on_memory:
            anatomy = measured.memory()
        compiled = {"compile_s": compilations.seconds, "compilations": compilations.count}
        yield "memory", anatomy | (compiled if case.backend == "compile" else {})
        process.keep_freed()
        call = measured.caller(measured.batch)
        warm = timing.warm_up(
            call, device, protocol, earlier_s=anatomy["pass_s"], compilations=lambda: compilations.count
        )
        yield "warmup", warm
        begin = time.monotonic()
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency(call, device, protocol, partial(state.why_slow, watch))
            parts = timing.parts(measured.parts(), device, protocol, median(latency["samples_ms"]))
            yield "latency", {"batch": measured.batch, **latency, **parts}
            searching = time.monotonic()
            throughput = timing.throughput(
                measured.caller,
                device,
                protocol,
                argument["batch"] or case.batch,
                first=(measured.batch, latency["samples_ms"]),
                image_bytes=(anatomy["input_bytes"] + anatomy["activation_bytes"]) // measured.batch,
            )
            search_s = time.monotonic() - searching
        yield "throughput", throughput
        gpu = state.window(Path(watch["file"]), begin, time.monotonic()) if watch else None
        yield "state", {**processors.seen, "gpu": gpu}
        with spending() as on_energy:
            counter = energy.counter_for(device)
            if isinstance(counter, str):
                joules = energy.measure(lambda _: 0, counter)
            else:
                call = measured.caller(throughput["batch"])
                joules = energy.measure(timing.work(call, device, throughput), counter, busy_s=protocol.energy_s)
        yield "energy", joules
    spent_s = sum(seconds for one in (on_memory, on_timing, on_energy) for seconds in one)
    yield "spent", {"measured_s": spent_s, "warmup_s": warm["wall_s"], "throughput_s": search_s}


def take_turns(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "socket", "first", "core"} -> one launch of a cell, whose calls alternate with another
    process's: "settings", "memory", "warmup", "latency", "state", "spent", as `measure` has them.

    Both ends have the same "protocol", "socket" and "core", and one is "first": it is warm before the other begins to
    build, has the first call and the last, and so one call more. As many processors as the protocol has threads, from
    "core" on, are all that either runs on, for one may have busier neighbours than another.
    """
    from vbench.devices import process
    from vbench.jobs.turns import Turns
    from vbench.meters import backend, cpu, timing
    from vbench.meters.workload import workload

    case, protocol, first = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["first"]
    device = _prepared(case, protocol)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(argument["core"] + i) % len(cores)] for i in range(protocol.threads)})
    with (
        Turns(Path(argument["socket"]), first=first) as turns,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        if not first:
            turns.wait()
        measured = workload(case, device, repeat_below_s=0.0)
        yield "settings", measured.settings
        with spending() as on_memory:
            anatomy = measured.memory()
        yield "memory", anatomy
        process.keep_freed()
        call = measured.caller(measured.batch)
        warm = timing.warm_up(
            call, device, protocol, earlier_s=anatomy["pass_s"], compilations=lambda: compilations.count
        )
        yield "warmup", warm
        turns.give()
        if first:
            turns.wait()
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency_in_turns(call, device, protocol, turns, first=first)
        yield "latency", {"batch": measured.batch, **latency}
    yield "state", {**processors.seen, "gpu": None}
    yield "spent", {"measured_s": on_memory[0] + on_timing[0], "warmup_s": warm["wall_s"]}


def _prepared(case: Case, protocol: Protocol) -> Device:
    """The device of a cell, with torch set up as the protocol says."""
    import torch

    from vbench.devices import open_device

    device = open_device(case.device)
    torch.set_num_threads(protocol.threads)
    device.select(tf32=protocol.tf32)
    torch.manual_seed(protocol.seed)
    if case.backend == "compile":
        device.check_compiler()
    return device


@contextmanager
def spending() -> Iterator[list[float]]:
    """A list that holds, after leaving, the seconds since entering."""
    spent: list[float] = []
    begin = time.monotonic()
    yield spent
    spent.append(time.monotonic() - begin)
