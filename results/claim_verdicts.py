"""Does a claim hold? Our value under the paper's conditions, our value against today's baseline, and a verdict.

A value is an advantage: the baseline's cost over the subject's; more is better. For growth it is an exponent.

(a) As stated: MACs by the paper's own counting; memory and speed against attention that is not fused.
(b) Fair: MACs with everything counted; memory and speed against fused attention.
Both take our default forms on the device, in parallel mode, for inference.

A value reaches a printed number if the low end of its 95 % interval is at least the number less `TOLERANCE`. It misses
the number if the high end is below that. Otherwise nothing is decided. Counts and the bytes of a GPU's allocator are
exact and need no interval; any other value without one decides nothing.

    holds                                  (b) reaches it
    holds only against unfused attention   (a) of memory or speed reaches it, (b) misses it
    does not hold                          both miss it; of MACs, (b) does
    open                                   the interval that should decide lies on both sides, or is not known
    not measurable here                    no such model, no record, no GPU, no number

Accuracy has rules of its own: `claim_accuracy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from vbench.models.closed_forms import closed_form
from vbench.models.registry import MODELS, spec
from vbench.results import scaling
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.claim_accuracy import by_predictions
from vbench.results.claim_equivalence import by_records as by_stamps
from vbench.results.claim_judgement import (
    FAILS,
    HOLDS,
    OPEN,
    UNKNOWN,
    Bound,
    Judgement,
    OurValue,
    Ruling,
    bound_of,
    rule,
    without_attention,
    words_of,
)
from vbench.results.claim_pairs import NONE, UNDER, Pair, grown, measured, on_gpu, pairs, preference, ratio_of, square
from vbench.results.claims import Claim
from vbench.results.countings import COUNTINGS, published_macs
from vbench.results.frame import rows_of
from vbench.results.operators import FILE, beside_attention
from vbench.results.text import tame

SIDES = (224, 512, 1024, 2048)  # px, the sizes for growth
LINEAR = 1 + scaling.TOLERANCE  # the greatest exponent that is linear
CURVED = 1 + scaling.WIDEST  # an exponent between the two largest sizes above this is not linear, whatever the fit

OPERATORS = {"bi_wkv_op": "wkv"}  # names in the table of claims
MEASURE = "'vbench sweep --suite claims --device cuda' measures it"


def judge(
    claim: Claim,
    table: pd.DataFrame,
    operators: Sequence[Mapping[str, Any]] = (),
    accuracy: Sequence[MeasuredAccuracy] = (),
) -> Judgement:
    """Judge a claim from a frame (`frame.frame`), which may be empty.

    Args:
        operators: rows of `vbench kernels bench` (`operators.read`), for claims of an operator by itself.
        accuracy: rows of `vbench eval` (`accuracy.measured`), for claims on accuracy.
    """
    if claim.quantity == "operator_speed":
        return _operator(claim, operators)
    absent = [name for name in (claim.subject, claim.baseline) if name and name not in MODELS]
    if absent:
        return Judgement(claim, UNKNOWN, f"no such model: {', '.join(absent)} is not in the zoo")
    if claim.unit == "linear":
        return _growth_of_macs(claim) if claim.quantity == "macs" else _growth_of_memory(claim, table)
    if claim.quantity == "accuracy":
        return by_predictions(claim, accuracy)
    by_quantity: dict[str, Callable[[Claim, pd.DataFrame], Judgement]] = {
        **{"equivalence": by_stamps, "macs": _counted, "params": _counted},
        **{"memory": _measured, "speed": _measured},
    }
    return by_quantity[claim.quantity](claim, table)


def verdict_of(claim: Claim, fair: OurValue | None, stated: OurValue | None) -> Ruling:
    """The verdict from our values against fused and against unfused attention, and why."""
    bound = bound_of(claim)
    if bound is None:
        return Ruling(UNKNOWN, "the paper prints no number")
    if _has_operator(claim.baseline) and fair is not None:
        return without_attention(bound, fair, words_of(bound, claim))
    return rule(bound, fair, stated, words_of(bound, claim))


def _has_operator(name: str | None) -> bool:
    """Whether a baseline is a model with an operator of ours, so that there is no attention to be fused."""
    return name in MODELS and spec(str(name)).operator is not None


def linear(ours: OurValue, local: float) -> Ruling:
    """The verdict on linear growth from an exponent of memory with its interval, and that of the two largest sizes.

    It holds if the whole interval is at most `LINEAR`; it does not if the whole interval is above, or if `local` is
    above `CURVED`.
    """
    inverse = None if ours.bounds is None else OurValue(-ours.value, -ours.bounds[1], -ours.bounds[0], "")
    reached = inverse and Bound(-LINEAR, "").reached(inverse)
    if local > CURVED or reached is False:
        return Ruling(FAILS, "grows faster than linearly")
    if reached:
        return Ruling(HOLDS, "grows linearly or slower")
    undecided = f"exponent {ours} against {LINEAR:.3g}, the most that is linear"
    return Ruling(OPEN, "the interval of the exponent decides nothing", undecided)


def _counted(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim on MACs or parameters, which are exact and do not depend on a device."""
    bound, baseline, stated = bound_of(claim), claim.baseline, None
    if bound is None or baseline is None:
        return Judgement(claim, UNKNOWN, "the paper prints no number")
    if claim.quantity == "params":
        mine, theirs = (spec(name).params for name in (claim.subject, baseline))
        if mine is None or theirs is None:
            return Judgement(claim, UNKNOWN, "the parameters of one of them are not known")
        fair = OurValue(theirs / mine, None, None, "parameters at 224 px", exact=True)
    else:
        fair = _macs(claim.subject, baseline, claim.res, table)
        if claim.counting != "full":
            mine, theirs = (published_macs(claim.counting, name, claim.res) for name in (claim.subject, baseline))
            stated = OurValue(theirs / mine, None, None, f"MACs counted {COUNTINGS[claim.counting].words}", exact=True)
    verdict = HOLDS if bound.reached(fair) else FAILS
    values = [f"{ours} is the ratio of {ours.basis}" for ours in (fair, stated) if ours is not None]
    return Judgement(claim, verdict, "; ".join([*values, f"{bound.words} is claimed"]), stated, fair)


