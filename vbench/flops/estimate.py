"""What a cell will cost, before it is measured: a rough guess, and labelled as one wherever it is shown.

A pass is priced by its MACs at half the rate of a large matrix product on this device, by the bytes that it touches at
the rate of a copy, and by its operations and steps at the price of a small operator; memory by `peak.predicted_peak`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import log
from typing import Any

from vbench import jobs
from vbench.errors import UnsupportedError
from vbench.flops.count import enter, uncounted
from vbench.jobs.launch import Ending, Runner, side_by_side
from vbench.jobs.lenient import Lenient
from vbench.jobs.memo import Memo
from vbench.kernels.registry import OPS
from vbench.plan import Case, Protocol, product_dtype

EFFICIENCY = 0.5  # of a model, against a large matrix product
OPERATORS_A_STEP = 3  # of the step form: decay, outer product, read-out
LAUNCH_OVERHEAD_S = 0.5  # a process, and the building of a model
MEMORY_CALLS = 3  # of a call that is not slow
CALLS_AT_BATCH = 3  # warm, to size a block, and a block
KNEE_CALLS = 12  # at batch 1: the fewest pairs of a call and of one at twice the batch
REPORTING_S = 4.0  # with the import of what draws
OF_THE_REST = 0.75  # of the time that sampling may take beyond the shortest; noise decides
TRAINING = 3  # a step against its forward pass
LAYERS_AND_DIRECTIONS = 24  # of a model with an operator of ours: how often it walks the tokens
LIMIT_S = 120.0  # for what is foreseen of a case
EACH_S, MOST_S = 5.0, 1800.0  # for each of several cells of a model, and for all of them
CLOSE = 1.3  # times as many pixels: what lies between two such sizes is interpolated
GROWING = ("macs", "bytes", "operations", "steps")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Guesses of a cell: the seconds of a call, of its first launch, which measures all, and of a later one, which only
    times single calls; and the `peak_bytes` of one pass, or None and why they are `not_predicted`."""

    call_s: float
    first_s: float
    again_s: float
    peak_bytes: int | None
    not_predicted: str | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """Guesses of where the time of a sweep will go, in seconds.

    `measuring` and `starting` are of the launches, and of the server that forks them; `pairs`, of the cells that are
    compared in turns; `verifying` and `counting` come before the launches, and only where no result is kept;
    `reporting`, the tables and figures, at the end.
    """

    measuring: float
    pairs: float
    verifying: float
    counting: float
    starting: float
    reporting: float = REPORTING_S

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.0f} s" for name, seconds in asdict(self).items() if seconds >= 0.5)


def foresee(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"case"} -> "macs", "bytes" touched, "operations" and sequential "steps" of a timed call, and "queued"; or
    "uncounted", why they are not known. Then "peak_bytes", or None and "unpredicted", why. It needs no device.

    "queued" is how many images more are computed for throughput at a batch that was given, or None. A training step is
    timed at the batch asked for, all else at batch 1.
    """
    from vbench.flops.peak import prediction

    case = Case(**argument["case"])
    try:
        yield from _work(case)
    except UnsupportedError:
        raise
    except Exception as error:  # whatever a model raises; its memory may still be predicted
        yield "uncounted", uncounted(error)
    peak_bytes, why = prediction(case)
    yield "peak_bytes", peak_bytes
    if why:
        yield "unpredicted", why[0]


def _work(case: Case) -> Iterator[tuple[str, Any]]:
    """What a timed call of a cell does, as `foresee` yields it."""
    from vbench.flops.peak import timed_images

    work = enter(case).ledger.total()
    grid = case.spec.grid(case.height, case.width)
    images = timed_images(case)
    passes = TRAINING if case.phase == "train" else 1
    stepwise = (
        case.operator and case.form and case.mode == "recurrent" and OPS[case.operator][case.form].package != "numba"
    )
    walks = LAYERS_AND_DIRECTIONS if stepwise else 0
    yield "macs", passes * images * work.macs_executed
    yield "bytes", passes * images * work.bytes_touched
    yield "operations", passes * work.calls
    yield "steps", passes * (grid[0] * grid[1] if grid else 0) * walks
    yield "queued", _queued(case)


def foresee_cells(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A job. {"cases"} of one model -> for each, under its id, what `foresee` yields; {} for one that fails.

    They share a process because its first pass on the meta device costs as much as the next three.
    """
    for case in argument["cases"]:
        parts: dict[str, Any] = {}
        with suppress(Exception):  # `foresee` alone says why
            parts = dict(foresee({"case": case}))
        yield Case(**case).id, parts


