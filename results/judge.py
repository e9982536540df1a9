"""Is one revision slower than another? A verdict from blocks in which both were measured in turn. Pure.

A block is ABBA: base, head, head, base, one launch each, so that whatever drifts through a block at a constant pace
falls on both alike. Blocks in which base stands in all four slots give the noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE = 0.95
THRESHOLD = 0.03  # of the base; a smaller change is none
FEWEST = 3  # blocks, without which there is no verdict

Verdict = Literal["FAST", "SAME", "SLOW", "AMBIGUOUS"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the blocks of a cell say. `ratio` is head over base, `lo` and `hi` its 95 % interval; `delta` is the change
    from which it matters here, the greater of the threshold and twice the noise floor."""

    verdict: Verdict
    ratio: float
    lo: float
    hi: float
    delta: float
    blocks: int


def block(base: tuple[float, float], head: tuple[float, float]) -> float:
    """The log of head over base in one ABBA block, from the medians of its four launches.

    Args:
        base: the first and the last launch. head: the second and the third.

    Raises: ValueError for a time that is not positive.
    """
    if min(*base, *head) <= 0:
        raise ValueError("a block needs positive times")
    return (log(head[0]) + log(head[1]) - log(base[0]) - log(base[1])) / 2


def floor(blocks: Sequence[float]) -> float:
    """The change that as many blocks without one may show: the size of their mean and 1.96 times its error."""
    if len(blocks) < 2:
        return 0.0
    return float(abs(np.mean(blocks)) + ndtri((1 + CONFIDENCE) / 2) * np.std(blocks, ddof=1) / len(blocks) ** 0.5)


def judge(blocks: Sequence[float], noise: Sequence[float], *, threshold: float = THRESHOLD) -> Comparison | None:
    """The verdict on a cell; None if fewer than `FEWEST` blocks were measured: that is no verdict, and no pass.

    SLOW or FAST if the whole interval of the ratio (Student's t over blocks, on the log scale) lies beyond
    1 ± delta; SAME if it lies within; else AMBIGUOUS, and more blocks may tell.

    Args:
        blocks: what `block` gave for base and head. noise: what it gave for base and base, in the same slots.
    """
    if len(blocks) < FEWEST:
        return None
    delta = max(threshold, 2 * floor(noise))
    middle = float(np.mean(blocks))
    error = float(np.std(blocks, ddof=1)) / len(blocks) ** 0.5
    half = error * float(stdtrit(len(blocks) - 1, (1 + CONFIDENCE) / 2))
    low, high = middle - half, middle + half
    if low > log(1 + delta):
        verdict: Verdict = "SLOW"
    elif high < log(1 - delta):
        verdict = "FAST"
    elif low > log(1 - delta) and high < log(1 + delta):
        verdict = "SAME"
    else:
        verdict = "AMBIGUOUS"
    return Comparison(verdict, exp(middle), exp(low), exp(high), delta, len(blocks))
