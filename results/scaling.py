"""How costs grow with the image, and from which size one model is cheaper than another. Reads only a frame.

A counted cost (MACs) is exact, and its bounds are a range. A measured cost has the interval of its cell; memory has
none. Where two costs cross between two sizes, what lies between these is not known: the bounds have that in them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from vbench.errors import UsageError
from vbench.results.axes import SETTING, SUBJECT, differing, said
from vbench.results.frame import STATED, apart, batch_asked, filled
from vbench.results.ratios import TURNED, in_turns
from vbench.results.roots import Root, root
from vbench.results.statistics import CONFIDENCE
from vbench.results.text import listed, px

TOLERANCE = 0.06  # so near to 1 is linear, to 2 quadratic: 8.7 % over a factor of 4, as the padding of Swin needs
WIDEST = 0.25  # half-width of an interval; a wider one decides nothing
POINTS = 3  # sizes, at least
SPAN = 4.0  # between the fewest and the most tokens, at least

COSTS: dict[str, str] = {  # with words for "A needs less time a call than B"
    "macs_executed": "MACs",
    "latency_ms": "time a call",
    "ms_per_image": "time an image",
    "activation_bytes": "activation memory",
    "macs": "MACs of the algorithm",
    "peak_memory_bytes": "peak memory",
}
FITTED = ("macs_executed", "latency_ms", "ms_per_image", "activation_bytes")
COUNTED = ("macs_executed", "macs")

Floats = NDArray[np.float64]
CrossoverVerdict = Literal["crosses", "cheaper at every size", "not reached"]


class Curve(NamedTuple):
    """One cost of one model over its sizes, from small to large. Logarithms are natural."""

    labels: list[str]  # of the sizes, "512" or "512x1024"
    log_side: Floats  # of the geometric mean of height and width, px
    log_tokens: Floats  # or pixels
    unit: Literal["tokens", "pixels"]
    log_cost: Floats
    error: Floats  # standard deviation of log_cost; 0 of what was counted, NaN if not known
    counted: bool
    cells: list[dict[Hashable, Any]]  # of the rows what `ratios.in_turns` reads


@dataclass(frozen=True, slots=True)
class Crossover:
    """From which size on `a` costs less than `b` for good; see `crossover`."""

    a: str
    b: str
    cost: str
    sizes: int  # that both have
    verdict: CrossoverVerdict
    px: float | None  # side of a square image; None unless it crosses
    px_lo: float | None  # of the 95 % interval; None below the smallest size, or if the interval is not known
    px_hi: float | None  # None beyond the largest size, or if the interval is not known
    interval_known: bool  # False if no size that both have has an interval
    reading: str


def exponents(table: pd.DataFrame, costs: Sequence[str] = FITTED) -> pd.DataFrame:
    """The exponents of costs in tokens: a row for each model, mode, setting and cost (keys of `COSTS`).

    Columns: those of `SUBJECT` and `SETTING` that the frame has; `cost`; `points`, the number of sizes; `unit`,
    "tokens", or "pixels" if tokens are not known; `tokens_lo`, `tokens_hi`; `exponent`, the least-squares slope in
    log-log, with `exponent_lo` and `_hi`; `local_exponent` between the two largest sizes, with `local_lo` and `_hi`;
    `verdict`; `reading`, the verdict in words. `ms_per_image` comes from throughput.

    The bounds of a counted cost are the least and the greatest slope between two sizes that are a factor of 4 or more
    apart. Those of a measured cost are the wider of two 95 % intervals: Student's t on the residuals (points - 2
    degrees of freedom), and the propagated intervals of the cells. The local bounds are propagated from two cells.

    A counted cost is consistent with linear if its bounds lie within 1 ± `TOLERANCE`. A measured cost is if its bounds
    and its local bounds overlap 1 ± `TOLERANCE`. The same about 2 is quadratic. "interval too wide" is a half-width
    above `WIDEST`; "too few points" is fewer than `POINTS` sizes, or a span of tokens below `SPAN`.

    Raises: UsageError for an unknown cost.
    """
    rows, table = [], _prepared(table, costs)
    keys = [key for key in (*SUBJECT, *SETTING) if key in table]
    for values, group in _groups(table, keys):
        for cost in costs:
            curve = _curve(group, cost)
            if curve is not None and len(curve.labels) >= 2:
                rows.append({**dict(zip(keys, values, strict=True)), "cost": cost, **_fit(curve)})
    columns = [*keys, "cost", "points", "unit", "tokens_lo", "tokens_hi", "exponent", "exponent_lo", "exponent_hi"]
    columns += ["local_exponent", "local_lo", "local_hi", "verdict", "reading"]
    return pd.DataFrame(rows, columns=columns)


def crossover(table: pd.DataFrame, a: str, b: str, cost: str = "latency_ms") -> Crossover:
    """The size from which `a` costs less than `b`, also at every larger size that both have.

    Between two sizes costs are power laws of the side that may bend (`roots.BEND`), which widens the interval. At each
    size the difference of log times is the ratio that was measured in turns, where it has an interval; else it is that
    of the two cells. The interval comes from draws in which each difference varies by its own error (normal in log
    cost). A size without an interval that is next to the crossing widens it to the nearest sizes that have one.

    Args:
        a, b: a model and its mode, "vig_t recurrent"; without a mode, its parallel mode.
        cost: a key of `COSTS`.

    Raises: UsageError for an unknown cost, a model that the table lacks, several rows of one size, or fewer than two
        common sizes.
    """
    table = _prepared(table, (cost,))
    curves = []
    for name in (a, b):
        model, _, mode = name.partition(" ")
        rows = table[(table["model"] == model) & (table["mode"] == (mode or "parallel"))]
        if rows.empty:
            there = ", ".join(sorted({f"{m} {o}" for m, o in zip(table["model"], table["mode"], strict=True)}))
            raise UsageError(f"the table has no {name}; it has {there or 'no rows'}")
        if rows.duplicated(["height", "width"]).any():
            ways = [*apart(rows), *differing(rows, SETTING)]
            raise UsageError(f"{name} has several rows a size, which differ in {', '.join(ways)}; select one of each")
        curves.append(_curve(rows, cost))
    if crossed := _cross((a, b), curves[0], curves[1], cost):
        return crossed
    raise UsageError(f"{a} and {b} have fewer than two sizes in common with {cost}")


def crossing(mine: pd.DataFrame, theirs: pd.DataFrame, names: tuple[str, str], cost: str) -> Crossover | None:
    """`crossover` of two models from their rows, one for each size; None with fewer than two common sizes.

    Raises: UsageError for an unknown cost.
    """
    return _cross(names, _curve(_prepared(mine, (cost,)), cost), _curve(_prepared(theirs, (cost,)), cost), cost)


def crossovers(table: pd.DataFrame, cost: str = "latency_ms") -> pd.DataFrame:
    """`crossover` of every two models or modes that share two or more sizes under equal settings.

    A row for each pair; `a` is cheaper at the largest common size ("not reached": both cost the same there). Columns:
    those of `SETTING` that the frame has, then the fields of `Crossover`.

    Raises: UsageError for an unknown cost.
    """
    table = _prepared(table, (cost,))
    keys = [key for key in SETTING if key in table]
    several = differing(table, keys)
    subject = [key for key in SUBJECT if key in table]
    rows = []
    for values, group in _groups(table, keys):
        ambiguous = (group.groupby(["model", "mode"])[subject].nunique(dropna=False) > 1).any(axis=None)
        curves = {
            " ".join(str(part) for part in (who if ambiguous else who[:2]) if not pd.isna(part)): _curve(own, cost)
            for who, own in _groups(group, subject)
        }
        for one, other in combinations(curves, 2):
            crossed = _cross((one, other), curves[one], curves[other], cost)
            if crossed is not None and crossed.verdict == "not reached":
                crossed = _cross((other, one), curves[other], curves[one], cost)
            if crossed is not None:
                setting = dict(zip(keys, values, strict=True))
                under = "".join(f", {said(key, setting[key])}" for key in several if not pd.isna(setting[key]))
                rows.append({**setting, **asdict(crossed), "reading": crossed.reading + under})
    columns = [*keys, *Crossover.__dataclass_fields__]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(("px", "px_lo", "px_hi"), "Float64"))


def log_error(rows: pd.DataFrame, cost: str) -> Floats:
    """The standard deviation of the log of each cell's cost, from its interval; NaN if it has none, or only a range."""
    if f"{cost}_lo" not in rows:
        return np.full(len(rows), np.nan)
    low, high = (rows[f"{cost}_{end}"].to_numpy(np.float64, na_value=np.nan) for end in ("lo", "hi"))
    level, about = np.full(len(rows), CONFIDENCE), STATED.get(cost, cost)
    if f"{about}_level" in rows:
        level = rows[f"{about}_level"].to_numpy(np.float64, na_value=np.nan)
    if f"{about}_basis" in rows:
        level = np.where(filled(rows[f"{about}_basis"], "").to_numpy() == "range", np.nan, level)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.log(high / low) / 2 / ndtri((1 + level) / 2)
    return np.where((level > 0) & (level < 1), error, np.nan)


