"""Claims on memory without a GPU's record: judged from predictions of a CUDA card's memory.

A prediction is as good as the simulation that made it (`vbench.flops.peak`); docs/memory.md says how near it comes to
published figures. A record of a GPU replaces it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from vbench.models import MODELS, spec
from vbench.plan import Attention
from vbench.results import scaling
from vbench.results.claim_judgement import UNKNOWN, Judgement, OurValue
from vbench.results.claim_verdicts import MEASURE, SIDES, linear, verdict_of
from vbench.results.claims import Claim

DTYPE: Literal["float16"] = "float16"  # half precision decides, as among records
COMPARED: tuple[Attention, ...] = ("fused", "unfused")
ERROR = 0.1  # of a ratio of two predictions, by comparison with published figures: docs/memory.md


@dataclass(frozen=True, slots=True)
class Wanted:
    """A forward pass whose memory is asked for: on a square image of `side` px, in `DTYPE`, on CUDA."""

    model: str
    side: int
    batch: int
    attention: Attention | None  # None for a model with an operator of ours


Predict = Callable[
    [Wanted], Mapping[str, int] | None
]  # "peak_bytes" and "activation_bytes"; None if it cannot be known


def judged(one: Judgement, predict: Predict) -> Judgement:
    """The judgement itself, or one by prediction if it is a claim on memory that no record of a GPU decides."""
    claim = one.claim
    known = [name in MODELS for name in (claim.subject, claim.baseline) if name]
    if one.verdict != UNKNOWN or claim.quantity != "memory" or not all(known):
        return one
    found = _growth(claim, predict) if claim.unit == "linear" else _ratios(claim, predict)
    if found is None:
        return one
    replaced = f"a record of {MEASURE.removesuffix(' measures it')} replaces the prediction"
    return replace(found, reason=f"{found.reason}; {replaced}. By records: {one.reason}")


def _growth(claim: Claim, predict: Predict) -> Judgement | None:
    """A claim of activation memory linear in tokens."""
    rows = []
    for side in SIDES:
        grid, found = spec(claim.subject).grid(side, side), predict(_wanted(claim.subject, side, 1, None))
        if found is None or grid is None:
            return None
        cell = {"model": claim.subject, "mode": "parallel", "height": side, "width": side}
        rows.append({**cell, "tokens": grid[0] * grid[1], "activation_bytes": found["activation_bytes"]})
    fit = scaling.exponents(pd.DataFrame(rows), ("activation_bytes",)).iloc[0]
    value, low, high = (float(fit[key]) for key in ("exponent", "exponent_lo", "exponent_hi"))
    fair = OurValue(value, low, high, "exponent of predicted activation memory", unit="")
    ruled = linear(fair, float(fit["local_exponent"]))
    words = f"predicted for CUDA, {DTYPE}, batch 1: exponent {fair} in tokens from {SIDES[0]} to {SIDES[-1]} px"
    reason = f"{ruled.rule}; {words}"
    return Judgement(claim, ruled.verdict, reason, None, fair, predicted=True, undecided=ruled.undecided)


def _ratios(claim: Claim, predict: Predict) -> Judgement | None:
    """A claim of less memory than a baseline with attention, at one size, or of an advantage that grows to it."""
    ours: dict[Attention, OurValue] = {}
    for attention in COMPARED:
        value = _advantage(claim, claim.res, attention, predict)
        before = _advantage(claim, claim.res_from, attention, predict) if claim.res_from else 1.0
        if value is None or before is None:
            return None
        basis = f"predicted peak memory at batch {claim.batch or 1} in {DTYPE}"
        basis += f", {claim.res} px over {claim.res_from} px" if claim.res_from else ""
        ratio = value / before
        ours[attention] = OurValue(ratio, ratio * (1 - ERROR), ratio * (1 + ERROR), f"{basis} (±{ERROR:.0%})")
    fair, stated = ours["fused"], ours["unfused"]
    words = "; ".join(f"{one} against {name} attention" for name, one in ours.items()) + f", {fair.basis}"
    ruled = verdict_of(claim, fair, stated)
    reason = f"{ruled.rule}: {words}"
    return Judgement(claim, ruled.verdict, reason, stated, fair, predicted=True, undecided=ruled.undecided)


def _advantage(claim: Claim, side: int, attention: Attention, predict: Predict) -> float | None:
    """The baseline's peak over the subject's."""
    batch = claim.batch or 1
    mine = predict(_wanted(claim.subject, side, batch, attention))
    theirs = predict(_wanted(claim.baseline or "", side, batch, attention))
    return None if mine is None or theirs is None else theirs["peak_bytes"] / (mine["peak_bytes"] or math.nan)


def _wanted(model: str, side: int, batch: int, attention: Attention | None) -> Wanted:
    return Wanted(model, side, batch, None if spec(model).operator else attention)
