"""Tables for a terminal: checks of operators and models, and what the doctor found."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from vbench.doctor.examine import Finding
from vbench.results.text import bare_table
from vbench.verify import HALF, KINDS, Check, Verification


def to_rich(verdicts: Iterable[Verification]) -> Table:
    """One row for each subject: the worst error of each kind. For half types it is a multiple of the best form's."""
    kinds = ["half (x best)" if kind == "half" else kind for kind in KINDS]
    heads = ("subject", "forms", "checks", *kinds, "verdict")
    table = bare_table(heads, right=heads[2:], wrap=heads)
    for verdict in verdicts:
        forms = list(dict.fromkeys(check.form for check in verdict.checks))
        worst = [_worst(kind, [check for check in verdict.checks if check.kind == kind]) for kind in KINDS]
        said = "FAILED" if not verdict.ok else "ok" if verdict.checks else verdict.reason
        table.add_row(verdict.subject, ", ".join(forms), str(len(verdict.checks)), *worst, said)
    return table


def _worst(kind: str, checks: list[Check]) -> str:
    if not checks:
        return ""
    if kind == "half":
        return f"{max(HALF * check.error / max(check.bound, 1e-300) for check in checks):.2f}"
    return f"{max(check.error for check in checks):.0e}"


def findings_to_rich(findings: Iterable[Finding]) -> Table:
    """One row for each finding of the doctor."""
    table = bare_table(())
    for finding in findings:
        colour = {"ok": "green", "note": "yellow", "missing": "red"}[finding.verdict]
        table.add_row(finding.topic, Text(finding.verdict, style=colour), finding.text)
    return table
