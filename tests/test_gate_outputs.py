"""What a gate says to people and to CI, held against what the readers of each file accept."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from math import log1p
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from lxml import etree
from markdown_it import MarkdownIt
from rich.console import Console

from vbench.errors import OutputError
from vbench.reports import gate, gate_files, gate_markdown, metrics
from vbench.reports.gate_junit import to_junit
from vbench.reports.gate_markdown import to_markdown
from vbench.results.causes import by_cell, cause
from vbench.results.judge import Comparison, TimedCell, judge
from vbench.results.outcome import FAILS, OPEN, ORDER, VERDICTS, Finding, Outcome

SCHEMAS = Path(__file__).parent / "ci_schemas"
EVIL = "x|y ]]> <b>&\x1b[31m\x00\ud800\uffff\u202e `@all` https://evil.example #1 \n## no"


def timed(cell: str, verdict: Any, base: float = 10.0, ratio: float = 1.0, half: float = 0.01) -> Finding:
    return Finding(
        cell, "latency_ms", verdict, base, base * ratio, "ms", ratio, ratio / (1 + half), ratio * (1 + half), 0.03
    )


SLOW = timed("net 64", "SLOW", ratio=1.1)
SAME = timed("net 128", "SAME")
COUNT = Finding("net 64", "params", "CHANGED", 5_717_416, 5_717_417, "parameters", delta=0.0)
OUTCOME = Outcome("gate --ab", "c0ffee", "working tree", (SAME, COUNT, SLOW), facts={"device": "a test CPU"})


def of(*findings: Finding, **changes: Any) -> Outcome:
    return replace(OUTCOME, findings=findings, **changes)


def cases(outcome: Outcome) -> dict[tuple[str, str], str | None]:
    """Of each testcase of the XML, which must be valid: how it ended."""
    xml = etree.fromstring(to_junit(outcome).encode())
    etree.XMLSchema(etree.parse(SCHEMAS / "junit.xsd")).assertValid(xml)
    suite = xml.find("testsuite")
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        assert int(suite.get(count)) == len(list(suite.iter(tag)))
    return {(case.get("classname"), case.get("name")): next((end.tag for end in case), None) for case in suite[1:]}


def shown(outcome: Outcome, **options: Any) -> str:
    text = StringIO()
    gate.show(outcome, Console(file=text, width=80, soft_wrap=True), **options)
    return text.getvalue()


ALL = of(*(Finding(f"net {v}", "quantity", v, 1.0, 2.0, "bytes", 2.0) for v in VERDICTS))
HOSTILE = of(
    Finding(EVIL, EVIL, "SLOW", 1.0, float("inf"), EVIL, float("nan"), 0.1, float("inf"), 0.03, EVIL),
    Finding("net " * 300, "what " * 30, "SAME", 1, 2, EVIL, note="``x`"),
    base=EVIL,
    invalid=None,
    facts={EVIL: EVIL, "note": EVIL, "warnings": [EVIL], "deep": {"of": [1, float("nan")], "cells": [{"a": 1}]}},
)
TWICE = of(SLOW, Finding("net 64", "latency_ms", "OVER", None, 11.0, "ms", note="again"))
BUDGET = Finding("net 64", "latency_ms<10", "OVER", None, 11.0, "ms")


@pytest.mark.parametrize("outcome", [OUTCOME, ALL, HOSTILE, TWICE, of(), of(SLOW, interrupted=True)])
def test_every_file_is_what_its_readers_accept(outcome: Outcome, tmp_path: Path) -> None:
    files = gate_files.write_outputs(outcome, tmp_path)
    assert [file.name for file in files] == list(gate_files.FILES[: len(files)])
    assert sorted(tmp_path.iterdir()) == sorted(files)
    for name in ("github-action-benchmark.json", "bencher.json"):
        if (tmp_path / name) in files:
            schema = json.loads((SCHEMAS / name).read_text())
            jsonschema.validate(json.loads((tmp_path / name).read_text()), schema)
    assert len(cases(outcome)) == len({one.cell for one in outcome.findings}) + (outcome.exit_code() == 3)
    whole = json.loads((tmp_path / "gate.json").read_text(), parse_constant=pytest.fail)
    assert whole["exit_code"] == outcome.exit_code()
    assert sum(len(one["quantities"]) for one in whole["findings"]) == len(outcome.findings)
    for text in [shown(outcome), *(file.read_text() for file in files)]:
        assert not set(text) & {"\x1b", "\x00", "\ud800", "\u202e"}


def test_the_schemas_refuse_what_the_readers_would(tmp_path: Path) -> None:
    refused = {
        "github-action-benchmark.json": ([], [{"name": "a", "value": 1}], [{"name": "a", "unit": "", "value": "1"}]),
        "bencher.json": ({}, {"a": {"m" * 65: {"value": 1}}}, {"a": {"m": {"lower_value": 1}}}),
    }
    for name, documents in refused.items():
        for document in documents:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(document, json.loads((SCHEMAS / name).read_text()))


def test_what_fails_comes_first_and_what_is_the_same_is_folded() -> None:
    assert [one.verdict for one in by_cell(ALL.findings)][:6] == [
        *("UNEQUAL", "WRONG", "BROKEN", "SLOW", "MORE", "CHANGED"),
    ]
    assert set(ORDER) == set(VERDICTS)
    many = of(SLOW, *(timed(f"net {side}", "SAME") for side in range(100, 100 + gate.SHOWN_SAME + 1)))
    assert f"{gate.SHOWN_SAME + 1} more are SAME" in shown(many)
    assert "net 101" not in shown(many)
    few = of(SAME, SLOW)
    assert shown(few).index("net 64") < shown(few).index("net 128") < shown(few).index("Regression: of 2")
    markdown = to_markdown(many)
    assert markdown.index("SLOW") < markdown.index("<details>") < markdown.index("`net 101`")
    assert "5,717,416 → 5,717,417" in shown(of(COUNT))


@pytest.mark.parametrize(
    ("outcome", "strict", "code", "says"),
    [
        (of(SAME), False, 0, "Pass: of 1 finding none fails."),
        (of(SAME, timed("a", "AMBIGUOUS")), False, 0, "1 AMBIGUOUS, not let pass by --strict"),
        (of(SAME, timed("a", "AMBIGUOUS")), True, 4, "Undecided"),
        (of(SAME, SLOW, COUNT), True, 1, "Regression: of 2 findings, 1 SLOW fail"),
        (of(replace(SAME, verdict="UNEQUAL")), False, 5, "not one function"),
        (of(), False, 3, "nothing was judged; there is no finding"),
        (of(SLOW, invalid="A/A blocks differ"), False, 3, "the session is invalid: A/A blocks differ"),
        (of(SLOW, interrupted=True), False, 3, "interrupted"),
    ],
)
def test_the_verdict_is_one_sentence_and_the_exit_code_agrees(
    outcome: Outcome, strict: bool, code: int, says: str
) -> None:
    whole = json.loads(gate.to_json(outcome, strict=strict))
    assert (whole["schema"], whole["exit_code"], whole["verdict"]) == (gate.SCHEMA, code, gate.WORDS[code])
    assert says in whole["summary"][0]
    assert says in " ".join(shown(outcome, strict=strict).split())
    assert to_markdown(outcome, strict=strict).startswith(f"## vbench gate --ab: {gate.WORDS[code]}\n")


def test_junit_fails_what_fails_and_skips_what_is_open_unless_the_session_decides_nothing() -> None:
    ends = cases(ALL)
    for verdict in VERDICTS:
        kind = "failure" if verdict in FAILS else "skipped" if verdict in OPEN | {"NEW"} else None
        assert ends["vbench gate --ab", f"net {verdict}"] == kind, verdict
    for void in (replace(ALL, invalid="A/A blocks differ"), replace(ALL, interrupted=True), of()):
        ends = cases(void)
        assert ends.pop(("session", "verdict")) == "error"
        assert "failure" not in ends.values()
    assert list(cases(TWICE)) == [("vbench gate --ab", "net 64")]
    text = to_junit(of(SLOW, COUNT))
    assert text.count("SLOW: time +10.0 % (+8.9 % to +11.1 %, 10 → 11 ms)") == 2
    assert "latency_ms SLOW: base 10 ms, head 11 ms, 1.100×, 95 % interval 1.089–1.111, matters from ±3 %" in text
    assert "params CHANGED: base 5,717,416 parameters" in text


def test_metrics_are_heads_values_once_with_the_interval_set_around_them() -> None:
    rate = Finding("net 64", "throughput", "SAME", 90.0, 91.0, "images/s")
    found = metrics.metrics(of(SLOW, *TWICE.findings[1:], BUDGET, COUNT, rate, replace(SAME, head=None)))
    rows = json.loads(metrics.to_github_action_benchmark(found) or "")
    assert [(row["name"], row["unit"], row["value"]) for row in rows] == [
        ("net 64: latency_ms", "ms", 11.0),
        ("net 64: params", "parameters", 5_717_417),
    ]
    assert rows[0]["range"] == "± 0.1100"
    assert "range" not in rows[1]
    measured = json.loads(metrics.to_bencher(found) or "")["net 64"]
    assert measured["latency_ms"] == {
        "value": 11.0,
        "lower_value": pytest.approx(11 / 1.01),
        "upper_value": pytest.approx(11 * 1.01),
    }
    assert set(measured) == {"latency_ms", "params", "throughput"}


def test_a_session_that_measured_nothing_leaves_no_metrics_not_even_old_ones(tmp_path: Path) -> None:
    for void in (replace(OUTCOME, interrupted=True), replace(OUTCOME, invalid="A/A blocks differ")):
        assert len(gate_files.write_outputs(OUTCOME, tmp_path)) == 5
        gate_files.write_outputs(void, tmp_path)
        assert {file.name for file in tmp_path.iterdir()} == {"gate.json", "gate.md", "junit.xml"}
    assert "invalid" in (tmp_path / "gate.md").read_text()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        gate_files.write_outputs(OUTCOME, tmp_path / "file")


def test_the_smallest_slowdown_that_is_told_is_what_the_rule_says() -> None:
    noise = (0.004, -0.003, 0.002, -0.004, 0.003, -0.002)

    def judged(share: float) -> Comparison:
        (found,) = judge([TimedCell([one + log1p(share) for one in noise], [])])
        assert found is not None
        return found

    same = judged(0.0)
    found = Finding("net", "latency_ms", "SAME", 10, 10, "ms", same.ratio, same.lo, same.hi, same.delta)
    said = gate.sentences(of(found))[2]
    least = float(said.removesuffix(" % would have been detected.").rpartition(" ")[2]) / 100
    assert [judged(least + step).verdict for step in (0.001, -0.001)] == ["SLOW", "AMBIGUOUS"]
    two = gate.sentences(of(SAME, timed("noisy", "AMBIGUOUS", half=0.2)))[2]
    assert "the noisiest is noisy" in two
    assert len(gate.sentences(of(COUNT))) == 2


def test_markdown_shows_hostile_text_and_lets_none_of_it_act() -> None:
    text = to_markdown(HOSTILE)
    html = MarkdownIt("commonmark").enable("table").render(text)
    page = etree.HTML(html)
    assert [heading.text for heading in page.iter("h1", "h2")] == ["vbench gate --ab: regression"]
    assert {node.tag for node in page.iter()} <= {
        *("html", "body", "h2", "p", "strong", "details", "summary", "code"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    folded = [len(gate.QUANTITIES)] * 4 + [2] * (1 + 3)
    assert [len(row) for row in page.iter("tr")] == [len(gate.CELLS)] * 2 + folded  # no cell was split
    plain = "".join(part for node in page.iter() if node.tag != "code" for part in (node.text, *tails(node)) if part)
    assert "@\u200ball" in plain
    assert "@all" not in plain  # which GitHub and GitLab would mention
    assert "https://" not in plain  # and link
    assert "<b>&" in plain  # it is there, as text


def tails(node: Any) -> list[str]:
    """The text of what stands between a node's children."""
    return [child.tail for child in node if child.tail]


