"""Records on disk: JSON lines, one for each launch of a cell. Lines are appended and flushed, never rewritten."""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from vbench.errors import OutputError, SchemaError

SCHEMA = 2
FILE = "records.jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """One launch of a cell: what a process measured, or why it did not. The fields are the keys of a line.

    `sweep.measure` yields `memory`, `warmup`, `latency`, `throughput`, `energy`, `settings`, `state`, `spent` and
    `outputs`; they are None if the launch ended before. `sweep.loop` adds `work`, `second_count` and `floor`, the least
    time that a call can take on this device. `verified` says whether the model's modes compute the
    same function; None for a model with one form. `conditions` is a digest of device, versions, code and protocol;
    `order` is the place of the launch in the sweep.
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
    schema: int = field(default=SCHEMA)


class DamagedLineWarning(UserWarning):
    """The last line of a file was incomplete, for example after a kill, and was dropped."""


def read(folder: Path) -> list[Record]:
    """All records of a folder, in the order of writing; empty if it has none.

    An incomplete last line is left out with a DamagedLineWarning.

    Raises: SchemaError for records of another schema, or for damage before the last line.
    """
    return [record for record, _ in _scan(folder / FILE)]


def current(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """The valid launches of each case, by `case_id` and `launch`: those under the conditions of its newest record.

    Of several records of a launch the newest is valid. Records before the last change of conditions are not valid.
    """
    found: dict[str, dict[int, Record]] = {}
    for record in records:
        launches = found.setdefault(record.case_id, {})
        if launches and next(iter(launches.values())).conditions != record.conditions:
            launches.clear()
        launches[record.launch] = record
    return found


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


def _scan(path: Path) -> Iterator[tuple[Record, int]]:
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
        yield _record(values, f"{path}: line {number}"), offset


def _record(values: dict[str, Any], where: str) -> Record:
    schema = values.get("schema")
    if schema != SCHEMA:
        raise SchemaError(
            f"{where} has schema {schema!r}; this vbench reads {SCHEMA}. "
            "Use another folder, or the vbench that wrote it"
        )
    known = {f.name: f.default is MISSING for f in fields(Record)}
    if missing := sorted(name for name, required in known.items() if required and name not in values):
        raise SchemaError(f"{where} lacks {', '.join(missing)}; it is not a record of vbench")
    return Record(**{key: value for key, value in values.items() if key in known})


class Store:
    """A folder of records. Only one sweep at a time can append to it. Use as a context manager.

    Raises: OutputError if the folder cannot be written, or another sweep is writing it; SchemaError as `read`.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        self._path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (folder / ".lock").open("w")
        except OSError as error:
            raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise OutputError(f"another sweep is writing {folder}; wait for it, or use another folder") from None
        try:
            self._open(fresh)
        except BaseException:
            self._lock.close()
            raise

    def _open(self, fresh: bool) -> None:
        if fresh and self._path.exists():
            os.replace(self._path, self.folder / "records.previous.jsonl")  # noqa: PTH105
        self.records: list[Record] = []
        end = 0
        for record, end in _scan(self._path):  # noqa: B007
            self.records.append(record)
        try:
            self._file = self._path.open("ab")
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror}") from None
        self._file.truncate(end)
        if end and not self._path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def append(self, record: Record) -> None:
        """Write one record and flush it to the disk."""
        self._file.write(json.dumps(asdict(record)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.close()
