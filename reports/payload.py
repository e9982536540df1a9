"""What the page's script draws, filters and compares, as JSON: rows, curves, ratios in turns, raw samples.

Columns of rows are called as in `summary.csv`. Numbers have seven significant digits, samples five.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from math import inf, isfinite, log
from typing import Any

import pandas as pd

from vbench.reports import panels
from vbench.reports.appearance import DASHES, SHAPES, STROKES, SYMBOLS, on_dark
from vbench.reports.labels import Labels
from vbench.reports.runs import Run, Where, launches, origin, table_of
from vbench.reports.series import Series, few, series_of
from vbench.reports.tables import extras
from vbench.results import rates
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.answers import pairs
from vbench.results.axes import AXES, PARTS, SETTING, differing, said
from vbench.results.frame import STATED, batch_asked, objects, proves_nothing, rows_of
from vbench.results.known import Accuracies, usable
from vbench.results.ratios import turns_of
from vbench.results.statistics import CONFIDENCE, quantile
from vbench.results.text import px

MOST_ROWS = 20_000  # of a page
MOST_SAMPLES = 200_000  # of a page; of more every second one is kept, or every fourth ...
LISTED = (  # columns of a row that the page has, beside settings and accuracies
    *("model", "mode", "form", "height", "width", "status", "reason", "flags", "params", "macs", "macs_executed"),
    *("latency_ms", "latency_ms_lo", "latency_ms_hi", "latency_level", "latency_basis", "latency_batch"),
    *("throughput_img_s", "throughput_img_s_lo", "throughput_img_s_hi", "batch", "batch_policy"),
    *("peak_memory_bytes", "memory_batch", "state_bytes", "energy_j_per_image", "images_per_joule", "first_call_s"),
    *("energy_reason", "throughput_reason", "padding", "started_at", "case_id"),
)
COMPARED = ("latency_ms", "latency_ms_lo", "latency_ms_hi", "peak_memory_bytes", "throughput_img_s")
FREEDOMS = (*range(1, 31), 40, 60, 120, inf)  # at which the page knows Student's t
MARKS = ("", "-open", "-dot", "-open-dot")  # ends of plotly's symbols, for settings of one model in one mode
DIGITS, DIGITS_OF_SAMPLES = 7, 5


def payload(
    runs: Sequence[Run], table: pd.DataFrame, accuracy: Sequence[MeasuredAccuracy] = (), labels: Labels | None = None
) -> dict[str, Any]:
    """The data of a page; `table` is `table_of(runs)`, its rows in the same order. Of more rows than `MOST_ROWS` the
    first are there."""
    shown = labels or Labels()
    table = table.head(MOST_ROWS).reset_index(drop=True)
    series = series_of(table)
    points = panels.accuracies(series, accuracy)
    title, note = panels.accuracy_title(points)
    keys = [(str(device), str(case)) for device, case in zip(table["device_name"], table["case_id"], strict=True)]
    place = {key: at for at, key in enumerate(keys)}
    samples, step = _samples(runs, place)
    return {
        "rows": {name: _packed(values) for name, values in _rows(runs, table, series, accuracy, keys).items()},
        "names": {model: shown(model) for model in table["model"].unique()},
        "settings": _settings(table),
        "extras": {key: head for head, key in extras(table).items()},
        "curves": _curves(table, series, shown, place),
        "panels": [asdict(panel) for panel in panels.PANELS if table[panel.column].notna().any()],
        "accuracy": {"title": title, "note": note, "points": points},
        "turns": _turns(table, place),
        "quantiles": [[0 if freedom == inf else 1 / freedom, quantile(freedom, CONFIDENCE)] for freedom in FREEDOMS],
        "samples": samples,
        "samples_step": step,
        "runs": [run.name for run in runs],
        "beside": _beside(runs, shown) if len(runs) > 1 else [],
    }


def _rows(
    runs: Sequence[Run],
    table: pd.DataFrame,
    series: Sequence[Series],
    accuracy: Sequence[MeasuredAccuracy],
    keys: Sequence[Where],
) -> dict[str, list[Any]]:
    """The columns of the rows: those of the frame, and what the page computes with.

    `curve` is the place of a row's curve. `latency_error` is the standard error of log latency with its
    `latency_freedom`, None without an interval; likewise for throughput. `wrong` says why a row proves nothing. `top1`
    is a known accuracy.
    """
    rows, run_of = rows_of(table), origin(runs)
    found = {name: objects(table[name]) for name in dict.fromkeys([*LISTED, *PARTS]) if name in table}
    found |= {name: objects(table[name]) for name in extras(table).values()}
    for end in ("lo", "hi"):
        if (name := f"{rates.COST}_{end}") in table:
            found[name] = objects(table[name])
    found["batch_asked"] = objects(batch_asked(table))
    found["run"] = [run_of.get(key) for key in keys]
    curve: list[int | None] = [None] * len(table)
    for at, one in enumerate(series):
        for row in one.cells.index:
            curve[int(row)] = at
    found["curve"] = curve
    for cost in ("latency_ms", "throughput_img_s"):
        errors = [error_of(row, cost) for row in rows]
        found[f"{STATED[cost]}_error"] = [error and error[0] for error in errors]
        found[f"{STATED[cost]}_freedom"] = [None if error is None or error[1] == inf else error[1] for error in errors]
    found["wrong"] = [proves_nothing(row) for row in rows]
    known = Accuracies(of_most(accuracy))
    tops = [known.of(str(row["model"]), row["height"], row["width"], row["dtype"]) for row in rows]
    for name, key in (("top1", "value"), ("top1_lo", "lo"), ("top1_hi", "hi"), ("top1_source", "source")):
        found[name] = [None if top is None else getattr(top, key) for top in tops]
    return found


def error_of(row: dict[str, Any], cost: str = "latency_ms") -> tuple[float, float] | None:
    """The standard error of the logarithm of a cost, and its degrees of freedom (`inf` for a normal interval).

    As `statistics.ratio` takes them. None for a row without an interval of a known level.
    """
    about = STATED[cost]
    low, high, level, basis = row[f"{cost}_lo"], row[f"{cost}_hi"], row[f"{about}_level"], row[f"{about}_basis"]
    if not low or not high or not level or basis in (None, "range") or not level < 1:
        return None
    freedom = row[f"{about}_freedom"] or inf
    return log(high / low) / 2 / quantile(freedom, level), freedom


def of_most(accuracy: Sequence[MeasuredAccuracy]) -> list[MeasuredAccuracy]:
    """The accuracies of the data set and labels with most of them: those of two sets are not compared."""
    rows = usable(accuracy)
    most = Counter((row.dataset, row.labels) for row in rows).most_common(1)
    return [row for row in rows if (row.dataset, row.labels) == most[0][0]] if most else []


def _settings(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The settings between which a reader chooses: batch and precision always, others if rows differ in them."""
    table = table.assign(batch_asked=batch_asked(table))
    told = [*differing(table, SETTING), "dtype", "batch_asked"]
    return [
        {
            "key": key,
            "label": {"dtype": "precision", "batch_asked": "batch"}.get(key, AXES[key].label),
            "values": [value for value in dict.fromkeys(objects(table[key])) if value is not None],
        }
        for key in SETTING
        if key in told
    ]


