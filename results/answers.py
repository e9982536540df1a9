"""Answers in sentences, computed from rows: ratios to attention, crossovers, and how costs grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isnan, log
from typing import Literal

import pandas as pd

from vbench.models.row import distance, nearest
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.axes import SETTING, SUBJECT, differing, said
from vbench.results.frame import apart, batch_asked, proves_nothing, rows_of
from vbench.results.known import gaps
from vbench.results.models import attention_models
from vbench.results.ratios import BATCHES, Ratio, ratio
from vbench.results.scaling import COSTS, crossing, exponents
from vbench.results.text import listed, px

SHOWN = (1024, 1024)  # px; the size of the papers' claims, shown beside the largest size
FEW = 2  # sizes of which each has its answer
LIKE = 1.25  # if parameters differ by this factor or more, the answer says so
COMPARED = {"macs": "the MACs", "latency_ms": "the time", "peak_memory_bytes": "the peak memory"}
MEASURED = ("latency_ms", "peak_memory", "throughput")  # the beginnings of columns
CROSSED = ("latency_ms", "peak_memory_bytes")
GROWN = ("macs_executed", "latency_ms")


@dataclass(frozen=True, slots=True)
class Answer:
    """One sentence about one model."""

    model: str
    kind: Literal["ratio", "crossover", "growth", "accuracy"]
    text: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A recurrent model in one mode and form, and the attention model it is compared with, under the same settings."""

    model: str
    subject: str  # the model and its mode
    baseline: str
    under: str  # ", " and the form and settings that must be named; may be empty
    mine: pd.DataFrame  # one row for each size; the index is (height, width)
    theirs: pd.DataFrame


def answers(table: pd.DataFrame, accuracy: Sequence[MeasuredAccuracy] = ()) -> list[Answer]:
    """All answers of a frame: ratios, then crossovers, then growth. Unsupported cells are left out.

    Args:
        accuracy: what was measured of models in the frame; last comes where it is not what papers print.
    """
    table = _asked(table)
    found, known = pairs(table), set(table["model"])
    return [
        *(answer for pair in found for answer in _ratios(pair)),
        *(answer for pair in found for answer in _crossovers(pair)),
        *_growth(table),
        *(
            Answer(gap.measured.model, "accuracy", f"{gap.text}.")
            for gap in gaps(accuracy)
            if gap.measured.model in known
        ),
    ]


def ratios(table: pd.DataFrame) -> list[Answer]:
    """The ratios among the answers of a frame, small images first."""
    return [answer for pair in pairs(table) for answer in _ratios(pair)]


def pairs(table: pd.DataFrame) -> list[Pair]:
    """Each recurrent model in each mode and form, with the attention model that is nearest in parameters.

    Both have at least one size in common under the same settings. An attention model has no operator. Of several rows
    of one size, the one that was measured last is taken.
    """
    table = _asked(table)
    told, attends = differing(table, SETTING), attention_models(table)
    forms = (table.groupby(["model", "mode"])["form"].nunique() > 1).to_dict()
    found = []
    for _, rows in table.groupby([key for key in SETTING if key in table], sort=False, dropna=False):
        under = [said(key, rows[key].iloc[0]) for key in told if not pd.isna(rows[key].iloc[0])]
        subjects = [
            (str(who[0]), who[1:], _by_size(own)) for who, own in rows.groupby(list(SUBJECT), sort=False, dropna=False)
        ]
        baselines = [(*each, set(each[2].index), params_of(each[2])) for each in subjects if each[0] in attends]
        for model, (mode, form, _), mine in subjects:
            if model in attends:
                continue
            beside = [each for each in baselines if not each[3].isdisjoint(mine.index)]
            place = nearest(params_of(mine), [params for *_, params in beside])
            if place is None:
                continue
            own_form = [f"form {form}"] if forms.get((model, mode)) else []
            words = "".join(f", {part}" for part in [*own_form, *under])
            for baseline, (_, _, attention), theirs, *_ in beside:
                if baseline == beside[place][0]:
                    unusual = isinstance(attention, str) and attention != "fused"
                    named = f"{baseline} {attention}" if unusual else baseline
                    found.append(Pair(model, f"{model} {mode}", named, words, mine, theirs))
    return found


