"""Work, memory, latency and accuracy against image size: the figure of ViG with our labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from vbench.errors import UsageError
from vbench.reports.appearance import ENDINGS
from vbench.reports.figures import accuracies, curves, marks
from vbench.reports.figures.marks import Name
from vbench.reports.figures.measures import MEASURES, Measure
from vbench.reports.figures.pairs import Pair, pair_of, ratio_at
from vbench.reports.figures.ratio import band
from vbench.reports.figures.style import Drawn, Options, ground, ink, panels
from vbench.reports.series import Series, series_of
from vbench.results.known import side_of, usable
from vbench.results.mcnemar import Paired, compare
from vbench.results.published import accuracies_of
from vbench.results.scaling import crossing

PANELS = ("macs", "peak_memory_bytes", "latency_ms")


def resolution(table: pd.DataFrame, options: Options) -> Drawn:
    """Four panels against image size; the fourth is accuracy: measured filled, as papers print it hollow.

    A curve ends at a wall where a cell ran out of memory or time. Arrows join baseline and subject (`pairs.pair_of`) at
    those sizes of `options.at` that both have. If there is room, an inset shows the point where they cross.
    """
    series = series_of(table)
    pair = pair_of(series, options)
    sides = curves.sides_of(table)
    figure, axes = panels(4, 2.7)
    names: list[Name] = []
    notes: list[str] = []
    for number, key in enumerate(PANELS):
        shown = curves.of_models(series) if key == "macs" else series
        names += curves.draw(axes[number], shown, MEASURES[key], table)
    names += _accuracy(axes[3], series, sides, options)
    curves.size_axis(axes, sides)
    for panel, letter in zip(axes, "abcd", strict=True):
        panel.set_title(f"({letter}) {panel.get_title(loc='left')}")
    if pair:
        notes.append(
            f"Ratios: {pair.baseline.label} over {pair.subject.label}, computed from the values at the arrows. "
            "Dashed and italic: the second is worse. An arrow that would have no length is not drawn."
        )
        for number, key in enumerate(PANELS):
            notes += _ratios(axes[number], pair, MEASURES[key], options.at)
        notes += _band(axes[PANELS.index("latency_ms")], pair)
        notes += _points(axes[3], pair, options, sides)
    curves.finish(figure, names, sides)
    if pair:
        for number in (1, 2):
            _closer(figure, axes[number], series, pair, MEASURES[PANELS[number]])
    models = {one.model for one in series}
    return Drawn(figure, (*notes, *accuracies.notes([row for row in options.accuracy if row.model in models])))


def _ratios(axis: Axes, pair: Pair, measure: Measure, at: Sequence[int]) -> list[str]:
    """Draw an arrow at each size where both ends have a value. Returns the notes for the caption."""
    notes = []
    for side in at:
        found = ratio_at(pair, measure, side)
        if found is None:
            notes += _no_ratio(pair, measure, side)
            continue
        ends = (curves.value_at(pair.baseline, measure, side), curves.value_at(pair.subject, measure, side))
        marks.ratio(axis, side, (ends[0] or 0.0, ends[1] or 0.0), marks.times(found.value), won=found.value >= 1)
        unknown = " (interval not known)" if measure.walls and found.lo is None else ""
        notes.append(f"{measure.title} at {side} px: {found}{unknown}.")
    return notes


def _band(axis: Axes, pair: Pair) -> list[str]:
    """Draw from which size on the subject needs less time, its interval as a band. Returns a note for the caption."""
    names = (pair.subject.label, pair.baseline.label)
    found = crossing(pair.subject.cells, pair.baseline.cells, names, "latency_ms")
    if found is None or found.verdict != "crosses":
        return []
    band(axis, found, ink(pair.subject.colour))
    return [f"{'Band in (c): ' if found.interval_known else ''}{found.reading}."]


def _no_ratio(pair: Pair, measure: Measure, side: float) -> list[str]:
    """A note on why a size that was tried has no ratio."""
    for one in pair:
        cells = one.cells[one.cells["side"] == side]
        if len(cells) and measure.walls and cells["status"].iloc[0] in ENDINGS:
            return [f"{measure.title} at {side} px: no ratio, {one.label}: {ENDINGS[cells['status'].iloc[0]]}."]
    return []


def _points(axis: Axes, pair: Pair, options: Options, sides: dict[float, str]) -> list[str]:
    """Draw the difference in accuracy at the largest size where both have one; measured ones come before published.

    Returns a note for the caption.
    """
    models = pair.baseline.model, pair.subject.model
    if models[0] == models[1]:
        return []
    if found := _paired(models, options, sides):
        of = found[-1]
        at, ends = side_of(of.a), of.accuracies
        marks.ratio(axis, at, (ends[1], ends[0]), marks.points(of.difference), won=of.difference >= 0)
        return [
            f"Measured accuracy at {sides.get(at, f'{at:.0f}')} px, image by image: {of.a.model} {of.difference:+.2f} "
            f"points over {of.b.model} ({of.lo:+.2f} to {of.hi:+.2f}); McNemar's p {of.p_all:.2g}, over all sizes."
        ]
    shown = [_published(one.model, one.cells["side"].min(), one.cells["side"].max()) for one in pair]
    common = set(shown[0]) & set(shown[1])
    if not common:
        return []
    side = max(common)
    above, below = (known[side] for known in shown)
    marks.ratio(axis, side, (above, below), marks.points(below - above), won=below >= above)
    return [f"Published accuracy at {side} px: {models[1]} {below - above:+.1f} points over {models[0]}."]


def _paired(models: tuple[str, str], options: Options, sides: dict[float, str]) -> list[Paired]:
    """Subject against baseline on the same images, at sizes in the panel; none if that cannot be told."""
    low, high = min(sides), max(sides)
    rows = [row for row in usable(options.accuracy) if row.predictions.is_file() and low <= side_of(row) <= high]
    try:
        return compare(rows, models[1], models[0])
    except UsageError:
        return []


def _published(model: str, low: float, high: float) -> dict[int, float]:
    return {side: found.top1 for side, found in accuracies_of(model).items() if low <= side <= high}


def _accuracy(axis: Axes, series: Sequence[Series], sides: dict[float, str], options: Options) -> list[Name]:
    names, measured = [], False
    low, high = min(sides), max(sides)
    labels = {one.model: one.label for one in curves.of_models(series)}
    for one in {one.model: one for one in reversed(series)}.values():
        ours = accuracies.draw(
            axis,
            options.accuracy,
            one.model,
            (one.colour, one.marker),
            lambda row: side if low <= (side := side_of(row)) <= high else None,
        )
        shown = _published(one.model, low, high)
        if shown:
            x, y = list(shown), list(shown.values())
            look = {"marker": one.marker, "markerfacecolor": ground(), "label": one.model}
            theirs = marks.curve(axis, x, y, labels[one.model], one.colour, ":", **look)
            names += [] if ours else [theirs]
        names += ours
        measured = measured or bool(ours)
    axis.set_ylabel("ImageNet-1K top-1 (%)" if not measured else "Top-1 (%)")
    axis.set_title("Accuracy (filled: measured)" if measured else "Accuracy as published, not measured")
    if not names:
        curves.nothing(axis, "none published for these models")
    return names[::-1]


def _closer(figure: Figure, axis: Axes, series: Sequence[Series], pair: Pair, measure: Measure) -> None:
    """Draw an inset where baseline and subject cross, if they cross and there is room."""
    box = _crossing(pair, measure)
    inset = marks.zoom(figure, axis, box) if box else None
    if box is None or inset is None:
        return
    for one in series:
        x, y = curves.points(one, measure)
        inset.plot(x, y, one.line, color=ink(one.colour), marker=one.marker, markersize=2.5, linewidth=0.9)
    inset.set_xscale("log", base=2)
    ends = [round(box[0] * 1.04), round(box[1] / 1.04)]
    inset.set_xticks(ends, list(map(str, ends)))
    inset.xaxis.set_minor_locator(NullLocator())
    inset.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    marks.frame_inset(axis, inset, box, f"{ends[0]} to {ends[1]} px")


def _crossing(pair: Pair, measure: Measure) -> tuple[float, float, float, float] | None:
    """(x0, x1, y0, y1) around the last two sizes between which the pair crosses; None if it never crosses."""
    mine, theirs = (dict(zip(*curves.points(one, measure), strict=True)) for one in pair)
    common = sorted(set(mine) & set(theirs))
    for low, high in reversed(list(pairwise(common))):
        if (mine[low] - theirs[low]) * (mine[high] - theirs[high]) < 0:
            values = [at[side] for at in (mine, theirs) for side in (low, high)]
            spread = (max(values) / min(values)) ** 0.2
            return low / 1.04, high * 1.04, min(values) / spread, max(values) * spread
    return None
