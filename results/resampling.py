"""How exactly the samples within launches tell the median of medians, for many cells at once. Pure.

The independent samples of each launch are resampled (`series.effective`), 2,000 times. The median of m resampled values
is the value at a rank that is Beta-distributed with (m + 1) / 2 twice, so draws are of ranks. In most cells of several
launches this error is far below that of the scatter of launches, and the interval is the wider of both: there draws are
left out, as cheaper figures show that they cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from vbench.results.series import Rows, Samples, by_length

DRAWS, SEED = 2000, 0
FEWEST_RANKED = 6  # independent samples, of which a pair of order statistics covers the median at 95 %
RANGE = float(ndtri(0.975))  # standard deviations from the middle to the end of a range that stands for 95 %
POINTS = 64  # equally likely ranks that stand for all draws of a launch, to tell whether draws may matter
SHUFFLES = 6
CELLS = 4096  # whose draws are kept at the same time
SURELY, NEARLY = (
    1.3,
    1.2,
)  # margins: 64 ranks lack the ends of the tails, 3 % of a normal error; 2,000 draws vary by 2 %

Floats = NDArray[np.float64]
Logs = Sequence[Samples]  # the sorted logarithms of each launch of a cell


def errors(cells: Sequence[Logs], worth: Sequence[Floats], needless: Floats, draws: int, seed: int) -> Floats:
    """(cells,) the standard deviation of the log median of medians; 0 where it is surely below `needless`.

    With fewer than six independent samples in the only launch, the range stands for it at least.

    Args:
        cells: the sorted logarithms of each launch's samples.
        worth: (launches,) for each cell, how many independent samples each launch is worth.
        needless: (cells,) an error below which nobody asks for it; 0 where it is always asked for.
    """
    found = np.zeros(len(cells))
    alone = [place for place, logs in enumerate(cells) if len(logs) == 1]
    found[alone] = _alone(
        [cells[place][0] for place in alone], [float(worth[place][0]) for place in alone], draws, seed
    )
    several = np.flatnonzero([len(logs) > 1 for logs in cells])
    for far in (_bound, _nearly):
        near = np.zeros(len(cells), bool)
        for part in (several[at : at + CELLS] for at in range(0, len(several), CELLS)):
            near[part] = far([cells[place] for place in part], [worth[place] for place in part]) < needless[part]
        several = several[~near[several]]
    for place in several.tolist():
        found[place] = _drawn(cells[place], worth[place], draws, seed)
    return found


def _drawn(logs: Logs, worth: Floats, draws: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    kept = [
        np.interp(random.beta((n + 1) / 2, (n + 1) / 2, draws) * (len(launch) - 1), np.arange(len(launch)), launch)
        for launch, n in zip(logs, worth.tolist(), strict=True)
    ]
    return float(np.median(kept, axis=0).std())


def _alone(launches: Sequence[Samples], worth: Sequence[float], draws: int, seed: int) -> Floats:
    """(cells,) the error of cells of one launch.

    Draws depend on length and worth alone, and a drawn value is a weighted sum of samples: so is its variance.
    """
    found = np.zeros(len(launches))
    alike: dict[tuple[int, float], list[int]] = {}
    for place, (logs, n) in enumerate(zip(launches, worth, strict=True)):
        alike.setdefault((len(logs), n), []).append(place)
    for (length, n), places in alike.items():
        if len(places) == 1 or length > POINTS:
            found[places] = [_drawn([launches[place]], np.array([n]), draws, seed) for place in places]
        else:
            rows = np.array([launches[place] for place in places])
            rows -= rows.mean(axis=1, keepdims=True)
            variance = np.einsum("ij,jk,ik->i", rows, _covariance(length, n, draws, seed), rows, optimize=True)
            found[places] = np.sqrt(np.maximum(variance, 0.0))
        if n < FEWEST_RANKED:
            span = np.array([launches[place][-1] - launches[place][0] for place in places])
            found[places] = np.maximum(found[places], span / 2 / RANGE)
    return found


@lru_cache(maxsize=256)
def _covariance(length: int, worth: float, draws: int, seed: int) -> Rows:
    """(length, length) the covariance of the weights of sorted samples in drawn medians."""
    ranks = np.random.default_rng(seed).beta((worth + 1) / 2, (worth + 1) / 2, draws) * (length - 1)
    weights = np.maximum(0.0, 1 - np.abs(ranks[:, None] - np.arange(length)))
    weights -= weights.mean(axis=0)
    found: Rows = weights.T @ weights / draws
    return found


def _bound(cells: Sequence[Logs], worth: Sequence[Floats]) -> Floats:
    """(cells,) what the error surely does not exceed.

    By Efron and Stein a variance is no more than the sum of those due to each launch. Moving one launch moves the
    median of an odd number by as much at most, and of an even number, the mean of two, by half.
    """
    counts = np.fromiter(map(len, cells), np.intp, len(cells))
    variances = _resampled(cells, worth).var(axis=1)
    sums = np.add.reduceat(variances, np.cumsum(counts) - counts)
    found: Floats = SURELY * np.sqrt(sums) / np.where(counts % 2 == 0, 2, 1)
    return found


def _nearly(cells: Sequence[Logs], worth: Sequence[Floats]) -> Floats:
    """(cells,) the error from few draws, with a margin: `POINTS` ranks for each launch, shuffled `SHUFFLES` times."""
    counts = np.fromiter(map(len, cells), np.intp, len(cells))
    values, starts = _resampled(cells, worth), np.cumsum(counts) - counts
    found = np.empty(len(cells))
    for count in np.unique(counts).tolist():
        random = np.random.default_rng(SEED)
        order = np.array([np.concatenate([random.permutation(POINTS) for _ in range(SHUFFLES)]) for _ in range(count)])
        for places in np.array_split(np.flatnonzero(counts == count), 1 + len(cells) // 256):
            drawn = values[starts[places, None, None] + np.arange(count)[:, None], order]
            drawn.sort(axis=1)  # of few launches faster than np.median, with the same values
            found[places] = NEARLY * ((drawn[:, (count - 1) // 2] + drawn[:, count // 2]) / 2).std(axis=1)
    return found


def _resampled(cells: Sequence[Logs], worth: Sequence[Floats]) -> Rows:
    """(launches of all cells, POINTS) the log medians at as many equally likely ranks, from low to high."""
    flat, known = [launch for logs in cells for launch in logs], np.concatenate(worth)
    found = np.empty((len(flat), POINTS))
    for places, rows in by_length(flat, 2**14):
        last = rows.shape[1] - 1
        alike, of = np.unique(np.round(known[places], 2), return_inverse=True)
        ranks = np.array([_ranks(one) for one in alike.tolist()]) * last
        before = np.minimum(ranks.astype(np.intp), max(last - 1, 0))
        low, high = (np.take_along_axis(rows, np.minimum(at, last)[of], axis=1) for at in (before, before + 1))
        high -= low
        high *= (ranks - before)[of]
        found[places] = low + high
    return found


@lru_cache(maxsize=65_536)
def _ranks(worth: float) -> Floats:
    """(POINTS,) equally likely ranks of the median of so many independent samples, as shares, from low to high."""
    shares = (np.arange(POINTS) + 0.5) / POINTS
    found: Floats = betaincinv((worth + 1) / 2, (worth + 1) / 2, shares)
    return found
