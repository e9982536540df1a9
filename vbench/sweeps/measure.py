"""The jobs that measure a cell: one launch of it, alone or in turn with another process.

Each yields (part, value) pairs; `sweeps.loop` makes records of them.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import SystemRandom
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Any

from vbench.plan import Case, Protocol

MOVED = 2**14  # cache lines
UNWARMED_MS = 10_000.0  # a first call is slower than the others by some 0.1 s

if TYPE_CHECKING:
    from vbench.devices.base import Call, Device
    from vbench.meters.backend import Compilations
    from vbench.meters.workload import Workload


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "launch", "batch", "watch", "in_turns"} -> one launch of a cell, in these parts and this
    order: "settings", "memory", "warmup", "latency", "throughput", "state", "spent", "outputs", "energy".

    "launch" is 0 for the cell's first; later ones yield no memory, throughput or energy. If the cell will take turns
    ("in_turns") and its call is too slow for a search of the batch, the first launch is over after the memory pass: its
    turns time it. "batch" is the batch for throughput, found by a search, or None. "watch" is None for a device that
    nothing watches; else it has the "uuid" of the GPU, the "file" of its samples, and the clock "reference_mhz" of
    earlier launches. "spent" says how many seconds went into measured passes, how many of these into memory and
    throughput, and how many into warm-up. "outputs" says whether the timed calls of latency returned what they should
    (`verify.timed.check`); the first launch compares them with a reference. "settings" come again if the model's calls
    change them, and at the end of a first launch with the kernel that computes attention; the call that tells it is not
    timed. Energy has its own time, "wall_s": it comes last, so that it costs no cell its other figures.
    """
    from vbench.meters import attention, backend, cpu, outputs, state, throughput, timing
    from vbench.meters.workload import workload
    from vbench.verify import timed

    case, protocol, watch = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["watch"]
    device, first = _prepared(case, protocol), argument["launch"] == 0

    with attention.pinned(case.attention), backend.Compilations(case.backend, protocol.threads) as compilations:
        repeated_s = protocol.sample_s if argument["in_turns"] else protocol.warmup_max_s
        measured = workload(case, device, compilations, repeat_below_s=repeated_s)
        yield from measured.tell()
        anatomy, spent = (yield from _memory(case, measured, compilations)) if first else ({}, {"measured_s": 0.0})
        policy = argument["batch"] or case.batch
        in_turns = argument["in_turns"] and policy in ("knee", measured.batch)
        if first and in_turns and throughput.too_slow(anatomy["pass_s"], protocol):
            yield "spent", {**spent, "warmup_s": 0.0, "throughput_s": 0.0}
            if case.deployed:
                yield "outputs", _compared(case, measured, device)
            yield from _energy(measured, measured.batch, 1, device, protocol)
            return
        call, spent["warmup_s"] = yield from _warm(measured, device, protocol, compilations, anatomy)
        begin, search_s = monotonic(), 0.0
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency(call, device, protocol, partial(state.why_slow, watch))
            parts = timing.parts(measured.parts(), device, protocol, median(latency["samples_ms"]))
            yield "latency", {"batch": measured.batch, **latency, **parts}
            seen = outputs.seen(call)
            del call  # with its recorded graph or its optimiser, before there is another
            if first:
                searching = monotonic()
                queued = throughput.measure(
                    measured.caller,
                    device,
                    protocol,
                    policy,
                    first=(measured.batch, latency["samples_ms"]),
                    image_bytes=(anatomy["input_bytes"] + anatomy["activation_bytes"]) // measured.batch,
                    held_bytes=anatomy.get("optimizer_bytes", 0),
                )
                search_s = monotonic() - searching
                yield "throughput", queued
        yield from measured.tell()
        gpu = state.window(Path(watch["file"]), begin, monotonic()) if watch else None
        yield "state", {**processors.seen, "gpu": gpu}
        spent["measured_s"] += on_timing[0]
        yield "spent", {**spent, "throughput_s": search_s}
        slow = anatomy.get("pass_s", 0.0) >= protocol.warmup_max_s and not case.deployed
        why_not = (
            "a call takes too long for a reference" if slow else "" if first else "the first launch has the reference"
        )
        twin = None if why_not or case.phase == "train" else measured.twin
        yield "outputs", timed.check(seen, case.dtype, twin, tf32=bool(device.tf32()), why_not=why_not)
        if case.attention and first and not case.deployed:

            def captured_and_called() -> None:  # a graph shows its kernels of attention while it is captured
                measured.caller(measured.batch)()

            one_s = median(latency["samples_ms"]) / 1e3
            kernel = attention.found(captured_and_called, expected_s=one_s, limit_s=protocol.warmup_max_s)
            attention.check(case, kernel)
            yield "settings", measured.settings | kernel
        if first:
            batch, calls = queued["batch"], queued.get("block_calls")
            yield from _energy(measured, batch if calls else measured.batch, calls or 1, device, protocol)


def _compared(case: Case, measured: Workload, device: Device) -> dict[str, Any]:
    """What one call returns beside the reference, for a cell whose turns have no time for that."""
    from vbench.meters import outputs
    from vbench.verify import timed

    call = measured.caller(measured.batch)
    device.samples(call, 1)
    return timed.check(outputs.seen(call), case.dtype, measured.twin, tf32=bool(device.tf32()))


