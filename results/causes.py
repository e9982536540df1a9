"""All findings on a cell as one, with its cause in a sentence: "MACs +7.2 %, 8 new aten.bmm". Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from vbench.results.outcome import FAILS, OPEN, ORDER, Finding, GateVerdict

SAID = 3  # quantities that a sentence names
NAMED = 3  # the most items that a note names
LEAST = 5e-4  # a smaller share is told as a number
WORDS = {  # of quantities, the most telling first
    "latency_ms": "time",
    "params": "parameters",
    "macs": "MACs",
    "macs_executed": "MACs executed",
    "macs_matmul": "MACs of products",
    "macs_inside": "MACs inside the operator",
    "operations": "operations",
    "operations inside": "operations inside the operator",
    "peak_memory_bytes": "peak memory",
    "predicted_peak_bytes": "predicted peak memory",
    "energy_j_per_image": "energy",
    "launches": "launches",
    "bytes_min": "least traffic",
    "flops_total": "FLOPs",
    "flops_elementwise": "pointwise FLOPs",
    "flops_inside": "FLOPs inside the operator",
}
MACS = frozenset(what for what in WORDS if what.startswith("macs"))  # one change moves several: the first is named
PRODUCTS = (  # how the names of operations begin that have MACs
    *("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm", "aten.convolution"),
    *("aten.scaled_dot_product_attention", "vbench."),
)
_RANK = {what: place for place, what in enumerate(WORDS)}
_ALONE: dict[GateVerdict, str] = {
    "NEW": "only head has it",
    "GONE": "only base has it",
    "MENDED": "it is measured again",
}


@dataclass(frozen=True, slots=True)
class CellFinding:
    """All findings on one cell, the worst first. `verdict` is the worst; `cause` is a sentence without its stop."""

    cell: str
    verdict: GateVerdict
    cause: str
    findings: tuple[Finding, ...]


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that fail come first, SAME ones last. The order within a verdict is kept."""
    return sorted(findings, key=lambda finding: ORDER[finding.verdict])


def by_cell(findings: Iterable[Finding]) -> list[CellFinding]:
    """One finding for each cell, the worst first. The order within a verdict is that of the cells."""
    cells: dict[str, list[Finding]] = {}
    for finding in findings:
        cells.setdefault(finding.cell, []).append(finding)
    found = [CellFinding(cell, ordered(own)[0].verdict, cause(own), tuple(ordered(own))) for cell, own in cells.items()]
    return sorted(found, key=lambda one: ORDER[one.verdict])


def cause(findings: Sequence[Finding]) -> str:
    """What changed in a cell, the gravest first: at most `SAID` quantities, and how many others there are.

    Of a cell in which nothing changed: its time, if that was measured; else empty.
    """
    changed = sorted((finding for finding in findings if finding.verdict != "SAME"), key=_gravity)
    if not changed:
        timed = [finding for finding in findings if finding.unit == "ms"]
        return phrase(timed[0]) if timed else ""
    of_macs = [finding for finding in changed if finding.what in MACS]
    named = [finding for finding in changed if finding.what not in MACS or finding is of_macs[0]]
    said = [phrase(finding) for finding in named[:SAID]]
    more = len(changed) - len(said)
    return ", ".join(said) + (f" and {more} more quantit{'y' if more == 1 else 'ies'}" if more else "")


def _gravity(finding: Finding) -> tuple[int, int]:
    """A sort key: what fails, then what is open; within both the most telling quantity."""
    grave = 0 if finding.verdict in FAILS else 1 if finding.verdict in OPEN else 2
    return grave, _RANK.get(finding.what, -1 if finding.base is None else len(_RANK))


def phrase(finding: Finding) -> str:
    """One quantity in words: "MACs +7.2 %", "time +10.0 % (+8.9 % to +11.1 %, 10 → 11 ms)"."""
    name, note, base, head, ratio = _name(finding.what), finding.note, finding.base, finding.head, finding.ratio
    unit = f" {finding.unit}" if finding.unit and finding.unit != name else ""
    if finding.verdict == "UNEQUAL":
        return f"its modes are not one function ({note})"
    if finding.what.startswith("operations"):
        return note.partition("; ")[0] if note else name  # which ones; then what excuses it
    if base is None or head is None:
        known = [number(value) + unit for value in (base, head) if value is not None]
        told = ", ".join(filter(None, [*known, note]))
        return f"{name}: {told}" if known else told or _ALONE.get(finding.verdict, name)
    change = f"{number(base)} → {number(head)}{unit}"
    if ratio is None or not isfinite(ratio) or finding.unit is None:
        return f"{name} {change}"
    if finding.unit == "ms":
        ends = f"{_share(finding.lo)} to {_share(finding.hi)}, " if finding.lo and finding.hi else ""
        return f"{name} {_share(ratio)} ({ends}{change})"
    return f"{name} {change}" if abs(ratio - 1) < LEAST else f"{name} {_share(ratio)}"


def _name(what: str) -> str:
    head, of, rest = what.rpartition("exponent of ")
    return head + of + WORDS.get(rest, rest)


def _share(ratio: float) -> str:
    """1.072 -> "+7.2 %"."""
    return f"{(ratio - 1) * 100:+,.1f} %"


def number(value: float) -> str:
    """All digits of a whole number; else four significant digits."""
    if isfinite(value) and value == int(value) and abs(value) < 1e18:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def culprits(base: Mapping[str, int], head: Mapping[str, int], dtype: str = "") -> str | None:
    """The operations whose calls changed most, such as "8 new aten.bmm and 2 others"; None if none changed.

    Named are those in float64 and products, if some of them changed. `dtype` is the usual one and is not named.
    """
    change = {name: head.get(name, 0) - base.get(name, 0) for name in {*base, *head}}
    order = sorted(
        (name for name in change if change[name]),
        key=lambda name: (not name.endswith(" float64"), name in head, -abs(change[name]), name),
    )
    telling = [name for name in order if name.endswith(" float64") or name.startswith(PRODUCTS)]
    shown = [*telling, *(name for name in order if name not in telling)]
    lines = [_called(name.removesuffix(f" {dtype}"), base.get(name, 0), head.get(name, 0)) for name in shown]
    return few(lines, most=min(NAMED, len(telling) or NAMED))


def _called(name: str, before: int, now: int) -> str:
    if not before:
        return f"{now} new {name}"
    return f"{name} {before} → {now}" if now else f"{before} {name} gone"


def few(lines: Sequence[str], between: str = ", ", last: str = " and ", most: int = NAMED) -> str | None:
    """The first `most` of these in one line, and how many there are beyond; None if there are none."""
    beyond = len(lines) - most
    more = f"{last}{beyond} other{'s' * (beyond > 1)}" if beyond > 0 else ""
    return between.join(lines[:most]) + more or None
