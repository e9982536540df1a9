"""The scatter of launches, moderated over the cells of a run. Pure; scatter is that of the log of a launch's median.

A few launches tell a cell's own variance badly. The cells of one run share machine and hour, so each one's variance is
moved towards that of the others, by as much as all of them together say that they are alike. Smyth (2004), "Linear
models and empirical Bayes methods for assessing differential expression", equations 6 to 8; limma's `fitFDist`.
The lengths of calls play no part: in the twenty sweeps of `results/calibration` scatter has no trend in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, fdtrc, polygamma, psi

from vbench.results.series import by_length

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
        return float(_chances(np.array([variance]), freedom, self.variance, self.known)[0])


def _chances(variance: Floats, freedom: float, usual: float, known: float) -> Floats:
    """(cells,) the chance of each variance, of this freedom, beside a usual one that is known with `known` freedom."""
    if usual <= 0:
        return np.where(variance > 0, 0.0, 1.0)
    found: Floats
    if np.isinf(known):
        found = chdtrc(freedom, freedom * (variance / usual))
    else:
        found = fdtrc(freedom, known, variance / usual)
    return found


def spread_of(medians: Sequence[float] | Floats, prior: Prior | None) -> Spread:
    """The variance of a cell from the logarithms of its launches' medians, moderated by a prior.

    A cell keeps its own variance if there is no prior, if its launches are at two levels (`two_levels`), or if they
    scatter beyond the prior (F test, 1 %). A cell of one launch has the variance of the prior.

    Raises: ValueError for one launch without a prior.
    """
    return spreads_of([np.asarray(medians, np.float64)], [prior])[0]


def spreads_of(cells: Sequence[Floats], priors: Sequence[Prior | None]) -> list[Spread]:
    """`spread_of` of each cell, with its prior; the same figures, computed together. Raises: as `spread_of`."""
    found: list[Spread | None] = [None] * len(cells)
    alike: dict[tuple[int, int], list[int]] = {}
    for place, (medians, prior) in enumerate(zip(cells, priors, strict=True)):
        alike.setdefault((len(medians), id(prior)), []).append(place)
    for (count, _), places in alike.items():
        prior, freedom = priors[places[0]], count - 1.0
        if freedom == 0:
            if prior is None:
                raise ValueError("one launch has no scatter")
            of_run = moderated(0.0, 0.0, prior)
            for place in places:
                found[place] = of_run
            continue
        rows = np.array([cells[place] for place in places])
        variances = rows.var(axis=1, ddof=1)
        own = np.ones(len(places), bool) if prior is None else _two_levels(rows)
        if prior is not None:
            own |= _chances(variances, freedom, prior.variance, prior.known) < BEYOND
        for place, variance, alone in zip(places, variances.tolist(), own.tolist(), strict=True):
            one = Spread(variance, freedom, own=True)
            found[place] = one if alone or prior is None else _moved(variance, freedom, prior)
    return [spread for spread in found if spread is not None]


def moderated(variance: float, freedom: float, prior: Prior) -> Spread:
    """A variance moderated by a prior, unless it is beyond it (F test, 1 %). Without freedom it is the prior's."""
    if freedom == 0:
        return Spread(prior.variance, prior.known, own=False)
    if prior.chance(variance, freedom) < BEYOND:
        return Spread(variance, freedom, own=True)
    return _moved(variance, freedom, prior)


def _moved(variance: float, freedom: float, prior: Prior) -> Spread:
    """A variance moved towards that of the prior."""
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
    return bool(_two_levels(np.asarray(medians, np.float64)[None])[0])


def _two_levels(rows: Floats) -> NDArray[np.bool_]:
    """(cells,) `two_levels` of each row: (cells, launches)."""
    count = rows.shape[1]
    if count < TWO_LEVELS:
        return np.zeros(len(rows), bool)
    ordered = np.sort(rows, axis=1)
    centred = ordered - ordered.mean(axis=1, keepdims=True)
    total = np.einsum("ij,ij->i", centred, centred)
    lower = np.arange(2, count - 1)
    between = np.cumsum(centred, axis=1)[:, lower - 1] ** 2 * count / (lower * (count - lower))
    bound = (1 - 2 / np.pi) * (1 - 2.18 * count**-0.547)
    found: NDArray[np.bool_] = (total > 0) & (1 - between.max(axis=1) / np.where(total > 0, total, 1.0) < bound)
    return found


class Scatter(NamedTuple):
    """What cells with several launches say of their scatter: (cells,) each."""

    variances: Floats
    freedoms: Floats
    one_level: NDArray[np.bool_]  # not at two levels (`two_levels`)


def scatter_of(cells: Sequence[Sequence[float] | Floats]) -> Scatter:
    """The scatter of cells, each the logarithms of its launches' medians."""
    several = [np.asarray(cell, np.float64) for cell in cells if len(cell) > 1]
    variances, one_level = np.empty(len(several)), np.ones(len(several), bool)
    freedoms = np.fromiter(map(len, several), np.float64, len(several)) - 1
    for places, rows in by_length(several):
        variances[places], one_level[places] = rows.var(axis=1, ddof=1), ~_two_levels(rows)
    return Scatter(variances, freedoms, one_level)


