"""The measuring page says what its records say, and what is said of them is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import latency, make_record

from vbench.reports import calibration
from vbench.results.store import Record

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "results" / "calibration" / "cpu-amd-epyc"


def sweep(seed: int, level: float = 10.0) -> list[Record]:
    """Three launches whose medians scatter by 1 %."""
    random = np.random.default_rng(seed)
    levels = level * np.exp(random.normal(0, 0.01, 3))
    return [
        make_record(launch=n, latency=latency(one * np.exp(random.normal(0, 0.003, 30))))
        for n, one in enumerate(levels)
    ]


def test_intervals_of_equal_sweeps_hold_the_pooled_median_and_those_of_another_do_not() -> None:
    (row,) = calibration.coverage([sweep(seed) for seed in range(20)]).to_dict("records")
    assert row["pooled_ms"] == pytest.approx(10, rel=0.01)
    assert (row["model"], row["sweeps"]) == ("vig_t", 20)
    assert row["covered"] >= 18
    assert row["launch_spread"] == pytest.approx(0.01, rel=0.5)
    (row,) = calibration.coverage([*(sweep(seed) for seed in range(9)), sweep(9, level=20.0)]).to_dict("records")
    assert row["covered"] <= 9


def test_the_comparison_says_whether_the_intervals_meet(tmp_path: Path) -> None:
    ours = [{"latency": latency([10.0 + 0.1 * n] * 9)} for n in range(6)]
    for theirs, says in ((10.2, "the intervals meet"), (20.0, "the intervals do not meet")):
        runs = [{"infer_step_time": theirs + 0.1 * n} for n in range(6)]
        (tmp_path / "timm.json").write_text(json.dumps({"vbench": ours, "timm": runs}))
        assert says in calibration.compared_markdown(tmp_path)


class TestPage:
    def test_it_says_what_the_committed_records_give(self) -> None:
        page = (ROOT / "docs" / "measuring.md").read_text(encoding="utf-8")
        assert calibration.fill(page, RECORDS) == page

    def test_nine_of_ten_stated_intervals_hold_in_twenty_real_sweeps(self) -> None:
        runs = [calibration.read(folder) for folder in sorted(RECORDS.glob("aa-*"))]
        found = calibration.coverage(runs)
        assert len(runs) == 20
        assert found["covered"].sum() >= 0.9 * found["sweeps"].sum()

    def test_two_tools_find_the_same_latency(self) -> None:
        ours, theirs = calibration.compared(RECORDS)
        assert ours.lo <= theirs.hi
        assert theirs.lo <= ours.hi

    def test_measuring_costs_less_than_two_seconds_a_cell(self) -> None:
        (run,) = json.loads((ROOT / "results" / "cpu-amd-epyc" / "run.json").read_text())["runs"]
        assert run["complete"]
        assert run["overhead_s_per_cell"] < 2
