"""Records as a table: one row for each cell, with statistics from the raw samples of its launches.

One file: the columns, and the parts of a row that fill them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vbench.devices import on_host
from vbench.plan import CASE_DEFAULTS
from vbench.results import pairs
from vbench.results.axes import AXES, SUBJECT
from vbench.results.faults import faults, outlier_count
from vbench.results.models import of_zoo
from vbench.results.moderation import Prior
from vbench.results.published import accuracies
from vbench.results.statistics import CONFIDENCE, Interval, interval, least_samples, run_prior
from vbench.results.store import Record, TurnBlock, current, reading

CONTENDED = 0.9  # on the CPU: the least share of wall time in which a measurement must have its processors
OTHERS = 0.5  # processors that other processes may keep busy, as they share caches and memory
MORE_THREADS = 1.1  # on the CPU: times the processor time that the threads of the run have
HELD_BACK = 0.01  # the share of a launch's time that a quota may take
NOT_COUNTED = "MACs not counted"  # how the reason begins of a record that has no work
HOST_BOUND = 0.95  # if a call returns after this share of the device's time, the device waits for the host
QUEUED = 1.05  # the device also waits if calls back to back take this many times the device's time

_LISTED = [  # types and columns, in the order of the frame
    ("string", "model family mode form phase"),
    ("int64", "height width"),
    ("Int64", "tokens batch"),
    ("string", "dtype backend layout attention weights_dtype"),
    ("boolean", "tf32"),
    ("string", "device device_name status reason flags"),
    ("boolean", "verified"),
    ("Int64", "params macs macs_executed macs_matmul macs_elementwise macs_fvcore macs_closed_form"),
    ("Int64", "flops_elementwise flops_total"),
    ("Float64", "flops_coverage"),
    ("Int64", "bytes_min"),
    ("Float64", "intensity"),
    ("Int64", "latency_batch"),
    ("Float64", "latency_ms latency_ms_lo latency_ms_hi latency_level"),
    ("string", "latency_basis"),
    ("Float64", "latency_freedom"),
    ("string", "latency_paired"),
    ("Int64", "latency_launches latency_samples latency_outliers"),
    ("Float64", "latency_ms_min latency_ms_p10 latency_ms_p90 latency_ms_p99 forward_ms backward_ms"),
    ("Float64", "update_ms first_call_s compile_s throughput_img_s throughput_img_s_lo throughput_img_s_hi"),
    ("Float64", "throughput_level"),
    ("string", "throughput_basis"),
    ("Float64", "throughput_freedom"),
    ("Int64", "throughput_samples"),
    ("string", "batch_policy throughput_reason"),
    ("Int64", "memory_batch peak_memory_bytes weights_bytes input_bytes activation_bytes gradients_bytes"),
    ("Int64", "optimizer_bytes workspace_bytes slack_bytes growth_bytes"),
    ("string", "growth_reason"),
    ("string", "process_note"),
    ("Int64", "process_bytes state_bytes predicted_peak_bytes"),
    ("Float64", "energy_j_per_image energy_gross_j_per_image"),
    ("string", "energy_reason uncounted_reason padding"),
    ("Float64", "padded_share top1_published"),
    ("string", "top1_source"),
    ("Float64", "floor_ms peak_flops_per_s peak_bytes_per_s"),
    ("Int64", "threads"),
    ("string", "rigor torch triton timm vbench commit model_commit started_at case_id conditions"),
]
STATED = {  # a cost with an interval -> what the columns on the interval begin with: level, basis, freedom, samples
    "latency_ms": "latency",
    "throughput_img_s": "throughput",
    "ms_per_image": "throughput",
}
COLUMNS: dict[str, str] = {name: kind for kind, names in _LISTED for name in names.split()}  # name -> pandas type
COLUMNS |= {name: axis.kind for name, axis in AXES.items() if axis.source}  # settings that are not listed come last


def frame(records: Sequence[Record], turns: Sequence[TurnBlock] = ()) -> pd.DataFrame:
    """One row for each cell and device. Of several records of a launch the newest counts (`store.current`).

    Columns and types are `COLUMNS`. `latency_ms` is the median of the launches' medians at `latency_batch`, with the
    interval `latency_ms_lo` to `_hi` of `latency_level`; `latency_basis` says what it covers (`statistics.interval`).
    The scatter of launches is moderated over the cells of a run: those of one device and the same conditions.
    `throughput_img_s` is at `batch`, with an interval of its own level and basis; peak memory is at `memory_batch`.
    `latency_paired` holds the ratios to cells with which a cell took turns under the same conditions, as JSON:
    {their case_id: [ratio, lo, hi, blocks, rounds]}. Percentiles of fewer samples than `statistics.least_samples` are
    missing. If another value is missing, `status`, `reason`, `throughput_reason` or `energy_reason` says why.
    """
    devices: dict[str, list[Record]] = {}
    for record in records:
        devices.setdefault(str(record.host.get("device_name")), []).append(record)
    cells = [
        sorted(launches.values(), key=lambda record: record.launch)
        for own in devices.values()
        for launches in current(own).values()
    ]
    runs: dict[tuple[str, str], list[list[Sequence[float]]]] = {}
    for launches in cells:
        runs.setdefault(_run_of(launches), []).append(_samples(launches))
    priors = {run: run_prior(found) for run, found in runs.items()}
    rows = [_row(launches, priors[_run_of(launches)]) for launches in cells]
    _add_pairs(rows, records, turns)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    parting = [name for name, axis in AXES.items() if axis.parts and axis.source]
    order = dict.fromkeys(["device_name", "device", "model", "mode", *parting, "form", "height", "width", "case_id"])
    return table.sort_values(list(order), kind="stable", ignore_index=True)


def of_folders(folders: Iterable[Path]) -> pd.DataFrame:
    """The frame of all records in these folders, with their turns. A folder may have none.

    `attrs["damaged"]` has a line for each line of their files that is no record, if there are some.

    Raises: SchemaError, OutputError as `store.reading`.
    """
    found = [reading(folder) for folder in folders]
    table = frame([one for each in found for one in each.records], [one for each in found for one in each.turns])
    if damaged := [str(one) for each in found for one in each.damaged]:
        table.attrs["damaged"] = damaged
    return table


def _add_pairs(rows: Sequence[dict[str, Any]], records: Sequence[Record], turns: Sequence[TurnBlock]) -> None:
    """Add `latency_paired` to rows. Cells that differ in the batch for throughput alone share their turns."""
    cases = {record.case_id: pairs.alike(record.case) for record in records} if turns else {}
    for conditions in dict.fromkeys(block.conditions for block in turns):
        alike: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["conditions"] == conditions:
                alike.setdefault(cases[row["case_id"]], []).append(row)
        beside: dict[str, dict[str, list[float | None]]] = {}
        for (one, other), ratio in pairs.paired(b for b in turns if b.conditions == conditions).items():
            ends = (end if end is None else float(f"{end:.9g}") for end in (ratio.value, ratio.lo, ratio.hi))
            known = [*ends, ratio.blocks, ratio.rounds]
            for row in alike.get(one, ()):
                beside.setdefault(row["case_id"], {}).update(
                    {with_["case_id"]: known for with_ in alike.get(other, ())}
                )
        for row in (row for own in alike.values() for row in own):
            if row["case_id"] in beside:
                row["latency_paired"] = json.dumps(beside[row["case_id"]])


WRONG = {  # flags of a row that proves nothing, and why
    "modes_differ": "the modes of {model} are not one function ('vbench verify')",
    "nonfinite": "timed calls of {model} returned numbers that are not finite",
    "output_differs": "timed calls of {model} did not return what the model computes",
    "impossible": "calls of {model} took less time than this device needs for their work",
}


def proves_nothing(row: Mapping[Any, Any]) -> str | None:
    """Why a row of a frame proves nothing, by its flags; None if it may prove something."""
    flags = str(row["flags"] or "").split()
    return next((why.format(model=row["model"]) for flag, why in WRONG.items() if flag in flags), None)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dicts, with None for missing values."""
    return [
        {str(key): value if isinstance(value, tuple) or not pd.isna(value) else None for key, value in row.items()}
        for row in table.to_dict("records")
    ]


