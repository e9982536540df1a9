"""Predicted memory beside published figures: the table of docs/memory.md, which `make memory` fills in."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from vbench.files import write_text
from vbench.flops.fit import Asker, asking
from vbench.kernels.registry import default_form
from vbench.models import spec
from vbench.plan import Case
from vbench.reports.grid import pipes
from vbench.reports.write import filled
from vbench.results.published import memory

HEADS = ("model", "px", "call", "batch", "dtype", "attention", "card", "published (MiB)", "predicted (MiB)", "error")


def compared(row: Mapping[str, str], ask: Asker) -> int:
    """The predicted peak, in MiB, of a published row; without the optimiser, which no published row has."""
    name, side, op = row["model"], int(row["res"]), spec(row["model"]).operator
    form = default_form(op, "parallel", "cuda") if op else None
    axes: dict[str, Any] = {name: row[name] or None for name in ("dtype", "phase", "attention")}
    case = Case(name, side, side, "parallel", form, batch=1, device="cuda:0", **axes)
    found = ask(case, row["card"], int(row["batch"]), tf32=row["tf32"] == "yes")
    nbytes: int = found["peak_bytes"] - found["optimizer_bytes"]
    return round(nbytes / 2**20)


def table(rows: Iterable[Mapping[str, str]], ask: Asker) -> str:
    """The table in Markdown, and a line with the errors of each kind of row."""
    lines, errors = [], dict[str, list[float]]()
    for row in rows:
        predicted, published = compared(row, ask), float(row["mib"])
        error = predicted / published - 1
        errors.setdefault(row["conditions"], []).append(error)
        name = row["model"].removeprefix("timm/")
        call = "forward" if row["phase"] == "infer" else "forward and backward"
        cells = (name, row["res"], call, row["batch"], row["dtype"], row["attention"], row["card"])
        lines.append([*cells, f"{published:,.0f}", f"{predicted:,}", f"{error:+.0%}"])
    said = [
        f"Conditions {kind}: {len(each)} figures, median error {median(each):+.0%}, "
        f"between {min(each):+.0%} and {max(each):+.0%}."
        for kind, each in errors.items()
    ]
    right = {"px", "batch", "published (MiB)", "predicted (MiB)", "error"}
    return "\n".join([*pipes(HEADS, lines, right=right), "", *said])


if __name__ == "__main__":
    page = Path(sys.argv[1])
    with asking() as ask:
        text = table(memory(), ask)
    write_text(page, filled(page.read_text(encoding="utf-8"), "published", text))
