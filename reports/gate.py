"""The outcome of a gate in words: a table for the terminal, and JSON.

Cells, notes and facts come from records, revisions and names of models. All of them are escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.console import Console
from rich.text import Text

from vbench.results.causes import CellFinding, by_cell, number
from vbench.results.outcome import (
    FAILS,
    NOTHING,
    OPEN,
    ORDER,
    PASS,
    REGRESSION,
    UNDECIDED,
    UNEQUAL,
    VERDICTS,
    Finding,
    GateVerdict,
    Outcome,
)
from vbench.results.text import bare_table, print_whole, tame, tamed

SCHEMA = 2  # of the JSON
SHOWN_SAME = 8  # cells that are SAME are shown, unless there are more
CELLS = ("cell", "verdict", "what changed")
QUANTITIES = ("cell", "what", "base", "head", "head / base", "95 % interval", "matters from", "verdict", "note")
RIGHT = QUANTITIES[2:7]
ABOUT = (  # facts that the terminal shows
    *("device", "threads", "blocks", "launches", "wall_s"),
    *("notes", "not_looked_into", "nothing_to_compare", "written"),
)
MANY = 32  # entries of a fact; if there are more, they are only in the JSON
WORDS = {
    PASS: "pass",
    REGRESSION: "regression",
    NOTHING: "no verdict",
    UNDECIDED: "undecided",
    UNEQUAL: "modes not equal",
}


def unlike(outcome: Outcome) -> str | None:
    """What differs between base and head beside the code, as a sentence; None if nothing is known to differ.

    It stands before any figure.
    """
    return f"Not alike beside the code: {tame('; '.join(outcome.unlike))}." if outcome.unlike else None


def sentences(outcome: Outcome, *, strict: bool = False) -> list[str]:
    """One sentence each: the verdict, what was compared, and the smallest change that can be detected."""
    lines = [verdict(outcome, strict=strict), f"{tame(outcome.command)}: {compared(outcome)}."]
    return [*lines, *filter(None, [_detectable(outcome.findings)])]


def compared(outcome: Outcome) -> str:
    """What was compared with what."""
    return f"base {tame(outcome.base)}, head {tame(outcome.head)}"


def verdict(outcome: Outcome, *, strict: bool) -> str:
    """The verdict as a sentence."""
    if outcome.interrupted:
        return "No verdict: interrupted. The findings so far are shown, but decide nothing."
    if outcome.invalid:
        return f"No verdict: the session is invalid: {tame(outcome.invalid)}. Its findings decide nothing."
    found = by_cell(outcome.findings)
    every = f"{len(found)} finding{'' if len(found) == 1 else 's'}"
    failing, still_open = (counted(one.verdict for one in found if one.verdict in some) for some in (FAILS, OPEN))
    return {
        UNEQUAL: f"The modes are not one function: of {every}, {failing} fail.",
        REGRESSION: f"Regression: of {every}, {failing} fail.",
        NOTHING: f"No verdict: nothing was judged; {counted(one.verdict for one in found) or 'there is no finding'}.",
        UNDECIDED: f"Undecided, which --strict does not let pass: of {every}, {still_open}.",
        PASS: f"Pass: of {every} none fails" + (f"; {still_open}, not let pass by --strict." if still_open else "."),
    }[outcome.exit_code(strict=strict)]


def counted(verdicts: Iterable[GateVerdict]) -> str:
    """ "2 SLOW, 1 OVER", the worst first."""
    counts = Counter(verdicts)
    return ", ".join(f"{counts[one]} {one}" for one in ORDER if counts[one])


def _detectable(findings: Sequence[Finding]) -> str | None:
    """The smallest slowdown that the intervals of this session could detect; None if no cell was timed.

    SLOW needs an interval that is wholly above 1 + delta. So a slowdown must exceed delta by the half-width of the
    interval. The correction for several cells needs a little more.
    """
    least = {
        tame(one.cell): (1 + one.delta) * one.ratio / one.lo - 1
        for one in findings
        if one.unit == "ms" and one.ratio and one.lo and one.delta is not None
    }
    if not least:
        return None
    worst = max(least, key=lambda cell: least[cell])
    if len(least) == 1:
        return f"A slowdown of more than {_percent(least[worst])} would have been detected."
    return (
        f"Taken alone, half of the {len(least)} timed cells would have detected a slowdown of more than "
        f"{_percent(median(least.values()))}, and all of them one of more than {_percent(least[worst])}; the noisiest "
        f"is {worst}."
    )


def show(outcome: Outcome, console: Console, *, strict: bool = False) -> None:
    """Print what is not alike, the table, the sentences and remarks. A narrow terminal wraps lines; none is cut."""
    if first := unlike(outcome):
        console.print(first, style="bold yellow", markup=False)
    shown, hidden = _folded(by_cell(outcome.findings))
    if shown:
        table = bare_table(CELLS)
        for one in shown:
            table.add_row(one.cell, Text(one.verdict, style=_style(one.verdict)), one.cause)
        print_whole(table, console)
    if hidden:
        console.print(f"{hidden} more are SAME.", style="dim")
    if any(one.verdict != "SAME" for one in shown):
        console.print("All quantities: --json, or gate.json in the folder of --out.", style="dim")
    first, *rest = sentences(outcome, strict=strict)
    console.print(first, style="bold", markup=False)
    for line in [*rest, *remarks(outcome)]:
        console.print(line, markup=False)
    about = [_about(*each) for each in flat(outcome.facts) if each[0].partition(".")[0] in ABOUT]
    if about:
        console.print("; ".join(about), style="dim", markup=False)


def _about(name: str, text: str) -> str:
    """ "device", "a CPU" -> "device a CPU"; "nothing_to_compare.net", "why" -> "nothing to compare: net (why)"."""
    fact, _, of = name.partition(".")
    return f"{fact.replace('_', ' ')}: {of} ({text})" if of else f"{fact.replace('_', ' ')} {text}"


def _folded(found: Sequence[CellFinding]) -> tuple[Sequence[CellFinding], int]:
    """The cells to show, and the number of SAME ones that are left out."""
    changed = [one for one in found if one.verdict != "SAME"]
    same = len(found) - len(changed)
    return (found, 0) if same <= SHOWN_SAME else (changed, same)


def _style(verdict: GateVerdict) -> str:
    if verdict in FAILS:
        return "red"
    if verdict in OPEN:
        return "yellow"
    return "dim" if verdict == "SAME" else "green"


def row(finding: Finding) -> tuple[str, ...]:
    """The texts of one quantity, under `QUANTITIES`."""
    unit = f" {tame(finding.unit)}" if finding.unit else ""
    base, head = (number(value) + unit if value is not None else "–" for value in (finding.base, finding.head))
    has_interval = finding.lo is not None and finding.hi is not None
    return (
        tame(finding.cell),
        tame(finding.what),
        base,
        head,
        f"{finding.ratio:.3f}×" if finding.ratio is not None else "–",
        f"{finding.lo:.3f}–{finding.hi:.3f}" if has_interval else "–",
        "–" if finding.delta is None else f"±{_percent(finding.delta)}",
        finding.verdict,
        tame(finding.note or ""),
    )


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def remarks(outcome: Outcome) -> list[str]:
    """The remarks on an outcome: the warnings and the note among its facts."""
    note = outcome.facts.get("note")
    return [tame(str(line)) for line in [*outcome.facts.get("warnings", []), *([note] if note else [])]]


def flat(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Facts as (name, text). Long ones and nested lists are only in gate.json; their text says so."""
    found: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = tame(f"{before}{key}")
        many = isinstance(value, Mapping | list | tuple) and len(value) > MANY
        if many or (isinstance(value, Mapping) and value and all(map(_deep, value.values()))) or _deep(value):
            found.append((name, f"{len(value)} entries, in gate.json"))
        elif isinstance(value, Mapping):
            found += flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found.append((name, ", ".join(map(_plain, value))))
        elif value is not None and value != "":
            found.append((name, _plain(value)))
    return found


