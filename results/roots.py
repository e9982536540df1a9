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

    An error that is not known (NaN) matters near the root alone. Such a point is taken as no better known than the
    others, with the largest of their errors, if the nearest known points are on its own side of 0. Else it may lie on
    either side, and the interval reaches from the known point before it to the one after it.

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
    """Which points of unknown error have a nearest known point, before or after, on the other side of 0."""
    places, cheaper = np.flatnonzero(known), apart < 0
    found = np.zeros(len(apart), dtype=bool)
    for at in np.flatnonzero(~known):
        beside = [*places[places < at][-1:], *places[places > at][:1]]
        found[at] = any(cheaper[other] != cheaper[at] for other in beside)
    return found


def _quantile(roots: Floats, share: float) -> float:
    return float(np.sort(roots)[round(share * (len(roots) - 1))])


def _first(side: Floats, apart: Floats) -> Floats:
    """The place up to which each row of `apart` stays above 0; -inf if its first entry is not, inf if all are."""
    return -_last(-side[::-1], -apart[:, ::-1])


def _last(side: Floats, apart: Floats) -> Floats:
    """The place from which each row of `apart` stays below 0; -inf if the whole row is, inf if its last entry is not."""
    cheaper = apart < 0
    roots = np.full(len(apart), np.inf)
    roots[cheaper.all(axis=1)] = -np.inf
    for index, (here, there) in enumerate(pairwise(side)):
        crosses = ~cheaper[:, index] & cheaper[:, index + 1 :].all(axis=1)
        before, after = apart[crosses, index], apart[crosses, index + 1]
        roots[crosses] = here + (there - here) * before / (before - after)
    return roots
