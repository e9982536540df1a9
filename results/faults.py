"""What is wrong with the samples of a cell: drift, two levels, outliers. Pure; samples in ms, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

from vbench.results.statistics import Samples, effective_samples, series_of

FEWEST = 10  # samples of a launch; with fewer a fault looks like noise
MATTERS = 0.01  # the smallest fault, as a share of the median
FENCE = 5.0  # standard deviations from the median to an outlier, on the log scale and on its side
LESSER = 0.10  # the share of samples that a mode has at least
BLOCKS = 40  # a launch is cut into this many blocks at most, to look for drift
DRIFT_Z = 3.29  # two-sided, 99.9 %
VALLEY = 0.07  # chance of such an empty valley between two modes in a flat distribution; with one mode it is far rarer


def faults(launches: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """The faults of a cell's samples: some of "drift", "bimodal", "outliers", in this order.

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
    judged = [_faults_of(series_of(launch)) for launch in launches if len(launch) >= FEWEST]
    outliers, samples = sum(launch.outliers for launch in judged), sum(launch.samples for launch in judged)
    shown = {
        "drift": 2 * sum(launch.drifts for launch in judged) > len(judged),
        "bimodal": 2 * sum(launch.bimodal for launch in judged) > len(judged),
        "outliers": outliers >= 2 and outliers >= MATTERS * samples,
    }
    return tuple(fault for fault, there in shown.items() if there)


def outlier_count(launches: Sequence[Sequence[float]]) -> int:
    """The number of outliers, as in `faults`, in all launches of ten samples or more."""
    return sum(_faults_of(series_of(launch)).outliers for launch in launches if len(launch) >= FEWEST)


@dataclass(frozen=True, slots=True)
class _LaunchFaults:
    """The faults of one launch."""

    samples: int
    drifts: bool
    bimodal: bool
    outliers: int


def _faults_of(series: Samples) -> _LaunchFaults:
    median = float(np.median(series))
    least = MATTERS * abs(median)
    slope, drifts = _drift(series, least)
    level = series - slope * np.arange(len(series)) if drifts else series
    upper = _second_mode(level, least)
    groups = [level] if upper is None else [level[upper], level[~upper]]
    outliers = sum(_outliers(group, least) for group in groups)
    return _LaunchFaults(len(series), drifts, upper is not None, outliers)


def _drift(series: Samples, least: float) -> tuple[float, bool]:
    """Theil's slope per sample, and whether there is drift that moves the median by more than `least`."""
    n = len(series)
    size = -(-n // BLOCKS)
    slope, _ = _theil(series, size)
    halves = np.where(np.arange(n) < n // 2, np.median(series[: n // 2]), np.median(series[n // 2 :]))
    independent = max(_independent(series - trend) for trend in (slope * np.arange(n), halves))
    slope, z = _theil(series, max(size, round(2 * n / independent) if independent < n / 1.5 else 1))
    change = abs(float(np.median(series[-(n // 3) :]) - np.median(series[: n // 3])))
    return slope, z > DRIFT_Z and change > least


def _independent(rest: Samples) -> float:
    """How many independent samples a short series without its trend is worth, by neighbours too.

    Taking out a trend takes out the long correlations that `effective_samples` sums. The correlation of neighbouring
    ranks is left, and of noise that forgets exponentially it tells all: n (1 - r) / (1 + r).
    """
    _, place, counts = np.unique(rest, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts + 1) / 2)[place] - (len(rest) - 1) / 2  # equal values have the same
    power = float(ranks @ ranks)
    correlation = float(ranks[1:] @ ranks[:-1]) / power if power else 0.0
    return min(effective_samples(rest), len(rest) * (1 - correlation) / (1 + max(correlation, 0.0)))


def _theil(series: Samples, size: int) -> tuple[float, float]:
    """The slope per sample over medians of blocks of `size`, and how many standard deviations it is from 0.

    The number is the greater of Kendall's z, which detects a slope, and Mann and Whitney's z between the halves, which
    detects a step.
    """
    count = len(series) // size
    if count < 2:
        return 0.0, 0.0
    medians = np.median(series[len(series) - count * size :].reshape(count, size), axis=1)
    first, second = np.triu_indices(count, 1)
    rises = medians[second] - medians[first]
    half = count // 2
    across = (first < half) & (second >= half)
    kendall = (abs(np.sign(rises).sum()) - 1) / (count * (count - 1) * (2 * count + 5) / 18) ** 0.5
    whitney = (abs(np.sign(rises[across]).sum()) - 1) / (half * (count - half) * (count + 1) / 3) ** 0.5
    return float(np.median(rises / (second - first))) / size, float(max(kendall, whitney))


def _second_mode(series: Samples, least: float) -> NDArray[np.bool_] | None:
    """Which samples belong to the upper of two modes; None if there is one mode.

    The split has the least scatter within its two parts; the outermost 5 % at either end are left out. There are two
    modes if the middle third between the peaks has fewer samples, beyond chance, than windows of that width about the
    peaks. A launch that rarely changes modes counts as fewer samples.
    """
    n = len(series)
    ordered = np.sort(series)
    cut = n // 20
    inner = ordered[cut : n - cut]
    count = np.arange(1, len(inner))
    sums = np.cumsum(inner - inner.mean())[:-1]
    between = sums**2 / (count * (len(inner) - count))
    lesser = np.minimum(count, len(inner) - count) + cut
    between[lesser < max(3.0, LESSER * n)] = -1.0
    split = int(np.argmax(between))
    edge = (inner[split] + inner[split + 1]) / 2
    upper: NDArray[np.bool_] = series > edge
    share = float(upper.mean())
    if between[split] <= 0 or not 0 < share < 1:
        return None
    low, high = float(np.median(series[~upper])), float(np.median(series[upper]))
    if high - low <= least:
        return None
    place = (series - low) / (high - low)
    valley = int(np.count_nonzero(np.abs(place - 0.5) <= 1 / 6))
    peak = min(int(np.count_nonzero(np.abs(place - at) <= 1 / 6)) for at in (0, 1))
    runs = 1 + int(np.count_nonzero(upper[1:] != upper[:-1]))
    worth = min(1.0, runs / (1 + 2 * n * share * (1 - share)))
    chance = bdtr(np.ceil(valley * worth), int((valley + peak) * worth), 0.5)
    return upper if chance <= VALLEY else None


def _outliers(series: Samples, least: float) -> int:
    """How many samples are beyond both bounds. With few samples the fence is wider.

    On the log scale, and with one standard deviation for either side, the long tail of ordinary times is no fault. The
    fence is so far out that more samples do not reach it by chance.
    """
    if not (series > 0).all():  # after drift is removed; times are far above 0
        return 0
    logs = np.log(series)
    low, middle, high = np.quantile(logs, [1 - float(ndtr(1)), 0.5, float(ndtr(1))])
    fence = FENCE * (1 + 10 / effective_samples(series))
    away = logs - middle
    beyond = (away > fence * (high - middle)) | (-away > fence * (middle - low))
    return int(np.count_nonzero(beyond & (np.abs(series - np.exp(middle)) > least)))
