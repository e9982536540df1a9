"""Joins runs: the records of several folders, each once and in order of time. Imports no torch.

A pass over the files keeps some fifty bytes a line; numpy decides what goes where; a second pass copies lines as they
are. So a million records need about 150 MB, however long their lines are.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import warnings
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vbench.errors import OutputError, SchemaError, UsageError
from vbench.files import write_text, write_whole, writing
from vbench.results.lines import DamagedLineWarning
from vbench.results.shapes import SCHEMA
from vbench.results.store import FILE, TURNS

NEWEST = "newest"
RUN_FILE = "run.json"
WHOSE = {FILE: ("case_id", "launch"), TURNS: ("company", "block")}  # what identifies a line, beside its conditions
OPEN_FILES = 64
_KEY = 16  # bytes of a digest


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge made: the folder, its launches and blocks of turns, and how many of them were not there before."""

    folder: Path
    records: int
    turns: int
    new: int


def merge(runs: Sequence[Path], out: Path, keep: str | None = None) -> Merged:
    """Join the records, the turns and `run.json` of runs in the folder `out`. What `out` has already stays in it.

    A line that several runs have is kept once. The lines of each run stay in their order, those of several runs are in
    order of time. Each file of `out` appears whole or not at all; nothing is written if nothing is new.

    Args:
        keep: "newest": where runs disagree about a launch, all their records are kept, and the newest counts.

    Returns: how much there is now.

    Raises: UsageError for a folder without records, and for runs that disagree: they hold other records of one launch
        of a cell, under the same conditions, and none of them continues the other. OutputError if `out` cannot be
        written or a sweep is writing it; SchemaError for records that this version cannot read. Nothing is written.
    """
    if keep not in (None, NEWEST):
        raise UsageError(f"--keep: '{keep}' is not {NEWEST}")
    for run in runs:
        if not (run / FILE).is_file():
            raise UsageError(f"{run} has no {FILE}; give the --out folders of sweeps")
    if not runs:
        raise UsageError("name the folders of sweeps to merge")
    joined = [_Joined(_sources(runs, out, name), name, keep) for name in WHOSE]  # before `out` is made
    with held(out):
        return _write(joined, runs, out)


def merge_held(runs: Sequence[Path], out: Path) -> Merged:
    """As `merge` with "newest", for who holds `out` already."""
    return _write([_Joined(_sources(runs, out, name), name, NEWEST) for name in WHOSE], runs, out)


