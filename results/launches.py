"""What a frame keeps of the records: of each launch a few figures and its samples, of each cell what is asked of it.

A line is read, reduced and dropped, so that a run of a million records fits into memory. `Cells` takes records one by
one, and knows which launches count (`store.current`).

One file: what is kept of each part of a record, and how it is taken.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from json import dumps
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import UNSET, MsgspecError, Raw, UnsetType, convert, json

from vbench.devices import on_host
from vbench.errors import SchemaError
from vbench.plan import Case
from vbench.results import shapes, store
from vbench.results.axes import AXES
from vbench.results.models import of_zoo
from vbench.results.series import Samples
from vbench.results.store import Record

CONTENDED = 0.9  # on the CPU: the least share of wall time in which a measurement must have its processors
OTHERS = 0.5  # processors that other processes may keep busy, as they share caches and memory
MORE_THREADS = 1.1  # on the CPU: times the processor time that the threads of the run have
HELD_BACK = 0.01  # the share of a launch's time that a quota may take
NOT_COUNTED = "MACs not counted"  # how the reason begins of a record that has no work

WORK = (  # keys of a record's work that are columns of the frame
    *("params", "tokens", "padding", "macs", "macs_executed", "macs_matmul", "macs_elementwise", "macs_closed_form"),
    *("flops_elementwise", "flops_total", "bytes_min", "intensity", "state_bytes", "predicted_peak_bytes"),
)
MEMORY = ("weights", "input", "activation", "gradients", "optimizer", "workspace", "slack", "process")
PARTS = ("forward", "backward", "update")


class Settings(shapes.Settings):
    """A setting that is not recorded is the one that was asked for; one that is null is none."""

    attention: str | UnsetType | None = UNSET  # type: ignore[assignment]
    attention_kernel: str | UnsetType | None = UNSET  # type: ignore[assignment]
    weights_dtype: str | UnsetType | None = UNSET  # type: ignore[assignment]
    tf32: bool | UnsetType | None = UNSET  # type: ignore[assignment]
    loss: str | UnsetType | None = UNSET  # type: ignore[assignment]


class Line(shapes.Launch, kw_only=True):
    """A record as it is read here: what its shape has, and nothing else. An older record lacks parts."""

    host: Raw  # type: ignore[assignment]  # equal ones are decoded once
    protocol: Raw  # type: ignore[assignment]
    load: shapes.Load | None = None
    spent: shapes.Spent | None = None
    verified: shapes.Verified | None = None
    work: shapes.Work | None = None
    second_count: shapes.SecondCount | None = None
    settings: Settings | None = None
    memory: shapes.Memory | None = None
    warmup: shapes.Warmup | None = None
    latency: shapes.Latency | None = None
    throughput: shapes.Throughput | None = None
    energy: shapes.Energy | None = None
    state: shapes.State | None = None
    outputs: shapes.Outputs | None = None
    floor: shapes.Floor | None = None
    zoo: shapes.Zoo | None = None


class Latency(NamedTuple):
    """The single calls of a launch. `parts` are the medians of `PARTS`, ms, None where they were not timed apart."""

    batch: int
    samples: Samples | None  # ms, in their order; None without any
    parts: tuple[float | None, ...] | None
    host_ms: float | None


class Throughput(NamedTuple):
    """The calls back to back of a launch. `images_per_s` is None if they were not measured."""

    images_per_s: float | None
    batch: int | None
    blocks_ms: list[float]
    block_calls: int
    queued: float | None  # images/s at batch 1, if the curve begins there
    reason: str | None


class Doubts(NamedTuple):
    """What makes a launch doubtful, as far as it alone tells. One object for all launches that are alike."""

    nonfinite: bool
    differs: bool
    outputs: str | None  # why outputs are wrong
    unconverged: bool | None  # None without a warm-up
    held_back: bool
    contended: bool
    side_by_side: bool
    more_threads: bool
    background_threads: tuple[str, ...]
    changed: tuple[str, ...]


class Origin(NamedTuple):
    """The host and the protocol of records, as they were recorded, and what is computed with them."""

    host: dict[str, Any]
    protocol: dict[str, Any]
    about: shapes.Host
    plan: shapes.Protocol
    device_name: str
    on_cpu: bool
    axes: dict[str, Any]  # the values of axes that are the same for all of its records


@dataclass(slots=True)
class Launch:
    """What counts of one record. `stamp` tells one record from another: equal ones were measured once."""

    number: int
    stamp: int
    started_at: str
    origin: Origin
    status: str
    reason: str | None
    latency: Latency | None
    throughput: Throughput | None
    memory: shapes.Memory | None
    energy: shapes.Energy | None
    floor: tuple[float | None, float | None, float | None] | None  # ms; FLOP/s and bytes/s of the device
    clock_mhz: float | None  # of the GPU
    doubts: Doubts


class First(NamedTuple):
    """What the first launch of a cell says of it: columns of its row, and what they are judged by."""

    case_id: str
    columns: tuple[Any, ...]  # in the order of `ABOUT`
    device: str  # torch's name
    batch: Any  # as asked for: a number or a policy
    launches: int  # that the protocol wants
    caveat: bool
    counters_disagree: bool
    deployable: bool
    case: Case


ABOUT = tuple(
    dict.fromkeys(
        (
            *("model", "mode", "form", "height", "width"),
            *(name for name, axis in AXES.items() if axis.source),
            *("family", "status", "verified", *WORK, "flops_coverage", "uncounted_reason", "macs_fvcore"),
            *("padded_share", "model_commit", "started_at", "case_id", "conditions"),
        )
    )
)


@dataclass(slots=True)
class Cell:
    """A cell on a device: its launches by number, and what the one of the least number says."""

    conditions: str
    launches: dict[int, Launch] = field(default_factory=dict)
    first: First | None = None
    first_number: int = 0

    def in_order(self) -> list[Launch]:
        """The launches by their numbers."""
        return [self.launches[number] for number in sorted(self.launches)]


class Cells:
    """The cells of records that are added one by one. Of several records of a launch the newest counts.

    Args:
        by_device: whether a case that was measured on two devices is two cells; otherwise the newest record counts.
    """

    def __init__(self, *, by_device: bool = True) -> None:
        self._by_device = by_device
        self._devices: dict[str, dict[str, Cell]] = {}
        self._aside: dict[tuple[str, str, str], Cell] = {}  # under other conditions than the newest, by device and case
        self._same: dict[Any, Any] = {}
        self._origins: dict[tuple[bytes, bytes], Origin] = {}
        self._last: tuple[tuple[Raw, Raw], Origin | None] = (Raw(), Raw()), None  # the host and protocol that came last

    def decode(self, line: bytes) -> Line:
        """A line of a file. Raises: MsgspecError for what is no record."""
        found = _DECODE(line)
        self._origin(found)
        return found

    def add(self, record: Record | Line) -> None:
        """Take what counts of a record. Raises: SchemaError for a record that could not be read back."""
        line = record if isinstance(record, Line) else _line(record)
        origin = self._origin(line)
        of_device = self._devices.setdefault(origin.device_name if self._by_device else "", {})
        cell = of_device.get(line.case_id)
        if cell is None:
            cell = of_device[line.case_id] = Cell(self._one(line.conditions))
        elif cell.conditions != line.conditions:
            self._aside[origin.device_name, line.case_id, cell.conditions] = cell
            known = self._aside.pop((origin.device_name, line.case_id, line.conditions), None)
            cell = of_device[line.case_id] = known or Cell(self._one(line.conditions))
        cell.launches[line.launch] = self._launch(line, origin)
        if cell.first is None or line.launch <= cell.first_number:
            cell.first, cell.first_number = self._first(line, origin), line.launch

    def __iter__(self) -> Iterator[tuple[str, Cell]]:
        """The cells with the names of their devices, device by device."""
        return ((device, cell) for device, cells in self._devices.items() for cell in cells.values())

    def _one(self, value: Any) -> Any:
        """The first value that was equal to this one, so that equal values are kept once."""
        return self._same.setdefault(value, value)

    def _origin(self, line: Line) -> Origin:
        """The host and the protocol of a record. Raises: MsgspecError."""
        last, origin = self._last
        if line.host == last[0] and line.protocol == last[1] and origin:
            return origin
        key = bytes(line.host), bytes(line.protocol)
        found = self._origins.get(key)
        if found is None:
            host, protocol = (json.decode(part, type=dict[str, Any]) for part in key)
            about, plan = convert(host, shapes.Host), convert(protocol, shapes.Protocol)
            parts = {
                "host": host,
                "protocol": protocol,
                "versions": {**(about.versions or {}), "commit": _commit(about)},
            }
            axes = {name: parts[source].get(name) for name, source in _SOURCED if source in parts}
            found = Origin(host, protocol, about, plan, str(about.device_name), on_host(about.device), axes)
            self._origins[key] = found
        self._last = (line.host, line.protocol), found
        return found

    def _launch(self, line: Line, origin: Origin) -> Launch:
        floor, state = line.floor, line.state
        return Launch(
            line.launch,
            hash((line.started_at, line.order, line.wall_s, line.conditions, line.status, *_numbers(line))),
            self._one(line.started_at),
            origin,
            line.status,
            self._one(line.reason),
            _latency(line.latency),
            _throughput(line.throughput),
            line.memory,
            line.energy,
            self._one((floor.floor_ms, floor.flops_per_s, floor.copy_bytes_per_s)) if floor else None,
            state.gpu.sm_mhz_median if state and state.gpu else None,
            self._one(_doubts(line, origin.on_cpu)),
        )

    def _first(self, line: Line, origin: Origin) -> First:
        case, host, second, same = line.case, origin.about, line.second_count, self._same.setdefault
        work = line.work
        zoo = line.zoo or shapes.Zoo(**of_zoo(case.model, case.height, case.width))  # an older record has none
        asked = [same(value, value) for value in _of_case(case)]
        columns = origin.axes.copy()
        columns.update(zip(_ASKED, asked, strict=True))
        if line.settings:  # For a failed cell, and for an older record, the settings asked for stay.
            there = zip(_SET, _of_settings(line.settings), strict=True)
            columns.update([(name, value) for name, value in there if value is not UNSET])
        if work:
            columns.update(zip(WORK, _of_work(work), strict=True))
            columns["flops_coverage"] = work.coverage
        columns["family"] = zoo.family
        columns["status"] = line.status
        columns["verified"] = line.verified.ok if line.verified else None
        columns["uncounted_reason"] = _uncounted(work, line.reason or "", line.status)
        columns["macs_fvcore"] = second.macs_fvcore if second else None
        columns["padded_share"] = zoo.padded_share
        columns["model_commit"] = _commit(host.models.get(case.model)) if host.models else None
        columns["started_at"] = line.started_at
        columns["case_id"] = line.case_id
        columns["conditions"] = line.conditions
        disagree = (second and second.agree is False) or (work and work.closed_form_agrees is False)
        return First(
            line.case_id,
            tuple([same(value, value) if value.__class__ is str else value for value in map(columns.get, ABOUT)]),
            self._one(case.device),
            case.batch,
            origin.plan.launches,
            bool(zoo.caveat),
            bool(disagree),
            bool(work and work.params_deployed) and case.phase == "infer",
            Case(*asked),
        )


_DECODE = json.Decoder(Line).decode


def read(folder: Path, cells: Cells, share: store.Share | None = None) -> store.Found:
    """Add the records of a folder, or of a share of it, to `cells`. Raises: as `store.each_launch`."""
    return store.each_launch(folder, cells.decode, cells.add, share)


@contextmanager
def uncollected() -> Iterator[None]:
    """A context in which no cycles are looked for: records have none, and to look at millions of objects takes long."""
    there = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if there:
            gc.enable()


_SOURCED = [(name, str(axis.source)) for name, axis in AXES.items() if axis.source]
_SET = tuple(name for name in Settings.__struct_fields__ if (name, "settings") in _SOURCED)
_ASKED = tuple(one.name for one in fields(Case))
_of_settings, _of_case, _of_work = attrgetter(*_SET), attrgetter(*_ASKED), attrgetter(*WORK)


def kept(records: Iterable[Record]) -> list[Launch]:
    """What is kept of records of one cell, in the order of launches. Raises: SchemaError as `Cells.add`."""
    cells = Cells(by_device=False)
    for record in records:
        cells.add(record)
    return [launch for _, cell in cells for launch in cell.in_order()]


def _line(record: Record) -> Line:
    """A record that is in memory. Numbers may be numpy's, which only JSON takes."""
    parts = {name: getattr(record, name) for name in Line.__struct_fields__}
    try:
        parts |= {name: Raw(json.encode(parts[name])) for name in ("host", "protocol")}
        return convert(parts, Line)
    except MsgspecError:
        try:
            return _DECODE(dumps(asdict(record)))
        except MsgspecError as error:
            raise SchemaError(f"a record could not be read back: {shapes.said(error)}") from None


