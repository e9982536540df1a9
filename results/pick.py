"""The best cell under a budget, from records alone: the most accurate model, size, batch, dtype and mode that fits.

A cell meets a limit if the whole 95 % interval of its cost does: *yes*. If the limit lies within the interval, or the
interval is not known, that is *open*; a cost above the limit is *no*. Peak memory has no interval. A GPU's allocator
counts bytes, which are exact; of a CPU, and of energy, the value decides. Beside a limit on throughput, memory is that
of the batch of the throughput: if it was measured at another, it is computed (weights once) and known to
`claim_pairs.SCALED`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from vbench.devices import on_host
from vbench.errors import UsageError
from vbench.results import rates
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.axes import PARTS, differing, said
from vbench.results.claim_pairs import SCALED
from vbench.results.frame import STATED, batch_asked, proves_nothing, rows_of
from vbench.results.known import Accuracies, Known
from vbench.results.mcnemar import ALPHA, Metric, pair, together
from vbench.results.statistics import CONFIDENCE
from vbench.results.text import listed, px, tame

Meets = Literal["yes", "open", "no"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of limit: the column of the frame that it limits, in `unit`s of that column."""

    option: str
    column: str
    unit: float
    words: str  # of the cost
    symbol: str  # of the unit
    least: bool = False  # whether the cost must reach the limit, where others must not exceed it


KINDS = {
    kind.option: kind
    for kind in (
        Kind("latency_ms", "latency_ms", 1.0, "latency", "ms"),
        Kind("throughput", "throughput_img_s", 1.0, "throughput", "images/s", least=True),
        Kind("memory_gb", "peak_memory_bytes", 1e9, "peak memory", "GB"),
        Kind("energy_j", "energy_j_per_image", 1.0, "energy", "J/image"),
        Kind("cost", rates.COST, 1.0, "cost", "/10⁶ images"),
        Kind("emissions_g", rates.EMISSIONS, 1.0, "gCO₂", "g/10⁶ images"),
    )
}
Budget = Mapping[str, float]  # {option: limit}, in the order of `KINDS`


def said_budget(budget: Budget) -> str:
    """ "latency ≤ 20 ms, peak memory ≤ 4 GB"."""
    return ", ".join(
        f"{KINDS[o].words} {'≥' if KINDS[o].least else '≤'} {v:g} {KINDS[o].symbol}" for o, v in budget.items()
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost in the unit of its limit, the ends of its interval if they are known, and whether it meets the limit."""

    value: float
    lo: float | None
    hi: float | None
    meets: Meets

    def __str__(self) -> str:
        known = self.lo is not None and self.hi is not None and self.lo < self.hi
        return f"{self.value:.4g}" + (f" ({self.lo:.4g}–{self.hi:.4g})" if known else "")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cell with all costs of the budget and an accuracy."""

    label: str  # model, mode and the settings in which cells of this device differ
    row: Mapping[str, Any]  # of the frame
    accuracy: Known
    costs: Mapping[str, Cost]  # by option
    front: bool  # no cell is as accurate at no more of every cost of the budget, and better in one of them

    @property
    def meets(self) -> Meets:
        """The least sure answer of its costs."""
        found = {cost.meets for cost in self.costs.values()}
        return "no" if "no" in found else "open" if "open" in found else "yes"

    @property
    def size(self) -> str:
        return px(self.row["height"], self.row["width"])

    @property
    def name(self) -> str:
        """ "vig_t parallel at 512 px"."""
        return f"{self.label} at {self.size} px"


@dataclass(frozen=True, slots=True)
class Pick:
    """The answer for one device by one metric, "top1" or "top5".

    `best` is None if nothing meets the budget. `alike` are cells that meet it, or may, and whose accuracy cannot be
    told from that of the best, each with why. `hopeful` are more accurate than the best, if they meet the budget, which
    is open. `left_out` counts the other cells by why.
    """

    device: str
    budget: Budget
    metric: Metric
    best: Candidate | None
    alike: tuple[tuple[Candidate, str], ...]
    hopeful: tuple[Candidate, ...]
    candidates: tuple[Candidate, ...]  # all, those over the budget too, the most accurate first
    left_out: tuple[tuple[str, int, str], ...]  # why, how many, which
    notes: tuple[str, ...]

    @property
    def front(self) -> tuple[Candidate, ...]:
        """The Pareto front, the most accurate first."""
        return tuple(one for one in self.candidates if one.front)


def parse(limits: Mapping[str, float | None]) -> Budget:
    """The limits that were given. Raises: UsageError for none, or for one that is not a positive finite number."""
    for option, value in limits.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"--{option.replace('_', '-')}: {value:g} is not a positive number")
    found = {option: float(value) for option in KINDS if (value := limits.get(option)) is not None}
    if not found:
        raise UsageError(f"give a budget: {', '.join('--' + option.replace('_', '-') for option in KINDS)}, or several")
    return found