def _queued(case: Case) -> int | None:
    """The images that are computed for throughput at a batch that was given; None for another batch."""
    from vbench.flops.peak import timed_images

    return CALLS_AT_BATCH * (case.batch - timed_images(case)) if isinstance(case.batch, int) else None


def estimate(parts: dict[str, Any], rates: dict[str, Any], protocol: Protocol) -> Estimate:
    """From what `foresee` and `peaks.measure` yielded."""
    call = 2 * parts["macs"] / (rates["gemm_flops_per_s"] * EFFICIENCY)
    call += parts["bytes"] / rates["copy_bytes_per_s"]
    call += (parts["operations"] + parts["steps"] * OPERATORS_A_STEP) * rates["operator_s"]
    slow = call > protocol.warmup_max_s
    warmup = 0.0 if slow else min(max(2 * protocol.window * call, protocol.warmup_s), protocol.warmup_max_s)
    longest = max(protocol.sample_max_s, 2 * call)
    sampling = max(
        min(protocol.samples_min * call, longest),
        protocol.sample_s + OF_THE_REST * (protocol.sample_max_s - protocol.sample_s),
    )
    again = LAUNCH_OVERHEAD_S + call + warmup + sampling
    first = again + call * ((1 if slow else MEMORY_CALLS) - 1) + _throughput_s(call, parts["queued"], protocol)
    return Estimate(call, first, again, parts.get("peak_bytes"), parts.get("unpredicted"))


def _throughput_s(call: float, queued: float | None, protocol: Protocol) -> float:
    """The search for the knee and what follows it; `queued` as in `foresee`."""
    if queued is not None:
        return call * queued + (protocol.sample_s if queued else 0.0)
    fewest = KNEE_CALLS * call
    return protocol.throughput_s + protocol.sample_s if fewest <= protocol.throughput_s else 0.0


def run(
    cases: list[Case],
    protocol: Protocol,
    launcher: Runner,
    memo: Memo | None = None,
    guessed: dict[str, float] | None = None,
) -> tuple[list[Estimate | str], float]:
    """An estimate for each case, or why there is none, in words; and the seconds after which a first process began to
    work here, since it waits for torch to be imported.

    Args:
        memo: what it knows of cells is not computed again.
        guessed: the rates of a device that this machine lacks, as `peaks.measure` yields them; None: they are measured.
    """
    rates: dict[str, Ending] = {}
    waited, lenient = 0.0, Lenient(launcher)
    possible = [case for case in cases if not case.unsupported]
    for case in possible:
        dtype = product_dtype(case.dtype)
        if guessed is not None:
            rates[dtype] = Ending("ok", None, guessed)
        if dtype not in rates:
            begin = time.monotonic()
            rates[dtype] = lenient.run(*jobs.peaks(case.device, dtype, protocol.threads), 60)
            found = rates[dtype].parts
            waited = waited or (found["busy"][0] - begin if "busy" in found else 0.0)
    foreseen = foreseen_of(list(dict.fromkeys(map(_timed_alike, possible))), lenient, memo)
    estimates: list[Estimate | str] = []
    for case in cases:
        if case.unsupported:
            estimates.append(case.unsupported)
            continue
        ending, rate = foreseen[_timed_alike(case)], rates[product_dtype(case.dtype)]
        parts = ending.parts | {"queued": _queued(case)}
        estimates.append(_unknown(ending) or _unknown(rate) or estimate(parts, rate.parts, protocol))
    return estimates, waited


def foreseen_of(cases: list[Case], launcher: Runner, memo: Memo | None = None) -> dict[Case, Ending]:
    """How `foresee` ends for each case. Between sizes that are close (`CLOSE`) it is interpolated."""
    between: dict[Case, tuple[Case, Case]] = {}
    alike: dict[Case, list[Case]] = {}
    for case in cases:
        alike.setdefault(replace(case, height=0, width=0), []).append(case)
    for group in alike.values():
        between |= _neighbours(sorted(group, key=_pixels))
    found = _foreseen([case for case in cases if case not in between], launcher, memo)
    for case, (small, large) in between.items():
        if parts := _interpolated(case, (small, found[small].parts), (large, found[large].parts)):
            found[case] = Ending("ok", None, parts)
    return found | _foreseen([case for case in cases if case not in found], launcher, memo)


