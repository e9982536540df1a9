"""What a gate found: findings, one a cell and quantity, and the exit code that they mean. Pure.

Three commands come to an `Outcome`: `vbench gate --counters`, `vbench gate --ab`, and `vbench compare`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

GateVerdict = Literal[
    "SAME",  # within what matters
    "FAST",  # head takes less time, beyond what matters and beyond the noise
    "SLOW",
    "AMBIGUOUS",  # the interval tells neither
    "LESS",  # of a count, or of bytes
    "MORE",
    "CHANGED",  # a fact that must stay as it is did not
    "OVER",  # an absolute budget is exceeded
    "UNEQUAL",  # the modes are not one function
    "BROKEN",  # measured before, and not any more
    "MENDED",  # not measured before, and now it is
    "NEW",  # in head alone
    "GONE",  # in base alone
    "UNMEASURED",  # on neither side, or too little for a verdict
]
VERDICTS: tuple[GateVerdict, ...] = get_args(GateVerdict)
FAILS: frozenset[GateVerdict] = frozenset({"SLOW", "MORE", "CHANGED", "OVER", "UNEQUAL", "BROKEN"})
OPEN: frozenset[GateVerdict] = frozenset({"AMBIGUOUS", "GONE", "UNMEASURED"})  # what --strict does not let pass

THRESHOLD = 0.03  # of the base; a smaller change is none, unless something else is asked for

PASS, REGRESSION, USAGE, NOTHING, UNDECIDED, UNEQUAL = range(6)  # exit codes


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity of one cell, on both sides.

    `base` and `head` are in `unit`, None where there is no such value; `ratio` is head over base, with its interval
    `lo` to `hi` where it has one; `delta` is the change from which it matters. `note` is one line of why.
    """

    cell: str  # "vig_t 224 parallel float32", as `str(Case)`; or a kernel's name
    what: str  # "latency_ms", "peak_memory_bytes", "macs_executed", "mode equality" ...
    verdict: GateVerdict
    base: float | None = None
    head: float | None = None
    unit: str | None = None
    ratio: float | None = None
    lo: float | None = None
    hi: float | None = None
    delta: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All findings of one session.

    `base` and `head` say what was compared: a commit, a folder, a file. `invalid` says why the session proves nothing,
    if it does not: what it then found is shown, and decides nothing. `facts` is JSON-able and says how it was done.
    """

    command: Literal["gate --counters", "gate --ab", "compare"]
    base: str
    head: str
    findings: tuple[Finding, ...]
    invalid: str | None = None
    interrupted: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def of(self, *verdicts: GateVerdict) -> list[Finding]:
        """The findings with these verdicts."""
        return [finding for finding in self.findings if finding.verdict in verdicts]

    def exit_code(self, *, strict: bool = False) -> int:
        """0 pass; 1 a regression; 3 nothing was judged, or the session is invalid or was interrupted; 5 modes that are
        not one function. With `strict`, 4 where anything is ambiguous, gone or not measured."""
        if self.interrupted or self.invalid:
            return NOTHING
        if self.of("UNEQUAL"):
            return UNEQUAL
        if self.of(*FAILS):
            return REGRESSION
        if len(self.of("UNMEASURED", "NEW", "GONE")) == len(self.findings):
            return NOTHING
        return UNDECIDED if strict and self.of(*OPEN) else PASS
