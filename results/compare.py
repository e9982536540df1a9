"""Compares two stored runs cell by cell: what became slower, larger or different, or is no longer measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log
from pathlib import Path
from statistics import median
from typing import Any

from scipy.special import ndtr, stdtr

from vbench.errors import UsageError
from vbench.files import is_file
from vbench.options import shown
from vbench.plan import Case
from vbench.results import store
from vbench.results.code import code
from vbench.results.frame import of_cells, rows_of
from vbench.results.holm import holm
from vbench.results.launches import Cells, Launch, Origin, commit, read, uncollected
from vbench.results.machines import changed, differences, machine
from vbench.results.outcome import THRESHOLD, Finding, GateVerdict, Outcome
from vbench.results.ratios import BATCHES, Ratio, ratio
from vbench.results.statistics import CONFIDENCE, quantile
from vbench.results.store import Record
from vbench.results.wrong import wrong

NOTE = "the runs were not interleaved: no interval covers drift between them; 'vbench gate --ab' measures in turn"
EQUAL_RECORDS = "the records are the same in both runs: one measurement, compared with itself"
OVER_LAUNCHES = ("launches", "launches of the run")  # what an interval must cover to be compared with another run's
ALARM = 0.01  # the chance that two equal runs have any cell called SLOW or FAST (of 190 real pairs 5 have at 0.05)
CLOCKS = 0.02  # the share by which the GPU's clock may differ between runs
COMPARED = [  # the columns of a row that are asked for
    *(
        "case_id",
        "device_name",
        "model",
        "flags",
        "verified",
        "params",
        "macs",
        "macs_executed",
        "batch",
        "batch_policy",
    ),
    *("latency_ms", "latency_ms_lo", "latency_ms_hi", "latency_level", "latency_basis", "latency_freedom"),
    *("latency_batch", "latency_launches", "latency_paired", "peak_memory_bytes", "memory_batch"),
]
COUNTS = {"params": "parameters", "macs": "MACs", "macs_executed": "MACs"}  # columns that must be equal, with units


@dataclass(frozen=True, slots=True)
class StoredCell:
    """A cell of one run: its row of the frame (None where a value is missing), and its launches."""

    case: Case
    row: Mapping[str, Any]
    launches: tuple[Launch, ...]

    @property
    def failed(self) -> Launch | None:
        """The first launch that did not end ok."""
        return next((launch for launch in self.launches if launch.status != "ok"), None)

    @property
    def peaks(self) -> list[int]:
        """Peak memory of each launch that measured it, bytes."""
        return [launch.memory.peak_bytes for launch in self.launches if launch.memory]

    @property
    def clock_mhz(self) -> float | None:
        """The GPU's clock during the measurement, the median of launches; None if no launch knows it."""
        clocks = [launch.clock_mhz for launch in self.launches if launch.latency and launch.clock_mhz]
        return median(clocks) if clocks else None


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One of the runs. `complete`: whether its last sweep ended, as run.json says; None if that says nothing."""

    name: str
    cells: Mapping[str, StoredCell]  # by case_id
    complete: bool | None = None

    started_at: str | None = None  # of its first launch

    @property
    def origins(self) -> list[Origin]:
        """Hosts and protocols of its launches, each once, in the order of cells."""
        return list({id(one.origin): one.origin for cell in self.cells.values() for one in cell.launches}.values())


def load(folder: Path) -> StoredRun:
    """The run in a sweep's --out folder. Raises: UsageError for a folder without records; SchemaError, OutputError."""
    if not is_file(folder / store.FILE):
        raise UsageError(f"{shown(folder)} has no {store.FILE}; give the --out folder of a sweep")
    try:
        complete = json.loads((folder / "run.json").read_text(encoding="utf-8"))["runs"][-1]["complete"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        complete = None
    cells = Cells(by_device=False)
    with uncollected():
        read(folder, cells)
        return _run(cells, str(folder), complete if isinstance(complete, bool) else None)


def run_of(records: Iterable[Record], name: str, complete: bool | None = None) -> StoredRun:
    """The cells of these records; of several records of a launch the newest counts (`store.current`)."""
    cells = Cells(by_device=False)
    for record in records:
        cells.add(record)
    return _run(cells, name, complete)


def _run(found: Cells, name: str, complete: bool | None) -> StoredRun:
    rows = {str(row["case_id"]): row for row in rows_of(of_cells(found)[COMPARED])}
    firsts = [(cell.first, tuple(cell.in_order())) for _, cell in found if cell.first is not None]
    cells = {first.case_id: StoredCell(first.case, rows[first.case_id], launches) for first, launches in firsts}
    starts = (launch.started_at for cell in cells.values() for launch in cell.launches)
    return StoredRun(name, cells, complete, min(starts, default=None))


def compare(base: StoredRun, head: StoredRun, *, threshold: float = THRESHOLD, allow_mismatch: bool = False) -> Outcome:
    """Compare head with base, cell by cell. `threshold` is the share of a cost from which a change matters.

    - Latency: SLOW or FAST if the ratio lies beyond the threshold, with 1 % of false alarms over all cells (Holm's
      correction); SAME if its 95 % interval lies within; else AMBIGUOUS. Both runs need an interval over launches, of
      the cell or of the run. A cell whose records are equal in both runs is SAME: it was measured once.
    - Peak memory: MORE if it grew beyond the threshold and each launch of head lies above each of base; LESS likewise.
    - Parameters and MACs: CHANGED if they differ.
    - Outputs: WRONG if head's calls returned what they should not, or were faster than the device can be.
    - Status: BROKEN if only base measured a cell, MENDED if only head did, UNMEASURED if neither did.

    Throughput is not judged. Cells that are unsupported in both runs are left out.

    Raises: UsageError for several machines without `allow_mismatch`, or a threshold that is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise UsageError(f"--threshold: {threshold:g} is not between 0 and 1; 0.03 is 3 %")
    other = _other_machines(base, head)
    if other and not allow_mismatch:
        raise UsageError(
            f"{other[0]}; times of two machines do not compare: take --allow-mismatch to do it all the same"
        )
    labels = _labels([*base.cells.values(), *head.cells.values()])
    findings: list[Finding] = []
    times: list[_Time] = []
    for case_id in dict.fromkeys([*base.cells, *head.cells]):
        one, two = base.cells.get(case_id), head.cells.get(case_id)
        cell = labels[case_id]
        if one is None or two is None:
            findings += _on_one_side(cell, one, two)
        elif one.failed or two.failed:
            findings += _failed(cell, one, two)
        else:
            times.append(_time(cell, one, two))
            findings += [_memory(cell, one, two, threshold), *_counts(cell, one, two), *_modes(cell, one, two)]
            findings += wrong(cell, two.row, two.launches)
    order = {cell: place for place, cell in enumerate(labels.values())}
    findings = sorted([*_judged(times, threshold), *findings], key=lambda finding: order[finding.cell])
    facts = _facts(base, head, threshold)
    versions = [facts[side]["versions"] for side in ("base", "head")]
    unlike = (*other, *changed(*versions), *_protocols(base, head))
    return Outcome("compare", _named(base), _named(head), tuple(findings), unlike=unlike, facts=facts)


def _named(run: StoredRun) -> str:
    """The run and the code that it measured."""
    return f"{run.name} ({', '.join(known)})" if (known := code(one.host for one in run.origins)) else run.name


def _labels(cells: Sequence[StoredCell]) -> dict[str, str]:
    """The names of cells by case_id; cells that would share a name have batch and device in it too."""
    cases = {str(cell.row["case_id"]): cell.case for cell in cells}
    shared = Counter(map(str, cases.values()))
    return {
        case_id: f"{case} batch {case.batch} {case.device}" if shared[str(case)] > 1 else str(case)
        for case_id, case in cases.items()
    }


def _on_one_side(cell: str, one: StoredCell | None, two: StoredCell | None) -> list[Finding]:
    there = one or two
    failed = there.failed if there else None
    if failed and failed.status == "unsupported":
        return []
    note = f"{failed.status}: {failed.reason}" if failed else None
    return [Finding(cell, "status", "GONE" if one else "NEW", note=note)]


def _failed(cell: str, one: StoredCell, two: StoredCell) -> list[Finding]:
    was, is_ = one.failed, two.failed
    if was and is_ and was.status == is_.status == "unsupported":
        return []
    verdict: GateVerdict = "UNMEASURED" if was and is_ else "BROKEN" if is_ else "MENDED"
    note = " → ".join(f"{ended.status}: {ended.reason}" if ended else "ok" for ended in (was, is_))
    return [Finding(cell, "status", verdict, note=note)]


def _modes(cell: str, one: StoredCell, two: StoredCell) -> list[Finding]:
    if two.row["verified"] is not False or one.row["verified"] is False:
        return []
    note = "the modes of head are not one function; see 'vbench verify'"
    return [Finding(cell, "mode equality", "UNEQUAL", note=note)]


def _memory(cell: str, one: StoredCell, two: StoredCell, threshold: float) -> Finding:
    what = "peak_memory_bytes"
    over = ratio(two.row, one.row, what)
    if over is None:
        return Finding(cell, what, "UNMEASURED", unit="B", note=_why_no_ratio(one, two, what))
    verdict: GateVerdict = "SAME"
    note = None
    if abs(over.value - 1) > threshold:
        if min(two.peaks) > max(one.peaks):
            verdict = "MORE"
        elif max(two.peaks) < min(one.peaks):
            verdict = "LESS"
        else:
            verdict, note = "AMBIGUOUS", "the launches of base and head overlap"
    base, head = (float(each.row[what]) for each in (one, two))
    return Finding(cell, what, verdict, base, head, "B", over.value, delta=threshold, note=note)


def _counts(cell: str, one: StoredCell, two: StoredCell) -> list[Finding]:
    """A finding for each count that a run has; UNMEASURED if only one has it."""
    findings = []
    for what, unit in COUNTS.items():
        base, head = (each.row[what] for each in (one, two))
        if base is None and head is None:
            continue
        if base is None or head is None:
            note = f"not counted in {'base' if base is None else 'head'}"
            findings.append(Finding(cell, what, "UNMEASURED", base, head, unit, note=note))
        else:
            verdict: GateVerdict = "SAME" if base == head else "CHANGED"
            findings.append(Finding(cell, what, verdict, base, head, unit, head / base if base else None))
    return findings


def _why_no_ratio(one: StoredCell, two: StoredCell, what: str) -> str:
    lacking = [name for name, cell in (("base", one), ("head", two)) if cell.row[what] is None]
    if lacking:
        return f"not measured in {' and '.join(lacking)}"
    batches = [cell.row[BATCHES[what]] for cell in (one, two)]
    return f"at batch {batches[0]} in base and {batches[1]} in head"


@dataclass(frozen=True, slots=True)
class _Time:
    """The latency of a cell in both runs, before the verdict. `judged`: whether its interval is over launches."""

    cell: str
    base_ms: float | None
    head_ms: float | None
    ratio: Ratio | None
    judged: bool = False
    clocks: float | None = None  # head's over base's, where they differ by more than `CLOCKS`
    notes: tuple[str, ...] = field(default=())

    def p(self, threshold: float) -> float | None:
        """The two-sided chance of a ratio so far beyond the threshold if the true ratio lies within.

        It is below 0.05 exactly if the whole 95 % interval lies beyond. None without an interval.
        """
        if self.ratio is None or self.ratio.lo is None or self.ratio.hi is None or not self.judged:
            return None
        middle, half = log(self.ratio.value), log(self.ratio.hi / self.ratio.lo) / 2
        beyond = middle - log(1 + threshold) if middle > 0 else log(1 - threshold) - middle
        if half == 0:
            return 0.0 if beyond > 0 else 1.0
        freedom = inf if self.ratio.freedom is None else self.ratio.freedom
        errors = -beyond * quantile(freedom, CONFIDENCE) / half
        return min(1.0, 2 * float(ndtr(errors) if freedom == inf else stdtr(freedom, errors)))


def _time(cell: str, one: StoredCell, two: StoredCell) -> _Time:
    what = "latency_ms"
    base, head = one.row, two.row
    over, judged, notes = ratio(head, base, what), False, []
    rows = ("base", base), ("head", head)
    few = [f"{_launches(row)} in {name}" for name, row in rows if row["latency_basis"] not in OVER_LAUNCHES]
    if over is None:
        notes.append(_why_no_ratio(one, two, what))
    elif [launch.stamp for launch in one.launches] == [launch.stamp for launch in two.launches]:
        over, judged = Ratio(1.0, 1.0, 1.0), True
        notes.append(EQUAL_RECORDS)
    elif few:
        over = Ratio(over.value)
        notes.append(f"no interval over launches: {' and '.join(few)}; measure with more (--rigor default or paper)")
    else:
        judged = True
    clocks = None
    if one.clock_mhz and two.clock_mhz and abs(log(two.clock_mhz / one.clock_mhz)) > log(1 + CLOCKS):
        clocks = two.clock_mhz / one.clock_mhz
        cycles = f", in cycles {over.value * clocks:.3f}×" if over else ""
        notes.append(f"the GPU's clock was {one.clock_mhz:.0f} → {two.clock_mhz:.0f} MHz{cycles}")
    if None not in (base["batch"], head["batch"]) and base["batch"] != head["batch"]:
        notes.append(f"throughput is at batch {base['batch']} → {head['batch']}")
    return _Time(cell, base[what], head[what], over, judged, clocks, tuple(notes))


def _launches(row: Mapping[str, Any]) -> str:
    count, few = row["latency_launches"], row["latency_basis"] == "range"
    return f"{count} launch{'es' * (count != 1)} of few samples" if few else f"{count} launch"


def _judged(times: Sequence[_Time], threshold: float) -> list[Finding]:
    """The findings on latency, corrected for their number."""
    p_values = [time.p(threshold) for time in times]
    adjusted = iter(holm([p for p in p_values if p is not None]))
    return [
        _judge(time, p, None if p is None else next(adjusted), threshold)
        for time, p in zip(times, p_values, strict=True)
    ]


def _judge(time: _Time, p: float | None, corrected: float | None, threshold: float) -> Finding:
    """A finding on latency, from its p-value before and after the correction."""
    notes, over = list(time.notes), time.ratio
    verdict: GateVerdict = "UNMEASURED" if over is None else "AMBIGUOUS"
    if over and over.lo and over.hi and p is not None and corrected is not None:
        if corrected < ALARM:
            verdict = "SLOW" if over.value > 1 else "FAST"
            cycles = [end * (time.clocks or 1.0) for end in (over.lo, over.hi)]
            if not (cycles[0] > 1 + threshold if verdict == "SLOW" else cycles[1] < 1 - threshold):
                notes.append(f"{verdict} in time, not in cycles")
                verdict = "AMBIGUOUS"
        elif p < 1 - CONFIDENCE:
            notes.append("beyond the threshold at 95 %, not at 1 % of false alarms over all cells (Holm)")
        elif 1 - threshold < over.lo and over.hi < 1 + threshold:
            verdict = "SAME"
    value, lo, hi = (over.value, over.lo, over.hi) if over else (None, None, None)
    base, head, note = time.base_ms, time.head_ms, "; ".join(notes) or None
    return Finding(time.cell, "latency_ms", verdict, base, head, "ms", value, lo, hi, threshold, note)


def _other_machines(base: StoredRun, head: StoredRun) -> list[str]:
    """A line for each difference of machines, between the runs or within one."""
    lines, firsts = [], []
    for run in (base, head):
        machines = [machine(origin.host) for origin in run.origins]
        firsts += machines[:1]
        unlike = next(filter(None, (differences(machines[0], other) for other in machines[1:])), None)
        if unlike:
            lines.append(f"{run.name} holds records of several machines: {', '.join(unlike)}")
    if len(firsts) == 2 and (unlike := differences(*firsts)):
        lines.append(f"{base.name} and {head.name} are of two machines: {', '.join(unlike)}")
    return lines


def _facts(base: StoredRun, head: StoredRun, threshold: float) -> dict[str, Any]:
    """How it was done: a note, warnings, and for each run commits, versions and times; JSON-able."""
    about = {"base": _about(base), "head": _about(head)}
    cut = [run.name for run in (base, head) if run.complete is False]
    warnings = [f"{name} was interrupted: its plan was not measured to the end" for name in cut]
    was, is_ = about["base"]["versions"], about["head"]["versions"]
    differ = {name: [was.get(name), is_.get(name)] for name in {**was, **is_} if was.get(name) != is_.get(name)}
    return {"note": NOTE, "warnings": warnings, "threshold": threshold, "differ": differ, **about}


def _about(run: StoredRun) -> dict[str, Any]:
    hosts = [origin.host for origin in run.origins]

    def each(values: Iterable[Any]) -> list[Any]:
        return list(dict.fromkeys(value for value in values if value is not None))

    names = dict.fromkeys(name for host in hosts for name in host.get("versions", {}))
    gpus = [host.get("gpu") or {} for host in hosts]
    versions = {name: each(host.get("versions", {}).get(name) for host in hosts) for name in names}
    versions |= {name: known for name in ("cuda", "cudnn") if (known := each(gpu.get(name) for gpu in gpus))}
    versions["os"] = each(host.get("os") for host in hosts)
    return {
        "run": run.name,
        "device_name": each(host.get("device_name") for host in hosts),
        "code": code(hosts),
        "commits": each(map(commit, hosts)),
        "versions": {name: ", ".join(map(str, known)) or None for name, known in versions.items()},
        "started_at": run.started_at,
        "complete": run.complete,
        "cells": len(run.cells),
    }


def _protocols(base: StoredRun, head: StoredRun) -> list[str]:
    """Where the protocols of the runs differ, except in the order of measuring (`seed`): "launches 3 → 5"."""
    runs = [[origin.protocol for origin in run.origins] for run in (base, head)]
    if not all(runs):
        return []
    lines = []
    for name in dict.fromkeys(name for protocols in runs for protocol in protocols for name in protocol):
        values = [sorted({str(protocol.get(name)) for protocol in protocols}) for protocols in runs]
        if name != "seed" and values[0] != values[1]:
            lines.append(f"{name} {'/'.join(values[0])} → {'/'.join(values[1])}")
    return lines