def _by_size(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows by (height, width): of each size the last that was begun."""
    size = ["height", "width"]
    if rows.duplicated(size).any():
        rows = rows.sort_values("started_at", kind="stable").drop_duplicates(size, keep="last")
    return rows.set_index(size).sort_index()


def _asked(table: pd.DataFrame) -> pd.DataFrame:
    """The rows without unsupported cells, and with `batch_asked`, the batch or policy that was asked for.

    A row that proves nothing (`frame.WRONG`) is an error, with the reason and without measured figures.
    """
    table = table[table["status"] != "unsupported"].copy()
    table["batch_asked"] = batch_asked(table)
    why = [proves_nothing(row) for row in rows_of(table[["model", "flags"]])]
    wrong = [each is not None for each in why]
    table.loc[wrong, "status"] = "error"
    table.loc[wrong, "reason"] = [each for each in why if each is not None]
    measured = [column for column in table if str(column).startswith(MEASURED)]
    table.loc[wrong, measured] = pd.NA
    return table


def params_of(rows: pd.DataFrame) -> float:
    """The parameters of a model, from its rows; NaN if unknown."""
    known = rows["params"].dropna()
    return float(known.iloc[0]) if len(known) else float("nan")


def _ratios(pair: Pair) -> Iterator[Answer]:
    for size in _sizes(pair):
        mine, theirs = pair.mine.loc[[size]], pair.theirs.loc[[size]]
        known = {cost: ratio(mine.iloc[0], theirs.iloc[0], cost) for cost in COMPARED}
        needed = [_needed(found, COMPARED[cost]) for cost, found in known.items() if found]
        lacking = [COMPARED[cost] for cost, found in known.items() if not found]
        batches = {int(value) for column in BATCHES.values() for value in mine[column].dropna()}
        at = [f"batch {batch}" for batch in batches] if len(batches) == 1 else []
        at += [_parameters(pair)] if not distance(params_of(pair.mine), params_of(pair.theirs)) < log(LIKE) else []
        under = f" ({'; '.join(at)}){pair.under}" if at else pair.under
        needs = f"needs {listed(needed)} of" if needed else "is not compared with"
        text = f"At {px(*size)} px {pair.subject} {needs} {pair.baseline}{under}"
        if lacking:
            text += f"; {listed(lacking)} cannot be compared: {_why(pair, mine, theirs)}"
        yield Answer(pair.model, "ratio", f"{text}.")


def _needed(found: Ratio, cost: str) -> str:
    """ "0.41× the time (0.40–0.42, in turns)"."""
    return " ".join(filter(None, [found.times, cost, found.extent]))


def _sizes(pair: Pair) -> list[tuple[int, int]]:
    """The papers' size, the largest size asked of both, and the largest size measured in both; of `FEW` sizes all."""
    common = sorted(pair.mine.index.intersection(pair.theirs.index), key=lambda size: size[0] * size[1])
    well = [set(own.index[own["status"] == "ok"]) for own in (pair.mine, pair.theirs)]
    if len(common) <= FEW:
        return common
    both = [size for size in common if all(size in own for own in well)]
    shown = {*([SHOWN] if SHOWN in common else []), *common[-1:], *both[-1:]}
    return [size for size in common if size in shown]


def _why(pair: Pair, mine: pd.DataFrame, theirs: pd.DataFrame) -> str:
    ended = []
    for name, row in ((pair.subject, mine), (pair.baseline, theirs)):
        status, reason = row["status"].iloc[0], row["reason"].iloc[0]
        if status != "ok":
            ended.append(f"{name} ended in {status}" + ("" if pd.isna(reason) else f" ({reason})"))
    return " and ".join(ended) or "not measured on both sides, or not at the same batch"


def _parameters(pair: Pair) -> str:
    mine, theirs = (params_of(own) for own in (pair.mine, pair.theirs))
    if isnan(mine) or isnan(theirs):
        return "parameters not known"
    return f"{mine / 1e6:.1f} M parameters against {theirs / 1e6:.1f} M"


def _crossovers(pair: Pair) -> Iterator[Answer]:
    for cost in CROSSED:
        found = crossing(pair.mine.reset_index(), pair.theirs.reset_index(), (pair.subject, pair.baseline), cost)
        if found:
            yield Answer(pair.model, "crossover", f"{found.reading}{pair.under}.")


def _growth(table: pd.DataFrame) -> Iterator[Answer]:
    found = exponents(table, GROWN)
    modes = table.groupby("model")["mode"].nunique().to_dict()
    told, ways = differing(found, SETTING), apart(found)
    for row in found.to_dict("records"):
        parts = [row["mode"]] if modes[row["model"]] > 1 else []
        parts += [said(key, row[key]) for key in told if not pd.isna(row[key])]
        parts += [row[key] for key in ways if not pd.isna(row[key])]
        named = "".join(f", {part}" for part in parts)
        yield Answer(row["model"], "growth", f"{COSTS[row['cost']]} of {row['model']}{named}: {row['reading']}.")
