"""The largest image, or the largest batch, that fits in memory. Each size is tried in a process of its own.

The size doubles until one does not fit; then the gap is bisected. A larger size is assumed to need more memory. An
out-of-memory error shrinks the size, and so does a size that the model refuses. As long as none has fitted, a refused
size may be too small, and the search goes on above it. Any other error ends the search and is reported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vbench import jobs
from vbench.devices import open_device, process
from vbench.errors import ResolutionError, UsageError
from vbench.jobs.launch import Ending, Runner, Status
from vbench.models import spec
from vbench.plan import LARGEST, Case, Sweep, parse_dtypes, parse_models, parse_modes, parse_phases, parse_sizes, plan

Axis = Literal["px", "images"]
STEP = 32  # px; the least step between sizes
SHARE = 0.9  # of the free memory, where no budget is given
MIB = 2**20
MOST_GIB = 1_000_000
REFUSED: Status = "unsupported"  # how a probe ends at a size, or a batch, that the model does not take
REFUSALS = 6  # sizes that are tried where the model refuses all


@dataclass(frozen=True, slots=True)
class Task:
    """A search for the largest side of a square image ("px"), or the largest batch ("images"), at which `case` fits.

    `case` gives everything except that size. `budget_bytes` None means 90 % of what is free at the first probe.
    """

    axis: Axis
    case: Case
    budget_bytes: int | None = None
    limit: int = 8192
    timeout_s: float = 60.0
    threads: int = 1

    def at(self, size: int) -> Case:
        """The case at a size."""
        if self.axis == "images":
            return replace(self.case, batch=size)
        return replace(self.case, height=size, width=size)


@dataclass(frozen=True, slots=True)
class Probe:
    """One size that was tried. `allocation_bytes` is the allocation that failed; None if the error names none."""

    size: int
    status: Status
    reason: str | None
    peak_bytes: int | None
    seconds: float | None
    allocation_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """The result of a search. `fits` is the largest size that fits, `stop` the smallest one tried that did not end ok.

    `fits` is None if nothing fits, `stop` if everything fits up to the limit of the task.
    """

    task: Task
    step: int
    fits: Probe | None
    stop: Probe | None
    probes: tuple[Probe, ...]

    @property
    def known(self) -> bool:
        """Whether the search has an answer: something fits, and no probe ended in an error."""
        return self.fits is not None and (self.stop is None or self.stop.status != "error")

    @property
    def refused(self) -> list[int]:
        """The sizes that the model does not take, whatever the memory."""
        return sorted(probe.size for probe in self.probes if probe.status == REFUSED)

    def to_json(self) -> dict[str, Any]:
        """All of it as one JSON-able dict; `answer` is `sentence`."""
        return {
            **asdict(self.task.case),
            **dict.fromkeys(("height", "width") if self.task.axis == "px" else ("batch",)),
            "axis": self.task.axis,
            "step": self.step,
            "limit": self.task.limit,
            "budget_bytes": self.task.budget_bytes,
            "timeout_s": self.task.timeout_s,
            "threads": self.task.threads,
            "largest": self.fits and self.fits.size,
            "largest_peak_memory_bytes": self.fits and self.fits.peak_bytes,
            "smallest_failing": self.stop and self.stop.size,
            "refused": self.refused,
            "limiting_allocation_bytes": self.stop and self.stop.allocation_bytes,
            "answer": sentence(self),
            "assumption": "what is larger needs more memory",
            "probes": [_to_json(probe) for probe in self.probes],
        }


def _to_json(probe: Probe) -> dict[str, Any]:
    """A try, with the names of the columns of a run."""
    found = asdict(probe)
    return {"peak_memory_bytes" if name == "peak_bytes" else name: value for name, value in found.items()}


def task(
    axis: Axis,
    model: str,
    *,
    res: str | None,
    batch: int | None,
    mode: str,
    dtype: str,
    phase: str,
    memory_gib: float | None,
    device: str,
    limit: int,
    timeout_s: float,
    threads: int,
) -> Task:
    """The task that the options of `maxres` and `maxbatch` describe. Raises: UsageError."""
    if memory_gib is not None and not 0 < memory_gib <= MOST_GIB:
        raise UsageError(f"--memory: {memory_gib:g} GiB is not a size; give a number up to {MOST_GIB:,}")
    models, modes = parse_models(model, "MODEL"), parse_modes(mode, "--mode")
    dtypes, phases = parse_dtypes(dtype), parse_phases(phase)
    for option, values in (("MODEL", models), ("--mode", modes), ("--dtype", dtypes), ("--phase", phases)):
        if len(values) > 1:
            raise UsageError(f"{option}: one at a time, not {', '.join(values)}")
    first, _ = _first_and_step(axis, models[0])
    if not first <= limit <= LARGEST:
        raise UsageError(f"--limit: {limit} {axis} is not between {first} and {LARGEST}")
    sizes = ((first, first),) if res is None else parse_sizes(res)
    if len(sizes) > 1:
        raise UsageError(f"--res: one size, not {len(sizes)}; write 224 or 512x1024")
    case = plan(Sweep(models, sizes, modes, (batch or 1,), dtypes, phases, device=device))[0]
    if case.unsupported:
        raise UsageError(f"{case.unsupported}; use --mode {case.spec.modes[0]}")
    budget = None if memory_gib is None else int(memory_gib * 2**30)
    return Task(axis, case, budget, limit, timeout_s, threads)


def find(task: Task, launcher: Runner) -> Limit:
    """Search for the largest size that fits. A size at which the model raises UsageError is one that it refuses."""
    first, step = _first_and_step(task.axis, task.case.model)
    budget = task.budget_bytes

    def probe(size: int) -> Probe:
        nonlocal budget
        ask = jobs.attempt(task.at(size), budget_bytes=budget, threads=task.threads)
        try:
            ending = launcher.run(*ask, task.timeout_s)
        except UsageError as error:
            ending = Ending(REFUSED, str(error))
        budget = ending.parts.get("budget_bytes", budget)
        memory = ending.parts.get("memory", {})
        short = _allocation(ending.reason) if ending.status == "oom" else None
        return Probe(size, ending.status, ending.reason, memory.get("peak_bytes"), memory.get("pass_s"), short)

    fits, stop, probes = search(probe, first=first, step=step, limit=task.limit)
    return Limit(replace(task, budget_bytes=budget), step, fits, stop, probes)


def largest_batch(case: Case, launcher: Runner, threads: int) -> Limit:
    """The largest batch of a cell that fits, for `--batch max`. Compiled and captured calls are tried in eager mode."""
    return find(Task("images", replace(case, batch=1), limit=LARGEST, threads=threads), launcher)


def search(
    probe: Callable[[int], Probe], *, first: int, step: int, limit: int
) -> tuple[Probe | None, Probe | None, tuple[Probe, ...]]:
    """The largest size that ends ok, the smallest above it that does not, and all that were tried, in order.

    Sizes are `first` + a multiple of `step`, at most `limit`. They are doubled, then bisected. "oom" and "unsupported"
    shrink the size; before any size was ok, "unsupported" doubles it, `REFUSALS` times at most. A probe with another
    ending ends the search, and is the second result.
    """
    probes: list[Probe] = []
    fits = stop = None
    # In steps above `first`: `low` fits, or is -1, or is refused; `high` does not fit, or is beyond the limit.
    low, high = -1, (limit - first) // step + 1
    while high - low > 1:
        size = first + low * step
        doubled = 0 if low < 0 else min((2 * size - first) // step, high - 1)
        at = max(low + 1, doubled) if stop is None else (low + high) // 2
        tried = probe(first + at * step)
        probes.append(tried)
        if tried.status == "ok":
            low, fits = at, tried
        elif tried.status == REFUSED and fits is None:
            low = at
            if len(probes) == REFUSALS and stop is None:
                break
        else:
            high, stop = at, tried
            if tried.status not in ("oom", REFUSED):
                break
    nothing = fits is None and stop is None and probes
    return fits, probes[0] if nothing else stop, tuple(probes)


def attempt(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case", "budget_bytes", "threads"} -> "budget_bytes", and "memory" of a pass or a step."""
    from vbench.meters import attention
    from vbench.meters.refusals import explained

    case = Case(**argument["case"])
    assert isinstance(case.batch, int)
    with attention.pinned(case.attention), explained(case, batch=case.batch):
        yield from _attempt(case, argument)


