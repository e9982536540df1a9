"""The outcome of a gate as JUnit XML, which Jenkins and GitLab show as tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from vbench.reports.gate import flat, row, unlike, verdict
from vbench.results.causes import CellFinding, by_cell
from vbench.results.outcome import FAILS, NOTHING, OPEN, Finding, Outcome
from vbench.results.text import tame


def to_junit(outcome: Outcome) -> str:
    """A testcase for each cell, named by it; its text says what changed, and every quantity that did.

    A cell with a finding in FAILS is a failure. One that is NEW, gone, ambiguous or not measured is skipped, with its
    reason. A session without a verdict is an error, and its cells are skipped. Both tools show the text of an element,
    Jenkins also its `message`.
    """
    suite = ET.Element("testsuite", name=f"vbench {outcome.command}")
    properties = ET.SubElement(suite, "properties")
    about = [("base", tame(outcome.base)), ("head", tame(outcome.head))]
    about += [("unlike", tame("; ".join(outcome.unlike)))] if outcome.unlike else []
    for name, value in [*about, *flat({key: one for key, one in outcome.facts.items() if key != "code"})]:
        ET.SubElement(properties, "property", name=name, value=value)
    void = outcome.exit_code() == NOTHING
    if void:
        case = ET.SubElement(suite, "testcase", classname="session", name="verdict")
        _reason(case, "error", "no verdict", verdict(outcome, strict=False), [])
    for one in by_cell(outcome.findings):
        case = ET.SubElement(suite, "testcase", classname=f"vbench {outcome.command}", name=tame(one.cell))
        if one.verdict in FAILS | OPEN | {"NEW"}:
            kind = "failure" if one.verdict in FAILS and not void else "skipped"
            _reason(case, kind, one.verdict, f"{one.verdict}: {tame(one.cause)}", _lines(outcome, one))
    tags = {"tests": "testcase", "failures": "failure", "errors": "error"}
    counts = {name: str(len(list(suite.iter(tag)))) for name, tag in tags.items()}
    suite.attrib.update(counts, skipped=str(len(list(suite.iter("skipped")))))
    whole = ET.Element("testsuites", {"name": "vbench", **counts})
    whole.append(suite)
    ET.indent(whole)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(whole, encoding="unicode") + "\n"


def _reason(case: ET.Element, tag: str, kind: str, text: str, more: list[str]) -> None:
    ET.SubElement(case, tag, type=kind, message=text).text = "\n".join([text, *more])


def _lines(outcome: Outcome, one: CellFinding) -> list[str]:
    """What is not alike and what was compared, then each quantity that changed."""
    differs = unlike(outcome)
    what = f"base {tame(outcome.base)}, head {tame(outcome.head)}"
    return [
        *([differs] if differs else []),
        what,
        *(_in_words(each) for each in one.findings if each.verdict != "SAME"),
    ]


def _in_words(finding: Finding) -> str:
    """ "latency_ms SLOW: base 10 ms, head 11 ms, 1.100×, 95 % interval 1.080–1.120, matters from ±3 %; why"."""
    _, what, base, head, ratio, interval, delta, word, note = row(finding)
    parts = [f"base {base}", f"head {head}"] + ([ratio] if ratio != "–" else [])
    parts += [f"{name} {text}" for name, text in (("95 % interval", interval), ("matters from", delta)) if text != "–"]
    return f"{what} {word}: {', '.join(parts)}" + (f"; {note}" if note else "")
