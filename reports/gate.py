"""The outcome of a gate: a table for the terminal, and JSON, Markdown, JUnit XML and metrics for CI.

Cells, notes and facts come from records, revisions and names of models. All of them are escaped.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.text import Text

from vbench.files import write_text
from vbench.reports import metrics
from vbench.reports.grid import escaped, pipes, tame
from vbench.results.outcome import (
    FAILS,
    NOTHING,
    OPEN,
    PASS,
    REGRESSION,
    UNDECIDED,
    UNEQUAL,
    VERDICTS,
    Finding,
    GateVerdict,
    Outcome,
)
from vbench.results.text import bare_table, print_whole

SCHEMA = 1  # of the JSON
SHOWN_SAME = 8  # SAME findings that are shown; if there are more, they are only counted
HEADER = ("cell", "what", "base", "head", "head / base", "95 % interval", "matters from", "verdict", "note")
RIGHT = HEADER[2:7]
ABOUT = (  # facts that the terminal shows
    *("device", "threads", "blocks", "launches", "wall_s"),
    *("versions_that_differ", "notes", "not_looked_into", "nothing_to_compare"),
)
FILES = ("gate.json", "gate.md", "junit.xml", "github-action-benchmark.json", "bencher.json")
WORDS = {
    PASS: "pass",
    REGRESSION: "regression",
    NOTHING: "no verdict",
    UNDECIDED: "undecided",
    UNEQUAL: "modes not equal",
}
_FIRST: tuple[GateVerdict, ...] = ("UNEQUAL", "WRONG", "BROKEN", "SLOW", "MORE", "CHANGED", "OVER")
_LAST: tuple[GateVerdict, ...] = ("NEW", "MENDED", "FAST", "LESS", "SAME")
ORDER = {verdict: place for place, verdict in enumerate((*_FIRST, *(one for one in VERDICTS if one in OPEN), *_LAST))}


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Findings that fail come first, SAME ones last. The order within a verdict is kept."""
    return sorted(findings, key=lambda finding: ORDER[finding.verdict])


def sentences(outcome: Outcome, *, strict: bool = False) -> list[str]:
    """One sentence each: the verdict, what was compared, and the smallest change that can be detected."""
    lines = [
        _verdict(outcome, strict=strict),
        f"{tame(outcome.command)}: base {tame(outcome.base)}, head {tame(outcome.head)}.",
    ]
    return [*lines, *filter(None, [_detectable(outcome.findings)])]


def _verdict(outcome: Outcome, *, strict: bool) -> str:
    if outcome.interrupted:
        return "No verdict: interrupted. The findings so far are shown, but decide nothing."
    if outcome.invalid:
        return f"No verdict: the session is invalid: {tame(outcome.invalid)}. Its findings decide nothing."
    count = len(outcome.findings)
    every = f"{count} finding{'' if count == 1 else 's'}"
    failing, still_open = _counted(outcome.of(*FAILS)), _counted(outcome.of(*OPEN))
    return {
        UNEQUAL: f"The modes are not one function: of {every}, {failing} fail.",
        REGRESSION: f"Regression: of {every}, {failing} fail.",
        NOTHING: f"No verdict: nothing was judged; {_counted(outcome.findings) or 'there is no finding'}.",
        UNDECIDED: f"Undecided, which --strict does not let pass: of {every}, {still_open}.",
        PASS: f"Pass: of {every} none fails" + (f"; {still_open}, not let pass by --strict." if still_open else "."),
    }[outcome.exit_code(strict=strict)]


def _counted(findings: Sequence[Finding]) -> str:
    """ "2 SLOW, 1 OVER"."""
    counts = Counter(finding.verdict for finding in findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER if counts[verdict])


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
    """Print the table, then the sentences and remarks. A narrow terminal wraps lines; no number is cut."""
    shown, hidden = _folded(outcome)
    if shown:
        table = bare_table(HEADER, RIGHT)
        for finding in shown:
            table.add_row(
                *(Text(text, style=_style(finding) if text == finding.verdict else "") for text in _row(finding))
            )
        print_whole(table, console)
    if hidden:
        console.print(f"{hidden} more are SAME.", style="dim")
    first, *rest = sentences(outcome, strict=strict)
    console.print(first, style="bold", markup=False)
    for line in [*rest, *_remarks(outcome)]:
        console.print(line, markup=False)
    if about := "; ".join(f"{name} {text}" for name, text in _facts(outcome.facts) if name in ABOUT):
        console.print(about, style="dim", markup=False)


