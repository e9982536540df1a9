"""Runs over time: what each cell cost in each, and where that changed for good. Pure but for `load`."""

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
from vbench.plan import Case
from vbench.results import store
from vbench.results.changes import FEWEST, changes
from vbench.results.frame import commit, frame, rows_of
from vbench.results.machines import Machine, differences, machine
from vbench.results.ratios import BATCHES, Ratio, ratio
from vbench.results.store import Record

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
        """In full, with "-dirty" if there were changes; None if it is not known."""
        return commit(self.records[0].host)

    @property
    def surroundings(self) -> dict[str, str]:
        """What may change a cost beside the commit: versions, the GPU's driver, the kernel."""
        host = self.records[0].host
        gpu = host.get("gpu") or {}
        known = {
            **host.get("versions", {}),
            **{name: gpu.get(name) for name in ("driver", "cuda")},
            "os": host.get("os"),
        }
        return {name: str(value) for name, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Point:
    """A cell in one run. `value` with its interval is in the column's unit; None where `why` says why there is none.

    `basis` says what the interval speaks for, as in `statistics.Interval`; of a range it is no interval.
    """

    run: Run
    value: float | None
    lo: float | None = None
    hi: float | None = None
    basis: str | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A change of level at `points[at]`. `ratio` is the new level over the old; `beside` names what else changed
    between the two runs, as in "torch 2.11.0 → 2.12.0"."""

    at: int
    before: str | None  # commits
    after: str | None
    ratio: float
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One cell on one machine over time.

    `alone` are the places of points off by themselves, of no level; `noise` the standard deviation of the log of the
    cost about its level. `last_over_first` is None with fewer than two values; `note` says what is not told, and why.
    """

    machine: str
    cell: str
    model: str
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
        places = [n for n, point in enumerate(self.points) if point.value is not None and n not in self.alone]
        bounds = [0, *(step.at for step in self.steps), len(self.points)]
        found = []
        for start, stop in pairwise(bounds):
            own = [n for n in places if start <= n < stop]
            if own:
                found.append((own[0], own[-1], exp(np.mean([log(self.points[n].value or 1) for n in own]))))
        return found


def load(folder: Path) -> list[Run]:
    """All runs below a folder, the oldest first.

    Raises: UsageError if there is none; SchemaError, OutputError as `store.read`.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give one that holds --out folders of sweeps")
    files = sorted(folder.rglob(store.FILE))
    found = [run for file in files for run in runs_of(store.read(file.parent), _name(file.parent, folder))]
    if not found:
        raise UsageError(f"{folder} holds no records: no {store.FILE} in it or in a folder below; give runs of sweeps")
    return sorted(found, key=lambda run: (run.started_at, run.folder))


def _name(run: Path, folder: Path) -> str:
    return str(run.relative_to(folder)) if run != folder else folder.name


def runs_of(records: Sequence[Record], folder: str) -> list[Run]:
    """The runs in one folder's records, in the order of writing: another begins with other conditions or another
    commit, or when a launch that had ended ok is measured again."""
    found: list[list[Record]] = []
    done: set[tuple[str, int]] = set()
    for record in records:
        key = (record.case_id, record.launch)
        if not found or _code(found[-1][0]) != _code(record) or key in done:
            found.append([])
            done = set()
        found[-1].append(record)
        if record.status == "ok":
            done.add(key)
    return [Run(folder, tuple(own)) for own in found]


def _code(record: Record) -> tuple[Any, ...]:
    return record.conditions, record.host.get("commit"), record.host.get("dirty")


def history(runs: Sequence[Run], what: str = "latency_ms") -> list[Series]:
    """Each cell's `what`, a column of the frame, through these runs in order of time.

    Another machine, number of threads, TF32 or batch begins another series. Another driver, kernel or version does not;
    it is named where a level changes. Unsupported cells are left out.

    Raises: UsageError for a `what` that is not in `WHATS`.
    """
    if what not in WHATS:
        raise UsageError(f"--what: '{what}' is not one of {', '.join(WHATS)}")
    machines: list[Machine] = []
    found: dict[tuple[Any, ...], list[tuple[Point, Mapping[str, Any]]]] = defaultdict(list)
    cases: dict[tuple[Any, ...], Case] = {}
    for run in sorted(runs, key=lambda run: (run.started_at, run.folder)):
        place = _place(machines, machine(run.records[0].host))
        by_id = {record.case_id: Case(**record.case) for record in run.records}
        for row in rows_of(frame(run.records)):
            if row["status"] == "unsupported":
                continue
            key = (place, row["case_id"], *(row[name] for name in _parting(what)))
            cases[key] = by_id[str(row["case_id"])]
            found[key].append((_point(run, row, what), row))
    found = _with_failures(found)
    labels = _labels({key: cases[key] for key in found}, what)
    names = _machine_names(machines)
    order = sorted(found, key=lambda key: (key[0], *_order(cases[key]), labels[key]))
    return [_series(names[key[0]], labels[key], cases[key].model, found[key], what) for key in order]


def _parting(what: str) -> list[str]:
    """Columns that part series, beside machine and case; a cell that failed has no batch."""
    return ["threads", "tf32", *([BATCHES[what]] if what in BATCHES else [])]


def _with_failures(
    found: Mapping[tuple[Any, ...], list[tuple[Point, Mapping[str, Any]]]],
) -> dict[tuple[Any, ...], list[tuple[Point, Mapping[str, Any]]]]:
    """Points without a value, whose settings may not be known, put into the one series of their case there is."""
    measured = {key: points for key, points in found.items() if any(point.value is not None for point, _ in points)}
    merged = {key: list(points) for key, points in measured.items()}
    for key, points in found.items():
        if key not in measured:
            home = [other for other in measured if other[:2] == key[:2]]
            merged.setdefault(home[0] if len(home) == 1 else key, []).extend(points)
    return {
        key: sorted(points, key=lambda one: (one[0].run.started_at, one[0].run.folder))
        for key, points in merged.items()
    }


def _place(machines: list[Machine], one: Machine) -> int:
    """The number of this machine; a new one is added."""
    one = {name: value for name, value in one.items() if name != "driver"}
    for number, other in enumerate(machines):
        if not differences(other, one):
            return number
    machines.append(one)
    return len(machines) - 1


def _machine_names(machines: Sequence[Machine]) -> list[str]:
    """What each is called: its device, and what tells it from others of the same."""
    found = []
    for one in machines:
        like = [other for other in machines if other["device_name"] == one["device_name"]]
        told = [name for name in one if any(other[name] != one[name] for other in like)]
        extra = ", ".join(f"{name} {one[name]}" for name in told)
        found.append(str(one["device_name"]) + (f" ({extra})" if extra else ""))
    return found


def _order(case: Case) -> tuple[Any, ...]:
    return case.model, case.mode, case.dtype, case.phase, case.height * case.width


def _labels(cases: Mapping[tuple[Any, ...], Case], what: str) -> dict[tuple[Any, ...], str]:
    """The names of series; those that would share one on a machine say in what they differ."""
    parts = {
        key: {"batch": case.batch, "device": case.device, **dict(zip(_parting(what), key[2:], strict=True))}
        for key, case in cases.items()
    }
    found = {}
    for key, case in cases.items():
        like = [parts[other] for other, one in cases.items() if other[0] == key[0] and str(one) == str(case)]
        told = [name for name in parts[key] if any(other[name] != parts[key][name] for other in like)]
        found[key] = " ".join([str(case), *(f"{name.replace('_', ' ')} {parts[key][name]}" for name in told)])
    return found


def _point(run: Run, row: Mapping[str, Any], what: str) -> Point:
    value = row[what]
    if row["status"] != "ok":
        return Point(run, None, why=f"{row['status']}: {row['reason']}")
    if value is None or value <= 0:
        return Point(run, None, why="not measured" if value is None else f"{value:g} is not above zero")
    basis = row["latency_basis"] if what == "latency_ms" else None
    return Point(run, float(value), row.get(f"{what}_lo"), row.get(f"{what}_hi"), basis)


def _series(
    machine_name: str, label: str, model: str, found: Sequence[tuple[Point, Mapping[str, Any]]], what: str
) -> Series:
    points = tuple(point for point, _ in found)
    places = [n for n, point in enumerate(points) if point.value is not None]
    told = changes([log(points[n].value or 1) for n in places])
    alone = tuple(places[n] for n in told.alone)
    rows = [row for point, row in found if point.value is not None]
    over = ratio(rows[-1], rows[0], what) if len(rows) > 1 else None
    note = None
    if len(places) < FEWEST:
        note = f"not looked for: {len(places)} of at least {FEWEST} values"
    bare = Series(machine_name, label, model, points, (), alone, told.noise, over, note)
    steps = tuple(Step(places[start], None, None, 1.0, ()) for start in told.starts)
    levels = replace(bare, steps=steps).levels()
    steps = tuple(_step(points, before[1], after[0], after[2] / before[2]) for before, after in pairwise(levels))
    return replace(bare, steps=steps)


def _step(points: Sequence[Point], last: int, first: int, over: float) -> Step:
    was, is_ = points[last].run, points[first].run
    beside = [
        f"{name} {was.surroundings.get(name, 'none')} → {is_.surroundings.get(name, 'none')}"
        for name in dict.fromkeys([*was.surroundings, *is_.surroundings])
        if was.surroundings.get(name) != is_.surroundings.get(name)
    ]
    return Step(first, was.commit, is_.commit, over, tuple(beside))
