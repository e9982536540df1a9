"""The rules of a gate: thresholds and absolute budgets, from [tool.vbench.gate] or a suite's [gate]. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vbench.errors import UsageError
from vbench.options import shown
from vbench.results.outcome import THRESHOLD, Finding
from vbench.suites.load import AXES, load, toml

MIB = 2**20
LARGEST = 1e15  # of a budget, in its unit
QUANTITIES = {  # the quantity of a budget -> its column of the frame, the column's units in one of its own, its unit
    "latency_ms": ("latency_ms", 1, "ms"),
    "latency_ms_p90": ("latency_ms_p90", 1, "ms"),
    "latency_ms_p99": ("latency_ms_p99", 1, "ms"),
    "first_call_s": ("first_call_s", 1, "s"),
    "peak_memory_mib": ("peak_memory_bytes", MIB, "MiB"),
    "peak_memory_bytes": ("peak_memory_bytes", 1, "bytes"),
    "activation_bytes": ("activation_bytes", 1, "bytes"),
}
PERCENTILES = {"latency_ms_p90": 0.9, "latency_ms_p99": 0.99}  # figures that need a number of samples


@dataclass(frozen=True, slots=True)
class Budget:
    """An absolute limit on a figure of head, such as latency_ms<20."""

    what: str
    below: bool  # else the figure must be above the limit
    limit: float

    def __str__(self) -> str:
        return f"{self.what}{'<' if self.below else '>'}{self.limit:g}"


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule for cells whose name matches a glob. What it leaves out is as in the rules above it."""

    match: str
    threshold: float | None
    budgets: tuple[Budget, ...]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a gate: the axes of its cells as on the command line, the smallest change that matters, budgets."""

    axes: Mapping[str, str]
    threshold: float = THRESHOLD
    budgets: tuple[Budget, ...] = ()
    cells: tuple[Rule, ...] = ()

    def threshold_of(self, cell: str) -> float:
        """The threshold of the last rule that matches the cell and has one."""
        own = [rule.threshold for rule in self.cells if rule.threshold is not None and fnmatchcase(cell, rule.match)]
        return own[-1] if own else self.threshold

    def budgets_of(self, cell: str) -> tuple[Budget, ...]:
        """One for each quantity; a later rule replaces an earlier one."""
        own = [budget for rule in self.cells if fnmatchcase(cell, rule.match) for budget in rule.budgets]
        return tuple({budget.what: budget for budget in (*self.budgets, *own)}.values())


def read(folder: Path) -> Rules:
    """The rules of [tool.vbench.gate] in a folder's pyproject.toml; without the file, the usual ones.

    Raises: UsageError for a file that is not TOML, or an unknown key.
    """
    file = folder / "pyproject.toml"
    if not file.exists():
        return Rules({})
    table: Any = toml(file, str(file))
    for key in ("tool", "vbench", "gate"):
        table = table.get(key, {})
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {key} is no table; the rules of a gate are in [tool.vbench.gate]")
    return parse(table, "[tool.vbench.gate]")


def load_rules(suite: str | None, threshold: float | None) -> Rules:
    """The rules of a suite's [gate] table, if it has one, or else of pyproject.toml here.

    Args:
        threshold: replaces the threshold of both, but not the threshold of single cells.

    Raises: UsageError.
    """
    own = load(suite).gate if suite else {}
    rules = parse(own, f"--suite {suite}: [gate]") if own else read(Path())
    if suite:
        rules = replace(rules, axes={})
    return rules if threshold is None else replace(rules, threshold=threshold_of(threshold, "--threshold"))


def parse(table: Any, where: str) -> Rules:
    """The rules that a table states. Raises: UsageError, which says where."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} is no table")
    known = (*AXES, "threshold", "budgets", "cells")
    if strange := [key for key in table if key not in known]:
        raise UsageError(f"{where}: there is no {shown(', '.join(strange))}; there are {', '.join(known)}")
    axes = {key: table[key] for key in AXES if key in table}
    if wrong := [key for key, value in axes.items() if not isinstance(value, str)]:
        raise UsageError(f"{where}: {', '.join(wrong)} must be text, as on the command line")
    cells, rules = table.get("cells", []), []
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise UsageError(f"{where}: cells are tables; write [[{where.strip('[]')}.cells]] above each")
    for cell in cells:
        own = ("match", "threshold", "budgets")
        if "match" not in cell or any(key not in own for key in cell) or not isinstance(cell["match"], str):
            raise UsageError(f"{where}: a cell has match, a glob over its name, and {' or '.join(own[1:])}")
        threshold = None if cell.get("threshold") is None else threshold_of(cell["threshold"], where)
        rules.append(Rule(cell["match"], threshold, _budgets(cell.get("budgets", []), where)))
    threshold = threshold_of(table.get("threshold", THRESHOLD), where)
    return Rules(axes, threshold, _budgets(table.get("budgets", []), where), tuple(rules))