def check_rates(budget: Budget, asked: rates.Rates) -> None:
    """Raises: UsageError for a limit without the rate that it needs, and for a rate without its limit."""
    needs = (("cost", "price", asked.price, "2.5/h"), ("emissions_g", "carbon-intensity", asked.carbon, "400"))
    for option, other, value, example in needs:
        name = f"--{option.replace('_', '-')}"
        if option in budget and value is None:
            raise UsageError(f"{name}: needs a rate; give --{other} too, as in --{other} {example}")
        if option not in budget and value is not None:
            raise UsageError(f"--{other}: no limit needs it; give {name} too, or leave it out")


def parse_sizes(text: str) -> Callable[[int, int], bool]:
    """Which sizes "224:1024,512x1024" lets through: a range takes every size whose two sides lie within it.

    Raises: UsageError for what is neither a size nor a range.
    """
    allowed: list[tuple[int, int, int, int]] = []
    for item in (part.strip() for part in text.split(",")):
        ends = item.split(":") if ":" in item else [item, item]
        sides = [[int(side) if side.isdecimal() and len(side) < 6 else 0 for side in end.split("x")] for end in ends]
        if len(sides) != 2 or not all(len(end) in (1, 2) and all(end) for end in sides) or sides[0] > sides[1]:
            raise UsageError(f"--res: '{item}' is neither a size nor a range; write it like 224:1024,512x1024")
        (low, *low_w), (high, *high_w) = sides
        allowed.append((low, high, (low_w or [low])[0], (high_w or [high])[0]))
    return lambda height, width: any(h0 <= height <= h1 and w0 <= width <= w1 for h0, h1, w0, w1 in allowed)


def pick(
    table: pd.DataFrame,
    budget: Budget,
    known: Accuracies,
    within: Callable[[int, int], bool] = lambda height, width: True,
) -> list[Pick]:
    """The best cell of each device of a frame, among its rows of inference.

    Args:
        within: which sizes (height, width) in px are asked for.

    Raises: UsageError if no row is of inference at such a size, or as `mcnemar.pair`.
    """
    asked = [within(int(h), int(w)) for h, w in zip(table["height"], table["width"], strict=True)]
    rows = table[(table["phase"] == "infer") & pd.Series(asked, index=table.index, dtype=bool)]
    if rows.empty:
        raise UsageError("no row is of inference at a size that was asked for; give other runs, or another --res")
    return [_of_device(str(name), own, budget, known) for name, own in rows.groupby("device_name", dropna=False)]


def _of_device(device: str, table: pd.DataFrame, budget: Budget, known: Accuracies) -> Pick:
    rows, labels = rows_of(table), _labels(table)
    out: dict[str, list[str]] = {}
    found: list[tuple[str, dict[str, Any], Known, dict[str, Cost]]] = []
    for row, label in zip(rows, labels, strict=True):
        accuracy = known.of(row["model"], row["height"], row["width"], row["dtype"])
        costs = {option: cost(row, option, budget) for option in budget}
        lacking = [_lacking(row, option) for option, one in costs.items() if one is None]
        size = px(row["height"], row["width"])
        if row["status"] != "ok":
            why, which = str(row["status"]), label if row["mode"] in label.split() else f"{label} {row['mode']}"
        elif (wrong := proves_nothing(row)) is not None:
            why, which = wrong, label
        elif accuracy is None:
            why, which = "no accuracy known", row["model"]
        elif lacking:
            why, which = f"{listed(lacking)} not measured", label
        else:
            found.append((label, row, accuracy, {option: one for option, one in costs.items() if one is not None}))
            continue
        out.setdefault(why, []).append(f"{which} {size}")
    fronts = _fronts([accuracy.value for _, _, accuracy, _ in found], [costs for *_, costs in found], budget)
    candidates = [Candidate(*one, front) for one, front in zip(found, fronts, strict=True)]
    candidates.sort(key=lambda one: _order(one, budget))
    over = sorted((one for one in candidates if one.meets == "no"), key=lambda one: (one.label, one.row["height"]))
    if over:
        out["over the budget"] = [f"{one.label} {one.size}" for one in over]
    fits = [one for one in candidates if one.meets == "yes"] or [one for one in candidates if one.meets == "open"]
    best = fits[0] if fits else None
    rest = [one for one in candidates if one is not best and one.meets != "no"]
    top = best.accuracy.value if best else 0.0
    hopeful = tuple(one for one in rest if one.accuracy.value > top)
    alike = _alike(best, [one for one in rest if one.accuracy.value <= top], known.metric) if best else ()
    counted = tuple((why, len(cells), _some(cells)) for why, cells in out.items())
    notes = (*rates.conditions(table), *_notes(candidates, budget))
    return Pick(device, budget, known.metric, best, alike, hopeful, tuple(candidates), counted, notes)


