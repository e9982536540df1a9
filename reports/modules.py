"""Tables of a model's modules for a terminal: their work, and their time if it was measured."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vbench.reports.work import giga, name_of
from vbench.results.statistics import CONFIDENCE
from vbench.results.text import bare_table, print_whole, px, short

COUNTS = {
    "GMACs in products": "macs_matmul",
    "GMACs elementwise": "macs_elementwise",
    "GFLOPs pointwise": "flops_elementwise",
    "GFLOPs total": "flops_total",
}
TIMES = ("calls", "ms own", "interval", "share of ms", "ms with parts", "GFLOP/s")


def show(found: list[dict[str, Any]], console: Console) -> None:
    """Print the modules of each size that has them counted."""
    for work in found:
        if "modules" in work:
            console.print()
            print_whole(to_rich(work), console, below(work))


def to_rich(work: dict[str, Any]) -> Table:
    """One row for each module at one size, and their sum; with `time`, what was measured of each."""
    rows, timed = work["modules"], bool(work.get("time"))
    sums = {key: sum(row[key] for row in rows) for key in (*COUNTS.values(), "bytes_min")}
    size = f"{work['height']}x{work['width']}"
    about = f" batch {work['time']['batch']}" if timed else ""
    shown = ({"GMACs": "macs_executed"} | {"GFLOPs": "flops_total"}) if timed else COUNTS
    heads = [f"{name_of(work)} {size}{about}", *shown, "share of FLOPs", *(TIMES if timed else ("least MiB",))]
    table = bare_table(heads, right=heads[1:], wrap=heads)
    sums["macs_executed"] = sums["macs_matmul"] + sums["macs_elementwise"]
    whole_ms = work["time"]["parts_ms"] if timed else None
    for row in [*rows, {"module": "sum", **sums}]:
        table.add_row(
            row["module"],
            *(giga(row[key]) for key in shown.values()),
            _share(row["flops_total"], sums["flops_total"]),
            *(_times(row, whole_ms, work["time"]) if timed else (f"{row['bytes_min'] / 2**20:.2f}",)),
        )
    return table


def _times(row: dict[str, Any], whole_ms: float | None, time: dict[str, Any]) -> list[str]:
    """The cells of a row that are measured; the sum has the whole call's rate."""
    if row["module"] == "sum":
        return ["", f"{whole_ms:.3f}", "", "", "", ""]
    if row["own_ms"] is None:
        return ["0", *[""] * 5]
    return [
        str(row["calls"]),
        f"{row['own_ms']:.3f}",
        f"{row['own_ms_lo']:.3f} to {row['own_ms_hi']:.3f}",
        _share(row["own_ms"], whole_ms),
        f"{row['total_ms']:.3f}",
        "" if row["gflops_per_s"] is None else f"{row['gflops_per_s']:.1f}",
    ]


def _share(part: float, whole: float | None) -> str:
    return f"{100 * part / whole:.1f} %" if whole else ""


def below(work: dict[str, Any]) -> list[str]:
    """What must be known of measured times: the whole call without marks, what marks cost, and where it ran."""
    if not work.get("time"):
        return []
    time = work["time"]
    rate = "" if time["gflops_per_s"] is None else f", {time['gflops_per_s']:.1f} GFLOP/s"
    threads = f", {time['threads']} thread{'s' * (time['threads'] > 1)}" if time["device"] == "cpu" else ""
    lines = [
        f"whole call without hooks: {_spread(time, 'ms', 1, 'ms')}{rate}; hooks change it by "
        f"{_spread(time, 'overhead', 100, '%')}; medians of {time['rounds']} calls of each kind, in turn, with "
        f"{'95 % intervals' if time['level'] >= CONFIDENCE else 'ranges'}",
        f"{work['model']} at {px(work['height'], work['width'])} px, {work['mode']}, {work['dtype']}, on "
        f"{time['device_name']}{threads}",
    ]
    if time["converged"] is not True:
        lines.append("calls had not settled when sampling began: they are slow, or the machine is busy")
    return lines


def _spread(time: dict[str, Any], name: str, times: int, unit: str) -> str:
    middle, low, high = (times * time[f"{name}{end}"] for end in ("", "_lo", "_hi"))
    return f"{short(middle)} {unit} ({short(low)} to {short(high)})"
