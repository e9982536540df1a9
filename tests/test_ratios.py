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
