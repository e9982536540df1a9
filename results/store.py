"""Records on disk, as JSON lines: one for each launch of a cell, and one for each block of turns.

Lines are appended and flushed, never rewritten.
"""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

from vbench.errors import OutputError, SchemaError

SCHEMA = 2
FILE = "records.jsonl"
TURNS = "turns.jsonl"
Kind = TypeVar("Kind", "Record", "TurnBlock")


@dataclass(frozen=True, slots=True)
class Record:
    """One launch of a cell: what a process measured, or why it did not. The fields are the keys of a line.

    `sweeps.measure` yields `memory`, `warmup`, `latency`, `throughput`, `energy`, `settings`, `state`, `spent` and
    `outputs`; they are None if the launch ended before. `sweeps.loop` adds `work`, `second_count` and `floor`, the
    least time that a call can take on this device. `verified` says whether the model's modes compute the
    same function; None for a model with one form. `conditions` is a digest of device, versions, code and protocol;
    `order` is the place of the launch in the sweep. `zoo` is what the zoo said of the model (`results.models.of_zoo`).
    By it the record is understood when the zoo has changed.
    """

    case_id: str
    case: dict[str, Any]
    launch: int  # 0 for the first
    order: int
    status: str  # ok, oom, unsupported, error, timeout
    reason: str | None
    conditions: str
    protocol: dict[str, Any]
    host: dict[str, Any]
    started_at: str  # ISO 8601, UTC
    wall_s: float
    timeout_s: float
    load: dict[str, Any] | None = None
    verified: dict[str, Any] | None = None
    work: dict[str, Any] | None = None
    second_count: dict[str, Any] | None = None
    settings: dict[str, Any] | None = None
    memory: dict[str, Any] | None = None
    warmup: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None
    throughput: dict[str, Any] | None = None
    energy: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    spent: dict[str, Any] | None = None
    outputs: dict[str, Any] | None = None
    floor: dict[str, Any] | None = None
    zoo: dict[str, Any] | None = None
    schema: int = field(default=SCHEMA)


@dataclass(frozen=True, slots=True)
class TurnBlock:
    """One block: processes of several cells, started anew, made their calls in turn. The fields are the keys of a line.

    `cases` and `case_ids` are in the order of the turns. `samples_ms[i][r]` is the time of a call of cell i in round r,
    the median of `calls` calls. `company` is a digest of the cells, whatever their order; `block` counts its blocks.
    All other fields are as in `Record`.
    """

    company: str
    block: int
    case_ids: list[str]
    cases: list[dict[str, Any]]
    order: int
    status: str
    reason: str | None
    conditions: str
    protocol: dict[str, Any]
    host: dict[str, Any]
    started_at: str
    wall_s: float
    timeout_s: float
    samples_ms: list[list[float]] | None = None
    batches: list[int] | None = None  # images a call
    calls: list[int] | None = None  # a turn
    stop: str | None = None  # why there are as many rounds
    load: dict[str, Any] | None = None
    schema: int = field(default=SCHEMA)


class DamagedLineWarning(UserWarning):
    """The last line of a file was incomplete, for example after a kill, and was dropped."""


def read(folder: Path) -> list[Record]:
    """All records of a folder, in the order of writing; empty if it has none.

    An incomplete last line is left out with a DamagedLineWarning.

    Raises: SchemaError for records of another schema, or for damage before the last line.
    """
    return [record for record, _ in _scan(folder / FILE, Record)]


def read_turns(folder: Path) -> list[TurnBlock]:
    """All blocks of turns of a folder, in the order of writing; empty if it has none. Warns and raises as `read`."""
    return [block for block, _ in _scan(folder / TURNS, TurnBlock)]


