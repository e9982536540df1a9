"""The result of a gate: a finding for each cell and quantity, and the exit code. Pure.

Three commands end in an `Outcome`: `vbench gate --counters`, `vbench gate --ab` and `vbench compare`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

GateVerdict = Literal[
    "SAME",  # within what matters
    "FAST",  # head takes less time, beyond what matters and beyond the noise
    "SLOW",
    "AMBIGUOUS",  # the interval does not decide
    "LESS",  # of a count, or of bytes
    "MORE",
    "CHANGED",  # a fact that must not change did
    "OVER",  # beyond an absolute budget
    "WRONG",  # what was timed did not do the work: its outputs are wrong, or no device is so fast
    "UNEQUAL",  # the modes are not one function
    "BROKEN",  # measured in base, failed in head
    "MENDED",  # failed in base, measured in head
    "NEW",  # in head alone
    "GONE",  # in base alone
    "UNMEASURED",  # in neither, or too little for a verdict
]
VERDICTS: tuple[GateVerdict, ...] = get_args(GateVerdict)
FAILS: frozenset[GateVerdict] = frozenset({"SLOW", "MORE", "CHANGED", "OVER", "WRONG", "UNEQUAL", "BROKEN"})
OPEN: frozenset[GateVerdict] = frozenset({"AMBIGUOUS", "GONE", "UNMEASURED"})  # with --strict these fail too
_FIRST: tuple[GateVerdict, ...] = ("UNEQUAL", "WRONG", "BROKEN", "SLOW", "MORE", "CHANGED", "OVER")
_LAST: tuple[GateVerdict, ...] = ("NEW", "MENDED", "FAST", "LESS", "SAME")
ORDER = {verdict: place for place, verdict in enumerate((*_FIRST, *(one for one in VERDICTS if one in OPEN), *_LAST))}

THRESHOLD = 0.03  # the smallest change that matters, as a share of base, unless the user names another

PASS, REGRESSION, USAGE, NOTHING, UNDECIDED, UNEQUAL = range(6)  # exit codes


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity of one cell, in base and in head.

    `base` and `head` are in `unit`; None if there is no value. `ratio` is head over base, with its interval `lo` to
    `hi` if it has one. `delta` is the smallest change that matters. `note` is one line that says why.
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

    `base` and `head` say what was compared: a checkout, a folder, a file. `unlike` names what differs between them
    beside the code, such as "torch 2.11.0 → 2.12.0". `invalid` says why the session proves nothing; its findings are
    then shown, and decide nothing. `facts` is JSON-able and says how the session was done.
    """

    command: Literal["gate --counters", "gate --ab", "compare"]
    base: str
    head: str
    findings: tuple[Finding, ...]
    invalid: str | None = None
    interrupted: bool = False
    unlike: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def of(self, *verdicts: GateVerdict) -> list[Finding]:
        """The findings with these verdicts."""
        return [finding for finding in self.findings if finding.verdict in verdicts]

    def exit_code(self, *, strict: bool = False) -> int:
        """The exit code of the command.

        0: pass. 1: a regression. 3: nothing was judged, or the session is invalid or was interrupted. 4: with `strict`,
        something is ambiguous, gone or not measured. 5: modes that are not one function.
        """
        if self.interrupted or self.invalid:
            return NOTHING
        if self.of("UNEQUAL"):
            return UNEQUAL
        if self.of(*FAILS):
            return REGRESSION
        if len(self.of("UNMEASURED", "NEW", "GONE")) == len(self.findings):
            return NOTHING
        return UNDECIDED if strict and self.of(*OPEN) else PASS