def _numbers(line: Line) -> tuple[float | None, ...]:
    """What a launch measured."""
    through = line.throughput
    return (
        *(line.latency.samples_ms or () if line.latency else ()),
        line.memory.peak_bytes if line.memory else None,
        *((through.batch, through.images_per_s or None) if through else ()),
        line.work.macs if line.work else None,
    )


def _latency(found: shapes.Latency | None) -> Latency | None:
    if not found:
        return None
    parts = found.parts_ms
    return Latency(
        found.batch,
        np.array(found.samples_ms) if found.samples_ms else None,
        tuple(_middle(getattr(parts, key)) for key in PARTS) if parts else None,
        found.host_ms,
    )


def _middle(values: float | list[float] | None) -> float | None:
    """The median of a list, or the number itself."""
    return float(np.median(values)) if isinstance(values, list) else values


def _throughput(found: shapes.Throughput | None) -> Throughput | None:
    if not found:
        return None
    alone = found.curve[0].images_per_s if found.curve and found.curve[0].batch == 1 else None
    blocks = (found.blocks_ms or [], found.block_calls or 1)
    return Throughput(found.images_per_s or None, found.batch, *blocks, alone, found.reason)


def _doubts(line: Line, on_cpu: bool) -> Doubts:
    outputs, settings = line.outputs, line.settings
    return Doubts(
        bool(outputs and outputs.nonfinite),
        bool(outputs and outputs.differs),
        (outputs.reason or None) if outputs and (outputs.nonfinite or outputs.differs) else None,
        line.warmup.converged is False if line.warmup else None,
        _held_back(line.state) or bool(line.latency and line.latency.throttled),
        _contended(line.state, on_cpu),
        bool(line.load and line.load.beside and (line.latency or line.memory)),
        _more_threads(line.state, on_cpu),
        tuple((settings and settings.background_threads) or ()),
        tuple((settings and settings.changed) or ()),
    )


