"""The measuring page says what its records say, and what is said of them is right."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fakes import latency, make_record

from vbench.reports import calibration
from vbench.results.store import Record

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "results" / "calibration" / "cpu"


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
        designs = calibration.design.design(calibration.runs_of(RECORDS))
        assert calibration.fill(page, RECORDS, designs) == page

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
        (run,) = json.loads((ROOT / "results" / "cpu" / "run.json").read_text())["runs"]
        assert run["complete"]
        once = run["verify_s"] + run["count_s"]  # for all folders
        assert (run["overhead_s"] - once) / run["cells"] < 2


class TestDesign:
    def test_more_launches_give_narrower_intervals(self) -> None:
        """Twelve equal sweeps of two cells; a launch has 30 calls of 10 ms, so 0.3 s."""
        runs = [
            [*sweep(seed), *(replace(one, case_id="other") for one in sweep(100 + seed, 20.0))] for seed in range(12)
        ]
        found = calibration.design.design(runs)
        assert set(found["launches"]) == {2, 3, 5, 8, 12}
        assert set(found["seconds"]) == {0.25}
        assert found["half_width"].is_monotonic_decreasing
        assert (found["covered"] >= 0.85).all()
        said = calibration.design.markdown(found)
        assert said.splitlines()[0] == "| launches | 0.25 s each |"

    def test_a_launch_is_cut_to_its_first_seconds(self) -> None:
        cut = calibration.design.first_seconds
        assert cut([100.0] * 30, 0.5) == [100.0] * 5
        assert cut([900.0, 900.0], 0.5) == [900.0]
        assert cut([100.0] * 3, 2.0) == [100.0] * 3

    def test_the_figure_is_drawn(self, tmp_path: Path) -> None:
        calibration.design.draw(calibration.design.design([sweep(seed) for seed in range(4)]), tmp_path / "design.png")
        assert (tmp_path / "design.png").stat().st_size > 5000


class TestRepeats:
    def test_equal_sweeps_in_turn_have_no_cell_slow_or_fast(self) -> None:
        runs = calibration.runs_of(RECORDS)
        verdicts = calibration.compared_in_turn(runs)
        assert verdicts.total() == 4 * (len(runs) - 1)
        assert verdicts["SLOW"] + verdicts["FAST"] == 0

    def test_how_the_knee_repeats(self) -> None:
        def at(batch: int) -> list[Record]:
            block = {"batch": batch, "images_per_s": 100.0 + batch, "block_calls": 1, "blocks_ms": [40.0, 41.0]}
            return [make_record(throughput=block)]

        (row,) = calibration.knees([at(batch) for batch in (4, 4, 8, 2, 16)]).to_dict("records")
        assert (row["batch"], row["within"], row["sweeps"]) == (4, 4, 5)
        assert "In all 4 of 5 searches are: 80%." in calibration.knees_markdown([at(b) for b in (4, 4, 8, 2, 16)])
