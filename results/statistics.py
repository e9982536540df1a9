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
from scipy.special import bdtr, ndtr, ndtri, stdtrit  # scipy.stats takes longer to import than a launch to start

from vbench.results.moderation import Prior, prior_of, spread_of, two_levels

CONFIDENCE = 0.95
FEWEST = 10  # samples of a launch; with fewer a fault looks like noise
FEWEST_RANKED = 6  # independent samples, of which a pair of order statistics covers the median at 95 %
MATTERS = 0.01  # the smallest fault, as a share of the median
FENCE = 5.0  # standard deviations from the median to an outlier, on the log scale and on its side
LESSER = 0.10  # the share of samples that a mode has at least
WILKS = 0.99  # the chance that two samples at least lie beyond a percentile that is told
BLOCKS = 40  # a launch is cut into this many blocks at most, to look for drift
DRIFT_Z = 3.29  # two-sided, 99.9 %
VALLEY = 0.07  # chance of such an empty valley between two modes in a flat distribution; with one mode it is far rarer

Basis = Literal["launches", "launches of the run", "within one launch", "range"]
Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and its interval, in the samples' unit.

    `basis` says what the interval covers: "launches", the median of another launch too; "launches of the run", the same
    for a cell of one launch, from the scatter of the run's other cells; "within one launch", only the median of that
    launch; "range", the least and the greatest sample, because there are too few. `level` is None if it is not known.
    `freedom` are the degrees of freedom of Student's t behind it; None if it comes from no t.
    """

    median: float
    lo: float
    hi: float
    level: float | None
    basis: Basis
    freedom: float | None = None

    @property
    def stated(self) -> bool:
        """Whether it is an interval of a stated level. A range is none."""
        return self.level is not None and self.basis != "range"


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
    launches: Sequence[Sequence[float]],
    *,
    prior: Prior | None = None,
    middle: float | None = None,
    level: float = CONFIDENCE,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """The median of the launches' medians, and its interval.

    The interval over launches is symmetric on the log scale, and the wider of two:

    - The standard error of the median of L launches, √(s² c / L), times Student's t. s² is the variance of the
      logarithms of the launches' medians, with L - 1 degrees of freedom; with `prior` it is moderated by the other
      cells of the run (`moderation.spread_of`). c is the variance of a normal sample's median over that of its mean
      (`median_factor`). If the launches are at two levels, the interval is at least a pair of the launches' order
      statistics.
    - Resample the independent samples within launches (`effective_samples`): the standard deviation of the log median,
      times the normal quantile. So launches that agree by chance do not seem exact.

    The scatter of launches contains the noise of samples; adding both would count it twice. A cell of one launch has no
    scatter of its own: it takes that of the prior, and adds the noise of its samples in quadrature. Without a prior its
    interval is a pair of order statistics at its effective number of samples, or the range if these are too few (six at
    95 %). The level of a range is known only if the samples are independent.

    Args:
        launches: samples of each launch in order, ms, all positive.
        prior: what the run says of the scatter of launches; None for a cell by itself.
        middle: the figure that the interval is about, if it is not the median of the medians.
        level: of the interval, between 0 and 1.
        draws, seed: of the resampling; the same input gives the same interval.

    Raises: ValueError for no launch, a launch without samples, or a sample that is not positive and finite.
    """
    series = [_series(launch) for launch in launches]
    if not series:
        raise ValueError("an interval needs at least one launch")
    if any((launch <= 0).any() for launch in series):
        raise ValueError("an interval needs positive samples")
    if len(series) == 1 and prior is None:
        return _within(series[0], level)
    middle = float(np.median([np.median(launch) for launch in series])) if middle is None else middle
    logs = np.log([np.median(launch) for launch in series])
    spread = spread_of(logs, prior)
    count = len(series)
    between = (spread.variance * median_factor(count) / count) ** 0.5 * quantile(spread.freedom, level)
    if spread.own and two_levels(logs):
        rank, _ = _rank(count, level)
        between = max(between, *np.abs(np.sort(logs)[[rank, count - 1 - rank]] - np.median(logs)))
    within = _sample_error(series, draws, seed) * quantile(np.inf, level)
    half = max(between, within) if count > 1 else float(np.hypot(between, within))
    ends = middle * float(np.exp(-half)), middle * float(np.exp(half))
    return Interval(middle, *ends, level, "launches" if count > 1 else "launches of the run", spread.freedom)


def run_prior(cells: Sequence[Sequence[Sequence[float]]]) -> Prior | None:
    """What the cells of one run, each with its launches' samples, say of the scatter of launches; see `prior_of`."""
    return prior_of([np.log([np.median(launch) for launch in launches]) for launches in cells if len(launches) > 1])