def _prepared(table: pd.DataFrame, costs: Sequence[str]) -> pd.DataFrame:
    """The table with `ms_per_image`, `activation_bytes` computed where only the peak is known, and `batch_asked`.

    Raises: UsageError for an unknown cost.
    """
    for cost in costs:
        if cost not in COSTS:
            raise UsageError(f"'{cost}' is not a cost that can be compared; take one of {', '.join(COSTS)}")
    table = table.copy()
    if "throughput_img_s" in table:
        table["ms_per_image"] = 1000 / table["throughput_img_s"]
    if {"throughput_img_s_lo", "throughput_img_s_hi"} <= set(table):
        table["ms_per_image_lo"] = 1000 / table["throughput_img_s_hi"]
        table["ms_per_image_hi"] = 1000 / table["throughput_img_s_lo"]
    if {"peak_memory_bytes", "weights_bytes", "input_bytes"} <= set(table):
        rest = table["peak_memory_bytes"] - table["weights_bytes"] - table["input_bytes"]
        known = table.get("activation_bytes", rest)
        table["activation_bytes"] = known.where(known.notna(), rest)
    if {"batch", "batch_policy"} <= set(table):
        table["batch_asked"] = batch_asked(table)
    return table


def _groups(table: pd.DataFrame, keys: list[str]) -> list[tuple[tuple[Any, ...], pd.DataFrame]]:
    return list(table.groupby(keys, sort=False, dropna=False)) if keys else [((), table)]


