"""One cost in one panel against resolution: throughput, energy."""

from __future__ import annotations

import pandas as pd

from vbench.reports.figures import curves
from vbench.reports.figures.measures import MEASURES
from vbench.reports.figures.style import Drawn, Options, sheet
from vbench.reports.series import series_of


def throughput(table: pd.DataFrame, _: Options) -> Drawn:
    """Images per second against image size, each curve at the batch of its own rows."""
    rows = table[table["throughput_img_s"].notna()]
    batches = ", ".join(str(batch) for batch in sorted(rows["batch"].dropna().unique()))
    policies = ", ".join(sorted(rows["batch_policy"].dropna().unique()))
    note = f"Calls back to back, at batch {batches} (policy: {policies}); see the table for each row's."
    return _panel(table, "throughput_img_s", note)


def energy(table: pd.DataFrame, _: Options) -> Drawn:
    """Joules for each image against its size, without idle power."""
    note = "By the hardware's counter of the whole device, idle power subtracted; median of launches."
    return _panel(table, "energy_j_per_image", note)


def _panel(table: pd.DataFrame, key: str, note: str) -> Drawn:
    figure = sheet(1, 2.6)
    axis = figure.subplots()
    names = curves.draw(axis, series_of(table), MEASURES[key], table)
    sides = curves.sides_of(table)
    curves.size_axis([axis], sides)
    curves.finish(figure, names, sides)
    return Drawn(figure, (note,))
