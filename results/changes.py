"""Where a series of measurements changes its level for good. For looking at a history; no gate uses it. Pure.

Bayesian Blocks (Scargle et al. 2013, point measures, as in astropy) cut the series into blocks of one level each: the
best cut, in which each block must explain the values better by more than a penalty. A series without a change exceeds
the penalty with a chance of `ALARM`; simulation finds it, errors in the estimate of noise included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

FEWEST = 6  # values, below which no level can be told from noise
ALARM = 0.02  # chance of any change in a series that has none
DRAWS = 4000
SIMULATED = 100  # values at most; beyond, the penalty grows by the log of how many more places for a cut there are

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Changes:
    """`starts` are the places of the first values of new levels; `alone` those of values that lie off by themselves,
    and are of no level; `noise` is the standard deviation about a level. The values' unit; None if there are too few.
    """

    starts: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    noise: float | None = None


def changes(values: Sequence[float]) -> Changes:
    """The changes of level in a series of equal noise, such as the logs of a cost over time.

    A level holds for two values at least: what stands alone is set aside, and the rest is looked at again. A series
    whose values do not scatter, as counts do not, changes wherever its value does.
    """
    if len(values) < FEWEST:
        return Changes()
    series = np.asarray(values, dtype=np.float64)
    scale, penalty = _calibrated(min(len(series), SIMULATED))
    penalty += max(0.0, log(len(series) / SIMULATED))
    noise = float(_scatter(series[None])[0]) / scale
    kept = list(range(len(series)))
    while True:
        starts = [0, *_cuts(series[kept], noise, penalty), len(kept)]
        alone = {kept[one] for one, after in pairwise(starts) if after - one == 1}
        if not alone:
            break
        kept = [place for place in kept if place not in alone]
    off = sorted(set(range(len(series))) - set(kept))
    return Changes(tuple(kept[start] for start in starts[1:-1]), tuple(off), noise)


def _cuts(series: Floats, noise: float, penalty: float) -> list[int]:
    """Where blocks begin, the first left out."""
    if noise == 0:
        return [int(place) + 1 for place in np.flatnonzero(np.diff(series))]
    from astropy.stats import bayesian_blocks

    level = series - np.median(series)
    edges = bayesian_blocks(np.arange(len(level)), level, noise, fitness="measures", ncp_prior=penalty)
    return [ceil(edge) for edge in edges[1:-1]]


def _scatter(series: Floats) -> Floats:
    """The root mean square of the smaller two thirds of the steps between neighbours, of each row.

    Steps that are changes, or lead to a value that lies off, are among the larger third.
    """
    squares = np.sort(np.diff(series, axis=1) ** 2, axis=1)
    found: Floats = np.sqrt(squares[:, : ceil(2 / 3 * squares.shape[1])].mean(axis=1))
    return found


@lru_cache(maxsize=256)
def _calibrated(n: int) -> tuple[float, float]:
    """From normal noise of standard deviation 1, n values a series: what `_scatter` gives, and the penalty."""
    series = np.random.default_rng(0).normal(size=(DRAWS, n))
    scatter = _scatter(series)
    scale = float(np.median(scatter))
    gains = _gains(series) / (scatter / scale) ** 2
    return scale, float(np.quantile(gains, 1 - ALARM))


def _gains(series: Floats) -> Floats:
    """What the best one cut gains, or half of what the best two do if that is more, in noise of 1; of each row.

    More cuts rarely gain more a cut in a series that has none.
    """
    n = series.shape[1]
    sums = np.cumsum(series - series.mean(axis=1, keepdims=True), axis=1)
    best = np.zeros(len(series))
    for first in range(1, n):
        left = sums[:, first - 1]
        best = np.maximum(best, left**2 * (1 / first + 1 / (n - first)) / 2)
        second = np.arange(first + 1, n)
        if len(second):
            inner, right = sums[:, second - 1] - left[:, None], sums[:, second - 1]
            both = left[:, None] ** 2 / first + inner**2 / (second - first) + right**2 / (n - second)
            best = np.maximum(best, both.max(axis=1) / 4)
    return best
