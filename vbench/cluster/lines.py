"""The lines of records of several runs, in one order: what `merge` writes. Imports no torch.

A pass over the files keeps some fifty bytes a line; numpy decides what goes where; a second pass copies lines as they
are. So a million records need about 150 MB, however long their lines are.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from pathlib import Path
from typing import IO

import numpy as np
from msgspec import DecodeError, Raw, ValidationError
from msgspec.json import Decoder, decode
from numpy.typing import NDArray

from vbench.errors import SchemaError, UsageError
from vbench.results import accuracy
from vbench.results.lines import CutError, Damage, DamagedLineWarning, scan
from vbench.results.shapes import SCHEMA
from vbench.results.store import BEGINS, FILE, TURNS

NEWEST = "newest"
SWEEP = (FILE, TURNS)  # what a sweep writes
WHOSE = {  # what identifies a line, beside its conditions
    FILE: ("case_id", "launch"),
    TURNS: ("company", "block"),
    accuracy.FILE: ("eval_id", "shard"),
}
SCHEMAS = {FILE: SCHEMA, TURNS: SCHEMA, accuracy.FILE: accuracy.SCHEMA}
FIRST = {**BEGINS, accuracy.FILE: b'{"eval_id"'}
OPEN_FILES = 64
_PARTS = Decoder(dict[str, Raw]).decode  # what is not asked for is not decoded
NAMED = 3  # bad lines of a file that are named
_KEY = 16  # bytes of a digest


def sources(runs: Sequence[Path], out: Path, name: str) -> list[Path]:
    """The files of that name: of `out` first, then of the runs, each once."""
    files = [folder / name for folder in (out, *runs) if (folder / name).is_file()]
    return list({file.resolve(): file for file in files}.values())


@dataclass(slots=True)
class Index:
    """Where the lines of one file are, and what identifies each."""

    path: Path
    digests: bytearray = field(default_factory=bytearray)  # of the line
    keys: bytearray = field(default_factory=bytearray)  # of whose it is
    times: array[float] = field(default_factory=lambda: array("d"))
    places: array[int] = field(default_factory=lambda: array("Q"))
    lengths: array[int] = field(default_factory=lambda: array("Q"))

    @classmethod
    def of(cls, path: Path) -> Index:
        """Read a file once. A line that is no record is joined as it is, with a warning; readers leave it out.

        Raises: SchemaError if no line is a record; OutputError.
        """
        found, damaged = cls(path), list[Damage]()

        def identified(line: bytes) -> tuple[bytes, bytes, float, int]:
            text = line.rstrip(b"\n")
            try:
                whose, time = _identify(text, path.name)
            except ValueError as error:
                if isinstance(error, CutError) and not line.endswith(b"\n"):
                    raise
                damaged.append(Damage(path, len(found.times) + 1, str(error)))
                whose, time = _digest(text), -inf
            return _digest(text), whose, time, len(text)

        offset = 0
        for one, end in scan(path, identified, FIRST[path.name]):
            if one is None:
                warnings.warn(f"{path}: the last line is incomplete and was dropped", DamagedLineWarning, stacklevel=2)
            elif isinstance(one, Damage):
                raise SchemaError(f"{path}: line {one.line} {one.reason}; remove it, or leave this run out")
            else:
                found.digests += one[0]
                found.keys += one[1]
                found.times.append(one[2])
                found.places.append(offset)
                found.lengths.append(one[3])
            offset = end
        if damaged and all(time == -inf for time in found.times):
            first = damaged[0]
            raise SchemaError(f"{path}: no line can be read: line {first.line} {first.reason}. Leave this run out")
        for bad in damaged[:NAMED]:
            message = f"{path}: line {bad.line} is joined as it is, though it {bad.reason}"
            warnings.warn(message, DamagedLineWarning, stacklevel=2)
        return found


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_KEY).digest()


def _identify(text: bytes, name: str) -> tuple[bytes, float]:
    """A digest of whose line it is, and its time. Raises: ValueError with the reason if it is no record."""
    try:
        parts = _PARTS(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValidationError:
        raise ValueError("is no record") from None
    except (DecodeError, UnicodeDecodeError):
        raise CutError("is no JSON of a record") from None
    whose, number = WHOSE[name]
    keys = (whose, number, "conditions", "started_at")
    values = {key: decode(parts[key]) for key in ("schema", *keys) if key in parts}
    if values.get("schema") != SCHEMAS[name]:
        raise ValueError(f"is no record of schema {SCHEMAS[name]}")
    if missing := [key for key in keys if key not in values]:
        raise ValueError(f"lacks {', '.join(missing)}; it is not a record of vbench")
    try:
        time = datetime.fromisoformat(values["started_at"]).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        raise ValueError("is wrong at started_at, which is not a time") from None
    return _digest(json.dumps([values[key] for key in keys[:3]]).encode()), time


class Joined:
    """The lines of several files of one name, in their new order. Raises: UsageError if they disagree."""

    def __init__(self, files: Sequence[Path], name: str, keep: str | None) -> None:
        self.name = name
        self._indices = [Index.of(file) for file in files]
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

    def to(self, part: Path) -> None:
        """Copy the lines in their new order into a file."""
        with ExitStack() as stack:
            file = stack.enter_context(part.open("wb"))
            opened: OrderedDict[int, IO[bytes]] = OrderedDict()
            stack.callback(lambda: [source.close() for source in opened.values()])
            for place in self.order:
                number, line = int(self._file[place]), int(self._line[place])
                index = self._indices[number]
                if number not in opened:
                    if len(opened) >= OPEN_FILES:
                        opened.popitem(last=False)[1].close()
                    opened[number] = index.path.open("rb")
                source = opened[number]
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
        if self.name == accuracy.FILE:
            asked = values.get("asked") or {}
            of = " ".join(str(asked.get(key)) for key in ("model", "height", "dtype"))
            return f"shard {values['shard']} of the images of {of}"
        case = values.get("case") or {}
        size = f" at {case['height']}x{case['width']}" if {"height", "width"} <= case.keys() else ""
        return f"launch {values['launch']} of {case.get('model', values['case_id'])}{size}"
