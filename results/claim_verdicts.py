"""Does a claim hold? Our value under the paper's conditions, our value against today's baseline, and a verdict.

A value is an advantage: the baseline's cost over the subject's; more is better. For growth it is an exponent.

(a) As stated: MACs by the paper's own counting; memory and speed against attention that is not fused.
(b) Fair: MACs with everything counted; memory and speed against fused attention.
Both take our default forms on the device, in parallel mode, for inference.

A value reaches a printed number if it, or any part of its interval, is at least the number less `TOLERANCE`. An
interval wider than `WIDEST` whose ends lie on both sides of that decides nothing.

    holds                                  (b) reaches it
    holds only against unfused attention   (a) of memory or speed reaches it, (b) does not
    does not hold                          neither does; of MACs, (b) does not
    not measurable here                    no such model, no record, no GPU, no number
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from vbench.devices import on_host
from vbench.kernels.registry import default_form
from vbench.models.closed_forms import closed_form
from vbench.models.registry import MODELS, spec
from vbench.results import scaling
from vbench.results.axes import SETTING, VERSIONS, unusual
from vbench.results.claim_judgement import FAILS, HOLDS, UNFUSED, UNKNOWN, ClaimVerdict, Judgement, OurValue
from vbench.results.claims import Claim
from vbench.results.countings import COUNTINGS, published_macs
from vbench.results.frame import batch_asked, proves_nothing, rows_of
from vbench.results.operators import FILE, beside_attention
from vbench.results.ratios import ratio
from vbench.results.text import one_line

TOLERANCE = 0.05  # two printed digits leave this open: "90 % saved" means 9.5 to 10.5 times less
WIDEST = 0.25  # half-width of an interval, as a share of its value
SIDES = (224, 512, 1024, 2048)  # px, the sizes for growth

OPERATORS = {"bi_wkv_op": "wkv"}  # names in the table of claims
MEASURE = "'vbench sweep --suite claims --device cuda' measures it"


def judge(claim: Claim, table: pd.DataFrame, operators: Sequence[Mapping[str, Any]] = ()) -> Judgement:
    """Judge a claim from a frame (`frame.frame`), which may be empty.

    Args:
        operators: rows of `vbench kernels bench` (`operators.read`), for claims of an operator by itself.
    """
    if claim.quantity == "operator_speed":
        return _operator(claim, operators)
    absent = [name for name in (claim.subject, claim.baseline) if name and name not in MODELS]
    if absent:
        return Judgement(claim, UNKNOWN, f"no such model: {', '.join(absent)} is not in the zoo")
    if claim.quantity == "accuracy":
        return Judgement(claim, UNKNOWN, "accuracy is what papers print; it is not measured yet")
    if claim.unit == "linear":
        return _growth_of_macs(claim) if claim.quantity == "macs" else _growth_of_memory(claim, table)
    if claim.quantity in ("macs", "params"):
        return _counted(claim, table)
    return _measured(claim, table)


def reaches(ours: OurValue, least: float) -> bool | None:
    """Whether a value, or any part of its interval, is at least `least`; None if the interval is too wide."""
    low, high = ours.bounds
    if low < least <= high and (high - low) / 2 > WIDEST * ours.value:
        return None
    return high >= least


def _counted(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim on MACs or parameters, which are exact and do not depend on a device."""
    printed, baseline, stated = claim.ratio, claim.baseline, None
    if printed is None or baseline is None:
        return Judgement(claim, UNKNOWN, "the paper prints no number")
    if claim.quantity == "params":
        mine, theirs = (spec(name).params for name in (claim.subject, baseline))
        if mine is None or theirs is None:
            return Judgement(claim, UNKNOWN, "the parameters of one of them are not known")
        fair = OurValue(theirs / mine, None, None, "parameters at 224 px")
    else:
        fair = _macs(claim.subject, baseline, claim.res, table)
        if claim.counting != "full":
            mine, theirs = (published_macs(claim.counting, name, claim.res) for name in (claim.subject, baseline))
            stated = OurValue(theirs / mine, None, None, f"MACs counted {COUNTINGS[claim.counting].words}")
    verdict = HOLDS if reaches(fair, printed * (1 - TOLERANCE)) else FAILS
    values = [f"{ours} is the ratio of {ours.basis}" for ours in (fair, stated) if ours is not None]
    return Judgement(claim, verdict, "; ".join([*values, f"{printed:.3g}× is claimed"]), stated, fair)


