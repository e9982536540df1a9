"""The verdict on two revisions: wolf is cried on none, and a slowdown is caught."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from vbench.results.judge import block, floor, judge

BLOCKS = 6
SESSIONS = 1000


def session(seed: int, slowdown: float, spread: float, *, slot: float = 0.0, trend: float = 0.0) -> str:
    """A session of ABBA blocks with that noise a launch, extended once if it is ambiguous.

    Args:
        slot: what the inner places of a block cost more, whoever stands there.
        trend: what each launch adds to the next.
    """
    random = np.random.default_rng(seed)
    places = np.array([0, slot, slot, 0]) + trend * np.arange(4)

    def blocks(times: int, change: float) -> list[float]:
        found = []
        for _ in range(times):
            base_1, head_1, head_2, base_2 = np.exp(random.normal(places, spread))
            found.append(block((base_1, base_2), (head_1 * (1 + change), head_2 * (1 + change))))
        return found

    noise, measured = blocks(BLOCKS, 0.0), blocks(BLOCKS, slowdown)
    found = judge(measured, noise)
    assert found is not None
    if found.verdict == "AMBIGUOUS":
        found = judge(measured + blocks(BLOCKS, slowdown), noise)
        assert found is not None
    return found.verdict


def share(verdict: str, slowdown: float, spread: float, **how: float) -> float:
    return Counter(session(seed, slowdown, spread, **how) for seed in range(SESSIONS))[verdict] / SESSIONS


def test_equal_revisions_are_called_slow_or_fast_in_at_most_one_session_of_twenty() -> None:
    for spread in (0.01, 0.05):
        found = Counter(session(seed, 0.0, spread) for seed in range(SESSIONS))
        assert (found["SLOW"] + found["FAST"]) / SESSIONS <= 0.05
    assert share("SAME", 0.0, 0.01) > 0.95


def test_a_slowdown_of_one_twentieth_is_caught_at_one_percent_of_noise() -> None:
    assert share("SLOW", 0.05, 0.01) > 0.95
    assert share("FAST", -0.06, 0.01) > 0.95
    assert share("SLOW", 0.02, 0.01) < 0.01


def test_neither_the_slot_nor_a_trend_leaves_a_bias() -> None:
    for how in ({"trend": 0.02}, {"trend": -0.02}):
        assert share("SAME", 0.0, 0.005, **how) > 0.95
    assert block((1.0, 1.3), (1.1, 1.2)) == pytest.approx(np.log(1.1 * 1.2 / 1.3) / 2)
    assert block((1.0, 8.0), (2.0, 4.0)) == pytest.approx(0.0)


def test_a_slot_effect_that_falls_on_base_too_is_noise_and_widens_what_matters() -> None:
    noise = [0.02, 0.021, 0.019, 0.02, 0.02, 0.02]
    found = judge([n + 0.001 for n in noise], noise)
    assert found is not None
    assert found.delta == pytest.approx(2 * floor(noise))
    assert found.verdict == "SAME"


def test_the_interval_is_students() -> None:
    blocks = [0.01, 0.03, 0.02, 0.025]
    found = judge(blocks, [])
    assert found is not None
    expected = ttest_1samp(blocks, 0.0).confidence_interval(0.95)
    assert (np.log(found.lo), np.log(found.hi)) == pytest.approx((expected.low, expected.high))
    assert found.ratio == pytest.approx(np.exp(np.mean(blocks)))


def test_too_little_is_no_verdict() -> None:
    assert judge([], []) is None
    assert judge([0.0, 0.0], [0.0]) is None
    with pytest.raises(ValueError, match="positive"):
        block((0.0, 1.0), (1.0, 1.0))
