"""The cost of one cell over that of another, with its interval. All ratios of cells are computed here.

Two cells may have been measured in turns: their processes take turns call by call, so that both meet the same
disturbances. Where they were, the ratio of their times is that one. Else it comes from the separate launches of each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import pandas as pd

from vbench.results import statistics
from vbench.results.frame import STATED
from vbench.results.statistics import CONFIDENCE, Interval

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    Row: TypeAlias = Mapping[str, Any] | Mapping[Hashable, Any] | pd.Series[Any]  # of a frame

BATCHES = {"latency_ms": "latency_batch", "peak_memory_bytes": "memory_batch"}  # must be equal in both cells
PAIRED = {"latency_ms": "latency_paired"}  # the column with the ratios that were measured in turns
TURNED = ("device_name", "case_id", *PAIRED.values())  # the columns that `in_turns` reads
TURNS, SEPARATE = "in turns", "separate launches"
MOST_DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Ratio:
    """One cost over another, with its 95 % interval. `lo` and `hi` are None if there is none.

    Counted costs need no interval. Few samples give a range, which is not an interval. `blocks` and `rounds` are those
    of a measurement in turns, else None.
    """

    value: float
    lo: float | None = None
    hi: float | None = None
    blocks: int | None = None
    rounds: int | None = None  # in all blocks together
    freedom: float | None = None  # degrees of freedom of the t behind the interval; None for a normal one

    @property
    def basis(self) -> str:
        """How a time was compared: "in turns, 4 blocks" or "separate launches"."""
        if self.blocks is None:
            return SEPARATE
        return f"{TURNS}, {self.blocks} block{'s' * (self.blocks != 1)}"

    @property
    def figure(self) -> str:
        """ "0.41", with more decimals where two would not tell the ends of the interval apart."""
        return self._printed(self.value)

    @property
    def times(self) -> str:
        """ "0.41×"."""
        return f"{self.figure}×"

    @property
    def bounds(self) -> str:
        """The interval in parentheses, "(0.40–0.42)"; empty if it is not known."""
        return "" if self.lo is None or self.hi is None else f"({self._printed(self.lo)}–{self._printed(self.hi)})"

    @property
    def extent(self) -> str:
        """The interval, and whether it was measured in turns: "(0.40–0.42, in turns)"; empty if neither is so."""
        parts = [self.bounds.strip("()"), TURNS if self.blocks is not None else ""]
        same = self.lo is not None and self.hi is not None and self.lo < 1 < self.hi
        text = ", ".join(filter(None, parts)) + ": no measurable difference" * same
        return f"({text})" if text else ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.times, self.extent]))

    def inverse(self) -> Ratio:
        """The other cost over the one. Raises: ZeroDivisionError for a ratio of 0."""
        lo, hi = (None if end is None else 1 / end for end in (self.hi, self.lo))
        return replace(self, value=1 / self.value, lo=lo, hi=hi)

    def _printed(self, value: float) -> str:
        decimals = 2
        if self.lo is not None and self.hi is not None and self.lo < self.hi:
            while decimals < MOST_DECIMALS and f"{self.lo:.{decimals}f}" == f"{self.hi:.{decimals}f}":
                decimals += 1
        return f"{value:.{decimals}f}"


def ratio(above: Row, below: Row, cost: str) -> Ratio | None:
    """The ratio of a column of two rows of a frame.

    It is the one that was measured in turns, if that has an interval, or if the two cells have none. Otherwise costs
    are taken as independent and log-normal (`statistics.ratio`).

    None if a row lacks the cost, or if the batches differ (`at_equal_batch`).
    """
    over, under = (_known(row.get(cost)) for row in (above, below))
    if over is None or not under or not at_equal_batch(above, below, cost):
        return None
    turns = in_turns(above, below, cost)
    if turns and turns.lo is not None and turns.hi is not None:
        return turns
    known = [_interval(row, cost) for row in (above, below)]
    if known[0] is None or known[1] is None:
        return turns or Ratio(over / under)
    found = statistics.ratio(known[0], known[1])
    return Ratio(found.median, found.lo, found.hi, freedom=found.freedom)


def in_turns(above: Row, below: Row, cost: str = "latency_ms") -> Ratio | None:
    """The ratio of two rows of a frame as it was measured in turns, whichever of both holds it; None if it was not."""
    names = [row.get("device_name") for row in (above, below)]
    if cost not in PAIRED or (not any(map(pd.isna, names)) and names[0] != names[1]):
        return None
    mine = turns_of(above, cost).get(str(below.get("case_id")))
    theirs = turns_of(below, cost).get(str(above.get("case_id")))
    return mine or (theirs.inverse() if theirs else None)


def turns_of(row: Row, cost: str = "latency_ms") -> dict[str, Ratio]:
    """The ratios to other cells that were measured in turns with a row: {case_id of the other: this over the other}."""
    text = row.get(PAIRED.get(cost, ""))
    if text is None or pd.isna(text) or not text:
        return {}
    return {str(other): Ratio(*found) for other, found in json.loads(text).items()}


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
    about = STATED.get(cost, cost)
    level, basis = _known(row.get(f"{about}_level", CONFIDENCE)), row.get(f"{about}_basis", "launches")
    if not all(ends) or level is None or pd.isna(basis) or basis == "range" or not 0 < level < 1:
        return None
    freedom = _known(row.get(f"{about}_freedom"))
    return Interval(float(row[cost]), float(ends[0] or 0), float(ends[1] or 0), level, basis, freedom)


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
