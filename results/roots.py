"""Where a noisy curve goes below zero for good, with a 95 % interval. Pure; reads arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vbench.results.statistics import CONFIDENCE

DRAWS = 2000
FAR = 1e9  # a log cost that no noise reaches

Floats = NDArray[np.float64]


class Root(NamedTuple):
    """The place from which a curve stays below 0, and its interval; -inf is before the first point, inf after the last.

    `known` is False if no point has an error; then `lo` and `hi` are NaN.
    """

    at: float
    lo: float
    hi: float
    known: bool


def root(side: Floats, apart: Floats, error: Floats) -> Root:
    """Where `apart` goes below 0 for good, over `side`, linear between points.

    The interval comes from `DRAWS` draws, in which each point varies by its own error. Among points that are closer to
    each other than the noise, one draw goes below 0 at several places. The interval reaches from the first of them to
    the last: the last alone lies too far up, the more so the more points there are. Where a point is above 0 beyond
    doubt (one-sided, by Bonferroni over the points), the interval begins after it.

    An error that is not known (NaN) matters near the root alone. Where such points and the known ones beside them are
    on one side of 0, they are taken to have the largest error of the known ones. Else they may lie on either side, and
    the interval reaches from the known point before them to the one after them.

    Args:
        side: (n,) places, ascending, n ≥ 2.
        apart: (n,) values.
        error: (n,) standard deviations; 0 is exact, NaN not known.
    """
    at = float(_last(side, apart[None])[0])
    known = ~np.isnan(error)
    if not known.any():
        return Root(at, np.nan, np.nan, known=False)
    if known.all() and not error.any():
        return Root(at, at, at, known=True)
    open_ = _open(apart, known)
    noise = np.random.default_rng(0).standard_normal((DRAWS, len(side)))
    drawn = apart + np.where(known, error, error[known].max()) * noise
    below, above = (np.where(open_, far, drawn) for far in (-FAR, FAR))
    tail = (1 - CONFIDENCE) / 2
    low, high = _quantile(_first(side, below), tail), _quantile(_last(side, above), 1 - tail)
    surely = ndtri(1 - tail / len(side))
    dear = known & (apart > surely * np.nan_to_num(error))
    if dear.any():
        low = max(low, float(side[dear][-1]))
    return Root(at, min(low, at), max(high, at), known=True)


def _open(apart: Floats, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points of unknown error lie in a stretch of such points that meets 0 in it, or beside it."""
    found = np.zeros(len(apart), dtype=bool)
    for at in np.flatnonzero(~known):
        before, after = np.flatnonzero(known[:at])[-1:], at + np.flatnonzero(known[at:])[:1]
        first, last = (before[0] if len(before) else 0), (after[0] if len(after) else len(apart) - 1)
        found[at] = len(set(apart[first : last + 1] < 0)) > 1
    return found


def _quantile(roots: Floats, share: float) -> float:
    return float(np.sort(roots)[round(share * (len(roots) - 1))])


def _first(side: Floats, apart: Floats) -> Floats:
    """The place up to which each row of `apart` stays above 0; -inf if its first entry is not, inf if all are."""
    return -_last(-side[::-1], -apart[:, ::-1])


def _last(side: Floats, apart: Floats) -> Floats:
    """The place from which each row of `apart` stays below 0; -inf if all of it is, inf if its last entry is not."""
    cheaper = apart < 0
    roots = np.full(len(apart), np.inf)
    roots[cheaper.all(axis=1)] = -np.inf
    for index, (here, there) in enumerate(pairwise(side)):
        crosses = ~cheaper[:, index] & cheaper[:, index + 1 :].all(axis=1)
        before, after = apart[crosses, index], apart[crosses, index + 1]
        roots[crosses] = here + (there - here) * before / (before - after)
    return roots