def _energy(
    measured: Workload, batch: int, block_calls: int, device: Device, protocol: Protocol
) -> Iterator[tuple[str, Any]]:
    """Yields "energy" of an image, in calls at that batch."""
    from vbench.meters import energy, throughput

    with spending() as on_energy:
        counter = energy.counter_for(device) if protocol.energy_s else energy.NOT_ASKED
        if isinstance(counter, str):
            joules = energy.measure(lambda _: 0, counter)
        else:
            work = throughput.work(measured.caller(batch), device, batch=batch, block_calls=block_calls)
            joules = energy.measure(work, counter, busy_s=protocol.energy_s)
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
    _pin(argument["core"], protocol.threads)
    with (
        attention.pinned(case.attention),
        TurnSocket(Path(argument["socket"]), first=first) as turn_socket,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        if not first:
            turn_socket.wait()
        measured = workload(case, device, compilations, repeat_below_s=0.0)
        yield from measured.tell()
        anatomy, spent = yield from _memory(case, measured, compilations)
        call, spent["warmup_s"] = yield from _warm(measured, device, protocol, compilations, anatomy)
        turn_socket.give()
        if first:
            turn_socket.wait()
        with cpu.CpuWatch(protocol.threads) as processors, spending() as on_timing:
            latency = timing.latency_in_turns(call, device, protocol, turn_socket, first=first)
        yield "latency", {"batch": measured.batch, **latency}
        yield from measured.tell()
    yield "state", {**processors.seen, "gpu": None}
    spent["measured_s"] += on_timing[0]
    yield "spent", spent
    yield "outputs", timed.check(outputs.seen(call), case.dtype, None, why_not="the other process is waiting")


def take_rounds(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "socket", "place", "core", "known_ms"} -> the calls of a cell in turn with other processes.

    The parts are "settings", "warmup", "latency" and "spent", as `measure` has them; "latency" comes when the table at
    the "socket" closes. The first turn builds the model and warms it up: until two short windows agree; by one call, if
    a call takes as long as half a second; by none, if it took `UNWARMED_MS` or more before ("known_ms"). Memory is not
    measured. All processes of a table run on the same processors, from "core" on.
    """
    from vbench.devices import process
    from vbench.jobs.round_table import WARM, Seat
    from vbench.meters import attention, backend, outputs, timing
    from vbench.meters.workload import workload
    from vbench.verify import timed

    case, protocol = Case(**argument["case"]), Protocol(**argument["protocol"])
    device = _prepared(case, protocol)
    _pin(argument["core"], protocol.threads)
    short = replace(protocol, window=3, warmup_s=0.0, warmup_max_s=min(protocol.warmup_max_s, 0.5))
    with (
        attention.pinned(case.attention),
        Seat(Path(argument["socket"]), argument["place"]) as seat,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        samples: list[float] = []
        spent = {"measured_s": 0.0, "warmup_s": 0.0}
        for calls in seat.turns():
            if calls == WARM:
                process.keep_freed()
                moved = bytearray(64 * SystemRandom().randrange(MOVED))  # kept: memory lies elsewhere in each process
                measured = workload(case, device, compilations, repeat_below_s=0.0)
                call = measured.caller(measured.batch)
                warm: dict[str, Any] = {"calls": 0, "wall_s": 0.0, "converged": None, "reason": "a call is too slow"}
                if argument["known_ms"] < UNWARMED_MS:
                    warm = timing.warm_up(call, device, short, compilations=lambda: compilations.count)
                spent["warmup_s"] = warm["wall_s"]
                seat.answer([])
                yield from measured.tell()
                yield "warmup", warm
            else:
                taken = device.samples(call, calls)
                seat.answer(taken)
                samples.append(median(taken))
                spent["measured_s"] += sum(taken) / 1e3
        yield "latency", timing.in_rounds(samples, measured.batch, protocol)
        yield from measured.tell()
        yield "outputs", timed.check(outputs.seen(call), case.dtype, None, why_not="others wait for their turns")
        del moved
    yield "spent", spent


def _pin(core: int, threads: int) -> None:
    """Keep this process on as many processors as it has threads, from that one on."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(core + i) % len(cores)] for i in range(threads)})


def _prepared(case: Case, protocol: Protocol) -> Device:
    """The device of a cell, with torch set up as the protocol says."""
    import torch

    from vbench.devices import open_device

    device = open_device(case.device)
    torch.set_num_threads(protocol.threads)
    device.select(tf32=protocol.tf32)
    torch.manual_seed(protocol.seed)
    if case.backend in ("compile", "aoti"):
        device.check_compiler()
    return device


def _memory(
    case: Case, measured: Workload, compilations: Compilations
) -> Generator[tuple[str, Any], None, tuple[dict[str, Any], dict[str, float]]]:
    """Yields "memory", and "settings" again if the pass tells more; returns the first, and "spent" so far.

    Raises: UnsupportedError if the model does not take what it is given, but takes something else.
    """
    from vbench.meters.refusals import explained

    with spending() as on_memory, explained(case):
        anatomy = measured.memory()
    yield "memory", anatomy | compilations.cost()
    yield from measured.tell()
    return anatomy, {"measured_s": on_memory[0], "memory_s": on_memory[0]}


def _warm(
    measured: Workload, device: Device, protocol: Protocol, compilations: Compilations, anatomy: dict[str, Any]
) -> Generator[tuple[str, Any], None, tuple[Call, float]]:
    """Yields "warmup"; returns a call that is warm, and the seconds that this took.

    Args:
        anatomy: what the memory pass found, which may have been the warm-up; {} if there was none.
    """
    from vbench.devices import process
    from vbench.meters import timing

    process.keep_freed()
    call = measured.caller(measured.batch)
    earlier_s, count = anatomy.get("pass_s", 0.0), lambda: compilations.count
    warm = timing.warm_up(call, device, protocol, earlier_s=earlier_s, compilations=count)
    yield "warmup", warm
    return call, warm["wall_s"]


@contextmanager
def spending() -> Iterator[list[float]]:
    """A list that holds, after leaving, the seconds since entering."""
    spent: list[float] = []
    begin = monotonic()
    yield spent
    spent.append(monotonic() - begin)
