"""Records on disk, as JSON lines: one for each launch of a cell, and one for each block of turns.

Lines are appended and flushed, never rewritten.

One file: what a line holds, how it is read, and how it is written.
"""

from __future__ import annotations

import gc
import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar
from zlib import crc32

from msgspec import DecodeError, MsgspecError, ValidationError
from msgspec.json import Decoder, encode

from vbench.errors import OutputError, SchemaError
from vbench.files import write_text
from vbench.results import clean, shapes
from vbench.results.lines import CutError, Damage, DamagedLineWarning, Growing, check_there, scan, told
from vbench.results.lock import Lock
from vbench.results.shapes import SCHEMA

FILE = "records.jsonl"
TURNS = "turns.jsonl"
RUN_FILE = "run.json"
Kind = TypeVar("Kind", "Record", "TurnBlock")
Made = TypeVar("Made")


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


_SHAPES: dict[type, Any] = {Record: shapes.Launch, TurnBlock: shapes.Block}
_DECODERS: dict[type, Any] = {Record: Decoder(Record), TurnBlock: Decoder(TurnBlock)}
BEGINS = {file: f'{{"{fields(kind)[0].name}"'.encode() for file, kind in ((FILE, Record), (TURNS, TurnBlock))}
_AS_THEY_ARE = (
    "case_id",
    "case",
    "company",
    "case_ids",
    "cases",
    "conditions",
    "protocol",
    "schema",
)  # by these a sweep
# finds a cell again
# Parts that are the same in many records, and are kept once for all of them.
_SHARED = (
    *("case_id", "case", "conditions", "protocol", "host", "verified", "work", "second_count", "settings", "outputs"),
    *("zoo", "company", "case_ids", "cases", "batches", "calls", "stop"),
)
_PARTS = {kind: {f.name for f in fields(kind) if f.default is not MISSING} - {"schema"} for kind in _SHAPES}


@dataclass(frozen=True, slots=True)
class Reading:
    """All that a folder holds: its launches and blocks of turns in the order of writing; and lines that are none."""

    records: list[Record]
    turns: list[TurnBlock]
    damaged: list[Damage]


def reading(folder: Path) -> Reading:
    """Read a folder; all of it is empty if there is nothing.

    Lines that are no records are left out with a DamagedLineWarning; so is a last line that was cut as it was written.

    Raises: SchemaError if there are lines in a file, and none can be read; OutputError if a file cannot be read.
    """
    launches, blocks = _read(folder / FILE, Record), _read(folder / TURNS, TurnBlock)
    return Reading(launches.lines, blocks.lines, [*launches.damaged, *blocks.damaged])


def read(folder: Path) -> list[Record]:
    """All records of a folder, in the order of writing; empty if it has none. Warns and raises as `reading`."""
    return _read(folder / FILE, Record).lines


def each_launch(
    folder: Path, quick: Callable[[bytes], Any], take: Callable[[Any], None], share: Share | None = None
) -> Found:
    """Give each record of a folder, or of a share of it, to `take`, and keep none.

    Where `quick` raises a MsgspecError, a line is decoded and checked as by `read`. Nothing is said of bad lines: see
    `tell`. Raises: OutputError if the file cannot be read.
    """
    read = _scanned(folder / FILE, Record, quick, take, share)
    return Found(read.damaged, read.good, read.cut)


def tell(folder: Path, found: Iterable[Found]) -> list[Damage]:
    """What the shares of a folder have found together: the lines that are no records. Warns and raises as `reading`."""
    damaged, good, cut = zip(*found, strict=True)
    lines = sorted(dict.fromkeys(line for own in damaged for line in own), key=lambda one: one.line)
    _told(folder / FILE, Found(lines, any(good), any(cut)))
    return lines


def read_turns(folder: Path) -> list[TurnBlock]:
    """All blocks of turns of a folder, in the order of writing; empty if it has none. Warns and raises as `reading`."""
    return _read(folder / TURNS, TurnBlock).lines


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
        records = _scanned(folder / FILE, Record, take=lambda _: None)
        turns = _scanned(folder / TURNS, TurnBlock, take=lambda _: None)
        for name, found in ((FILE, records), (TURNS, turns)):
            _told(folder / name, Found(found.damaged, found.good, found.cut))


