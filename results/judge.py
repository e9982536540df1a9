"""Is one revision slower than another? Verdicts from blocks in which both were measured in turn. Pure.

A block is a fresh process of each side, called in turn: ABABA. What drifts from call to call falls on both alike. Base
is outside (A) in as many blocks as head, so the cost of a place falls on both alike. Blocks with a twin of base in
place of head give the noise floor.
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

FEWEST = 3  # blocks, without which there is no verdict
ENOUGH = 8  # blocks, from which a bootstrap's interval holds what it says
DRAWS = 9999

TimingVerdict = Literal["FAST", "SAME", "SLOW", "AMBIGUOUS"]


@dataclass(frozen=True, slots=True)
class TimedCell:
    """What was measured of a cell: logs of head over base a block, and of twin over base in the same places."""

    blocks: Sequence[float]
    noise: Sequence[float]
    threshold: float = THRESHOLD


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the blocks of a cell say. `ratio` is head over base, `lo` and `hi` its 95 % interval; `delta` is the change
    that can be told here, the greater of the threshold and twice the noise floor."""

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
        outer, inner: times of the calls of either side, in order; one outer call more than inner ones.

    Raises: ValueError for times that are not positive, or other numbers of calls.
    """
    if len(outer) != len(inner) + 1 or len(inner) == 0 or min(*outer, *inner) <= 0:
        raise ValueError("a block is positive times in turn, of one outer call more than inner ones")
    outside, inside = np.log(outer), np.log(inner)
    return float(np.median(inside - (outside[1:] + outside[:-1]) / 2))


def floor(blocks: Sequence[float]) -> float:
    """The change that as many blocks without one may show: the size of their mean and 1.96 times its error."""
    if len(blocks) < 2:
        return 0.0
    return float(abs(np.mean(blocks)) + ndtri((1 + CONFIDENCE) / 2) * _error(blocks))


def judge(cells: Sequence[TimedCell]) -> list[Comparison | None]:
    """The verdict on each cell of a session; None for a cell with fewer than `FEWEST` blocks.

    SLOW or FAST if the interval of the ratio lies beyond 1 ± delta, and Student's t agrees at 2.5 % a side after Holm's
    correction over all cells. SAME if the interval lies within 1 ± the threshold. Else AMBIGUOUS: more blocks may tell.
    """
    found: list[Comparison | None] = [None] * len(cells)
    judged = [place for place, cell in enumerate(cells) if len(cell.blocks) >= FEWEST]
    deltas = {place: max(cells[place].threshold, 2 * floor(cells[place].noise)) for place in judged}
    slow = iter(holm([_beyond(cells[place].blocks, log(1 + deltas[place]), 1) for place in judged]))
    fast = iter(holm([_beyond(cells[place].blocks, -log(1 - deltas[place]), -1) for place in judged]))
    for place in judged:
        cell, delta = cells[place], deltas[place]
        middle = float(np.mean(cell.blocks))
        low, high = interval(cell.blocks)
        chance_slow, chance_fast = next(slow), next(fast)
        tail = (1 - CONFIDENCE) / 2
        verdict: TimingVerdict = "AMBIGUOUS"
        if low > log(1 + delta) and chance_slow <= tail:
            verdict = "SLOW"
        elif high < log(1 - delta) and chance_fast <= tail:
            verdict = "FAST"
        elif low > log(1 - cell.threshold) and high < log(1 + cell.threshold):
            verdict = "SAME"
        found[place] = Comparison(verdict, exp(middle), exp(low), exp(high), delta, len(cell.blocks))
    return found


def interval(blocks: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the blocks' mean: bias-corrected and accelerated bootstrap (Efron 1987), or Student's t for
    fewer than `ENOUGH` blocks or such as are all alike."""
    error = _error(blocks)
    if len(blocks) < ENOUGH or error == 0:
        half = error * float(stdtrit(len(blocks) - 1, (1 + CONFIDENCE) / 2))
        return float(np.mean(blocks)) - half, float(np.mean(blocks)) + half
    from scipy.stats import bootstrap  # takes longer to import than a launch to start

    found = bootstrap(
        (np.asarray(blocks),), np.mean, n_resamples=DRAWS, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(found.low), float(found.high)


def _beyond(blocks: Sequence[float], bound: float, side: int) -> float:
    """The chance, by Student's t, of blocks like these if their true mean were no more than `bound` to that side."""
    error, away = _error(blocks), side * float(np.mean(blocks)) - bound
    if error == 0:
        return 0.0 if away > 0 else 1.0
    return float(1 - stdtr(len(blocks) - 1, away / error))


def _error(blocks: Sequence[float]) -> float:
    """The standard error of the blocks' mean."""
    return float(np.std(blocks, ddof=1) / len(blocks) ** 0.5)