def filled(values: pd.Series[Any], otherwise: Any) -> pd.Series[Any]:
    """The values as objects, with `otherwise` (a value, or another column) for missing ones; no type is guessed."""
    return values.astype(object).where(values.notna(), otherwise)


def batch_asked(table: pd.DataFrame) -> pd.Series[Any]:
    """The batch that was asked for in each row of a frame, or the policy that chose it: "8", "knee"."""
    return table["batch"].astype("string").where(table["batch_policy"] == "fixed", table["batch_policy"])


def apart(table: pd.DataFrame) -> list[str]:
    """The columns of `SUBJECT` beside model and mode with several values for one model and mode."""
    ways = table.groupby(["model", "mode"])
    return [key for key in SUBJECT[2:] if key in table and (ways[key].nunique(dropna=False) > 1).any()]


def commit(host: Mapping[str, Any]) -> str | None:
    """The commit of a record's host, or of a model of `host["models"]`, with "-dirty" if it had changes; else None."""
    return host["commit"] + "-dirty" * bool(host.get("dirty")) if host.get("commit") else None


def _run_of(launches: list[Record]) -> tuple[str, str]:
    """What the cells of a run share: the device, and the digest of conditions."""
    return str(launches[0].host.get("device_name")), launches[0].conditions


def _samples(launches: list[Record]) -> list[Sequence[float]]:
    """The samples of latency of each launch that has some, ms."""
    return [record.latency["samples_ms"] for record in launches if record.latency and record.latency["samples_ms"]]


