"""The values of head for tools that keep a history: the JSON of github-action-benchmark and of Bencher.

github-action-benchmark (tool `customSmallerIsBetter`) takes a list of {name, unit, value, range, extra}. It refuses an
empty list, and reads a number from `range` only after "±" or "+-". https://github.com/benchmark-action/github-action-benchmark
Bencher (adapter `json`) takes {benchmark: {measure: {value, lower_value, upper_value}}}, with names of at most 1024 and
64 characters; a Bencher measure has a unit of its own, so ours is in the measure's name.
https://bencher.dev/docs/reference/bencher-metric-format/
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from vbench.results.outcome import Finding, Outcome
from vbench.results.text import tame

BENCHMARK, MEASURE = 1024, 64  # characters that Bencher allows
NO_UNIT = "1"  # for example of an exponent


@dataclass(frozen=True, slots=True)
class Metric:
    """A value of head in `unit`. `lo` and `hi` are the interval of head over base, scaled to it; None without one."""

    cell: str
    name: str
    unit: str
    value: float
    lo: float | None
    hi: float | None
    extra: str


def metrics(outcome: Outcome) -> list[Metric]:
    """Each quantity of each cell that has a value in head; empty if the session is invalid or was interrupted.

    Budgets such as "latency_ms<20" are left out.
    """
    found: dict[tuple[str, str], Metric] = {}
    for finding in () if outcome.invalid or outcome.interrupted else outcome.findings:
        metric = _metric(finding)
        if metric is not None:
            found.setdefault((metric.cell, metric.name), metric)
    return list(found.values())


def _metric(finding: Finding) -> Metric | None:
    if finding.head is None or not isfinite(finding.head) or "<" in finding.what or ">" in finding.what:
        return None
    ends = [finding.head * end / finding.ratio for end in (finding.lo, finding.hi) if finding.ratio and end is not None]
    lo, hi = ends if len(ends) == 2 and all(map(isfinite, ends)) else (None, None)
    extra: list[str] = [finding.verdict]
    if finding.base is not None and isfinite(finding.base):
        extra.append(f"base {finding.base:g}")
    if finding.ratio is not None and isfinite(finding.ratio):
        extra.append(f"ratio {finding.ratio:.4f}")
    cell, name, unit = tame(finding.cell), tame(finding.what), tame(finding.unit or NO_UNIT)
    return Metric(cell, name, unit, finding.head, lo, hi, "; ".join(extra))


def to_github_action_benchmark(found: Sequence[Metric]) -> str | None:
    """The metrics for which less is better, so no rates (units ending in "/s"); None if there are none."""
    rows = []
    for metric in found:
        if metric.unit.endswith("/s"):
            continue
        row = {"name": f"{metric.cell}: {metric.name}", "unit": metric.unit, "value": metric.value}
        if metric.lo is not None and metric.hi is not None:
            row["range"] = f"± {max(metric.hi - metric.value, metric.value - metric.lo):#.4g}"
        rows.append({**row, "extra": metric.extra})
    return _text(rows) if rows else None


def to_bencher(found: Sequence[Metric]) -> str | None:
    """One benchmark for each cell, one measure for each quantity; None if there are none."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for metric in found:
        values = {"value": metric.value}
        if metric.lo is not None and metric.hi is not None:
            values |= {"lower_value": metric.lo, "upper_value": metric.hi}
        rows.setdefault(_within(metric.cell, BENCHMARK), {})[_within(metric.name, MEASURE)] = values
    return _text(rows) if rows else None


def _text(rows: object) -> str:
    return json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _within(name: str, limit: int) -> str:
    """A name of at most `limit` characters. A longer name is cut, and ends with a digest of the whole."""
    return name if len(name) <= limit else f"{name[: limit - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
