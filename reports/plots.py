"""The curves of a frame as figures for a browser: dicts for plotly.js that contain only JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import floor, log10
from typing import Any

import pandas as pd

from vbench.reports.appearance import DASHES, ENDINGS, SYMBOLS
from vbench.reports.hover import lines, origin
from vbench.reports.series import Series, series_of
from vbench.reports.tables import figure, span
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.answers import Pair, pairs
from vbench.results.frame import rows_of
from vbench.results.known import side_of, ways
from vbench.results.published import accuracies_of
from vbench.results.ratios import ratio
from vbench.results.text import px

FEWEST_TICKS, MOST_TICKS = 3, 12  # of an axis


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a column over image size, divided by `unit`, with the label of its axis and a note."""

    key: str
    title: str
    column: str
    unit: float
    label: str  # of the axis, unit included
    note: str
    batch: str | None = None  # the column that says at what batch
    measured: bool = True  # the curve ends where a cell failed; False for counted columns


_WORK = "What the algorithm needs; 1 MAC = 2 FLOPs."
_MEMORY = "Weights and input included."
_SPEED = "Calls back to back, at each row's own batch."
_ENERGY = "By the hardware's counter, less idle."
PANELS = (
    Panel("macs", "Work", "macs", 1e9, "GMACs of one image", _WORK, measured=False),
    Panel("memory", "Peak memory", "peak_memory_bytes", 2**20, "peak memory (MiB)", _MEMORY, "memory_batch"),
    Panel("latency", "Latency", "latency_ms", 1, "time a call (ms)", "Median of single calls.", "latency_batch"),
    Panel("throughput", "Throughput", "throughput_img_s", 1, "images/s", _SPEED),
    Panel("energy", "Energy", "energy_j_per_image", 1, "energy (J an image)", _ENERGY, "batch"),
    Panel("state", "Recurrent state", "state_bytes", 2**10, "state (KiB)", "In closed form.", measured=False),
)
_LESS = "Below 1 the recurrent mode needs less."
_TURNS = "Each recurrent model over the attention model nearest in parameters; below 1 it is faster."
_TIME, _PEAK = "Recurrent over parallel mode: time", "Recurrent over parallel mode: memory"
MODES = (
    Panel("modes-latency", _TIME, "latency_ms", 1, "ratio of times", _LESS, "latency_batch"),
    Panel("modes-memory", _PEAK, "peak_memory_bytes", 1, "ratio of peaks", _LESS, "memory_batch"),
)
ATTENTION = Panel(
    "attention-latency",
    "Recurrent model over attention: time",
    "latency_ms",
    1,
    "ratio of times",
    _TURNS,
    "latency_batch",
)
RATIOS = (ATTENTION, *MODES)
_PUBLISHED = "What papers print for weights trained at 224 px, tested at other sizes."
ACCURACY = Panel("accuracy", "Accuracy as published, not measured", "top1", 1, "ImageNet-1K top-1 (%)", _PUBLISHED)

