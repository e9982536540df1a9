"""What the launches of many cells say, as columns: the launches of a cell are beside each other, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, compress, pairwise
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from vbench.results.launches import First, Latency, Launch
from vbench.results.series import each, medians

SAID = ("status", "reason", "latency", "throughput", "memory", "energy", "floor", "doubts")  # what launches say

Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Places = NDArray[np.intp]


def column(values: Any, kind: str, there: Flags | None = None) -> Any:
    """Values as an array of pandas of this type, in a fraction of the time of `pd.array`.

    Missing are None, the NaN of an array, and what is not `there`.
    """
    if isinstance(values, pd.api.extensions.ExtensionArray):
        return values
    found = pa.array(values, _ARROW[kind], mask=None if there is None else ~there, from_pandas=True)
    return found.to_numpy() if kind == "int64" else _KINDS[kind].__from_arrow__(found)


_ARROW = {
    "string": pa.string(),
    "boolean": pa.bool_(),
    "int64": pa.int64(),
    "Int64": pa.int64(),
    "Float64": pa.float64(),
}
_KINDS: dict[str, Any] = {kind: pd.api.types.pandas_dtype(kind) for kind in _ARROW}


class Launched:
    """The launches of many cells, and the first of each cell.

    `said` are the columns of the launches. `timed` are the places of those that have samples of single calls, `cell_of`
    their cells, `calls` the columns of these calls, and `medians` the medians of their samples, ms.
    """

    def __init__(self, cells: Iterable[tuple[First, Sequence[Launch]]]) -> None:
        found = list(cells)
        self.firsts = [first for first, _ in found]
        self.of = np.repeat(np.arange(len(found)), np.array([len(own) for _, own in found], np.intp))
        self.said = turned(SAID, map(attrgetter(*SAID), chain.from_iterable(own for _, own in found)))
        timed = [one is not None and one.samples is not None for one in self.said["latency"]]
        self.timed, self.cell_of = np.flatnonzero(timed), self.of[timed]
        self.calls = turned(Latency._fields, compress(self.said["latency"], timed))
        self.medians = each(self.calls["samples"], medians)

    def __len__(self) -> int:
        return len(self.firsts)

    def by_cell(self, values: Any, of: Places) -> list[Any]:
        """Values of some launches, a slice for each cell; `of` are the cells of these launches."""
        ends = np.searchsorted(of, np.arange(len(self) + 1)).tolist()
        return [values[begin:end] for begin, end in pairwise(ends)]

    def count(self, of: Places, votes: NDArray[Any] | None = None) -> NDArray[np.int64]:
        """(cells,) how many of these launches each cell has; or the sum of their votes."""
        found: NDArray[np.int64] = np.bincount(of, votes, len(self)).astype(np.int64)
        return found

    def first(self, of: Places, values: Any) -> Any:
        """The first value of each cell that is known, of an array of pandas with the values of these launches."""
        known, at = np.flatnonzero(~values.isna()), np.full(len(self), -1)
        at[of[known][::-1]] = known[::-1]
        return values.take(at, allow_fill=True)

    def median(self, of: Places, values: Sequence[float | None]) -> Floats:
        """(cells,) the median of the values of these launches that are known; NaN without any."""
        ordered, counts = self._ordered(of, values)
        begins, found = np.cumsum(counts) - counts, np.full(len(self), np.nan)
        low, high = ((begins + before // 2)[counts > 0] for before in (counts - 1, counts))
        found[counts > 0] = (ordered[low] + ordered[high]) / 2
        return found

    def greatest(self, of: Places, values: Sequence[float | None]) -> Floats:
        """(cells,) the greatest of the values of these launches that are known; NaN without any."""
        ordered, counts = self._ordered(of, values)
        found = np.full(len(self), np.nan)
        found[counts > 0] = ordered[np.cumsum(counts)[counts > 0] - 1]
        return found

    def _ordered(self, of: Places, values: Sequence[float | None]) -> tuple[Floats, NDArray[np.int64]]:
        """The values that are known, cell by cell from the least to the greatest, and (cells,) how many they are."""
        found = np.array(values, np.float64)
        known = ~np.isnan(found)
        found, of = found[known], of[known]
        return found[np.lexsort((found, of))], self.count(of)

    def parts(self, name: str) -> tuple[Places, list[Any]]:
        """A part of the launches that have it, and the cells of these launches."""
        there = [part is not None for part in self.said[name]]
        return self.of[there], list(compress(self.said[name], there))

    def beside(self, name: str) -> list[Any]:
        """A part of each launch that is timed; None for one without it."""
        return [self.said[name][place] for place in self.timed.tolist()]


def turned(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns of rows that have a value for each name."""
    return dict(zip(names, zip(*rows, strict=True), strict=False)) or dict.fromkeys(names, ())
