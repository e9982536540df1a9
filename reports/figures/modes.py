"""Parallel mode against recurrent mode: latency, memory, and the recurrent state."""

from __future__ import annotations

import pandas as pd

from vbench.reports.figures import curves
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import Drawn, NotDrawnError, Options, panels
from vbench.reports.series import series_of

PANELS = ("latency_ms", "peak_memory_bytes", "state_bytes")


def modes(table: pd.DataFrame, _: Options) -> Drawn:
    """Three panels against image size, of the models that have rows in both modes."""
    ok = table[table["status"] == "ok"]
    both = [str(model) for model, own in ok.groupby("model") if own["mode"].nunique() > 1]
    if not both:
        raise NotDrawnError("no model has rows in both modes")
    table = table[table["model"].isin(both)]
    series = series_of(table)
    carried = [one for one in series if one.mode == "recurrent"]
    figure, axes = panels(len(PANELS), 2.7, most=3)
    names = []
    for axis, key, letter in zip(axes, PANELS, "abc", strict=True):
        shown = curves.of_models(carried) if key == "state_bytes" else series
        names += curves.draw(axis, shown, MEASURES[key], table)
        axis.set_title(f"({letter}) {MEASURES[key].title}")
    sides = curves.sides_of(table)
    curves.size_axis(axes, sides)
    curves.finish(figure, names, sides)
    return Drawn(
        figure,
        (
            "State: what one image carries from token to token in recurrent mode, in closed form.",
            "Solid: parallel mode, all tokens at once. Dashed: recurrent mode, token by token.",
        ),
    )
