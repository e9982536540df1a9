"""The cost of each cell from run to run, and where its level changed. Pure except `load`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from vbench.errors import UsageError
from vbench.options import shown
from vbench.plan import Case, case_of
from vbench.results import store
from vbench.results.changes import FEWEST, changes
from vbench.results.frame import commit, frame, rows_of
from vbench.results.machines import Machine, differences, machine
from vbench.results.ratios import BATCHES, Ratio, ratio
from vbench.results.store import Record

Key = tuple[Any, ...]  # of a series: the number of its machine, its case_id, and the columns of `_parting`
WHATS = ("latency_ms", "peak_memory_bytes", "energy_j_per_image", "params", "macs", "macs_executed")


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one folder under the same conditions and commit, no launch measured twice."""

    folder: str
    records: tuple[Record, ...]

    @property
    def started_at(self) -> str:
        """When its first launch began, ISO 8601, UTC."""
        return min(record.started_at for record in self.records)

    @property
    def commit(self) -> str | None:
        """The whole hash, with "-dirty" if there were changes; None if it is not known."""
        return commit(self.records[0].host)

    @property
    def surroundings(self) -> dict[str, str]:
        """What may change a cost beside the commit: versions, the GPU's driver, the operating system."""
        host = self.records[0].host
        gpu = host.get("gpu") or {}
        facts = {**host.get("versions", {}), "driver": gpu.get("driver"), "cuda": gpu.get("cuda"), "os": host.get("os")}
        return {name: str(value) for name, value in facts.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Point:
    """A cell in one run: `value` with its interval, in the column's unit. If it is None, `why` says why.

    `commit` is that of the run, or of a user's own model: the whole hash, with "-dirty" if there were changes.
    `basis` says what the interval covers, as in `statistics.Interval`; a "range" is no interval.
    """

    run: Run
    commit: str | None
    value: float | None
    lo: float | None = None
    hi: float | None = None
    basis: str | None = None
    why: str | None = None


Measured = tuple[Point, Mapping[str, Any]]  # a point and its row of the frame


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level at `points[at]`. `ratio` is the new level over the old one.

    `beside` names what else changed between the two runs, as in "torch 2.11.0 → 2.12.0".
    """

    at: int
    before: str | None  # commits
    after: str | None
    ratio: float
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One cell on one machine over time.

    `alone` has the places of single points that belong to no level. `noise` is the standard deviation of the log of the
    cost about its level. `last_over_first` is None with fewer than two values. `note` says why no changes were looked
    for.
    """

    machine: str
    cell: str
    family: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...]
    alone: tuple[int, ...]
    noise: float | None
    last_over_first: Ratio | None
    note: str | None

    @property
    def measured(self) -> tuple[Point, ...]:
        """The points that have a value."""
        return tuple(point for point in self.points if point.value is not None)

    def levels(self) -> list[tuple[int, int, float]]:
        """(first place, last place, geometric mean) of each level; empty without a value."""
        values = {n: point.value for n, point in enumerate(self.points) if point.value and n not in self.alone}
        levels = []
        for start, stop in pairwise([0, *(step.at for step in self.steps), len(self.points)]):
            own = [n for n in values if start <= n < stop]
            if own:
                levels.append((own[0], own[-1], exp(np.mean([log(values[n]) for n in own]))))
        return levels


