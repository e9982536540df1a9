"""The runs of a page: their records, the name of each run, and machines that are told apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from vbench.errors import UsageError
from vbench.files import is_file
from vbench.results.frame import frame, of_folders
from vbench.results.machines import differences, machine
from vbench.results.store import Record, TurnBlock, reading
from vbench.results.text import listed


@dataclass(frozen=True, slots=True)
class Run:
    """A folder of records, and its name on the page."""

    name: str
    records: list[Record]
    turns: Sequence[TurnBlock] = ()
    damaged: Sequence[str] = ()  # a line for each line of its files that is no record


Where = tuple[str, str]  # of a cell, as in `frame`: the name of its device, and its case


def runs_of(folders: Sequence[Path]) -> list[Run]:
    """The records of each folder. Folders with the same name are shown by their paths.

    Raises: UsageError for a folder without records; SchemaError as `store.read`.
    """
    names = [folder.resolve().name for folder in folders]
    found = []
    for folder, name in zip(folders, names, strict=True):
        there = reading(folder) if is_file(folder / "records.jsonl") else None
        if there is None or not there.records:
            raise UsageError(f"{folder} has no records; give the --out folder of a sweep")
        named = name if names.count(name) == 1 else str(folder)
        found.append(Run(named, there.records, there.turns, tuple(map(str, there.damaged))))
    return told_apart(found)


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with names of devices by which a reader tells one machine from another.

    Two machines may call their device alike. Then the name gets the runs of each: "AMD EPYC [first]".
    """
    machines: dict[str, list[tuple[dict[str, object], list[str]]]] = {}  # name -> each machine, with its runs
    place: dict[tuple[str, int], int] = {}  # name and run -> which of these machines
    for at, run in enumerate(runs):
        for name, host in {str(record.host.get("device_name")): record.host for record in run.records}.items():
            own, known = machine(host), machines.setdefault(name, [])
            same = [number for number, (other, _) in enumerate(known) if not differences(other, own)]
            if not same:
                known.append((own, []))
            place[name, at] = same[0] if same else len(known) - 1
            known[place[name, at]][1].append(run.name)
    several = {name for name, known in machines.items() if len(known) > 1}
    if not several:
        return list(runs)

    def renamed(record: Record, at: int) -> Record:
        name = str(record.host.get("device_name"))
        if name not in several:
            return record
        return replace(
            record, host={**record.host, "device_name": f"{name} [{listed(machines[name][place[name, at]][1])}]"}
        )

    return [replace(run, records=[renamed(record, at) for record in run.records]) for at, run in enumerate(runs)]


def table_of(runs: Sequence[Run]) -> pd.DataFrame:
    """The frame of all records of the runs."""
    table = frame([record for run in runs for record in run.records], [block for run in runs for block in run.turns])
    if damaged := [line for run in runs for line in run.damaged]:
        table.attrs["damaged"] = damaged
    return table


def table_of_folders(folders: Sequence[Path]) -> pd.DataFrame:
    """The frame of all records in these folders, of which some may have none.

    Where two folders are of machines that call their device alike, the machines are told apart: else the records of one
    would count as newer records of the other. A folder is taken to be of the machine of its first record.
    """
    hosts = {folder: host for folder in folders if (host := _first_host(folder / "records.jsonl"))}
    for one, other in combinations(map(machine, hosts.values()), 2):
        if one["device_name"] == other["device_name"] and differences(one, other):
            return table_of(runs_of(list(hosts)))
    return of_folders(folders)


def _first_host(file: Path) -> dict[str, Any] | None:
    """Who measured the first record of a file that can be read; None if there is none."""
    with suppress(OSError), file.open("rb") as lines:
        for line in lines:
            with suppress(ValueError, RecursionError):
                found = json.loads(line)
                if isinstance(found, dict) and isinstance(found.get("host"), dict):
                    return dict(found["host"])
    return None


def where(record: Record) -> Where:
    """The key of a record's cell."""
    return str(record.host.get("device_name")), record.case_id


def origin(runs: Sequence[Run]) -> dict[Where, str]:
    """For each cell the run of its newest record."""
    return {where(record): run.name for run in runs for record in run.records}


def kept(runs: Sequence[Run]) -> list[Record]:
    """The newest record of each cell, sorted by model."""
    newest = {where(record): record for run in runs for record in run.records}
    return [newest[key] for key in sorted(newest, key=lambda key: (newest[key].case["model"], key))]


def launches(records: Iterable[Record]) -> dict[Where, list[Record]]:
    """The launches of each cell that count, in their order: those under the conditions of its newest record."""
    found: dict[Where, dict[str, dict[int, Record]]] = {}
    last: dict[Where, str] = {}
    for record in records:
        key = where(record)
        last[key] = record.conditions
        found.setdefault(key, {}).setdefault(record.conditions, {})[record.launch] = record
    return {key: [own[last[key]][number] for number in sorted(own[last[key]])] for key, own in found.items()}
