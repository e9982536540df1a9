"""The work of each module, and the time that it takes beside it. The parts add up to the whole, in work and in time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench import host, jobs
from vbench.flops.ledger import Kind, Ledger, Tally
from vbench.jobs.lenient import Lenient
from vbench.meters.modules import LEVELS, OUTSIDE, operator_row, rows_of
from vbench.results.statistics import median_interval

if TYPE_CHECKING:
    from vbench.flops.passes import Entered
    from vbench.jobs.launch import Launcher
    from vbench.plan import Case

WORK = ("macs_executed", "macs_matmul", "macs_elementwise", "flops_elementwise", "flops_total", "bytes_min")
OPERATOR = "vbench.operator"  # the ledger's name for any of ours
TIME_LIMIT_S = 3600.0  # for one size


@dataclass(frozen=True, slots=True)
class Timing:
    """How modules are timed: images in a call, seconds of calls for each size, CPU threads."""

    batch: int = 1
    seconds: float = 5.0
    threads: int = 1


def by_module(found: Entered[Ledger], case: Case, depth: int = LEVELS) -> list[dict[str, Any]]:
    """The work of one image by module, `depth` levels deep, in the order of the pass.

    Containers do not count as a level. Repeated blocks have a `*` for their number, and share one row. An operator of
    ours is a row below the module that calls it.

    Returns: rows of `module`, `macs_executed`, `macs_matmul`, `macs_elementwise`, `flops_elementwise`, `flops_total`
        (without what is unknown) and `bytes_min`: what the module does itself and what modules without a row of their
        own do within it. Each column's sum is the whole model's.
    """
    names = rows_of(found.model, depth)
    sums: dict[str, Tally] = {}
    for (module, operation, kind), tally in found.ledger.entries.items():
        name = names.get(module, module)
        if kind is Kind.OPERATOR and operation == OPERATOR and case.operator:
            name = operator_row(name, case.operator)
        sums.setdefault(name, Tally()).add(tally)
    return [
        {"module": name} | {key: getattr(tally, key) for key in WORK}
        for name, tally in sums.items()
        if tally.flops_total
    ]


def with_times(rows: list[dict[str, Any]], times: dict[str, Any], batch: int) -> list[dict[str, Any]]:
    """The work of modules with their times: every row that has either, in the order of the pass.

    Args:
        rows: as `by_module` returns them, of one image.
        times: as the job `time_modules` yields them, of `batch` images.

    Returns: rows with `calls` of a pass; `own_ms`, the median time of what the row's work is of, with its interval
        `own_ms_lo` and `own_ms_hi`; `total_ms` with all rows that it calls, `total_ms_lo`, `total_ms_hi`; and
        `gflops_per_s`, its work over its own time. None where nothing was called, or nothing is done.
    """
    work = {row["module"]: row for row in rows}
    none = dict.fromkeys(WORK, 0)
    names = dict.fromkeys([*times["rows"], *work])
    return [_timed({"module": name, **none, **work.get(name, {})}, times["rows"].get(name), batch) for name in names]


def _timed(row: dict[str, Any], samples: dict[str, Any] | None, batch: int) -> dict[str, Any]:
    own = _interval("own_ms", samples["own_ms"] if samples else [])
    rate = batch * row["flops_total"] / own["own_ms"] / 1e6 if own["own_ms"] and row["flops_total"] else None
    return {
        **row,
        "calls": samples["calls"] if samples else 0,
        **own,
        **_interval("total_ms", samples["total_ms"] if samples else []),
        "gflops_per_s": rate,
    }


def _interval(name: str, samples: list[float]) -> dict[str, float | None]:
    """A median and its 95 % interval within the process."""
    if not samples:
        return dict.fromkeys((name, f"{name}_lo", f"{name}_hi"))
    middle, low, high, _ = median_interval(samples)
    return {name: middle, f"{name}_lo": low, f"{name}_hi": high}


def of_whole(times: dict[str, Any], work: dict[str, Any], batch: int) -> dict[str, Any]:
    """What is said of the whole call, without marks, beside the times of its parts.

    Returns: `batch`; `rounds`; `level` that all intervals cover at least, if calls are independent (less than
        0.95: they are ranges); `ms` of a call without marks, with its interval; `gflops_per_s`; `marked_ms` of a call
        with marks; `parts_ms`, the sum of the parts' medians; `overhead`, by what share marks make a call longer, with
        the interval of the rounds; `converged`, whether warm-up ended because calls agreed.
    """
    whole, marked = times["whole_ms"], times["rows"][OUTSIDE]["total_ms"]
    ms = _interval("ms", whole)
    total = work["flops_total"]
    return {
        "batch": batch,
        "rounds": len(whole),
        "level": median_interval(whole)[3],
        **ms,
        "gflops_per_s": batch * total / ms["ms"] / 1e6 if total is not None and ms["ms"] else None,
        "marked_ms": median(marked),
        "parts_ms": sum(median(row["own_ms"]) for row in times["rows"].values()),
        **_interval("overhead", [one / other - 1 for one, other in zip(marked, whole, strict=True)]),
        "converged": times["warmup"]["converged"],
    }


def run(case: Case, work: dict[str, Any], launcher: Launcher, timing: Timing, depth: int) -> dict[str, Any]:
    """Time the modules of a cell in a child.

    Args:
        work: as `count.run` returns it, by modules of `depth` levels.

    Returns: `work` with `modules` as `with_times` returns them, and `time`: what `of_whole` says, the device, and the
        machine and the code that were measured. `time_reason` is None, or why there is no `time`.
    """
    stamp = {"started_at": datetime.now(UTC).isoformat(timespec="seconds"), "load": host.load()}
    lenient = Lenient(launcher)
    probed = lenient.run(*jobs.probe(case.device), TIME_LIMIT_S)
    ending = lenient.run(*jobs.time_modules(case, timing, depth), TIME_LIMIT_S + 10 * timing.seconds)
    if "times" not in ending.parts:
        why = f"{case} cannot be timed at batch {timing.batch}: {ending.status}: {ending.reason}"
        return {**work, "time": None, "time_reason": why}
    times = ending.parts["times"]
    about = host.fingerprint(case.device, probed.parts["gpu"], [case.model])
    where = {key: about[key] for key in ("device", "device_name", "versions", "commit", "dirty", "source")}
    return {
        **work,
        "modules": with_times(work["modules"], times, timing.batch),
        "time": {**of_whole(times, work, timing.batch), "threads": timing.threads, **where, **stamp},
        "time_reason": None,
    }