def cost(row: Mapping[str, Any], option: str, budget: Budget) -> Cost | None:
    """A cost of a row of a frame beside its limit; None if it was not measured."""
    kind, limit = KINDS[option], budget[option]
    value = row[kind.column]
    if value is None:
        return None
    ends: tuple[float, float] | None = None
    if kind.column in STATED:
        about = STATED[kind.column]
        level, basis, low, high = (
            row[key] for key in (f"{about}_level", f"{about}_basis", f"{kind.column}_lo", f"{kind.column}_hi")
        )
        ends = (low, high) if low is not None and (level or 0) >= CONFIDENCE and basis != "range" else None
        unknown: Meets = "open"
    else:
        unknown = "yes"
        if option == "memory_gb":
            value, ends = _memory(row, at_throughput="throughput" in budget)
    value = value / kind.unit
    if ends is None:
        within = value >= limit if kind.least else value <= limit
        return Cost(value, None, None, unknown if within else "no")
    low, high = (end / kind.unit for end in ends)
    surely, perhaps = (low >= limit, high >= limit) if kind.least else (high <= limit, low <= limit)
    return Cost(value, low, high, "yes" if surely else "open" if perhaps else "no")


def _lacking(row: Mapping[str, Any], option: str) -> str:
    """A cost that was not measured, and why if it needs energy."""
    of_energy = option in ("energy_j", "emissions_g") and row["energy_reason"]
    return KINDS[option].words + (f" ({tame(row['energy_reason'])})" if of_energy else "")


def _memory(row: Mapping[str, Any], *, at_throughput: bool) -> tuple[float, tuple[float, float] | None]:
    """Peak memory in bytes, if asked for at the batch of the throughput; and the ends that are known."""
    peak, at, batch, weights = (row[key] for key in ("peak_memory_bytes", "memory_batch", "batch", "weights_bytes"))
    if not at_throughput or batch in (None, at) or not at:
        return peak, None if on_host(str(row["device"])) else (peak, peak)
    computed = (weights or 0) + (peak - (weights or 0)) * batch / at
    return computed, (computed * (1 - SCALED), computed * (1 + SCALED))


def _labels(table: pd.DataFrame) -> list[str]:
    """What tells the cells of a device apart, beside their size."""
    table = table.assign(batch_asked=batch_asked(table))
    measured = table[table["status"] != "unsupported"]
    told = differing(measured, PARTS)
    several = measured.groupby("model")["mode"].nunique() > 1
    forms = measured.groupby(["model", "mode"])["form"].nunique() > 1
    found = []
    for row in rows_of(table):
        parts = [row["model"]]
        parts += [row["mode"]] if several.get(row["model"], False) else []
        parts += [row["form"]] if row["form"] and forms.get((row["model"], row["mode"]), False) else []
        parts += [said(key, row[key]) for key in told if row[key] is not None]
        found.append(tame(" ".join(map(str, parts))))
    return found


def _order(one: Candidate, budget: Budget) -> tuple[Any, ...]:
    """The most accurate first, then the cheaper."""
    return (-one.accuracy.value, *(_dear(one.costs[option], option) for option in budget), one.label, one.size)


def _dear(of: Cost, option: str) -> float:
    return -of.value if KINDS[option].least else of.value


def _fronts(accuracies: Sequence[float], costs: Sequence[Mapping[str, Cost]], budget: Budget) -> list[bool]:
    """Whether no other is as good in all and better in one, of accuracy and all costs of the budget."""
    values = np.array([[-top, *(_dear(of[o], o) for o in budget)] for top, of in zip(accuracies, costs, strict=True)])
    found, front = [False] * len(values), np.empty((0, 1 + len(budget)))
    for at in np.lexsort(values.T[::-1]) if len(values) else ():  # what beats a cell stands before it
        one = values[at]
        if not ((front <= one).all(axis=1) & (front < one).any(axis=1)).any():
            found[at], front = True, np.vstack([front, one])
    return found


