"""The baseline of `vbench gate --counters`: read, written, and held against what is counted now. Pure; no torch."""

from __future__ import annotations

import json
from collections import Counter as Calls
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

from vbench.errors import SchemaError, UsageError
from vbench.results.outcome import Finding, GateVerdict, Outcome
from vbench.results.text import px

WHAT, SCHEMA = "counters of vbench gate", 1
Count = int | float | None


class Counter(NamedTuple):
    """What is counted of a cell. A counter of `libraries` may change with torch and timm, without a change of ours."""

    name: str
    unit: str
    libraries: bool = False


COUNTERS = (
    Counter("params", "parameters"),
    Counter("macs", "MACs"),
    Counter("macs_executed", "MACs"),
    Counter("macs_matmul", "MACs"),
    Counter("macs_inside", "MACs"),
    Counter("flops_elementwise", "FLOPs", libraries=True),
    Counter("flops_total", "FLOPs", libraries=True),
    Counter("flops_inside", "FLOPs", libraries=True),
    Counter("bytes_min", "bytes", libraries=True),
    Counter("predicted_peak_bytes", "bytes", libraries=True),
    Counter("launches", "launches", libraries=True),
)
SCALED = ("macs_executed", "flops_inside", "predicted_peak_bytes")  # whose exponents are judged
RESOURCES = {"registers": "registers", "stack": "bytes", "shared": "bytes"}  # of a kernel, and their units
LIBRARIES = ("python", "torch", "timm")  # what operations depend on
COMPILER = ("triton",)  # what kernels' resources depend on
# How far a count may be above the baseline's, in its unit or, as "1 %", of it; what is not named may not grow at all.
TOLERANCES: dict[str, float | str] = {"exponent": 0.02, "registers": 8, "predicted_peak_bytes": "0.1 %"}
NAMED = 3  # operations that a note names


@dataclass(frozen=True, slots=True)
class CountedCell:
    """One pass of one image.

    `case` has the fields of a `plan.Case` that matter here. `counts` has `tokens` and `COUNTERS`; None is not known.
    `operations` of the model and `inside` its operator are calls by name and dtype ("aten.mm float32"). `unseen` says
    why the operator was not looked into.
    """

    name: str
    case: dict[str, Any]
    counts: dict[str, Count]
    operations: dict[str, int]
    inside: dict[str, int]
    unseen: str | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a file holds. `kernels` are the `RESOURCES` of each kernel, by its name."""

    versions: dict[str, str | None]
    cells: tuple[CountedCell, ...]
    kernels: dict[str, dict[str, int]]
    tolerances: dict[str, float | str] = field(default_factory=lambda: dict(TOLERANCES))


class Equality(NamedTuple):
    """Whether the modes of an operator or a model are one function.

    `reason` says why nothing was compared, or not all; `wrong` are the comparisons that failed, a line each.
    """

    checks: int
    complete: bool
    reason: str | None
    wrong: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted now.

    `cells` gives for each name the cell, or why it could not be counted. `absent` gives the reason of cells that lack a
    package here, `refused` of cells that cannot exist. `equality` is by operator or model. `uncompiled` gives, by
    operator or "" for all, why no kernel was compiled.
    """

    versions: dict[str, str | None]
    cells: dict[str, CountedCell | str]
    absent: dict[str, str]
    refused: dict[str, str]
    equality: dict[str, Equality]
    kernels: dict[str, dict[str, int]]
    uncompiled: dict[str, str]

    def leave(self, name: str, where: dict[str, str], reason: str) -> None:
        """Take a cell from `cells` to `absent` or `refused`."""
        del self.cells[name]
        where[name] = reason


