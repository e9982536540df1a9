"""The loop of a sweep: it measures launch by launch and block by block, and can resume at any moment.

One file: what is asked, who watches, what is known from before, and the measuring in between.
"""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from math import inf
from pathlib import Path
from typing import Any, Protocol

from vbench import host, jobs, plan
from vbench.devices import on_host
from vbench.errors import DeviceError, UnknownModelError
from vbench.jobs.launch import Ending, Launcher, Runner
from vbench.jobs.lenient import Lenient
from vbench.jobs.memo import Memo
from vbench.meters import cpu
from vbench.models import MODELS
from vbench.plan import Case
from vbench.results import pairs, refine
from vbench.results.frame import frame
from vbench.results.models import of_zoo
from vbench.results.store import Record, Store, TurnBlock, current
from vbench.sweeps import limits
from vbench.sweeps import turns as table
from vbench.sweeps.agenda import Agenda, energy_s
from vbench.sweeps.blocks import Turns
from vbench.sweeps.budget import Budget
from vbench.sweeps.closing import first_error
from vbench.sweeps.companies import AUTO, Company, companies
from vbench.sweeps.floor import Roofs
from vbench.sweeps.prepare import COUNT_LIMIT_S, Preparation, Task
from vbench.sweeps.rest import Rest
from vbench.sweeps.telemetry import Telemetry, watched

COMPILE_LIMIT_S = 600.0  # for compiling, added to the limit of a launch
ENERGY_LIMIT_S = 120.0  # for energy, likewise
REFINED = 2  # times that sizes are added; a machine that is too noisy gets no further by more


class StaleWarning(UserWarning):
    """The records of a folder were measured under other conditions than today's."""


class Observer(Protocol):
    """Who watches a sweep."""

    def planned(self, rest: Rest, tasks: list[Task], protocol: plan.Protocol) -> None:
        """A sweep begins: these tasks come first, then so much is to be measured."""

    def prepares(self, number: int) -> None:
        """The task with that number begins, from 0."""

    def doing(self, what: str) -> None:
        """A launch has begun, or what it needs."""

    def done(self, record: Record, rest: Rest) -> None:
        """A launch has ended; `rest` is how much is still to be measured, as far as that is known."""

    def took_turns(self, block: TurnBlock, known: dict[pairs.Key, pairs.PairedRatio], rest: Rest) -> None:
        """A block of turns has ended; `known` are the ratios of its cells so far."""

    def stopped(self, wishes: list[str]) -> None:
        """The time for the sweep is over; `wishes` say what more time would buy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sweep runs. What it measures is in its cases and its protocol."""

    folder: Path
    device: str  # "cpu" or "cuda:N"
    timeout_s: float = 300.0  # for one launch of one cell
    fresh: bool = False
    retry: bool = False  # measure again what did not end "ok"
    pairs: str = AUTO  # which cells take turns; see `companies`
    refine: bool = False  # add sizes about each crossover
    deadline: float | None = None  # a time of `time.monotonic` at which the sweep must be over
    memory: Path | None = None  # the folder of a `Memo`; None means the user's cache folder
    beside: str | None = None  # what else this command, or other users' jobs, run on this machine meanwhile, in words