def test_facts_stand_in_json_whole_and_in_markdown_short() -> None:
    facts = {
        "device": "a test CPU",
        "measured": {"net 64": [{"order": ["base"], "ms": [1.0]}] * 6},
        "passes": [{"cells": ["net 64"]}],
        "noise": {"net 64": {"floor": 0.00123456}},
        "versions": {"torch": "2.11.0"},
        "many": {str(number): number for number in range(99)},
        "none": None,
        "seed": 0,
    }
    outcome = of(SLOW, facts=facts)
    assert json.loads(gate.to_json(outcome))["facts"] == facts
    found = {line for line in to_markdown(outcome).splitlines() if line.count("|") == 3}
    assert found == {
        *("| fact | value |", "| --- | --- |"),
        "| `device` | `a test CPU` |",
        "| `measured` | `1 entries, in gate.json` |",
        "| `passes` | `1 entries, in gate.json` |",
        "| `noise.net 64.floor` | `0.001235` |",
        "| `versions.torch` | `2.11.0` |",
        "| `many` | `99 entries, in gate.json` |",
        "| `seed` | `0` |",
    }
    assert "device a test CPU" in shown(outcome)


def product_more(cells: int, *, by: float = 1.072) -> list[Finding]:
    """What the counters say when each of these cells has eight more matrix products: a dozen quantities a cell."""
    found = []
    for side in range(64, 64 + 64 * cells, 64):
        cell = f"my_net:net {side} parallel float32"
        found += [
            Finding(cell, what, "MORE", 1e9, 1e9 * by, unit, by)
            for what, unit in (
                *(("macs", "MACs"), ("macs_executed", "MACs"), ("macs_matmul", "MACs"), ("bytes_min", "bytes")),
                *(("flops_total", "FLOPs"), ("predicted_peak_bytes", "bytes"), ("launches", "launches")),
            )
        ]
        found.append(Finding(cell, "params", "SAME", 10, 10, "parameters", 1.0))
        found.append(Finding(cell, "operations", "MORE", 90, 98, "calls", 98 / 90, note="8 new aten.bmm"))
    return found