def _held_back(state: shapes.State | None) -> bool:
    """Whether a quota held the process of a launch back."""
    return bool(state and (state.cgroup_throttled_s or 0.0) > HELD_BACK * state.wall_s)


def _contended(state: shapes.State | None, on_cpu: bool) -> bool:
    """Whether other processes took processor time from a launch, or used its GPU."""
    if not state:
        return False
    starved = on_cpu and state.cpu_s < CONTENDED * state.wall_s * state.threads
    crowded = on_cpu and state.others_busy_share * state.cores > OTHERS
    return starved or crowded or bool(state.gpu and state.gpu.foreign_pids)


def _more_threads(state: shapes.State | None, on_cpu: bool) -> bool:
    """Whether a launch took more processor time than the threads of the run have: the model has threads of its own."""
    return bool(state and on_cpu and state.cpu_s > MORE_THREADS * state.wall_s * state.threads)


def uncounted(record: Record) -> str | None:
    """What of a cell's work is not counted, and why; None if all is, or if the cell ended before it was to be counted.

    A counted model may do what the ledger does not know; its MACs then lack what these operations have.
    """
    work = convert(record.work, shapes.Work) if record.work else None
    return _uncounted(work, record.reason or "", record.status)


def _uncounted(work: shapes.Work | None, reason: str, status: str) -> str | None:
    if work is None or work.macs is None:
        said = NOT_COUNTED + reason.partition(NOT_COUNTED)[2] if NOT_COUNTED in reason else None
        return said or (f"{NOT_COUNTED}: no reason is recorded" if status == "ok" else None)
    if not work.unknown:
        return None
    share = f", {100 * (1 - work.coverage):.2g} % of the bytes" if work.coverage is not None else ""
    total = "; no total of FLOPs" if work.flops_total is None else ""
    return f"not fully counted: {', '.join(map(str, work.unknown))} in no table of the ledger{share}{total}"


def commit(host: Mapping[str, Any]) -> str | None:
    """The commit of a record's host, or of a model of `host["models"]`, with "-dirty" if it had changes; else None."""
    return host["commit"] + "-dirty" * bool(host.get("dirty")) if host.get("commit") else None


def _commit(code: shapes.Host | shapes.OwnModel | None) -> str | None:
    """`commit` of a host or a model of a user's own."""
    return code.commit + "-dirty" * bool(code.dirty) if code and code.commit else None
