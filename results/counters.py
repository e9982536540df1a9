"""The baseline of `vbench gate --counters`: reads it, writes it, and compares it with what is counted now. No torch."""

from __future__ import annotations

import json
from collections import Counter as Calls
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

from vbench.errors import SchemaError, UsageError, first_line
from vbench.options import shown
from vbench.plan import LARGEST
from vbench.results.causes import culprits, few
from vbench.results.machines import changed
from vbench.results.outcome import Finding, GateVerdict, Outcome
from vbench.results.text import px

WHAT, SCHEMA = "counters of vbench gate", 1
Count = int | float | None


class Counter(NamedTuple):
    """A quantity of a cell. A counter of `libraries` may change with the versions of torch and timm alone."""

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
SCALED = ("macs_executed", "flops_inside", "predicted_peak_bytes")  # their exponents are judged too
RESOURCES = {"registers": "registers", "stack": "bytes", "shared": "bytes"}  # of a kernel, with their units
LIBRARIES = ("python", "torch", "timm")  # what operations depend on
COMPILER = ("triton",)  # what kernels' resources depend on
COUNTER = "vbench"  # what counts; a baseline of before does not say its version
# How far a count may differ from the baseline: a number in its unit, or a share such as "1 %"; 0 if it is not named.
TOLERANCES: dict[str, float | str] = {"exponent": 0.02, "registers": 8, "predicted_peak_bytes": "0.1 %"}
NOT_KNOWN = "not known on either side; 'vbench flops --strict' says why"


@dataclass(frozen=True, slots=True)
class CountedCell:
    """The counts of one pass of one image.

    `case` has the fields of a `plan.Case` that matter here. `counts` has `tokens` and `COUNTERS`; None if not known.
    `operations` counts the calls of the model, `inside` those inside its operator, by name and dtype ("aten.mm
    float32"). `unseen` says why the calls inside the operator are not known, `notes` how else it was counted.
    """

    name: str
    case: dict[str, Any]
    counts: dict[str, Count]
    operations: dict[str, int]
    inside: dict[str, int]
    unseen: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Baseline:
    """The content of a file. `kernels` has the `RESOURCES` of each kernel, by its name."""

    versions: dict[str, str | None]
    cells: tuple[CountedCell, ...]
    kernels: dict[str, dict[str, int]]
    tolerances: dict[str, float | str] = field(default_factory=lambda: dict(TOLERANCES))


class Equality(NamedTuple):
    """Whether the modes of an operator or a model are one function.

    `reason` says why there were no comparisons, or not all; `wrong` has a line for each comparison that failed.
    """

    checks: int
    complete: bool
    reason: str | None
    wrong: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compare."""
        return self.complete and not self.checks


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted now.

    `cells` maps a name to the cell, or to the reason why it could not be counted. `absent` has the reasons of cells
    that need a missing package, `refused` those of cells that cannot exist. `equality` is by operator or model.
    `uncompiled` says, by operator or "" for all, why no kernel was compiled.
    """

    versions: dict[str, str | None]
    cells: dict[str, CountedCell | str]
    absent: dict[str, str]
    refused: dict[str, str]
    equality: dict[str, Equality]
    kernels: dict[str, dict[str, int]]
    uncompiled: dict[str, str]

    def leave(self, name: str, where: dict[str, str], reason: str) -> None:
        """Move a cell from `cells` to `where`: `absent` or `refused`."""
        del self.cells[name]
        where[name] = reason