@dataclass(frozen=True, slots=True)
class Share:
    """One of several parts of the records of a folder. All launches of a cell are in the same one."""

    number: int  # from 0
    of: int

    def has(self, case_id: bytes) -> bool:
        return crc32(case_id) % self.of == self.number

    def lacks(self, line: bytes) -> bool:
        """Whether a line is known to belong to another share."""
        case_id = self.case_id(line)
        return case_id is not None and not self.has(case_id)

    @staticmethod
    def case_id(line: bytes) -> bytes | None:
        """The case_id of a line that begins with it; None if it has to be decoded for that."""
        words = line[:200].split(b'"', 4)
        return words[3] if len(words) == 5 and words[1] == b"case_id" and b"\\" not in words[3] else None


class Found(NamedTuple):
    """What was found in a file beside its records."""

    damaged: list[Damage]
    good: bool  # there are records
    cut: bool  # the last line was cut as it was written


@dataclass(slots=True)
class _Read(Generic[Kind]):
    """What a file holds; `end` is the offset behind which a cut line begins."""

    lines: list[Kind] = field(default_factory=list)
    damaged: list[Damage] = field(default_factory=list)
    end: int = 0
    good: bool = False
    cut: bool = False


_ELSEWHERE = object()  # stands for a line of another share


def _read(path: Path, kind: type[Kind]) -> _Read[Kind]:
    """All lines of a file; equal parts of them are one object. Warns and raises as `reading`."""
    lines: list[Kind] = []
    same: dict[tuple[str, bytes], Any] = {}
    shared = [one.name for one in fields(kind) if one.name in _SHARED]

    def keep(line: Kind) -> None:
        for name in shared:
            value = getattr(line, name)
            if value is not None:
                object.__setattr__(line, name, same.setdefault((name, encode(value)), value))
        lines.append(line)

    found = _scanned(path, kind, take=keep)
    found.lines = lines
    _told(path, Found(found.damaged, found.good, found.cut))
    return found


def _told(path: Path, found: Found) -> None:
    """Warn of what is left out. Raises: SchemaError if there are lines in a file, and none can be read."""
    if found.cut:
        warnings.warn(f"{path}: the last line is incomplete and was dropped", DamagedLineWarning, stacklevel=4)
    if found.damaged and not found.good:
        first = found.damaged[0]
        raise SchemaError(f"{path}: no line can be read: line {first.line} {first.reason}. Use another folder")
    if found.damaged:
        warnings.warn(told(found.damaged), DamagedLineWarning, stacklevel=4)


