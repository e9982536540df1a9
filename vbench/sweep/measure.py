"""The jobs that measure a cell: one launch of it, alone or in turn with another process.

Each yields (part, value) pairs; `sweep.loop` makes records of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    import torch

    from vbench.meters.device import Device


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "launch", "batch", "watch"} -> one launch of a cell, in these parts and this order:
    "settings", "memory", "warmup", "latency", "throughput", "state", "energy", "spent".

    "launch" is 0 for the cell's first. "batch" is the batch for throughput that an earlier launch or a search has
    settled on, or None. "watch" is None, or the "uuid" of the GPU, the "file" of what a sibling process writes of it,
    and the clock "reference_mhz" of earlier launches. "spent" says how many seconds went into measured passes, of
    these into throughput, and into warm-up.
    """
    from vbench.meters import backend, cpu, energy, memory, state, timing
    from vbench.meters.subject import subject

    case, protocol, seen = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["watch"]
    where, device = _prepared(case, protocol, seen)

    with backend.Compilations(case.backend, protocol.threads) as compilations:
        # Whether memory grows is asked once, where the peak is the first call's and the other calls add nothing else.
        once = argument["launch"] > 0 and case.phase == "infer" and where.type == "cpu"
        measured = subject(case, where, repeat_below_s=0.0 if once else protocol.warmup_max_s)
        yield "settings", measured.settings
        with spending() as on_memory:
            anatomy = measured.memory()
        compiled = {"compile_s": compilations.seconds, "compilations": compilations.count}
        yield "memory", anatomy | (compiled if case.backend == "compile" else {})
        memory.keep_freed()
        call = measured.caller(measured.batch)
        warm = timing.warm_up(
            call, device, protocol, earlier_s=anatomy["pass_s"], compilations=lambda: compilations.count
        )
        yield "warmup", warm
        begin = time.monotonic()
        with cpu.CpuWatch(protocol.threads) as watch, spending() as on_timing:
            latency = timing.latency(call, device, protocol)
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
        gpu = state.window(Path(seen["file"]), begin, time.monotonic()) if seen else None
        yield "state", {**watch.found, "gpu": gpu}
        with spending() as on_energy:
            counter = energy.counter_for(case.device, uuid=seen["uuid"] if seen else None)
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
    from vbench.jobs.turn_socket import TurnSocket
    from vbench.meters import backend, cpu, memory, timing
    from vbench.meters.subject import subject

    case, protocol, first = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["first"]
    where, device = _prepared(case, protocol, None)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(argument["core"] + i) % len(cores)] for i in range(protocol.threads)})
    with (
        TurnSocket(Path(argument["socket"]), first=first) as turn_socket,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        if not first:
            turn_socket.wait()
        measured = subject(case, where, repeat_below_s=0.0)
        yield "settings", measured.settings
        with spending() as on_memory:
            anatomy = measured.memory()
        yield "memory", anatomy
        memory.keep_freed()
        call = measured.caller(measured.batch)
        warm = timing.warm_up(
            call, device, protocol, earlier_s=anatomy["pass_s"], compilations=lambda: compilations.count
        )
        yield "warmup", warm
        turn_socket.give()
        if first:
            turn_socket.wait()
        with cpu.CpuWatch(protocol.threads) as watch, spending() as on_timing:
            latency = timing.in_turn(call, device, protocol, turn_socket, first=first)
        yield "latency", {"batch": measured.batch, **latency}
    yield "state", {**watch.found, "gpu": None}
    yield "spent", {"measured_s": on_memory[0] + on_timing[0], "warmup_s": warm["wall_s"]}


def _prepared(case: Case, protocol: Protocol, watch: dict[str, Any] | None) -> tuple[torch.device, Device]:
    """torch set up as the protocol says: where a cell is measured, and what times it."""
    import torch

    from vbench.meters import backend
    from vbench.meters.device import device_for

    where = torch.device(case.device)
    torch.set_num_threads(protocol.threads)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = protocol.tf32
    torch.manual_seed(protocol.seed)
    backend.check(case.backend, where)
    return where, device_for(where, watch)


@contextmanager
def spending() -> Iterator[list[float]]:
    """A list that holds, after leaving, the seconds since entering."""
    found: list[float] = []
    begin = time.monotonic()
    yield found
    found.append(time.monotonic() - begin)