def _macs(subject: str, baseline: str, res: int, table: pd.DataFrame) -> OurValue:
    """The ratio of MACs from records of both models; by closed form if there are none."""
    rows = square(table, (subject, baseline), res)
    cells = [rows_of(rows[(rows["model"] == name) & rows["macs"].notna()].head(1)) for name in (subject, baseline)]
    if all(cells):
        mine, theirs = (float(cell["macs"]) for (cell,) in cells)
        ids = tuple(str(cell["case_id"]) for (cell,) in cells)
        return OurValue(theirs / mine, None, None, "MACs with everything counted, as recorded", ids, exact=True)
    mine, theirs = (float(closed_form(name, res, res) or math.nan) for name in (subject, baseline))
    return OurValue(theirs / mine, None, None, "MACs with everything counted, by closed form", exact=True)


def _growth_of_macs(claim: Claim) -> Judgement:
    """A claim of MACs linear in tokens: holds if no exponent over a factor of 4 exceeds 1 plus its tolerance."""
    fair, stated = _exponent(claim.subject, "full"), None
    verdict = HOLDS if fair.hi is not None and fair.hi <= LINEAR else FAILS
    span = f"from {SIDES[0]} to {SIDES[-1]} px"
    reason = f"exponent {fair} in tokens {span} (range: over spans of a factor of 4) {COUNTINGS['full'].words}"
    if claim.counting != "full":
        stated = _exponent(claim.subject, claim.counting)
        reason += f"; {stated} counted {COUNTINGS[claim.counting].words}"
    return Judgement(claim, verdict, reason, stated, fair)


def _exponent(model: str, counting: str) -> OurValue:
    rows = []
    for side in SIDES:
        grid = spec(model).grid(side, side) or (side, side)
        cell = {"model": model, "mode": "parallel", "height": side, "width": side, "tokens": grid[0] * grid[1]}
        rows.append({**cell, "macs": published_macs(counting, model, side)})
    fit = scaling.exponents(pd.DataFrame(rows), ("macs",)).iloc[0]
    value, lo, hi = (float(fit[key]) for key in ("exponent", "exponent_lo", "exponent_hi"))
    return OurValue(value, lo, hi, f"exponent of MACs counted {COUNTINGS[counting].words}", unit="", exact=True)


