"""The ratio of two cells, and what is known of its interval."""

from __future__ import annotations

import pytest
from fakes import make_record

from vbench.results.frame import frame
from vbench.results.ratios import Ratio, ratio


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
