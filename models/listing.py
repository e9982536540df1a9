"""The table of `vbench models`."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from vbench.models.registry import MODELS
from vbench.results.published import accuracies


def rows() -> list[dict[str, Any]]:
    """One JSON-able dict a model; `params` at 224 px, `top1_published` in percent or None."""
    known = accuracies()
    return [
        {
            "model": name,
            "family": row.family,
            "params": row.params,
            "operator": row.operator or "attention",
            "modes": list(row.modes),
            "multiple": row.multiple,
            "top1_published": known[name, 224].top1 if (name, 224) in known else None,
            "source": row.source,
        }
        for name, row in MODELS.items()
    ]


def to_rich() -> Table:
    """The rows for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "family", "params (M)", "operator", "modes", "top-1 (%)", "source"):
        table.add_column(name, justify="right" if name in ("params (M)", "top-1 (%)") else "left", no_wrap=True)
    for row in rows():
        params = "" if row["params"] is None else f"{row['params'] / 1e6:.2f}"
        top1 = "" if row["top1_published"] is None else f"{row['top1_published']:.1f}"
        table.add_row(
            row["model"], row["family"], params, row["operator"], ", ".join(row["modes"]), top1, row["source"]
        )
    return table
