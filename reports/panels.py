"""The figures of the page: what each one shows, and the known accuracies of its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vbench.reports.series import Series
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.known import side_of, ways
from vbench.results.published import accuracies_of
from vbench.results.text import px, tame


@dataclass(frozen=True, slots=True)
class Panel:
    """One figure: a column over image size, divided by `unit`, with the label of its axis and a note."""

    key: str
    title: str
    column: str
    unit: float
    label: str  # of the axis, unit included
    note: str
    batch: str | None = None  # the column that says at what batch
    measured: bool = True  # the curve ends where a cell failed; False for counted columns


_WORK = "What the algorithm needs; 1 MAC = 2 FLOPs."
_MEMORY = "Weights and input included."
_SPEED = "Calls back to back, at each row's own batch."
_ENERGY = "By the hardware's counter, less idle."
PANELS = (
    Panel("latency", "Latency", "latency_ms", 1, "time a call (ms)", "Median of single calls.", "latency_batch"),
    Panel("memory", "Peak memory", "peak_memory_bytes", 2**20, "peak memory (MiB)", _MEMORY, "memory_batch"),
    Panel("throughput", "Throughput", "throughput_img_s", 1, "images/s", _SPEED, "batch"),
    Panel("macs", "Work", "macs", 1e9, "GMACs of one image", _WORK, measured=False),
    Panel("energy", "Energy", "energy_j_per_image", 1, "energy (J an image)", _ENERGY, "batch"),
    Panel("state", "Recurrent state", "state_bytes", 2**10, "state (KiB)", "In closed form.", measured=False),
)
_PUBLISHED = "what papers print for weights trained at 224 px, tested at other sizes."


def undrawn(table: pd.DataFrame) -> list[str]:
    """One line for each figure without any value, and why."""
    reasons = ", ".join(table["energy_reason"].dropna().unique())
    return [
        f"{panel.title}: no row has a value" + (f" ({reasons})" if panel.key == "energy" and reasons else "")
        for panel in PANELS
        if table[panel.column].notna().sum() == 0
    ]


def accuracies(series: Sequence[Series], accuracy: Sequence[MeasuredAccuracy]) -> list[dict[str, Any]]:
    """The known accuracies as points: published ones once for each model, and each way in which one was measured.

    Each has `curve`, the place of the model's first series; `name`; `published`; `side` (px), `top1`, `lo`, `hi` (%)
    and `said`, a list of lines, for each point.
    """
    first: dict[str, int] = {}
    for at, one in enumerate(series):
        first.setdefault(one.model, at)
    found = []
    sides = [one.cells["side"] for one in series]
    smallest, largest = min((of.min() for of in sides), default=0), max((of.max() for of in sides), default=0)
    for model, at in first.items():
        printed = [(side, of) for side, of in accuracies_of(model).items() if smallest <= side <= largest]
        if printed:
            found.append(
                {
                    "curve": at,
                    "name": model,
                    "published": True,
                    "side": [side for side, _ in printed],
                    "top1": [of.top1 for _, of in printed],
                    "lo": [of.top1 - of.error for _, of in printed],
                    "hi": [of.top1 + of.error for _, of in printed],
                    "said": [["published, not measured", f"{of.source}; {of.locator}"] for _, of in printed],
                }
            )
        for name, own in ways(accuracy, model):
            found.append(
                {
                    "curve": at,
                    "name": name,
                    "published": False,
                    "side": [side_of(row) for row in own],
                    "top1": [row.top1 for row in own],
                    "lo": [row.top1_lo for row in own],
                    "hi": [row.top1_hi for row in own],
                    "said": [[f"{px(row.height, row.width)} px, measured", _of(row)] for row in own],
                }
            )
    return found


def accuracy_title(points: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """The title of the figure of accuracies, and its note."""
    if all(each["published"] for each in points):
        return "Accuracy as published, not measured", f"Hollow: {_PUBLISHED}"
    return "Accuracy, measured and published", f"Filled: measured, with 95 % Wilson intervals. Hollow: {_PUBLISHED}"


def _of(row: MeasuredAccuracy) -> str:
    return tame(f"{row.images:,} images of {row.dataset}; {row.checkpoint}; {row.dtype}")
