"""The cost of one cell over that of another, with its interval. All ratios of cells are computed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from vbench.results import statistics
from vbench.results.statistics import CONFIDENCE, Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    Row: TypeAlias = Mapping[str, Any] | Mapping[Hashable, Any] | pd.Series[Any]  # of a frame

BATCHES = {"latency_ms": "latency_batch", "peak_memory_bytes": "memory_batch"}  # must be equal in both cells


@dataclass(frozen=True, slots=True)
class Ratio:
    """One cost over another, with its 95 % interval. `lo` and `hi` are None if a cell has no interval.

    Counted costs need no interval. Few samples give a range, which is not an interval.
    """

    value: float
    lo: float | None = None
    hi: float | None = None

    def __str__(self) -> str:
        if self.lo is None or self.hi is None:
            return f"{self.value:.2f}×"
        same = ": no measurable difference" if self.lo < 1 < self.hi else ""
        return f"{self.value:.2f}× ({self.lo:.2f}–{self.hi:.2f}{same})"


def ratio(above: Row, below: Row, cost: str) -> Ratio | None:
    """The ratio of a column of two rows of a frame, if costs are independent and log-normal (`statistics.ratio`).

    None if a row lacks the cost, or if the batches differ (`at_equal_batch`).
    """
    over, under = (_known(row.get(cost)) for row in (above, below))
    if over is None or not under or not at_equal_batch(above, below, cost):
        return None
    known = [_interval(row, cost) for row in (above, below)]
    if known[0] is None or known[1] is None:
        return Ratio(over / under)
    found = statistics.ratio(known[0], known[1])
    return Ratio(found.median, found.lo, found.hi)


def at_equal_batch(above: Row, below: Row, cost: str) -> bool:
    """Whether a cost of two rows may be divided: both at one batch. Counted costs are of one image.

    Throughput may also be at the largest batches that fit (policy `max`), which compares what one memory can do. Two
    knees differ by what the search found, so they must be equal.
    """
    batch = "batch" if cost == "throughput_img_s" else BATCHES.get(cost)
    both = (above, below)
    if batch == "batch" and all(row.get("batch_policy") == "max" for row in both):
        return True
    one, other = (_known(row.get(batch)) for row in both) if batch else (None, None)
    return one == other


def _interval(row: Row, cost: str) -> Interval | None:
    """The cost of a cell with its interval; None if it has no interval, or only a range."""
    ends = [_known(row.get(f"{cost}_{end}")) for end in ("lo", "hi")]
    level = _known(row.get("latency_level", CONFIDENCE))
    if not all(ends) or level is None or row.get("latency_basis") == "range" or not 0 < level < 1:
        return None
    return Interval(float(row[cost]), float(ends[0] or 0), float(ends[1] or 0), level, "launches")


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
