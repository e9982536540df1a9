"""Records as a table: one row for each cell, with statistics from the raw samples of its launches.

One file: the columns, and how a frame is made and read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vbench.plan import Case
from vbench.results import launches, pairs
from vbench.results.axes import AXES, SUBJECT
from vbench.results.launches import Cell, Cells, commit, uncounted
from vbench.results.moderation import Prior, prior_of
from vbench.results.rows import Measured, Row, rows
from vbench.results.series import each, medians
from vbench.results.store import Record, TurnBlock, read_turns

__all__ = ["COLUMNS", "STATED", "WRONG", "apart", "batch_asked", "commit", "filled", "frame", "of_folders"]
__all__ += ["proves_nothing", "rows_of", "uncounted"]
BLOCK = 4096  # cells whose rows are made together

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
    with launches.uncollected():
        cells = Cells()
        for record in records:
            cells.add(record)
        return of_cells(cells, turns)


def of_folders(folders: Iterable[Path]) -> pd.DataFrame:
    """The frame of all records in these folders, with their turns. A folder may have none.

    `attrs["damaged"]` has a line for each line of their files that is no record, if there are some.

    Raises: SchemaError, OutputError as `store.reading`.
    """
    places = list(folders)
    found = [read_turns(folder) for folder in places]
    turns, damaged = [block for each_ in found for block in each_], []
    with launches.uncollected():
        cells = Cells()
        for folder in places:
            damaged += launches.read(folder, cells)
        table = of_cells(cells, turns)
    if damaged:
        table.attrs["damaged"] = list(map(str, damaged))
    return table


def of_cells(cells: Cells, turns: Sequence[TurnBlock] = ()) -> pd.DataFrame:
    """`frame` of records that are read already."""
    found = [(device, cell) for device, cell in cells]
    measured = _measured(found)
    beside = _beside([cell for _, cell in found], turns)
    blocks = []
    for first in range(0, max(1, len(measured)), BLOCK):
        part = rows(measured[first : first + BLOCK])
        for row in part:
            row["latency_paired"] = beside.get((row["conditions"], row["case_id"]))
        blocks.append(_columns(part))
    table = pd.concat(blocks, ignore_index=True) if len(blocks) > 1 else blocks[0]
    parting = [name for name, axis in AXES.items() if axis.parts and axis.source]
    order = dict.fromkeys(["device_name", "device", "model", "mode", *parting, "form", "height", "width", "case_id"])
    return table.sort_values(list(order), kind="stable", ignore_index=True)


def _columns(part: Sequence[Row]) -> pd.DataFrame:
    """Rows as columns of their types; None is missing."""
    kinds: dict[str, Any] = dict(COLUMNS)
    return pd.DataFrame({name: pd.array([row.get(name) for row in part], dtype=kind) for name, kind in kinds.items()})


def _measured(found: Sequence[tuple[str, Cell]]) -> list[Measured]:
    """The cells with their launches in order, the medians of these, and what their run says of the scatter."""
    ordered = [cell.in_order() for _, cell in found]
    samples = [
        [one.latency.samples for one in own if one.latency and one.latency.samples is not None] for own in ordered
    ]
    ends = np.cumsum([len(own) for own in samples])
    middles = np.split(each([launch for own in samples for launch in own], medians), ends[:-1] if len(ends) else [])
    runs: dict[tuple[str, str], list[int]] = {}
    for place, (device, cell) in enumerate(found):
        runs.setdefault((device, cell.conditions), []).append(place)
    priors: dict[int, Prior | None] = {}
    for places in runs.values():
        prior = prior_of([np.log(middles[place]) for place in places if len(middles[place]) > 1])
        priors |= dict.fromkeys(places, prior)
    return [
        Measured(cell.first, own, middles[place].tolist(), priors[place])
        for place, ((_, cell), own) in enumerate(zip(found, ordered, strict=True))
        if cell.first is not None
    ]


def _beside(cells: Sequence[Cell], turns: Sequence[TurnBlock]) -> dict[tuple[str, str], str]:
    """`latency_paired` of cells, by conditions and case_id. Those that differ in the batch alone share their turns."""
    blocks: dict[str, list[TurnBlock]] = {}
    for block in turns:
        blocks.setdefault(block.conditions, []).append(block)
    alike: dict[tuple[str, str], dict[str, None]] = {}
    names = [one.name for one in fields(Case)]
    for cell in cells if turns else ():
        if cell.first is not None:
            case = {name: getattr(cell.first.case, name) for name in names}
            alike.setdefault((cell.conditions, pairs.alike(case)), {})[cell.first.case_id] = None
    found: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    for conditions, own in blocks.items():
        for (one, other), ratio in pairs.paired(own).items():
            ends = (end if end is None else float(f"{end:.9g}") for end in (ratio.value, ratio.lo, ratio.hi))
            known = [*ends, ratio.blocks, ratio.rounds]
            others = dict.fromkeys(alike.get((conditions, other), ()), known)
            for case_id in alike.get((conditions, one), ()) if others else ():
                found.setdefault((conditions, case_id), {}).update(others)
    return {key: json.dumps(ratios) for key, ratios in found.items()}


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
    columns = {str(name): _objects(table[name]) for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _objects(values: pd.Series[Any]) -> list[Any]:
    """The values of a column, with None for missing ones."""
    found = values.astype(object).to_numpy(dtype=object, copy=True)
    found[values.isna().to_numpy()] = None
    return list(found)


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