def current(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """The valid launches of each case, by `case_id` and `launch`: those under the conditions of its newest record.

    Of several records of a launch the newest is valid. Joined runs may lie between each other (`cluster.merge`).
    """
    return _newest((record.case_id, record.launch, record) for record in records)


def current_turns(blocks: Iterable[TurnBlock]) -> dict[str, dict[int, TurnBlock]]:
    """The valid blocks of each company, by `company` and `block`; as `current`."""
    return _newest((block.company, block.block, block) for block in blocks)


def _newest(lines: Iterable[tuple[str, int, Kind]]) -> dict[str, dict[int, Kind]]:
    """(whose, number, line) -> the lines by both, of those that share the conditions of the last line of `whose`."""
    found: dict[str, dict[str, dict[int, Kind]]] = {}
    last: dict[str, str] = {}
    for whose, number, line in lines:
        last[whose] = line.conditions
        found.setdefault(whose, {}).setdefault(line.conditions, {})[number] = line
    return {whose: own[last[whose]] for whose, own in found.items()}


def check(folder: Path) -> None:
    """Check that a Store can be opened in a folder; write nothing. Raises: OutputError, SchemaError, as Store."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{folder} cannot be written: {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot be written: no permission in {there}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DamagedLineWarning)
        read(folder)
        read_turns(folder)


def _scan(path: Path, kind: type[Kind]) -> Iterator[tuple[Kind, int]]:
    """Each record with the byte offset of its end."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}") from None
    lines = data.splitlines(keepends=True)
    offset = 0
    for number, line in enumerate(lines, start=1):
        offset += len(line)
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise TypeError
        except (ValueError, TypeError):
            if number == len(lines):
                warnings.warn(f"{path}: the last line is incomplete and was dropped", DamagedLineWarning, stacklevel=2)
                return
            raise SchemaError(f"{path}: line {number} is damaged; repair or remove it, or use another folder") from None
        yield _record(values, kind, f"{path}: line {number}"), offset


def _record(values: dict[str, Any], kind: type[Kind], where: str) -> Kind:
    schema = values.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"{where} has schema {schema!r}; this vbench reads {SCHEMA}. "
            "Use another folder, or the vbench that wrote it"
        )
    known = {f.name: f.default is MISSING for f in fields(kind)}
    if missing := sorted(name for name, required in known.items() if required and name not in values):
        raise SchemaError(f"{where} lacks {', '.join(missing)}; it is not a record of vbench")
    return kind(**{key: value for key, value in values.items() if key in known})


class Store:
    """A folder of records. Only one sweep at a time can append to it. Use as a context manager.

    Raises: OutputError if the folder cannot be written, or another sweep is writing it; SchemaError as `read`.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (folder / ".lock").open("w")
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise OutputError(f"another sweep is writing {folder}; wait for it, or use another folder") from None
        except OSError:  # a shared disk without locks; `cluster` needs none
            pass
        try:
            self._launches = _Lines(folder / FILE, Record, fresh=fresh)
            self._turns = _Lines(folder / TURNS, TurnBlock, fresh=fresh)
        except BaseException:
            self._lock.close()
            raise

    @property
    def records(self) -> list[Record]:
        """The launches so far, in the order of writing."""
        return self._launches.lines

    @property
    def turns(self) -> list[TurnBlock]:
        """The blocks of turns so far, in the order of writing."""
        return self._turns.lines

    def append(self, record: Record) -> None:
        """Write one record and flush it to the disk."""
        self._launches.append(record)

    def append_turns(self, block: TurnBlock) -> None:
        """Write one block of turns and flush it to the disk."""
        self._turns.append(block)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._launches.close()
        self._turns.close()
        self._lock.close()


class _Lines(Generic[Kind]):
    """A file of JSON lines that grows: what it holds, and how to add to it. It comes to be with its first line."""

    def __init__(self, path: Path, kind: type[Kind], *, fresh: bool) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        if fresh and path.exists():
            os.replace(path, path.with_suffix(f".previous{path.suffix}"))  # noqa: PTH105
        self.lines: list[Kind] = []
        self._end = 0
        for line, self._end in _scan(path, kind):
            self.lines.append(line)
        if kind is Record or path.exists():
            self._open()

    def _open(self) -> IO[bytes]:
        if self._file is None:
            try:
                self._file = self._path.open("ab")
            except OSError as error:
                raise OutputError(f"{self._path} cannot be written: {error.strerror}") from None
            self._file.truncate(self._end)
            if self._end and not self._path.read_bytes().endswith(b"\n"):
                self._file.write(b"\n")
        return self._file

    def append(self, line: Kind) -> None:
        file = self._open()
        file.write(json.dumps(asdict(line)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
        self.lines.append(line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
