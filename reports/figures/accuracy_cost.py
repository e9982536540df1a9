"""Accuracy against what it costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from numpy.typing import NDArray

from vbench.reports.figures import accuracies, curves, marks
from vbench.reports.figures.marks import Name
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, ground, ink, sheet
from vbench.reports.series import Series, series_of

DEFAULT = ("macs", "latency_ms", "peak_memory_bytes")
PLACES = ((0, 6), (10, 5), (12, 0), (-10, 5), (-12, -1), (-10, -6), (0, -7))  # for a size beside its point, in pt


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
    figure = sheet(1 if len(costs) == 1 else 2, 2.7)
    panels = figure.subplots(1, len(costs), squeeze=False, sharey=True)[0]
    names: list[Name] = []
    for axis, cost, letter in zip(panels, costs, "abcdefgh", strict=False):
        names += _panel(axis, known, cost)
        axis.set_title(f"({letter}) {MEASURES[cost].title}" if len(costs) > 1 else MEASURES[cost].title)
    panels[0].set_ylabel("Top-1 (%)" if measured.any() else "ImageNet-1K top-1 (%), published")
    marks.name_curves(figure, names)
    keep_apart(figure, list(panels))
    said, *gaps = accuracies.notes([row for row in options.accuracy if row.model in set(known["model"])])
    return Drawn(
        figure,
        (
            said + " Numbers at points: image side in px.",
            *gaps,
            "Grey: the Pareto front, which no point drawn beats in accuracy at the same cost or less.",
        ),
    )


def _panel(axis: Axes, known: pd.DataFrame, cost: str) -> list[Name]:
    measure, names, every = MEASURES[cost], [], []
    series = series_of(known)
    for one in curves.of_models(series) if cost in ("macs", "params") else series:
        cells = one.cells[one.cells[cost].notna()]
        if cells.empty:
            continue
        every.append(cells[[cost, "top1"]].to_numpy(dtype=float) / (measure.unit, 1))
        names.append(_curves(axis, one, cells, cost, measure.unit))
    if every:
        best = front(np.concatenate(every))
        axis.step(best[:, 0], best[:, 1], where="post", color=MUTED, linewidth=3, alpha=0.3, zorder=1)
    axis.margins(x=0.08, y=0.08)
    curves.log_axis(axis, "x")
    axis.set_xlabel(measure.axis(known))
    return names


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
                marks.note(axis, str(side), (at, top), PLACES[0], ha="center", color=MUTED, gid="size")
    return found[-1]


def front(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of (n, 2) costs and accuracies that no other beats in accuracy at the same cost or less, sorted by cost."""
    kept: list[NDArray[np.float64]] = []
    for point in points[np.lexsort((-points[:, 1], points[:, 0]))]:
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return np.array(kept)


def keep_apart(figure: Figure, axes: list[Axes]) -> None:
    """Move the size beside each point to a place without text, point or curve; remove it if there is none."""
    for axis in axes:
        sizes = [text for text in axis.texts if isinstance(text, Annotation) and text.get_gid() == "size"]
        taken = [marks.extent(figure, text) for text in axis.texts if text.get_gid() == "name"]
        panel = axis.get_window_extent()
        points = axis.transData.transform(np.array([text.xy for text in sizes]).reshape(-1, 2))
        lines = marks.along(axis)
        for text in sizes:
            for place in PLACES:
                text.set_position(place)
                box = marks.extent(figure, text)
                on_curve = marks.within(points, box, 2).any() or marks.within(lines, box, 0).any()
                on_text = any(box.overlaps(other) for other in taken)
                inside = panel.x0 <= box.x0 and box.x1 <= figure.bbox.x1 - 2 and box.y1 <= panel.y1 + 8
                if not on_curve and not on_text and inside:
                    taken.append(box)
                    break
            else:
                text.remove()