def _foreseen(cases: list[Case], launcher: Runner, memo: Memo | None) -> dict[Case, Ending]:
    """How `foresee` ends for each case. Those of a model share a process, and a limit; what is missing then runs alone,
    within as much time again."""
    found: dict[Case, Ending] = {}
    models: dict[str, list[Case]] = {}
    for case in cases:
        if kept := memo and memo.recall(*jobs.foresee(case)):
            found[case] = kept
        else:
            models.setdefault(case.model, []).append(case)
    longest = max(map(len, models.values()), default=0)
    limit_s = min(LIMIT_S + EACH_S * longest, MOST_S)
    begin = time.monotonic()
    endings = side_by_side(launcher, [jobs.foresee_cells(own) for own in models.values()], limit_s)
    each_s = (time.monotonic() - begin) / max(1, sum(map(len, models.values())))
    parts = {key: own for ending in endings for key, own in ending.parts.items() if own}
    deadline = time.monotonic() + limit_s
    for case in cases:
        if case in found:
            continue
        if case.id in parts:
            found[case] = Ending("ok", None, parts[case.id])
            if memo and "uncounted" not in parts[case.id]:
                memo.keep(*jobs.foresee(case), found[case], each_s)
        elif (left_s := min(LIMIT_S, deadline - time.monotonic())) > 0:
            found[case] = launcher.run(*jobs.foresee(case), left_s)
        else:
            found[case] = Ending("timeout", f"the {limit_s:.0f} s for estimating were over")
    return found


def _pixels(case: Case) -> int:
    return case.height * case.width


def _neighbours(group: list[Case]) -> dict[Case, tuple[Case, Case]]:
    """The cells between two that are close, of cells that differ in size alone, small images first."""
    found: dict[Case, tuple[Case, Case]] = {}
    below, inside = group[0], list[Case]()
    for number, case in enumerate(group[1:], start=2):
        if number < len(group) and _pixels(case) <= CLOSE * _pixels(below):
            inside.append(case)
        else:
            if _pixels(case) <= CLOSE**2 * _pixels(below):
                found |= dict.fromkeys(inside, (below, case))
            below, inside = case, []
    return found


def _interpolated(
    case: Case, small: tuple[Case, dict[str, Any]], large: tuple[Case, dict[str, Any]]
) -> dict[str, Any] | None:
    """What `foresee` would yield, by a power law between two sizes; None if either lacks something."""
    (below, one), (above, other) = small, large
    if not all(parts.get(name) is not None for parts in (one, other) for name in (*GROWING, "peak_bytes")):
        return None
    apart = log(_pixels(above) / _pixels(below))
    share = log(_pixels(case) / _pixels(below)) / apart if apart else 0.0

    def at(name: str) -> int:
        first, last = float(one[name]), float(other[name])
        return round(first ** (1 - share) * last**share if min(first, last) > 0 else max(first, last))

    return {name: at(name) for name in (*GROWING, "peak_bytes")}


def _timed_alike(case: Case) -> Case:
    """The cell of a forward pass at batch 1, which is timed alike for each batch for throughput."""
    return replace(case, batch=1) if case.phase == "infer" else case


def _unknown(ending: Ending) -> str | None:
    """Why a job did not find out all that an estimate needs; None if it did."""
    if ending.status != "ok":
        return ending.reason or ending.status
    why: str | None = ending.parts.get("uncounted")
    return why


def row(case: Case, guess: Estimate | str, seconds: float | None, launches: int | None) -> dict[str, Any]:
    """A case and its estimate as one JSON-able dict; `seconds` and number of its launches in the sweep.

    `not_estimated` says why there is no estimate of a cell that could exist, `not_predicted` why there is no peak.
    """
    known = guess if isinstance(guess, Estimate) else None
    return {
        **asdict(case),
        "padding": case.spec.padding(case.height, case.width),
        "unsupported": case.unsupported,
        "not_estimated": guess if isinstance(guess, str) and not case.unsupported else None,
        "not_predicted": known.not_predicted if known else None,
        "seconds": None if known is None or seconds is None else round(seconds, 1),
        "launches": launches if known else None,
        "peak_memory_bytes": None if known is None else known.peak_bytes,
    }
