"""Joins runs: the records of several folders, each once and in order of time. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vbench.cluster.accuracies import Accuracies, only_one
from vbench.cluster.lines import NEWEST, SWEEP, WHOSE, Index, Joined, sources
from vbench.errors import SchemaError, UsageError
from vbench.files import write_text, write_whole, writing
from vbench.results import accuracy
from vbench.results.lock import Lock
from vbench.results.store import FILE

RUN_FILE = "run.json"


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge made: the folder, its launches, blocks of turns and shards of images, and how many of all these were
    not there before."""

    folder: Path
    records: int
    turns: int
    new: int
    accuracies: int = 0


def merge(runs: Sequence[Path], out: Path, keep: str | None = None) -> Merged:
    """Join the records, the turns, the accuracies with their predictions, and `run.json` of runs in the folder `out`.
    What `out` has already stays in it.

    A line that several runs have is kept once. The lines of each run stay in their order, those of several runs are in
    order of time. Each file of `out` appears whole or not at all; nothing is written if nothing is new.

    Args:
        keep: "newest": where runs disagree about a launch, all their records are kept, and the newest counts.

    Returns: how much there is now.

    Raises: UsageError for a folder without records, and for runs that disagree: they hold other records of one launch
        of a cell, or of one shard of images, under the same conditions, and none of them continues the other.
        OutputError if `out` cannot be written or a sweep or an evaluation is writing it; SchemaError for records that
        this version cannot read. Nothing is written.
    """
    if keep not in (None, NEWEST):
        raise UsageError(f"--keep: '{keep}' is not {NEWEST}")
    for run in runs:
        if not (run / FILE).is_file() and not (run / accuracy.FILE).is_file():
            raise UsageError(f"{run} has no {FILE} and no {accuracy.FILE}; give the --out folders of sweeps")
    if not runs:
        raise UsageError("name the folders of sweeps to merge")
    swept = any((run / FILE).is_file() for run in runs)
    joined = [Joined(sources(runs, out, name), name, keep) for name in (SWEEP if swept else ())]  # before `out` is made
    found = Accuracies(runs, out, keep)
    with held(out):
        made = _write(joined, runs, out) if swept else Merged(out, 0, 0, 0)
        if not found.files:
            return made
        with only_one(out):
            return replace(made, new=made.new + found.new, accuracies=found.write())


def merge_held(runs: Sequence[Path], out: Path) -> Merged:
    """As `merge` with "newest", for who holds `out` already."""
    return _write([Joined(sources(runs, out, name), name, NEWEST) for name in SWEEP], runs, out)


def unreadable(run: Path) -> str | None:
    """Why the records of a run cannot be joined; None if they can."""
    try:
        for name in WHOSE:
            if (run / name).is_file():
                Index.of(run / name)
    except SchemaError as error:
        return str(error)
    return None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder, and keep sweeps and merges from writing it meanwhile.

    Raises: OutputError if it cannot be written, or one of them is writing it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder):
        yield


def _write(joined: Sequence[Joined], runs: Sequence[Path], out: Path) -> Merged:
    new = sum(one.new(out) for one in joined)
    with writing(out):
        for one in joined:
            if one.new(out) or (one.name == FILE and not (out / FILE).exists()):
                write_whole(out / one.name, lambda part, one=one: one.to(part))  # type: ignore[misc]
    told = _runs([out, *runs])
    if told != _runs([out]):
        write_text(out / RUN_FILE, json.dumps({"runs": told}, indent=1) + "\n")
    return Merged(out, len(joined[0].order), len(joined[1].order), new)


def _runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What `run.json` of these folders says, each run once, in order of time."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError):
            for run in json.loads((folder / RUN_FILE).read_text())["runs"]:
                if isinstance(run, dict):
                    found.setdefault(json.dumps(run, sort_keys=True), run)
    return sorted(found.values(), key=lambda run: str(run.get("started_at")))