def test_one_change_is_one_finding_a_cell_with_its_cause_in_a_sentence() -> None:
    outcome = of(*product_more(4))
    assert [(one.cell, one.cause) for one in by_cell(outcome.findings)] == [
        (
            f"my_net:net {side} parallel float32",
            "MACs +7.2 %, 8 new aten.bmm, predicted peak memory +7.2 % and 5 more quantities",
        )
        for side in (64, 128, 192, 256)
    ]
    assert list(cases(outcome).values()) == ["failure"] * 4
    assert "Regression: of 4 findings, 4 MORE fail." in shown(outcome)
    assert shown(outcome).count("MORE") == 4 + 1
    whole = json.loads(gate.to_json(outcome))
    assert (len(whole["findings"]), whole["counts"]) == (4, {"MORE": 4})
    first = whole["findings"][0]
    assert (first["cause"][:11], len(first["quantities"])) == ("MACs +7.2 %", 9)
    assert first["quantities"][0] == {
        **{"what": "macs", "verdict": "MORE", "base": 1e9, "head": 1e9 * 1.072, "unit": "MACs", "ratio": 1.072},
        **dict.fromkeys(("lo", "hi", "delta", "note")),
    }


@pytest.mark.parametrize(
    ("findings", "says"),
    [
        ([COUNT], "parameters 5,717,416 → 5,717,417"),
        ([SLOW, COUNT], "time +10.0 % (+8.9 % to +11.1 %, 10 → 11 ms), parameters 5,717,416 → 5,717,417"),
        ([SAME], "time +0.0 % (-1.0 % to +1.0 %, 10 → 10 ms)"),
        ([replace(COUNT, verdict="SAME")], ""),
        ([Finding("net", "mode equality", "UNEQUAL", head=9, note="gla scan")], "its modes are not one function"),
        ([Finding("net", "status", "BROKEN", note="base: ok; head: oom")], "base: ok; head: oom"),
        ([Finding("net", "status", "NEW")], "only head has it"),
        ([BUDGET], "latency_ms<10: 11 ms"),
        ([Finding("net", "macs", "CHANGED", None, 5, "MACs", note="not known in the baseline")], "MACs: 5, not known"),
        ([Finding("net", "exponent of macs_executed", "MORE", 1.22, 1.31, None, 1.07, delta=0.02)], "1.22 → 1.31"),
        ([Finding("net", "launches", "MORE", 0, 8, "launches")], "launches 0 → 8"),
    ],
)
def test_the_cause_of_a_cell_is_said_in_words(findings: list[Finding], says: str) -> None:
    assert cause(findings) == says or (says and says in cause(findings))


