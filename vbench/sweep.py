"""The loop: Plan -> Measure -> Record, cell by cell, resumable at any moment."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vbench import host, verify
from vbench.errors import DeviceError
from vbench.launch import Ending, Launcher
from vbench.models import spec
from vbench.plan import Case, Protocol
from vbench.results.store import Record, Store

Observer = Callable[[int, Record], None]  # (cells done, the last one's record)
COUNT_LIMIT_S = 120.0


class StaleWarning(UserWarning):
    """A folder's records were measured under conditions that do not hold now."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sweep runs, beside what it measures."""

    folder: Path
    device: str  # "cpu" or "cuda:N"
    timeout_s: float = 300.0  # for measuring one cell
    fresh: bool = False
    retry: bool = False  # measure again what did not end "ok"


def probe(cases: Iterable[Case], device: str, launcher: Launcher) -> dict[str, Any] | None:
    """What CUDA says of the device, None on the CPU; checks the names of timm's models too.

    Raises: DeviceError, UnknownModelError.
    """
    models = sorted({case.model for case in cases if case.model.startswith("timm/")})
    if device == "cpu" and not models:
        return None
    ending = launcher.run("vbench.worker:probe", {"device": device, "models": models}, COUNT_LIMIT_S)
    if ending.status != "ok":
        raise DeviceError(f"{device} could not be asked: {ending.reason}; see 'vbench doctor'")
    gpu: dict[str, Any] | None = ending.parts["gpu"]
    return gpu


def finished(cases: Iterable[Case], records: Iterable[Record], conditions: str, settings: Settings) -> set[str]:
    """The ids of the cases that need no measuring: their newest record was made under the same conditions.

    A time-out counts only if it was allowed as long as it would be now, and nothing but "ok" and
    "unsupported" counts if `settings.retry`.
    """
    newest = {record.case_id: record for record in records}

    def done(record: Record | None) -> bool:
        if record is None or record.conditions != conditions:
            return False
        if record.status in ("ok", "unsupported"):
            return True
        enough = record.status != "timeout" or record.timeout_s >= settings.timeout_s
        return enough and not settings.retry

    return {case.id for case in cases if done(newest.get(case.id))}


def run(
    cases: list[Case],
    settings: Settings,
    protocol: Protocol,
    launcher: Launcher,
    observer: Observer,
    *,
    gpu: dict[str, Any] | None = None,
) -> list[Record]:
    """Measure every case that is not finished; the records of all of the folder.

    Each record is on disk before the next cell starts; whatever interrupts the loop, the same call goes on
    where it ended.

    Raises: OutputError, SchemaError before anything is measured.
    """
    about = host.fingerprint(settings.device, gpu)
    conditions = host.conditions(about, asdict(protocol))
    with Store(settings.folder, fresh=settings.fresh) as store:
        done = finished(cases, store.records, conditions, settings)
        stamps: dict[str, dict[str, Any] | None] = {}
        verdicts: dict[str, verify.Verdict] = {}
        before = {record.case_id for record in store.records if record.conditions != conditions}
        if stale := sum(case.id in before - done for case in cases):
            warnings.warn(
                f"{stale} cells were measured under other conditions (device, versions, code or protocol); "
                "they are measured again",
                StaleWarning,
                stacklevel=2,
            )
        for number, case in enumerate(cases, start=1):
            if case.id in done:
                continue
            if case.model not in stamps:
                stamps[case.model] = _stamp(case, verdicts, launcher)
            started, begin, load = datetime.now(UTC), time.monotonic(), host.load()
            ending = measure(case, settings, protocol, launcher)
            record = Record(
                case_id=case.id,
                case=asdict(case),
                status=ending.status,
                reason=ending.reason,
                conditions=conditions,
                protocol=asdict(protocol),
                host=about,
                started_at=started.isoformat(timespec="seconds"),
                wall_s=round(time.monotonic() - begin, 3),
                timeout_s=settings.timeout_s,
                load=load,
                verified=stamps[case.model],
                **ending.parts,
            )
            store.append(record)
            observer(number, record)
        return store.records


def _stamp(case: Case, verdicts: dict[str, verify.Verdict], launcher: Launcher) -> dict[str, Any] | None:
    """Whether a model's modes are one function; None for one that has a single form. Operators are tried once."""
    if not spec(case.model).operator:
        return None
    wanted = verify.subjects([case.model])
    for subject in wanted:
        if subject not in verdicts:
            verdicts[subject] = verify.verify(subject, launcher, device=case.device)
    return verify.stamp([verdicts[subject] for subject in wanted])


def measure(case: Case, settings: Settings, protocol: Protocol, launcher: Launcher) -> Ending:
    """One cell: its work counted in one child, its cost measured in another."""
    if case.unsupported:
        return Ending("unsupported", case.unsupported)
    counted = launcher.run("vbench.worker:count", {"case": asdict(case)}, COUNT_LIMIT_S)
    if counted.status == "unsupported":
        return counted
    argument = {"case": asdict(case), "protocol": asdict(protocol)}
    measured = launcher.run("vbench.worker:measure", argument, settings.timeout_s)
    reason = measured.reason
    if counted.status != "ok" and "work" not in counted.parts:
        reason = "; ".join(filter(None, [reason, f"MACs not counted: {counted.reason}"]))
    return Ending(measured.status, reason, {**counted.parts, **measured.parts})
