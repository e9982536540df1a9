"""Accuracy against what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from vbench.reports.figures import accuracies, curves, marks, names
from vbench.reports.figures.marks import Name
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, ground, ink, panels
from vbench.reports.series import Series, series_of

DEFAULT = ("macs", "latency_ms", "peak_memory_bytes")
FRONT: dict[str, Any] = {"color": MUTED, "linewidth": 3, "alpha": 0.3, "zorder": 1}
SIZED = "Numbers at points, in the colour of their curve: image side in px."
UNSIZED = "Points of a curve are image sizes, which grow with the cost; there is no room to write each of them."


def accuracy_cost(table: pd.DataFrame, options: Options) -> Drawn:
    """One panel for each cost: top-1 against it, one curve for each series, and the Pareto front.

    A curve goes from small images to large ones. Filled points were measured, with intervals; hollow ones are as papers
    print them, dotted beside measured ones. No point beats a point on the front in accuracy at the same cost or less;
    the front takes the measured accuracy of a cell, if there is one.
    """
    known = table[(table["phase"] == "infer") & table["top1"].notna()]
    costs = [cost for cost in options.costs or DEFAULT if known[cost].notna().any()]
    if not costs:
        raise NotDrawnError(f"no row has both an accuracy and {' or '.join(options.costs or DEFAULT)}")
    measured = known["top1_measured"].notna()
    figure, axes = panels(len(costs), 2.7, most=min(3, len(costs)), sharey=True)
    found: list[Name] = []
    for axis, cost, letter in zip(axes, costs, "abcdefgh", strict=False):
        found += _panel(axis, known, cost)
        axis.set_title(f"({letter}) {MEASURES[cost].title}" if len(costs) > 1 else MEASURES[cost].title)
    for axis in axes:
        if axis.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axis.set_ylabel("Top-1 (%)" if measured.any() else "ImageNet-1K top-1 (%), published")
    names.legend(figure, {**names.entries(found), **front_key()})
    sized = marks.place_sizes(figure, axes)
    said, *gaps = accuracies.notes([row for row in options.accuracy if row.model in set(known["model"])])
    return Drawn(
        figure,
        (
            f"{said} {SIZED if sized else UNSIZED}",
            *gaps,
            "Grey: the Pareto front, which no point drawn beats in accuracy at the same cost or less.",
        ),
    )


def _panel(axis: Axes, known: pd.DataFrame, cost: str) -> list[Name]:
    measure, found, every = MEASURES[cost], [], []
    series = series_of(known)
    for one in curves.of_models(series) if cost in ("macs", "params") else series:
        cells = one.cells[one.cells[cost].notna()]
        if cells.empty:
            continue
        every.append(cells[[cost, "top1"]].to_numpy(dtype=float) / (measure.unit, 1))
        found.append(_curves(axis, one, cells, cost, measure.unit))
    if every:
        best = front(np.concatenate(every))
        axis.step(best[:, 0], best[:, 1], where="post", **FRONT)
    axis.margins(x=0.08, y=0.08)
    curves.log_axis(axis, "x")
    axis.set_xlabel(measure.axis(known))
    return found


def _curves(axis: Axes, one: Series, cells: pd.DataFrame, cost: str, unit: float) -> Name:
    """Draw the published accuracies of a series, hollow, and the measured ones, filled. The name is of the latter."""
    found: list[Name] = []
    for column in ("top1_published", "top1_measured"):
        own = cells[cells[column].notna()]
        if own.empty:
            continue
        x, y = own[cost].to_numpy(dtype=float) / unit, own[column].to_numpy(dtype=float)
        hollow = column == "top1_published"
        look: dict[str, Any] = {"marker": one.marker, "linewidth": 0.9, "zorder": 2 if hollow else 4}
        look |= {"markerfacecolor": ground()} if hollow else {}
        line = ":" if hollow and cells["top1_measured"].notna().any() else one.line
        found.append(marks.curve(axis, x, y, one.label, one.colour, line, **look))
        tops = y
        if not hollow:
            ends = own[["top1_measured_lo", "top1_measured_hi"]].to_numpy(dtype=float).T
            axis.errorbar(x, y, yerr=np.abs(ends - y), fmt="none", ecolor=ink(one.colour), linewidth=0.8, capsize=1.5)
            tops = ends[1]
        for at, top, side in zip(x, tops, own["height"], strict=True):
            if not hollow or line != ":":
                marks.size(axis, str(side), (at, top), one.colour)
    return found[-1]


def front(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of (n, 2) costs and accuracies that no other beats in accuracy at the same cost or less, sorted by cost."""
    kept: list[NDArray[np.float64]] = []
    for point in points[np.lexsort((-points[:, 1], points[:, 0]))]:
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.array(kept)


def front_key() -> dict[str, Artist]:
    """The entry of the front in a legend."""
    return {"Pareto front": Line2D([], [], **FRONT)}