def _folded(outcome: Outcome) -> tuple[list[Finding], int]:
    """The findings to show, and the number of SAME ones that are left out."""
    same = len(outcome.of("SAME"))
    if same <= SHOWN_SAME:
        return ordered(outcome.findings), 0
    return [finding for finding in ordered(outcome.findings) if finding.verdict != "SAME"], same


def _style(finding: Finding) -> str:
    if finding.verdict in FAILS:
        return "red"
    if finding.verdict in OPEN:
        return "yellow"
    return "dim" if finding.verdict == "SAME" else "green"


def _row(finding: Finding) -> tuple[str, ...]:
    """The texts of a finding, under `HEADER`."""
    unit = f" {tame(finding.unit)}" if finding.unit else ""
    base, head = (_figure(value) + unit if value is not None else "–" for value in (finding.base, finding.head))
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


def _figure(value: float) -> str:
    """All digits of a whole number; else four significant digits."""
    if isfinite(value) and value == int(value) and abs(value) < 1e18:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _remarks(outcome: Outcome) -> list[str]:
    """The remarks on an outcome: the warnings and the note among its facts."""
    note = outcome.facts.get("note")
    return [tame(str(line)) for line in [*outcome.facts.get("warnings", []), *([note] if note else [])]]


def to_json(outcome: Outcome, *, strict: bool = False) -> str:
    """One object: schema, verdict, exit code, what was compared, all findings and facts. NaN becomes null."""
    whole = {
        "schema": SCHEMA,
        "command": outcome.command,
        "base": outcome.base,
        "head": outcome.head,
        "verdict": WORDS[outcome.exit_code(strict=strict)],
        "exit_code": outcome.exit_code(strict=strict),
        "strict": strict,
        "summary": sentences(outcome, strict=strict),
        "counts": {name: count for name in VERDICTS if (count := len(outcome.of(name)))},
        "invalid": outcome.invalid,
        "interrupted": outcome.interrupted,
        "findings": [asdict(finding) for finding in ordered(outcome.findings)],
        "facts": outcome.facts,
    }
    return json.dumps(_json(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json(value: Any) -> Any:
    """The value for JSON: text without control characters, and None for NaN and infinity."""
    if isinstance(value, Mapping):
        return {tame(str(key)): _json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, float):
        return value if isfinite(value) else None
    return tame(value) if isinstance(value, str) else value


def to_markdown(outcome: Outcome, *, strict: bool = False) -> str:
    """For the summary of a job or a comment: verdict and findings; SAME findings and facts are folded away."""
    code = outcome.exit_code(strict=strict)
    first, *rest = sentences(outcome, strict=strict)
    lines = [f"## vbench {outcome.command}: {WORDS[code]}", "", f"**{_md(first)}**", ""]
    lines += [line for text in [*rest, *_remarks(outcome)] for line in (_md(text), "")]
    every = ordered(outcome.findings)
    lines += _md_table([finding for finding in every if finding.verdict != "SAME"])
    if same := [finding for finding in every if finding.verdict == "SAME"]:
        lines += ["<details>", f"<summary>{len(same)} SAME</summary>", "", *_md_table(same), "</details>", ""]
    if facts := _facts({key: value for key, value in outcome.facts.items() if key not in ("note", "warnings")}):
        rows = [(_code(name), _code(text)) for name, text in facts]
        lines += ["<details>", "<summary>How it was done</summary>", "", *pipes(("fact", "value"), rows)]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def _md_table(findings: Sequence[Finding]) -> list[str]:
    if not findings:
        return []
    rows = []
    for finding in findings:
        cell, what, *figures, verdict, note = _row(finding)
        word = f"**{verdict}**" if finding.verdict in FAILS else verdict
        rows.append([_code(cell), _code(what), *map(_md, figures), word, _code(note)])
    return [*pipes(HEADER, rows, RIGHT), ""]


def _code(text: str) -> str:
    """Text of a table cell as a code span, in which nothing becomes a link, a mention or HTML."""
    if not text.strip():
        return ""
    text = text.replace("|", "¦")  # | ends a cell in some renderers, even if it is escaped
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in (text[0], text[-1]) else ""
    return f"{fence}{space}{text}{space}{fence}"


def _md(text: str) -> str:
    """A sentence escaped for Markdown, in which nothing becomes a link or a mention."""
    text = escaped(text.replace("|", "¦")).replace("#", "\\#")
    return text.replace("@", "@\u200b").replace("://", ":\u200b//")  # no mentions, no links


def _facts(facts: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    """Facts as (name, text). Long ones and nested lists are only in gate.json; their text says so."""
    found: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = tame(f"{before}{key}")
        many = isinstance(value, Mapping | list | tuple) and len(value) > 4 * SHOWN_SAME
        if many or (isinstance(value, Mapping) and value and all(map(_deep, value.values()))) or _deep(value):
            found.append((name, f"{len(value)} entries, in gate.json"))
        elif isinstance(value, Mapping):
            found += _facts(value, f"{name}.")
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


def to_junit(outcome: Outcome) -> str:
    """JUnit XML for Jenkins and GitLab: a testcase for each finding, named by its cell and quantity.

    A finding in FAILS is a failure. One that is NEW, gone, ambiguous or not measured is skipped, with its reason. A
    session without a verdict is an error, and its findings are skipped. Both tools show the text of an element, Jenkins
    also its `message`. GitLab ignores a second testcase with the same name, so names get numbers.
    """
    suite = ET.Element("testsuite", name=f"vbench {outcome.command}")
    properties = ET.SubElement(suite, "properties")
    about = [("base", tame(outcome.base)), ("head", tame(outcome.head)), *_facts(outcome.facts)]
    for name, value in about:
        ET.SubElement(properties, "property", name=name, value=value)
    void = outcome.exit_code() == NOTHING
    if void:
        case = ET.SubElement(suite, "testcase", classname="session", name="verdict")
        _reason(case, "error", "no verdict", _verdict(outcome, strict=False))
    seen: Counter[tuple[str, str]] = Counter()
    for finding in outcome.findings:
        cell, name = tame(finding.cell), tame(finding.what)
        seen[cell, name] += 1
        if (again := seen[cell, name]) > 1:
            name = f"{name} ({again})"
        case = ET.SubElement(suite, "testcase", classname=cell, name=name)
        if finding.verdict in FAILS and not void:
            _reason(case, "failure", finding.verdict, _in_words(finding))
        elif finding.verdict in FAILS | OPEN | {"NEW"}:
            _reason(case, "skipped", finding.verdict, _in_words(finding))
    tags = {"tests": "testcase", "failures": "failure", "errors": "error"}
    counts = {name: str(len(list(suite.iter(tag)))) for name, tag in tags.items()}
    suite.attrib.update(counts, skipped=str(len(list(suite.iter("skipped")))))
    whole = ET.Element("testsuites", {"name": "vbench", **counts})
    whole.append(suite)
    ET.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(whole, encoding="unicode") + "\n"


def _reason(case: ET.Element, tag: str, kind: str, text: str) -> None:
    ET.SubElement(case, tag, type=kind, message=text).text = text


def _in_words(finding: Finding) -> str:
    """ "SLOW: base 10 ms, head 11 ms, 1.100×, 95 % interval 1.080–1.120, matters from ±3 %; why"."""
    _, _, base, head, ratio, interval, delta, verdict, note = _row(finding)
    parts = [f"base {base}", f"head {head}"] + ([ratio] if ratio != "–" else [])
    parts += [f"{name} {text}" for name, text in (("95 % interval", interval), ("matters from", delta)) if text != "–"]
    return f"{verdict}: {', '.join(parts)}" + (f"; {note}" if note else "")


def write_outputs(outcome: Outcome, folder: Path, *, strict: bool = False) -> list[Path]:
    """Write `FILES` into a folder, each whole or not at all. Returns the files written.

    If head has no value, there are no metrics; those of an earlier session are removed.

    Raises: OutputError if the folder cannot be written.
    """
    values = metrics.metrics(outcome)
    texts = {
        "gate.json": to_json(outcome, strict=strict),
        "gate.md": to_markdown(outcome, strict=strict),
        "junit.xml": to_junit(outcome),
        "github-action-benchmark.json": metrics.to_github_action_benchmark(values),
        "bencher.json": metrics.to_bencher(values),
    }
    for name, text in texts.items():
        if text is not None:
            write_text(folder / name, text)
        elif (folder / name).exists():
            (folder / name).unlink()
    return [folder / name for name, text in texts.items() if text is not None]