def _attempt(case: Case, argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    import torch

    from vbench.meters import aside, autocast, memory, training
    from vbench.meters.build import beside_complex, images

    device, where = open_device(case.device), torch.device(case.device)
    torch.set_num_threads(argument["threads"])
    torch.manual_seed(0)
    torch.ones(2**16 * argument["threads"], device=where).sum()  # threads and context, before memory is rationed
    aside.rehearse(case, replace(case, height=STEP, width=STEP, batch=1))
    baseline = memory.baseline(device)
    budget = argument["budget_bytes"] or int(SHARE * device.free_bytes())
    yield "budget_bytes", budget
    device.limit_memory(budget)
    model = autocast.under(case, aside.placed(case))
    assert isinstance(case.batch, int)
    batch = images(case, case.batch, where)
    if case.phase == "train":
        trainer = training.Trainer(model, batch, scaled=training.needs_scale(case))
        with beside_complex(model, case), unmasked(trainer.step):
            trainer.step()  # by the second the optimiser has its state
            found = training.measure(trainer, baseline, repeat_below_s=0)
    else:

        def infer() -> dict[str, Any]:
            with torch.inference_mode():
                return memory.measure(model, batch, baseline, repeat_below_s=0)

        with beside_complex(model, case), unmasked(infer):
            found = infer()
    yield "memory", found


@contextmanager
def unmasked(call: Callable[[], object]) -> Iterator[None]:
    """Find out what oneDNN does not tell: whether it failed for want of memory, by calling again without a ration.

    In a thread of its own, as oneDNN's code generator keeps an error for as long as the thread that met it lives.

    Raises: MemoryError if the call succeeds then; the error itself if not.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(("could not create", "could not execute")):
            raise
        process.lift_limit()
        with ThreadPoolExecutor(1) as fresh:
            fresh.submit(call).result()
        raise MemoryError(f"{error}, a library says; without the limit on memory it can") from error


def _step(model: str) -> int:
    """Pixels between sizes: the least of at least `STEP` that the model takes without padding or cropping."""
    row = spec(model)
    unit = math.lcm(row.multiple, row.patch)
    return -(-STEP // unit) * unit


def _first_and_step(axis: Axis, model: str) -> tuple[int, int]:
    """The smallest size to try, and the step between sizes. Raises: UsageError if the model takes no square image."""
    if axis == "images":
        return 1, 1
    step = _step(model)
    for size in range(step, LARGEST, step):
        with suppress(ResolutionError):
            spec(model).grid(size, size)
            return size, step
    raise UsageError(f"{model} takes no square size up to {LARGEST} px")


_SIZES = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def _allocation(reason: str | None) -> int | None:
    """The size of the allocation that failed, from the message of torch's allocators."""
    named = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", reason or "")
    return int(float(named[1]) * _SIZES[named[2]]) if named else None


def sentence(limit: Limit) -> str:
    """The answer in words."""
    task, fits, stop = limit.task, limit.fits, limit.stop
    case, unit = task.case, task.axis
    what = f"{case.model}, {case.mode}" + (", training" if case.phase == "train" else "")
    what += f", batch {case.batch}" if unit == "px" else f", {case.height}x{case.width} px"
    peak = f" (peak {fits.peak_bytes / MIB:,.0f} MiB)" if fits and fits.peak_bytes is not None else ""
    took = [probe.size for probe in limit.probes if probe.status == "ok"]
    small = [size for size in limit.refused if took and size < min(took)]
    least = f"; {small[-1]} {unit} and less are refused" if small else ""
    if stop is None:
        most = f"{what}: {fits.size} {unit} fit{peak}, the most that was asked for" if fits else f"{what}: not tried"
        return most + least
    if stop.status == "oom":
        room = f" in {task.budget_bytes / MIB:,.0f} MiB" if task.budget_bytes else ""
        why = _why(stop)
        if fits is None:
            return f"{what}: not even {stop.size} {unit} fit{room}: {why}"
        return f"{what}: {fits.size} {unit} fit{room}{peak}, {stop.size} do not: {why}{least}"
    ended = {"timeout": stop.reason, REFUSED: f"is refused: {stop.reason}", "error": f"failed: {stop.reason}"}
    known = f"at least {fits.size} {unit}{peak}" if fits else "not known"
    if fits and stop.status == REFUSED:
        known = f"{fits.size} {unit} fit{peak}"
    short = [probe.size for probe in limit.probes if probe.status == "oom"]
    below = f", less than {min(short)}" if short and stop.status != REFUSED else ""
    return f"{what}: {known}{below}; {stop.size} {unit} {ended[stop.status]}{least}"


def _why(probe: Probe) -> str:
    if probe.allocation_bytes is None:
        return probe.reason or "out of memory"
    return f"an allocation of {probe.allocation_bytes / MIB:,.1f} MiB fails"