def compare(base: Baseline, now: Counted, *, name: str, head: str) -> Outcome:
    """Judge every quantity of every cell of the baseline.

    A count is MORE or LESS if it differs by more than its tolerance; parameters are CHANGED if they differ. Operations
    are MORE if there are more of them, or more in float64; CHANGED if they differ and their number does not. A
    difference is AMBIGUOUS if other versions of libraries can explain it. A cell is BROKEN if it cannot be counted,
    UNMEASURED if a package is missing here. Modes that are not one function are UNEQUAL.

    Args:
        name: the file of the baseline. head: what was counted, in words.
    """
    others = {
        key: [base.versions.get(key), now.versions.get(key)]
        for key in (*LIBRARIES, *COMPILER)
        if base.versions.get(key) != now.versions.get(key)
    }
    findings: list[Finding] = []
    pairs: list[tuple[CountedCell, CountedCell]] = []
    for cell in base.cells:
        counted = now.cells.get(cell.name)
        if isinstance(counted, CountedCell):
            pairs.append((cell, counted))
            findings += _of_cell(cell, counted, base.tolerances, _differing(others, LIBRARIES))
        elif cell.name in now.absent:
            findings.append(Finding(cell.name, "counters", "UNMEASURED", note=now.absent[cell.name]))
        else:
            findings.append(Finding(cell.name, "counters", "BROKEN", note=counted or now.refused.get(cell.name)))
    findings += _exponents(pairs, base.tolerances)
    findings += _equalities(now.equality)
    findings += _kernels(base, now, _differing(others, COMPILER))
    facts = {
        "versions": now.versions,
        "versions_that_differ": others,
        "notes": {cell.name: list(cell.notes) for _, cell in pairs if cell.notes},
        "not_looked_into": {cell.name: cell.unseen for _, cell in pairs if cell.unseen},
        "nothing_to_compare": {subject: each.reason for subject, each in now.equality.items() if each.empty},
    }
    told = [*others, *([COUNTER] if base.versions.get(COUNTER) else [])]
    unlike = changed({key: base.versions.get(key) for key in told}, {key: now.versions.get(key) for key in told})
    return Outcome("gate --counters", name, head, tuple(findings), unlike=unlike, facts=facts)


def _differing(others: Mapping[str, list[str | None]], relevant: Iterable[str]) -> str | None:
    """The relevant versions that differ, in words; None if there are none."""
    return (
        ", ".join(f"{k} {others[k][1]} here, {others[k][0]} in the baseline" for k in relevant if k in others) or None
    )


def _of_cell(
    base: CountedCell, head: CountedCell, tolerances: Mapping[str, float | str], libraries: str | None
) -> list[Finding]:
    """A finding for each counter, one for the operations of the model, and one for those inside its operator."""
    findings = []
    for counter in COUNTERS:
        before, after = base.counts.get(counter.name), head.counts.get(counter.name)
        if before is None and after is None:
            if counter.name in head.counts and not counter.name.endswith("_inside"):  # there may be no operator
                findings.append(Finding(base.name, counter.name, "UNMEASURED", note=NOT_KNOWN))
            continue
        verdict: GateVerdict = "CHANGED"
        notes = ["not known now" if after is None else "not known in the baseline"]
        if before is not None and after is not None:
            verdict, notes = _judged(before, after, slack(tolerances, counter.name, before)), []
            if counter.name == "params" and verdict != "SAME":
                verdict = "CHANGED"
        if verdict != "SAME" and counter.libraries and libraries:
            verdict, notes = "AMBIGUOUS", [*notes, libraries]
        findings.append(_finding(base.name, counter.name, verdict, before, after, counter.unit, notes))
    operations = ("operations", base.operations, head.operations), ("operations inside", base.inside, head.inside)
    for what, old, new in operations:
        if not old and not new:
            continue
        verdict = _of_operations(old, new)
        excuse = libraries if verdict != "SAME" else None
        told = [culprits(old, new, str(base.case.get("dtype"))), excuse]
        sums = sum(old.values()), sum(new.values())
        findings.append(_finding(base.name, what, "AMBIGUOUS" if excuse else verdict, *sums, "calls", told))
    return findings


def _judged(base: float, head: float, slack: float) -> GateVerdict:
    return "MORE" if head > base + slack else "LESS" if head < base - slack else "SAME"


