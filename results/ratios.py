"""One cell's cost over another's, with what is known of its interval: the one place that says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from vbench.results import statistics
from vbench.results.statistics import CONFIDENCE, Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    Row: TypeAlias = Mapping[str, Any] | Mapping[Hashable, Any] | pd.Series[Any]  # of a frame

BATCHES = {"latency_ms": "latency_batch", "peak_memory_bytes": "memory_batch"}  # what must be equal


@dataclass(frozen=True, slots=True)
class Ratio:
    """One cost over another, with its 95 % interval; `lo` and `hi` are None where a cell has none.

    What was counted has no interval and needs none; few samples give a range, which is none.
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
    """The ratio of a column of two rows of a frame, taken as independent and normal in log cost (`statistics.ratio`).

    None where a row lacks the cost, or where it is that of another batch.
    """
    over, under = (_known(row.get(cost)) for row in (above, below))
    batch = BATCHES.get(cost)
    if over is None or not under or (batch and above.get(batch) != below.get(batch)):
        return None
    known = [_interval(row, cost) for row in (above, below)]
    if known[0] is None or known[1] is None:
        return Ratio(over / under)
    found = statistics.ratio(known[0], known[1])
    return Ratio(found.median, found.lo, found.hi)


def _interval(row: Row, cost: str) -> Interval | None:
    """A cell's figure with its interval; None if it has none, or a mere range."""
    ends = [_known(row.get(f"{cost}_{end}")) for end in ("lo", "hi")]
    level = _known(row.get("latency_level", CONFIDENCE))
    if not all(ends) or level is None or row.get("latency_basis") == "range" or not 0 < level < 1:
        return None
    return Interval(float(row[cost]), float(ends[0] or 0), float(ends[1] or 0), level, "launches")


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