def _growth_of_memory(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim of activation memory linear in tokens, on any device: holds if it grows linearly or slower."""
    rows = square(table, (claim.subject,), None)
    rows = rows[rows["status"] == "ok"]
    keys = [key for key in (*UNDER, "form") if key in rows]
    groups = [group.drop_duplicates("height") for _, group in rows.groupby(keys, sort=False, dropna=False)]
    for group in sorted(groups, key=lambda group: preference(group.iloc[0].to_dict())):
        fits = scaling.exponents(group.assign(batch_policy="fixed", batch=1), ("activation_bytes",))
        for row in fits[fits["verdict"] != "too few points"].to_dict("records"):
            low, high = (
                None if math.isnan(row[f"exponent_{end}"]) else float(row[f"exponent_{end}"]) for end in ("lo", "hi")
            )
            ids = tuple(group["case_id"].astype(str))
            fair = OurValue(float(row["exponent"]), low, high, "exponent of activation memory", ids, unit="")
            ruled = linear(fair, float(row["local_exponent"]))
            where = f"{tame(group['device_name'].iloc[0])}, {group['dtype'].iloc[0]}"
            reason = f"{ruled.rule}; {where}: {row['reading']}"
            return Judgement(claim, ruled.verdict, reason, None, fair, undecided=ruled.undecided)
    sizes = "memory at three sizes or more, a factor of 4 apart in tokens"
    return Judgement(claim, UNKNOWN, f"needs records of {claim.subject} with {sizes}; {MEASURE}")


def _operator(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Judgement:
    """A claim on the speed of an operator alone, against fused attention, from the last rows timed in turn."""
    op, tokens = OPERATORS[claim.subject], (claim.res // 16) ** 2
    pairs = beside_attention(rows, op, tokens)
    if not pairs:
        how = f"'vbench kernels bench --op {op} --n {tokens} --device cuda' times it beside attention"
        return Judgement(claim, UNKNOWN, f"needs a GPU, and the operator by itself; {how}")
    own, attention = min(pairs, key=lambda pair: (*preference(pair[0]), pair[0]["l2"] == "cold", pair[0]["batch"]))
    basis = (
        f"form {own['form']} against torch's fused attention of as many tokens at DeiT-T's width, on "
        f"{own.get('device_name')}, {own['dtype']}, batch {own['batch']}, {own['backend']}, caches "
        f"{own['l2']} ({FILE}, {own.get('started_at')})"
    )
    fair = measured(attention, own, "ms", tame(basis), ())
    if fair is None or not on_gpu(own):
        return Judgement(claim, UNKNOWN, f"needs a GPU; on this CPU: {fair}, {tame(basis)}", None, fair)
    ruled = verdict_of(claim, fair, fair)  # the paper's baseline is the fair one
    return Judgement(claim, ruled.verdict, f"{ruled.rule}: {fair}, {fair.basis}", None, fair, undecided=ruled.undecided)


def _measured(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim on memory or speed: judged under the preferred setting; the reason names the other settings too."""
    found = pairs(claim, table, claim.res)
    before = pairs(claim, table, claim.res_from) if claim.res_from else []
    if not found:
        what = "records of training" if claim.phase == "train" else "records"
        return Judgement(claim, UNKNOWN, f"needs a GPU, and {what} of both at {claim.res} px; {MEASURE}")
    first, *rest = (_judge_pair(claim, pair, before) for pair in found)
    others = "; ".join(
        f"{pair.where}: {one.label}" + (f" ({one.fair} fair)" if one.fair and not one.undecided else "")
        for pair, one in zip(found[1:], rest, strict=True)
        if pair.on_gpu  # they come first
    )
    return replace(first, reason=f"{first.reason}. Elsewhere: {others}") if others else first


def _judge_pair(claim: Claim, pair: Pair, before: Sequence[Pair]) -> Judgement:
    """The claim judged under one setting; `before` are the pairs at the smaller size, for a claim of growth."""
    smaller = next((one for one in before if one.setting == pair.setting), None)
    ratios = {
        attention: grown(claim, smaller, pair, attention) if claim.res_from else ratio_of(claim, pair, attention)
        for attention in ((NONE,) if _has_operator(claim.baseline) else ("fused", "unfused"))
    }
    ours = {attention: one for attention, one in ratios.items() if isinstance(one, OurValue)}
    why_not = [one for one in ratios.values() if isinstance(one, str)]
    fair, stated = ours.get("fused", ours.get(NONE)), ours.get("unfused", ours.get(NONE))
    against = {name: "" if name == NONE else f" against {name} attention" for name in ours}
    words = "; ".join([*(f"{one}{against[name]}, {one.basis}" for name, one in ours.items()), *why_not])
    if not pair.on_gpu:
        return Judgement(claim, UNKNOWN, f"needs a GPU; on this CPU ({pair.where}): {words}", stated, fair)
    ruled = verdict_of(claim, fair, stated)
    reason = f"{ruled.rule}; {pair.where}: {words}"
    return Judgement(claim, ruled.verdict, reason, stated, fair, undecided=ruled.undecided)
