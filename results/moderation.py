"""The scatter of launches, moderated over the cells of a run. Pure; scatter is that of the log of a launch's median.

A few launches tell a cell's own variance badly. The cells of one run share machine and hour, so each one's variance is
moved towards that of the others, by as much as all of them together say that they are alike. Smyth (2004), "Linear
models and empirical Bayes methods for assessing differential expression", equations 6 to 8; limma's `fitFDist`.
The lengths of calls play no part: in the twenty sweeps of `results/calibration` scatter has no trend in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, polygamma, psi

BEYOND = 0.01  # the chance of a variance so great, if the cell were like the others, below which it keeps its own
FLOOR = 1e-5  # the least variance, as a share of the middle one: the logarithm of 0 is no number (limma's offset)
TWO_LEVELS = 5  # launches, at least, that can show two levels

Floats = NDArray[np.float64]


class Spread(NamedTuple):
    """The variance of a cell's launches, its degrees of freedom, and whether it is the cell's own, not moderated."""

    variance: float
    freedom: float
    own: bool


@dataclass(frozen=True, slots=True)
class Prior:
    """What the cells of a run say of the variance of a cell's launches.

    `variance` is known as if from `freedom` degrees of freedom; infinite if the cells differ no more than by chance.
    `pooled` are the degrees of freedom of all its cells: no variance can be known better than from all of them.
    """

    variance: float
    freedom: float
    pooled: float

    @property
    def known(self) -> float:
        """The degrees of freedom with which a cell without own scatter knows its variance."""
        return min(self.freedom, self.pooled)

    def chance(self, variance: float, freedom: float) -> float:
        """The chance of so great a variance in a cell that is like the others, by an F test."""
        if self.variance <= 0:
            return 0.0 if variance > 0 else 1.0
        over = variance / self.variance
        if np.isinf(self.known):
            return float(chdtrc(freedom, freedom * over))
        return float(fdtrc(freedom, self.known, over))


def spread_of(medians: Sequence[float] | Floats, prior: Prior | None) -> Spread:
    """The variance of a cell from the logarithms of its launches' medians, moderated by a prior.

    A cell keeps its own variance if there is no prior, if its launches are at two levels (`two_levels`), or if they
    scatter beyond the prior (F test, 1 %). A cell of one launch has the variance of the prior.

    Raises: ValueError for one launch without a prior.
    """
    freedom = len(medians) - 1.0
    if freedom == 0:
        if prior is None:
            raise ValueError("one launch has no scatter")
        return moderated(0.0, 0.0, prior)
    variance = float(np.var(medians, ddof=1))
    if prior is None or two_levels(medians):
        return Spread(variance, freedom, own=True)
    return moderated(variance, freedom, prior)


def moderated(variance: float, freedom: float, prior: Prior) -> Spread:
    """A variance moderated by a prior, unless it is beyond it (F test, 1 %). Without freedom it is the prior's."""
    if freedom == 0:
        return Spread(prior.variance, prior.known, own=False)
    if prior.chance(variance, freedom) < BEYOND:
        return Spread(variance, freedom, own=True)
    if np.isinf(prior.freedom):
        return Spread(prior.variance, max(prior.pooled, freedom), own=False)
    total = prior.freedom + freedom
    middle = (prior.freedom * prior.variance + freedom * variance) / total
    return Spread(middle, min(total, max(prior.pooled, freedom)), own=False)


def two_levels(medians: Sequence[float] | Floats) -> bool:
    """Whether launches are at two levels, with two launches or more at each; never with fewer than five.

    Of all splits the best leaves a share of the sum of squares within its two parts. Normal launches leave less than
    the bound in 5 of 100 cases (3 with five launches); it is fitted to 200,000 draws for each of 5 to 40 launches, and
    for very many launches it is 1 - 2/π.
    """
    ordered = np.sort(np.asarray(medians, np.float64))
    count = len(ordered)
    if count < TWO_LEVELS:
        return False
    centred = ordered - ordered.mean()
    total = float(centred @ centred)
    lower = np.arange(2, count - 1)
    between = np.cumsum(centred)[lower - 1] ** 2 * count / (lower * (count - lower))
    bound = (1 - 2 / np.pi) * (1 - 2.18 * count**-0.547)
    return total > 0 and 1 - float(between.max()) / total < bound


def prior_of(cells: Sequence[Sequence[float] | Floats]) -> Prior | None:
    """The prior of the cells of a run, each the logarithms of its launches' medians; None if each has one launch.

    Cells at two levels are left out, if there are others; then as `prior_of_variances`.
    """
    several = [np.asarray(cell, np.float64) for cell in cells if len(cell) > 1]
    several = [cell for cell in several if not two_levels(cell)] or several
    return prior_of_variances([float(cell.var(ddof=1)) for cell in several], [len(cell) - 1.0 for cell in several])


def prior_of_variances(variances: Sequence[float], freedoms: Sequence[float]) -> Prior | None:
    """The prior of variances with these degrees of freedom; None if none has any.

    Those beyond the rest are put aside, the worst first, as long as half of them are left.
    """
    freedom = np.asarray(freedoms, np.float64)
    own, freedom = np.asarray(variances, np.float64)[freedom > 0], freedom[freedom > 0]
    if not len(own):
        return None
    own = np.maximum(own, FLOOR * float(np.median(own)))
    kept = np.ones(len(own), bool)
    while kept.sum() > max(2, (len(own) + 1) // 2):
        chances = np.ones(len(own))
        for cell in np.flatnonzero(kept):
            others = kept.copy()
            others[cell] = False
            chances[cell] = _fit(own[others], freedom[others]).chance(own[cell], freedom[cell])
        worst = int(np.argmin(chances))
        if chances[worst] >= BEYOND:
            break
        kept[worst] = False
    return _fit(own[kept], freedom[kept])


def _fit(variances: Floats, freedoms: Floats) -> Prior:
    """By the moments of the logarithms: log s² is spread by its own degrees of freedom, and by those of the prior."""
    pooled = float(freedoms.sum())
    mean = float(freedoms @ variances) / pooled
    if len(variances) < 2 or not (variances > 0).all():
        return Prior(mean, np.inf, pooled)
    centred = np.log(variances) - psi(freedoms / 2) + np.log(freedoms / 2)
    excess = float(centred.var(ddof=1) - polygamma(1, freedoms / 2).mean())
    if excess <= 0:
        return Prior(mean, np.inf, pooled)
    freedom = 2 * _inverse_trigamma(excess)
    middle = float(centred.mean() + psi(freedom / 2) - np.log(freedom / 2))
    return Prior(float(np.exp(middle)), freedom, pooled)


def _inverse_trigamma(value: float) -> float:
    """x for which trigamma(x) = value > 0, by Newton's method on 1 / trigamma, which is convex."""
    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x += step
        if abs(step) < 1e-10 * x:
            break
    return x