def _macs(subject: str, baseline: str, res: int, table: pd.DataFrame) -> OurValue:
    """The ratio of MACs from records of both models; by closed form if there are none."""
    rows = _rows(table, (subject, baseline), res)
    cells = [rows_of(rows[(rows["model"] == name) & rows["macs"].notna()].head(1)) for name in (subject, baseline)]
    if all(cells):
        mine, theirs = (float(cell["macs"]) for (cell,) in cells)
        ids = tuple(str(cell["case_id"]) for (cell,) in cells)
        return OurValue(theirs / mine, None, None, "MACs with everything counted, as recorded", ids)
    mine, theirs = (float(closed_form(name, res, res) or math.nan) for name in (subject, baseline))
    return OurValue(theirs / mine, None, None, "MACs with everything counted, by closed form")


def _growth_of_macs(claim: Claim) -> Judgement:
    """A claim of MACs linear in tokens: holds if no exponent over a factor of 4 exceeds 1 plus its tolerance."""
    fair, stated = _exponent(claim.subject, "full"), None
    verdict = HOLDS if fair.hi is not None and fair.hi <= 1 + scaling.TOLERANCE else FAILS
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
    return OurValue(value, lo, hi, f"exponent of MACs counted {COUNTINGS[counting].words}", unit="")


