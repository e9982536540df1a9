"""Records as a table: one row for each cell, with statistics from the raw samples of its launches.

One file: the columns, and how a frame is made and read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vbench.results import launches, pairs
from vbench.results.axes import AXES, SUBJECT
from vbench.results.launched import Launched, column
from vbench.results.launches import Cells, commit, uncounted
from vbench.results.lines import Damage
from vbench.results.moderation import Prior, Scatter, prior_of_parts, scatter_of
from vbench.results.rows import columns
from vbench.results.store import Record, TurnBlock, read_turns, tell

__all__ = ["COLUMNS", "STATED", "WRONG", "apart", "batch_asked", "commit", "filled", "frame", "of_folders"]
__all__ += ["proves_nothing", "rows_of", "uncounted"]

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
    ("Float64", "energy_j_per_image energy_gross_j_per_image images_per_joule"),
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
    "cost_per_million": "throughput",  # of `rates.priced`
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
    from vbench.results import shares

    places = list(folders)
    turns = [block for folder in places for block in read_turns(folder)]
    with launches.uncollected():
        table, damaged = shares.of_folders(places, turns) or _of_folders(places, turns)
    if damaged:
        table.attrs["damaged"] = list(map(str, damaged))
    return table


def _of_folders(places: Sequence[Path], turns: Sequence[TurnBlock]) -> tuple[pd.DataFrame, list[Damage]]:
    cells = Cells()
    damaged = [line for folder in places for line in tell(folder, [launches.read(folder, cells)])]
    return of_cells(cells, turns), damaged


def of_cells(cells: Cells, turns: Sequence[TurnBlock] = ()) -> pd.DataFrame:
    """`frame` of records that are read already."""
    part = Part(cells)
    table = part.table(priors([part.scatter()]))
    return in_order([table], beside(part.alike() if turns else [], turns))


Run = tuple[str, str]  # the name of a device, and conditions: cells of one run tell each other's scatter
Alike = tuple[str, str, str]  # conditions, `pairs.alike`, case_id


class Part:
    """Some cells, or all, with the medians of their launches."""

    def __init__(self, cells: Cells) -> None:
        found = [(device, cell, cell.first) for device, cell in cells if cell.first is not None]
        self._runs = [(device, cell.conditions) for device, cell, _ in found]
        self._cells = Launched((first, cell.in_order()) for _, cell, first in found)

    def scatter(self) -> dict[Run, Scatter]:
        """What the cells of each run say of its scatter."""
        logs = np.log(self._cells.medians)
        runs: dict[Run, list[Any]] = {}
        for run, own in zip(self._runs, self._cells.by_cell(logs, self._cells.cell_of), strict=True):
            runs.setdefault(run, []).append(own)
        return {run: scatter_of([own for own in cells if len(own) > 1]) for run, cells in runs.items()}

    def alike(self) -> list[Alike]:
        """By what each cell is found among those that took turns."""
        runs = zip(self._runs, self._cells.firsts, strict=True)
        return [(conditions, pairs.in_turns(first.case).id, first.case_id) for (_, conditions), first in runs]

    def table(self, of_run: Mapping[Run, Prior | None]) -> pd.DataFrame:
        """The rows of the cells, without what they say beside others."""
        found = columns(self._cells, [of_run[run] for run in self._runs]) if self._runs else {}
        nothing = [None] * len(self._runs)
        kinds = COLUMNS.items()
        return pd.DataFrame({name: column(found.get(name, nothing), kind) for name, kind in kinds}, copy=False)


def priors(parts: Sequence[Mapping[Run, Scatter]]) -> dict[Run, Prior | None]:
    """What each run says of the scatter of its cells, from all parts together."""
    runs = dict.fromkeys(run for part in parts for run in part)
    return {run: prior_of_parts([part[run] for part in parts if run in part]) for run in runs}


def in_order(tables: Sequence[pd.DataFrame], paired: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """The tables of all parts as one, in the order of a frame, with the ratios to cells beside (`beside`)."""
    table = pd.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    ratios = [paired.get(key) for key in zip(table["conditions"], table["case_id"], strict=True)]
    kinds: dict[str, Any] = dict(COLUMNS)
    table["latency_paired"] = pd.array(ratios, dtype=kinds["latency_paired"])
    parting = [name for name, axis in AXES.items() if axis.parts and axis.source]
    order = dict.fromkeys(["device_name", "device", "model", "mode", *parting, "form", "height", "width", "case_id"])
    return table.sort_values(list(order), kind="stable", ignore_index=True)


def beside(cells: Iterable[Alike], turns: Sequence[TurnBlock]) -> dict[tuple[str, str], str]:
    """`latency_paired` of cells, by conditions and case_id. Those that differ in the batch alone share their turns."""
    blocks: dict[str, list[TurnBlock]] = {}
    for block in turns:
        blocks.setdefault(block.conditions, []).append(block)
    alike: dict[tuple[str, str], list[str]] = {}
    keys: dict[tuple[str, str], tuple[str, ...]] = {}  # of a cell: one, unless a record is damaged
    for conditions, key, case_id in sorted(cells):
        alike.setdefault((conditions, key), []).append(case_id)
        before = keys.get((conditions, case_id), ())
        keys[conditions, case_id] = (*before, key) if key not in before else before
    groups: dict[tuple[str, str], dict[tuple[str, ...], dict[str, list[float | None]]]] = {}
    ratios: dict[tuple[str, tuple[str, ...]], dict[str, list[float | None]]] = {}  # of cells with these keys
    for (conditions, _), own in keys.items():
        shared = ratios.setdefault((conditions, own), {})
        for key in own:
            groups.setdefault((conditions, key), {})[own] = shared
    for conditions, taken in blocks.items():
        for (one, other), ratio in pairs.paired(taken).items():
            cells_there, cells_beside = groups.get((conditions, one)), alike.get((conditions, other))
            if cells_there and cells_beside:
                ends = (end if end is None else float(f"{end:.9g}") for end in (ratio.value, ratio.lo, ratio.hi))
                known = [*ends, ratio.blocks, ratio.rounds]
                for shared in cells_there.values():
                    shared.update(dict.fromkeys(cells_beside, known))
    said = {group: json.dumps(found) for group, found in ratios.items() if found}
    return {
        (conditions, case_id): said[conditions, own]
        for (conditions, case_id), own in keys.items()
        if (conditions, own) in said
    }


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
    columns = {str(name): objects(table[name]) for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def objects(values: pd.Series[Any]) -> list[Any]:
    """The values of a column as Python has them, with None for missing ones."""
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
