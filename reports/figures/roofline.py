"""Arithmetic intensity against achieved FLOP/s."""

from __future__ import annotations

import pandas as pd

from vbench.reports.figures import curves, marks
from vbench.reports.figures.style import Drawn, NotDrawnError, Options, ink, sheet
from vbench.reports.series import series_of

NEEDED = ["intensity", "flops_total", "latency_ms", "latency_batch"]


def roofline(table: pd.DataFrame, _: Options) -> Drawn:
    """One panel: FLOPs per byte that must move against FLOP/s in a call, one curve for each series.

    Both axes count FLOPs as 2 × MACs executed + pointwise work. Records have no peaks, so no roof is drawn.
    """
    known = table[(table["phase"] == "infer") & table[NEEDED].notna().all(axis=1)]
    if known.empty:
        raise NotDrawnError("no inference row has intensity, FLOPs and latency together")
    figure = sheet(1, 2.7)
    axis = figure.subplots()
    names = []
    for one in series_of(known):
        cells = one.cells
        x = cells["intensity"].to_numpy(dtype=float)
        work = (cells["flops_total"] * cells["latency_batch"]).to_numpy(dtype=float) / 1e9
        y = work / cells["latency_ms"].to_numpy(dtype=float) * 1e3
        low, high = (work / cells[f"latency_ms_{end}"].to_numpy(dtype=float) * 1e3 for end in ("hi", "lo"))
        names.append(marks.curve(axis, x, y, one.label, one.colour, one.line, marker=one.marker, zorder=3))
        axis.fill_between(x, low, high, color=ink(one.colour), alpha=0.2, linewidth=0)
    curves.log_axis(axis)
    curves.log_axis(axis, "x")
    axis.set_xlabel("Arithmetic intensity (FLOPs/byte)")
    axis.set_ylabel("Achieved (GFLOP/s)")
    marks.name_curves(figure, names)
    sides = list(curves.sides_of(known).values())
    return Drawn(
        figure,
        (
            f"Along each curve from {sides[0]} to {sides[-1]} px. FLOPs: 2 × MACs executed + pointwise; bytes: what "
            "must move if pointwise work is fused.",
            "No roof: these records carry no peaks of the device; 'vbench doctor' measures and prints them.",
        ),
    )