def _deep(value: Any) -> bool:
    """Whether a value is a list of lists or objects."""
    return isinstance(value, list | tuple) and any(isinstance(one, Mapping | list | tuple) for one in value)


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else tame(str(value))


def to_json(outcome: Outcome, *, strict: bool = False) -> str:
    """One object: schema, verdict, exit code, what was compared, findings and facts. NaN becomes null.

    There is one finding for each cell: its worst verdict, its cause in a sentence, and all its quantities.
    """
    found = by_cell(outcome.findings)
    first = unlike(outcome)
    whole = {
        "schema": SCHEMA,
        "command": outcome.command,
        "base": outcome.base,
        "head": outcome.head,
        "unlike": outcome.unlike,
        "verdict": WORDS[outcome.exit_code(strict=strict)],
        "exit_code": outcome.exit_code(strict=strict),
        "strict": strict,
        "summary": [*([first] if first else []), *sentences(outcome, strict=strict)],
        "counts": {name: count for name in VERDICTS if (count := sum(one.verdict == name for one in found))},
        "invalid": outcome.invalid,
        "interrupted": outcome.interrupted,
        "findings": [
            {
                "cell": one.cell,
                "verdict": one.verdict,
                "cause": one.cause,
                "quantities": [
                    {key: value for key, value in asdict(each).items() if key != "cell"} for each in one.findings
                ],
            }
            for one in found
        ],
        "facts": outcome.facts,
    }
    return json.dumps(tamed(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
