"""Rows of two models under equal settings, and the ratios of memory and speed that they give.

A ratio of speed is formed at one batch: the one that the claim states, if both have it; otherwise the largest that both
have and that gives an interval. Under the policy `max` both have the largest batch that fits, which may differ. Where
both were measured only at batches of their own (`knee`), the times of a call at batch 1 are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vbench.devices import on_host
from vbench.kernels.registry import default_form
from vbench.models.registry import spec
from vbench.results.axes import SETTING, VERSIONS, unusual
from vbench.results.claim_judgement import OurValue
from vbench.results.claims import Claim
from vbench.results.frame import batch_asked, proves_nothing, rows_of
from vbench.results.ratios import ratio
from vbench.results.text import tame

SCALED = 0.1  # of a ratio of two peaks computed for a larger batch: a test holds the simulated allocator to it
NONE = "none"  # the attention of a baseline with an operator of ours
UNDER = tuple(key for key in SETTING if key != "batch_asked")
BATCHES = "--batch 1,8,32"

Cell = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """The rows of the subject and of the baseline under one setting, each at several batches."""

    subject: tuple[dict[str, Any], ...]
    baseline: dict[str, tuple[dict[str, Any], ...]]  # by attention: "fused", "unfused" or `NONE`
    setting: tuple[Any, ...]

    @property
    def where(self) -> str:
        """Device and setting, in words."""
        cell = self.subject[0]
        rest = unusual(cell, [key for key in UNDER if key != "dtype"])
        rest += ["tf32"] if cell["tf32"] else []
        return ", ".join([tame(cell["device_name"]), str(cell["dtype"]), *rest])

    @property
    def on_gpu(self) -> bool:
        return on_gpu(self.subject[0])


def pairs(claim: Claim, table: pd.DataFrame, res: int) -> list[Pair]:
    """The rows of both models under each setting, the preferred one first."""
    rows = square(table, (claim.subject, claim.baseline or ""), res, claim.phase)
    rows = rows.assign(batch_asked=batch_asked(rows))
    found = []
    for _, group in rows.groupby([*UNDER, "tf32"], sort=False, dropna=False):
        cells = rows_of(group)
        mine = _usual(claim.subject, [cell for cell in cells if cell["model"] == claim.subject])
        theirs: dict[str, tuple[dict[str, Any], ...]] = {}
        for cell in cells:
            if cell["model"] == claim.baseline:
                attention = cell["attention"] or NONE
                theirs[attention] = (*theirs.get(attention, ()), cell)
        if mine and theirs:
            found.append(Pair(mine, theirs, tuple(cells[0][key] for key in (*UNDER, "tf32"))))
    return sorted(found, key=lambda pair: (preference(pair.subject[0]), -len(pair.baseline)))


def square(table: pd.DataFrame, models: Sequence[str], res: int | None, phase: str = "infer") -> pd.DataFrame:
    """Rows of these models in parallel mode on square images, of one side in px if `res` is given."""
    rows = table[table["model"].isin(list(models)) & (table["mode"] == "parallel") & (table["phase"] == phase)]
    rows = rows.query("height == width")
    return rows if res is None else rows[rows["height"] == res]


def preference(cell: Mapping[Any, Any]) -> tuple[Any, ...]:
    """A sort key: a GPU first, then half precision, where fused attention is fastest, then eager mode.

    Training is compared under autocast first, as the papers train.
    """
    autocast = ["amp-bf16", "amp-fp16"] if cell.get("phase") == "train" else []
    dtypes = [*autocast, "bfloat16", "float16", "float32", cell["dtype"]]  # an unknown one comes last
    return not on_gpu(cell), dtypes.index(cell["dtype"]), cell["backend"] != "eager"


def on_gpu(cell: Mapping[Any, Any]) -> bool:
    """Whether a row was measured on an accelerator."""
    return not on_host(str(cell["device"]))


def _usual(model: str, cells: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """For each batch the row of the form that is the default on the device, or the first that ended ok."""
    op = spec(model).operator
    order = sorted(cells, key=lambda cell: cell["status"] != "ok")
    own = [cell for cell in order if op and cell["form"] == default_form(op, "parallel", str(cell["device"]))]
    first: dict[Any, dict[str, Any]] = {}
    for cell in [*own, *order]:
        first.setdefault(cell["batch_asked"], cell)
    return tuple(first.values())


def ratio_of(claim: Claim, pair: Pair, attention: str) -> OurValue | str:
    """The baseline's cost over the subject's, or in words why there is none."""
    tried = _tried(claim, pair, attention)
    found = [one for one in tried.values() if isinstance(one, OurValue)]
    with_interval = [one for one in found if one.bounds is not None]
    return next(iter([*with_interval, *found, *tried.values()]))


def grown(claim: Claim, before: Pair | None, now: Pair, attention: str) -> OurValue | str:
    """The advantage at the claim's size over that at `res_from`, both at one batch; or in words why there is none."""
    if before is None:
        return f"no records at {claim.res_from} px"
    first, last = _tried(claim, before, attention), _tried(claim, now, attention)
    found: list[OurValue] = []
    for at in last:
        one, other = first.get(at), last[at]
        if isinstance(one, OurValue) and isinstance(other, OurValue):
            found.append(_growth(claim, one, other))
    if found:
        return next((one for one in found if one.bounds is not None), found[0])
    why = [one for one in (*first.values(), *last.values()) if isinstance(one, str)]
    return next(iter(why), f"no batch was measured at both sizes; give {BATCHES}")


