"""Counted work, for a terminal: of a model at each size, and of its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    pass


def unknown_line(found: list[dict[str, Any]]) -> str | None:
    """The operations that the ledger does not know, in a line; None if it knows all."""
    sums: dict[str, int] = {}
    for work in found:
        for op, each in work["unknown"].items():
            sums[op] = sums.get(op, 0) + each["bytes"]
    said = ", ".join(f"{op} ({nbytes} bytes)" for op, nbytes in sums.items())
    return (
        f"not in the ledger's tables: {said}; see PER_OUTPUT and its neighbours in vbench/flops/ledger.py"
        if said
        else None
    )


def to_rich(found: list[dict[str, Any]]) -> Table:
    """One row a size, for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "model",
        "mode",
        "form",
        "size (px)",
        "GMACs",
        "GMACs executed",
        "GMACs by hand",
        "GMACs by fvcore",
        "GFLOPs pointwise",
        "GFLOPs total",
        "least MiB",
        "FLOPs/byte",
        "state (KiB)",
        "coverage",
    ):
        left = name in ("model", "mode", "form")
        table.add_column(name, justify="left" if left else "right", no_wrap=left)
    table.columns[0].min_width = max(len(work["model"]) for work in found)
    for work in found:
        table.add_row(
            work["model"],
            work["mode"],
            work["form"] or "",
            f"{work['height']}x{work['width']}",
            _giga(work["macs"]),
            _giga(work["macs_executed"]),
            _giga(work["macs_closed_form"]),
            _giga(work["macs_fvcore"]),
            _giga(work["flops_elementwise"]),
            _giga(work["flops_total"]),
            f"{work['bytes_min'] / 2**20:.1f}",
            "" if work["intensity"] is None else f"{work['intensity']:.1f}",
            "" if work["state_bytes"] is None else f"{work['state_bytes'] / 1024:.1f}",
            f"{100 * work['coverage']:.2f} %",
        )
    return table


def modules_to_rich(work: dict[str, Any]) -> Table:
    """One row a module of one size, and their sum."""
    columns = ("macs_matmul", "macs_elementwise", "flops_elementwise", "flops_total")
    rows = work["modules"]
    sums = {name: sum(row[name] for row in rows) for name in (*columns, "bytes_min")}
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in (
        f"{work['model']} {work['height']}x{work['width']}",
        "GMACs in products",
        "GMACs elementwise",
        "GFLOPs pointwise",
        "GFLOPs total",
        "share",
        "least MiB",
    ):
        table.add_column(name, justify="right" if table.columns else "left")
    for row in [*rows, {"module": "sum", **sums}]:
        table.add_row(
            row["module"],
            *(_giga(row[name]) for name in columns),
            f"{100 * row['flops_total'] / sums['flops_total']:.1f} %",
            f"{row['bytes_min'] / 2**20:.2f}",
        )
    return table


def _giga(number: int | None) -> str:
    return "" if number is None else f"{number / 1e9:,.4g}"
