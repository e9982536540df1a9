"""The table of `vbench models`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from vbench.models.field import FIELD
from vbench.models.registry import MODELS
from vbench.models.row import ModelSpec
from vbench.results.published import accuracies
from vbench.results.text import bare_table

SPARE = ("source", "recurrent", "family")  # columns that a narrow terminal leaves out


def _recurrent(row: ModelSpec) -> str | None:
    """What runs token by token in recurrent mode: the whole "network" or only the "operator"."""
    if "recurrent" not in row.modes:
        return None
    return "network" if row.streams else "operator"


def rows() -> list[dict[str, Any]]:
    """One JSON-able dict for each model; `params` at 224 px, `top1_published` in percent or None.

    `recurrent` says what runs token by token in that mode: the "network" or only its "operator"; `in_field`, whether
    `--models field` names the model.
    """
    known = accuracies()
    return [
        {
            "model": name,
            "family": row.family,
            "params": row.params,
            "operator": row.operator or "attention",
            "modes": list(row.modes),
            "recurrent": _recurrent(row),
            "caveat": row.caveat,
            "multiple": row.multiple,
            "in_field": name in FIELD,
            "top1_published": known[name, 224].top1 if (name, 224) in known else None,
            "source": row.source,
        }
        for name, row in MODELS.items()
    ]


def to_rich() -> Table:
    """The rows for a terminal."""
    heads = ("model", "family", "params (M)", "operator", "recurrent", "top-1 (%)", "source")
    table = bare_table(heads, right=("params (M)", "top-1 (%)"))
    for row in rows():
        params = "" if row["params"] is None else f"{row['params'] / 1e6:.2f}"
        top1 = "" if row["top1_published"] is None else f"{row['top1_published']:.1f}"
        table.add_row(
            row["model"] + (" *" if row["caveat"] else ""),
            row["family"],
            params,
            row["operator"],
            row["recurrent"] or "",
            top1,
            row["source"],
        )
    return table


def caveats() -> list[str]:
    """One line for each caveat, with its models."""
    found: dict[str, list[str]] = {}
    for name, row in MODELS.items():
        if row.caveat:
            found.setdefault(row.caveat, []).append(name)
    return [f"* {', '.join(names)}: {caveat}" for caveat, names in found.items()]
