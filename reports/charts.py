"""Figures from a frame of records."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from vbench.reports.looks import ENDINGS
from vbench.reports.series import Series, series_of
from vbench.reports.tables import caption
from vbench.results.published import accuracies

STYLE: Any = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "svg.hashsalt": "vbench",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One quarter of the figure: a column, what it is divided by, and what its axis says."""

    column: str
    unit: float
    label: str
    title: str
    error: bool = False


PANELS = (
    Panel("macs", 1e9, "GMACs of one image (1 MAC = 2 FLOPs)", "(a) Work"),
    Panel("peak_memory_bytes", 2**20, "Peak memory (MiB), batch 1", "(b) Memory"),
    Panel("latency_ms", 1, "Latency (ms), batch 1", "(c) Latency", error=True),
)


def resolution(table: pd.DataFrame, files: Sequence[Path]) -> None:
    """Work, peak memory, latency and published accuracy against resolution, one figure in several formats.

    A curve ends where a cell ran out of memory or time, and says so. Accuracy is what papers print, drawn
    hollow; it is never measured here.

    Args:
        table: a frame of `vbench.results.frame`.
        files: where to write; the suffix chooses the format.
    """
    series = series_of(table)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 6.0), layout="constrained")
        axes = figure.subplots(2, 2).flat
        for axis, panel in zip(axes, PANELS, strict=False):
            _draw(axis, panel, series)
        _draw_accuracy(figure.axes[3], series)
        _x_axis(figure.axes, table)
        handles, labels = figure.axes[2].get_legend_handles_labels()
        if handles:
            columns = min(4, len(handles))
            figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, handlelength=3.5)
        note = "\n".join(textwrap.wrap(caption(table), 150))
        figure.text(0.01, -0.005, note, fontsize=6, color="#555555", va="top")
        for file in files:
            figure.savefig(file, dpi=200, bbox_inches="tight", metadata=_METADATA.get(file.suffix))


# Without dates, so that the same records give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}


def _draw(axis: Axes, panel: Panel, series: list[Series]) -> None:
    for one in series:
        cells = one.cells[one.cells[panel.column].notna()]
        x = cells["side"].to_numpy(dtype=float)
        y = cells[panel.column].to_numpy(dtype=float) / panel.unit
        # MACs are the model's, whatever the mode: one line suffices where two would lie on each other.
        if panel.column == "macs" and one is not next(other for other in series if other.model == one.model):
            continue
        axis.plot(x, y, one.line, color=one.colour, marker=one.marker, label=one.label)
        if panel.error and len(x):
            low = cells["latency_ms_lo"].to_numpy(dtype=float) / panel.unit
            high = cells["latency_ms_hi"].to_numpy(dtype=float) / panel.unit
            axis.fill_between(x, low, high, color=one.colour, alpha=0.2, linewidth=0)
        if panel.column != "macs":
            _end(axis, one, x, y)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(panel.label)
    axis.set_title(panel.title, loc="left")


def _end(axis: Axes, one: Series, x: Any, y: Any) -> None:
    """Mark where a curve ends, and why, if a cell beyond its last point failed."""
    last = x[-1] if len(x) else 0.0
    beyond = one.cells[(one.cells["side"] > last) & one.cells["status"].isin(list(ENDINGS))]
    if len(beyond) == 0 or len(x) == 0:
        return
    first = beyond.iloc[0]
    axis.plot([last, first["side"]], [y[-1], y[-1]], ":", color=one.colour)
    axis.plot([first["side"]], [y[-1]], marker="x", color=one.colour, markersize=7, markeredgewidth=2)
    axis.annotate(
        ENDINGS[first["status"]],
        (first["side"], y[-1]),
        textcoords="offset points",
        xytext=(0, 7),
        ha="center",
        color=one.colour,
        fontweight="bold",
        fontsize=7,
    )


def _draw_accuracy(axis: Axes, series: list[Series]) -> None:
    drawn = set()
    largest = max((one.cells["side"].max() for one in series), default=0)
    smallest = min((one.cells["side"].min() for one in series), default=0)
    for one in series:
        points = sorted(
            (side, found.top1)
            for (model, side), found in accuracies().items()
            if model == one.model and smallest <= side <= largest
        )
        if one.model in drawn or not points:
            continue
        drawn.add(one.model)
        x, y = zip(*points, strict=True)
        axis.plot(x, y, ":", color=one.colour, marker=one.marker, markerfacecolor="white", label=one.model)
        axis.annotate(
            one.model, (x[-1], y[-1]), textcoords="offset points", xytext=(5, 2), color=one.colour, fontsize=7
        )
    axis.set_ylabel("ImageNet-1K top-1 (%)")
    axis.set_title("(d) Accuracy as published, not measured", loc="left")
    if not drawn:
        axis.text(
            0.5,
            0.5,
            "none published for these models",
            transform=axis.transAxes,
            ha="center",
            color="#555555",
        )


def _x_axis(axes: Sequence[Axes], table: pd.DataFrame) -> None:
    sides = sorted({(h * w) ** 0.5: (h, w) for h, w in zip(table["height"], table["width"], strict=True)}.items())
    for axis in axes:
        axis.set_xlabel("Image side (px)")
        axis.set_xscale("log", base=2)
        axis.minorticks_off()
        ticks = [side for side, _ in sides]
        names = [str(h) if h == w else f"{h}x{w}" for _, (h, w) in sides]
        axis.set_xticks(ticks, names, rotation=45 if len(ticks) > 6 else 0)
        if ticks:
            axis.set_xlim(ticks[0] / 1.12, ticks[-1] * 1.12)
