"""The verdict on two revisions: wolf is cried on none, and a slowdown is caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log1p

import numpy as np
import pytest
from scipy.stats import bootstrap, ttest_1samp

from vbench.results.holm import holm
from vbench.results.judge import Comparison, TimedCell, block, floor, interval, judge

BLOCKS, TURNS = 6, 4
SESSIONS = 300


def one(blocks: Sequence[float], noise: Sequence[float], **how: float) -> Comparison:
    found = judge([TimedCell(blocks, noise, **how)])[0]
    assert found is not None
    return found


def session(seed: int, slowdown: float, spread: float, *, slot: float = 0.0, trend: float = 0.0) -> str:
    """A session of blocks with that noise, extended once if it is ambiguous.

    Args:
        slot: what the inner places of a block cost more, whoever stands there.
        trend: what each call adds to the next.
    """
    random = np.random.default_rng(seed)

    def blocks(times: int, change: float) -> list[float]:
        found = []
        for number in range(times):
            sides = np.array([0.0, log1p(change)])  # base, head
            outer, inner = sides if number % 2 == 0 else sides[::-1]
            calls = np.resize([outer, inner + slot], 2 * TURNS + 1) + trend * np.arange(2 * TURNS + 1)
            calls[::2] += random.normal(0, spread / 2**0.5)  # of a process
            calls[1::2] += random.normal(0, spread / 2**0.5)
            ratio = block(np.exp(calls[::2]), np.exp(calls[1::2]))
            found.append(ratio if number % 2 == 0 else -ratio)
        return found

    noise, measured = blocks(BLOCKS, 0.0), blocks(BLOCKS, slowdown)
    found = one(measured, noise)
    if found.verdict == "AMBIGUOUS":
        found = one(measured + blocks(BLOCKS, slowdown), noise + blocks(BLOCKS, 0.0))
    return found.verdict


def share(verdict: str, slowdown: float, spread: float, **how: float) -> float:
    return Counter(session(seed, slowdown, spread, **how) for seed in range(SESSIONS))[verdict] / SESSIONS


@pytest.mark.parametrize("spread", [0.01, 0.05])
def test_equal_revisions_are_called_slow_or_fast_in_at_most_one_session_of_a_hundred(spread: float) -> None:
    found = Counter(session(seed, 0.0, spread) for seed in range(SESSIONS))
    assert (found["SLOW"] + found["FAST"]) / SESSIONS <= 0.01
    assert spread > 0.01 or found["SAME"] / SESSIONS > 0.95


def test_a_slowdown_of_one_twentieth_is_caught_at_one_percent_of_noise() -> None:
    assert share("SLOW", 0.05, 0.01) > 0.95
    assert share("FAST", -0.06, 0.01) > 0.95
    assert share("SLOW", 0.02, 0.01) < 0.01


def test_neither_the_slot_nor_a_trend_leaves_a_bias() -> None:
    assert share("SAME", 0.0, 0.005, trend=0.02) > 0.95
    assert share("SAME", 0.0, 0.005, slot=0.02) > 0.95
    assert share("SLOW", 0.08, 0.005, slot=0.02) > 0.95
    assert block((1.0, 4.0, 16.0), (2.0, 8.0)) == pytest.approx(0.0)
    assert block((1.0, 1.0, 1.0, 1.0), (1.1, 9.0, 1.1)) == pytest.approx(np.log(1.1))


def test_noise_that_hides_a_change_is_no_proof_that_there_is_none() -> None:
    noise = [0.06, -0.05, 0.04, -0.06, 0.05, -0.04]
    found = one([0.05, 0.06, 0.055, 0.05, 0.06, 0.055], noise)
    assert found.delta == pytest.approx(2 * floor(noise))
    assert found.delta > 0.06
    assert found.verdict == "AMBIGUOUS"
    assert one([0.002, -0.001, 0.001, 0.0, 0.001, -0.002], noise).verdict == "SAME"


def test_the_interval_is_students_of_few_blocks_and_a_bootstraps_of_many() -> None:
    blocks = [0.01, 0.03, 0.02, 0.025]
    found = one(blocks, [])
    expected = ttest_1samp(blocks, 0.0).confidence_interval(0.95)
    assert (np.log(found.lo), np.log(found.hi)) == pytest.approx((expected.low, expected.high))
    assert found.ratio == pytest.approx(np.exp(np.mean(blocks)))
    skewed = np.random.default_rng(0).lognormal(size=12)
    wanted = bootstrap((skewed,), np.mean, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert interval(list(skewed)) == pytest.approx((wanted.low, wanted.high), rel=0.03)
    assert interval([0.01] * 12) == pytest.approx((0.01, 0.01))


def test_among_many_cells_more_is_asked_of_each() -> None:
    blocks = [0.045, 0.06, 0.05, 0.065, 0.04, 0.06]
    quiet = TimedCell([0.001, -0.001, 0.0, 0.002, -0.002, 0.0], [])
    alone, *_ = judge([TimedCell(blocks, [])])
    among, *others = judge([TimedCell(blocks, []), *[quiet] * 40])
    assert alone is not None
    assert among is not None
    assert (alone.verdict, among.verdict) == ("SLOW", "AMBIGUOUS")
    assert {each.verdict for each in others if each} == {"SAME"}


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_too_little_is_no_verdict() -> None:
    assert judge([TimedCell([], []), TimedCell([0.0, 0.0], [0.0])]) == [None, None]
    for outer, inner in (((0.0, 1.0), (1.0,)), ((1.0,), ()), ((1.0, 1.0), (1.0, 1.0))):
        with pytest.raises(ValueError, match="positive times in turn"):
            block(outer, inner)
