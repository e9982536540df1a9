"""The jobs that children run: probe a device, verify a function, count a cell's work, measure a cell.

Each is a generator of (part, value); `launch` runs them and `sweep` makes records of what they yield.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench.errors import DeviceError
from vbench.plan import Case, Protocol

if TYPE_CHECKING:
    import torch

    from vbench.device import Device


def probe(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"device", "models"} -> "gpu", what CUDA says of the device. Raises: DeviceError, UnknownModelError."""
    import torch

    from vbench import host
    from vbench.models import external
    from vbench.models.baselines import check_name

    for name in argument["models"]:
        if external.is_external(name):
            external.load(name)
        else:
            check_name(name.removeprefix("timm/"))
    device = argument["device"]
    if device == "cpu":
        yield "gpu", None
        return
    if torch.version.cuda is None:
        raise DeviceError(f"--device: this torch ({torch.__version__}) is built without CUDA. Take --device cpu")
    if not torch.cuda.is_available() or torch.device(device).index >= torch.cuda.device_count():
        raise DeviceError(f"--device: torch {torch.__version__} cannot use {device}; see 'vbench doctor'")
    about = torch.cuda.get_device_properties(device)
    yield (
        "gpu",
        {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "driver": next((gpu["driver"] for gpu in host.gpus()), None),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        },
    )


def fingerprint(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"device", "gpu", "models"} -> "host", as `host.fingerprint`: what this side of a comparison is."""
    from vbench import host

    yield "host", host.fingerprint(argument["device"], argument["gpu"], argument["models"])


def whereabouts(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"models"} -> "files": of each model the file that its code is imported from."""
    import inspect

    from vbench.models import external, registry

    files = {}
    for name in argument["models"]:
        own = external.load(name) if external.is_external(name) else registry.create
        module = inspect.getmodule(own)
        files[name] = str(Path(module.__file__).resolve()) if module and module.__file__ else None
    yield "files", files


def verify(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"subject", "device", "seed", "weights", "image_size"} -> "checks" of an operator or a model. Raises: UsageError.

    An operator may have an "extent", the fields of `verify.Extent`.
    """
    from dataclasses import asdict

    import torch

    from vbench.kernels import OPS
    from vbench.models import spec
    from vbench.verify import Extent, model_checks, operator_checks, own_checks

    subject, device, seed = argument["subject"], argument["device"], argument["seed"]
    if subject in OPS:
        torch.set_num_threads(1)  # its tensors are too small to share
        found = operator_checks(subject, device, seed, Extent(**argument.get("extent", {})))
    elif spec(subject).external:
        found = own_checks(subject, device, seed, tuple(argument["image_size"]))
    else:
        found = model_checks(subject, device, seed, argument["weights"])
    yield "checks", [asdict(check) for check in found]


def count(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"cases"} -> for each, under its id, "work" and "second_count", or "unsupported", why it cannot be built.

    Parameters, MACs, FLOPs, bytes and a predicted peak; touches no device. Many cases share a process because its first
    pass on the meta device costs as much as the next three. A case is yielded before the second count and after it: if
    that count ends the process, the first one is not lost.
    """
    from vbench import flops
    from vbench.errors import UnsupportedError
    from vbench.estimate import predicted_peak

    for case in (Case(**fields) for fields in argument["cases"]):
        try:
            work = flops.count(case) | {"predicted_peak_bytes": predicted_peak(case)}
            yield case.id, {"work": work, "second_count": flops.no_opinion("fvcore's count ended the process")}
            yield case.id, {"work": work, "second_count": flops.second_count(case, work["macs_matmul"])}
        except UnsupportedError as error:
            yield case.id, {"unsupported": str(error)}


def measure(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"case", "protocol", "launch", "batch", "watch"} -> one launch of a cell, in these parts and this order:
    "settings", "memory", "warmup", "latency", "throughput", "state", "energy", "spent".

    "launch" is 0 for the cell's first. "batch" is the batch for throughput that an earlier launch or a search has
    settled on, or None. "watch" is None, or the "uuid" of the GPU, the "file" of what a sibling process writes of it,
    and the clock "reference_mhz" of earlier launches. "spent" says how many seconds went into measured passes, of
    these into throughput, and into warm-up.
    """
    from vbench import backend, energy, memory, state, timing
    from vbench.subject import subject

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
        with state.CpuWatch(protocol.threads) as watch, spending() as on_timing:
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
    from vbench import backend, memory, state, timing
    from vbench.subject import subject
    from vbench.turns import Turns

    case, protocol, first = Case(**argument["case"]), Protocol(**argument["protocol"]), argument["first"]
    where, device = _prepared(case, protocol, None)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(argument["core"] + i) % len(cores)] for i in range(protocol.threads)})
    with (
        Turns(Path(argument["socket"]), first=first) as turns,
        backend.Compilations(case.backend, protocol.threads) as compilations,
    ):
        if not first:
            turns.wait()
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
        turns.give()
        if first:
            turns.wait()
        with state.CpuWatch(protocol.threads) as watch, spending() as on_timing:
            latency = timing.in_turn(call, device, protocol, turns, first=first)
        yield "latency", {"batch": measured.batch, **latency}
    yield "state", {**watch.found, "gpu": None}
    yield "spent", {"measured_s": on_memory[0] + on_timing[0], "warmup_s": warm["wall_s"]}


def _prepared(case: Case, protocol: Protocol, watch: dict[str, Any] | None) -> tuple[torch.device, Device]:
    """torch set up as the protocol says: where a cell is measured, and what times it."""
    import torch

    from vbench import backend
    from vbench.device import device_for

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
