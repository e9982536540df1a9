"""Where a series of measurements changes its level permanently. Only `vbench history` uses it, no gate.

Bayesian Blocks (Scargle et al. 2013, point measures, as in astropy) cut the series into blocks of one level each. A cut
must explain the values better by more than a penalty. The penalty comes from simulation, which includes errors in the
estimate of noise: a series without a change exceeds it with a chance of `ALARM`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

FEWEST = 6  # values; with fewer, levels cannot be separated from noise
ALARM = 0.02  # chance of a false change in a series
DRAWS = 4000
SIMULATED = 100  # values at most; for longer series the penalty grows by the log of the ratio of lengths

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes of a series.

    `starts`: the places of the first value of each new level. `alone`: the places of single values that belong to no
    level. `noise`: the standard deviation around a level, in the unit of the values; None if there are too few values.
    """

    starts: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    noise: float | None = None


def changes(values: Sequence[float]) -> Changes:
    """The changes of level in a series with constant noise, such as the logs of a cost over time.

    A level has at least two values: single values are removed, and the rest is searched again. A series without
    scatter, such as counts, changes wherever its value changes.
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
    """The places where blocks begin, without the first block."""
    if noise == 0:
        return [int(place) + 1 for place in np.flatnonzero(np.diff(series))]
    from astropy.stats import bayesian_blocks

    level = series - np.median(series)
    edges = bayesian_blocks(np.arange(len(level)), level, noise, fitness="measures", ncp_prior=penalty)
    return [ceil(edge) for edge in edges[1:-1]]


def _scatter(series: Floats) -> Floats:
    """For each row the root mean square of the smaller two thirds of the steps between neighbours.

    The larger third contains the steps at changes and at single values.
    """
    squares = np.sort(np.diff(series, axis=1) ** 2, axis=1)
    found: Floats = np.sqrt(squares[:, : ceil(2 / 3 * squares.shape[1])].mean(axis=1))
    return found


@lru_cache(maxsize=256)
def _calibrated(n: int) -> tuple[float, float]:
    """From normal noise with standard deviation 1, in series of n values: the median of `_scatter`, and the penalty."""
    series = np.random.default_rng(0).normal(size=(DRAWS, n))
    scatter = _scatter(series)
    scale = float(np.median(scatter))
    gains = _gains(series) / (scatter / scale) ** 2
    return scale, float(np.quantile(gains, 1 - ALARM))


def _gains(series: Floats) -> Floats:
    """For each row the gain of the best cut, or half the gain of the best two cuts if that is larger, at noise 1.

    In a series without changes, more cuts rarely gain more per cut.
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
