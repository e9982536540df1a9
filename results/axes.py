"""The settings and axes of a row, one line each: all that is needed of a column to compare rows.

A new setting needs three things: a line in `AXES`, a meter that puts its value into a record's `settings`, and a test.
Frame, lint, curves, exponents, crossovers, ratios, verdicts, tables, captions and the page take it from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from vbench.devices import KINDS

FIRST_DEVICES = tuple(f"{kind}{index}" for kind in KINDS for index in ("", ":0"))  # of each kind
Source = Literal["case", "settings", "protocol", "host", "versions"]


@dataclass(frozen=True, slots=True)
class Axis:
    """The facts about one column.

    `equal`: rows must agree in it to be compared. `parts`: rows that differ in it are different curves. `caption`: a
    caption gives its values. `optional`: a missing value means "not applicable"; otherwise it means "not known".
    `told_by`: a column that need not be named beside this one, if each of its values has one value of this one.
    `source`: the part of a record with the value; None if `frame` computes it.
    """

    column: str
    label: str  # for people
    kind: str = "string"  # the type in a frame
    source: Source | None = None
    usual: tuple[str, ...] = ()  # values that need not be named
    equal: bool = True
    parts: bool = False
    caption: bool = False
    optional: bool = False
    told_by: str | None = None
    words: str = "{}"  # a value in words


AXES = {  # in the order in which rows are sorted and settings are listed
    axis.column: axis
    for axis in (
        Axis("rigor", "rigor", source="protocol", equal=False, caption=True),
        Axis("device_name", "device", source="host", parts=True),
        Axis("device", "torch device", source="case", usual=FIRST_DEVICES, parts=True, told_by="device_name"),
        Axis("dtype", "dtype", source="case", usual=("float32",), parts=True),
        Axis("phase", "phase", source="case", usual=("infer",), parts=True, caption=True),
        Axis("backend", "back end", source="case", usual=("eager",), parts=True, caption=True),
        Axis("layout", "layout", source="case", usual=("nchw",), parts=True, caption=True),
        Axis("reparam", "deployed form", source="case", usual=("no",), parts=True, words="reparam {}"),
        Axis("attention", "attention", source="settings", usual=("fused",), parts=True, caption=True, optional=True),
        # A failed cell has no value of these three. So they do not part curves: a curve would lose its failed end.
        Axis(
            "attention_kernel", "attention kernel", source="settings", caption=True, optional=True, told_by="attention"
        ),
        Axis("weights_dtype", "dtype of weights", source="settings", caption=True, optional=True),  # it may have none
        Axis("tf32", "TF32", "boolean", source="settings", caption=True),
        Axis("loss", "loss", source="settings", usual=("cross-entropy",), caption=True, optional=True),
        Axis("runtime", "runtime", source="settings", equal=False, caption=True, optional=True),
        Axis("computes_in", "computes in", source="settings", caption=True, optional=True),
        Axis("threads", "CPU threads", "Int64", source="protocol", parts=True, words="{} threads"),
        Axis("batch_asked", "batch asked for", equal=False, parts=True, words="batch {}"),  # see `frame.batch_asked`
        Axis("batch_policy", "batch policy", caption=True),
        Axis("batch", "batch", "Int64", equal=False, caption=True),
        Axis("latency_batch", "batch of latency", "Int64", caption=True),
        Axis("memory_batch", "batch of memory", "Int64", caption=True),
        Axis("torch", "torch", source="versions"),
        Axis("triton", "triton", source="versions", caption=True, optional=True),
        Axis("timm", "timm", source="versions"),
        Axis("vbench", "vbench", source="versions"),
        Axis("commit", "commit", source="versions"),
    )
}
SUBJECT = ("model", "mode", "form", "attention")  # the thing that is compared
EQUAL = tuple(name for name, axis in AXES.items() if axis.equal)
VERSIONS = tuple(name for name, axis in AXES.items() if axis.source == "versions")
PARTS = tuple(name for name, axis in AXES.items() if axis.parts)
SETTING = tuple(name for name in PARTS if name not in SUBJECT)  # equal within a comparison
CAPTION = tuple(name for name, axis in AXES.items() if axis.caption)


def differing(table: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """The columns in which the rows differ, without those that another one of them tells (`Axis.told_by`).

    Columns that the table lacks are skipped.
    """

    def values(column: str) -> int:
        return int(table[column].nunique(dropna=AXES[column].optional))

    found = [column for column in columns if column in table and values(column) > 1]
    return [column for column in found if not _told(table, column, found)]


def _told(table: pd.DataFrame, column: str, found: Sequence[str]) -> bool:
    by = AXES[column].told_by
    return by in found and bool((table.groupby(by, dropna=False)[column].nunique(dropna=False) == 1).all())


def said(column: str, value: Any) -> str:
    """A value in words: "batch 8", "4 threads", "bfloat16"."""
    return AXES[column].words.format(value) if column in AXES else str(value)


def unusual(row: Mapping[Any, Any], columns: Sequence[str] = PARTS) -> list[str]:
    """The unusual values of a row, of columns that have usual values."""
    usual = {name: axis.usual for name, axis in AXES.items() if axis.usual}
    return [said(name, row[name]) for name in columns if name in usual and row.get(name) not in (*usual[name], None)]