def _tried(claim: Claim, pair: Pair, attention: str) -> dict[str, OurValue | str]:
    """Each way to form the ratio, the preferred one first: its name, and the value or why there is none."""
    theirs = pair.baseline.get(attention)
    if theirs is None:
        how = "" if attention == NONE else f" with {attention} attention"
        return {"": f"{claim.baseline} was not measured{how}"}
    both = [(own, other) for own in pair.subject for other in theirs if own["batch_asked"] == other["batch_asked"]]
    if not both:
        asked = [", ".join(str(cell["batch_asked"]) for cell in cells) for cells in (pair.subject, theirs)]
        return {"": f"batches asked for differ: {asked[0]} of {claim.subject}, {asked[1]} of {claim.baseline}"}
    found: dict[str, OurValue | str] = {}
    sound = []
    for own, other in sorted(both, key=lambda two: _order(claim, *two)):
        why = _why_nothing(own, "") or _why_nothing(other, "" if attention == NONE else f" with {attention} attention")
        if why is None:
            sound.append((own, other))
        found[str(own["batch_asked"])] = why or (
            _memory(claim, own, other) if claim.quantity == "memory" else _speed(claim, own, other)
        )
    if claim.quantity == "speed" and (latency := _latency(claim, sound, found)):
        found["latency"] = latency
    return found


def _order(claim: Claim, own: Cell, other: Cell) -> tuple[Any, ...]:
    """A sort key: of memory the measured batch, then the least; of speed the stated batch, then the largest."""
    batch = own["batch"] or 0
    if claim.quantity == "memory":
        return own["memory_batch"] != (claim.batch or 1), batch
    return batch != claim.batch, own["batch"] != other["batch"], -batch


def _memory(claim: Claim, own: Cell, other: Cell) -> OurValue | str:
    batch = claim.batch or 1
    mine, theirs = (_bytes(cell, batch) for cell in (own, other))
    if mine is None or theirs is None:
        return f"no peak memory was measured of both, {claim.subject} and {claim.baseline}"
    ids, value, doubts = _ids(own, other), theirs / mine, _doubts(own, other)
    if own["memory_batch"] == other["memory_batch"] == batch:
        counted = on_gpu(own)  # the allocator of a GPU counts bytes
        basis = f"peak memory at batch {batch}{', as the allocator counts it' if counted else ''}{doubts}"
        return OurValue(value, None, None, basis, ids, exact=counted)
    basis = f"peak memory at batch {batch}, computed from batch 1 (weights once; ±{SCALED:.0%}){doubts}"
    return OurValue(value, value * (1 - SCALED), value * (1 + SCALED), basis, ids)


