"""What is wrong with the samples of a cell: drift, two levels, outliers. Pure; samples in ms, in their order.

Series of one length are judged together, a row each (`series.by_length`). What is dear is computed only where cheaper
figures leave it open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

from vbench.results.series import Rows, Samples, by_length, effective

FEWEST = 10  # samples of a launch; with fewer a fault looks like noise
MATTERS = 0.01  # the smallest fault, as a share of the median
FENCE = 5.0  # standard deviations from the median to an outlier, on the log scale and on its side
LESSER = 0.10  # the share of samples that a mode has at least
BLOCKS = 40  # a launch is cut into this many blocks at most, to look for drift
DRIFT_Z = 3.29  # two-sided, 99.9 %
VALLEY = 0.07  # chance of such an empty valley between two modes in a flat distribution; with one mode it is far rarer

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class LaunchFaults(NamedTuple):
    """The faults of one launch of ten samples or more."""

    samples: int
    drifts: bool
    bimodal: bool
    outliers: int


def of_cells(launches: Sequence[LaunchFaults | None], of: NDArray[np.intp], cells: int) -> dict[str, Flags]:
    """(cells,) each: whether a cell shows "drift", "bimodal", "outliers"; `of` is the place of the cell of each launch.

    - drift: the median moves by more than 1 % from the first to the last third of a launch, and at 99.9 % Theil's slope
      over block medians is not 0, or the halves differ. A step that stays is drift.
    - bimodal: samples alternate between two levels more than 1 % apart; each level holds at least 10 % of them, and the
      valley between them is emptier than either.
    - outliers: at least two samples, and at least 1 % of all, are more than five standard deviations (more with few
      samples) and more than 1 % away from the nearer mode, after drift is removed. A standard deviation is that of the
      sample's side of the median, from the median to the 16th or 84th percentile, on the log scale.

    Drift and bimodality count if more than half of the launches show them. Outliers are rare, so launches are pooled.
    A launch of fewer than ten samples is not judged.
    """
    of = of[[launch is not None for launch in launches]]
    known = np.array([launch for launch in launches if launch], np.int64).reshape(-1, len(LaunchFaults._fields))
    samples, drifts, bimodal, outliers = (np.bincount(of, figures, cells) for figures in known.T)
    count = np.bincount(of, minlength=cells)
    return {
        "drift": 2 * drifts > count,
        "bimodal": 2 * bimodal > count,
        "outliers": (outliers >= 2) & (outliers >= MATTERS * samples),
    }


def judged(launches: Sequence[Samples]) -> list[LaunchFaults | None]:
    """The faults of each launch; None for one of fewer than ten samples."""
    found: list[LaunchFaults | None] = [None] * len(launches)
    long = [place for place, launch in enumerate(launches) if len(launch) >= FEWEST]
    for places, rows in by_length([launches[place] for place in long]):
        for place, *about in zip(places.tolist(), *(part.tolist() for part in _judged(rows)), strict=True):
            found[long[place]] = LaunchFaults(rows.shape[1], *about)
    return found


def _judged(rows: Rows) -> tuple[Flags, Flags, NDArray[np.int64]]:
    """(launches,) each: whether a row drifts, whether it has two modes, and how many outliers it has."""
    n = rows.shape[1]
    least = MATTERS * np.abs(np.median(rows, axis=1))
    change = np.abs(np.median(rows[:, -(n // 3) :], axis=1) - np.median(rows[:, : n // 3], axis=1))
    moves = np.flatnonzero(change > least)
    drifts, level = np.zeros(len(rows), bool), rows
    if len(moves):
        slopes, z = _drift(rows[moves])
        drifts[moves] = z > DRIFT_Z
        level = rows.copy()
        level[moves[z > DRIFT_Z]] -= slopes[z > DRIFT_Z, None] * np.arange(n)
    bimodal, upper = _second_mode(level, least)
    outliers = np.zeros(len(rows), np.int64)
    outliers[~bimodal] = _outliers(level[~bimodal], least[~bimodal])
    for place in np.flatnonzero(bimodal):
        groups = level[place][upper[place]], level[place][~upper[place]]
        outliers[place] = sum(int(_outliers(group[None], least[place : place + 1])[0]) for group in groups)
    return drifts, bimodal, outliers


def _drift(rows: Rows) -> tuple[Floats, Floats]:
    """(launches,) each: Theil's slope per sample, and how many standard deviations the drift is from none."""
    n = rows.shape[1]
    size = -(-n // BLOCKS)
    slopes, _ = _theil(rows, size)
    middles = np.median(rows[:, : n // 2], axis=1), np.median(rows[:, n // 2 :], axis=1)
    halves = np.where(np.arange(n) < n // 2, middles[0][:, None], middles[1][:, None])
    independent = np.maximum(*(_independent(rows - trend) for trend in (slopes[:, None] * np.arange(n), halves)))
    sizes = np.maximum(size, np.where(independent < n / 1.5, np.round(2 * n / independent), 1)).astype(int)
    slopes, z = np.zeros(len(rows)), np.zeros(len(rows))
    for size in np.unique(sizes).tolist():
        alike = sizes == size
        slopes[alike], z[alike] = _theil(rows[alike], size)
    return slopes, z


def _independent(rest: Rows) -> Floats:
    """(launches,) how many independent samples a short series without its trend is worth, by neighbours too.

    Taking out a trend takes out the long correlations that `effective` sums. The correlation of neighbouring ranks is
    left, and of noise that forgets exponentially it tells all: n (1 - r) / (1 + r).
    """
    ranks = _ranks(rest)
    power = np.einsum("ij,ij->i", ranks, ranks)
    beside = np.einsum("ij,ij->i", ranks[:, 1:], ranks[:, :-1])
    correlation = np.where(power == 0, 0.0, beside / np.where(power == 0, 1.0, power))
    worth = rest.shape[1] * (1 - correlation) / (1 + np.maximum(correlation, 0.0))
    found: Floats = np.minimum(effective(rest), worth)
    return found


def _ranks(rows: Rows) -> Floats:
    """(launches, samples) the ranks of each row about their middle; equal values have the same."""
    n = rows.shape[1]
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    new = np.ones_like(ordered, dtype=bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    places = np.arange(n)
    first = np.maximum.accumulate(np.where(new, places, 0), axis=1)
    ends = np.roll(new, -1, axis=1)
    ends[:, -1] = True
    last = np.minimum.accumulate(np.where(ends, places, n)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty_like(ordered)
    np.put_along_axis(ranks, order, (first + last) / 2 - (n - 1) / 2, axis=1)
    return ranks


def _theil(rows: Rows, size: int) -> tuple[Floats, Floats]:
    """(launches,) each: the slope per sample over medians of blocks of `size`, and how many standard deviations from 0.

    The number is the greater of Kendall's z, which detects a slope, and Mann and Whitney's z between the halves, which
    detects a step.
    """
    count = rows.shape[1] // size
    if count < 2:
        return np.zeros(len(rows)), np.zeros(len(rows))
    kept = rows[:, rows.shape[1] - count * size :]
    medians = np.median(kept.reshape(len(rows), count, size), axis=2)
    first, second = np.triu_indices(count, 1)
    half = count // 2
    across = (first < half) & (second >= half)
    slopes, z = np.empty(len(rows)), np.empty(len(rows))
    step = max(1, 2**20 // len(first))
    for at in range(0, len(rows), step):
        part = slice(at, at + step)
        rises = medians[part, second] - medians[part, first]
        signs = np.sign(rises)
        kendall = (np.abs(signs.sum(axis=1)) - 1) / (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
        whitney = (np.abs(signs[:, across].sum(axis=1)) - 1) / (half * (count - half) * (count + 1) / 3) ** 0.5
        slopes[part] = np.median(rises / (second - first), axis=1) / size
        z[part] = np.maximum(kendall, whitney)
    return slopes, z


def _second_mode(rows: Rows, least: Floats) -> tuple[Flags, Flags]:
    """(launches,) whether a row has two modes, and (launches, samples) which samples are above the split.

    The split has the least scatter within its two parts; the outermost 5 % at either end are left out. There are two
    modes if the middle third between the peaks has fewer samples, beyond chance, than windows of that width about the
    peaks. A launch that rarely changes modes counts as fewer samples.
    """
    n = rows.shape[1]
    ordered = np.sort(rows, axis=1)
    cut = n // 20
    inner = np.ascontiguousarray(ordered[:, cut : n - cut])
    width = inner.shape[1]
    count = np.arange(1, width)
    between = np.cumsum(inner - inner.mean(axis=1, keepdims=True), axis=1)[:, :-1] ** 2 / (count * (width - count))
    between[:, np.minimum(count, width - count) + cut < max(3.0, LESSER * n)] = -1.0
    every = np.arange(len(rows))
    split = np.argmax(between, axis=1)
    edge = (inner[every, split] + inner[every, split + 1]) / 2
    upper = rows > edge[:, None]
    above = upper.sum(axis=1)
    low, high = _middle(ordered, np.zeros_like(above), n - above), _middle(ordered, n - above, np.full_like(above, n))
    two = (between[every, split] > 0) & (above > 0) & (above < n) & (high - low > least)
    if not two.any():
        return two, upper
    share = upper[two].mean(axis=1)
    place = (rows[two] - low[two, None]) / (high - low)[two, None]
    valley = np.count_nonzero(np.abs(place - 0.5) <= 1 / 6, axis=1)
    peak = np.minimum(*(np.count_nonzero(np.abs(place - at) <= 1 / 6, axis=1) for at in (0, 1)))
    runs = 1 + np.count_nonzero(upper[two][:, 1:] != upper[two][:, :-1], axis=1)
    worth = np.minimum(1.0, runs / (1 + 2 * n * share * (1 - share)))
    chance = bdtr(np.ceil(valley * worth), ((valley + peak) * worth).astype(int), 0.5)
    two[two] = chance <= VALLEY
    return two, upper


def _middle(ordered: Rows, first: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:
    """(launches,) the median of each row's sorted samples from `first` up to `last`; any one if there are none."""
    every, n = np.arange(len(ordered)), ordered.shape[1]
    ends = [np.clip(at, 0, n - 1) for at in ((first + last - 1) // 2, (first + last) // 2)]
    found: Floats = (ordered[every, ends[0]] + ordered[every, ends[1]]) / 2
    return found


def _outliers(rows: Rows, least: Floats) -> NDArray[np.int64]:
    """(launches,) how many samples of each row are beyond both bounds. With few samples the fence is wider.

    On the log scale, and with one standard deviation for either side, the long tail of ordinary times is no fault. The
    fence is so far out that more samples do not reach it by chance.
    """
    found = np.zeros(len(rows), np.int64)
    positive = np.flatnonzero((rows > 0).all(axis=1))  # after drift is removed; times are far above 0
    if not len(positive):
        return found
    rows, least = rows[positive], least[positive]
    logs = np.log(rows)
    low, middle, high = np.quantile(logs, [1 - float(ndtr(1)), 0.5, float(ndtr(1))], axis=1)
    away = logs - middle[:, None]
    sides = (high - middle)[:, None], (middle - low)[:, None]
    nearest = FENCE * (1 + 10 / rows.shape[1])  # if all samples are independent
    far = np.flatnonzero(((away > nearest * sides[0]) | (-away > nearest * sides[1])).any(axis=1))
    if len(far):
        rows, least, away, middle = rows[far], least[far], away[far], middle[far]
        fence = FENCE * (1 + 10 / effective(rows))[:, None]
        beyond = (away > fence * sides[0][far]) | (-away > fence * sides[1][far])
        found[positive[far]] = np.count_nonzero(
            beyond & (np.abs(rows - np.exp(middle)[:, None]) > least[:, None]), axis=1
        )
    return found
