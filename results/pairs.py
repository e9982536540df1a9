"""Ratios of cells that took turns, each with its interval.

In a block, processes started anew call their models in turn, so that a busy neighbour slows all of them alike. In each
round a cell's time is taken relative to the round's (geometric) mean; a block gives the median over its rounds. Its
log is taken as the sum of what the cell costs, what its place costs (who was built first), and an error. The places of
a company rotate from block to block, so that after as many blocks as cells each has had each place. Costs are estimated
by least squares, and a ratio is the difference of two of them. Where there are fewer blocks, in both directions, as for
slow cells, places are taken to cost nothing.

The scatter of the error is known poorly from a few blocks; it is no less than what the rounds within a block show. All
companies of a run are measured in the same way, so their variances, relative to what is usual with so many rounds a
block, are moderated towards each other (`moderation`), and intervals come from Student's t.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from math import exp, inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from vbench.plan import CASE_DEFAULTS, Case, case_of
from vbench.results.moderation import Prior, moderated, prior_of_variances
from vbench.results.statistics import CONFIDENCE
from vbench.results.store import TurnBlock, current_turns

LEAST = 1e-4  # the standard deviation of an error is taken to be this at least
WIDEST = 300.0  # of half an interval of logs: what is wider says nothing, and its ends are no numbers
FEWEST = 5  # rounds whose scatter is known; that of a block is no less than theirs
TO_SIGMA = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation
BLOCK, ROUND = 0.03, 0.1  # standard deviations of a block and of one round, in this proportion: two shared cores
Floats = NDArray[np.float64]
current = current_turns
Key = tuple[str, str]  # `alike` of two cells: the first over the second


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """The latency of one cell over that of another. `lo` and `hi` are its 95 % interval, None if it is not known."""

    value: float
    lo: float | None
    hi: float | None
    blocks: int
    rounds: int  # of all blocks

    @property
    def half_width(self) -> float:
        """Half the interval, as a share of the value; infinite if it is not known."""
        return inf if self.lo is None or self.hi is None else (self.hi / self.lo) ** 0.5 - 1

    @property
    def inverse(self) -> PairedRatio:
        """The ratio the other way round."""
        lo, hi = (end and 1 / end for end in (self.hi, self.lo))
        return replace(self, value=1 / self.value, lo=lo, hi=hi)


def paired(blocks: Iterable[TurnBlock]) -> dict[Key, PairedRatio]:
    """The ratio of every two cells that took turns, in both directions, by what `alike` says of them.

    Blocks that did not end ok do not count. Of two companies with the same two cells, the one with more blocks counts.
    A ratio has no interval before its cells took turns in both directions, or if nothing tells the scatter.
    """
    runs: dict[str, list[_Fit]] = defaultdict(list)
    for own in current(blocks).values():
        whole = [block for block in own.values() if block.status == "ok" and block.samples_ms]
        if whole:
            named = [(block, [alike(case) for case in block.cases]) for block in whole]
            cells = sorted(named[0][1])  # damaged blocks may hold others
            runs[whole[0].conditions].append(_fit([one for one in named if sorted(one[1]) == cells]))
    found: dict[Key, PairedRatio] = {}
    for fits in runs.values():
        common = prior_of_variances([fit.variance / fit.usual for fit in fits], [fit.freedom for fit in fits])
        for fit in sorted(fits, key=lambda fit: fit.blocks):
            for one, other in permutations(range(len(fit.cells)), 2):
                found[fit.cells[one], fit.cells[other]] = _ratio(fit, one, other, common)
    return found


PRIOR_GROWTH = 1.1  # what companies say of each other is computed anew when there are so many times as many blocks


class Ratios:
    """The ratios of the companies of a run, as `paired` has them, kept up while blocks come in.

    A company is fitted anew when it has a new block. What all companies say of the scatter moves little with one more,
    and is computed anew after `PRIOR_GROWTH`; so the costs of a run grow with its blocks, and not with their square.
    """

    def __init__(self) -> None:
        self._fits: dict[str, _Fit] = {}
        self._widths: dict[str, tuple[Prior | None, float]] = {}  # by what prior, and what it came to
        self._blocks, self._blocks_then = 0, 0  # of all companies; and when the prior was computed
        self._common: Prior | None = None

    def set(self, company: str, blocks: Iterable[TurnBlock]) -> None:
        """These are all valid blocks of a company."""
        whole = [block for block in blocks if block.status == "ok" and block.samples_ms]
        before = self._fits.pop(company, None)
        self._widths.pop(company, None)
        self._blocks += len(whole) - (before.blocks if before else 0)
        if whole:
            self._fits[company] = _fit([(block, [alike(case) for case in block.cases]) for block in whole])

    def of(self, company: str) -> dict[Key, PairedRatio]:
        """The ratio of every two cells of a company, in both directions; empty before its first block."""
        fit = self._fits.get(company)
        if fit is None:
            return {}
        common, cells = self.prior(), fit.cells
        return {(cells[a], cells[b]): _ratio(fit, a, b, common) for a, b in permutations(range(len(cells)), 2)}

    def half_width(self, company: str) -> float:
        """The widest of the intervals of a company's ratios; infinite if one is not known."""
        common, width = self._widths.get(company, (None, None))
        if width is None or common is not self.prior():
            width = max((ratio.half_width for ratio in self.of(company).values()), default=inf)
            self._widths[company] = self.prior(), width
        return width

    def prior(self) -> Prior | None:
        """What all companies say of the scatter of blocks."""
        if self._blocks > PRIOR_GROWTH * self._blocks_then or self._blocks < self._blocks_then:
            fits = self._fits.values()
            self._common = prior_of_variances([fit.variance / fit.usual for fit in fits], [fit.freedom for fit in fits])
            self._blocks_then = self._blocks
        return self._common