def _growth_of_memory(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim of activation memory linear in tokens, on any device: holds if it grows linearly or slower."""
    rows = _rows(table, (claim.subject,), None)
    rows = rows[rows["status"] == "ok"]
    keys = [key for key in (*SETTING, "form") if key in rows]
    groups = [group.drop_duplicates("height") for _, group in rows.groupby(keys, sort=False, dropna=False)]
    for group in sorted(groups, key=lambda group: _preference(group.iloc[0].to_dict())):
        fits = scaling.exponents(group, ("activation_bytes",))
        fits = fits[~fits["verdict"].isin(["too few points", "interval too wide"])]
        for row in fits.to_dict("records"):
            low, high, local = (float(row[key]) for key in ("exponent_lo", "exponent_hi", "local_exponent"))
            ids = tuple(group["case_id"].astype(str))
            fair = OurValue(float(row["exponent"]), low, high, "exponent of activation memory", ids, unit="")
            verdict = HOLDS if low <= 1 + scaling.TOLERANCE and local <= 1 + scaling.WIDEST else FAILS
            where = f"{one_line(group['device_name'].iloc[0])}, {group['dtype'].iloc[0]}"
            return Judgement(claim, verdict, f"{where}: {row['reading']}", None, fair)
    sizes = "memory at three sizes or more, a factor of 4 apart in tokens"
    return Judgement(claim, UNKNOWN, f"needs records of {claim.subject} with {sizes}; {MEASURE}")


def _operator(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> Judgement:
    """A claim on the speed of an operator alone, against fused attention, from the last rows timed in turn."""
    op, tokens = OPERATORS[claim.subject], (claim.res // 16) ** 2
    pairs = beside_attention(rows, op, tokens)
    if not pairs:
        how = f"'vbench kernels bench --op {op} --n {tokens} --device cuda' times it beside attention"
        return Judgement(claim, UNKNOWN, f"needs a GPU, and the operator by itself; {how}")
    own, attention = min(pairs, key=lambda pair: (*_preference(pair[0]), pair[0]["l2"] == "cold", pair[0]["batch"]))
    basis = (
        f"form {own['form']} against torch's fused attention of as many tokens at DeiT-T's width, on "
        f"{own.get('device_name')}, {own['dtype']}, batch {own['batch']}, {own['backend']}, caches "
        f"{own['l2']} ({FILE}, {own.get('started_at')})"
    )
    fair = _measured_ratio(attention, own, "ms", one_line(basis), ())
    if not _on_gpu(own):
        return Judgement(claim, UNKNOWN, f"needs a GPU; on this CPU: {fair}, {fair.basis}", None, fair)
    verdict, rule = verdict_of(claim, fair, fair)  # the paper's baseline is the fair one
    return Judgement(claim, verdict, f"{rule}: {fair}, {fair.basis}", None, fair)


@dataclass(frozen=True, slots=True)
class _Pair:
    """The row of the subject and the rows of the baseline, under one setting."""

    subject: dict[str, Any]
    baseline: dict[str, dict[str, Any]]  # by attention, "fused" or "unfused"
    setting: tuple[Any, ...]

    @property
    def where(self) -> str:
        """Device and setting, in words."""
        cell = self.subject
        rest = unusual(cell, [key for key in SETTING if key != "dtype"])
        rest += [f"batch {cell['batch']}"] if cell["batch_policy"] == "fixed" else []
        rest += ["tf32"] if cell["tf32"] else []
        return ", ".join([one_line(cell["device_name"]), str(cell["dtype"]), *rest])


def _measured(claim: Claim, table: pd.DataFrame) -> Judgement:
    """A claim on memory or speed: judged under the preferred setting; the reason names the other settings too."""
    pairs = _pairs(claim, table, claim.res)
    before = _pairs(claim, table, claim.res_from) if claim.res_from else []
    if not pairs:
        return Judgement(claim, UNKNOWN, f"needs a GPU, and records of both at {claim.res} px; {MEASURE}")
    first, *rest = (_judge_pair(claim, pair, before) for pair in pairs)
    others = "; ".join(
        f"{pair.where}: {one.verdict}" + (f" ({one.fair} fair)" if one.fair else "")
        for pair, one in zip(pairs[1:], rest, strict=True)
        if _on_gpu(pair.subject)  # they come first
    )
    return replace(first, reason=f"{first.reason}. Elsewhere: {others}") if others else first


def _judge_pair(claim: Claim, pair: _Pair, before: Sequence[_Pair]) -> Judgement:
    """The claim judged under one setting; `before` are the pairs at the smaller size, for a claim of growth."""
    ratios = {attention: _ratio(claim, pair, attention) for attention in ("fused", "unfused")}
    if claim.unit == "grows":
        smaller = next((one for one in before if one.setting == pair.setting), None)
        for attention, now in ratios.items():
            ratios[attention] = _grown(claim, "" if smaller is None else _ratio(claim, smaller, attention), now)
    ours = {attention: one for attention, one in ratios.items() if isinstance(one, OurValue)}
    why_not = [one for one in ratios.values() if isinstance(one, str)]
    fair, stated = ours.get("fused"), ours.get("unfused")
    words = "; ".join([*(f"{one} against {name} attention, {one.basis}" for name, one in ours.items()), *why_not])
    if not _on_gpu(pair.subject):
        return Judgement(claim, UNKNOWN, f"needs a GPU; on this CPU ({pair.where}): {words}", stated, fair)
    if claim.unit == "none":
        return Judgement(claim, UNKNOWN, f"the paper prints no number; {pair.where}: {words}", stated, fair)
    verdict, rule = verdict_of(claim, fair, stated)
    return Judgement(claim, verdict, f"{rule}; {pair.where}: {words}", stated, fair)


def verdict_of(claim: Claim, fair: OurValue | None, stated: OurValue | None) -> tuple[ClaimVerdict, str]:
    """The verdict from our values against fused and against unfused attention, and why."""
    if fair is None:
        return UNKNOWN, "fused attention was not measured"
    does, lacks = ("grows", "does not grow")
    if claim.ratio is not None:
        does, lacks = f"reaches {claim.ratio:.3g}×", f"does not reach {claim.ratio:.3g}×"
    if (holds := _supports(claim, fair)) is not False:
        unsure = f"the interval is too wide to tell whether it {does} against fused attention"
        return (HOLDS, f"{does} against fused attention") if holds else (UNKNOWN, unsure)
    if stated is None:
        return UNKNOWN, f"{lacks} against fused attention; unfused was not measured"
    if stated is fair:
        return FAILS, lacks
    if (unfused := _supports(claim, stated)) is None:
        return UNKNOWN, f"{lacks} against fused attention; against unfused the interval is too wide to tell"
    only = f"{does} against unfused attention, not against fused"
    return (UNFUSED, only) if unfused else (FAILS, f"{lacks} against fused attention, nor against unfused")


def _supports(claim: Claim, ours: OurValue) -> bool | None:
    """Whether a value supports the claim; None if it does not decide. Growth needs a whole interval above 1."""
    if claim.ratio is not None:
        return reaches(ours, claim.ratio * (1 - TOLERANCE))
    low, high = ours.bounds
    return True if low > 1 else False if high <= 1 else None


def _pairs(claim: Claim, table: pd.DataFrame, res: int) -> list[_Pair]:
    """The rows of both models under each setting, the preferred one first."""
    rows = _rows(table, (claim.subject, claim.baseline or ""), res)
    rows = rows.assign(batch_asked=batch_asked(rows))
    pairs = []
    for _, group in rows.groupby([*SETTING, "tf32"], sort=False, dropna=False):
        cells = rows_of(group)
        mine = _usual(claim.subject, [cell for cell in cells if cell["model"] == claim.subject])
        theirs = {str(cell["attention"]): cell for cell in cells if cell["model"] == claim.baseline}
        if mine is not None and theirs:
            pairs.append(_Pair(mine, theirs, tuple(cells[0][key] for key in (*SETTING, "tf32"))))
    return sorted(pairs, key=lambda pair: (_preference(pair.subject), -len(pair.baseline)))


def _preference(cell: Mapping[Any, Any]) -> tuple[Any, ...]:
    """A sort key: a GPU first, then half precision, where fused attention is fastest, then eager mode."""
    dtypes = ["bfloat16", "float16", "float32", cell["dtype"]]  # an unknown one comes last
    return not _on_gpu(cell), dtypes.index(cell["dtype"]), cell["backend"] != "eager"


def _on_gpu(cell: Mapping[Any, Any]) -> bool:
    return not on_host(str(cell["device"]))


def _usual(model: str, cells: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the form that is the default on the device, or the first that ended ok."""
    op = spec(model).operator
    order = sorted(cells, key=lambda cell: cell["status"] != "ok")
    own = [cell for cell in order if op and cell["form"] == default_form(op, "parallel", str(cell["device"]))]
    return next(iter([*own, *order]), None)


def _ratio(claim: Claim, pair: _Pair, attention: str) -> OurValue | str:
    """Our ratio, or in words why there is none."""
    theirs = pair.baseline.get(attention)
    if theirs is None:
        return f"{claim.baseline} was not measured with {attention} attention"
    if why := _why_nothing(pair.subject, "") or _why_nothing(theirs, f" with {attention} attention"):
        return why
    ids = (str(pair.subject["case_id"]), str(theirs["case_id"]))
    doubts, both = _doubts(pair.subject, theirs), f"both, {claim.subject} and {claim.baseline}"
    if claim.quantity == "memory":
        mine, other = (_bytes(cell, claim.batch or 1) for cell in (pair.subject, theirs))
        if mine is None or other is None:
            return f"no peak memory was measured of {both}"
        at = f"batch {claim.batch}, computed from batch 1 (weights once)" if claim.batch else "batch 1"
        return OurValue(other / mine, None, None, f"peak memory at {at}, no interval{doubts}", ids)
    if pair.subject["throughput_img_s"] is None or theirs["throughput_img_s"] is None:
        return f"no throughput was measured of {both}"
    batches = dict.fromkeys((str(pair.subject["batch"]), str(theirs["batch"])))
    basis = f"images/s at batch {' and '.join(batches)}{doubts}"
    return _measured_ratio(pair.subject, theirs, "throughput_img_s", basis, ids)


def _why_nothing(cell: Mapping[str, Any], how: str) -> str | None:
    """Why a row proves nothing, or None."""
    if cell["status"] != "ok":
        return f"{cell['model']}{how} at {cell['height']} px: {cell['status']}: {one_line(cell['reason'])}"
    why = proves_nothing(cell)
    return None if why is None else f"{why}, so its row proves nothing"


def _measured_ratio(
    above: Mapping[str, Any], below: Mapping[str, Any], column: str, basis: str, ids: tuple[str, ...]
) -> OurValue:
    """A ratio of two measured figures."""
    over = ratio(above, below, column)
    assert over is not None  # the caller has checked
    unknown = "" if over.lo is not None else ", interval not known"
    return OurValue(over.value, over.lo, over.hi, basis + unknown, ids)


def _grown(claim: Claim, first: OurValue | str, now: OurValue | str) -> OurValue | str:
    """The advantage now over that at the smaller size, or in words why there is none."""
    if isinstance(first, str) or isinstance(now, str):
        return next((one for one in (first, now) if isinstance(one, str) and one), f"no records at {claim.res_from} px")
    basis = f"an advantage of {first} at {claim.res_from} px and {now} at {claim.res} px, {now.basis}"
    times, ids, unit = now.value / first.value, (*first.case_ids, *now.case_ids), "× as large"
    if first.lo is None or first.hi is None or now.lo is None or now.hi is None:
        return OurValue(times, None, None, basis, ids, unit)
    down = math.hypot(math.log(now.value / now.lo), math.log(first.hi / first.value))
    up = math.hypot(math.log(now.hi / now.value), math.log(first.value / first.lo))
    return OurValue(times, times * math.exp(-down), times * math.exp(up), basis, ids, unit)


def _bytes(cell: dict[str, Any], batch: int) -> float | None:
    """Peak memory of a batch: the weights once, everything else once for each image."""
    peak, weights = cell["peak_memory_bytes"], cell["weights_bytes"]
    if peak is None or cell["memory_batch"] != 1 or (weights is None and batch > 1):
        return None
    return float(peak if batch == 1 else weights + batch * (peak - weights))


def _doubts(mine: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Why a ratio is doubtful, as text to append: flags of its rows, and versions in which they differ."""
    flags = [f"{cell['model']} {flag}" for cell in (mine, theirs) for flag in (cell["flags"] or "").split()]
    parts = [f"flags: {', '.join(dict.fromkeys(flags))}"] if flags else []
    parts += [f"rows differ in {version}" for version in VERSIONS if mine[version] != theirs[version]]
    return "".join(f", {part}" for part in parts)


def _rows(table: pd.DataFrame, models: Sequence[str], res: int | None) -> pd.DataFrame:
    """Rows of these models for inference in parallel mode on square images, of one side if `res` is given."""
    rows = table[table["model"].isin(list(models)) & (table["mode"] == "parallel") & (table["phase"] == "infer")]
    rows = rows.query("height == width")
    return rows if res is None else rows[rows["height"] == res]