def _speed(claim: Claim, own: Cell, other: Cell) -> OurValue | str:
    """The ratio of images/s."""
    if own["throughput_img_s"] is None or other["throughput_img_s"] is None:
        return f"no throughput was measured of both, {claim.subject} and {claim.baseline}"
    batches = " and ".join(dict.fromkeys((str(own["batch"]), str(other["batch"]))))
    fits = ", the largest that fit" if own["batch_policy"] == "max" else ""
    found = measured(own, other, "throughput_img_s", f"images/s at batch {batches}{fits}{_doubts(own, other)}")
    return found or f"images/s at batch {batches} are not compared: give {BATCHES}"


def _latency(
    claim: Claim, both: Sequence[tuple[Cell, Cell]], others: Mapping[str, OurValue | str]
) -> OurValue | str | None:
    """The ratio of times of a call at batch 1, with why there is none of images/s."""
    why = next((one for one in others.values() if isinstance(one, str)), "")
    for own, other in both:
        if own["latency_batch"] == 1 and own["latency_ms"] and other["latency_ms"]:
            basis = f"time a call at batch 1{_doubts(own, other)}" + (f" ({why})" if why else "")
            if found := measured(other, own, "latency_ms", basis):
                return found
    return None


def measured(
    above: Mapping[str, Any], below: Mapping[str, Any], column: str, basis: str, ids: tuple[str, ...] | None = None
) -> OurValue | None:
    """A ratio of two measured figures; None if they cannot be compared (`ratios.ratio`)."""
    over = ratio(above, below, column)
    if over is None:
        return None
    return OurValue(over.value, over.lo, over.hi, basis, _ids(above, below) if ids is None else ids)


def _ids(*cells: Cell) -> tuple[str, ...]:
    return tuple(str(cell["case_id"]) for cell in cells)


def _growth(claim: Claim, first: OurValue, now: OurValue) -> OurValue:
    basis = f"an advantage of {first} at {claim.res_from} px and {now} at {claim.res} px, {now.basis}"
    times, ids, unit = now.value / first.value, (*first.case_ids, *now.case_ids), "× as large"
    if first.exact and now.exact:
        return OurValue(times, None, None, basis, ids, unit, exact=True)
    if first.bounds is None or now.bounds is None:
        return OurValue(times, None, None, basis, ids, unit)
    (first_lo, first_hi), (lo, hi) = first.bounds, now.bounds
    down = math.hypot(math.log(now.value / lo), math.log(first_hi / first.value))
    up = math.hypot(math.log(hi / now.value), math.log(first.value / first_lo))
    return OurValue(times, times * math.exp(-down), times * math.exp(up), basis, ids, unit)


def _why_nothing(cell: Cell, how: str) -> str | None:
    """Why a row proves nothing, or None."""
    if cell["status"] != "ok":
        return f"{cell['model']}{how} at {cell['height']} px: {cell['status']}: {tame(cell['reason'])}"
    why = proves_nothing(cell)
    return None if why is None else f"{why}, so its row proves nothing"


def _bytes(cell: Cell, batch: int) -> float | None:
    """Peak memory of a batch: as measured; or from batch 1, the weights once, everything else once for each image."""
    peak, weights = cell["peak_memory_bytes"], cell["weights_bytes"]
    if peak is None or cell["memory_batch"] not in (1, batch) or (weights is None and cell["memory_batch"] != batch):
        return None
    return float(peak if cell["memory_batch"] == batch else weights + batch * (peak - weights))


def _doubts(*cells: Cell) -> str:
    """Why a ratio is doubtful, as text to append: flags of its rows, and versions in which they differ."""
    flags = [f"{cell['model']} {flag}" for cell in cells for flag in (cell["flags"] or "").split()]
    parts = [f"flags: {', '.join(dict.fromkeys(flags))}"] if flags else []
    parts += [f"rows differ in {key}" for key in VERSIONS if len({cell[key] for cell in cells}) > 1]
    return "".join(f", {part}" for part in parts)
