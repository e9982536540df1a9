"""Arithmetic intensity against achieved FLOP/s."""

from __future__ import annotations

import pandas as pd

from vbench.reports.figures import curves, marks
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, ink, sheet
from vbench.reports.series import series_of

PEAKS = ["peak_flops_per_s", "peak_bytes_per_s"]
ROOM = 1.5  # the roof reaches so many times beyond the points
NEEDED = ["intensity", "flops_total", "latency_ms", "latency_batch"]


def roofline(table: pd.DataFrame, _: Options) -> Drawn:
    """One panel: FLOPs per byte that must move against FLOP/s in a call, one curve for each series.

    Both axes count FLOPs as 2 × MACs executed + pointwise work. The roof is that of the run: what a product and a copy
    that fits into no cache reached on its device, one roof a dtype. Older records have none.
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
    roofs = _roofs(known)
    for dtype, (flops, byte) in roofs.items():
        left, right = known["intensity"].min() / ROOM, known["intensity"].max() * ROOM
        along = sorted({left, min(max(flops / byte, left), right), right})
        axis.plot(
            along,
            [min(flops, byte * at) / 1e9 for at in along],
            ":",
            color=MUTED,
            linewidth=0.9,
            zorder=2,
            label=f"_roof {dtype}",
        )
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
            _said(roofs),
        ),
    )


def _roofs(table: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """FLOP/s and bytes/s by dtype, the best that a row has; {} if no row has any."""
    measured = table[table[PEAKS].notna().all(axis=1)]
    return {str(dtype): tuple(map(float, rows[PEAKS].max())) for dtype, rows in measured.groupby("dtype")}  # type: ignore[misc]


def _said(roofs: dict[str, tuple[float, float]]) -> str:
    if not roofs:
        return "No roof: these records carry no peaks of the device; a new sweep measures them."
    each = [f"{dtype} {flops / 1e9:,.0f} GFLOP/s, {byte / 1e9:,.1f} GB/s" for dtype, (flops, byte) in roofs.items()]
    return (
        f"Dotted: the roof, measured in the run ({'; '.join(each)}). Bytes that stay in a cache move faster: "
        "a point may lie above the slope."
    )