_BOTH = f"Filled: measured, with 95 % Wilson intervals. Hollow: {_PUBLISHED[0].lower()}{_PUBLISHED[1:]}"
BOTH = Panel("accuracy", "Accuracy, measured and published", "top1", 1, "Top-1 (%)", _BOTH)


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure. `spec` is plotly's `data` and `layout`; the `legendgroup` of a trace is the label of its series."""

    key: str
    title: str
    note: str
    summary: str  # in words, for readers who cannot see it
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of the common legend of all figures."""

    label: str
    colour: str  # "#RRGGBB"
    symbol: str  # plotly's name
    dash: str


def keys(table: pd.DataFrame) -> list[Key]:
    """The legend: one entry for each series."""
    return [Key(one.label, one.colour, SYMBOLS[one.marker], DASHES[one.line]) for one in series_of(table)]


def plots(table: pd.DataFrame, accuracy: Sequence[MeasuredAccuracy] = ()) -> list[Plot]:
    """The figures of a frame, and of what was measured of accuracy. A figure without any value is left out."""
    series = series_of(table)
    sizes = [one.cells[["side", "height", "width"]] for one in series]
    ticks = sorted({side: px(h, w) for cells in sizes for side, h, w in cells.itertuples(index=False)}.items())
    made = [_plot(panel, [trace for one in series for trace in _curve(one, panel)], ticks) for panel in PANELS]
    made.append(_plot(ATTENTION, [trace for pair in pairs(table) for trace in _over_attention(pair, series)], ticks))
    for panel in MODES:
        traces = [trace for one in series if one.mode == "recurrent" for trace in _over_parallel(one, series, panel)]
        made.append(_plot(panel, traces, ticks))
    measured = _measured(series, accuracy)
    made.append(_plot(BOTH if measured else ACCURACY, [*_published(series), *measured], ticks))
    return [plot for plot in made if plot]


def undrawn(table: pd.DataFrame) -> list[str]:
    """One line for each figure without any value, and why."""
    reasons = ", ".join(table["energy_reason"].dropna().unique())
    return [
        f"{panel.title}: no row has a value" + (f" ({reasons})" if panel.key == "energy" and reasons else "")
        for panel in PANELS
        if table[panel.column].notna().sum() == 0
    ]


def _plot(panel: Panel, traces: list[dict[str, Any]], ticks: Sequence[tuple[float, str]]) -> Plot | None:
    if not traces:
        return None
    axis = {"showline": True, "linecolor": "#888", "gridcolor": "#ddd", "zeroline": False, "automargin": "width"}
    x = {**axis, "title": {"text": "image side (px)", "standoff": 6}, "type": "log"}
    if 0 < len(ticks) <= MOST_TICKS:
        x |= {"tickmode": "array", "tickvals": [side for side, _ in ticks], "ticktext": [name for _, name in ticks]}
    scale = "linear" if panel in (ACCURACY, BOTH) else "log"
    y = {**axis, "title": {"text": panel.label}, "type": scale, **_log_ticks(traces)}
    y |= {"exponentformat": "none", "separatethousands": True}
    layout: dict[str, Any] = {"xaxis": x, "yaxis": y}
    if panel in RATIOS:
        layout["shapes"] = [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"width": 1}}]
    drawn = [trace for trace in traces if trace.get("showlegend")]
    count = sum(value is not None for trace in drawn for value in trace["y"])
    names = ", ".join(trace["name"] for trace in drawn)
    return Plot(
        panel.key,
        panel.title,
        panel.note,
        f"{panel.title}: {panel.label} against image side; {count} points of {names}. The rows are in the table below.",
        {"data": traces, "layout": layout},
    )


def _log_ticks(traces: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Ticks of a logarithmic axis: 1, 2, 5, 10 ...; decades if these are too many; the values if they are too few.

    Empty if none of these fits; then plotly chooses.
    """
    values = sorted({value for trace in traces for value in trace["y"] if value})
    if not values:
        return {}
    powers = range(floor(log10(values[0])), floor(log10(values[-1])) + 1)
    decades, steps = ([step * 10.0**power for power in powers for step in each] for each in ((1,), (1, 2, 5)))
    for choice in (steps, decades):
        ticks = [tick for tick in choice if values[0] <= tick <= values[-1]]
        if FEWEST_TICKS <= len(ticks) <= MOST_TICKS:
            break
    else:
        ticks = values if len(values) < FEWEST_TICKS else []
    names = [f"{tick:.4g}" if tick < 1000 else f"{tick:,.0f}" for tick in ticks]
    return {"tickvals": ticks, "ticktext": names} if ticks else {}


def _curve(one: Series, panel: Panel) -> list[dict[str, Any]]:
    """The band and the line, and a mark at the end if a cell beyond the last point failed."""
    cells = one.cells
    values = cells[panel.column].astype("Float64") / panel.unit
    values = values.where(values > 0)  # the axis is logarithmic
    if values.notna().sum() == 0:
        return []
    y = _numbers(values)
    low, high = (
        _numbers(cells[f"{panel.column}_{end}"] / panel.unit) if f"{panel.column}_{end}" in cells else [None] * len(y)
        for end in ("lo", "hi")
    )
    rows = rows_of(cells)
    text = [_hover(one.label, panel, row, *at) for row, at in zip(rows, zip(y, low, high, strict=True), strict=True)]
    traces = [*_band(one, _numbers(cells["side"]), low, high), _line(one, rows, y, text)]
    return traces + (_ending(one, rows, y) if panel.measured else [])


def _trace(one: Series, *, legend: bool = False) -> dict[str, Any]:
    """The fields that all traces of a series have."""
    return {"type": "scatter", "name": escape(one.label), "legendgroup": one.label, "showlegend": legend}