def compare(base: Baseline, now: Counted, *, name: str, head: str) -> Outcome:
    """Judge every quantity of every cell of the baseline.

    A count is MORE or LESS if it differs by more than its tolerance; parameters are CHANGED if they differ. Operations
    are MORE if there are more of them or more in float64, CHANGED if they are others and as many. A difference that
    other versions of libraries explain is AMBIGUOUS. A cell is BROKEN if it cannot be counted, UNMEASURED if a package
    is missing here. Modes that are not one function are UNEQUAL.

    Args:
        name: the baseline's file. head: what was counted, in words.
    """
    others = {
        key: [base.versions.get(key), now.versions.get(key)]
        for key in (*LIBRARIES, *COMPILER)
        if base.versions.get(key) != now.versions.get(key)
    }
    findings: list[Finding] = []
    pairs: list[tuple[CountedCell, CountedCell]] = []
    for cell in base.cells:
        found = now.cells.get(cell.name)
        if isinstance(found, CountedCell):
            pairs.append((cell, found))
            findings += _of_cell(cell, found, base.tolerances, _differing(others, LIBRARIES))
        elif cell.name in now.absent:
            findings.append(Finding(cell.name, "counters", "UNMEASURED", note=now.absent[cell.name]))
        else:
            findings.append(Finding(cell.name, "counters", "BROKEN", note=found or now.refused.get(cell.name)))
    findings += _exponents(pairs, base.tolerances)
    findings += _equalities(now.equality)
    findings += _kernels(base, now, _differing(others, COMPILER))
    facts = {
        "versions": now.versions,
        "versions_that_differ": others,
        "not_looked_into": {cell.name: cell.unseen for _, cell in pairs if cell.unseen},
        "nothing_to_compare": {subject: each.reason for subject, each in now.equality.items() if _alone(each)},
    }
    return Outcome("gate --counters", name, head, tuple(findings), facts=facts)


def _differing(others: Mapping[str, list[str | None]], relevant: Iterable[str]) -> str | None:
    """What excuses a difference, in words."""
    said = [f"{key} {others[key][1]} here, {others[key][0]} in the baseline" for key in relevant if key in others]
    return ", ".join(said) or None


def _of_cell(
    base: CountedCell, head: CountedCell, tolerances: Mapping[str, float | str], libraries: str | None
) -> list[Finding]:
    """One finding a counter and one each for the operations of the model and inside its operator."""
    culprit = culprits({**base.operations, **base.inside}, {**head.operations, **head.inside})
    found = []
    for counter in COUNTERS:
        before, after = base.counts.get(counter.name), head.counts.get(counter.name)
        if before is None and after is None:
            continue
        verdict: GateVerdict = "CHANGED"
        notes: list[str | None] = ["not known now" if after is None else "not known in the baseline"]
        if before is not None and after is not None:
            verdict, notes = _judged(before, after, slack(tolerances, counter.name, before)), [culprit]
            if counter.name == "params" and verdict != "SAME":
                verdict, notes = "CHANGED", []
        if verdict == "SAME":
            notes = []
        elif counter.libraries and libraries:
            verdict, notes = "AMBIGUOUS", [*notes, libraries]
        found.append(_finding(base.name, counter.name, verdict, before, after, counter.unit, notes))
    for what, ours, theirs in (
        ("operations", base.operations, head.operations),
        ("operations inside", base.inside, head.inside),
    ):
        if not ours and not theirs:
            continue
        verdict = _of_operations(ours, theirs)
        excused = libraries if verdict != "SAME" else None
        notes, sums = [culprits(ours, theirs), excused], (sum(ours.values()), sum(theirs.values()))
        found.append(_finding(base.name, what, "AMBIGUOUS" if excused else verdict, *sums, "calls", notes))
    return found


def _judged(base: float, head: float, slack: float) -> GateVerdict:
    return "MORE" if head > base + slack else "LESS" if head < base - slack else "SAME"


def slack(tolerances: Mapping[str, float | str], name: str, base: float) -> float:
    """By how much a count may differ from `base`, in its unit."""
    given = tolerances.get(name, 0.0)
    return abs(base) * float(given.removesuffix("%")) / 100 if isinstance(given, str) else given


def _of_operations(base: Mapping[str, int], head: Mapping[str, int]) -> GateVerdict:
    if dict(base) == dict(head):
        return "SAME"
    double = [sum(calls for name, calls in side.items() if name.endswith(" float64")) for side in (base, head)]
    if double[1] > double[0]:
        return "MORE"
    sums = sum(base.values()), sum(head.values())
    return "CHANGED" if sums[0] == sums[1] else "MORE" if sums[1] > sums[0] else "LESS"