def prior_of(cells: Sequence[Sequence[float] | Floats]) -> Prior | None:
    """The prior of the cells of a run, each the logarithms of its launches' medians; None if each has one launch."""
    return prior_of_parts([scatter_of(cells)])


def prior_of_parts(parts: Iterable[Scatter]) -> Prior | None:
    """The prior of a run from the scatter of its cells, in any number of parts and in any order.

    Cells at two levels are left out, if there are others; then as `prior_of_variances`.
    """
    variances, freedoms, one_level = map(np.concatenate, zip(*parts, strict=True))
    kept = np.flatnonzero(one_level if one_level.any() else ~one_level)
    kept = kept[np.lexsort((variances[kept], freedoms[kept]))]
    return prior_of_variances(variances[kept], freedoms[kept])


def prior_of_variances(variances: Sequence[float] | Floats, freedoms: Sequence[float] | Floats) -> Prior | None:
    """The prior of variances with these degrees of freedom; None if none has any.

    Those beyond the rest are put aside, the worst first, as long as half of them are left.
    """
    freedom = np.asarray(freedoms, np.float64)
    own, freedom = np.asarray(variances, np.float64)[freedom > 0], freedom[freedom > 0]
    if not len(own):
        return None
    own = np.maximum(own, FLOOR * float(np.median(own)))
    kept = np.ones(len(own), bool)
    for worst in _beyond(own, freedom):
        kept[worst] = False
    return _fit(own[kept], freedom[kept])


def _beyond(own: Floats, freedom: Floats) -> Iterator[int]:
    """The cells to put aside, the worst first.

    Each time it is the cell with the least chance beside the prior of the others. Of cells with one freedom that is the
    one with the greatest variance, so only these are tried; the moments of the others are those of all without it.
    """
    sums = _Sums.of(own, freedom)
    turns = {
        of: iter((places := np.flatnonzero(freedom == of))[np.argsort(-own[places], kind="stable")].tolist())
        for of in np.unique(freedom).tolist()
    }
    first = {of: next(turn) for of, turn in turns.items()}
    for _ in range(len(own) - max(2, (len(own) + 1) // 2)):
        chances = {cell: sums.without(own[cell], of).prior().chance(float(own[cell]), of) for of, cell in first.items()}
        worst = min(chances, key=lambda cell: (chances[cell], cell))
        if chances[worst] >= BEYOND:
            return
        yield worst
        of = float(freedom[worst])
        sums = sums.without(own[worst], of)
        first[of] = next(turns[of], -1)
        if first[of] < 0:
            del first[of]


class _Sums(NamedTuple):
    """The sums over cells from which their prior follows: of logarithms about `zero`, as Fisher's z has them."""

    zero: float
    cells: int
    pooled: float
    squares: float
    logs: float
    logs_squared: float
    trigammas: float

    @staticmethod
    def of(variances: Floats, freedoms: Floats) -> _Sums:
        logs = np.log(variances) - psi(freedoms / 2) + np.log(freedoms / 2) if (variances > 0).all() else variances
        zero = float(logs.mean())
        logs = logs - zero
        trigammas = float(polygamma(1, freedoms / 2).sum())
        sums = float(freedoms.sum()), float(freedoms @ variances), float(logs.sum()), float(logs @ logs)
        return _Sums(zero, len(variances), *sums, trigammas)

    def without(self, variance: float, freedom: float) -> _Sums:
        """The sums without a cell."""
        log = float(np.log(variance) - psi(freedom / 2) + np.log(freedom / 2)) - self.zero if variance > 0 else 0.0
        sums = self.pooled - freedom, self.squares - freedom * variance, self.logs - log, self.logs_squared - log**2
        return _Sums(self.zero, self.cells - 1, *sums, self.trigammas - float(polygamma(1, freedom / 2)))

    def prior(self) -> Prior:
        mean = self.squares / self.pooled
        if self.cells < 2 or mean <= 0:
            return Prior(max(mean, 0.0), np.inf, self.pooled)
        spread = (self.logs_squared - self.logs**2 / self.cells) / (self.cells - 1)
        return _prior(mean, self.zero + self.logs / self.cells, spread - self.trigammas / self.cells, self.pooled)


def _fit(variances: Floats, freedoms: Floats) -> Prior:
    """By the moments of the logarithms: log s² is spread by its own degrees of freedom, and by those of the prior."""
    pooled = float(freedoms.sum())
    mean = float(freedoms @ variances) / pooled
    if len(variances) < 2 or not (variances > 0).all():
        return Prior(mean, np.inf, pooled)
    centred = np.log(variances) - psi(freedoms / 2) + np.log(freedoms / 2)
    excess = float(centred.var(ddof=1) - polygamma(1, freedoms / 2).mean())
    return _prior(mean, float(centred.mean()), excess, pooled)


def _prior(mean: float, centre: float, excess: float, pooled: float) -> Prior:
    """A prior from the moments: the mean variance, and the mean and the excess spread of the centred logarithms."""
    if excess <= 0:
        return Prior(mean, np.inf, pooled)
    freedom = 2 * _inverse_trigamma(excess)
    middle = float(centre + psi(freedom / 2) - np.log(freedom / 2))
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
