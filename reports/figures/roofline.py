"""Arithmetic intensity against achieved FLOP/s, under the roof of the device."""

from __future__ import annotations

import pandas as pd

from vbench.reports.figures import curves, marks, names
from vbench.reports.figures.style import MUTED, Drawn, NotDrawnError, Options, ink, sheet
from vbench.reports.series import series_of

KEY = ["device_name", "dtype"]  # of a roof
PEAKS = ["peak_flops_per_s", "peak_bytes_per_s"]
ROOM = 1.5  # the roof reaches so many times beyond the points
NEEDED = ["intensity", "flops_total", "latency_ms", "latency_batch"]
Roof = tuple[str, str]


def roofline(table: pd.DataFrame, _: Options) -> Drawn:
    """One panel: FLOPs per byte that must move against FLOP/s in a call, one curve for each series.

    Both axes count FLOPs as 2 × MACs executed + pointwise work. The roof is that of the run: what a product and a copy
    that fits into no cache reached on its device, one roof a dtype. Rows under no roof, as older records have, are left
    out, and without any roof nothing is drawn.
    """
    every = table[(table["phase"] == "infer") & table[NEEDED].notna().all(axis=1)]
    if every.empty:
        raise NotDrawnError("no inference row has intensity, FLOPs and latency together")
    roofs = _roofs(every)
    if not roofs:
        raise NotDrawnError(
            "these records carry no peaks of the device, so there is no roof; a new sweep measures them"
        )
    known = every[[tuple(key) in roofs for key in every[KEY].astype(str).to_numpy()]]
    figure = sheet(1, 2.7)
    axis = figure.subplots()
    found = []
    for one in series_of(known):
        cells = one.cells
        x = cells["intensity"].to_numpy(dtype=float)
        work = (cells["flops_total"] * cells["latency_batch"]).to_numpy(dtype=float) / 1e9
        y = work / cells["latency_ms"].to_numpy(dtype=float) * 1e3
        low, high = (work / cells[f"latency_ms_{end}"].to_numpy(dtype=float) * 1e3 for end in ("hi", "lo"))
        found.append(marks.curve(axis, x, y, one.label, one.colour, one.line, marker=one.marker, zorder=3))
        axis.fill_between(x, low, high, color=ink(one.colour), alpha=0.2, linewidth=0)
    for key, (flops, byte) in roofs.items():
        left, right = known["intensity"].min() / ROOM, known["intensity"].max() * ROOM
        along = sorted({left, min(max(flops / byte, left), right), right})
        heights = [min(flops, byte * at) / 1e9 for at in along]
        text = _named(key, list(roofs))
        found.append(marks.curve(axis, along, heights, text, MUTED, "-", label=f"_{text}", linewidth=1.6, zorder=2))
    curves.log_axis(axis)
    curves.log_axis(axis, "x")
    axis.set_xlabel("Arithmetic intensity (FLOPs/byte)")
    axis.set_ylabel("Achieved (GFLOP/s)")
    names.name_curves(figure, found)
    out = len(every) - len(known)
    lost = [f"{out} rows are not drawn: no peaks were measured on their device in their dtype."] if out else []
    sides = list(curves.sides_of(known).values())
    return Drawn(
        figure,
        (
            f"Along each curve from {sides[0]} to {sides[-1]} px. FLOPs: 2 × MACs executed + pointwise; bytes: what "
            "must move if pointwise work is fused.",
            _said(roofs),
            *lost,
        ),
    )


def _roofs(table: pd.DataFrame) -> dict[Roof, tuple[float, float]]:
    """FLOP/s and bytes/s by device and dtype, the best that a row has; {} if no row has any."""
    measured = table[table[PEAKS].notna().all(axis=1)]
    best = measured.groupby(KEY)[PEAKS].max()
    return {
        (str(device), str(dtype)): (float(flops), float(byte))
        for (device, dtype), flops, byte in zip(best.index, *(best[peak] for peak in PEAKS), strict=True)
    }


def _named(key: Roof, every: list[Roof]) -> str:
    """The name of a roof, with what tells it from the others."""
    told = [part for number, part in enumerate(key) if len({one[number] for one in every}) > 1]
    return " ".join(["roof", *told])


def _said(roofs: dict[Roof, tuple[float, float]]) -> str:
    each = [
        f"{' '.join(key)} {flops / 1e9:,.0f} GFLOP/s, {byte / 1e9:,.1f} GB/s" for key, (flops, byte) in roofs.items()
    ]
    return (
        f"Grey: the roof, measured in the run ({'; '.join(each)}). Bytes that stay in a cache move faster: "
        "a point may lie above the slope."
    )