def _row(launches: list[Record], prior: Prior | None) -> dict[str, Any]:
    """The row of a cell from its launches, in their order; `prior` is the run's."""
    first = launches[0]
    ended = next((record for record in launches if record.status != "ok"), first)
    case, host = {**CASE_DEFAULTS, **first.case}, first.host  # an older record lacks later axes
    work = first.work or {}
    zoo = {**of_zoo(case["model"], case["height"], case["width"]), **(first.zoo or {})}  # an older record has none
    samples = _samples(launches)
    latency = interval(samples, prior=prior) if samples else None
    sources: dict[str, dict[str, Any]] = {
        "case": case,
        "settings": {**case, **(first.settings or {})},  # for a failed cell: the settings asked for
        "protocol": first.protocol,
        "host": host,
        "versions": {**host.get("versions", {}), "commit": commit(host)},
    }
    row: dict[str, Any] = {
        **{key: case[key] for key in ("model", "mode", "form", "height", "width")},
        **{name: sources[axis.source].get(name) for name, axis in AXES.items() if axis.source},
        "family": zoo["family"],
        "status": first.status,
        "reason": ended.reason,
        "process_note": _process_note(launches),
        "verified": (first.verified or {}).get("ok"),
        **{key: work.get(key) for key in _WORK},
        "flops_coverage": work.get("coverage"),
        "uncounted_reason": uncounted(first),
        "macs_fvcore": (first.second_count or {}).get("macs_fvcore"),
        "padded_share": zoo["padded_share"],
        "model_commit": commit((host.get("models") or {}).get(case["model"]) or {}),
        "started_at": first.started_at,
        "case_id": first.case_id,
        "conditions": first.conditions,
        **_latency(launches, latency),
        **_throughput(launches, case, latency, prior),
        **_memory(launches),
        **_energy(launches),
        **_floor(launches),
    }
    if case["height"] == case["width"] and (known := accuracies().get((case["model"], case["height"]))):
        row |= {"top1_published": known.top1, "top1_source": f"{known.source}; {known.locator}"}
    row["flags"] = " ".join(_flags(row, launches, caveat=bool(zoo["caveat"])))
    return row


_WORK = (  # keys of a record's work that are columns of the frame
    *("params", "tokens", "padding", "macs", "macs_executed", "macs_matmul", "macs_elementwise", "macs_closed_form"),
    *("flops_elementwise", "flops_total", "bytes_min", "intensity", "state_bytes", "predicted_peak_bytes"),
)
_MEMORY = ("weights", "input", "activation", "gradients", "optimizer", "workspace", "slack", "process")


def _latency(launches: list[Record], of: Interval | None) -> dict[str, Any]:
    measured = [record.latency for record in launches if record.latency and record.latency["samples_ms"]]
    if of is None:
        return {}
    samples = [latency["samples_ms"] for latency in measured]
    everything = np.concatenate([np.asarray(one, dtype=float) for one in samples])
    parts = {key: _median(latency.get("parts_ms", {}).get(key) for latency in measured) for key in _PARTS}
    return {
        "latency_batch": measured[0]["batch"],
        "latency_ms": of.median,
        "latency_ms_lo": of.lo,
        "latency_ms_hi": of.hi,
        "latency_level": of.level,
        "latency_basis": of.basis,
        "latency_freedom": of.freedom,
        "latency_launches": len(measured),
        "latency_samples": len(everything),
        "latency_outliers": outlier_count(samples),
        "latency_ms_min": everything.min(),
        **{f"latency_ms_p{round(100 * share)}": _percentile(everything, share) for share in (0.1, 0.9, 0.99)},
        **{f"{key}_ms": value for key, value in parts.items()},
    }


