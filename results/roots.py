"""Where a noisy curve goes below zero for good, with a 95 % interval. Pure; reads arrays.

The curve is the difference of two log costs over the log of the side. Between two sizes it is drawn as a straight
line, which errs. A cost is a sum of a fixed part, a part that grows with the tokens, and one that grows with their
square. Where two of these that follow each other are most of it, the second derivative of the log of the sum lies
between 0 and `BEND`: it is the variance of their powers of the side (0, 2 and 4), weighted by their shares. So the
curve lies within `BEND` (x - a)(b - x) / 2 of the line between a and b: 0.1 % for sizes that are 10 % apart, 14 % for
224 and 640 px.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from vbench.results.statistics import CONFIDENCE

DRAWS = 2000
BLOCK = 2**20  # numbers that are drawn at once
FAR = 1e9  # a log cost that no noise reaches
BEND = 1.0

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
    the last: the last alone lies too far up, the more so the more points there are. The first is that of a curve that
    bends down between points by as much as `BEND` allows, the last that of one that bends up. Where a point is above 0
    beyond doubt (one-sided, by Bonferroni over the points), the interval begins after it. Points without noise have the
    two bounds of the bend.

    An error that is not known (NaN) matters near the root alone. Where such points and the known ones beside them are
    on one side of 0, they are taken to have the largest error of the known ones. Else they may lie on either side, and
    the interval reaches from the known point before them to the one after them.

    Args:
        side: (n,) places, ascending, n ≥ 2.
        apart: (n,) values.
        error: (n,) standard deviations; 0 is exact, NaN not known.
    """
    at = float(_last(side, apart[None], 0.0)[0])
    known = ~np.isnan(error)
    if not known.any():
        return Root(at, np.nan, np.nan, known=False)
    if known.all() and not error.any():
        low, high = (float(end(side, apart[None], BEND)[0]) for end in (_first, _last))
        return Root(at, min(low, at), max(high, at), known=True)
    open_ = _open(apart, known)
    random, scale = np.random.default_rng(0), np.where(known, error, error[known].max())
    ends: list[tuple[Floats, Floats]] = []
    step = max(1, BLOCK // len(side))
    for begin in range(0, DRAWS, step):
        drawn = apart + scale * random.standard_normal((min(step, DRAWS - begin), len(side)))
        below, above = (np.where(open_, far, drawn) for far in (-FAR, FAR))
        ends.append((_first(side, below, BEND), _last(side, above, BEND)))
    tail = (1 - CONFIDENCE) / 2
    firsts, lasts = (np.concatenate(found) for found in zip(*ends, strict=True))
    low, high = _quantile(firsts, tail), _quantile(lasts, 1 - tail)
    surely = ndtri(1 - tail / len(side))
    dear = known & (apart > surely * np.nan_to_num(error))
    if dear.any():
        low = max(low, float(side[dear][-1]))
    return Root(at, min(low, at), max(high, at), known=True)


def _open(apart: Floats, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points of unknown error lie in a stretch of such points that meets 0 in it, or beside it."""
    places, count = np.arange(len(apart)), len(apart)
    before = np.maximum.accumulate(np.where(known, places, 0))
    after = np.minimum.accumulate(np.where(known, places, count - 1)[::-1])[::-1]
    less = np.concatenate([[0], np.cumsum(apart < 0)])
    within = less[after + 1] - less[before]
    found: NDArray[np.bool_] = ~known & (within > 0) & (within <= after - before)
    return found


def _quantile(roots: Floats, share: float) -> float:
    return float(np.sort(roots)[round(share * (len(roots) - 1))])


def _first(side: Floats, apart: Floats, bend: float) -> Floats:
    """The place up to which each row of `apart` stays above 0; -inf if its first entry is not, inf if all are.

    Between points it is lower than a line, by a parabola of the second derivative `bend`.
    """
    return -_last(-side[::-1], -apart[:, ::-1], bend)


def _last(side: Floats, apart: Floats, bend: float) -> Floats:
    """The place from which each row of `apart` stays below 0; -inf if all of it is, inf if its last entry is not.

    Between points it is higher than a line, by a parabola of the second derivative `bend`.
    """
    dearer = ~(apart < 0)
    count = len(side)
    at = np.where(dearer.any(axis=1), count - 1 - np.argmax(dearer[:, ::-1], axis=1), -1)  # the last that is not below
    roots = np.where(at < 0, -np.inf, np.inf)
    rows = np.flatnonzero((at >= 0) & (at < count - 1))
    here = at[rows]
    width = side[here + 1] - side[here]
    roots[rows] = side[here] + width * _share(apart[rows, here], apart[rows, here + 1], bend / 2 * width**2)
    return roots


def _share(before: Floats, after: Floats, bent: Floats) -> Floats:
    """The greatest t in [0, 1) with before (1 - t) + after t + bent t (1 - t) = 0, for before ≥ 0 > after, bent ≥ 0."""
    half = (before - after - bent) / 2
    far = np.sqrt(half**2 + bent * before)
    with np.errstate(divide="ignore", invalid="ignore"):  # of the form that is not taken
        return np.where(half > 0, before / (half + far), (far - half) / bent)
