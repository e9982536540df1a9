"""Statistics of a cell: its median with an interval, and what is wrong with its samples. Pure; samples in ms.

A cell is measured in launches. A launch is a fresh process, and gives samples in the order of measuring. Samples of one
launch are not independent, and launches differ by more than their samples show (addresses, clocks, neighbours): the
launch is the unit that is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtri, stdtrit  # scipy.stats takes longer to import than a launch to start

CONFIDENCE = 0.95
FEWEST = 10  # samples of a launch; with fewer a fault looks like noise
MATTERS = 0.01  # the smallest fault, as a share of the median
MODIFIED_Z = 3.5  # of an outlier, from the median absolute deviation (Iglewicz and Hoaglin 1993)
TO_SIGMA = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation
LESSER = 0.10  # the share of samples that a mode has at least
BLOCKS = 40  # a launch is cut into this many blocks at most, to look for drift
DRIFT_Z = 3.29  # two-sided, 99.9 %
VALLEY = 0.07  # chance of such an empty valley between two modes in a flat distribution; with one mode it is far rarer

Basis = Literal["launches", "within one launch", "range"]
Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its interval, in the samples' unit.

    `basis` says what the interval covers: "launches", the median of another launch too; "within one launch", only the
    median of that launch; "range", the least and the greatest sample, because there are too few. `level` is None if it
    is not known.
    """

    median: float
    lo: float
    hi: float
    level: float | None
    basis: Basis


def median_interval(samples: Sequence[float]) -> tuple[float, float, float, float]:
    """The median, and its distribution-free interval from order statistics: (median, lo, hi, coverage).

    The interval is the narrowest symmetric pair of order statistics that covers the median with at least 95 %. With
    fewer than six samples it is their range, with a lower coverage. Assumes independent samples.

    Raises: ValueError without samples.
    """
    ordered = np.sort(_series(samples))
    n = len(ordered)
    rank, coverage = _rank(n, CONFIDENCE)
    return float(np.median(ordered)), float(ordered[rank]), float(ordered[n - 1 - rank]), coverage


def interval(
    launches: Sequence[Sequence[float]], *, level: float = CONFIDENCE, draws: int = 2000, seed: int = 0
) -> Interval:
    """The median of the launches' medians, and its interval.

    The interval of two or more launches is symmetric on the log scale, and the wider of two:

    - Resample launches: the standard deviation of the log median, times Student's t with L - 1 degrees of freedom. With
      two launches it is √2 too small, and is corrected. With three or more, resampling overstates the scatter of a
      median by as much as their small number understates it.
    - Resample the independent samples within launches (`effective_samples`): the same deviation, times the normal
      quantile. So launches that agree by chance do not seem exact.

    The scatter of launches contains the noise of samples; resampling both at once would count it twice. The interval of
    one launch is a pair of order statistics at its effective number of samples, or the range if these are too few (six
    at 95 %). The level of a range is known only if the samples are independent.

    Args:
        launches: samples of each launch in order, ms, all positive.
        level: of the interval, between 0 and 1.
        draws, seed: of the bootstrap; the same input gives the same interval.

    Raises: ValueError for no launch, a launch without samples, or a sample that is not positive and finite.
    """
    series = [_series(launch) for launch in launches]
    if not series:
        raise ValueError("an interval needs at least one launch")
    if any((launch <= 0).any() for launch in series):
        raise ValueError("an interval needs positive samples")
    if len(series) == 1:
        return _within(series[0], level)
    logs = [np.sort(np.log(launch)) for launch in series]
    medians = np.array([np.median(launch) for launch in logs])
    count = len(medians)
    random = np.random.default_rng(seed)

    resampled = medians[random.integers(0, count, (draws, count))]
    launch_error = float(np.median(resampled, axis=1).std()) * (2**0.5 if count == 2 else 1.0)
    sizes = [(effective_samples(launch) + 1) / 2 for launch in series]
    # The median of m resampled values is the value at a rank that is Beta-distributed with (m + 1) / 2 twice.
    kept = [
        np.interp(random.beta(size, size, draws) * (len(launch) - 1), np.arange(len(launch)), launch)
        for launch, size in zip(logs, sizes, strict=True)
    ]
    sample_error = float(np.median(kept, axis=0).std())

    tail = (1 + level) / 2
    half = max(launch_error * float(stdtrit(count - 1, tail)), sample_error * float(ndtri(tail)))
    middle = float(np.median([np.median(launch) for launch in series]))
    return Interval(middle, middle * float(np.exp(-half)), middle * float(np.exp(half)), level, "launches")


def ratio(one: Interval, other: Interval) -> Interval:
    """One over other, and its 95 % interval; both must be positive.

    Symmetric on the log scale: each interval gives a standard deviation by the normal quantile of its level, and they
    add in quadrature. With few launches it is wider than necessary, because their intervals come from Student's t. If
    the level of either is not known, the interval has the widest ends that are possible, and no known level.
    """
    middle = one.median / other.median
    if one.level is None or other.level is None or "range" in (one.basis, other.basis):
        return Interval(middle, one.lo / other.hi, one.hi / other.lo, None, "range")
    errors = [np.log(of.hi / of.lo) / 2 / ndtri((1 + of.level) / 2) for of in (one, other)]  # type: ignore[operator]
    half = float(np.hypot(*errors) * ndtri((1 + CONFIDENCE) / 2))
    basis: Basis = "launches" if one.basis == other.basis == "launches" else "within one launch"
    return Interval(middle, middle * float(np.exp(-half)), middle * float(np.exp(half)), CONFIDENCE, basis)


