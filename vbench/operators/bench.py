"""`vbench kernels bench`: the time of one call of an operator, by every form and every peer, beside its floor.

Forms and peers are timed in turn in one process, so that heat and neighbours do not follow one of them. A form whose
output is wrong has no time. A form that cannot run, or would take too long, has a row with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vbench import host, jobs
from vbench.devices import is_out_of_memory, kind_of, open_device, process
from vbench.errors import UsageError, first_line
from vbench.jobs.launch import Runner
from vbench.operators.contestants import SLOW_S, Contestant, contestants, foretold, timed
from vbench.operators.lost import SAID, LostDeviceError, answers
from vbench.operators.outputs import BOUNDS, error_of, wanted, why_wrong
from vbench.operators.sampling import Backend, Cache, taker
from vbench.options import choices, numbers
from vbench.plan import PLAIN, parse_dtypes
from vbench.results.statistics import median_interval

if TYPE_CHECKING:
    from torch import Tensor

    from vbench.devices.base import Call, Device
    from vbench.operators.calls import Width

CHILD_LIMIT_S = 3600.0
PEER_BOUND = 5e-2  # a peer may be less exact; its error is shown
SAMPLES = 5, 200  # at least, and at most
KEYS = (  # of every row
    *("op", "form", "peer", "model", "sizes", "tokens", "batch", "dtype", "device", "backend", "l2"),
    *("status", "reason", "ms", "error"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is timed, and for how long."""

    ops: tuple[str, ...]
    forms: tuple[str, ...]
    tokens: tuple[int, ...]
    batches: tuple[int, ...]
    dtype: str
    device: str
    backends: tuple[Backend, ...]
    caches: tuple[Cache, ...]
    seconds: float
    limit_s: float
    threads: int = 1
    peers: Mapping[str, str] = field(default_factory=dict)  # the user's: "module:function" by operator


def parse(
    *,
    ops: tuple[str, ...],
    forms: tuple[str, ...],
    device: str,
    tokens: str | None,
    batch: str | None,
    dtype: str | None,
    backend: str | None,
    l2: str | None,
    seconds: float | None,
    limit_s: float | None,
    threads: int,
    peers: Mapping[str, str],
) -> Plan:
    """A plan from the options; None takes the usual value of the device. Raises: UsageError."""
    from vbench.operators.calls import WIDTHS

    kind = kind_of(device)
    possible = ("eager", "cudagraph")
    backends = choices(backend, "--backend", possible) if backend else possible[: 1 + kind.graphs]
    if "cudagraph" in backends and not kind.graphs:
        raise UsageError(f"--backend: {device} replays no recorded calls, as the back end cudagraph does")
    dtypes = parse_dtypes(dtype, PLAIN) if dtype else (kind.bench_dtype,)
    if len(dtypes) > 1:
        raise UsageError(f"--dtype: one at a time, not {', '.join(dtypes)}")
    return Plan(
        ops=tuple(op for op in ops if op in WIDTHS),
        forms=forms,
        tokens=_sizes(tokens, "--n", "196,4096") if tokens else kind.bench_tokens,
        batches=_sizes(batch, "--batch", "1,8") if batch else kind.bench_batches,
        dtype=dtypes[0],
        device=device,
        backends=backends,  # type: ignore[arg-type]
        caches=choices(l2, "--l2", ("cold", "warm")) if l2 else kind.bench_caches,  # type: ignore[arg-type]
        seconds=seconds or kind.bench_sample_s,
        limit_s=limit_s or kind.bench_call_s,
        threads=threads,
        peers=peers,
    )


def _sizes(text: str, option: str, example: str) -> tuple[int, ...]:
    return tuple(sorted(numbers(text, option, example, allowed=range(1, 2**24 + 1), kind="a positive number")))


def run(plan: Plan, launcher: Runner, tell: Callable[[str], None] = lambda _: None) -> Iterator[list[dict[str, Any]]]:
    """Measure one operator in one child at a time; yields the rows of each when it ends.

    Raises: UsageError for a peer that cannot be imported, before anything is timed.
    """
    launcher.run(*jobs.import_peers(dict(plan.peers)), CHILD_LIMIT_S)
    tell("measuring what the device can do at most")
    peaks = launcher.run(*jobs.peaks(plan.device, plan.dtype, plan.threads), CHILD_LIMIT_S).parts
    gpu = launcher.run(*jobs.probe(plan.device), CHILD_LIMIT_S).parts["gpu"]
    about = host.fingerprint(plan.device, gpu)
    for op in plan.ops:
        tell(f"timing {op}")
        stamp = {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "load": host.load(),
            "threads": plan.threads,
            **{key: about[key] for key in ("device_name", "versions", "commit", "dirty", "source")},
        }
        yield [{**row, **stamp} for row in _operator(op, plan, peaks, launcher)]


