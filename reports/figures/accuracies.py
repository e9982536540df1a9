"""Measured accuracies in figures: filled points with their intervals, beside the hollow ones that papers print."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vbench.reports.figures import marks
from vbench.reports.figures.marks import Name
from vbench.reports.figures.style import PUBLISHED, PUBLISHED_BESIDE, ink
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.known import gaps, side_of, usable, ways
from vbench.results.text import listed, tame

COLUMNS = {"top1_measured": "top1", "top1_measured_lo": "top1_lo", "top1_measured_hi": "top1_hi"}


def draw(
    axis: Axes,
    rows: Sequence[MeasuredAccuracy],
    model: str,
    look: tuple[str, str],
    place: Callable[[MeasuredAccuracy], float | None] = side_of,
    name: str | None = None,
) -> list[Name]:
    """Draw the measured top-1 of a model with 95 % Wilson intervals: one curve for each way of measuring.

    Args:
        look: colour and marker.
        place: where on the x axis; None leaves a row out.
        name: in the place of the model's.
    """
    names = []
    for text, own in ways(rows, model):
        shown = [(at, row) for row in own if (at := place(row)) is not None]
        if not shown:
            continue
        x, y = [one for one, _ in shown], np.array([row.top1 for _, row in shown])
        ends = np.array([(row.top1_lo, row.top1_hi) for _, row in shown]).T
        axis.errorbar(
            x, y, yerr=np.abs(ends - y), fmt="none", ecolor=ink(look[0]), linewidth=0.8, capsize=1.5, zorder=4
        )
        words = text if name is None else text.replace(model, name, 1)
        names.append(marks.curve(axis, x, y, words, look[0], "-", marker=look[1], zorder=4))
    return names


def beside(table: pd.DataFrame, rows: Sequence[MeasuredAccuracy]) -> pd.DataFrame:
    """A frame with the measured top-1 of each row, its interval, and `top1`: measured, else published.

    Of several measured ones of a model and size that of the row's dtype comes first, then that of most images.
    """
    found: dict[tuple[str, int, int], list[MeasuredAccuracy]] = {}
    for row in usable(rows):
        found.setdefault((row.model, row.height, row.width), []).append(row)

    def of(model: str, height: int, width: int, dtype: str) -> MeasuredAccuracy | None:
        own = found.get((model, height, width), ())
        return max(own, key=lambda row: (row.dtype == dtype, row.images), default=None)

    cells = zip(table["model"], table["height"], table["width"], table["dtype"], strict=True)
    known = [of(*cell) for cell in cells]
    values = {
        column: pd.array([None if one is None else getattr(one, key) for one in known], dtype="Float64")
        for column, key in COLUMNS.items()
    }
    table = table.assign(**values)
    return table.assign(top1=table["top1_measured"].fillna(table["top1_published"]))


def notes(rows: Sequence[MeasuredAccuracy]) -> list[str]:
    """What a caption says of accuracy: what is hollow, what is filled, and where both differ."""
    kept = usable(rows)
    if not kept:
        return [PUBLISHED]
    sets: dict[str, set[int]] = {}
    for row in kept:
        sets.setdefault(f"{tame(row.dataset)} (labels {tame(row.labels)})", set()).add(row.images)
    words = [f"{name}, {_span(images)} images" for name, images in sets.items()]
    found = [f"{gap.text}." for gap in gaps(kept)]
    return [PUBLISHED_BESIDE.format(listed(words)), *found]


def _span(images: set[int]) -> str:
    low, high = min(images), max(images)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
