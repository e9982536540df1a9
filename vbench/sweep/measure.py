"""The jobs that measure a cell: one launch of it, alone or in turn with another process.

Each yields (part, value) pairs; `sweep.loop` makes records of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    from vbench.devices.base import Call, Device
    from vbench.meters.backend import Compilations
    from vbench.meters.workload import Workload


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "launch", "batch", "watch"} -> one launch of a cell, in these parts and this order:
    "settings", "memory", "warmup", "latency", "throughput", "state", "spent", "outputs", "energy".

    "launch" is 0 for the cell's first. "batch" is the batch for throughput, found by an earlier launch or a search,
    or None. "watch" is None for a device that nothing watches; else it has the "uuid" of the GPU, the "file" of its
    samples, and the clock "reference_mhz" of earlier launches. "spent" says how many seconds went into measured passes,
    how many of these into throughput, and how many into warm-up. "outputs" says whether the timed calls of latency
    returned what they should (`verify.timed.check`); the first launch compares them with a reference. At the end of a
    first launch "settings" comes again,
    with the kernel that computes attention; the call that tells it is not timed. Energy has its own time, "wall_s": it
    comes last, so that it costs no cell its other figures.
    """
    from vbench.meters import attention, backend, cpu, energy, outputs, state, timing
    from vbench.meters.workload import workload
    from vbench.verify import timed

    case, protocol, watch = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["watch"]
    device = _prepared(case, protocol)

    with attention.pinned(case.attention), backend.Compilations(case.backend, protocol.threads) as compilations:
        # If the peak is the first call's, more calls only show whether memory grows: one launch is enough for that.
        once = argument["launch"] > 0 and case.phase == "infer" and not device.pooled
        measured = workload(case, device, compilations, repeat_below_s=0.0 if once else protocol.warmup_max_s)
        call, anatomy, spent = yield from _warmed_up(measured, device, protocol, compilations)
        begin = time.monotonic()
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency(call, device, protocol, partial(state.why_slow, watch))
            parts = timing.parts(measured.parts(), device, protocol, median(latency["samples_ms"]))
            yield "latency", {"batch": measured.batch, **latency, **parts}
            seen = outputs.seen(call)
            del call  # with its recorded graph or its optimiser, before there is another
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
        spent["measured_s"] += on_timing[0]
        yield "spent", {**spent, "throughput_s": search_s}
        why_not = "a call takes too long for a reference" if anatomy["pass_s"] >= protocol.warmup_max_s else ""
        why_not = why_not or ("the first launch has the reference" if argument["launch"] else "")
        twin = None if why_not or case.phase == "train" else measured.twin
        yield "outputs", timed.check(seen, case.dtype, twin, tf32=bool(device.tf32()), why_not=why_not)
        if case.attention and argument["launch"] == 0:

            def captured_and_called() -> None:  # a graph shows its kernels of attention while it is captured
                measured.caller(measured.batch)()

            one_s = median(latency["samples_ms"]) / 1e3
            kernel = attention.found(captured_and_called, expected_s=one_s, limit_s=protocol.warmup_max_s)
            attention.check(case, kernel)
            yield "settings", measured.settings | kernel
        with spending() as on_energy:
            counter = energy.counter_for(device) if protocol.energy_s else energy.NOT_ASKED
            if isinstance(counter, str):
                joules = energy.measure(lambda _: 0, counter)
            else:
                call = measured.caller(throughput["batch"])
                joules = energy.measure(timing.work(call, device, throughput), counter, busy_s=protocol.energy_s)
        yield "energy", {**joules, "wall_s": on_energy[0]}


def take_turns(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "socket", "first", "core"} -> one launch of a cell, whose calls alternate with another
    process's: "settings", "memory", "warmup", "latency", "state", "spent", "outputs", as `measure` has them.

    Both processes have the same "protocol", "socket" and "core", and one is "first". It is warm before the other begins
    to build, and it makes the first call and the last, one call more than the other. Both run on the same processors,
    because one processor may have busier neighbours than another: from "core" on, as many as the protocol has threads.
    """
    from vbench.jobs.turn_socket import TurnSocket
    from vbench.meters import attention, backend, cpu, outputs, timing
    from vbench.meters.workload import workload
    from vbench.verify import timed

    case, protocol, first = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["first"]
    device = _prepared(case, protocol)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(argument["core"] + i) % len(cores)] for i in range(protocol.threads)})
    with (
        attention.pinned(case.attention),
        TurnSocket(Path(argument["socket"]), first=first) as turn_socket,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        if not first:
            turn_socket.wait()
        measured = workload(case, device, compilations, repeat_below_s=0.0)
        call, _, spent = yield from _warmed_up(measured, device, protocol, compilations)
        turn_socket.give()
        if first:
            turn_socket.wait()
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency_in_turns(call, device, protocol, turn_socket, first=first)
        yield "latency", {"batch": measured.batch, **latency}
    yield "state", {**processors.seen, "gpu": None}
    spent["measured_s"] += on_timing[0]
    yield "spent", spent
    yield "outputs", timed.check(outputs.seen(call), case.dtype, None, why_not="the other process is waiting")


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


def _warmed_up(
    measured: Workload, device: Device, protocol: Protocol, compilations: Compilations
) -> Generator[tuple[str, Any], None, tuple[Call, dict[str, Any], dict[str, float]]]:
    """Yields "settings", "memory" and "warmup"; returns a call that is warm, the memory, and "spent" so far."""
    from vbench.devices import process
    from vbench.meters import timing

    yield "settings", measured.settings
    with spending() as on_memory:
        anatomy = measured.memory()
    yield "memory", anatomy | compilations.cost()
    process.keep_freed()
    call = measured.caller(measured.batch)
    warm = timing.warm_up(call, device, protocol, earlier_s=anatomy["pass_s"], compilations=lambda: compilations.count)
    yield "warmup", warm
    return call, anatomy, {"measured_s": on_memory[0], "warmup_s": warm["wall_s"]}


@contextmanager
def spending() -> Iterator[list[float]]:
    """A list that holds, after leaving, the seconds since entering."""
    spent: list[float] = []
    begin = time.monotonic()
    yield spent
    spent.append(time.monotonic() - begin)