def load(folder: Path) -> list[Run]:
    """All runs below a folder, the oldest first.

    Raises: UsageError if there is none; SchemaError, OutputError as `store.read`.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one that holds --out folders of sweeps")
    runs: list[Run] = []
    for file in sorted(folder.rglob(store.FILE)):
        name = folder.name if file.parent == folder else str(file.parent.relative_to(folder))
        runs += runs_of(store.read(file.parent), name)
    if not runs:
        raise UsageError(f"{folder} holds no records: no {store.FILE} in it or in a folder below; give runs of sweeps")
    return sorted(runs, key=_time)


def _time(run: Run) -> tuple[str, str]:
    return run.started_at, run.folder


def runs_of(records: Sequence[Record], folder: str) -> list[Run]:
    """The runs in the records of one folder, in the order of writing.

    A new run begins if the conditions or the commit change, or if a launch that ended ok is measured again.
    """
    runs: list[list[Record]] = []
    done: set[tuple[str, int]] = set()
    for record in records:
        key = (record.case_id, record.launch)
        if not runs or _code(runs[-1][0]) != _code(record) or key in done:
            runs.append([])
            done = set()
        runs[-1].append(record)
        if record.status == "ok":
            done.add(key)
    return [Run(folder, tuple(own)) for own in runs]


def _code(record: Record) -> tuple[Any, ...]:
    return record.conditions, record.host.get("commit"), record.host.get("dirty")


def history(runs: Sequence[Run], what: str = "latency_ms") -> list[Series]:
    """A series for each cell: its `what`, a column of the frame, in these runs in order of time.

    Another machine, number of threads, TF32 or batch begins another series. Another driver, operating system or version
    does not; it is named where a level changes. Unsupported cells are left out.

    Raises: UsageError for a `what` that is not in `WHATS`.
    """
    if what not in WHATS:
        raise UsageError(f"--what: '{shown(what)}' is not one of {', '.join(WHATS)}")
    machines: list[Machine] = []
    gathered: dict[Key, list[Measured]] = defaultdict(list)
    cases: dict[Key, Case] = {}
    for run in sorted(runs, key=_time):
        place = _place(machines, machine(run.records[0].host))
        by_id = {record.case_id: case_of(record.case) for record in run.records}
        for row in rows_of(frame(run.records)):
            if row["status"] == "unsupported":
                continue
            key = (place, row["case_id"], *(row[name] for name in _parting(what)))
            cases[key] = by_id[str(row["case_id"])]
            gathered[key].append((_point(run, row, what), row))
    measured = _with_failures(gathered)
    labels = _labels({key: cases[key] for key in measured}, what)
    names = _machine_names(machines)

    def order(key: Key) -> tuple[Any, ...]:
        case = cases[key]
        return key[0], case.model, case.mode, case.dtype, case.phase, case.height * case.width, labels[key]

    return [_series(names[key[0]], labels[key], measured[key], what) for key in sorted(measured, key=order)]


def _parting(what: str) -> list[str]:
    """The columns, beside machine and case, that begin another series; a cell that failed has no batch."""
    return ["threads", "tf32", *([BATCHES[what]] if what in BATCHES else [])]


def _with_failures(measured: Mapping[Key, list[Measured]]) -> dict[Key, list[Measured]]:
    """The same, with points without a value, whose settings may not be known, in the only series of their case."""
    merged = {key: list(own) for key, own in measured.items() if any(point.value is not None for point, _ in own)}
    with_values = list(merged)
    for key, own in measured.items():
        if key not in with_values:
            home = [other for other in with_values if other[:2] == key[:2]]
            merged.setdefault(home[0] if len(home) == 1 else key, []).extend(own)
    return {key: sorted(own, key=lambda one: _time(one[0].run)) for key, own in merged.items()}


def _place(machines: list[Machine], one: Machine) -> int:
    """The number of this machine, which is added if it is new. The driver does not count."""
    one = {name: value for name, value in one.items() if name != "driver"}
    for number, other in enumerate(machines):
        if not differences(other, one):
            return number
    machines.append(one)
    return len(machines) - 1


def _machine_names(machines: Sequence[Machine]) -> list[str]:
    """The names of machines: the device, and the facts in which machines with that device differ."""
    names = []
    for one in machines:
        like = [other for other in machines if other["device_name"] == one["device_name"]]
        extra = ", ".join(f"{name} {one[name]}" for name in _differing(one, like))
        names.append(str(one["device_name"]) + (f" ({extra})" if extra else ""))
    return names


def _differing(one: Mapping[str, Any], like: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys in which any of the others differs."""
    return [key for key in one if any(other[key] != one[key] for other in like)]


def _labels(cases: Mapping[Key, Case], what: str) -> dict[Key, str]:
    """The names of series; those that would share a name on a machine have their differences in it."""
    parts = {
        key: {"batch": case.batch, "device": case.device, **dict(zip(_parting(what), key[2:], strict=True))}
        for key, case in cases.items()
    }
    labels = {}
    for key, case in cases.items():
        like = [parts[other] for other, one in cases.items() if other[0] == key[0] and str(one) == str(case)]
        extra = [f"{name.replace('_', ' ')} {parts[key][name]}" for name in _differing(parts[key], like)]
        labels[key] = " ".join([str(case), *extra])
    return labels


def _point(run: Run, row: Mapping[str, Any], what: str) -> Point:
    value = row[what]
    commit = row["model_commit"] if row["family"] == "external" else run.commit
    if row["status"] != "ok":
        return Point(run, commit, None, why=f"{row['status']}: {row['reason']}")
    if value is None or value <= 0:
        return Point(run, commit, None, why="not measured" if value is None else f"{value:g} is not above zero")
    basis = row["latency_basis"] if what == "latency_ms" else None
    return Point(run, commit, float(value), row.get(f"{what}_lo"), row.get(f"{what}_hi"), basis)


def _series(machine_name: str, label: str, measured: Sequence[Measured], what: str) -> Series:
    points = tuple(point for point, _ in measured)
    places = [n for n, point in enumerate(points) if point.value is not None]
    rows = [measured[n][1] for n in places]
    changed = changes([log(points[n].value or 1) for n in places])
    alone = tuple(places[n] for n in changed.alone)
    over = ratio(rows[-1], rows[0], what) if len(rows) > 1 else None
    note = f"not looked for: {len(places)} of at least {FEWEST} values" if len(places) < FEWEST else None
    steps = tuple(Step(places[start], None, None, 1.0, ()) for start in changed.starts)
    bare = Series(machine_name, label, str(measured[0][1]["family"]), points, steps, alone, changed.noise, over, note)
    levels = pairwise(bare.levels())
    return replace(
        bare, steps=tuple(_step(points, before[1], after[0], after[2] / before[2]) for before, after in levels)
    )


def _step(points: Sequence[Point], last: int, first: int, over: float) -> Step:
    before, after = points[last], points[first]
    was, is_ = before.run, after.run
    beside = [
        f"{name} {was.surroundings.get(name, 'none')} → {is_.surroundings.get(name, 'none')}"
        for name in dict.fromkeys([*was.surroundings, *is_.surroundings])
        if was.surroundings.get(name) != is_.surroundings.get(name)
    ]
    if was.commit not in (before.commit, is_.commit):  # of a user's own model; vbench changed too
        beside.append(f"vbench's commit {was.commit} → {is_.commit}")
    return Step(first, before.commit, after.commit, over, tuple(beside))
