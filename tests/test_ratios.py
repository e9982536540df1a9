"""The ratio of two cells, and what is known of its interval."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from fakes import make_record

from vbench.results.frame import COLUMNS, frame
from vbench.results.ratios import Ratio, in_turns, ratio


def test_a_ratio_carries_the_intervals_of_both_cells() -> None:
    table = frame([make_record("vig_t", 1024), make_record("deit_t", 1024)])
    mine, theirs = (table[table["model"] == model].iloc[0] for model in ("vig_t", "deit_t"))
    found = ratio(mine, theirs, "latency_ms")
    assert found is not None
    assert found.lo is not None
    assert found.hi is not None
    wider = [row["latency_ms_hi"] / row["latency_ms_lo"] for row in (mine, theirs)]
    assert found.hi / found.lo > max(wider)
    assert found.lo * found.hi == pytest.approx(found.value**2)
    for lost in ({"latency_level": None}, {"latency_basis": "range"}, {"latency_ms_lo": None}):
        assert str(ratio({**mine, **lost}, theirs, "latency_ms")) == "0.39×"
    assert str(ratio(mine, theirs, "peak_memory_bytes")) == "1.00×"
    assert ratio({**mine, "latency_batch": 8}, theirs, "latency_ms") is None
    assert ratio({**mine, "macs": None}, theirs, "macs") is None


def test_an_interval_that_holds_one_is_no_difference() -> None:
    assert str(Ratio(1.05, 0.9, 1.2)) == "1.05× (0.90–1.20: no measurable difference)"
    assert str(Ratio(1.05, 1.01, 1.2)) == "1.05× (1.01–1.20)"


class TestInTurns:
    """The ratio that was measured in turns stands before the one of separate launches."""

    def rows(self, **found: list[Any]) -> tuple[pd.Series[Any], pd.Series[Any]]:
        """vig_t and deit_t at 1024 px; `found` is what vig_t's row holds about deit_t's, by the name of a row."""
        table = frame([make_record("vig_t", 1024), make_record("deit_t", 1024)]).set_index("model")
        for model, values in found.items():
            other = table.loc["deit_t" if model == "vig_t" else "vig_t", "case_id"]
            table.loc[model, "latency_paired"] = json.dumps({other: values})
        return table.loc["vig_t"], table.loc["deit_t"]

    def test_it_is_the_ratio_of_the_times_and_says_so(self) -> None:
        mine, theirs = self.rows(vig_t=[0.41, 0.404, 0.416, 4, 1440])
        found = ratio(mine, theirs, "latency_ms")
        assert found == Ratio(0.41, 0.404, 0.416, 4, 1440)
        assert found.basis == "in turns, 4 blocks"
        assert str(found) == "0.41× (0.40–0.42, in turns)"
        other = ratio(mine, theirs, "macs")
        assert other is not None
        assert other.blocks is None

    @pytest.mark.parametrize("holder", ["vig_t", "deit_t"])
    def test_either_row_may_hold_it(self, holder: str) -> None:
        mine, theirs = self.rows(**{holder: [0.5, 0.4, 0.8, 2, 10]})
        found = in_turns(mine, theirs)
        expected = (0.5, 0.4, 0.8) if holder == "vig_t" else (2.0, 1.25, 2.5)
        assert found is not None
        assert (found.value, found.lo, found.hi) == pytest.approx(expected)
        assert (found.blocks, found.rounds) == (2, 10)

    def test_without_an_interval_it_stands_behind_separate_launches_that_have_one(self) -> None:
        mine, theirs = self.rows(vig_t=[0.41, None, None, 1, 300])
        separate = ratio(mine, theirs, "latency_ms")
        assert separate is not None
        assert separate.basis == "separate launches"
        assert separate.lo is not None
        assert str(ratio({**mine, "latency_basis": "range"}, theirs, "latency_ms")) == "0.41× (in turns)"

    def test_cells_of_two_devices_or_batches_were_not_measured_in_turns(self) -> None:
        mine, theirs = self.rows(vig_t=[0.41, 0.40, 0.42, 4, 1440])
        assert in_turns({**mine, "device_name": "another"}, theirs) is None
        assert ratio({**mine, "latency_batch": 8}, theirs, "latency_ms") is None

    def test_a_frame_without_the_column_has_none(self) -> None:
        mine, theirs = self.rows(vig_t=[0.41, 0.40, 0.42, 4, 1440])
        assert in_turns(mine.drop("latency_paired"), theirs.drop("latency_paired")) is None
        assert COLUMNS["latency_paired"] == "string"

    def test_decimals_tell_the_ends_apart(self) -> None:
        assert str(Ratio(0.1203, 0.1191, 0.1214, 4, 9)) == "0.120× (0.119–0.121, in turns)"
        assert str(Ratio(1.0, 0.99, 1.02, 4, 9)) == "1.00× (0.99–1.02, in turns: no measurable difference)"


@pytest.mark.parametrize(
    ("batches", "policies", "divided"),
    [
        ((4, 4), ("knee", "knee"), True),
        ((4, 16), ("knee", "knee"), False),
        ((8, 8), ("fixed", "knee"), True),
        ((8, 32), ("fixed", "fixed"), False),
        ((64, 16), ("max", "max"), True),
        ((64, 16), ("max", "knee"), False),
    ],
)
def test_throughputs_are_divided_at_one_batch_or_at_the_largest_that_fit(
    batches: tuple[int, int], policies: tuple[str, str], divided: bool
) -> None:
    table = frame([make_record("vig_t", 1024), make_record("deit_t", 1024)])
    rows = [table[table["model"] == model].iloc[0].to_dict() for model in ("vig_t", "deit_t")]
    above, below = (
        {**row, "batch": batch, "batch_policy": policy}
        for row, batch, policy in zip(rows, batches, policies, strict=True)
    )
    assert (ratio(above, below, "throughput_img_s") is not None) == divided
    assert ratio(above, below, "latency_ms") is not None
    assert ratio(above, below, "macs") is not None