_PARTS = ("forward", "backward", "update")


def _percentile(samples: NDArray[np.float64], share: float) -> float | None:
    return float(np.quantile(samples, share)) if len(samples) >= least_samples(share) else None


def _throughput(
    launches: list[Record], case: Mapping[str, Any], latency: Interval | None, prior: Prior | None
) -> dict[str, Any]:
    """The columns on throughput. Where single calls serve, their interval is that of latency, the other way round."""
    policy, named = case["batch"], case["batch"] in ("knee", "max")
    found = [record.throughput for record in launches if record.throughput]
    measured = [one for one in found if "images_per_s" in one]
    row = {"batch_policy": policy if named else "fixed", "batch": None if named else policy}
    row["throughput_reason"] = next((one["reason"] for one in found if one.get("reason")), None)
    if not measured:
        return row
    batch = measured[0]["batch"]
    at = [one for one in measured if one["batch"] == batch]
    calls = [record.latency for record in launches if record.latency and record.latency["samples_ms"]]
    if latency and on_host(case["device"]) and batch == calls[0]["batch"]:
        timed = [record for record in launches if record.latency and record.latency["samples_ms"]]
        middle = median(_rate(record) for record in timed)
        ends = middle * latency.median / latency.hi, middle * latency.median / latency.lo
        of = Interval(middle, *ends, latency.level, latency.basis, latency.freedom)
        count = sum(len(one["samples_ms"]) for one in calls)
    else:
        blocks = [[one["block_calls"] * batch * 1e3 / ms for ms in one["blocks_ms"]] for one in at]
        middle = median(one["images_per_s"] for one in at)
        of, count = interval(blocks, prior=prior, middle=middle), sum(map(len, blocks))
    row |= {"batch": batch, "throughput_img_s": middle, "throughput_samples": count}
    if of.lo < of.hi:
        row |= {"throughput_img_s_lo": of.lo, "throughput_img_s_hi": of.hi, "throughput_level": of.level}
        row |= {"throughput_basis": of.basis, "throughput_freedom": of.freedom}
    return row


def _rate(record: Record) -> float:
    """Images a second of the single calls of a launch; as its throughput says, if it was measured at that batch."""
    assert record.latency
    found, batch = record.throughput, record.latency["batch"]
    if found and found["batch"] == batch:
        return float(found["images_per_s"])
    return float(batch * 1e3 / np.mean(record.latency["samples_ms"]))


