"""Statistics of a cell: its median with an interval. Pure; samples in ms.

A cell is measured in launches. A launch is a fresh process, and gives samples in the order of measuring. Samples of one
launch are not independent, and launches differ by more than their samples show (addresses, clocks, neighbours): the
launch is the unit that is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot
from typing import Literal

import numpy as np
from scipy.special import bdtr, ndtri, stdtrit  # scipy.stats takes longer to import than a launch to start

from vbench.results.moderation import Prior, Spread, prior_of, spreads_of, two_levels
from vbench.results.resampling import DRAWS, SEED, errors
from vbench.results.series import Samples, by_length, each, effective, series_of
from vbench.results.series import medians as medians_of

CONFIDENCE = 0.95
# What all launches of a run share, the minutes in which they ran, as a variance over that of a launch: so they never
# count as more than four. Equal sweeps differ by so much more than their launches tell (docs/measuring.md).
SHARED = 0.25
WILKS = 0.99  # the chance that two samples at least lie beyond a percentile that is told

Basis = Literal["launches", "launches of the run", "within one launch", "range"]


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
    ordered = np.sort(series_of(samples))
    n = len(ordered)
    rank, coverage = _rank(n, CONFIDENCE)
    return float(np.median(ordered)), float(ordered[rank]), float(ordered[n - 1 - rank]), coverage


def interval(
    launches: Sequence[Sequence[float]],
    *,
    prior: Prior | None = None,
    middle: float | None = None,
    level: float = CONFIDENCE,
    shared: float = SHARED,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Interval:
    """The median of the launches' medians, and its interval.

    The interval over launches is symmetric on the log scale, and the wider of two:

    - The standard error of the median of L launches, √(s² (c / L + `shared`)), times Student's t. s² is the variance
      of the logarithms of the launches' medians, with L - 1 degrees of freedom; with `prior` it is moderated by the
      other cells of the run (`moderation.spread_of`). c is the variance of a normal sample's median over that of its
      mean (`median_factor`). If the launches are at two levels, the interval is at least a pair of the launches' order
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
        shared: the variance that all launches share, over that of a launch; 0 for launches of different hours.
        draws, seed: of the resampling; the same input gives the same interval.

    Raises: ValueError for no launch, a launch without samples, or a sample that is not positive and finite.
    """
    return intervals([launches], [prior], [middle], level=level, shared=shared, draws=draws, seed=seed)[0]


def intervals(
    cells: Sequence[Sequence[Sequence[float] | Samples]],
    priors: Sequence[Prior | None],
    middles: Sequence[float | None] | None = None,
    *,
    level: float = CONFIDENCE,
    shared: float = SHARED,
    draws: int = DRAWS,
    seed: int = SEED,
) -> list[Interval]:
    """`interval` of each cell, with its prior, and its middle if it has one. The same figures, computed together.

    Raises: ValueError as `interval`, if any cell has a fault.
    """
    flat = [np.asarray(launch, np.float64) for launches in cells for launch in launches]
    if any(len(launches) == 0 for launches in cells):
        raise ValueError("an interval needs at least one launch")
    medians, worth = np.empty(len(flat)), np.empty(len(flat))
    ordered: list[Samples] = [np.empty(0)] * len(flat)
    for places, rows in by_length(flat):
        if not rows.shape[1]:
            raise ValueError("a launch needs at least one sample")
        if not (rows > 0).all() or not np.isfinite(rows).all():
            raise ValueError("an interval needs positive, finite samples")
        medians[places], worth[places] = medians_of(rows), effective(rows)
        for place, logs in zip(places.tolist(), np.sort(np.log(rows), axis=1), strict=True):
            ordered[place] = logs
    starts = np.concatenate([[0], np.cumsum([len(launches) for launches in cells])]).astype(int).tolist()
    found: list[Interval | None] = [None] * len(cells)
    several: list[int] = []
    for place, prior in enumerate(priors):
        if starts[place + 1] - starts[place] == 1 and prior is None:
            found[place] = _within(flat[starts[place]], level)
        else:
            several.append(place)
    parts = [slice(starts[place], starts[place + 1]) for place in several]
    every = np.log(medians)
    scattered = [every[part] for part in parts]
    spreads = spreads_of(scattered, [priors[place] for place in several])
    between = _between(scattered, spreads, level, shared)
    normal = quantile(np.inf, level)
    needless = [half / normal if part.stop - part.start > 1 else 0.0 for half, part in zip(between, parts, strict=True)]
    within = errors([ordered[p] for p in parts], [worth[p] for p in parts], np.array(needless), draws, seed) * normal
    halves = np.array(
        [
            hypot(own, noise) if part.stop - part.start == 1 else max(own, noise)
            for own, noise, part in zip(between, within.tolist(), parts, strict=True)
        ]
    )
    usual = each([medians[part] for part in parts], medians_of).tolist()
    down, up = np.exp(-halves).tolist(), np.exp(halves).tolist()
    for number, (place, part) in enumerate(zip(several, parts, strict=True)):
        known = middles[place] if middles else None
        middle = usual[number] if known is None else known
        basis: Basis = "launches of the run" if part.stop - part.start == 1 else "launches"
        ends = middle * down[number], middle * up[number]
        found[place] = Interval(middle, *ends, level, basis, spreads[number].freedom)
    return [one for one in found if one is not None]


def _between(cells: Sequence[Samples], spreads: Sequence[Spread], level: float, shared: float) -> list[float]:
    """Half the interval of each cell on the log scale, from the scatter of its launches."""
    halves = []
    for logs, spread in zip(cells, spreads, strict=True):
        count = len(logs)
        half = (spread.variance * (median_factor(count) / count + shared)) ** 0.5 * quantile(spread.freedom, level)
        if spread.own and two_levels(logs):
            rank, _ = _rank(count, level)
            half = max(half, *np.abs(np.sort(logs)[[rank, count - 1 - rank]] - np.median(logs)))
        halves.append(float(half))
    return halves


def run_prior(cells: Sequence[Sequence[Sequence[float]]]) -> Prior | None:
    """What the cells of one run, each with its launches' samples, say of the scatter of launches; see `prior_of`."""
    several = [launches for launches in cells if len(launches) > 1]
    medians = each([np.asarray(launch, np.float64) for launches in several for launch in launches], medians_of)
    ends = np.cumsum([len(launches) for launches in several])[:-1]
    return prior_of(np.split(np.log(medians), ends) if several else [])


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
    half = hypot(*errors) * quantile(freedom, CONFIDENCE)
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


@lru_cache(maxsize=4096)
def quantile(freedom: float, level: float) -> float:
    """How many standard errors an interval of that level reaches to either side."""
    tail = (1 + level) / 2
    return float(ndtri(tail) if np.isinf(freedom) else stdtrit(freedom, tail))


def effective_samples(samples: Sequence[float] | Samples) -> float:
    """How many independent samples would give the median as exactly; between 1 and the number of samples.

    See `series.effective`, which tells it of many series. Raises: ValueError without samples.
    """
    return float(effective(series_of(samples)[None])[0])


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