def _curve(rows: pd.DataFrame, cost: str) -> Curve | None:
    """The curve over the sizes at which this cost is known and positive; None if there are none."""
    if cost not in rows:
        return None
    about = STATED.get(cost, cost)
    needed = [
        "height",
        "width",
        "tokens",
        cost,
        f"{cost}_lo",
        f"{cost}_hi",
        f"{about}_level",
        f"{about}_basis",
        *TURNED,
    ]
    rows = rows.loc[filled(rows[cost] > 0, False).to_numpy(bool), [name for name in needed if name in rows]]
    rows = rows.assign(pixels=rows["height"] * rows["width"]).sort_values(["pixels", "height"], kind="stable")
    if rows.empty:
        return None
    known = "tokens" in rows and rows["tokens"].notna().all()
    counted = cost in COUNTED
    return Curve(
        list(map(px, rows["height"], rows["width"])),
        np.log(rows["pixels"].to_numpy(np.float64)) / 2,
        np.log(rows["tokens" if known else "pixels"].to_numpy(np.float64)),
        "tokens" if known else "pixels",
        np.log(rows[cost].to_numpy(np.float64)),
        np.zeros(len(rows)) if counted else log_error(rows, cost),
        counted,
        rows[[name for name in TURNED if name in rows]].to_dict("records") or [{} for _ in range(len(rows))],
    )


