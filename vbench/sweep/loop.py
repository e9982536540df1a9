"""The loop of a sweep: it measures launch by launch and block by block, and can resume at any moment."""

from __future__ import annotations

import json
import random
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from vbench import host, jobs, plan, verify
from vbench.devices import kind_of, on_host
from vbench.errors import DeviceError
from vbench.files import write_text
from vbench.jobs.launch import Ending, Runner
from vbench.jobs.memo import Memo
from vbench.meters import cpu, state, timing
from vbench.models import MODELS
from vbench.plan import Case
from vbench.results import pairs
from vbench.results.store import Record, Store, TurnBlock, current
from vbench.sweep import limits
from vbench.sweep import turns as table
from vbench.sweep.agenda import Agenda, Place, Turns, energy_s
from vbench.sweep.companies import AUTO, Company, companies

COUNT_LIMIT_S = 120.0
COMPILE_LIMIT_S = 600.0  # for compiling, added to the limit of a launch
ENERGY_LIMIT_S = 120.0  # for energy, likewise
RUN_FILE = "run.json"


class StaleWarning(UserWarning):
    """The records of a folder were measured under other conditions than today's."""


class Observer(Protocol):
    """Who watches a sweep."""

    def doing(self, what: str) -> None:
        """Something other than a launch has begun."""

    def done(self, record: Record, rest: list[Place | Turns]) -> None:
        """A launch has ended; `rest` is what is still to be measured, as far as that is known."""

    def took_turns(
        self, block: TurnBlock, known: dict[pairs.Key, pairs.PairedRatio], rest: list[Place | Turns]
    ) -> None:
        """A block of turns has ended; `known` are all ratios so far."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sweep runs. What it measures is in its cases and its protocol."""

    folder: Path
    device: str  # "cpu" or "cuda:N"
    timeout_s: float = 300.0  # for one launch of one cell
    fresh: bool = False
    retry: bool = False  # measure again what did not end "ok"
    pairs: str = AUTO  # which cells take turns; see `companies`
    memory: Path | None = None  # the folder of a `Memo`; None means the user's cache folder


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
    if ending.status != "ok":
        raise DeviceError(f"{device} could not be asked: {ending.reason}; see 'vbench doctor'")
    gpu: dict[str, Any] | None = ending.parts["gpu"]
    return gpu


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
    """Measure every launch of every case that is not finished. Returns all records of the folder.

    Each record is on disk before the next launch starts, so the same call resumes after any interruption. Where the
    time went is added to `run.json`.

    Raises: OutputError, SchemaError before anything is measured.
    """
    about = host.fingerprint(settings.device, gpu, sorted({case.model for case in cases}))
    conditions = host.conditions(about, asdict(protocol))
    started = datetime.now(UTC)
    with Store(settings.folder, fresh=settings.fresh) as store, _telemetry(settings.device, launcher) as telemetry:
        held = _held(cases, store.records, conditions, settings)
        together = companies(cases, settings.pairs)
        blocks = _blocks(together, store.turns, conditions, settings)
        _warn_of_stale(cases, store, conditions, held)
        agenda = Agenda(cases, together, protocol, held, blocks)
        places = agenda.places
        measuring = _Measuring(cases, settings, protocol, launcher, observer, about, conditions, telemetry)
        measuring.recall(record for launches in held.values() for record in launches.values())
        complete = False
        try:
            while (task := agenda.next()) is not None:
                if isinstance(task, Turns):
                    block, timed = measuring.turns(task, agenda)
                    store.append_turns(block)
                    blocks.setdefault(block.company, {})[block.block] = block
                    for record in timed:
                        store.append(record)
                        held[record.case_id][record.launch] = record
                    known = pairs.paired(one for own in blocks.values() for one in own.values())
                    observer.took_turns(block, known, agenda.rest())
                else:
                    case, launch = task
                    order = places.get(task, len(store.records))
                    record = measuring.launch(case, launch, order, held[case.id], in_turns=agenda.in_turns(case))
                    store.append(record)
                    held[case.id][launch] = record
                    observer.done(record, agenda.rest())
            complete = True
        finally:
            if measuring.spent.launches or measuring.spent.blocks:
                summary = measuring.spent.summary()
                about_run = {"started_at": started.isoformat(timespec="seconds"), "seed": protocol.seed}
                _add_run(settings.folder, {**about_run, "complete": complete, "conditions": conditions, **summary})
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