def slack(tolerances: Mapping[str, float | str], name: str, base: float) -> float:
    """By how much a count may differ from `base`, in its unit."""
    tolerance = tolerances.get(name, 0.0)
    return abs(base) * float(tolerance.removesuffix("%")) / 100 if isinstance(tolerance, str) else tolerance


def _of_operations(base: Mapping[str, int], head: Mapping[str, int]) -> GateVerdict:
    if dict(base) == dict(head):
        return "SAME"
    double = [sum(calls for name, calls in each.items() if name.endswith(" float64")) for each in (base, head)]
    if double[1] > double[0]:
        return "MORE"
    sums = sum(base.values()), sum(head.values())
    return "CHANGED" if sums[0] == sums[1] else "MORE" if sums[1] > sums[0] else "LESS"


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
        setting = {key: value for key, value in pair[0].case.items() if key not in ("height", "width")}
        curves.setdefault(json.dumps(setting, sort_keys=True), []).append(pair)
    findings = []
    for curve in curves.values():
        for cost in SCALED:
            before, after = (_slope([pair[index] for pair in curve], cost) for index in (0, 1))
            if before is None or after is None:
                continue
            delta = slack(tolerances, "exponent", before)
            verdict = _judged(before, after, delta)
            sizes = ", ".join(px(cell.case["height"], cell.case["width"]) for cell, _ in curve)
            note = None if verdict == "SAME" else f"over {sizes} px"
            model, _, *rest = curve[0][0].name.split(" ")  # without the size
            where, what = " ".join([model, *rest]), f"exponent of {cost}"
            findings.append(Finding(where, what, verdict, before, after, delta=delta, note=note))
    return findings


def _slope(cells: list[CountedCell], cost: str) -> float | None:
    """The slope; None if there are fewer than two sizes, or a cost is 0 or not known."""
    sizes = [cell.counts.get("tokens") or cell.case["height"] * cell.case["width"] for cell in cells]
    costs = [cell.counts.get(cost) or 0 for cell in cells]
    if len(set(sizes)) < 2 or not all(costs):
        return None
    return linear_regression([log(size) for size in sizes], [log(each) for each in costs]).slope


def _equalities(equality: Mapping[str, Equality]) -> list[Finding]:
    findings = []
    for subject, each in equality.items():
        if not each.empty:
            verdict: GateVerdict = "UNEQUAL" if each.wrong else "SAME" if each.complete else "BROKEN"
            note = few(each.wrong, "; ", "; and ") or each.reason
            findings.append(Finding(subject, "mode equality", verdict, head=each.checks, unit="checks", note=note))
    return findings


def _kernels(base: Baseline, now: Counted, compiler: str | None) -> list[Finding]:
    if base.kernels and "" in now.uncompiled:
        return [Finding("kernels", "resources", "UNMEASURED", note=now.uncompiled[""])]
    findings = []
    for name, before in base.kernels.items():
        after = now.kernels.get(name)
        if after is None:
            reason = now.uncompiled.get(name.partition(" ")[0])
            verdict: GateVerdict = "GONE" if reason is None else "AMBIGUOUS" if compiler else "BROKEN"
            note = "; ".join(filter(None, [reason or "it is not launched any more", compiler]))
            findings.append(Finding(name, "resources", verdict, note=note))
            continue
        for what, unit in RESOURCES.items():
            verdict = _judged(before[what], after[what], slack(base.tolerances, what, before[what]))
            excuse = compiler if verdict != "SAME" else None
            verdict = "AMBIGUOUS" if excuse else verdict
            findings.append(_finding(name, what, verdict, before[what], after[what], unit, (excuse,)))
    return findings + [Finding(name, "resources", "NEW") for name in now.kernels if name not in base.kernels]


