"""Judges whether one revision is slower than another, from blocks in which both were measured in turn. Pure.

A block is a fresh process of each revision, called in turn: ABABA. Drift from call to call affects both equally. Base
is outside (A) in as many blocks as head, so a place affects both equally. Blocks with a twin of base in place of head
give the noise floor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from vbench.results.holm import holm
from vbench.results.outcome import THRESHOLD
from vbench.results.statistics import CONFIDENCE

FEWEST = 3  # blocks; with fewer there is no verdict
ENOUGH = 8  # blocks; with fewer a bootstrap's interval is too narrow
DRAWS = 9999

TimingVerdict = Literal["FAST", "SAME", "SLOW", "AMBIGUOUS"]


@dataclass(frozen=True, slots=True)
class TimedCell:
    """The blocks of a cell: for each, the log of head over base; `noise` likewise of twin over base."""

    blocks: Sequence[float]
    noise: Sequence[float]
    threshold: float = THRESHOLD


@dataclass(frozen=True, slots=True)
class Comparison:
    """A judged cell. `ratio` is head over base, with its 95 % interval `lo` to `hi`.

    `delta` is the smallest change that can be detected: the greater of the threshold and twice the noise floor.
    """

    verdict: TimingVerdict
    ratio: float
    lo: float
    hi: float
    delta: float
    blocks: int


def block(outer: Sequence[float], inner: Sequence[float]) -> float:
    """The log of inner over outer in one block: the median of each inner call against the two outer ones around it.

    A constant drift cancels; a burst moves few of the calls.

    Args:
        outer, inner: times of the calls in order; there is one outer call more than inner calls.

    Raises: ValueError for times that are not positive, or other numbers of calls.
    """
    if len(outer) != len(inner) + 1 or len(inner) == 0 or min(*outer, *inner) <= 0:
        raise ValueError("a block is positive times in turn, of one outer call more than inner ones")
    outside, inside = np.log(outer), np.log(inner)
    return float(np.median(inside - (outside[1:] + outside[:-1]) / 2))


def floor(blocks: Sequence[float]) -> float:
    """The change that these blocks of equal code may show: the size of their mean plus 1.96 times its error."""
    if len(blocks) < 2:
        return 0.0
    return float(abs(np.mean(blocks)) + ndtri((1 + CONFIDENCE) / 2) * _error(blocks))


def judge(cells: Sequence[TimedCell]) -> list[Comparison | None]:
    """Each cell of a session, judged; None for a cell with fewer than `FEWEST` blocks.

    SLOW or FAST if the interval of the ratio lies beyond 1 ± delta, and Student's t agrees at 2.5 % a side after Holm's
    correction over all cells. SAME if the interval lies within 1 ± the threshold. Else AMBIGUOUS: more blocks may tell.
    """
    comparisons: list[Comparison | None] = [None] * len(cells)
    enough = {place: cell for place, cell in enumerate(cells) if len(cell.blocks) >= FEWEST}
    deltas = [max(cell.threshold, 2 * floor(cell.noise)) for cell in enough.values()]
    pairs = list(zip(enough.values(), deltas, strict=True))
    slow = holm([_beyond(cell.blocks, log(1 + delta), 1) for cell, delta in pairs])
    fast = holm([_beyond(cell.blocks, -log(1 - delta), -1) for cell, delta in pairs])
    tail = (1 - CONFIDENCE) / 2
    for (place, cell), delta, chance_slow, chance_fast in zip(enough.items(), deltas, slow, fast, strict=True):
        low, high = interval(cell.blocks)
        verdict: TimingVerdict = "AMBIGUOUS"
        if low > log(1 + delta) and chance_slow <= tail:
            verdict = "SLOW"
        elif high < log(1 - delta) and chance_fast <= tail:
            verdict = "FAST"
        elif low > log(1 - cell.threshold) and high < log(1 + cell.threshold):
            verdict = "SAME"
        middle = exp(float(np.mean(cell.blocks)))
        comparisons[place] = Comparison(verdict, middle, exp(low), exp(high), delta, len(cell.blocks))
    return comparisons


def interval(blocks: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the blocks' mean.

    By bias-corrected and accelerated bootstrap (Efron 1987); by Student's t if there are fewer than `ENOUGH` blocks, or
    all blocks are equal.
    """
    error = _error(blocks)
    if len(blocks) < ENOUGH or error == 0:
        half = error * float(stdtrit(len(blocks) - 1, (1 + CONFIDENCE) / 2))
        return float(np.mean(blocks)) - half, float(np.mean(blocks)) + half
    from scipy.stats import bootstrap  # takes longer to import than a launch to start

    random = np.random.default_rng(0)
    ends = bootstrap((np.asarray(blocks),), np.mean, n_resamples=DRAWS, method="BCa", rng=random).confidence_interval
    return float(ends.low), float(ends.high)


def _beyond(blocks: Sequence[float], bound: float, side: int) -> float:
    """The chance, by Student's t, of such blocks if their true mean were at most `bound` on that side (1 or -1)."""
    error, away = _error(blocks), side * float(np.mean(blocks)) - bound
    if error == 0:
        return 0.0 if away > 0 else 1.0
    return float(1 - stdtr(len(blocks) - 1, away / error))


def _error(blocks: Sequence[float]) -> float:
    """The standard error of the blocks' mean."""
    return float(np.std(blocks, ddof=1) / len(blocks) ** 0.5)
