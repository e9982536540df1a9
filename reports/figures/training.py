"""A training step: its time, its parts, and its memory."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vbench.reports.appearance import tint
from vbench.reports.figures import curves
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import MUTED, Drawn, Options, ground, ink, named, panels
from vbench.reports.series import Series, series_of

PARTS = ("forward", "backward", "update")
SHADES = (1.0, 0.6, 0.25)
BAR_IN = 0.12  # the least height of a bar
MOST = 14  # bars that a panel of the usual height holds
HATCHES = ("", "////", "....")


def training(table: pd.DataFrame, _: Options) -> Drawn:
    """Three panels: step time against image size, the parts of a step at one size, and peak memory."""
    table = table[table["phase"] == "train"]
    series = series_of(table)
    sides = curves.sides_of(table)
    height = 1.1 + BAR_IN * max(MOST, len(series))
    figure, (step, parts, memory) = panels(3, height, most=3, stacked_in=height - 0.4)
    names = []
    for axis, key in ((step, "latency_ms"), (memory, "peak_memory_bytes")):
        names += curves.draw(axis, series, MEASURES[key], table)
    step.set_title("(a) Step time")
    memory.set_title("(c) Memory")
    at = _parts(parts, series, sides)
    curves.size_axis([step, memory], sides)
    curves.finish(figure, names, sides, _keys() if at else None)
    return Drawn(
        figure,
        (
            "A step is forward, backward and update (AdamW) of one batch, on random labels.",
            f"Parts at {at}: each part's median; they need not add up to the median of whole steps." if at else
            "Parts of the step: in no row.",
        ),
    )  # fmt: skip


def _keys() -> dict[str, Artist]:
    """The entries of a legend for the parts of a step."""
    parts = zip(PARTS, SHADES, HATCHES, strict=True)
    return {part: Patch(facecolor=tint(MUTED, shade), edgecolor=ground(), hatch=hatch) for part, shade, hatch in parts}


def _parts(axis: Axes, series: list[Series], sides: dict[float, str]) -> str | None:
    """Draw bars of the three parts, one for each series, at the largest size that most have. Returns the size."""
    columns = [f"{part}_ms" for part in PARTS]
    known = {one.label: one.cells[one.cells[columns].notna().all(axis=1)].set_index("side") for one in series}
    counts = {side: sum(side in cells.index for cells in known.values()) for side in sides}
    side = max(counts, key=lambda each: (counts[each], each))
    axis.set_title("(b) Parts")
    if not counts[side]:
        curves.nothing(axis, "in no row")
        return None
    shown = [one for one in series if side in known[one.label].index]
    for number, one in enumerate(shown):
        row = known[one.label].loc[[side]].iloc[0].to_dict()
        values = np.array([float(row[column]) for column in columns])
        starts = np.concatenate([[0.0], values.cumsum()[:-1]])
        for start, value, shade, hatch in zip(starts, values, SHADES, HATCHES, strict=True):
            colour = ink(one.colour)
            axis.barh(
                number, value, left=start, height=0.7, color=tint(colour, shade), edgecolor=ground(), hatch=hatch
            )  # fmt: skip
    axis.set_yticks(range(len(shown)), [named(one.label) for one in shown])
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_xlabel(f"Time in a step (ms), {sides[side]} px")
    return f"{sides[side]} px"