def to_text(base: Baseline) -> str:
    """The text of a file: JSON with a line for each part of a cell."""
    parts, always = ("case", "counts", "operations", "inside", "unseen", "notes"), ("case", "counts", "operations")
    cells = []
    for cell in base.cells:
        lines = [
            f'"{part}": {json.dumps(getattr(cell, part))}' for part in parts if part in always or getattr(cell, part)
        ]
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
    """Read a baseline. Raises: UsageError if the file cannot be read; SchemaError if it is damaged or no baseline."""
    try:
        given = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_number)
    except FileNotFoundError:
        raise UsageError(f"there is no {file}; make it: --counters {file} --write --models NAMES --res SIZES") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise SchemaError(f"{file} is no JSON; make it again with --write, or take the committed one") from None
    if not isinstance(given, dict) or given.get("what") != WHAT:
        raise SchemaError(f"{file} is not a baseline of vbench gate --counters; give one made with --write")
    if given.get("schema") != SCHEMA:
        raise SchemaError(f"{file} has schema {given.get('schema')!r}; this version reads {SCHEMA}: --write it again")
    try:
        return _baseline(given)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"no {shown(error)}" if isinstance(error, KeyError) else first_line(error)
        raise SchemaError(f"{file} is damaged: {why}; make it again with --write") from None


def _baseline(given: Mapping[str, Any]) -> Baseline:
    cells = tuple(_cell(each) for each in _checked(list, given["cells"]))
    if twice := [name for name, times in Calls(cell.name for cell in cells).items() if times > 1]:
        raise ValueError(f"the cell {twice[0]} is in it twice")
    kernels = {name: {what: _checked(int, each[what]) for what in RESOURCES} for name, each in given["kernels"].items()}
    return Baseline(
        versions={key: value if value is None else _checked(str, value) for key, value in given["versions"].items()},
        cells=cells,
        kernels=kernels,
        tolerances={key: _tolerance(key, value) for key, value in given["tolerances"].items()},
    )


def _cell(given: Mapping[str, Any]) -> CountedCell:
    case = dict(_checked(dict, given["case"]))
    for dimension in ("height", "width"):
        if not 1 <= _checked(int, case[dimension]) <= LARGEST:
            raise ValueError(f"{dimension} {shown(case[dimension])} is no size")
    counts = _checked(dict, given["counts"])
    name = _checked(str, given["cell"])
    if len(name.split(" ")) < 2:
        raise ValueError(f"the name of the cell '{shown(name)}' has no size; a cell is named like 'vig_t 224 parallel'")
    for key in ("form", "attention"):
        if case.get(key) is not None:
            _checked(str, case[key])
    return CountedCell(
        name=name,
        case=case,
        counts={key: None if value is None else _not_below_0(key, value) for key, value in counts.items()},
        operations={key: _checked(int, value) for key, value in given["operations"].items()},
        inside={key: _checked(int, value) for key, value in given.get("inside", {}).items()},
        unseen=None if given.get("unseen") is None else _checked(str, given["unseen"]),
        notes=tuple(_checked(str, note) for note in given.get("notes", ())),
    )


def _tolerance(name: str, value: Any) -> float | str:
    allowed = {"exponent", *RESOURCES, *(counter.name for counter in COUNTERS)}
    if name not in allowed:
        raise ValueError(f"there is no counter '{name}' to tolerate; there are {', '.join(sorted(allowed))}")
    number = value.removesuffix("%") if isinstance(value, str) and value.endswith("%") else _checked(float, value)
    if not 0 <= float(number) < float("inf"):
        raise ValueError(f"the tolerance of {name} is {value}; give a number from 0 up, or a share such as '1 %'")
    return value  # type: ignore[no-any-return]


def _checked(kind: type, value: Any) -> Any:
    """The value. Raises: TypeError if it is of another kind, or beyond 63 bits; `float` means any number."""
    if not isinstance(value, (int, float) if kind is float else kind) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} is no {'number' if kind is float else kind.__name__}")
    if isinstance(value, int | float) and not -(2**63) < value < 2**63:
        raise TypeError(f"{shown(value)} is too large for a count")
    return value


def _not_below_0(name: str, value: Any) -> Any:
    if _checked(float, value) < 0:
        raise ValueError(f"{name} is {value}, below 0")
    return value


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
