"""The scatter of launches, moderated over a run: intervals are narrower, and hold the median as often as they state."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vbench.results.moderation import prior_of, spread_of, two_levels
from vbench.results.statistics import Interval, interval, median_factor, run_prior

Floats = NDArray[np.float64]


def intervals(cells: Floats) -> list[Interval]:
    """The intervals of the cells of a run, from the logs of their launches' medians; a launch has one sample."""
    run = [[[float(np.exp(one))] for one in cell] for cell in cells]
    prior = run_prior(run)
    return [interval(launches, prior=prior, draws=2) for launches in run]


def two_modes(random: np.random.Generator, launches: int) -> Floats:
    """Launches of which 30 % are at a level 65 % above the others."""
    return np.asarray(random.normal(0, 0.03, launches) + 0.5 * (random.random(launches) < 0.3))


@pytest.mark.parametrize("count", [4, 14])
def test_intervals_hold_the_median_as_often_as_they_state_and_are_narrow(count: int) -> None:
    """Eight launches that scatter by 10 %, and minutes that they share by 5 %, in 100 sweeps or more."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(1200 // count):
        found += intervals(random.normal(0, 0.1, (count, 8)) + random.normal(0, 0.05, (count, 1)))
    assert np.mean([one.lo <= 1 <= one.hi for one in found]) >= 0.935
    assert np.median([np.log(one.hi / one.median) for one in found]) < 0.14  # 0.152 by each cell's own t
    assert all(one.lo * one.hi == pytest.approx(one.median**2) for one in found)


@pytest.mark.parametrize("many", [1, 7, 14])
def test_launches_at_two_levels_are_covered_and_do_not_spoil_the_others(many: int) -> None:
    random = np.random.default_rng(2)
    truth = float(np.exp(np.median(two_modes(random, 1_000_000))))
    odd, rest = [], []
    for _ in range(50):
        cells = random.normal(0, 0.1, (14, 8))
        cells[:many] = [two_modes(random, 8) for _ in range(many)]
        found = intervals(cells)
        odd += [one.lo <= truth <= one.hi for one in found[:many]]
        rest += found[many:]
    assert np.mean(odd) >= 0.93
    if rest:
        assert np.mean([one.lo <= 1 <= one.hi for one in rest]) >= 0.93
        assert np.median([np.log(one.hi / one.median) for one in rest]) < 0.17


def test_two_levels_are_rare_in_ordinary_launches() -> None:
    random = np.random.default_rng(3)
    for launches in (5, 8, 20):
        assert np.mean([two_levels(random.normal(0, 0.1, launches)) for _ in range(800)]) <= 0.065
    assert not two_levels([0.0, 0.0, 0.0, 1.0])
    assert not two_levels([0.0] * 8)
    assert not two_levels([0.0] * 7 + [1.0])  # one launch alone does not move the median
    assert two_levels([0.0, 0.01, 0.02, 0.01, 0.0, 1.0, 1.01, 0.99])


def test_the_prior_finds_what_the_variances_were_drawn_from() -> None:
    """300 cells with variances about 0.01 as from 8 degrees of freedom, each seen in 6 launches."""
    random = np.random.default_rng(4)
    variances = 0.01 * 8 / random.chisquare(8, 300)
    found = prior_of(random.normal(0, np.sqrt(variances)[:, None], (300, 6)))
    assert found is not None
    assert found.variance == pytest.approx(0.01, rel=0.15)
    assert found.freedom == pytest.approx(8, rel=0.4)
    assert found.known <= found.pooled


def test_cells_that_differ_by_chance_alone_share_one_variance() -> None:
    cells = np.array([[-1.0, 0.0, 1.0], [-1.1, 0.0, 1.1], [-0.9, 0.0, 0.9]])
    found = prior_of(cells)
    assert found is not None
    assert np.isinf(found.freedom)
    assert found.known == found.pooled == 6
    spread = spread_of(cells[1], found)
    assert (spread.variance, spread.freedom) == (found.variance, 6)


def test_a_cell_by_itself_has_its_own_variance_and_t() -> None:
    cell = [0.0, 0.1, 0.3]
    alone = spread_of(cell, prior_of([cell]))
    assert (alone.variance, alone.freedom) == (pytest.approx(np.var(cell, ddof=1)), 2)
    assert prior_of([[0.1]]) is None
    with pytest.raises(ValueError, match="one launch"):
        spread_of([0.1], None)


def test_a_cell_of_one_launch_takes_the_scatter_of_the_run() -> None:
    random = np.random.default_rng(5)
    prior = prior_of(random.normal(0, 0.1, (6, 8)))
    assert prior is not None
    quiet = list(10 * (1 + 0.001 * random.standard_normal(50)))
    found = interval([quiet], prior=prior)
    assert (found.basis, found.level) == ("launches of the run", 0.95)
    assert 0.12 < np.log(found.hi / found.median) < 0.35
    assert interval([quiet]).basis == "within one launch"
    wide = interval([[5.0, 20.0]], prior=prior)  # too few samples to tell their noise: the range at least
    assert wide.hi / wide.lo > 4


def test_the_factor_of_a_median_is_that_of_normal_draws() -> None:
    random = np.random.default_rng(6)
    for count in (1, 2, 3, 4, 5, 8, 10, 11, 12, 20, 33):
        drawn = random.standard_normal((60_000, count))
        assert median_factor(count) == pytest.approx(np.median(drawn, axis=1).var() * count, rel=0.03)