def _operator(op: str, plan: Plan, peaks: dict[str, Any], launcher: Runner) -> list[dict[str, Any]]:
    """The rows of one operator, from one process, or from one more for each form that cost one its device."""
    rows: list[dict[str, Any]] = []
    rest: dict[str, Any] = {}
    while True:
        ending = launcher.run(*jobs.bench_operator(op, plan, peaks, rest), CHILD_LIMIT_S)
        lost = ending.parts.pop("lost", None)
        found = list(ending.parts.values())
        if lost is None or lost["form"] in rest.get("without", []):  # the same again: nothing is won by one more
            break
        # What it measured of others in the call at which it ended is measured anew.
        rows += [row for row in found if row["form"] == lost["form"] or [row["tokens"], row["batch"]] != lost["since"]]
        rest = {**lost, "without": [*rest.get("without", []), lost["form"]]}
    rows += found
    if ending.status != "ok":
        form = rows[-1]["form"] if rows else "?"
        reason = f"the operator's process ended after this row: {ending.reason}"
        rows.append({**_blank(op, plan), "form": form, "status": "error", "reason": reason})
    return rows


def peers_job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"peers"} -> each target, and True. Raises: UsageError for a peer that cannot be imported."""
    from vbench.operators.peers import resolve

    for target in argument["peers"].values():
        resolve(target)
        yield target, True


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"plan", "op", "peaks", "rest"} -> the rows of one operator, numbered.

    If a form costs this process its device, the last part is "lost": what the next process needs as its `rest`.
    """
    import torch

    from vbench.operators.calls import WIDTHS

    plan, op = Plan(**argument["plan"]), argument["op"]
    device = open_device(plan.device)
    torch.set_num_threads(plan.threads)
    process.keep_freed()  # as when a model is timed
    device.select()
    with torch.inference_mode():
        rows = measure(plan, op, WIDTHS[op][0], argument["peaks"], device, argument["rest"])
        try:
            yield from ((str(number), row) for number, row in enumerate(rows))
        except LostDeviceError as error:
            yield "lost", error.rest


