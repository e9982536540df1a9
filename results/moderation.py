"""The scatter of launches, moderated over the cells of a run. Pure; variances are of the log of a launch's median.

A few launches tell a cell's own variance badly. The cells of one run share machine and hour, so each one's variance is
moved towards that of the others, by as much as all of them together say that they are alike. Smyth (2004), "Linear
models and empirical Bayes methods for assessing differential expression", equations 6 to 8; limma's `fitFDist`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, polygamma, psi

BEYOND = 0.01  # the chance of a variance so great, if the cell were like the others, below which it keeps its own
FLOOR = 1e-5  # the least variance, as a share of the middle one: the logarithm of 0 is no number (limma's offset)

Floats = NDArray[np.float64]


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

    def apart(self, variance: float, freedom: float) -> bool:
        """Whether a cell's launches scatter beyond those of the others (F test at 1 %), as bimodal launches do."""
        return _chance(self, variance, freedom) < BEYOND

    def posterior(self, variance: float, freedom: float) -> tuple[float, float]:
        """The moderated variance of a cell and its degrees of freedom. A cell that is `apart` keeps its own.

        Args:
            variance: of the cell's own launches.
            freedom: their number less one; 0 if the cell has one launch, and no variance.
        """
        if freedom > 0 and self.apart(variance, freedom):
            return variance, freedom
        if np.isinf(self.freedom):
            return self.variance, self.pooled
        total = self.freedom + freedom
        return (self.freedom * self.variance + freedom * variance) / total, min(total, self.pooled)


def prior_of(variances: Sequence[float], freedoms: Sequence[float]) -> Prior | None:
    """The prior of cells with these variances and degrees of freedom; None without a cell.

    Cells that scatter beyond the rest are put aside, the worst first, as long as half of the cells are left.
    """
    own, freedom = np.asarray(variances, np.float64), np.asarray(freedoms, np.float64)
    own, freedom = own[freedom > 0], freedom[freedom > 0]
    if not len(own):
        return None
    own = np.maximum(own, FLOOR * float(np.median(own)))
    kept = np.ones(len(own), bool)
    while kept.sum() > max(2, (len(own) + 1) // 2):
        chances = np.ones(len(own))
        for cell in np.flatnonzero(kept):
            others = kept.copy()
            others[cell] = False
            chances[cell] = _chance(_fit(own[others], freedom[others]), own[cell], freedom[cell])
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


def _chance(prior: Prior, variance: float, freedom: float) -> float:
    """The chance of so great a variance in a cell that is like the others."""
    if prior.variance <= 0:
        return 0.0 if variance > 0 else 1.0
    over = variance / prior.variance
    if np.isinf(prior.known):
        return float(chdtrc(freedom, freedom * over))
    return float(fdtrc(freedom, prior.known, over))