def _fit(curve: Curve) -> dict[str, Any]:
    x, y = curve.log_tokens, curve.log_cost
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread if spread else np.nan
    low, high = _range(curve) if curve.counted else _slope_interval(curve, slope, spread)
    local, local_error = np.nan, np.nan
    if x[-1] > x[-2]:
        local = float((y[-1] - y[-2]) / (x[-1] - x[-2]))
        local_error = float(np.hypot(*curve.error[-2:]) / (x[-1] - x[-2]) * ndtri((1 + CONFIDENCE) / 2))
    tokens_lo, tokens_hi = (round(float(np.exp(end))) for end in (x.min(), x.max()))
    size = {"points": len(x), "unit": curve.unit, "tokens_lo": tokens_lo, "tokens_hi": tokens_hi}
    whole = {"exponent": slope, "exponent_lo": low, "exponent_hi": high}
    top = {"local_exponent": local, "local_lo": local - local_error, "local_hi": local + local_error}
    fit = {**size, **whole, **top}
    verdict = _verdict(curve, fit)
    return {**fit, "verdict": verdict, "reading": _reading(curve, fit, verdict)}


def _range(curve: Curve) -> tuple[float, float]:
    """The least and the greatest slope between two sizes at least `SPAN` apart."""
    order = np.argsort(curve.log_tokens, kind="stable")
    x, y = curve.log_tokens[order], curve.log_cost[order]
    before = np.searchsorted(x, x - (np.log(SPAN) - 1e-9), side="right")
    if not before.any():
        return np.nan, np.nan
    return -_steepest(x, -y, before), _steepest(x, y, before)


def _steepest(x: Floats, y: Floats, before: NDArray[np.intp]) -> float:
    """The greatest slope from one of the first `before[j]` points to point j, over all j.

    From the slope of any pair on, the pair that rises most above a line of that slope is steeper, until none rises.
    """
    far = np.flatnonzero(before)
    at, slope = np.arange(len(x)), -np.inf
    start, end = 0, int(far[0])
    while (steeper := float((y[end] - y[start]) / (x[end] - x[start]))) > slope:
        slope = steeper
        rest = y - slope * x
        lowest = np.maximum.accumulate(np.where(rest <= np.minimum.accumulate(rest), at, 0))[before[far] - 1]
        best = np.argmax(rest[far] - rest[lowest])
        start, end = int(lowest[best]), int(far[best])
    return slope


def _slope_interval(curve: Curve, slope: float, spread: float) -> tuple[float, float]:
    x, y = curve.log_tokens, curve.log_cost
    count = len(x)
    if count < POINTS or not spread:
        return np.nan, np.nan
    centred = x - x.mean()
    rest = y - y.mean() - slope * centred
    tail = (1 + CONFIDENCE) / 2
    scatter = (float(rest @ rest) / (count - 2) / spread) ** 0.5 * float(stdtrit(count - 2, tail))
    known = float(((centred * np.nan_to_num(curve.error)) ** 2).sum()) ** 0.5 / spread * float(ndtri(tail))
    half = max(scatter, known)
    return slope - half, slope + half


def _verdict(curve: Curve, fit: dict[str, Any]) -> str:
    x = curve.log_tokens
    if len(set(x)) < POINTS or float(x.max() - x.min()) < np.log(SPAN) - 1e-9:
        return "too few points"
    low, high = fit["exponent_lo"], fit["exponent_hi"]
    if not curve.counted and high - low > 2 * WIDEST:
        return "interval too wide"
    for power, name in ((1, "linear"), (2, "quadratic")):
        least, most = power - TOLERANCE, power + TOLERANCE
        if curve.counted:
            meets = least <= low and high <= most
        else:  # a comparison with NaN is false: a local interval that is not known does not count
            meets = low <= most and high >= least and not (fit["local_lo"] > most or fit["local_hi"] < least)
        if meets:
            return f"consistent with {name}"
    return "neither"


