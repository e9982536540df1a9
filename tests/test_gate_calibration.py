"""The gate's calibration: a copy that is really slower, sessions simulated by the gate's rules, and what was found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vbench.gate import blocks
from vbench.gate import calibration as measuring
from vbench.reports import gate_calibration as report

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "results" / "calibration" / "cpu" / "gate"


def session(seed: int, *, slowdown: float = 0.0, bias: float = 0.0, spread: float = 0.004) -> dict[str, Any]:
    """A line of sessions.jsonl.gz, of six blocks of each kind. `bias` is what a twin takes more."""
    random = np.random.default_rng(seed)

    def block(kind: str, number: int, change: float) -> dict[str, Any]:
        factor = (1 + change) * random.lognormal(0.0, spread)
        base, other = [10.0] * 4, [10.0 * factor] * 4
        names = ("base", kind) if number % 2 else (kind, "base")
        calls = {"base": base, kind: other}
        return {"outer": names[0], "inner": names[1], "outer_ms": calls[names[0]], "inner_ms": calls[names[1]][:3]}

    blocks = [block(kind, n, change) for n in range(6) for kind, change in (("head", slowdown), ("twin", bias))]
    return {
        "slowdown": slowdown,
        "measured": {"net 64": blocks},
        "verdicts": {"net 64": "SLOW" if slowdown else "SAME"},
        "invalid": None,
        "wall_s": 60.0,
    }


def test_a_copy_differs_by_its_busy_wait_alone(tmp_path: Path) -> None:
    plain, slowed = (
        measuring.copy(tmp_path / name, busy_s=busy_s) for name, busy_s in (("base", 0.0), ("head", 0.003))
    )
    files = {file.relative_to(plain) for file in plain.rglob("*.py")}
    assert files == {file.relative_to(slowed) for file in slowed.rglob("*.py")}
    assert [file for file in files if (plain / file).read_bytes() != (slowed / file).read_bytes()] == [
        measuring.OPERATOR
    ]
    names = {"gla": lambda x: x + 1}
    exec(measuring.BUSY.format(seconds=0.003), names)
    begin = time.perf_counter()
    assert names["gla"](1) == 2
    assert time.perf_counter() - begin >= 0.003


def test_logs_are_of_the_other_side_over_base_whoever_is_outside() -> None:
    one = session(0, slowdown=0.1, spread=1e-9)
    assert report.logs(one, "head") == pytest.approx([np.log(1.1)] * 6)
    assert report.logs(one, "twin") == pytest.approx([0.0] * 6, abs=1e-6)


def test_simulated_sessions_follow_the_gates_rules() -> None:
    assert blocks.DESIGNS["default"].blocks == report.BLOCKS

    def steady(head: float, twin: float) -> report.Draw:
        random = np.random.default_rng(0)
        return lambda kind, number: (random.normal(head if kind == "head" else twin, 0.004, number)).tolist()

    assert report.simulate(steady(0.0, 0.0), steady(0.0, 0.0)) == "SAME"
    assert report.simulate(steady(0.08, 0.0), steady(0.08, 0.0)) == "SLOW"
    assert report.simulate(steady(-0.08, 0.0), steady(-0.08, 0.0)) == "FAST"
    assert report.simulate(steady(0.08, 0.0), steady(0.0, 0.0)) == "AMBIGUOUS"  # it did not come again
    assert report.simulate(steady(0.08, 0.08), steady(0.0, 0.0)) == "INVALID"


def test_shares_come_from_the_recorded_blocks() -> None:
    sessions = [session(seed) for seed in range(6)]
    assert report.equal_code(sessions, 50)["SAME"] >= 49
    biased = [session(seed, bias=0.1) for seed in range(6)]
    assert report.equal_code(biased, 20)["INVALID"] == 20
    shapes = report.residuals(sessions)
    assert (len(shapes), float(shapes.std())) == (72, pytest.approx(1.0, abs=0.05))
    table = report.real([*sessions, session(9, slowdown=0.05)]).set_index("slowdown")
    assert (table.loc[0.0, "SAME"], table.loc[0.05, "SLOW"]) == (6, 1)
    assert float(table.loc[0.05, "measured"]) == pytest.approx(0.05, abs=0.01)


def test_the_committed_calibration_holds_what_the_gate_promises() -> None:
    sessions, curves = report.read(FOUND), pd.read_csv(FOUND / "power.csv")
    assert {session["slowdown"] for session in sessions} >= {0.0, 0.05}
    wrong = [session for session in sessions if not session["slowdown"] and session["exit_code"] == 1]
    assert len(wrong) <= 0.01 * len(sessions)
    still, slowed = (curves[(curves["noise"] == 0.01) & (curves["slowdown"] == share)] for share in (0.0, 0.05))
    assert len(still) == len(slowed) == 1 + len(report.SLOTS)
    assert (still["SLOW"] + still["FAST"] <= 0.01).all()
    assert (slowed.loc[slowed["slot"] == 0, "SLOW"] >= 0.95).all()


def test_the_page_shows_the_committed_sessions() -> None:
    page = (ROOT / "docs" / "gate.md").read_text()
    for row in report.real(report.read(FOUND)).to_dict("records"):
        counts = " | ".join(str(row[name]) for name in ("sessions", "SLOW", "FAST", "SAME", "AMBIGUOUS", "INVALID"))
        assert f"| {row['slowdown']:.0%} | {row['measured']:+.1%} | {counts} |" in page


def test_lines_are_appended_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "session", lambda cases, base, head, seed: session(seed))
    for first in (0, 5):
        measuring.main(tmp_path / "sessions.jsonl.gz", sessions=2, seed=first)
    assert report.read(tmp_path) == [{"busy_s": 0.0, **session(seed)} for seed in (0, 1, 5, 6)]