def threshold_of(value: Any, where: str) -> float:
    """A share of the base between 0.001 and 1. Raises: UsageError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value < 1:
        raise UsageError(f"{where}: threshold {shown(value)} is no share between 0.001 and 1; 0.03 is 3 %")
    return float(value)


def budget(text: str, where: str) -> Budget:
    """ "latency_ms<20" -> a budget. Raises: UsageError."""
    match = re.fullmatch(r"\s*(\w+)\s*([<>])=?\s*([0-9.eE+]+)\s*", text)
    try:
        limit = float(match[3]) if match else 0.0
    except ValueError:
        limit = 0.0
    if not match or match[1] not in QUANTITIES or not 0 < limit <= LARGEST:
        raise UsageError(
            f"{where}: '{shown(text)}' is no budget; write latency_ms<20, of {', '.join(QUANTITIES)}, with a limit "
            f"above 0 and up to {LARGEST:g}"
        )
    return Budget(match[1], match[2] == "<", limit)


def _budgets(values: Any, where: str) -> tuple[Budget, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UsageError(f'{where}: budgets are a list of texts, as ["latency_ms<20"]')
    return tuple(budget(value, where) for value in values)


def over_budget(cell: str, row: Mapping[Any, Any], budgets: Sequence[Budget]) -> list[Finding]:
    """A finding for each budget of a cell, from its row of the frame.

    OVER if the whole interval is beyond the limit, AMBIGUOUS if the limit lies in it, UNMEASURED without such a
    figure, and for a percentile of too few samples.
    """

    import pandas as pd

    findings = []
    for one in budgets:
        column, scale, unit = QUANTITIES[one.what]
        values = [row.get(key) for key in (column, f"{column}_lo", f"{column}_hi")]
        known = [None if value is None or pd.isna(value) else float(value) / scale for value in values]
        middle = known[0]
        if middle is None:
            findings.append(Finding(cell, str(one), "UNMEASURED", note=_why_missing(one.what, row)))
            continue
        low, high = (middle if end is None else end for end in known[1:])
        inside, outside = (high < one.limit, low >= one.limit) if one.below else (low > one.limit, high <= one.limit)
        verdict = "SAME" if inside else "OVER" if outside else "AMBIGUOUS"
        note = f"{middle:.4g} ({low:.4g} to {high:.4g}) {unit}"
        findings.append(Finding(cell, str(one), verdict, head=middle, unit=unit, note=note))  # type: ignore[arg-type]
    return findings


def _why_missing(what: str, row: Mapping[Any, Any]) -> str:
    """Why a row has no figure for a budget: "p99 needs 662 samples, there are 90"."""
    import pandas as pd

    from vbench.results.statistics import least_samples  # imports scipy

    count = row.get("latency_samples")
    if what in PERCENTILES and count is not None and not pd.isna(count):
        return f"p{what.rpartition('_p')[2]} needs {least_samples(PERCENTILES[what])} samples, there are {int(count)}"
    return "head has no such figure"