def alike(case: Mapping[str, Any]) -> str:
    """The id of a case as it takes turns: latency of inference is at batch 1, whatever the batch for throughput."""
    return in_turns(case_of({**CASE_DEFAULTS, **case})).id


def in_turns(case: Case) -> Case:
    """A case as it takes turns (`alike`)."""
    alone = case.phase != "infer" or (type(case.batch) is int and case.batch == 1)
    return case if alone else replace(case, batch=1)


@dataclass(frozen=True, slots=True)
class _Fit:
    """The costs of the cells of a company: `logs`, and `spread`, their covariance over the variance of an error."""

    cells: tuple[str, ...]  # `alike` of each
    logs: Floats
    spread: Floats
    known: bool  # whether cells can be told from each other
    variance: float
    freedom: int
    blocks: int
    rounds: int

    @property
    def usual(self) -> float:
        """The variance of an error with so many rounds a block, up to a factor that all companies of a run share."""
        return BLOCK**2 + ROUND**2 * self.blocks / self.rounds


def _fit(named: Sequence[tuple[TurnBlock, list[str]]]) -> _Fit:
    """The costs of the cells of a company, from its blocks, each with `alike` of its cells in their order."""
    blocks = [block for block, _ in named]
    cells = tuple(sorted(named[0][1]))
    count, turns = len(cells), len(blocks)
    orders = [[cells.index(cell) for cell in own] for _, own in named]
    times = np.zeros((turns, count))
    within = np.full((turns, count), np.nan)  # the variance of each figure of `times`, NaN of few rounds
    lengths = [len(block.samples_ms[0]) if block.samples_ms else 0 for block in blocks]
    for length in dict.fromkeys(lengths):  # blocks of as many rounds are computed together
        same = [number for number, other in enumerate(lengths) if other == length]
        logs = np.log(np.array([blocks[number].samples_ms for number in same], np.float64))
        logs -= logs.mean(1, keepdims=True)
        middles = np.median(logs, 2)
        times[np.array(same)[:, None], [orders[number] for number in same]] = middles
        if length >= FEWEST:
            spreads = TO_SIGMA * np.median(np.abs(logs - middles[:, :, None]), 2)
            within[same] = spreads**2 * np.pi / 2 / length
    scatter = within[~np.isnan(within)]
    rounds = sum(lengths)
    for places in (True, False):  # with places first, unless nothing is left to tell the scatter
        about = _design(tuple(map(tuple, orders)), places)
        if about.apart and (places or _both_ways(orders)):
            estimate = about.inverse @ times.ravel()
            rest = times.ravel() - about.design @ estimate
            if places and not about.freedom and _both_ways(orders):
                continue
            least = max(float(np.mean(scatter)) if len(scatter) else 0.0, LEAST**2)
            variance = max(float(rest @ rest) / about.freedom, least) if about.freedom else 0.0
            spread = (about.inverse @ about.inverse.T)[:count, :count]
            return _Fit(cells, estimate[:count], spread, True, variance, about.freedom, turns, rounds)
    return _Fit(cells, times.mean(0), np.zeros((count, count)), False, 0.0, 0, turns, rounds)


class _Design(NamedTuple):
    """How times depend on costs of cells, of blocks and of places, and what follows for their estimates."""

    design: Floats
    inverse: Floats
    apart: bool  # whether the difference of any two cells is estimable
    freedom: int


@lru_cache(maxsize=256)  # most companies have the same orders
def _design(orders: tuple[tuple[int, ...], ...], places: bool) -> _Design:
    turns, count = len(orders), len(orders[0])
    terms = np.zeros((turns, count, 2 * count + turns))
    for number, order in enumerate(orders):
        terms[number, range(count), range(count)] = terms[number, :, count + number] = 1.0
        terms[number, list(order), range(count + turns, 2 * count + turns)] = float(places)
    design = terms.reshape(turns * count, -1)
    inverse: Floats = np.linalg.pinv(design).astype(np.float64)
    loss = (inverse @ design)[:count] - np.eye(count, design.shape[1])
    apart = np.abs(loss[:, None] - loss[None]).max() < 1e-9
    return _Design(design, inverse, bool(apart), turns * count - int(np.linalg.matrix_rank(design)))


def _both_ways(orders: Sequence[list[int]]) -> bool:
    """Whether some order of turns is another one reversed."""
    return any(order[::-1] in orders for order in orders)


def _ratio(fit: _Fit, one: int, other: int, common: Prior | None) -> PairedRatio:
    value = exp(fit.logs[one] - fit.logs[other])
    if common is None or not fit.known:
        return PairedRatio(value, None, None, fit.blocks, fit.rounds)
    variance, freedom, _ = moderated(fit.variance / fit.usual, fit.freedom, common)
    variance *= fit.usual
    share = float(fit.spread[one, one] + fit.spread[other, other] - 2 * fit.spread[one, other])
    half = min((variance * share) ** 0.5 * float(stdtrit(freedom, (1 + CONFIDENCE) / 2)), WIDEST)
    return PairedRatio(value, value * exp(-half), value * exp(half), fit.blocks, fit.rounds)