def _line(one: Series, rows: list[dict[str, Any]], y: list[float | None], text: list[str]) -> dict[str, Any]:
    return {
        **_trace(one, legend=True),
        "mode": "lines+markers",
        "x": [row["side"] for row in rows],
        "y": y,
        "line": {"color": one.colour, "dash": DASHES[one.line], "width": 2},
        "marker": {"color": one.colour, "symbol": SYMBOLS[one.marker], "size": 8},
        "text": text,
        "customdata": [row["case_id"] for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }


def _band(one: Series, x: list[Any], low: list[Any], high: list[Any]) -> list[dict[str, Any]]:
    """The interval as a filled shape, with gaps where a cell has no interval."""
    known = [None not in at for at in zip(x, low, high, strict=True)]
    across: list[float | None] = []
    up: list[float | None] = []
    for first, last in _stretches(known):
        part = slice(first, last)
        across += [*x[part], *x[part][::-1], None]
        up += [*high[part], *low[part][::-1], None]
    if not across:
        return []
    return [
        {
            **_trace(one),
            "mode": "lines",
            "x": across[:-1],
            "y": up[:-1],
            "line": {"width": 0, "color": one.colour},
            "fill": "toself",
            "fillcolor": f"{one.colour}33",
            "hoverinfo": "skip",
        }
    ]


def _stretches(known: Sequence[bool]) -> list[tuple[int, int]]:
    """(first, last + 1) of each stretch of two or more known neighbours."""
    ends = [at for at, (before, here) in enumerate(pairwise([False, *known, False])) if before != here]
    return [(first, last) for first, last in zip(ends[::2], ends[1::2], strict=True) if last - first > 1]


def _ending(one: Series, rows: list[dict[str, Any]], y: list[float | None]) -> list[dict[str, Any]]:
    last = max((at for at, value in enumerate(y) if value is not None), default=None)
    beyond = [row for row in rows[(last or 0) + 1 :] if row["status"] in ENDINGS]
    if last is None or not beyond:
        return []
    end = beyond[0]
    named = ENDINGS[end["status"]]
    said = [f"<b>{escape(one.label)}</b>, {px(end['height'], end['width'])} px: {named}", *lines(end["reason"])]
    return [
        {
            **_trace(one),
            "mode": "lines",
            "x": [rows[last]["side"], end["side"]],
            "y": [y[last], y[last]],
            "line": {"color": one.colour, "dash": "dot", "width": 2},
            "hoverinfo": "skip",
        },
        {
            **_trace(one),
            "mode": "markers+text",
            "x": [end["side"]],
            "y": [y[last]],
            "marker": {"color": one.colour, "symbol": "x", "size": 10},
            "text": ["OOM" if end["status"] == "oom" else named],
            "textposition": "top left",
            "textfont": {"color": "#222"},
            "hovertext": ["<br>".join([*said, *origin(end)])],
            "customdata": [end["case_id"]],
            "hovertemplate": "%{hovertext}<extra></extra>",
        },
    ]


def _over_parallel(one: Series, series: Sequence[Series], panel: Panel) -> list[dict[str, Any]]:
    """The cost in recurrent mode over that of the same model and settings in parallel mode, at each size."""
    alike = (one.model, "parallel", one.setting)
    other = next((other for other in series if (other.model, other.mode, other.setting) == alike), None)
    if other is None:
        return []
    mine, theirs = (cells.set_index(["height", "width"]) for cells in (one.cells, other.cells))
    return _over(one, f"{one.label} over {other.label}", mine, theirs, panel)


def _over_attention(pair: Pair, series: Sequence[Series]) -> list[dict[str, Any]]:
    """The time of a recurrent model over that of attention, at each size that both have."""
    own = set(pair.mine["case_id"])
    one = next((one for one in series if own & set(one.cells["case_id"])), None)
    if one is None:
        return []
    mine = one.cells[one.cells["case_id"].isin(own)].set_index(["height", "width"])
    return _over(one, f"{one.label} over {pair.baseline}", mine, pair.theirs, ATTENTION)


def _over(one: Series, name: str, mine: pd.DataFrame, theirs: pd.DataFrame, panel: Panel) -> list[dict[str, Any]]:
    """The ratio of two curves at each size that both have; rows are indexed by (height, width)."""
    common = [size for size in mine.index if size in theirs.index]
    mine, theirs = mine.loc[common], theirs.loc[common]
    sizes = zip(mine.to_dict("records"), theirs.to_dict("records"), strict=True)
    found = [ratio(*pair, panel.column) for pair in sizes]
    values, low, high = ([getattr(one, part, None) for one in found] for part in ("value", "lo", "hi"))
    if not any(values):
        return []
    rows = rows_of(mine.reset_index())
    text = [
        _hover(name, panel, row, value, lo, hi, f"measured {over.basis}" if over and over.blocks else "")
        for row, over, value, lo, hi in zip(rows, found, values, low, high, strict=True)
    ]
    line = _line(one, rows, values, text)
    line["error_y"] = _bars(values, low, high)
    return [*_band(one, [row["side"] for row in rows], low, high), line]


def _bars(values: Sequence[float | None], low: Sequence[float | None], high: Sequence[float | None]) -> dict[str, Any]:
    """Plotly's error bars from the ends of intervals; a value without an interval has none."""
    up, down = (
        [None if end is None or value is None else abs(end - value) for value, end in zip(values, ends, strict=True)]
        for ends in (high, low)
    )
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.5, "width": 3}