def _alike(best: Candidate, rest: Sequence[Candidate], metric: Metric) -> tuple[tuple[Candidate, str], ...]:
    """Those whose accuracy cannot be told from that of the best, and why.

    Where both were measured image by image on one data set McNemar's test decides, adjusted for all that are tested;
    else the intervals do.
    """
    mine = best.accuracy.of
    tested = {}
    if isinstance(mine, MeasuredAccuracy) and mine.predictions.is_file():
        others = {
            other.eval_id: other
            for one in rest
            if isinstance(other := one.accuracy.of, MeasuredAccuracy)
            and (other.dataset, other.labels) == (mine.dataset, mine.labels)
            and other.eval_id != mine.eval_id
            and other.predictions.is_file()
        }
        found = together([pair(mine, other, metric) for other in others.values()])
        tested = dict(zip(others, found, strict=True))
    alike = []
    for one in rest:
        other = one.accuracy.of
        test = tested.get(other.eval_id) if isinstance(other, MeasuredAccuracy) else None
        if other == mine:
            alike.append((one, "the same accuracy, at other costs"))
        elif test is not None:
            if test.p_all > ALPHA:
                words = f"{-test.difference:+.2f} points ({-test.hi:+.2f} to {-test.lo:+.2f}), p {test.p_all:.2g}"
                alike.append((one, f"McNemar, {test.images:,} images: {words}"))
        elif one.accuracy.overlaps(best.accuracy):
            both = one.accuracy.measured and best.accuracy.measured
            alike.append((one, "the intervals overlap" if both else "within what the printed digits leave open"))
    return tuple(alike)


def _notes(candidates: Iterable[Candidate], budget: Budget) -> tuple[str, ...]:
    """What holds for all rows of an answer."""
    kinds = Counter(one.accuracy.measured for one in candidates)
    notes = []
    if kinds[False]:
        notes.append(
            "Published accuracies are of ImageNet-1K, each at its own size; their error is not known beyond the digits "
            "that are printed."
        )
    if kinds[True]:
        sets = {
            f"{of.dataset} (labels {of.labels})"
            for one in candidates
            if isinstance(of := one.accuracy.of, MeasuredAccuracy)
        }
        notes.append(f"Measured accuracies are of {listed(sorted(map(tame, sets)))}, with 95 % Wilson intervals.")
    if len(kinds) > 1:
        notes.append("A measured and a published accuracy compare only if both are of one data set.")
    on_cpu = any(on_host(str(one.row["device"])) for one in candidates)
    valued = ("memory_gb", "energy_j", "emissions_g")  # the interval of an allocator's memory is known: it has none
    by_value = [KINDS[key].words for key in valued if key in budget and (on_cpu or key != "memory_gb")]
    if by_value:
        notes.append(f"Of {listed(by_value)} no interval is known: the value decides.")
    if "latency_ms" in budget:
        batches = sorted({int(one.row["latency_batch"]) for one in candidates})
        notes += [f"Latency is at batch {listed(list(map(str, batches)))}."] if batches else []
    if {"memory_gb", "throughput"} <= set(budget):
        notes.append(
            "Peak memory is that of the batch of the throughput. Where it was measured at another batch it is computed "
            f"(weights once), ±{SCALED:.0%}."
        )
    elif "memory_gb" in budget:
        batches = sorted({int(one.row["memory_batch"]) for one in candidates if one.row["memory_batch"] is not None})
        notes += [f"Peak memory is at batch {listed(list(map(str, batches)))}."] if batches else []
    return tuple(notes)


def _some(cells: Sequence[str]) -> str:
    """ "vig_t 1280, 1536; deit_t 2048"; the first six names, and the number of the others."""
    grouped: dict[str, list[str]] = {}
    for cell in cells:
        name, _, size = cell.rpartition(" ")
        sizes = grouped.setdefault(name, [])
        if size not in sizes:
            sizes.append(size)
    for sizes in grouped.values():
        sizes.sort(key=lambda size: [int(side) for side in size.split("x")])
    named = [f"{name} {', '.join(sizes)}" for name, sizes in grouped.items()]
    return "; ".join(named[:6]) + (f" and {len(named) - 6} more" if len(named) > 6 else "")