def _curves(
    table: pd.DataFrame, series: Sequence[Series], labels: Labels, place: dict[Where, int]
) -> list[dict[str, Any]]:
    """The curves. Two with one `setting` may be compared; `subject` is what is compared; `nearest` is the place of the
    attention model nearest in parameters, `first` says that it is drawn if there are too many."""
    rows, attention = table.assign(batch_asked=batch_asked(table)), _nearest(table, series, place)
    told = set(differing(rows, SETTING))
    cells, _ = few(table)
    kept = set(zip(cells["device_name"], cells["case_id"], strict=True))
    settings: dict[tuple[str, ...], int] = {}
    alike: Counter[tuple[str, str]] = Counter()
    found: list[dict[str, Any]] = []
    for at, one in enumerate(series):
        own = one.cells.iloc[0]
        setting = [said(key, own[key]) for key in SETTING if key in told and not pd.isna(own[key])]
        subject = one.label
        for part in setting:
            subject = f"{subject} ".replace(f" {part} ", " ", 1).strip()
        rank = alike[one.model, one.mode]
        alike[one.model, one.mode] += 1
        found.append(
            {
                "label": labels.within(one.label),
                "subject": labels.within(subject),
                "model": one.model,
                "mode": one.mode,
                "setting": settings.setdefault(one.setting, len(settings)),
                "under": setting,
                "light": one.colour,
                "dark": on_dark(one.colour),
                "symbol": SYMBOLS[one.marker],
                "mark": MARKS[rank % len(MARKS)],
                "shape": SHAPES[SYMBOLS[one.marker]],
                "dash": DASHES[one.line],
                "dashes": STROKES[DASHES[one.line]],
                "nearest": attention.get(at),
                "first": (own["device_name"], own["case_id"]) in kept,
            }
        )
    return found


