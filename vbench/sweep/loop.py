"""The loop of a sweep: it measures launch by launch, and can resume at any moment."""

from __future__ import annotations

import json
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
from vbench.meters import state
from vbench.models import MODELS
from vbench.plan import Case
from vbench.results.store import Record, Store, current
from vbench.sweep import limits
from vbench.sweep.floor import Roofs

COUNT_LIMIT_S = 120.0
COMPILE_LIMIT_S = 600.0  # for compiling, added to the limit of a launch
ENERGY_LIMIT_S = 120.0  # for energy, likewise
RUN_FILE = "run.json"
Place = tuple[Case, int]  # a case, and which launch of it


class StaleWarning(UserWarning):
    """The records of a folder were measured under other conditions than today's."""


class Observer(Protocol):
    """Who watches a sweep."""

    def doing(self, what: str) -> None:
        """Something other than a launch has begun."""

    def done(self, record: Record, rest: list[Place]) -> None:
        """A launch has ended; `rest` is what is still to be measured."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sweep runs. What it measures is in its cases and its protocol."""

    folder: Path
    device: str  # "cpu" or "cuda:N"
    timeout_s: float = 300.0  # for one launch of one cell
    fresh: bool = False
    retry: bool = False  # measure again what did not end "ok"
    memory: Path | None = None  # the folder of a `Memo`; None means the user's cache folder


@dataclass(slots=True)
class Spent:
    """Where the time of a run went, in seconds. Everything except measured passes and warm-up is overhead."""

    measured_s: float = 0.0
    warmup_s: float = 0.0
    search_s: float = 0.0  # for the largest batch, each probe in its own process
    verify_s: float = 0.0
    count_s: float = 0.0
    cells: set[str] = field(default_factory=set)
    launches: int = 0
    begin: float = field(default_factory=time.monotonic)

    def add(self, record: Record) -> None:
        if record.status != "unsupported":
            self.launches += 1
            self.cells.add(record.case_id)
        self.measured_s += (record.spent or {}).get("measured_s", 0.0) + _energy_s(record)
        self.warmup_s += (record.spent or {}).get("warmup_s", 0.0)

    def summary(self) -> dict[str, Any]:
        """JSON-able. `overhead_s` has `verify_s`, `count_s`, and the time to start processes and build models."""
        wall = time.monotonic() - self.begin
        overhead = wall - self.measured_s - self.warmup_s - self.search_s
        seconds = {
            "wall_s": wall,
            "measured_s": self.measured_s,
            "warmup_s": self.warmup_s,
            "search_s": self.search_s,
            "overhead_s": overhead,
            "verify_s": self.verify_s,
            "count_s": self.count_s,
            "overhead_s_per_cell": overhead / len(self.cells) if self.cells else None,
        }
        rounded = {key: value if value is None else round(value, 3) for key, value in seconds.items()}
        return {"cells": len(self.cells), "launches": self.launches, **rounded}

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


def pending(launch: int, held: dict[int, Record], protocol: plan.Protocol) -> bool:
    """Whether a launch of a case is still to be measured; `held` are the launches that were.

    A case is not launched again if it failed, or if its first launch took so long that all launches would exceed
    `protocol.cell_s`.
    """
    if launch in held or any(record.status != "ok" for record in held.values()):
        return False
    return 0 not in held or _again_s(held[0]) * protocol.launches <= protocol.cell_s


def _again_s(first: Record) -> float:
    """The expected seconds of another launch: those of the first one without its search for a batch, and its energy."""
    return first.wall_s - float((first.spent or {}).get("throughput_s", 0.0)) - _energy_s(first)


def _energy_s(record: Record) -> float:
    return float((record.energy or {}).get("wall_s", 0.0))


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
        known = current(store.records)
        held = {
            case.id: {
                launch: record
                for launch, record in known.get(case.id, {}).items()
                if record.conditions == conditions and final(record, settings)
            }
            for case in cases
        }
        stale = {record.case_id for record in store.records if record.conditions != conditions}
        if count := sum(case.id in stale and not held[case.id] for case in cases):
            warnings.warn(
                f"{count} cells were measured under other conditions (device, versions, code or protocol); "
                "they are measured again",
                StaleWarning,
                stacklevel=2,
            )

        def left(places: list[Place]) -> list[Place]:
            return [(case, launch) for case, launch in places if pending(launch, held[case.id], protocol)]

        order = plan.schedule(cases, protocol.launches, protocol.seed)
        places = {place: number for number, place in enumerate(order)}
        measuring = _Measuring(cases, settings, protocol, launcher, observer, about, conditions, telemetry)
        measuring.recall(record for launches in held.values() for record in launches.values())
        rest = left(order)
        try:
            while rest:
                case, launch = rest[0]
                record = measuring.launch(case, launch, places[case, launch], held[case.id].get(0))
                store.append(record)
                held[case.id][launch] = record
                rest = left(rest[1:])
                observer.done(record, rest)
        finally:
            if measuring.spent.launches:
                summary = {**measuring.spent.summary(), "roofs": measuring.roofs.measured}
                about_run = {"started_at": started.isoformat(timespec="seconds"), "seed": protocol.seed}
                _add_run(settings.folder, {**about_run, "complete": not rest, "conditions": conditions, **summary})
        return store.records


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
    roofs: Roofs = field(init=False)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamps: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    reference_mhz: float | None = None

    @property
    def trains(self) -> bool:
        """Whether any cell is a training step, so that gradients matter."""
        return any(case.phase == "train" for case in self.cases)

    def __post_init__(self) -> None:
        protocol = self.protocol
        self.roofs = Roofs(self.launcher.run, self.settings.device, protocol.threads, protocol.tf32)
        self.memo = Memo(self.launcher, host.conditions(self.host, {}), self.settings.memory)

    def recall(self, records: Iterable[Record]) -> None:
        """Take over the verification of records that were measured under the same conditions."""
        self.stamps |= {record.case["model"]: record.verified for record in records if record.verified}

    def launch(self, case: Case, launch: int, order: int, first: Record | None) -> Record:
        """Measure one launch of a case; `first` is the record of the case's first launch, if there is one."""
        possible = not case.unsupported
        stamp = self.stamp(case) if possible else None
        counted: dict[str, Any] = self.count(case) if possible else {"unsupported": case.unsupported}
        batch, probes = self.batch(case, first) if possible else (None, None)
        self.observer.doing(str(case))
        started, begin, load = datetime.now(UTC), time.monotonic(), host.load()
        if "unsupported" in counted:
            ending = Ending("unsupported", counted["unsupported"])
        else:
            ending = self.measure(case, launch, batch)
        wall_s = round(time.monotonic() - begin, 3)
        parts: dict[str, Any] = {key: counted[key] for key in ("work", "second_count") if key in counted} | ending.parts
        if floor := self.roofs.floor(case, parts.get("work"), parts.get("latency")):
            parts["floor"] = floor
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
            wall_s=wall_s,
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

    def measure(self, case: Case, launch: int, batch: int | None) -> Ending:
        """One launch, in a child of its own. Energy is not under the limit of a cell, and costs it nothing else."""
        ask = jobs.measure(case, self.protocol, launch=launch, batch=batch, watch=self.watch())
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

    def batch(self, case: Case, first: Record | None) -> tuple[int | None, list[dict[str, Any]] | None]:
        """The batch for throughput, and the probes that found it; (None, None) if the launch itself looks for it.

        The batch is that of the first launch, or for `--batch max` the largest that fits.
        """
        if first is not None and first.throughput is not None:
            return first.throughput["batch"], None
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
