"""Curves over image size: one panel for each measure, with bands, walls and axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from vbench.reports.appearance import ENDINGS
from vbench.reports.figures import marks, names
from vbench.reports.figures.marks import Name
from vbench.reports.figures.measures import Measure
from vbench.reports.figures.style import MUTED
from vbench.reports.series import Series
from vbench.results.text import px

NARROW = 3.0  # a log axis spans at least this factor


def points(series: Series, measure: Measure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sides in px and values in the unit of the measure, of the rows that have one above 0, as a log axis has."""
    x = series.cells["side"].to_numpy(dtype=float)
    y = series.cells[measure.column].to_numpy(dtype=float, na_value=np.nan) / measure.unit
    known = y > 0  # not so where there is none
    return x[known], y[known]


def value_at(series: Series, measure: Measure, side: float) -> float | None:
    """The value of a series at a size; None if there is none."""
    x, y = points(series, measure)
    at = np.flatnonzero(x == side)
    return float(y[at[0]]) if len(at) else None


def of_models(series: Sequence[Series]) -> list[Series]:
    """One curve for each model, from all its rows: for a measure that does not depend on mode, device or dtype.

    A model that has one curve elsewhere has the same name here.
    """
    found: dict[str, list[Series]] = {}
    for one in series:
        found.setdefault(one.model, []).append(one)
    merged = []
    for model, own in found.items():
        cells = pd.concat([one.cells for one in own]).sort_values("side", kind="stable")
        cells = cells[cells["macs"].notna()].drop_duplicates("side")
        brand = next((f" ({one.label.rsplit('(', 1)[1]}" for one in own if one.label.endswith(")")), "")
        label = own[0].label if len(own) == 1 else model + brand
        merged.append(replace(own[0], label=label, line="-", cells=cells))
    return merged


def draw(axis: Axes, series: Sequence[Series], measure: Measure, table: pd.DataFrame) -> list[Name]:
    """Draw the curves of a measure with interval bands, and a cross where one failed. Returns names for `finish`.

    A series without a value is left out. The y axis is logarithmic; `table` has the rows that its label describes.
    """
    found: list[Name] = []
    for one in series:
        x, y = points(one, measure)
        if not len(x):
            continue
        look = {"marker": one.marker, "label": one.label, "zorder": 3}
        name = marks.curve(axis, x, y, one.label, one.colour, one.line, **look)
        _band(axis, one, measure, name.colour)
        if ended := _wall(one, x[-1]) if measure.walls else None:
            side, why = ended
            axis.plot([x[-1], side], [y[-1], y[-1]], ":", color=name.colour, linewidth=1)
            axis.plot([side], [y[-1]], marker="x", color=name.colour, markersize=6, markeredgewidth=1.8, zorder=4)
            marks.wall(axis, side, "", name.colour)
            name = replace(name, x=side, ended=why)
        found.append(name)
    axis.set_title(measure.title)
    axis.set_ylabel(measure.axis(table))
    log_axis(axis)
    if not axis.get_lines():
        nothing(axis, "in no row")
    return found


def nothing(axis: Axes, why: str) -> None:
    """Write in an empty panel why it is empty."""
    axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", color=MUTED, fontsize="small")


def _band(axis: Axes, one: Series, measure: Measure, colour: str) -> None:
    low, high = (f"{measure.column}_{end}" for end in ("lo", "hi"))
    if low not in one.cells:
        return
    cells = one.cells[one.cells[measure.column].notna()]
    lows, highs = (cells[column].to_numpy(dtype=float, na_value=np.nan) / measure.unit for column in (low, high))
    axis.fill_between(cells["side"].to_numpy(dtype=float), lows, highs, color=colour, alpha=0.2, linewidth=0, zorder=2)


def _wall(one: Series, last: float) -> tuple[float, str] | None:
    """The first failed size beyond the last value of a series, and how it failed; None if no size failed."""
    beyond = one.cells[(one.cells["side"] > last) & one.cells["status"].isin(list(ENDINGS))]
    if beyond.empty:
        return None
    return float(beyond["side"].iloc[0]), ENDINGS[beyond["status"].iloc[0]]


def log_axis(axis: Axes, which: str = "y") -> None:
    """Make an axis logarithmic. Ticks are plain numbers, as many as fit the span."""
    along: Any = axis.yaxis if which == "y" else axis.xaxis
    (axis.set_yscale if which == "y" else axis.set_xscale)("log")
    limits, set_limits = (axis.get_ylim, axis.set_ylim) if which == "y" else (axis.get_xlim, axis.set_xlim)
    low, high = limits()
    if high < NARROW * low:
        middle = (low * high) ** 0.5
        low, high = middle / NARROW**0.5, middle * NARROW**0.5
        set_limits(low, high)
    decades = np.log10(high / low)
    subs: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)
    if decades > 0.8:
        subs = (1.0,) if decades > (3 if which == "y" else 1.6) else (1.0, 2.0, 5.0)
    along.set_major_locator(LogLocator(base=10, subs=subs))
    along.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    along.set_minor_locator(LogLocator(base=10, subs=(2, 5)) if subs == (1.0,) else NullLocator())
    along.set_minor_formatter(NullFormatter())


def sides_of(table: pd.DataFrame) -> dict[float, str]:
    """The sizes of a table by side, the root of height · width in px, as "512" or "512x1024"."""
    sizes = sorted(set(zip(table["height"].astype(int), table["width"].astype(int), strict=True)))
    return {(h * w) ** 0.5: px(h, w) for h, w in sizes}


def size_axis(axes: Sequence[Axes], sides: dict[float, str]) -> None:
    """Make the x axes show image size, all the same sizes. `finish` names the ticks."""
    for axis in axes:
        axis.set_xlabel(names.SIZES)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(list(sides)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_minor_formatter(NullFormatter())
        if sides:
            axis.set_xlim(min(sides) / 1.12, max(sides) * 1.12)


def finish(
    figure: Figure, found: Sequence[Name], sides: dict[float, str], keys: Mapping[str, Artist] | None = None
) -> None:
    """Write the names of curves and sizes, ratios and walls, after everything else is drawn.

    Args:
        keys: more entries of a legend.
    """
    names.name_curves(figure, found, keys)
    marks.thin_ticks(figure, [axis for axis in figure.axes if axis.get_xlabel() == names.SIZES], sides)
    marks.place_ratios(figure, figure.axes)
    marks.place_walls(figure, figure.axes)