def measure(
    plan: Plan,
    op: str,
    width: Width,
    peaks: Mapping[str, float],
    device: Device,
    rest: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[dict[str, Any]]:
    """The rows of one operator: every call, from short sequences to long ones.

    Args:
        rest: what an earlier process left when it lost its device: the forms that it goes on "without", the call
            "since" which all is measured, [tokens, batch], and the calls of others that it has "seen".

    Raises: LostDeviceError, after the row of the form to which the device answers no more.
    """
    from vbench.operators.calls import floor

    everyone = [one for one in contestants(plan, op) if one.name not in rest.get("without", [])]
    for one in everyone:
        one.seen = rest.get("seen", {}).get(one.name)
    for one in (one for one in everyone if one.absent and not rest):
        yield {**_blank(op, plan), **one.who, "status": "unavailable", "reason": one.absent}
    for tokens, batch in product(plan.tokens, plan.batches):
        if [tokens, batch] < rest.get("since", []):
            continue
        cell = {**_blank(op, plan), "model": width.model, "sizes": width.sizes, "tokens": tokens, "batch": batch}
        try:
            inputs = width.inputs(batch=batch, tokens=tokens, dtype=plan.dtype, device=plan.device)
            options, right = width.keywords(inputs), wanted(op, width, inputs)
            least = floor(op, inputs, options)
        except Exception as error:
            yield from _failed({**cell, "form": "inputs"}, error, device, everyone)
            continue
        floor_ms = least.ms(peaks["copy_bytes_per_s"], peaks["gemm_flops_per_s"])
        floor_of = "bytes" if least.bytes / peaks["copy_bytes_per_s"] * 1e3 == floor_ms else "products"
        cell |= {"bytes_min": least.bytes, "flops_min": least.flops, "floor_ms": floor_ms, "floor_of": floor_of}
        ready: dict[str, tuple[Contestant, Call, dict[str, Any]]] = {}
        for one in (one for one in everyone if not one.absent):
            row = cell | one.who
            if why := foretold(one, inputs, tokens, batch, width, plan, device):
                yield {**row, "status": "skipped", "reason": why}
                continue
            one.once = one.peer and (one.expected_s(tokens, batch) or 0.0) > SLOW_S
            try:
                call = one.build(inputs, options)
                tried = _try(one, call, right, plan.dtype, device)
            except Exception as error:
                yield from _failed(row, error, device, everyone)
                continue
            one.seen = one.work(tokens, batch), tried.pop("seconds")
            if tried["status"] == "ok":
                ready[one.name] = one, call, {**row, **tried}
            else:
                yield {**row, **tried}
        for backend, cache in product(plan.backends, plan.caches):
            for row in _in_turn(ready, backend, cache, plan, device, everyone):
                yield row | _aim(row, plan, width, peaks)


def _aim(row: Mapping[str, Any], plan: Plan, width: Width, peaks: Mapping[str, float]) -> dict[str, Any]:
    """The target of a row that was timed, if it has one, and what its arithmetic takes."""
    from vbench.operators import targets

    found = targets.of(row, plan) if row["ms"] is not None else {}
    if "target" in found:
        found |= targets.arithmetic(row["op"], width, row["tokens"], peaks["gemm_flops_per_s"])
    return found


def _blank(op: str, plan: Plan) -> dict[str, Any]:
    """The keys that every row has."""
    known = {"op": op, "peer": False, "dtype": plan.dtype, "device": plan.device, "status": "ok"}
    return dict.fromkeys(KEYS) | known


def _failed(
    row: dict[str, Any], error: Exception, device: Device, everyone: Sequence[Contestant]
) -> Iterator[dict[str, Any]]:
    """The row of a call that raised. Raises: LostDeviceError after it, if the device answers no more."""
    oom = is_out_of_memory(error)
    reason = first_line(error, named=not oom)
    if answers(device):
        yield {**row, "status": "oom" if oom else "error", "reason": reason}
        return
    yield {**row, "status": "error", "reason": f"{reason}; {SAID}"}
    seen = {one.name: one.seen for one in everyone if one.seen}
    raise LostDeviceError({"form": row["form"], "since": [row["tokens"], row["batch"]], "seen": seen})


def _try(one: Contestant, call: Call, right: Tensor, dtype: str, device: Device) -> dict[str, Any]:
    """Make a call, which may compile, and a second one that is timed, unless the first was slow; check its output."""
    seconds, o = timed(call, device)
    if seconds <= SLOW_S:
        seconds, o = timed(call, device)
    if not one.same:
        return {"seconds": seconds, "status": "ok"}
    error = error_of(o, right)
    reason = why_wrong(error, PEER_BOUND if one.peer else BOUNDS[dtype])
    return {
        "seconds": seconds,
        "status": "failed" if reason else "ok",
        "reason": reason,
        "error": error if math.isfinite(error) else None,
    }


def _in_turn(
    ready: Mapping[str, tuple[Contestant, Call, dict[str, Any]]],
    backend: Backend,
    cache: Cache,
    plan: Plan,
    device: Device,
    everyone: Sequence[Contestant],
) -> Iterator[dict[str, Any]]:
    """The rows of one setting: samples of all contestants in turn; another one begins each round."""
    takers: dict[str, Callable[[], float]] = {}
    samples: dict[str, list[float]] = {}
    for name, (one, call, row) in ready.items():
        assert one.seen is not None
        if one.once and one.seen[1] > SLOW_S and (backend, cache) == ("eager", "warm"):
            samples[name] = [one.seen[1] * 1e3]  # the call that was made to try it
            continue
        try:
            take = taker(call, one.seen[1] * 1e3, backend, cache, device)
            if one.seen[1] < SLOW_S:
                take()
        except Exception as error:
            yield from _failed({**row, "backend": backend, "l2": cache}, error, device, everyone)
            continue
        takers[name], samples[name] = take, []
    names = list(takers)
    while names:
        for name in names:
            try:
                samples[name].append(takers[name]())
            except Exception as error:
                yield from _failed({**ready[name][2], "backend": backend, "l2": cache}, error, device, everyone)
                del samples[name]
        names = [name for name in names[1:] + names[:1] if name in samples and not _enough(samples[name], plan.seconds)]
    for name, taken in samples.items():
        row = ready[name][2]
        middle, low, high, level = median_interval(taken)
        yield {
            **row,
            "backend": backend,
            "l2": cache,
            "ms": middle,
            "ms_lo": low,
            "ms_hi": high,
            "level": level,
            "ms_min": min(taken),
            "samples": len(taken),
            "floor_ratio": middle / row["floor_ms"],
        }


def _enough(samples: Sequence[float], seconds: float) -> bool:
    least, most = SAMPLES
    if len(samples) >= most or (len(samples) >= 2 and samples[0] > SLOW_S * 1e3):
        return True
    return len(samples) >= least and sum(samples) >= seconds * 1e3
