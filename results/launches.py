"""What a frame keeps of the records: of each launch a few figures and its samples, of each cell what is asked of it.

A record is read, reduced and dropped, so that a run of a million records fits into memory. `Cells` takes records one by
one, and knows which launches count (`store.current`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vbench.devices import on_host
from vbench.plan import CASE_DEFAULTS
from vbench.results import pairs
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
    unconverged: bool | None  # None without a warm-up
    held_back: bool
    contended: bool
    more_threads: bool
    background_threads: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(slots=True)
class Launch:
    """What counts of one record."""

    number: int
    status: str
    reason: str | None
    latency: Latency | None
    throughput: Throughput | None
    memory: dict[str, Any] | None
    energy: dict[str, Any] | None
    floor: tuple[float | None, float | None, float | None] | None  # ms; FLOP/s and bytes/s of the device
    doubts: Doubts


class First(NamedTuple):
    """What the first launch of a cell says of it: columns of its row, and what they are judged by."""

    columns: tuple[Any, ...]  # in the order of `ABOUT`
    device: str  # torch's name
    batch: Any  # as asked for: a number or a policy
    launches: int  # that the protocol wants
    caveat: bool
    counters_disagree: bool
    deployable: bool
    host: Mapping[str, Any]
    alike: str  # `pairs.alike` of the case; empty where no cells took turns


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
    """The cells of records that are added one by one. Of several records of a launch the newest counts."""

    def __init__(self, *, turns: bool) -> None:
        """`turns`: whether cells took turns, so that `First.alike` is asked for."""
        self._turns = turns
        self._devices: dict[str, dict[str, Cell]] = {}
        self._same: dict[Any, Any] = {}

    def add(self, record: Record) -> None:
        """Take what counts of a record."""
        of_device = self._devices.setdefault(str(record.host.get("device_name")), {})
        cell = of_device.get(record.case_id)
        if cell is None:
            cell = of_device[record.case_id] = Cell(record.conditions)
        elif cell.conditions != record.conditions:
            cell.launches.clear()
            cell.conditions, cell.first = record.conditions, None
        cell.launches[record.launch] = self._launch(record)
        if cell.first is None or record.launch <= cell.first_number:
            cell.first, cell.first_number = self._first(record), record.launch

    def __iter__(self) -> Iterator[tuple[str, Cell]]:
        """The cells with the names of their devices, device by device."""
        return ((device, cell) for device, cells in self._devices.items() for cell in cells.values())

    def _one(self, value: Any) -> Any:
        """The first value that was equal to this one, so that equal values are kept once."""
        return self._same.setdefault(value, value)

    def _launch(self, record: Record) -> Launch:
        floor = record.floor
        return Launch(
            record.launch,
            self._one(record.status),
            self._one(record.reason),
            _latency(record.latency),
            _throughput(record.throughput),
            _memory(record.memory),
            _energy(record.energy),
            self._one((floor["floor_ms"], floor.get("flops_per_s"), floor.get("copy_bytes_per_s"))) if floor else None,
            self._one(_doubts(record)),
        )

    def _first(self, record: Record) -> First:
        case, host = {**CASE_DEFAULTS, **record.case}, record.host  # an older record lacks later axes
        work, second = record.work or {}, record.second_count or {}
        zoo = record.zoo or {}  # an older record has none
        if not zoo.keys() >= {"family", "caveat", "padded_share"}:
            zoo = {**of_zoo(case["model"], case["height"], case["width"]), **zoo}
        sources: dict[str, Mapping[str, Any]] = {
            "case": case,
            "settings": {**case, **(record.settings or {})},  # for a failed cell: the settings asked for
            "protocol": record.protocol,
            "host": host,
            "versions": {**host.get("versions", {}), "commit": commit(host)},
        }
        columns: dict[str, Any] = {
            **{key: case[key] for key in ("model", "mode", "form", "height", "width")},
            **{name: sources[axis.source].get(name) for name, axis in AXES.items() if axis.source},
            "family": zoo["family"],
            "status": record.status,
            "verified": (record.verified or {}).get("ok"),
            **{key: work.get(key) for key in WORK},
            "flops_coverage": work.get("coverage"),
            "uncounted_reason": uncounted(record),
            "macs_fvcore": second.get("macs_fvcore"),
            "padded_share": zoo["padded_share"],
            "model_commit": commit((host.get("models") or {}).get(case["model"]) or {}),
            "started_at": record.started_at,
            "case_id": record.case_id,
            "conditions": record.conditions,
        }
        return First(
            tuple(self._one(value) if isinstance(value, str) else value for value in map(columns.get, ABOUT)),
            str(case["device"]),
            case["batch"],
            record.protocol["launches"],
            bool(zoo["caveat"]),
            second.get("agree") is False or work.get("closed_form_agrees") is False,
            bool(work.get("params_deployed")) and case["phase"] == "infer",
            self._host(host),
            self._one(pairs.alike(record.case)) if self._turns else "",
        )

    def _host(self, host: dict[str, Any]) -> dict[str, Any]:
        last = self._same.get(_HOST)
        if last != host:
            last = self._same[_HOST] = host
        return host if last is None else last


_HOST = object()  # the key of the last host


def _latency(found: dict[str, Any] | None) -> Latency | None:
    if not found:
        return None
    samples, parts = found["samples_ms"], found.get("parts_ms")
    return Latency(
        found["batch"],
        np.array(samples, np.float64) if samples else None,
        tuple(_middle(parts.get(key)) for key in PARTS) if parts else None,
        found.get("host_ms"),
    )


def _middle(values: Any) -> float | None:
    """The median of a list, or the number itself."""
    if values is None or not isinstance(values, list):
        return None if values is None else float(values)
    return float(np.median(values)) if values else None


def _throughput(found: dict[str, Any] | None) -> Throughput | None:
    if not found:
        return None
    first = (found.get("curve") or [{}])[0]
    return Throughput(
        found.get("images_per_s"),
        found.get("batch"),
        found.get("blocks_ms") or [],
        found.get("block_calls", 1),
        first["images_per_s"] if first.get("batch") == 1 else None,
        found.get("reason"),
    )


def _memory(found: dict[str, Any] | None) -> dict[str, Any] | None:
    """The keys that are columns."""
    return {key: found[key] for key in _KEPT_OF_MEMORY if key in found} if found else None


_KEPT_OF_MEMORY = (
    *("batch", "peak_bytes", *(f"{part}_bytes" for part in MEMORY)),
    *("growth_bytes", "growth_reason", "first_call_s", "compile_s"),
)


def _energy(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return {key: found.get(key) for key in ("net_j_per_image", "gross_j_per_image", "reason")} if found else None


def _doubts(record: Record) -> Doubts:
    outputs, settings = record.outputs or {}, record.settings or {}
    return Doubts(
        bool(outputs.get("nonfinite")),
        bool(outputs.get("differs")),
        record.warmup.get("converged") is False if record.warmup else None,
        _held_back(record),
        _contended(record),
        _more_threads(record),
        tuple(settings.get("background_threads") or ()),
        tuple(settings.get("changed") or ()),
    )


def _held_back(record: Record) -> bool:
    """Whether the device ran below its clock in a launch, or a quota held the process back."""
    state = record.state or {}
    quota = (state.get("cgroup_throttled_s") or 0.0) > HELD_BACK * state.get("wall_s", 0.0)
    return quota or bool((record.latency or {}).get("throttled"))


def _contended(record: Record) -> bool:
    """Whether other processes took processor time from a launch, or used its GPU."""
    state = record.state
    if not state:
        return False
    on_cpu = on_host(record.host.get("device", ""))
    starved = on_cpu and state["cpu_s"] < CONTENDED * state["wall_s"] * state["threads"]
    crowded = on_cpu and state["others_busy_share"] * state["cores"] > OTHERS
    return starved or crowded or bool((state["gpu"] or {}).get("foreign_pids"))


def _more_threads(record: Record) -> bool:
    """Whether a launch took more processor time than the threads of the run have: the model has threads of its own."""
    state = record.state
    if not state or not on_host(record.host.get("device", "")):
        return False
    return bool(state["cpu_s"] > MORE_THREADS * state["wall_s"] * state["threads"])


def uncounted(record: Record) -> str | None:
    """What of a cell's work is not counted, and why; None if all is, or if the cell ended before it was to be counted.

    A counted model may do what the ledger does not know; its MACs then lack what these operations have.
    """
    work, reason = record.work or {}, record.reason or ""
    if work.get("macs") is None:
        said = NOT_COUNTED + reason.partition(NOT_COUNTED)[2] if NOT_COUNTED in reason else None
        return said or (f"{NOT_COUNTED}: no reason is recorded" if record.status == "ok" else None)
    if not work.get("unknown"):
        return None
    share = f", {100 * (1 - work['coverage']):.2g} % of the bytes" if work.get("coverage") is not None else ""
    total = "; no total of FLOPs" if work.get("flops_total", 0) is None else ""
    return f"not fully counted: {', '.join(work['unknown'])} in no table of the ledger{share}{total}"


def commit(host: Mapping[str, Any]) -> str | None:
    """The commit of a record's host, or of a model of `host["models"]`, with "-dirty" if it had changes; else None."""
    return host["commit"] + "-dirty" * bool(host.get("dirty")) if host.get("commit") else None


def known(values: Iterable[float | None]) -> list[float]:
    """The values that are not None."""
    return [value for value in values if value is not None]