def _memory(launches: list[Record]) -> dict[str, Any]:
    """The columns on memory. Sizes come from the launch with the median peak, so they are whole bytes."""
    measured = sorted((r.memory for r in launches if r.memory), key=lambda memory: memory["peak_bytes"])
    if not measured:
        return {}
    middle = measured[(len(measured) - 1) // 2]
    return {
        "memory_batch": middle["batch"],
        "peak_memory_bytes": middle["peak_bytes"],
        **{f"{key}_bytes": middle.get(f"{key}_bytes") for key in _MEMORY},
        "growth_bytes": next((m["growth_bytes"] for m in measured if m.get("growth_bytes") is not None), None),
        "growth_reason": measured[0].get("growth_reason") if len(measured) == 1 else None,
        "first_call_s": _median(memory.get("first_call_s") for memory in measured),
        "compile_s": _median(memory.get("compile_s") for memory in measured),
    }


def _energy(launches: list[Record]) -> dict[str, Any]:
    measured = [record.energy for record in launches if record.energy]
    if not measured:
        return {}
    return {
        "energy_j_per_image": _median(energy.get("net_j_per_image") for energy in measured),
        "energy_gross_j_per_image": _median(energy.get("gross_j_per_image") for energy in measured),
        "energy_reason": next((energy["reason"] for energy in measured if energy.get("reason")), None),
    }


def _floor(launches: list[Record]) -> dict[str, Any]:
    known = [record.floor for record in launches if record.floor]
    rates = {f"peak_{rate}": _greatest(each.get(key) for each in known) for rate, key in _RATES.items()}
    return {"floor_ms": _median(each["floor_ms"] for each in known), **rates}


_RATES = {"flops_per_s": "flops_per_s", "bytes_per_s": "copy_bytes_per_s"}


def _greatest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _median(values: Iterable[float | Sequence[float] | None]) -> float | None:
    """The median of numbers, or of the medians of lists; None if all are missing."""
    known = [median(value) if isinstance(value, Sequence) else value for value in values if value is not None]
    return median(known) if known else None


def _flags(row: dict[str, Any], launches: list[Record], *, caveat: bool) -> list[str]:
    """The flags of a row: reasons for doubt. A timing flag is raised if most launches raise it."""
    first = launches[0]
    latencies = [record.latency for record in launches if record.latency]
    flags = {
        "modes_differ": row["verified"] is False,
        "nonfinite": any((record.outputs or {}).get("nonfinite") for record in launches),
        "output_differs": any((record.outputs or {}).get("differs") for record in launches),
        "impossible": _most(map(_impossible, (record for record in launches if record.latency))),
        "caveat": caveat,
        "few_samples": bool(latencies) and _too_few(row, first),
        "unconverged": _most((r.warmup or {}).get("converged") is False for r in launches if r.warmup),
        "throttled": _most(map(_held_back, launches)),
        "contended": _most(map(_contended, launches)),
        "host_bound": _most(map(_host_bound, launches)),
        "more_threads": _most(map(_more_threads, launches)),
        "background_threads": any((record.settings or {}).get("background_threads") for record in launches),
        "settings_changed": any((record.settings or {}).get("changed") for record in launches),
    }
    found = [name for name, raised in flags.items() if raised]
    found += faults([latency["samples_ms"] for latency in latencies])
    if (first.second_count or {}).get("agree") is False or (first.work or {}).get("closed_form_agrees") is False:
        found.append("counters_disagree")
    if row["uncounted_reason"]:
        found.append("uncounted")
    if (first.work or {}).get("params_deployed") and row["phase"] == "infer":
        found.append("deployable")
    if row["padding"]:
        found.append("cropped" if row["padding"].startswith("cuts off") else "padded")
    return found


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


def _too_few(row: dict[str, Any], first: Record) -> bool:
    """Whether the interval is no 95 % interval, or comes from one launch where the protocol wants several.

    A slow cell gets as many launches as fit into its time. From two on its interval says how few they are.
    """
    alone = row["latency_launches"] == 1 < first.protocol["launches"]
    return alone or (row["latency_level"] or 0.0) < CONFIDENCE


def _impossible(record: Record) -> bool:
    """Whether most calls of a launch took less time than the device needs for their work."""
    least, latency = (record.floor or {}).get("floor_ms"), record.latency
    return bool(least and latency and latency["samples_ms"] and median(latency["samples_ms"]) < least)


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


def _process_note(launches: list[Record]) -> str | None:
    """What the model's code has made of the process that measured it, in words; None if nothing is known of it."""
    said = [record.settings or {} for record in launches]
    changed = [words for settings in said for words in settings.get("changed", ())]
    left = [name for settings in said for name in settings.get("background_threads", ())]
    threads = f"threads left running: {', '.join(dict.fromkeys(left))}" if left else None
    return "; ".join(filter(None, [*dict.fromkeys(changed), threads])) or None


def _held_back(record: Record) -> bool:
    """Whether the device ran below its clock in a launch, or a quota held the process back."""
    state = record.state or {}
    quota = (state.get("cgroup_throttled_s") or 0.0) > HELD_BACK * state.get("wall_s", 0.0)
    return quota or bool((record.latency or {}).get("throttled"))


def _host_bound(record: Record) -> bool:
    """Whether the device waited for the host: a call returned only when it was done, or queued calls took longer."""
    if not record.latency or record.latency.get("host_ms") is None:
        return False
    middle = median(record.latency["samples_ms"])
    curve = (record.throughput or {}).get("curve") or [{}]
    queued = 1e3 / curve[0]["images_per_s"] if curve[0].get("batch") == record.latency["batch"] == 1 else 0.0
    return bool(record.latency["host_ms"] > HOST_BOUND * middle or queued > QUEUED * middle)


def _most(found: Iterable[bool]) -> bool:
    votes = list(found)
    return 2 * sum(votes) > len(votes)
