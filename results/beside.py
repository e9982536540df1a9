"""Our figures beside those that others measured on the same device, at the same size, batch and precision.

A condition that a source states must be equal: model, device, size, batch, phase and class of precision. One that it
does not state is named. All other conditions may differ, and are named too. Of several rows of ours that fit, the one
with the fewest differences is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vbench.plan import AUTOCAST
from vbench.results import scaling
from vbench.results.frame import proves_nothing, rows_of
from vbench.results.witnesses import Growth, Witness, card_of, growths, precision, witnesses

MIB = 2**20
WAY = ("dtype", "tf32", "layout", "backend", "torch", "attention", "form", "flags")  # rows alike in these differ alike
READ = (  # by what a row is set beside a witness
    *("device_name", "case_id", *WAY, "batch", "throughput_img_s", "throughput_img_s_lo", "throughput_img_s_hi"),
    *("latency_batch", "latency_ms", "latency_ms_lo", "latency_ms_hi"),
    *("memory_batch", "peak_memory_bytes", "weights_bytes", "model"),
)


@dataclass(frozen=True, slots=True)
class Beside:
    """A figure of ours, that of others, and what is not equal. `lo` and `hi` are our 95 % interval, if it is known."""

    witness: Witness
    device_name: str
    batch: int
    dtype: str
    ours: float  # in the unit of the witness
    lo: float | None
    hi: float | None
    case_id: str
    differs: tuple[str, ...]  # each "what: theirs against ours"
    unstated: tuple[str, ...]  # what the source does not say
    conditions: tuple[str, ...]  # what the source says beyond that

    @property
    def ratio(self) -> float:
        """Ours over theirs: more is faster for images/s, and larger for memory and time."""
        return self.ours / self.witness.value


def beside(table: pd.DataFrame) -> list[Beside]:
    """What of a frame (`frame.frame`) can be set beside a published figure, in the order of `witnesses`."""
    rows = _rows(table)
    found = []
    for device in rows["device_name"].unique():
        card = card_of(str(device))
        known = [] if card is None else [one for one in witnesses() if one.device == card]
        own = rows[rows["device_name"] == device] if known else rows.head(0)
        groups = dict(list(own.groupby(["model", "height", "phase"], sort=False)))
        for one in known:
            if (group := groups.get((one.model, one.res, one.phase))) is not None:
                found += _fitting(one, group)
    return found


def nearest(table: pd.DataFrame) -> str:
    """Why nothing can be set beside a published figure, in one line: what the nearest figures differ in."""
    rows = _rows(table)
    models, cards = set(rows["model"]), {card_of(str(name)) for name in rows["device_name"].unique()}
    own = [one for one in witnesses() if one.model in models]
    if not own:
        return "none: nobody has published a cost of these models on a device that we know by name"
    same = [one for one in own if one.device in cards]
    if not same:
        named = ", ".join(sorted({one.device for one in own}))
        devices = ", ".join(map(str, rows["device_name"].unique()[:3]))
        return f"none: {len(own)} figures of these models are of other devices ({named}), not of {devices}"
    sizes = ", ".join(map(str, sorted({one.res for one in same})))
    batches = ", ".join(map(str, sorted({one.batch for one in same if one.batch is not None})))
    return (
        f"none: {len(same)} figures of these models on this device are at {sizes} px and batch {batches}; no row has "
        "the size, batch, phase and precision of one"
    )


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """The measured rows that may have a witness: parallel mode, square images, models that somebody measured."""
    known = {one.model for one in witnesses()}
    rows = table[table["model"].isin(known)]
    rows = rows[(rows["mode"] == "parallel") & (rows["status"] == "ok") & (rows["height"] == rows["width"])]
    return rows[rows["reparam"] == "no"]


def _fitting(one: Witness, group: pd.DataFrame) -> list[Beside]:
    """The row of a group of one model, size and phase that differs least from a witness, or none."""
    column = {"throughput_img_s": "batch", "latency_ms": "latency_batch", "peak_memory_mib": None}[one.quantity]
    if column is not None and one.batch is not None:
        group = group[group[column] == one.batch]
    if one.batch is None and one.quantity != "throughput_img_s":
        return []  # the time and the memory of a call depend on a batch that nobody states
    alike = [*WAY, "batch"] if one.batch is None else [*WAY, "memory_batch"]
    group = group[list(READ)].drop_duplicates(alike)  # of many rows, one each
    found = [fit for cell in rows_of(group) if (fit := _fit(one, cell)) is not None]
    if one.dtype:
        return [min(found, key=_rank)] if found else []
    each = [[fit for fit in found if fit.dtype == dtype] for dtype in dict.fromkeys(fit.dtype for fit in found)]
    return [min(own, key=_rank) for own in each]  # of a precision that is not stated, one row for each of ours


def _rank(fit: Beside) -> tuple[int, int]:
    """A sort key: the fewest differences first, then the largest batch."""
    return len(fit.differs), -fit.batch


def _fit(one: Witness, cell: Mapping[str, Any]) -> Beside | None:
    """A row beside a witness of its model, size and phase; None if the batch or the precision is another one."""
    value, differs = _ours(one, cell)
    if value is None or proves_nothing(cell) is not None or not _as_precise(one.dtype, cell):
        return None
    differs = [*_differences(one, cell), *differs]
    batch = int(cell["batch"]) if one.quantity == "throughput_img_s" else one.batch
    assert batch is not None
    lo, hi = (cell.get(f"{one.quantity}_{end}") for end in ("lo", "hi"))
    device, dtype = str(cell["device_name"]), str(cell["dtype"])
    told = (device, batch, dtype, value, lo, hi, str(cell["case_id"]))
    return Beside(one, *told, tuple(differs), tuple(_unstated(one)), one.conditions)


def _ours(one: Witness, cell: Mapping[str, Any]) -> tuple[float | None, list[str]]:
    """Our figure in the unit of a witness, and how it was computed if it was not measured so."""
    if one.quantity != "peak_memory_mib":
        return cell[one.quantity], []
    peak, weights, at = cell["peak_memory_bytes"], cell["weights_bytes"], cell["memory_batch"]
    if peak is None or one.batch is None:
        return None, []
    if at == one.batch:
        return peak / MIB, []
    if at != 1 or weights is None or one.phase != "infer":
        return None, []
    computed = f"memory: measured against computed from batch 1, weights once and the rest {one.batch} times"
    return (weights + one.batch * (peak - weights)) / MIB, [computed]


def _as_precise(theirs: str, cell: Mapping[str, Any]) -> bool:
    """Whether a row has a precision of the class of theirs; so has every row if theirs is not stated."""
    own = precision(str(cell["dtype"]))
    classes = {own, "tf32"} if own == "float32" and cell["tf32"] else {own}
    return not theirs or precision(theirs) in classes


def _differences(one: Witness, cell: Mapping[str, Any]) -> list[str]:
    """What the source states otherwise than our row has it."""
    dtype, autocast = str(cell["dtype"]), one.dtype == "amp" and cell["dtype"] in AUTOCAST
    theirs = {
        "device": (one.device, str(cell["device_name"])),
        "precision": (dtype if autocast or precision(one.dtype) == "tf32" else one.dtype, dtype),
        "layout": (one.layout, str(cell["layout"])),
        "back end": (one.backend, str(cell["backend"])),
        "torch": (one.torch, ".".join(str(cell["torch"]).split(".")[:2])),
    }
    found = [f"{what}: {their} against {ours}" for what, (their, ours) in theirs.items() if their not in ("", ours)]
    if one.phase == "train" and "without the update" in one.conditions:
        found.append("training: forward and backward against these and AdamW's update")
    if cell["attention"] not in (None, "fused"):
        found.append(f"attention: not stated against {cell['attention']}")
    return found


def _unstated(one: Witness) -> list[str]:
    """What the source does not say."""
    stated: dict[str, object] = {
        "batch": one.batch,
        "precision": one.dtype,
        "TF32": one.dtype not in ("float32", ""),
        "layout": one.layout,
        "back end": one.backend,
        "CPU threads": not one.device.startswith("Core"),
    }
    return [what for what, is_stated in stated.items() if not is_stated]


@dataclass(frozen=True, slots=True)
class GrowthBeside:
    """How the time of an image grows, in a published table and in ours. `lo` and `hi` are our 95 % interval."""

    theirs: Growth
    exponent: float
    lo: float | None
    hi: float | None
    sides: int  # sizes that ours was fitted over

    @property
    def same_side(self) -> bool:
        """Whether both exponents lie on the same side of 1."""
        return (self.theirs.exponent > 1) == (self.exponent > 1)


def grown(table: pd.DataFrame) -> dict[str, list[GrowthBeside]]:
    """The exponents of time an image beside the published ones, by what our rows have in common in words.

    A group has the models of one phase and setting, two at least: their order is what is compared. The device need not
    be the same.
    """
    known = {(one.model, one.phase): one for one in growths()}
    rows = table[table["model"].isin({model for model, _ in known}) & (table["mode"] == "parallel")]
    rows = rows[(rows["height"] == rows["width"]) & (rows["status"] == "ok")]
    if rows["model"].nunique() < 2:
        return {}
    fits = scaling.exponents(rows, ("ms_per_image",))
    found: dict[str, list[GrowthBeside]] = {}
    for fit in rows_of(fits):
        theirs = known.get((str(fit["model"]), str(fit["phase"])))
        if theirs is None or fit["attention"] not in (None, "fused"):
            continue
        words = [fit[key] for key in ("device_name", "dtype", "phase", "backend", "layout")]
        under = ", ".join([*map(str, words), f"batch {fit['batch_asked']}"])
        ours = GrowthBeside(theirs, fit["exponent"], fit["exponent_lo"], fit["exponent_hi"], int(fit["points"]))
        own = found.setdefault(under, [])
        if all(one.theirs.model != theirs.model for one in own):
            own.append(ours)
    return {under: own for under, own in found.items() if len(own) > 1}


def order(own: list[GrowthBeside]) -> str:
    """Whether both tables order the models alike, and lie on the same side of linear, in words."""
    theirs, ours = (sorted(own, key=key) for key in (lambda one: one.theirs.exponent, lambda one: one.exponent))
    names = [" < ".join(one.theirs.model for one in each) for each in (theirs, ours)]
    same = f"the same order, {names[0]}" if theirs == ours else f"theirs {names[0]}; ours {names[1]}"
    other = [one.theirs.model for one in own if not one.same_side]
    side = f"{', '.join(other)} on another side of 1" if other else "all on the same side of 1"
    return f"{same}; {side}"
