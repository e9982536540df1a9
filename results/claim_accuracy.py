"""Does a claim on accuracy hold? Both models on the same images, by what `vbench eval` measured; else it is quoted.

The value is the difference in points of top-1, subject less baseline, with its paired interval (`mcnemar`). It must
reach the printed difference, less what its digits leave open; a model that "matches" another must be at most `MATCH`
points below it.

    holds            the whole interval reaches it
    does not hold    the whole interval misses it
    open             the interval lies on both sides
"""

from __future__ import annotations

from collections.abc import Sequence

from vbench.errors import UsageError
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.claim_judgement import FAILS, HOLDS, OPEN, UNKNOWN, Bound, Judgement, OurValue
from vbench.results.claims import Claim
from vbench.results.known import usable
from vbench.results.mcnemar import Paired, compare
from vbench.results.published import accuracies
from vbench.results.text import tame

MATCH = 0.5  # points; no paper says how near is equal


def by_predictions(claim: Claim, rows: Sequence[MeasuredAccuracy]) -> Judgement:
    """Judge a claim on accuracy. Of several data sets or settings the comparison on most images decides."""
    bound = bound_of(claim)
    if bound is None or claim.baseline is None:
        return _quoted(claim, "the paper prints no number")
    names = (claim.subject, claim.baseline)
    own = [row for row in usable(rows) if row.model in names and row.height == row.width == claim.res]
    if lacking := [name for name in names if not any(row.model == name for row in own)]:
        how = f"'vbench eval --models {','.join(names)} --res {claim.res}' measures it"
        return _quoted(claim, f"no accuracy of {' or '.join(lacking)} at {claim.res} px was measured; {how}")
    try:
        found = compare(own, *names)
    except UsageError as error:
        return _quoted(claim, str(error))
    best = max(found, key=lambda one: one.images)
    return _judged(claim, bound, best)


def bound_of(claim: Claim) -> Bound | None:
    """The least difference in points at which a claim holds; None if the paper prints nothing to hold it against."""
    if claim.unit == "points" and claim.value is not None:
        printed = [value for value in (claim.value, claim.baseline_value) if value is not None]
        difference = claim.value - (claim.baseline_value or 0.0)
        return Bound(difference - sum(map(_half_digit, printed)), f"{difference:+.3g} points")
    return Bound(-MATCH, f"at most {MATCH:g} points below") if claim.unit == "equal" else None


def _half_digit(value: float) -> float:
    """Half a unit of the last digit of a number as it is written."""
    return float(0.5 * 10.0 ** -len(f"{value:.10g}".partition(".")[2]))


def _judged(claim: Claim, bound: Bound, found: Paired) -> Judgement:
    a, b = found.a, found.b
    top = [f"{value:.2f} % of {of.model}" for value, of in zip(found.accuracies, (a, b), strict=True)]
    basis = (
        f"{' and '.join(top)}, {found.images:,} images of {tame(a.dataset)} (labels {tame(a.labels)}), "
        f"weights {tame(a.checkpoint)} and {tame(b.checkpoint)}, {a.dtype}"
    )
    ours = OurValue(found.difference, found.lo, found.hi, basis, (a.eval_id, b.eval_id), unit=" points")
    reached = bound.reached(ours)
    told = "; ".join([f"{ours} against {bound.words}: {basis}", *map(tame, found.notes)])
    if reached is None:
        undecided = f"{ours} against {bound.words}"
        return Judgement(claim, OPEN, f"the interval lies on both sides; {told}", None, ours, undecided=undecided)
    return Judgement(claim, HOLDS if reached else FAILS, told, None, ours)


def _quoted(claim: Claim, why: str) -> Judgement:
    """No verdict; the reason has what papers print at that size."""
    names = [name for name in (claim.subject, claim.baseline) if name]
    known = [found for name in names if (found := accuracies().get((name, claim.res)))]
    printed = ", ".join(f"{one.top1:g} % of {one.model} ({one.source})" for one in known)
    words = f"; printed at {claim.res} px: {printed}" if len(known) == len(names) else ""
    return Judgement(claim, UNKNOWN, f"{why}{words}")