def _reading(curve: Curve, fit: dict[str, Any], verdict: str) -> str:
    """The exponent in words, of the whole curve and of its two largest sizes."""
    over = f"from {fit['tokens_lo']} to {fit['tokens_hi']} {curve.unit}"
    top = f"{fit['local_exponent']:.2f} between {curve.labels[-2]} and {curve.labels[-1]} px"
    if not np.isnan(fit["local_lo"]) and not curve.counted:
        top += f" ({fit['local_lo']:.2f} to {fit['local_hi']:.2f})"
    if verdict == "too few points":
        return f"too few points for a verdict {over}; exponent {top}"
    low, high = fit["exponent_lo"], fit["exponent_hi"]
    bounds = "over spans of a factor of 4" if curve.counted else "95 % interval"
    whole = f"exponent {fit['exponent']:.2f} ({bounds}: {low:.2f} to {high:.2f}) {over}"
    grows = "no one power law"
    if verdict == "interval too wide":
        grows = "the interval is too wide to tell"
    elif verdict != "neither":
        grows = f"{verdict.removeprefix('consistent with ')} within the tolerance"
    elif low > 2 + TOLERANCE:
        grows = "grows faster than quadratic"
    elif low > 1 + TOLERANCE:
        grows = "grows faster than linear" + (", slower than quadratic" if high < 2 - TOLERANCE else "")
    elif high < 1 - TOLERANCE:
        grows = "grows slower than linear"
    return f"{grows}; {whole}; {top}"


def _cross(names: tuple[str, str], one: Curve | None, other: Curve | None, cost: str) -> Crossover | None:
    """Where the first becomes cheaper than the second; None with fewer than two common sizes."""
    if one is None or other is None:
        return None
    places = [{label: place for place, label in enumerate(curve.labels)} for curve in (one, other)]
    common = [label for label in places[0] if label in places[1]]
    if len(common) < 2:
        return None
    mine, theirs = ([own[label] for label in common] for own in places)
    cells = [(one.cells[here], other.cells[there]) for here, there in zip(mine, theirs, strict=True)]
    differences, errors = one.log_cost[mine] - other.log_cost[theirs], np.hypot(one.error[mine], other.error[theirs])
    for place, turns in enumerate(in_turns(*pair, cost) for pair in cells):
        if turns and turns.lo is not None and turns.hi is not None:
            differences[place] = np.log(turns.value)
            errors[place] = np.log(turns.hi / turns.lo) / 2 / ndtri((1 + CONFIDENCE) / 2)
    found = root(one.log_side[mine], differences, errors)
    at, lo, hi = (float(np.exp(end)) if np.isfinite(end) else None for end in (found.at, found.lo, found.hi))
    verdict: CrossoverVerdict = "crosses"
    where = f"from {np.exp(found.at):.0f} px up"
    if found.at == -np.inf:
        verdict, where = "cheaper at every size", f"at every size from {common[0]} to {common[-1]} px"
    elif found.at == np.inf:
        verdict, where = "not reached", f"not reached by {common[-1]} px"
    bare = [label for label, error in zip(common, errors, strict=True) if np.isnan(error)]
    within = _bounds(found, common, bare, exact=one.counted)
    less = "fewer" if cost in COUNTED else "less"
    reading = f"{names[0]} needs {less} {COSTS[cost]} than {names[1]}: {where}{within}"
    return Crossover(names[0], names[1], cost, len(common), verdict, at, lo, hi, found.known, reading)


def _bounds(found: Root, sizes: list[str], bare: list[str], *, exact: bool) -> str:
    """The interval of a crossover in words, and the sizes without an interval; empty if the crossover is exact."""
    if not found.known:
        return " (interval not known)"
    if found.lo == found.hi:
        ends = ""
    elif np.isinf([found.lo, found.hi]).any():
        low = f"below {sizes[0]}" if found.lo == -np.inf else f"{np.exp(found.lo):.0f}"
        high = f"beyond {sizes[-1]}" if found.hi == np.inf else f"{np.exp(found.hi):.0f}"
        ends = f"95 % interval: {low} to {high} px"
    else:
        ends = f"between {np.exp(found.lo):.0f} and {np.exp(found.hi):.0f} px{'' if exact else ', 95 %'}"
    none = f"no interval at {listed(bare)} px" if bare else ""
    parts = "; ".join(filter(None, [ends, none]))
    return f" ({parts})" if parts else ""