@dataclass(slots=True)
class Spent:
    """Where the time of a run went, in seconds. Everything except measured passes and warm-up is overhead."""

    measured_s: float = 0.0
    warmup_s: float = 0.0
    turns_s: float = 0.0  # for blocks of turns, with their processes and warm-ups
    search_s: float = 0.0  # for the largest batch, each probe in its own process
    verify_s: float = 0.0
    count_s: float = 0.0
    cells: set[str] = field(default_factory=set)
    launches: int = 0
    blocks: int = 0  # of turns
    begin: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        if record.status != "unsupported":
            self.launches += 1
            self.cells.add(record.case_id)
        self.measured_s += (record.spent or {}).get("measured_s", 0.0) + energy_s(record)
        self.warmup_s += (record.spent or {}).get("warmup_s", 0.0)

    def summary(self) -> dict[str, Any]:
        """JSON-able. `overhead_s` has `verify_s`, `count_s`, and the time to start processes and build models."""
        wall = time.monotonic() - self.begin
        overhead = wall - self.measured_s - self.warmup_s - self.turns_s - self.search_s
        seconds = {
            "wall_s": wall,
            "measured_s": self.measured_s,
            "warmup_s": self.warmup_s,
            "turns_s": self.turns_s,
            "search_s": self.search_s,
            "overhead_s": overhead,
            "verify_s": self.verify_s,
            "count_s": self.count_s,
            "overhead_s_per_cell": overhead / len(self.cells) if self.cells else None,
        }
        rounded = {key: value if value is None else round(value, 3) for key, value in seconds.items()}
        return {"cells": len(self.cells), "launches": self.launches, "blocks": self.blocks, **rounded}

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time within as `what`."""
        begin = time.monotonic()
        try:
            yield
        finally:
            setattr(self, what, getattr(self, what) + time.monotonic() - begin)


def probe(cases: Iterable[Case], device: str, launcher: Runner) -> dict[str, Any] | None:
    """What torch says of the device, None on the CPU; checks that models of timm and of a user's own are there.

    Raises: DeviceError, UnknownModelError.
    """
    models = sorted({case.model for case in cases if case.model not in MODELS})
    if on_host(device) and not models:
        return None
    ending = launcher.run(*jobs.probe(device, models), COUNT_LIMIT_S)
    if ending.status != "ok" and "model" in ending.parts:
        raise UnknownModelError(f"{ending.parts['model']}: importing it failed: {ending.reason}")
    if ending.status != "ok":
        raise DeviceError(f"{device} could not be asked: {ending.reason}; see 'vbench doctor'")
    gpu: dict[str, Any] | None = ending.parts["gpu"]
    return gpu


def memo_of(cases: list[Case], device: str, launcher: Runner) -> Memo:
    """What is remembered of these cells, whatever the time and the protocol. Raises: as `probe`."""
    about = _fingerprint(cases, device, probe(cases, device, launcher))
    return Memo(Lenient(launcher), _timeless(about))


def tasks(cases: list[Case], launcher: Runner, memo: Memo) -> list[Task]:
    """What a sweep of these cases into a new folder would find out before it measures."""
    return Preparation(cases, Lenient(launcher), memo).tasks(cases)


def _fingerprint(cases: list[Case], device: str, gpu: dict[str, Any] | None) -> dict[str, Any]:
    models, backends = sorted({case.model for case in cases}), sorted({case.backend for case in cases})
    return host.fingerprint(device, gpu, models, backends)


def _timeless(about: dict[str, Any]) -> str:
    """The conditions of what does not depend on time, nor on the protocol."""
    return host.conditions(about, {})


def final(record: Record, settings: Settings) -> bool:
    """Whether a launch need not be measured again under the same conditions.

    A time-out is final only if its limit was at least today's. With `settings.retry` only "ok" and "unsupported" are.
    """
    if record.status in ("ok", "unsupported"):
        return True
    enough = record.status != "timeout" or record.timeout_s >= settings.timeout_s
    return enough and not settings.retry


def run(
    cases: list[Case],
    settings: Settings,
    protocol: plan.Protocol,
    launcher: Runner,
    observer: Observer,
    *,
    gpu: dict[str, Any] | None = None,
) -> list[Record]:
    """Measure every launch of every case that is not finished, and the turns of cells that are compared.

    Then sizes are added about each crossover that is not sharp (`results.refine`). Each record is on disk before the
    next launch starts, so the same call resumes after any interruption. Where the time went is added to `run.json`.

    Returns: all records of the folder.

    Raises: OutputError, SchemaError before anything is measured.
    """
    about = _fingerprint(cases, settings.device, gpu)
    conditions = host.conditions(about, asdict(protocol))
    started = datetime.now(UTC)
    opened, watching = Store(settings.folder, fresh=settings.fresh), watched(settings.device, launcher)
    with first_error(opened) as store, first_error(watching) as telemetry:
        held = _held(cases, store.records, conditions, settings)
        together = companies(cases, settings.pairs)
        blocks = _blocks(together, store.turns, conditions, settings)
        _warn_of_stale(cases, store, conditions, held)
        agenda = Agenda(list(cases), together, protocol, held, blocks)
        budget = None if settings.deadline is None else Budget(agenda, settings.deadline, time.monotonic)
        measuring = _Measuring(agenda, settings, launcher, observer, about, conditions, telemetry)
        measuring.known.recall(record for launches in held.values() for record in launches.values())
        try:
            for number in count():
                measuring.prepare()
                while (task := (budget or agenda).next()) is not None:
                    if isinstance(task, Turns):
                        measuring.turns(task, store)
                    else:
                        measuring.launch(*task, store)
                added = _refined(agenda, store, settings) if settings.refine and number < REFINED else []
                if not added:
                    break
                more = companies(added, settings.pairs)
                known = _held(added, store.records, conditions, settings)
                agenda.add(added, more, known, _blocks(more, store.turns, conditions, settings))
            if budget:
                measuring.give_up(budget, store)
        except BaseException:
            with suppress(Exception):  # an error here would hide the first one
                measuring.sum_up(started, store, complete=False)
            raise
        measuring.sum_up(started, store, complete=not (budget and budget.wishes()))
        return store.records


def _held(
    cases: list[Case], records: list[Record], conditions: str, settings: Settings
) -> dict[str, dict[int, Record]]:
    """The launches that need not be measured again, by case and number."""
    known = current(records)
    return {
        case.id: {
            launch: record
            for launch, record in known.get(case.id, {}).items()
            if record.conditions == conditions and final(record, settings)
        }
        for case in cases
    }


def _blocks(
    together: list[Company], blocks: list[TurnBlock], conditions: str, settings: Settings
) -> dict[str, dict[int, TurnBlock]]:
    """The blocks of turns that need not be measured again, by company and number."""
    known = pairs.current(blocks)
    return {
        company.id: {
            number: block
            for number, block in known.get(company.id, {}).items()
            if block.conditions == conditions and (block.status == "ok" or not settings.retry)
        }
        for company in together
    }


def _warn_of_stale(cases: list[Case], store: Store, conditions: str, held: dict[str, dict[int, Record]]) -> None:
    stale = {record.case_id for record in store.records if record.conditions != conditions}
    if count := sum(case.id in stale and not held[case.id] for case in cases):
        warnings.warn(
            f"{count} cells were measured under other conditions (device, versions, code or protocol); "
            "they are measured again",
            StaleWarning,
            stacklevel=3,
        )


def _refined(agenda: Agenda, store: Store, settings: Settings) -> list[Case]:
    """The cells to add about crossovers that are not sharp."""
    conditions = {record.conditions for launches in agenda.held.values() for record in launches.values()}
    return refined(agenda.cases, store.records, store.turns, conditions)


def refined(
    measured: list[Case], lines: Iterable[Record], blocks: Iterable[TurnBlock], conditions: Container[str]
) -> list[Case]:
    """The cells to add about crossovers of these cells that are not sharp, by what was measured under `conditions`."""
    ids = {case.id for case in measured}
    records = [record for record in lines if record.case_id in ids and record.conditions in conditions]
    cases = {record.case_id: Case(**record.case) for record in records}
    turns = [block for block in blocks if block.conditions in conditions and set(block.case_ids) <= ids]
    found = [
        replace(cases[like], height=wanted.side, width=wanted.side)
        for wanted in (refine.wanted(frame(records, turns)) if records else [])
        for like in wanted.like
    ]
    return [case for case in dict.fromkeys(found) if case.id not in ids]


@dataclass(slots=True)
class _Measuring:
    """The state that all launches of a run share."""

    agenda: Agenda
    settings: Settings
    launcher: Runner
    observer: Observer
    host: dict[str, Any]
    conditions: str
    telemetry: Telemetry | None
    spent: Spent = field(default_factory=Spent)
    runner: Lenient = field(init=False)
    known: Preparation = field(init=False)
    roofs: Roofs = field(init=False)
    reference_mhz: float | None = None
    served: set[str] = field(default_factory=set)  # companies whose blocks came from the server that runs now
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        protocol = self.protocol
        self.chance = random.Random(protocol.seed)
        self.runner = Lenient(self.launcher)
        self.roofs = Roofs(self.runner.run, self.settings.device, protocol.threads, protocol.tf32)
        memo = Memo(self.runner, _timeless(self.host), self.settings.memory)
        limit_s = self.settings.timeout_s
        self.known = Preparation(self.agenda.cases, self.runner, memo, lambda: self.left_s, limit_s)

    @property
    def protocol(self) -> plan.Protocol:
        return self.agenda.protocol

    @property
    def left_s(self) -> float:
        """The seconds until the sweep must be over."""
        return inf if self.settings.deadline is None else max(0.0, self.settings.deadline - time.monotonic())

    def prepare(self) -> None:
        """Verify the models of what is still to be measured, and count the work of its cells."""
        left = {task[0] for task in self.agenda.rest() if not isinstance(task, Turns)}
        wanted = [case for case in self.agenda.cases if case in left]
        self.observer.planned(self.agenda.left, self.known.tasks(wanted), self.protocol)
        self.known.run(wanted, self.observer.prepares)
        self.spent.verify_s, self.spent.count_s = self.known.seconds["verifying"], self.known.seconds["counting"]

    def sum_up(self, started: datetime, store: Store, *, complete: bool) -> None:
        """Add a summary of this run to `run.json`, if it has measured anything."""
        if self.spent.launches or self.spent.blocks:
            about = {"started_at": started.isoformat(timespec="seconds"), "seed": self.protocol.seed}
            about |= {"complete": complete, "conditions": self.conditions}
            store.add_run({**about, **self.spent.summary(), "roofs": self.roofs.measured})

    def launch(self, case: Case, launch: int, store: Store) -> None:
        """Measure one launch of a case and keep it. A later launch only times the case, unless none has."""
        held = self.agenda.held[case.id]
        possible = not case.unsupported
        if possible:
            self.known.run([case])  # a cell whose turns failed in a resumed sweep is none of those that were prepared
        stamp = self.known.stamp(case) if possible else None
        counted: dict[str, Any] = self.known.count(case) if possible else {"unsupported": case.unsupported}
        whole = not any(record.latency for record in held.values())
        batch, probes = self.batch(case) if possible and whole else (None, None)
        self.observer.doing(str(case))
        common, begin = self.about(), time.monotonic()
        if "unsupported" in counted:
            ending = Ending("unsupported", counted["unsupported"])
        else:
            in_turns = self.agenda.in_turns(case) and not held
            ending = self.measure(case, batch, whole=whole, in_turns=in_turns)
        wall_s = round(time.monotonic() - begin, 3)
        parts: dict[str, Any] = {key: counted[key] for key in ("work", "second_count") if key in counted} | ending.parts
        if floor := self.roofs.floor(case, parts.get("work"), parts.get("latency")):
            parts["floor"] = floor
        uncounted = None if ending.status == "unsupported" else counted.get("uncounted")
        if probes and "throughput" in parts:
            parts["throughput"] = {**parts["throughput"], "probes": probes}
        record = Record(
            case_id=case.id,
            case=asdict(case),
            launch=launch,
            order=self.agenda.places.get((case, launch), len(store.records)),
            status=ending.status,
            reason="; ".join(filter(None, [ending.reason, uncounted])) or None,
            wall_s=wall_s,
            verified=stamp,
            zoo=of_zoo(case.model, case.height, case.width),
            **common,
            **parts,
        )
        clock = ((record.state or {}).get("gpu") or {}).get("sm_mhz_median")
        self.reference_mhz = max(filter(None, (self.reference_mhz, clock)), default=None)
        self.spent.add(record)
        if launch == 0 or not self.cut_short(record.status):
            self.observer.done(self.keep(record, store), self.agenda.left)

    def turns(self, task: Turns, store: Store) -> None:
        """Measure a block of turns and keep it, with a launch of each slow cell, which these turns timed."""
        self.observer.doing(f"in turns: {task.company}")
        if task.whole % task.span == 0:
            if task.company.id in self.served and isinstance(self.launcher, Launcher):
                self.launcher.renew()
                self.served.clear()
            self.served.add(task.company.id)
        common, begin = self.about(), time.monotonic()
        compiling = COMPILE_LIMIT_S if any(case.compiles for case in task.cases) else 0.0
        core, allowed_s = self.chance.randrange(cpu.usable_cores()), self.settings.timeout_s + compiling
        taken = table.take(task, self.protocol, self.runner, core=core, allowed_s=allowed_s, most_s=self.left_s)
        block = table.block(task, taken, wall_s=round(time.monotonic() - begin, 3), order=self.spent.blocks, **common)
        self.spent.blocks += 1
        self.spent.turns_s += block.wall_s
        if self.cut_short(block.status):
            return
        block = store.append_turns(block)
        self.agenda.keep_block(task.company, block)
        for case, ending in zip(task.cases, taken.endings, strict=True) if taken.samples_ms else []:
            if self.agenda.timed_by_turns(case):
                record = table.launch(case, ending, self.agenda.held[case.id], **common)
                self.keep(replace(record, floor=self.roofs.floor(case, record.work, record.latency)), store)
        self.observer.took_turns(block, self.agenda.ratios(task.company), self.agenda.left)

    def keep(self, record: Record, store: Store) -> Record:
        """Write a record. Returns: the record as it was written."""
        record = store.append(record)
        self.agenda.keep(record)
        return record

    def cut_short(self, status: str) -> bool:
        """Whether something ended because the time of the sweep was over."""
        return status == "timeout" and self.left_s <= 0

    def give_up(self, budget: Budget, store: Store) -> None:
        """Give each cell that was not measured a row with the reason, and say what more time would buy."""
        wishes = budget.wishes()
        for case, seconds in budget.unmeasured():
            reason = f"not measured: the time of the sweep was over; it takes about {seconds:.0f} s"
            about = {**self.about(), "timeout_s": 0.0}  # any other limit is longer
            zoo = of_zoo(case.model, case.height, case.width)
            number = len(store.records)
            record = Record(case.id, asdict(case), 0, number, "timeout", reason, wall_s=0.0, zoo=zoo, **about)
            self.observer.done(self.keep(record, store), Rest())
        self.observer.stopped(wishes)

    def about(self) -> dict[str, Any]:
        """The fields of a record that tell what was there when it began."""
        return {
            "conditions": self.conditions,
            "protocol": asdict(self.protocol),
            "host": self.host,
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "timeout_s": min(self.settings.timeout_s, self.left_s),
            "load": host.load() | ({"beside": self.settings.beside} if self.settings.beside else {}),
        }

    def measure(self, case: Case, batch: int | None, *, whole: bool, in_turns: bool) -> Ending:
        """One launch, in a child of its own. Energy is not under the limit of a cell, and costs it nothing else."""
        launch = 0 if whole else 1
        ask = jobs.measure(case, self.protocol, launch=launch, batch=batch, watch=self.watch(), in_turns=in_turns)
        allowed_s = self.settings.timeout_s + (COMPILE_LIMIT_S if case.compiles else 0.0)
        allowed_s += ENERGY_LIMIT_S if self.protocol.energy_s else 0.0
        ending = self.runner.run(*ask, min(allowed_s, self.left_s))
        if ending.status == "timeout" and "spent" in ending.parts:  # energy alone is missing
            reason = f"not measured: energy {ending.reason} with the rest"
            return Ending("ok", None, {**ending.parts, "energy": {"reason": reason}})
        return ending

    def watch(self) -> dict[str, Any] | None:
        """What a launch needs to know about the GPU's sampler. It expects the fastest clock of earlier launches."""
        if self.telemetry is None:
            return None
        return {"uuid": self.telemetry.uuid, "file": str(self.telemetry.file), "reference_mhz": self.reference_mhz}

    def batch(self, case: Case) -> tuple[int | None, list[dict[str, Any]] | None]:
        """The batch for throughput, and the probes that found it; (None, None) if the launch itself looks for it.

        For `--batch max` it is the largest that fits.
        """
        if case.batch != "max":
            return None, None
        self.observer.doing(f"{case}: looking for the largest batch")
        with self.spent.on("search_s"):
            limit = limits.largest_batch(case, self.launcher, self.protocol.threads)
        return (limit.fits.size if limit.fits else 1), [asdict(probe) for probe in limit.probes]