def effective_samples(samples: Sequence[float] | Samples) -> float:
    """How many independent samples would give the median as exactly; between 1 and the number of samples.

    The error of a median depends on the autocorrelation of the signs about it, which is summed over lags while
    neighbouring pairs are positive (Geyer 1992). Outliers do not change it. All samples of a series that alternates
    count.

    Raises: ValueError without samples.
    """
    series = _series(samples)
    n = len(series)
    signs = np.sign(series - np.median(series))
    signs -= signs.mean()
    power = float(signs @ signs)
    if n < 4 or power == 0:
        return float(n)
    spectrum = np.abs(np.fft.rfft(signs, 2 * n)) ** 2
    correlation = np.fft.irfft(spectrum)[:n] / power
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    total = 2 * float(pairs[: ends[0] if len(ends) else None].sum()) - 1
    return float(np.clip(n / max(total, 1.0), 1.0, n))


def faults(launches: Sequence[Sequence[float]]) -> tuple[str, ...]:
    """The faults of a cell's samples: some of "drift", "bimodal", "outliers", in this order.

    - drift: the median moves by more than 1 % from the first to the last third of a launch, and at 99.9 % Theil's slope
      over block medians is not 0, or the halves differ. A step that stays is drift.
    - bimodal: samples alternate between two levels more than 1 % apart; each level holds at least 10 % of them, and the
      valley between them is emptier than either.
    - outliers: at least two samples, and at least 1 % of all, have a modified z-score above 3.5 and are more than 1 %
      of the median away from the nearer mode, after drift is removed.

    Drift and bimodality count if more than half of the launches show them. Outliers are rare, so launches are pooled.
    A launch of fewer than ten samples is not judged.
    """
    judged = [_faults_of(_series(launch)) for launch in launches if len(launch) >= FEWEST]
    outliers, samples = sum(launch.outliers for launch in judged), sum(launch.samples for launch in judged)
    shown = {
        "drift": 2 * sum(launch.drifts for launch in judged) > len(judged),
        "bimodal": 2 * sum(launch.bimodal for launch in judged) > len(judged),
        "outliers": outliers >= 2 and outliers >= MATTERS * samples,
    }
    return tuple(fault for fault, there in shown.items() if there)


def outlier_count(launches: Sequence[Sequence[float]]) -> int:
    """The number of outliers, as in `faults`, in all launches of ten samples or more."""
    return sum(_faults_of(_series(launch)).outliers for launch in launches if len(launch) >= FEWEST)


@dataclass(frozen=True, slots=True)
class _LaunchFaults:
    """The faults of one launch."""

    samples: int
    drifts: bool
    bimodal: bool
    outliers: int


def _series(samples: Sequence[float] | Samples) -> Samples:
    series = np.asarray(samples, dtype=np.float64)
    if series.ndim != 1 or not len(series):
        raise ValueError("a launch needs at least one sample")
    if not np.isfinite(series).all():
        raise ValueError("samples must be finite")
    return series


@lru_cache(maxsize=1024)
def _rank(n: int, level: float) -> tuple[int, float]:
    """The greatest k for which the order statistics k and n - 1 - k cover the median at `level`, and their coverage."""

    def coverage(k: int) -> float:
        return float(max(0.0, 1 - 2 * bdtr(k, n, 0.5)))

    rank = max(int(n / 2 + ndtri((1 - level) / 2) * n**0.5 / 2) - 3, 0)
    while rank + 1 < n - 1 - rank and coverage(rank + 1) >= level:
        rank += 1
    return rank, coverage(rank)


def _within(series: Samples, level: float) -> Interval:
    """The interval of one launch's own median."""
    n, worth = len(series), int(effective_samples(series))
    rank, coverage = _rank(worth, level)
    median = float(np.median(series))
    if coverage < level:
        known = coverage if worth == n > 1 else None
        return Interval(median, float(series.min()), float(series.max()), known, "range")
    ordered = np.sort(series)
    rank = rank * (n - 1) // (worth - 1)
    return Interval(median, float(ordered[rank]), float(ordered[n - 1 - rank]), level, "within one launch")


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
    independent = max(effective_samples(series - trend) for trend in (slope * np.arange(n), halves))
    slope, z = _theil(series, max(size, round(2 * n / independent) if independent < n / 1.5 else 1))
    change = abs(float(np.median(series[-(n // 3) :]) - np.median(series[: n // 3])))
    return slope, z > DRIFT_Z and change > least


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
    """How many samples are beyond both bounds. With few samples the bound of the z-score is wider."""
    away = np.abs(series - np.median(series))
    bound = MODIFIED_Z * (1 + 10 / effective_samples(series))
    return int(np.count_nonzero((away > least) & (away > bound * TO_SIGMA * np.median(away))))
