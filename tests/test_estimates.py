"""What a plan foresees is computed for a few sizes, interpolated between those that are close, and remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vbench.flops.estimate import GROWING, foreseen_of
from vbench.jobs.launch import Ending
from vbench.jobs.memo import Memo
from vbench.plan import GRID, Case, Sweep, plan


class Foreseeing:
    """Knows the work of attention: what grows with the tokens, and what with their square."""

    def __init__(self, fails: int = 0) -> None:
        self.asked: list[int] = []
        self.fails = fails

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        if job == "foresee":
            return Ending("error", "it failed")
        parts = {}
        for case in (Case(**fields) for fields in argument["cases"]):
            self.asked.append(case.height)
            parts[case.id] = {} if case.height == self.fails else work(case)
        return Ending("ok", None, parts)


def work(case: Case) -> dict[str, int]:
    tokens = case.height * case.width // 256
    found = {"macs": 10**6 * tokens + 5000 * tokens**2, "bytes": 10**5 * tokens, "operations": 300, "steps": 0}
    return {**found, "peak_bytes": 2 * 10**7 + 4000 * tokens}


def cells(*sides: int) -> list[Case]:
    return plan(Sweep(("deit_t",), tuple((side, side) for side in sides), ("parallel",)))


def test_sizes_close_to_each_other_are_interpolated(tmp_path: Path) -> None:
    cases = cells(*range(224, 2049, 16))
    launcher = Foreseeing()
    memo = Memo(launcher, "x", tmp_path)
    found = foreseen_of(cases, launcher, memo)
    assert len(launcher.asked) < 20 < len(cases) == len(found)
    for case, ending in found.items():
        for name in (*GROWING, "peak_bytes"):
            assert ending.parts[name] == pytest.approx(work(case)[name], rel=0.03), (case, name)
    assert foreseen_of(cases, again := Foreseeing(), memo) == found
    assert again.asked == []


def test_the_sizes_of_the_grid_are_computed_and_so_is_what_lies_beside_a_failure() -> None:
    launcher = Foreseeing()
    foreseen_of(cells(*GRID, 240, 2032), launcher)
    assert sorted(launcher.asked) == sorted([*GRID, 240, 2032])
    beside = cells(224, 240, 256)
    found = foreseen_of(beside, failing := Foreseeing(fails=256))
    assert sorted(failing.asked) == [224, 240, 256]
    assert [found[case].status for case in beside] == ["ok", "ok", "error"]