def test_what_is_not_alike_is_said_before_any_figure() -> None:
    outcome = of(SLOW, COUNT, unlike=("torch 2.11.0 → 2.12.0", "threads 1 → 4"))
    line = "Not alike beside the code: torch 2.11.0 → 2.12.0; threads 1 → 4."
    for text in (shown(outcome), to_markdown(outcome)):
        assert text.index("Not alike") < text.index("SLOW")
        assert text.index("Not alike") < text.index("10")
    assert " ".join(shown(outcome).split()).startswith(line)
    whole = json.loads(gate.to_json(outcome))
    assert whole["summary"][0] == line
    assert whole["unlike"] == list(outcome.unlike)
    assert '<property name="unlike" value="torch 2.11.0 → 2.12.0; threads 1 → 4"' in to_junit(outcome)
    assert "Not alike" not in shown(OUTCOME) + to_markdown(OUTCOME)


def test_the_page_fits_into_a_comment_and_shows_the_ten_worst_cells() -> None:
    """Of GitHub's 65,536 characters it takes less than half: the pages of both gates fit into one comment."""
    many = to_markdown(of(*product_more(500), SLOW, *(timed(f"net {n}", "SAME") for n in range(3000))))
    table = many[: many.index("<details>")]
    assert len(many) < gate_markdown.LIMIT
    assert table.count("**MORE**") == 9
    assert table.index("net 64`") < table.index("my_net:net 64")  # SLOW is worse
    assert "491 more, in gate.json: 491 MORE." in table
    assert many.count("<details>") == many.count("</details>") == 3
    assert many.count("more are in gate.json") == 2
    long = Finding("<&" * 900, "w" * 9000, "MORE", 1, 2, "u" * 900, 2.0, note="`" * 9000)
    facts = {f"fact {n}": "@" * 9000 for n in range(99)}
    worst = of(*[long] * 50, *(replace(long, cell=f"{n} {long.cell}") for n in range(50)), base="<" * 9000, facts=facts)
    assert len(to_markdown(worst)) < 65_536