def _scanned(
    path: Path,
    kind: type[Kind],
    quick: Callable[[bytes], Any] | None = None,
    take: Callable[[Any], None] | None = None,
    share: Share | None = None,
) -> _Read[Kind]:
    found: _Read[Kind] = _Read()
    take = take or found.lines.append
    decode, shape = _DECODERS[kind].decode, _SHAPES[kind]

    def parse(line: bytes) -> Kind:
        if quick:
            try:
                fast: Kind = quick(line)
            except (MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # `decode` says more
            else:
                return fast
        try:
            record: Kind = decode(line)
            problem = shapes.problem(record, shape)
        except (MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise _why(line, kind, error) from None
        if problem:
            raise _why(line, kind, ValidationError(problem))
        return record

    def parse_own(line: bytes) -> Any:
        """A line, if it is not known where it belongs: of those that are no records the first share tells."""
        assert share is not None
        try:
            record: Any = parse(line)
        except ValueError:
            if share.number == 0 or share.case_id(line) is not None:
                raise
            return _ELSEWHERE
        return record if share.has(record.case_id.encode()) else _ELSEWHERE

    lines: Callable[[bytes], Any] = parse_own if share else parse
    for line, end in _without_collections(scan(path, lines, BEGINS[path.name], share.lacks if share else None)):
        found.end = end
        if line is _ELSEWHERE:
            continue
        if isinstance(line, Damage):
            found.damaged.append(line)
        elif line is not None:
            take(line)
            found.good = True
        else:
            found.cut = True
    return found


def _without_collections(made: Iterator[Made]) -> Iterator[Made]:
    """What an iterator yields, without collections of garbage until its end: records have no cycles."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield from made
    finally:
        if on:
            gc.enable()


def _why(line: bytes, kind: type[Record] | type[TurnBlock], error: Exception) -> ValueError:
    """Why a line is no record, in words."""
    try:
        values = Decoder().decode(line)
    except RecursionError:
        return ValueError("is nested too deeply")
    except ValidationError as found:
        return ValueError(f"is no record: {shapes.said(found)}")
    except (DecodeError, UnicodeDecodeError):
        return CutError("is no JSON of a record")
    said = f"is wrong at {shapes.said(error)}"
    needed = sorted(f.name for f in fields(kind) if f.default is MISSING)
    if not isinstance(values, dict):
        said = "is no record"
    elif values.get("schema") != SCHEMA:
        schema = repr(values.get("schema"))[:40]
        said = f"has schema {schema}; this vbench reads {SCHEMA}, another one wrote it"
    elif missing := [name for name in needed if name not in values]:
        said = f"lacks {', '.join(missing)}; it is not a record of vbench"
    return ValueError(said)


def recordable(line: Kind) -> Kind:
    """A record as it may be written: texts cleaned (`clean.text`), and each part one that can be read back.

    A part that could not be read back is None, and `reason` says why; the record is then no longer "ok".

    Raises: SchemaError if what identifies the record could not be read back.
    """
    lost: list[str] = []
    kind = type(line)
    changes = {
        f.name: clean.values(getattr(line, f.name), lambda where, what: lost.append(f"{where} was {what}"), f.name)
        for f in fields(line)
        if f.name not in _AS_THEY_ARE
    }
    line = replace(line, **changes)
    failed = False
    while problem := shapes.problem(line, _SHAPES[kind]):
        found = re.match(r"\w+", problem)
        part = found[0] if found else ""
        if part not in _PARTS[kind] or getattr(line, part) is None:
            raise SchemaError(f"a record could not be read back: {problem}")
        nothing: dict[str, Any] = {part: None}
        line, failed = replace(line, **nothing), True
        lost.append(problem)
    if lost:
        why = clean.text("; ".join(filter(None, [line.reason, f"not recorded: {', '.join(lost[:5])}"])))
        line = replace(line, reason=why, status="error" if failed and line.status == "ok" else line.status)
    return line


class Store:
    """A folder of records. Only one sweep at a time can append to it. Use as a context manager.

    Raises: OutputError if the folder cannot be written, or another sweep is writing it; SchemaError as `read`.
    """

    def __init__(self, folder: Path, *, fresh: bool = False) -> None:
        self.folder = folder
        with ExitStack() as opened:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                raise OutputError(f"{folder} cannot be written: {error.strerror}") from None
            opened.callback(os.close, self._place)
            opened.enter_context(Lock(folder))
            self._launches: _Lines[Record] = _Lines(folder / FILE, Record, self._place, fresh=fresh)
            opened.callback(self._launches.close)
            self._turns: _Lines[TurnBlock] = _Lines(folder / TURNS, TurnBlock, self._place, fresh=fresh)
            opened.callback(self._turns.close)
            if fresh:
                _set_aside(folder / RUN_FILE)
            self._opened = opened.pop_all()

    @property
    def records(self) -> list[Record]:
        """The launches so far, in the order of writing."""
        return self._launches.lines

    @property
    def turns(self) -> list[TurnBlock]:
        """The blocks of turns so far, in the order of writing."""
        return self._turns.lines

    def append(self, record: Record) -> Record:
        """Write one record to the disk. Returns: the record as it was written (`recordable`).

        Raises: OutputError if it cannot be written; nothing of it is in the file then.
        """
        return self._launches.append(record)

    def append_turns(self, block: TurnBlock) -> TurnBlock:
        """Write one block of turns; as `append`."""
        return self._turns.append(block)

    def add_run(self, summary: dict[str, Any]) -> None:
        """Add the summary of a run to `run.json`, which no resume needs: if that fails, it is a warning."""
        path = self.folder / RUN_FILE
        try:
            runs = json.loads(path.read_bytes())["runs"]
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            runs = []
        runs = [*(runs if isinstance(runs, list) else []), clean.values(summary)]
        try:
            check_there(self._place, self.folder)
            write_text(path, json.dumps({"runs": runs}, indent=1) + "\n")
        except OutputError as error:
            warnings.warn(f"the summary of this run is not kept: {error}", RuntimeWarning, stacklevel=2)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def _set_aside(path: Path) -> None:
    """Give a file another name, if it is there. Raises: OutputError."""
    try:
        if path.exists():
            os.replace(path, path.with_suffix(f".previous{path.suffix}"))  # noqa: PTH105
    except OSError as error:
        raise OutputError(f"{path} cannot be moved: {error.strerror}") from None


class _Lines(Generic[Kind]):
    """A file of records that grows, and what it holds."""

    def __init__(self, path: Path, kind: type[Kind], place: int, *, fresh: bool) -> None:
        if fresh:
            _set_aside(path)
        found = _read(path, kind)
        self.lines: list[Kind] = found.lines
        self._file = Growing(path, found.end, place, now=kind is Record)

    def append(self, line: Kind) -> Kind:
        line = recordable(line)
        self._file.append(json.dumps(asdict(line), allow_nan=False).encode())
        self.lines.append(line)
        return line

    def close(self) -> None:
        self._file.close()
