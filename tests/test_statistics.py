"""Intervals cover what they say they cover; each fault yields its own flag, and noise none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from fakes import faults
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import binom, t

from vbench.results.faults import judged
from vbench.results.series import series_of
from vbench.results.statistics import (
    Interval,
    effective_samples,
    interval,
    least_samples,
    median_interval,
    ratio,
)

Make = Callable[[np.random.Generator, int], NDArray[np.float64]]
positive = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=60)


def noise(
    random: np.random.Generator, n: int, spread: float, rho: float = 0.0, launches: int = 1
) -> NDArray[np.float64]:
    """AR(1) series of that standard deviation and correlation, one a launch."""
    steps = random.standard_normal((launches, n + 100))
    series = lfilter([(1 - rho**2) ** 0.5], [1, -rho], steps, axis=1)[:, 100:]
    return np.asarray(spread * series)


def outlier_count(launches: Sequence[Sequence[float]]) -> int:
    return sum(found.outliers for found in judged([series_of(launch) for launch in launches]) if found)


class TestMedianInterval:
    @given(positive)
    def test_agrees_with_numpy_and_with_the_binomial(self, samples: list[float]) -> None:
        median, lo, hi, coverage = median_interval(samples)
        assert median == pytest.approx(np.median(samples))
        assert lo <= median <= hi
        assert {lo, hi} <= set(samples)
        rank = sorted(samples).index(lo)
        if len(set(samples)) == len(samples):
            assert coverage == pytest.approx(max(0.0, 1 - 2 * binom.cdf(rank, len(samples), 0.5)))
            if len(samples) >= 6:
                narrower = 1 - 2 * binom.cdf(rank + 1, len(samples), 0.5)
                assert narrower < 0.95 <= coverage

    def test_few_samples_give_their_range(self) -> None:
        assert median_interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0, 0.75)
        assert median_interval([1.0]) == (1.0, 1.0, 1.0, 0.0)

    def test_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least one sample"):
            median_interval([])


class TestEffectiveSamples:
    @given(positive)
    def test_lies_between_one_and_their_number(self, samples: list[float]) -> None:
        assert 1 <= effective_samples(samples) <= len(samples)

    @pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9])
    def test_agrees_with_theory_on_ar1(self, rho: float) -> None:
        """The signs of a normal AR(1) series are correlated by 2/π · arcsin(ρ^lag)."""
        series = noise(np.random.default_rng(0), 500, 1.0, rho, launches=100)
        theory = 500 / (1 + 2 * sum(2 / np.pi * np.arcsin(rho**lag) for lag in range(1, 200)))
        assert np.mean([effective_samples(row) for row in series]) == pytest.approx(theory, rel=0.2)

    def test_outliers_do_not_hide_correlation(self) -> None:
        series = noise(np.random.default_rng(1), 400, 0.01, 0.9)[0]
        before = effective_samples(series)
        series[::50] += 10
        assert effective_samples(series) == pytest.approx(before, rel=0.5)

    def test_an_alternating_series_counts_in_full(self) -> None:
        assert effective_samples([1.0, 2.0] * 20) == 40


class TestInterval:
    @settings(max_examples=25, deadline=None)
    @given(st.lists(positive, min_size=1, max_size=5))
    def test_is_the_median_of_medians_between_its_ends(self, launches: list[list[float]]) -> None:
        found = interval(launches, draws=50)
        assert found.median == pytest.approx(np.median([np.median(launch) for launch in launches]))
        assert found.lo <= found.median * (1 + 1e-12)
        assert found.median <= found.hi * (1 + 1e-12)
        assert found == interval(launches, draws=50)

    def test_bases(self) -> None:
        several = interval([[1.0, 2.0], [1.5, 1.6]])
        assert (several.basis, several.level) == ("launches", 0.95)
        one = interval([list(np.random.default_rng(0).normal(10, 1, 50))])
        assert (one.basis, one.level) == ("within one launch", 0.95)
        few = interval([[1.0, 3.0, 2.0]])
        assert (few.lo, few.median, few.hi, few.basis, few.level) == (1.0, 2.0, 3.0, "range", 0.75)
        single = interval([[2.0]])
        assert (single.lo, single.hi, single.basis, single.level) == (2.0, 2.0, "range", None)
        slow_walk = interval([list(10 + np.sin(np.arange(200) / 60))])
        assert (slow_walk.basis, slow_walk.level) == ("range", None)  # 200 samples, worth fewer than six

    def test_of_one_launch_of_independent_samples_is_that_of_order_statistics(self) -> None:
        alternating = [10 + (-1) ** i * (1 + i / 7) for i in range(40)]
        found = interval([alternating])
        assert (found.median, found.lo, found.hi) == median_interval(alternating)[:3]

    def test_does_not_shrink_to_nothing_where_launches_agree_by_chance(self) -> None:
        samples = list(np.random.default_rng(0).lognormal(0, 0.1, 31))
        found = interval([samples, samples[::-1], samples])
        assert found.hi / found.lo > 1.02

    def test_sample_error_is_that_of_a_block_bootstrap(self) -> None:
        random = np.random.default_rng(5)
        series = np.exp(noise(random, 300, 0.05, 0.6)[0])
        found = interval([series, series, series], draws=4000)  # launches agree: only the samples' error is left
        starts = random.integers(0, 300 - 20 + 1, (1000, 3, 15))
        resampled = series[(starts[..., None] + np.arange(20)).reshape(1000, 3, 300)]
        blocks = np.log(np.median(np.median(resampled, axis=2), axis=1)).std()
        assert np.log(found.hi / found.median) / 1.96 == pytest.approx(blocks, rel=0.35)

    @pytest.mark.parametrize("count", [2, 3, 5])
    @pytest.mark.parametrize(("between", "n", "rho"), [(0.005, 60, 0.7), (0.05, 30, 0.3), (0.02, 4, 0.0)])
    def test_coverage(self, count: int, between: float, n: int, rho: float) -> None:
        """Launch effects of 0.5 to 5 %, correlated noise of 2 %, and 5 % of samples slower by 30 % on average."""
        random = np.random.default_rng(7)

        def cells(number: int, effect: float) -> NDArray[np.float64]:
            series = noise(random, n, 0.02, rho, launches=number) + effect * random.standard_normal((number, 1))
            slow = (random.random(series.shape) < 0.05) * random.exponential(0.3, series.shape)
            return np.asarray(np.exp(series + slow))

        truth = np.median(np.median(cells(8_000, 0.0), axis=1))
        trials = 150
        hits = 0
        for _ in range(trials):
            found = interval(list(cells(count, between)), draws=100)
            hits += found.lo <= truth <= found.hi
        assert hits / trials >= 0.93

    def test_the_least_and_greatest_of_three_launches_would_not_do(self) -> None:
        medians = np.random.default_rng(0).standard_normal((20_000, 3))
        covered = (medians.min(axis=1) < 0) & (medians.max(axis=1) > 0)
        assert covered.mean() == pytest.approx(0.75, abs=0.01)

    @pytest.mark.parametrize(
        ("launches", "what"),
        [([], "one launch"), ([[1.0], []], "one sample"), ([[0.0]], "positive"), ([[np.inf]], "finite")],
    )
    def test_what_cannot_be_is_refused(self, launches: list[list[float]], what: str) -> None:
        with pytest.raises(ValueError, match=what):
            interval(launches)


def shuffled(random: np.random.Generator, n: int, share: float, factor: float) -> NDArray[np.float64]:
    """n factors, of which that share is `factor` and the rest 1, in random order."""
    factors = np.ones(n)
    factors[: round(share * n)] = factor
    random.shuffle(factors)
    return factors


NOISES: dict[str, Make] = {
    "normal, 0.2 %": lambda random, n: 10 * (1 + noise(random, n, 0.002)[0]),
    "normal, 3 %": lambda random, n: 10 * (1 + noise(random, n, 0.03)[0]),
    "lognormal, 3 %": lambda random, n: 10 * np.exp(noise(random, n, 0.03)[0]),
    "AR(1) of 0.5, 3 %": lambda random, n: 10 * np.exp(noise(random, n, 0.03, 0.5)[0]),
}
FAULTS: dict[str, tuple[str, Make]] = {
    "a ramp of 5 %": ("drift", lambda random, n: np.linspace(1, 1.05, n)),
    "a ramp down": ("drift", lambda random, n: np.linspace(1.05, 1, n)),
    "a step half way": ("drift", lambda random, n: np.where(np.arange(n) < n // 2, 1.1, 1.0)),
    "half and half, in random order": ("bimodal", lambda random, n: shuffled(random, n, 0.5, 1.1)),
    "half and half, in turns": ("bimodal", lambda random, n: np.where(np.arange(n) % 2, 1.1, 1.0)),
    "one in five, slower": ("bimodal", lambda random, n: shuffled(random, n, 0.2, 1.1)),
    "one in five, faster": ("bimodal", lambda random, n: shuffled(random, n, 0.8, 1.1)),
    "3 % at three times": ("outliers", lambda random, n: shuffled(random, n, max(0.03, 2 / n), 3.0)),
}


SKEWED: dict[str, Make] = {
    **{f"gamma of {shape}": lambda random, n, shape=shape: random.gamma(shape, 1.0, n) for shape in (4, 8, 20)},  # type: ignore[misc]
    "lognormal, 10 %": lambda random, n: np.exp(noise(random, n, 0.1)[0]),
}


def test_percentiles_need_their_number_of_samples() -> None:
    """At least two samples beyond the percentile, with 99 % chance."""
    assert (least_samples(0.9), least_samples(0.1), least_samples(0.99)) == (64, 64, 662)
    assert binom.cdf(1, 64, 0.1) <= 0.01 < binom.cdf(1, 63, 0.1)


class TestFaults:
    @pytest.mark.parametrize("n", [12, 80])
    @pytest.mark.parametrize("name", NOISES)
    def test_noise_has_none(self, name: str, n: int) -> None:
        random = np.random.default_rng(11)
        trials = 100
        seen = Counter(flag for _ in range(trials) for flag in faults([NOISES[name](random, n)]))
        assert all(count <= 0.02 * trials for count in seen.values()), (
            seen
        )  # of 1000 of each, at n = 12, 50, 200: at most 0.9 %

    @pytest.mark.parametrize("n", [40, 150])
    @pytest.mark.parametrize("name", FAULTS)
    def test_each_fault_yields_its_own_flag_alone(self, name: str, n: int) -> None:
        flag, make = FAULTS[name]
        random = np.random.default_rng(13)
        trials = 25
        exact = sum(
            faults([20 * make(random, n) * np.exp(noise(random, n, 0.007)[0])]) == (flag,) for _ in range(trials)
        )
        assert exact >= 0.9 * trials

    @pytest.mark.parametrize("n", [30, 60, 150, 600])
    @pytest.mark.parametrize("name", SKEWED)
    def test_the_long_tail_of_ordinary_times_is_no_outlier(self, name: str, n: int) -> None:
        random = np.random.default_rng(17)
        assert sum("outliers" in faults([SKEWED[name](random, n)]) for _ in range(150)) <= 3

    @pytest.mark.parametrize("n", [30, 60, 150, 600])
    def test_calls_half_as_long_again_are_outliers(self, n: int) -> None:
        random = np.random.default_rng(18)
        found = [
            faults([shuffled(random, n, max(0.03, 2 / n), 1.5) * np.exp(noise(random, n, 0.03)[0])]) for _ in range(50)
        ]
        assert sum("outliers" in flags for flags in found) >= 45

    @pytest.mark.parametrize("n", [30, 60, 150])
    def test_slow_noise_is_no_drift_in_one_launch(self, n: int) -> None:
        random = np.random.default_rng(19)
        assert sum("drift" in faults([10 * np.exp(noise(random, n, 0.03, 0.9)[0])]) for _ in range(300)) <= 6

    def test_a_drift_of_5_percent_is_found_in_noise_of_2(self) -> None:
        random = np.random.default_rng(20)
        found = [faults([np.linspace(10, 10.5, 100) * np.exp(noise(random, 100, 0.02)[0])]) for _ in range(50)]
        assert sum("drift" in flags for flags in found) >= 45

    def test_faults_can_come_together(self) -> None:
        random = np.random.default_rng(0)
        series = (
            shuffled(random, 200, 0.5, 1.1) * shuffled(random, 200, 0.04, 3.0) * np.exp(noise(random, 200, 0.002)[0])
        )
        assert faults([series]) == ("bimodal", "outliers")
        assert outlier_count([series]) == 8

    def test_an_exact_clock_has_no_outliers(self) -> None:
        assert faults([[5.0] * 50]) == ()
        assert faults([[5.0] * 40 + [5.01] * 3]) == ()  # 0.2 % is no fault, however many deviations

    def test_fewer_than_ten_samples_show_nothing(self) -> None:
        assert faults([[1.0, 5.0, 1.0, 5.0, 1.0, 5.0, 1.0, 90.0, 1.0]]) == ()
        assert faults([]) == ()
        assert outlier_count([[1.0] * 8 + [90.0]]) == 0

    def test_a_fault_of_a_process_must_be_in_most_launches(self) -> None:
        random = np.random.default_rng(3)
        sound, drifting = (
            [10 * trend * np.exp(noise(random, 60, 0.003)[0]) for _ in range(3)]
            for trend in (1.0, np.linspace(1, 1.05, 60))
        )
        assert faults([*drifting[:1], *sound[:2]]) == ()
        assert faults([*drifting[:1], *sound[:1]]) == ()
        assert faults([*drifting[:2], *sound[:1]]) == ("drift",)
        assert faults([*drifting[:1], [1.0] * 5, [1.0] * 5]) == ("drift",)  # short launches have no vote

    def test_outliers_are_pooled(self) -> None:
        launches = [np.exp(noise(np.random.default_rng(i), 60, 0.003)[0]) for i in range(3)]
        launches[0][7] = 3.0
        assert faults(launches) == ()
        assert outlier_count(launches) == 1
        launches[2][9] = 3.0
        assert faults(launches) == ("outliers",)
        assert outlier_count(launches) == 2


class TestRatio:
    def test_holds_the_true_ratio_as_often_as_it_states(self) -> None:
        """95 % or more of 400 pairs of cells, three launches each."""
        random = np.random.default_rng(7)

        def cell(ms: float) -> Interval:
            launches = noise(random, 20, 0.02, launches=3) + random.normal(0, 0.05, (3, 1))
            return interval(list(ms * np.exp(launches)), draws=200)

        found = [ratio(cell(20.0), cell(10.0)) for _ in range(400)]
        assert sum(one.lo <= 2.0 <= one.hi for one in found) >= 380

    def test_of_exact_cells_is_exact(self) -> None:
        exact = Interval(20.0, 20.0, 20.0, 0.95, "launches")
        found = ratio(exact, Interval(10.0, 10.0, 10.0, 0.95, "launches"))
        assert (found.median, found.lo, found.hi, found.basis) == (2.0, 2.0, 2.0, "launches")

    def test_of_one_uncertain_cell_is_as_wide_as_that(self) -> None:
        found = ratio(
            Interval(20.0, 16.0, 25.0, 0.95, "launches"), Interval(10.0, 10.0, 10.0, 0.95, "within one launch")
        )
        assert (found.lo, found.hi) == (pytest.approx(1.6), pytest.approx(2.5))
        assert found.basis == "within one launch"

    def test_of_few_launches_is_by_the_t_of_both(self) -> None:
        """Equal errors with 4 degrees of freedom each have 8 together."""
        one = Interval(10.0, 10 / 1.2, 12.0, 0.95, "launches", 4.0)
        found = ratio(one, one)
        assert found.freedom == pytest.approx(8)
        assert np.log(found.hi) == pytest.approx(np.log(1.2) * 2**0.5 * t.ppf(0.975, 8) / t.ppf(0.975, 4))

    def test_of_a_range_is_the_widest_that_both_allow(self) -> None:
        found = ratio(Interval(20.0, 16.0, 25.0, None, "range"), Interval(10.0, 8.0, 12.5, 0.95, "launches"))
        assert (found.lo, found.hi, found.level, found.basis) == (16 / 12.5, 25 / 8, None, "range")
