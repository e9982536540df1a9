"""Finds the settings in which rows of a table differ, so that a comparison would not be fair."""

from __future__ import annotations

from typing import Any

import pandas as pd

from vbench.results.axes import AXES, EQUAL
from vbench.results.models import of_zoo, padding
from vbench.results.text import px

SHORT = 12  # characters of a commit that are shown


def unfair(table: pd.DataFrame) -> list[str]:
    """One line for each setting in which measured rows differ; empty if the comparison is fair.

    Rows may differ in model, mode, form and size. Columns that the table lacks are skipped. `conditions`, a digest, is
    named only if no other line says what differs. More lines: the batches that a policy chose for each row, and for
    each model that pads or cuts the image, how much of its work is padding (column `padded_share`).
    """
    rows = table[table["status"] == "ok"] if "status" in table else table
    lines = [line for column in EQUAL if (line := _difference(rows, column))]
    if not lines and (line := _difference(rows, "conditions")):
        lines.append(f"{line}; it is a digest of device, versions, code and protocol")
    return [*lines, *_batches(rows), *_padding(rows)]


def _difference(rows: pd.DataFrame, column: str) -> str | None:
    """ "rows differ in dtype: bfloat16 (12), float32 (12); compare within one", or None."""
    if column not in rows:
        return None
    optional = column in AXES and AXES[column].optional
    counts = rows[column].value_counts(dropna=optional)
    counts.index = pd.Index(["not known" if pd.isna(value) else _name(value) for value in counts.index], dtype=object)
    counts = counts.groupby(level=0).sum().sort_index()
    return f"rows differ in {column}: {_listed(counts)}; compare within one" if len(counts) > 1 else None


def _listed(counts: pd.Series[int]) -> str:
    return ", ".join(f"{value} ({count})" for value, count in counts.items())


def _name(value: object) -> str:
    text = str(value)
    digest, dash, changed = text.partition("-")
    return digest[:SHORT] + dash + changed if len(digest) > 2 * SHORT and " " not in digest else text


def _batches(rows: pd.DataFrame) -> list[str]:
    if not {"batch", "batch_policy", "throughput_img_s"} <= set(rows):
        return []
    rows = rows[rows["throughput_img_s"].notna() & rows["batch"].notna()]
    lines = []
    for policy, group in rows.groupby("batch_policy"):
        counts = group["batch"].astype(int).value_counts().sort_index()
        if len(counts) > 1 and policy == "fixed":
            lines.append(f"rows differ in batch: {_listed(counts)}; compare throughput within one")
        elif len(counts) > 1:
            several = f"throughput is at several batches: {_listed(counts)}"
            lines.append(f"{several}; under policy {policy} each row has its own")
    return lines


def _padding(rows: pd.DataFrame) -> list[str]:
    """A line for each model that pads, with the size at which it pads most; one for each model that cuts."""
    if not {"model", "height", "width"} <= set(rows):
        return []
    lines = []
    rows = rows.drop_duplicates(["model", "height", "width"])
    for model in rows["model"].unique().tolist():
        group = rows[rows["model"] == model]
        sizes = list(zip(group["height"].astype(int), group["width"].astype(int), strict=True))
        padded: list[Any] = [of_zoo(model, *size)["padded_share"] for size in sizes]
        if "padded_share" in group:
            padded = group["padded_share"].fillna(0.0).tolist()
        shares = {size: share for size, share in zip(sizes, padded, strict=True) if share}
        if shares:
            most = max(shares, key=lambda size: shares[size])
            lines.append(
                f"{model} pads at {len(shares)} of {len(sizes)} sizes: {shares[most]:.1%} of what it computes on is "
                f"padding at {px(*most)} px{', the most' * (len(shares) > 1)}"
            )
        words = group["padding"].tolist() if "padding" in group else [None] * len(sizes)
        told = [one if isinstance(one, str) else padding(model, *size) for one, size in zip(words, sizes, strict=True)]
        cut = [size for one, size in zip(told, sizes, strict=True) if (one or "").startswith("cuts off")]
        if cut:
            where = ", ".join(px(*size) for size in cut)
            lines.append(f"{model} ignores part of the image at {where} px: no whole patches")
    return lines