def _published(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Published accuracies as hollow points, once for each model, in the legend group of its first series."""
    traces: list[dict[str, Any]] = []
    drawn: set[str] = set()
    smallest = min((one.cells["side"].min() for one in series), default=0)
    largest = max((one.cells["side"].max() for one in series), default=0)
    for one in series:
        points = [(side, of) for side, of in accuracies_of(one.model).items() if smallest <= side <= largest]
        if one.model in drawn or not points:
            continue
        drawn.add(one.model)
        text = [
            f"<b>{escape(one.model)}</b>, {side} px<br>top-1 {found.top1:g} %, published, not measured<br>"
            + "<br>".join(lines(f"{found.source}; {found.locator}"))
            for side, found in points
        ]
        rows = [{"side": float(side), "case_id": None} for side, _ in points]
        trace = _line(one, rows, [found.top1 for _, found in points], text)
        trace["marker"] |= {"symbol": f"{SYMBOLS[one.marker]}-open", "line": {"width": 2}}
        trace["line"] = {**trace["line"], "dash": "dot", "width": 1.5}
        traces.append(trace)
    return traces


def _measured(series: Sequence[Series], accuracy: Sequence[MeasuredAccuracy]) -> list[dict[str, Any]]:
    """Measured accuracies as filled points with intervals, for each way of measuring a model that has a series."""
    traces = []
    for model, one in {one.model: one for one in reversed(series)}.items():
        for name, own in ways(accuracy, model):
            text = [
                f"<b>{escape(name)}</b>, {px(row.height, row.width)} px<br>top-1 {row.top1:.2f} % "
                f"({row.top1_lo:.2f}–{row.top1_hi:.2f}), measured<br>"
                + "<br>".join(lines(f"{row.images:,} images of {row.dataset}; {row.checkpoint}; {row.dtype}"))
                for row in own
            ]
            values, low, high = ([getattr(row, f"top1{end}") for row in own] for end in ("", "_lo", "_hi"))
            trace = _line(one, [{"side": side_of(row), "case_id": None} for row in own], values, text)
            traces.append(trace | {"error_y": _bars(values, low, high)})
    return traces


def _hover(
    name: str,
    panel: Panel,
    row: dict[str, Any],
    value: float | None,
    low: float | None,
    high: float | None,
    basis: str = "",
) -> str:
    """What a point says; `basis` is a line on how it was measured."""
    if value is None:
        return ""
    between = f" ({between})" if (between := span(low, high)) else ""
    said = [f"<b>{escape(name)}</b>, {px(row['height'], row['width'])} px", f"{panel.label}: {figure(value)}{between}"]
    if panel.key == "latency" and between:
        level = "level not known" if row["latency_level"] is None else f"{row['latency_level']:.0%}"
        said.append(f"interval: {level}, {escape(row['latency_basis'] or '')}")
    said += [escape(basis)] if basis else []
    if panel.batch and row[panel.batch] is not None:
        said.append(f"batch {row[panel.batch]}")
    return "<br>".join([*said, *origin(row)])


def _numbers(values: pd.Series[Any]) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in values]