@dataclass(slots=True)
class _Measuring:
    """The state that all launches of a run share."""

    cases: list[Case]
    settings: Settings
    protocol: plan.Protocol
    launcher: Runner
    observer: Observer
    host: dict[str, Any]
    conditions: str
    telemetry: Telemetry | None
    spent: Spent = field(default_factory=Spent)
    verdicts: dict[str, verify.Verification] = field(default_factory=dict)
    memo: Memo = field(init=False)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamps: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    reference_mhz: float | None = None
    chance: random.Random = field(init=False)

    @property
    def trains(self) -> bool:
        """Whether any cell is a training step, so that gradients matter."""
        return any(case.phase == "train" for case in self.cases)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.protocol.seed)
        self.memo = Memo(self.launcher, host.conditions(self.host, {}), self.settings.memory)

    def recall(self, records: Iterable[Record]) -> None:
        """Take over the verification of records that were measured under the same conditions."""
        self.stamps |= {record.case["model"]: record.verified for record in records if record.verified}

    def launch(self, case: Case, launch: int, order: int, held: dict[int, Record], *, in_turns: bool) -> Record:
        """Measure one launch of a case.

        Args:
            held: its launches so far. A later launch only times it, unless none has.
            in_turns: whether turns will time it, if it is slow.
        """
        possible = not case.unsupported
        stamp = self.stamp(case) if possible else None
        counted: dict[str, Any] = self.count(case) if possible else {"unsupported": case.unsupported}
        whole = not any(record.latency for record in held.values())
        batch, probes = self.batch(case) if possible and whole else (None, None)
        self.observer.doing(str(case))
        started, begin, load = datetime.now(UTC), time.monotonic(), host.load()
        if "unsupported" in counted:
            ending = Ending("unsupported", counted["unsupported"])
        else:
            ending = self.measure(case, batch, whole=whole, in_turns=in_turns and not held)
        parts: dict[str, Any] = {key: counted[key] for key in ("work", "second_count") if key in counted} | ending.parts
        if probes and "throughput" in parts:
            parts["throughput"] = {**parts["throughput"], "probes": probes}
        record = Record(
            case_id=case.id,
            case=asdict(case),
            launch=launch,
            order=order,
            status=ending.status,
            reason="; ".join(filter(None, [ending.reason, counted.get("uncounted")])) or None,
            conditions=self.conditions,
            protocol=asdict(self.protocol),
            host=self.host,
            started_at=started.isoformat(timespec="seconds"),
            wall_s=round(time.monotonic() - begin, 3),
            timeout_s=self.settings.timeout_s,
            load=load,
            verified=stamp,
            **parts,
        )
        self.spent.add(record)
        clock = ((record.state or {}).get("gpu") or {}).get("sm_mhz_median")
        self.reference_mhz = max(filter(None, (self.reference_mhz, clock)), default=None)
        return record

    def stamp(self, case: Case) -> dict[str, Any] | None:
        """Whether a model's modes are one function; None if it has one form only. An operator is verified once."""
        if case.spec.baseline:
            return None
        if case.model not in self.stamps:
            subjects = verify.subjects([case.model])
            for subject in subjects:
                if subject not in self.verdicts:
                    self.observer.doing(f"verifying {subject}")
                    with self.spent.on("verify_s"):
                        self.verdicts[subject] = verify.verify(
                            subject,
                            self.memo,
                            device=case.device,
                            gradients=self.trains,
                            image_size=(case.height, case.width),
                        )
            self.stamps[case.model] = verify.stamp([self.verdicts[subject] for subject in subjects])
        return self.stamps[case.model]

    def turns(self, task: Turns, agenda: Agenda) -> tuple[TurnBlock, list[Record]]:
        """Measure a block of turns. Returns it, and a launch of each of its slow cells, which these turns timed."""
        self.observer.doing(f"in turns: {task.company}")
        started, begin, load = datetime.now(UTC), time.monotonic(), host.load()
        compiling = COMPILE_LIMIT_S if any(case.backend == "compile" for case in task.cases) else 0.0
        core = self.chance.randrange(cpu.usable_cores())
        taken = table.take(
            task, self.protocol, self.launcher, core=core, timeout_s=self.settings.timeout_s, warm_s=compiling
        )
        wall_s = round(time.monotonic() - begin, 3)
        common: dict[str, Any] = {
            "conditions": self.conditions,
            "protocol": asdict(self.protocol),
            "host": self.host,
            "started_at": started.isoformat(timespec="seconds"),
            "timeout_s": self.settings.timeout_s,
            "load": load,
        }
        latencies = [ending.parts.get("latency", {}) for ending in taken.endings]
        block = TurnBlock(
            company=task.company.id,
            block=task.block,
            case_ids=[case.id for case in task.cases],
            cases=[asdict(case) for case in task.cases],
            order=self.spent.blocks,
            status=taken.status,
            reason=taken.reason(task.cases),
            wall_s=wall_s,
            samples_ms=taken.samples_ms,
            batches=[latency.get("batch", 1) for latency in latencies] if taken.samples_ms else None,
            calls=taken.calls,
            stop=taken.stop,
            **common,
        )
        self.spent.blocks += 1
        self.spent.turns_s += wall_s
        timed = []
        for case, ending in zip(task.cases, taken.endings, strict=True) if taken.samples_ms else []:
            held = agenda.held[case.id]
            untimed = not any(record.latency for record in held.values())
            if agenda.in_turns(case) and (untimed or (agenda.slow(case) and len(held) < self.protocol.launches)):
                first, latency = held[0], ending.parts["latency"]
                timed.append(
                    Record(
                        case_id=case.id,
                        case=asdict(case),
                        launch=max(held) + 1,
                        order=first.order,
                        status="ok",
                        reason=None,
                        wall_s=round(sum(ending.parts["spent"].values()), 3),
                        verified=first.verified,
                        work=first.work,
                        second_count=first.second_count,
                        latency=latency,
                        throughput=timing.of_single_calls(latency) if first.throughput is None else None,
                        **{key: ending.parts[key] for key in ("settings", "warmup", "spent")},
                        **common,
                    )
                )
        return block, timed

    def measure(self, case: Case, batch: int | None, *, whole: bool, in_turns: bool) -> Ending:
        """One launch, in a child of its own. Energy is not under the limit of a cell, and costs it nothing else."""
        launch = 0 if whole else 1
        ask = jobs.measure(case, self.protocol, launch=launch, batch=batch, watch=self.watch(), in_turns=in_turns)
        allowed_s = self.settings.timeout_s + (COMPILE_LIMIT_S if case.backend == "compile" else 0.0)
        allowed_s += ENERGY_LIMIT_S if self.protocol.energy_s else 0.0
        ending = self.launcher.run(*ask, allowed_s)
        if ending.status == "timeout" and "spent" in ending.parts:  # energy alone is missing
            reason = f"not measured: energy {ending.reason} with the rest"
            return Ending("ok", None, {**ending.parts, "energy": {"reason": reason}})
        return ending

    def count(self, case: Case) -> dict[str, Any]:
        """The work of a case, counted together with the model's other cases; or "uncounted", why there is no count."""
        same_model = [other for other in self.cases if other.model == case.model and not other.unsupported]
        for together in (same_model, [case]):  # alone, if another case ended the process
            if case.id in self.counts:
                break
            with self.spent.on("count_s"):
                ending = self.memo.run(*jobs.count(together), COUNT_LIMIT_S * len(together))
            self.counts |= ending.parts
        else:
            self.counts.setdefault(case.id, {"uncounted": f"MACs not counted: {ending.reason}"})
        return self.counts[case.id]

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


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What watches the GPU while a run lasts: NVML's name of it, and the file that a sibling process writes."""

    uuid: str
    file: Path


@contextmanager
def _telemetry(device: str, launcher: Runner) -> Iterator[Telemetry | None]:
    """A `state.Sampler` of the GPU, while the run lasts; None for a device that nothing watches."""
    if not kind_of(device).watched:
        yield None
        return
    asked = launcher.run(*jobs.identify(device), COUNT_LIMIT_S)
    if asked.status != "ok":
        raise DeviceError(f"{device} could not be asked for its name: {asked.reason}; see 'vbench doctor'")
    uuid = asked.parts["uuid"]
    with tempfile.TemporaryDirectory(prefix="vbench-") as folder, state.Sampler(uuid, Path(folder)) as sampler:
        yield Telemetry(uuid, sampler.file)


def _add_run(folder: Path, summary: dict[str, Any]) -> None:
    """Add the summary of a run to `run.json`."""
    path = folder / RUN_FILE
    try:
        runs = json.loads(path.read_text())["runs"]
    except (OSError, ValueError, KeyError):
        runs = []
    write_text(path, json.dumps({"runs": [*runs, summary]}, indent=1) + "\n")