def unreadable(run: Path) -> str | None:
    """Why the records of a run cannot be joined; None if they can."""
    try:
        for name in WHOSE:
            if (run / name).is_file():
                _Index.of(run / name)
    except SchemaError as error:
        return str(error)
    return None


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder, and keep sweeps and merges of this machine from writing it meanwhile.

    Raises: OutputError if it cannot be written, or one of them is writing it.
    """
    with ExitStack() as stack:
        with writing(folder):
            lock = stack.enter_context((folder / ".lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"another sweep is writing {folder}; wait for it, or use another folder") from None
        except OSError:  # a shared disk without locks
            pass
        yield


def _sources(runs: Sequence[Path], out: Path, name: str) -> list[Path]:
    """The files of that name: of `out` first, then of the runs, each once."""
    files = [folder / name for folder in (out, *runs) if (folder / name).is_file()]
    return list({file.resolve(): file for file in files}.values())


@dataclass(slots=True)
class _Index:
    """Where the lines of one file are, and what identifies each."""

    path: Path
    digests: bytearray = field(default_factory=bytearray)  # of the line
    keys: bytearray = field(default_factory=bytearray)  # of whose it is
    times: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(cls, path: Path) -> _Index:
        """Read a file once. Warns of an incomplete last line. Raises: SchemaError, OutputError."""
        found, offset = cls(path), 0
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    text = line.rstrip(b"\n")
                    known = _identify(text, path.name, f"{path}: line {number}", last=not file.peek(1))
                    if known is None:
                        message = f"{path}: the last line is incomplete and was dropped"
                        warnings.warn(message, DamagedLineWarning, stacklevel=2)
                        break
                    found.digests += _digest(text)
                    found.keys += known[0]
                    found.times.append(known[1])
                    found.places.append(offset)
                    found.lengths.append(len(text))
                    offset += len(line)
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {error.strerror}") from None
        return found


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_KEY).digest()


def _identify(text: bytes, name: str, where: str, *, last: bool) -> tuple[bytes, float] | None:
    """A digest of whose line it is, and its time; None for an incomplete last line. Raises: SchemaError."""
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        if last:
            return None
        raise SchemaError(f"{where} is damaged; repair or remove it, or leave this run out") from None
    if values.get("schema") != SCHEMA:
        raise SchemaError(
            f"{where} has schema {values.get('schema')!r}; this vbench reads {SCHEMA}. Leave this run out"
        )
    whose, number = WHOSE[name]
    if missing := [key for key in (whose, number, "conditions", "started_at") if key not in values]:
        raise SchemaError(f"{where} lacks {', '.join(missing)}; it is not a record of vbench")
    try:
        time = datetime.fromisoformat(values["started_at"]).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        raise SchemaError(f"{where}: started_at is not a time; repair or remove it") from None
    return _digest(json.dumps([values[whose], values[number], values["conditions"]]).encode()), time


class _Joined:
    """The lines of several files of one name, in their new order. Raises: UsageError if they disagree."""

    def __init__(self, files: Sequence[Path], name: str, keep: str | None) -> None:
        self.name = name
        self._indices = [_Index.of(file) for file in files]
        self._counts = [len(index.times) for index in self._indices]
        self._file = np.repeat(np.arange(len(files)), self._counts)
        self._line = np.concatenate([np.arange(count) for count in self._counts] or [np.arange(0)])
        digests, keys = self._numbered("digests"), self._numbered("keys")
        if keep is None:
            self._refuse_conflicts(digests, keys)
        first = np.unique(digests, return_index=True)[1]  # whoever has a line first gives it
        risen = [np.maximum.accumulate(np.frombuffer(index.times)) for index in self._indices if index.times]
        times = np.concatenate(risen) if risen else np.empty(0)
        kept = np.sort(first)
        self.order: NDArray[np.intp] = kept[np.argsort(times[kept], kind="stable")]

    def new(self, out: Path) -> int:
        """How many lines the file of `out` lacks."""
        there = bool(self._indices) and self._indices[0].path == out / self.name
        return int((self._file[self.order] != 0).sum()) if there else len(self.order)

    def write(self, file: IO[bytes]) -> None:
        """Copy the lines in their new order."""
        with ExitStack() as stack:
            sources: OrderedDict[int, IO[bytes]] = OrderedDict()
            stack.callback(lambda: [source.close() for source in sources.values()])
            for place in self.order:
                number, line = int(self._file[place]), int(self._line[place])
                index = self._indices[number]
                if number not in sources:
                    if len(sources) >= OPEN_FILES:
                        sources.popitem(last=False)[1].close()
                    sources[number] = index.path.open("rb")
                source = sources[number]
                if source.tell() != index.places[line]:
                    source.seek(index.places[line])
                file.write(source.read(index.lengths[line]) + b"\n")

    def _numbered(self, what: str) -> NDArray[np.intp]:
        """A number for each line, equal for equal digests; they count in the order of lines."""
        whole = b"".join(getattr(index, what) for index in self._indices)
        pairs = np.frombuffer(whole, dtype=np.dtype([("a", "<u8"), ("b", "<u8")]))
        order = np.lexsort((pairs["b"], pairs["a"]))
        ranked = pairs[order]
        starts = np.ones(len(ranked), dtype=bool)
        starts[1:] = ranked[1:] != ranked[:-1]
        numbers = np.empty(len(ranked), dtype=np.intp)
        numbers[order] = np.cumsum(starts) - 1
        return numbers

    def _refuse_conflicts(self, digests: NDArray[np.intp], keys: NDArray[np.intp]) -> None:
        """Check that, of each launch, one file has all the records that there are."""
        if not len(keys):
            return
        lines, whose = int(digests.max()) + 1, int(keys.max()) + 1
        key_of = np.empty(lines, dtype=np.intp)
        key_of[digests] = keys  # a line says whose it is
        there = np.bincount(key_of, minlength=whose)
        files, own = np.divmod(np.unique(self._file * lines + digests), lines)
        held_by, counts = np.unique(files * whose + key_of[own], return_counts=True)
        most = np.zeros(whose, dtype=np.intp)
        np.maximum.at(most, held_by % whose, counts)
        conflicts = np.flatnonzero(most < there)
        if len(conflicts):
            at = np.flatnonzero(keys == conflicts[0])
            one = at[0]
            other = next(place for place in at if self._file[place] != self._file[one])
            a, b = (self._indices[int(self._file[place])].path for place in (one, other))
            more = f", and {len(conflicts) - 1} more" if len(conflicts) > 1 else ""
            raise UsageError(
                f"{a.parent} and {b.parent} both measured {self._told(one)} under the same conditions, with other "
                f"results{more}; give --keep {NEWEST} to let the newest count, or merge one of them"
            )

    def _told(self, place: int) -> str:
        index, line = self._indices[int(self._file[place])], int(self._line[place])
        with index.path.open("rb") as file:
            file.seek(index.places[line])
            values = json.loads(file.read(index.lengths[line]))
        if self.name == TURNS:
            return f"block {values['block']} of the turns {values['company']}"
        case = values.get("case") or {}
        size = f" at {case['height']}x{case['width']}" if {"height", "width"} <= case.keys() else ""
        return f"launch {values['launch']} of {case.get('model', values['case_id'])}{size}"


def _write(joined: Sequence[_Joined], runs: Sequence[Path], out: Path) -> Merged:
    new = sum(one.new(out) for one in joined)
    with writing(out):
        for one in joined:
            if one.new(out) or (one.name == FILE and not (out / FILE).exists()):
                write_whole(out / one.name, lambda part, one=one: _to(part, one))  # type: ignore[misc]
    told = _runs([out, *runs])
    if told != _runs([out]):
        write_text(out / RUN_FILE, json.dumps({"runs": told}, indent=1) + "\n")
    return Merged(out, len(joined[0].order), len(joined[1].order), new)


def _to(part: Path, one: _Joined) -> None:
    with part.open("wb") as file:
        one.write(file)


def _runs(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What `run.json` of these folders says, each run once, in order of time."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        with suppress(OSError, ValueError, KeyError, TypeError):
            for run in json.loads((folder / RUN_FILE).read_text())["runs"]:
                if isinstance(run, dict):
                    found.setdefault(json.dumps(run, sort_keys=True), run)
    return sorted(found.values(), key=lambda run: str(run.get("started_at")))