def median_factor(count: int) -> float:
    """The variance of the median of `count` normal values over that of their mean; π/2 for very many.

    The first are exact (Dixon and Massey 1957 tabulate their reciprocals, as efficiencies); beyond them an expansion in
    1 / count is right to 1 %.
    """
    if count <= len(_MEDIAN_FACTORS):
        return _MEDIAN_FACTORS[count - 1]
    return float(np.pi / 2 * (1 - (0.43 if count % 2 else 1.28) / count))


_MEDIAN_FACTORS = (1.0, 1.0, 1.346, 1.193, 1.434, 1.288, 1.473, 1.346, 1.495, 1.383)  # of 1 to 10 values


def ratio(one: Interval, other: Interval) -> Interval:
    """One over other, and its 95 % interval; both must be positive.

    Symmetric on the log scale: each interval gives a standard error by the quantile of its level, Student's t with its
    degrees of freedom or the normal one, and they add in quadrature. The degrees of freedom of the sum are those of
    Welch and Satterthwaite. If the level of either is not known, the interval has the widest ends that are possible,
    and no known level.
    """
    middle = one.median / other.median
    if not (one.stated and other.stated):
        return Interval(middle, one.lo / other.hi, one.hi / other.lo, None, "range")
    known = [np.inf if of.freedom is None else of.freedom for of in (one, other)]
    errors = [
        float(np.log(of.hi / of.lo) / 2 / quantile(freedom, of.level or CONFIDENCE))
        for of, freedom in zip((one, other), known, strict=True)
    ]
    freedom = welch(errors, known)
    half = float(np.hypot(*errors)) * quantile(freedom, CONFIDENCE)
    bases = {one.basis, other.basis}
    basis: Basis = next((b for b in _WEAKEST if b in bases), "launches")
    ends = middle * float(np.exp(-half)), middle * float(np.exp(half))
    return Interval(middle, *ends, CONFIDENCE, basis, None if np.isinf(freedom) else freedom)


_WEAKEST: tuple[Basis, ...] = ("within one launch", "launches of the run")


def welch(errors: Sequence[float], freedoms: Sequence[float]) -> float:
    """The degrees of freedom of a sum of independent errors, by Welch and Satterthwaite; infinite of exact ones."""
    squares = [error**2 for error in errors]
    below = sum(square**2 / freedom for square, freedom in zip(squares, freedoms, strict=True))
    return float(sum(squares) ** 2 / below) if below else min(freedoms, default=np.inf)


def quantile(freedom: float, level: float) -> float:
    """How many standard errors an interval of that level reaches to either side."""
    tail = (1 + level) / 2
    return float(ndtri(tail) if np.isinf(freedom) else stdtrit(freedom, tail))


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


@lru_cache(maxsize=16)
def least_samples(share: float) -> int:
    """The fewest samples that can tell a percentile, as 0.99: 64 for the 90th, 662 for the 99th.

    With 99 % chance at least two of so many independent samples lie beyond the true percentile, so that the figure does
    not hang on one extreme sample. It is the rule of Wilks (1942) for both extremes.
    """
    count = 2
    while bdtr(1, count, min(share, 1 - share)) > 1 - WILKS:
        count += 1
    return count


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


def _sample_error(series: Sequence[Samples], draws: int, seed: int) -> float:
    """The standard deviation of the log median of medians, if the independent samples within launches are resampled.

    With fewer than six independent samples in the only launch, the range stands for it at least.
    """
    random = np.random.default_rng(seed)
    logs = [np.sort(np.log(launch)) for launch in series]
    worth = [effective_samples(launch) for launch in series]
    # The median of m resampled values is the value at a rank that is Beta-distributed with (m + 1) / 2 twice.
    kept = [
        np.interp(random.beta((n + 1) / 2, (n + 1) / 2, draws) * (len(launch) - 1), np.arange(len(launch)), launch)
        for launch, n in zip(logs, worth, strict=True)
    ]
    error = float(np.median(kept, axis=0).std())
    if len(series) == 1 and worth[0] < FEWEST_RANKED:
        error = max(error, float(logs[0][-1] - logs[0][0]) / 2 / float(ndtri((1 + CONFIDENCE) / 2)))
    return error


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