def culprits(base: Mapping[str, int], head: Mapping[str, int]) -> str | None:
    """The operations whose calls changed most, those in float64 and those that vanished first; None if none did."""
    change = {name: head.get(name, 0) - base.get(name, 0) for name in {*base, *head}}
    shown = sorted(
        (name for name in change if change[name]),
        key=lambda name: (not name.endswith(" float64"), name in head, -abs(change[name]), name),
    )
    said = [f"{name}: {base.get(name, 0)} before, {head.get(name, 0)} now" for name in shown[:NAMED]]
    rest = [f"and {len(shown) - NAMED} others"] if len(shown) > NAMED else []
    return "; ".join([*said, *rest]) or None


def _finding(
    cell: str, what: str, verdict: GateVerdict, base: Count, head: Count, unit: str, notes: Iterable[str | None] = ()
) -> Finding:
    ratio = None if base is None or head is None or base == 0 else head / base
    return Finding(cell, what, verdict, base, head, unit, ratio, note="; ".join(filter(None, notes)) or None)


def _exponents(
    pairs: Iterable[tuple[CountedCell, CountedCell]], tolerances: Mapping[str, float | str]
) -> list[Finding]:
    """How each of `SCALED` grows with the tokens (or pixels) of a model: the least-squares slope in log-log."""
    curves: dict[str, list[tuple[CountedCell, CountedCell]]] = {}
    for pair in pairs:
        rest = {key: value for key, value in pair[0].case.items() if key not in ("height", "width")}
        curves.setdefault(json.dumps(rest, sort_keys=True), []).append(pair)
    found = []
    for curve in curves.values():
        for cost in SCALED:
            before, after = (_slope([pair[side] for pair in curve], cost) for side in (0, 1))
            if before is None or after is None:
                continue
            delta = slack(tolerances, "exponent", before)
            verdict = _judged(before, after, delta)
            sizes = ", ".join(px(cell.case["height"], cell.case["width"]) for cell, _ in curve)
            note = None if verdict == "SAME" else f"over {sizes} px"
            where, what = _without_size(curve[0][0]), f"exponent of {cost}"
            found.append(Finding(where, what, verdict, before, after, delta=delta, note=note))
    return found


def _slope(cells: list[CountedCell], cost: str) -> float | None:
    """None with fewer than two sizes, or where the cost is not known at every one, or is none at all."""
    sizes = [cell.counts.get("tokens") or cell.case["height"] * cell.case["width"] for cell in cells]
    costs = [cell.counts.get(cost) or 0 for cell in cells]
    if len(set(sizes)) < 2 or not all(costs):
        return None
    return linear_regression([log(size) for size in sizes], [log(each) for each in costs]).slope


def _without_size(cell: CountedCell) -> str:
    model, _, *rest = cell.name.split(" ")
    return " ".join([model, *rest])


def _alone(each: Equality) -> bool:
    return each.complete and not each.checks


def _equalities(equality: Mapping[str, Equality]) -> list[Finding]:
    found = []
    for subject, each in equality.items():
        if _alone(each):
            continue
        verdict: GateVerdict = "UNEQUAL" if each.wrong else "SAME" if each.complete else "BROKEN"
        lines = [*each.wrong[:NAMED], *([f"and {len(each.wrong) - NAMED} others"] if len(each.wrong) > NAMED else [])]
        note = "; ".join(lines) or each.reason
        found.append(Finding(subject, "mode equality", verdict, head=each.checks, unit="checks", note=note))
    return found


def _kernels(base: Baseline, now: Counted, compiler: str | None) -> list[Finding]:
    if base.kernels and "" in now.uncompiled:
        return [Finding("kernels", "resources", "UNMEASURED", note=now.uncompiled[""])]
    found = []
    for name, before in base.kernels.items():
        after = now.kernels.get(name)
        if after is None:
            reason = now.uncompiled.get(name.partition(" ")[0])
            verdict: GateVerdict = "GONE" if reason is None else "AMBIGUOUS" if compiler else "BROKEN"
            note = "; ".join(filter(None, [reason or "it is not launched any more", compiler]))
            found.append(Finding(name, "resources", verdict, note=note))
            continue
        for what, unit in RESOURCES.items():
            verdict = _judged(before[what], after[what], slack(base.tolerances, what, before[what]))
            excuse = compiler if verdict != "SAME" else None
            verdict = "AMBIGUOUS" if excuse else verdict
            found.append(_finding(name, what, verdict, before[what], after[what], unit, (excuse,)))
    return found + [Finding(name, "resources", "NEW") for name in now.kernels if name not in base.kernels]


