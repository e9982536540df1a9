"""Predicted memory, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from vbench.results.text import bare_table, px

MIB = 2**20
HEADS = ("model", "size (px)", "mode", "form", "dtype", "phase", "batch", "card")
FIGURES = ("weights", "activations", "workspaces", "peak", "reserved", "process", "of card")


def to_json(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, with the names of the columns of a run."""
    return [
        {"predicted_peak_bytes" if name == "peak_bytes" else name: value for name, value in row.items()} for row in rows
    ]


def to_rich(rows: list[dict[str, Any]]) -> Table:
    """One row a cell and card; every figure, in MiB, is predicted."""
    searched = any("largest_batch" in row for row in rows)
    right = {"size (px)", "batch", *FIGURES, "largest batch", "largest side (px)"}
    last = ("largest batch", "largest side (px)") if searched else ()
    table = bare_table([*HEADS, *FIGURES, *last], right, title="predicted memory, MiB")
    for row in rows:
        how = row["form"] or row["attention"] or ""
        model = " ".join([row["model"], *(["reparam yes"] if row.get("reparam") == "yes" else [])])
        cells = [model, px(row["height"], row["width"]), row["mode"], how, row["dtype"], row["phase"]]
        cells += [str(row["batch"]), row["card"]]
        if row["reason"] is not None:
            table.add_row(*cells, "unsupported")
            continue
        held = row["weights_bytes"] + row["gradients_bytes"] + row["optimizer_bytes"]
        figures = (held, row["activation_bytes"], row["workspace_bytes"], row["peak_bytes"], row["reserved_bytes"])
        cells += [f"{figure / MIB:,.0f}" for figure in (*figures, row["process_bytes"])]
        cells.append(f"{row['process_bytes'] / row['card_bytes']:.0%}")
        cells += [str(row.get(name) or "none") for name in ("largest_batch", "largest_side")] if searched else []
        table.add_row(*cells)
    return table


def held_to_rich(row: dict[str, Any], top: int) -> Table:
    """The largest of the tensors that are alive at the peak of a cell, those of repeated blocks as one."""
    where = f"{row['model']} at {px(row['height'], row['width'])} px, batch {row['batch']}, on {row['card']}"
    table = bare_table(
        ("MiB", "tensors", "shape", "dtype", "made by", "in"), {"MiB", "tensors"}, title=f"{where}: alive at the peak"
    )
    count: Counter[tuple[str, ...]] = Counter()
    nbytes: Counter[tuple[str, ...]] = Counter()
    for each in row.get("held", ()):
        shape = "x".join(map(str, each["shape"]))
        key: tuple[str, ...] = (shape, each["dtype"], each["operation"].removeprefix("aten::"), each["module"])
        count[key] += each["count"]
        nbytes[key] += each["bytes"]
    for key, total in nbytes.most_common(top):
        table.add_row(f"{total / MIB:,.1f}", str(count[key]), *key)
    return table


def remarks(rows: Iterable[dict[str, Any]]) -> list[str]:
    """What a reader must know beside the table, a line each."""
    found = [
        f"{row['model']} at {px(row['height'], row['width'])} px: unsupported: {row['reason']}"
        for row in rows
        if row["reason"]
    ]
    found += [
        f"{row['model']} at {px(row['height'], row['width'])} px, batch {row['batch']}: does not fit on {row['card']}"
        for row in rows
        if row["reason"] is None and not row["fits"]
    ]
    return [
        *found,
        "All figures are predicted by a simulation of PyTorch's allocator. A record of 'vbench sweep --device cuda' "
        "replaces them. Peak: given out by the allocator; reserved: taken from the driver; process: with CUDA's "
        "context.",
    ]
