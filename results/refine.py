"""Which size to measure next, so that a crossover in time becomes sharper. Pure; reads only a frame."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pandas as pd

from vbench.errors import ResolutionError
from vbench.models.row import ModelSpec
from vbench.results.answers import Pair, pairs
from vbench.results.models import row_of
from vbench.results.scaling import Crossover, crossing

GAP = 1.34  # two sizes of the standard grid are no further apart: between them a cost is taken as a power law
SHARP = 1.10  # the largest over the smallest end of an interval that is narrow enough
COST = "latency_ms"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A size at which a recurrent model and its attention baseline are to be measured, in turns.

    `like` has the case_ids of both at the nearest measured size: their cases, with this size, are to be measured.
    """

    a: str  # model and mode, as in `answers.Pair.subject`
    b: str  # the baseline
    side: int  # px, of a square image
    like: tuple[str, str]


def wanted(table: pd.DataFrame) -> list[Wanted]:
    """For each crossover in time between a recurrent model and its baseline (`answers.pairs`) the size to add next.

    Nothing for a crossover that is sharp, that has no new size inside its interval, or that lies beyond the sizes.
    """
    return [found for pair in pairs(table) if (found := _next(pair))]


def next_size(crossover: Crossover, multiple: int, measured: Collection[int]) -> int | None:
    """The multiple of `multiple`, px, that is nearest in log to the middle of a crossover's interval; None if sharp.

    An interval that is sharp, but between measured sizes more than `GAP` apart, ends at these sizes. One that is not
    known, or that reaches beyond the sizes, ends at the measured sizes. None also if every multiple inside is in
    `measured`, or if the crossover lies beyond the sizes.

    Args:
        crossover: of two models over square sizes.
        multiple: px; both models take each of its multiples.
        measured: sides, px, which are not to be measured again.
    """
    inside = bracket(crossover, measured)
    if inside is None:
        return None
    lo, hi = inside
    if hi / lo <= SHARP:  # by a power law between two sizes, which may be far apart
        middle = (lo * hi) ** 0.5
        lo, hi = (max(s for s in measured if s <= middle), min(s for s in measured if s >= middle))
        if hi / lo <= GAP:
            return None
    sizes = range((math.floor(lo) // multiple + 1) * multiple, math.ceil(hi), multiple)
    new = [size for size in sizes if size not in measured]
    return min(new, key=lambda size: abs(math.log(size / lo) - math.log(hi / lo) / 2), default=None)


def bracket(crossover: Crossover, measured: Collection[int]) -> tuple[float, float] | None:
    """The two ends, px, between which a crossover is looked for; None if there is nothing to look for."""
    if not measured:
        return None
    first, last = float(min(measured)), float(max(measured))
    at = crossover.px
    if not crossover.interval_known:
        if at is None:
            return None
        return max(size for size in measured if size <= at), min(size for size in measured if size >= at)
    lo, hi = crossover.px_lo, crossover.px_hi
    if at is None and lo is None and hi is None:
        return None
    return (first if lo is None else lo), (last if hi is None else hi)


def _next(pair: Pair) -> Wanted | None:
    mine, theirs = (own.reset_index() for own in (pair.mine, pair.theirs))
    mine, theirs = (own[own["height"] == own["width"]] for own in (mine, theirs))
    found = crossing(mine, theirs, (pair.subject, pair.baseline), COST)
    if found is None:
        return None
    rows = [row_of(model) for model in (pair.model, str(theirs["model"].iloc[0]))]
    known = [row for row in rows if row is not None]
    tried = [
        {int(side): status == "ok" for side, status in zip(own["height"], own["status"], strict=True)}
        for own in (mine, theirs)
    ]
    both = tried[0].keys() & tried[1].keys()
    failed = {side for own in tried for side, ok in own.items() if not ok}
    side = next_size(found, _multiple(known), both | failed)
    if side is None or len(known) < len(rows) or not all(_takes(row, side) for row in known):
        return None
    near = min(both, key=lambda other: abs(math.log(other / side)))
    like = [str(own.loc[own["height"] == near, "case_id"].iloc[0]) for own in (mine, theirs)]
    return Wanted(pair.subject, pair.baseline, side, (like[0], like[1]))


def _multiple(rows: Sequence[ModelSpec]) -> int:
    """The least px of which both models take every multiple without padding or cropping."""
    return math.lcm(*(part for row in rows for part in (row.multiple, row.patch)))


def _takes(row: ModelSpec, side: int) -> bool:
    with suppress(ResolutionError):
        row.grid(side, side)
        return True
    return False