def to_text(base: Baseline) -> str:
    """A file: JSON, a line for each part of a cell, in the order of the cells."""
    parts = {"case": 1, "counts": 1, "operations": 1, "inside": 1, "unseen": 1}
    cells = []
    for cell in base.cells:
        lines = [f'"{part}": {json.dumps(getattr(cell, part))}' for part in parts if getattr(cell, part)]
        cells.append(f'  {{"cell": {json.dumps(cell.name)},\n   ' + ",\n   ".join(lines) + "}")
    kernels = [f"  {json.dumps(name)}: {json.dumps(each)}" for name, each in base.kernels.items()]
    lines = [
        f'{{"what": {json.dumps(WHAT)}, "schema": {SCHEMA},',
        f' "versions": {json.dumps(base.versions)},',
        f' "tolerances": {json.dumps(base.tolerances)},',
        ' "cells": [' + ("\n" + ",\n".join(cells) if cells else "") + "],",
        ' "kernels": {' + ("\n" + ",\n".join(kernels) if kernels else "") + "}}",
    ]
    return "\n".join(lines) + "\n"


def read(file: Path) -> Baseline:
    """Read a baseline. Raises: UsageError if the file is missing; SchemaError if it is damaged or something else."""
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no {file}; make it: --counters {file} --write --models NAMES --res SIZES") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SchemaError(f"{file} is no JSON; make it again with --write, or take the committed one") from None
    if not isinstance(given, dict) or given.get("what") != WHAT:
        raise SchemaError(f"{file} is not a baseline of vbench gate --counters; give one made with --write")
    if given.get("schema") != SCHEMA:
        raise SchemaError(f"{file} has schema {given.get('schema')!r}; this version reads {SCHEMA}: --write it again")
    try:
        return _baseline(given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise SchemaError(f"{file} is damaged: {said}; make it again with --write") from None


def _baseline(given: Mapping[str, Any]) -> Baseline:
    cells = tuple(_cell(each) for each in _a(list, given["cells"]))
    if twice := [name for name, times in Calls(cell.name for cell in cells).items() if times > 1]:
        raise ValueError(f"the cell {twice[0]} stands there twice")
    kernels = {name: {what: _a(int, each[what]) for what in RESOURCES} for name, each in given["kernels"].items()}
    return Baseline(
        versions={key: value if value is None else _a(str, value) for key, value in given["versions"].items()},
        cells=cells,
        kernels=kernels,
        tolerances={key: _tolerance(key, value) for key, value in given["tolerances"].items()},
    )


def _cell(given: Mapping[str, Any]) -> CountedCell:
    case = dict(_a(dict, given["case"]))
    for side in ("height", "width"):
        if _a(int, case[side]) < 1:
            raise ValueError(f"{side} {case[side]} is no size")
    counts = _a(dict, given["counts"])
    return CountedCell(
        name=_a(str, given["cell"]),
        case=case,
        counts={key: None if value is None else _number(value) for key, value in counts.items()},
        operations={key: _a(int, value) for key, value in given["operations"].items()},
        inside={key: _a(int, value) for key, value in given.get("inside", {}).items()},
        unseen=given.get("unseen"),
    )


def _tolerance(name: str, value: Any) -> float | str:
    allowed = {"exponent", *RESOURCES, *(counter.name for counter in COUNTERS)}
    if name not in allowed:
        raise ValueError(f"there is no counter '{name}' to tolerate; there are {', '.join(sorted(allowed))}")
    number = value.removesuffix("%") if isinstance(value, str) and value.endswith("%") else _number(value)
    if not 0 <= float(number) < float("inf"):
        raise ValueError(f"the tolerance of {name} is {value}; give a number from 0 up, or a share such as '1 %'")
    return value  # type: ignore[no-any-return]


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return value


def _a(kind: type, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value