def _nearest(table: pd.DataFrame, series: Sequence[Series], place: dict[Where, int]) -> dict[int, int]:
    curve = {int(row): at for at, one in enumerate(series) for row in one.cells.index}

    def at(rows: pd.DataFrame) -> int | None:
        first = rows.iloc[0]
        return curve.get(place.get((str(first["device_name"]), str(first["case_id"])), -1))

    places = [(at(pair.mine), at(pair.theirs)) for pair in pairs(few(table)[0])]
    return {mine: theirs for mine, theirs in places if mine is not None and theirs is not None}


def _turns(table: pd.DataFrame, place: dict[Where, int]) -> list[list[Any]]:
    """The ratios that were measured in turns: [row, other row, ratio, lo, hi, blocks], the one over the other."""
    found = []
    for at, row in enumerate(rows_of(table[["device_name", "case_id", "latency_paired"]])):
        for case_id, over in turns_of(row).items():
            other = place.get((str(row["device_name"]), case_id))
            if other is not None:
                found.append([at, other, *(_short(end) for end in (over.value, over.lo, over.hi)), over.blocks])
    return found


def _samples(runs: Sequence[Run], place: dict[Where, int]) -> tuple[dict[int, list[list[Any]]], int]:
    """{row: [[launch, batch, times in ms], ...]} of single calls, and of how many one was kept."""
    found: dict[int, list[list[Any]]] = {}
    count = 0
    for key, own in launches(record for run in runs for record in run.records).items():
        for record in own if key in place else ():
            if times := (record.latency or {}).get("samples_ms"):
                found.setdefault(place[key], []).append([record.launch, (record.latency or {}).get("batch"), times])
                count += len(times)
    step = 1
    while count / step > MOST_SAMPLES:
        step *= 2
    for of_cell in found.values():
        for launch in of_cell:
            launch[2] = [_short(time, DIGITS_OF_SAMPLES) for time in launch[2][::step]]
    return found, step


def _beside(runs: Sequence[Run], labels: Labels) -> list[dict[str, Any]]:
    """The cases that two runs or more have: name, size, and the figures of each of these runs, by its place."""
    found: dict[str, dict[str, Any]] = {}
    every = pd.concat([table_of([run]).assign(_run=at) for at, run in enumerate(runs)], ignore_index=True)
    every["batch_asked"] = batch_asked(every)
    told = [key for key in differing(every, PARTS) if key != "device_name"]
    for row in rows_of(every):
        words = [labels(row["model"]), row["mode"], row["form"], *(said(k, row[k]) for k in told if row[k] is not None)]
        name = " ".join(str(word) for word in words if word)
        case = found.setdefault(row["case_id"], {"name": name, "size": px(row["height"], row["width"]), "of": {}})
        error = error_of(row)
        case["of"][row["_run"]] = {
            **{key: _short(row[key]) for key in COMPARED},
            **{"status": row["status"], "reason": row["reason"], "flags": row["flags"], "device": row["device_name"]},
            **{"error": error and _short(error[0]), "freedom": None if error is None or error[1] == inf else error[1]},
            "batches": [row["latency_batch"], row["memory_batch"], row["batch"]],
        }
    return [case for case in found.values() if len(case["of"]) > 1]


def _packed(values: Sequence[Any]) -> Any:
    """A column: numbers as they are, texts as {"of": distinct ones, "at": their places}; None if nothing is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], str):
        distinct = {text: at for at, text in enumerate(dict.fromkeys(known))}
        return {"of": list(distinct), "at": [None if value is None else distinct[value] for value in values]}
    return [_short(value) for value in values]


def _short(value: Any, digits: int = DIGITS) -> Any:
    """A number with that many significant digits; None for what is no finite number. Whole numbers stay whole."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value
    number = float(f"{float(value):.{digits}g}")
    if not isfinite(number):
        return None
    return int(number) if number.is_integer() else number
