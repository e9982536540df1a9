"""The time of a recurrent backbone over that of attention, with intervals, against image size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vbench.reports.figures import curves, marks
from vbench.reports.figures.marks import Name
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, ground, named, sheet
from vbench.reports.series import Series, series_of
from vbench.results.answers import Pair, pairs
from vbench.results.frame import rows_of
from vbench.results.ratios import TURNED, Ratio, ratio
from vbench.results.scaling import Crossover, crossing

COST = "latency_ms"
BAND = 0.13  # opacity
SMALL = 0.75  # of the usual size of a mark, so that short bars are seen


class _Point(NamedTuple):
    side: float
    ratio: Ratio


def ratios(table: pd.DataFrame, _: Options) -> Drawn:
    """One curve for each recurrent model and mode: its time over that of the attention model nearest in parameters.

    Filled points were measured in turns, hollow ones in separate launches. A band is the interval of a crossover.
    """
    table = table[table["phase"] == "infer"]
    series, every = series_of(table), pairs(table)
    single = len({pair.baseline for pair in every}) == 1
    figure = sheet(1, 3.1)
    axis = figure.subplots()
    sides = curves.sides_of(table)
    curves.size_axis([axis], sides)
    names: list[Name] = []
    notes: list[str] = []
    for pair in every:
        points, one = _points(pair), _of(series, pair)
        if one is None or not points:
            continue
        label = one.label if single else f"{one.label} / {pair.baseline}"
        names.append(_curve(axis, one, label, points))
        found = crossing(pair.mine.reset_index(), pair.theirs.reset_index(), (pair.subject, pair.baseline), COST)
        if found:
            band(axis, found, names[-1].colour)
            notes.append(f"{found.reading}{pair.under}.")
    if not names:
        raise NotDrawnError("no recurrent model and attention model share a size under equal settings")
    axis.axhline(1, color=MUTED, linewidth=0.8, zorder=1)
    axis.set_title("Time of a call, recurrent over attention")
    axis.set_ylabel(named(f"Time over {every[0].baseline}'s (×)") if single else "Time over attention's (×)")
    curves.log_axis(axis)
    curves.finish(figure, names, sides)
    first = (
        "Below 1 the recurrent model is faster. Bars: 95 % intervals; one that is shorter than its mark is not seen. "
        "Filled: measured in turns, call by call. Hollow: in separate launches. Band: where a curve goes below 1 for "
        "good, 95 %."
    )
    return Drawn(figure, (first, *notes))


def band(axis: Axes, found: Crossover, colour: str) -> None:
    """Draw the interval of a crossover as a vertical band. An open end reaches to the border of the panel."""
    if not found.interval_known or found.px_lo is found.px_hi is None or found.px_lo == found.px_hi:
        return
    ends = [found.px_lo or axis.get_xlim()[0], found.px_hi or axis.get_xlim()[1]]
    look: dict[str, Any] = {"color": colour, "alpha": BAND, "linewidth": 0, "zorder": 0}
    axis.fill_between(ends, 0, 1, transform=axis.get_xaxis_transform(), **look)


def _points(pair: Pair) -> list[_Point]:
    found = []
    mine, theirs = (
        {(row["height"], row["width"]): row for row in rows_of(_read(own))} for own in (pair.mine, pair.theirs)
    )
    for size in sorted(mine.keys() & theirs.keys(), key=lambda size: (size[0] * size[1], size)):
        over = ratio(mine[size], theirs[size], COST)
        if over:
            found.append(_Point((size[0] * size[1]) ** 0.5, over))
    return found


def _read(rows: pd.DataFrame) -> pd.DataFrame:
    """The columns that `ratio` reads."""
    return rows[[name for name in rows if str(name).startswith("latency_") or name in TURNED]].reset_index()


def _of(series: list[Series], pair: Pair) -> Series | None:
    """The curve that has the rows of a pair's recurrent model."""
    own = _cells_of(pair.mine)
    return next((one for one in series if own & _cells_of(one.cells)), None)


def _cells_of(rows: pd.DataFrame) -> set[tuple[str, str]]:
    """The machine and the case of each row: two machines have the same cases."""
    return set(zip(rows["device_name"], rows["case_id"], strict=True))


def _curve(axis: Axes, one: Series, label: str, points: list[_Point]) -> Name:
    x, y = (np.array([getattr(point, part) for point in points]) for part in ("side", "ratio"))
    values = np.array([over.value for over in y])
    name = marks.curve(axis, x, values, label, one.colour, one.line, label=label, zorder=3)
    for turns in (True, False):
        at = [point for point in points if (point.ratio.blocks is not None) == turns]
        face = name.colour if turns else ground()
        look: dict[str, Any] = {
            "marker": one.marker,
            "color": name.colour,
            "markerfacecolor": face,
            "linestyle": "none",
            "zorder": 4,
        }
        look |= {"markersize": SMALL * float(mpl.rcParams["lines.markersize"])}
        axis.plot([point.side for point in at], [point.ratio.value for point in at], **look)
    known = [point for point in points if point.ratio.lo is not None]
    lows, highs = ([getattr(point.ratio, end) for point in known] for end in ("lo", "hi"))
    axis.vlines([point.side for point in known], lows, highs, color=name.colour, linewidth=1, zorder=3)
    look = {"color": name.colour, "linestyle": one.line, "marker": one.marker}
    return replace(name, handle=Line2D([], [], **look))
