"""Tables of work for a terminal: of a model at each size, of its modules, and estimates of what cells cost."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from vbench.results.text import bare_table


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
    names = ("model", "mode", "form")
    counts = ("GMACs", "GMACs executed", "GMACs by hand", "GMACs by fvcore", "GFLOPs pointwise", "GFLOPs total")
    numbers = ("size (px)", *counts, "least MiB", "FLOPs/byte", "state (KiB)", "coverage")
    table = bare_table((*names, *numbers), right=numbers, wrap=numbers)
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
    name = f"{work['model']} {work['height']}x{work['width']}"
    numbers = ("GMACs in products", "GMACs elementwise", "GFLOPs pointwise", "GFLOPs total", "share", "least MiB")
    table = bare_table((name, *numbers), right=numbers, wrap=(name, *numbers))
    for row in [*rows, {"module": "sum", **sums}]:
        table.add_row(
            row["module"],
            *(_giga(row[name]) for name in columns),
            f"{100 * row['flops_total'] / sums['flops_total']:.1f} %",
            f"{row['bytes_min'] / 2**20:.2f}",
        )
    return table


def estimates_to_rich(rows: list[dict[str, Any]]) -> Table:
    """One row a cell of `flops.estimate.row`."""
    guesses = ("~time (s)", "~peak memory (MiB)")
    heads = ("model", "size (px)", "mode", "form", "batch", "dtype", *guesses, "remarks")
    table = bare_table(heads, right=guesses, wrap=heads)
    for cell in rows:
        table.add_row(
            cell["model"],
            f"{cell['height']}x{cell['width']}",
            cell["mode"],
            cell["form"] or "",
            str(cell["batch"]),
            cell["dtype"],
            "" if cell["seconds"] is None else f"{cell['seconds']:.0f}",
            "" if cell["peak_bytes"] is None else f"{cell['peak_bytes'] / 2**20:.0f}",
            cell["unsupported"] or cell["padding"] or "",
        )
    return table


def _giga(number: int | None) -> str:
    return "" if number is None else f"{number / 1e9:,.4g}"
