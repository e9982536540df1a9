"""Which size sharpens a crossover: inside its interval, of sizes that both models take, and none for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes import failed, latency, make_record

from vbench.models.registry import spec
from vbench.plan import GRID
from vbench.results.answers import pairs
from vbench.results.frame import frame
from vbench.results.refine import GAP, Wanted, next_size, wanted
from vbench.results.scaling import Crossover, crossover
from vbench.results.store import Record

SIDES = (224, 384, 640, 1024)


def crossed(lo: float | None, hi: float | None, px: float | None = 500.0, *, known: bool = True) -> Crossover:
    return Crossover("a", "b", "latency_ms", 4, "crosses", px, lo, hi, known, "")


def noisy(model: str, side: int, noise: float) -> Record:
    """A record of one launch, whose samples scatter by `noise`."""
    record = make_record(model, side)
    assert record.latency
    middle = record.latency["samples_ms"][1]
    return replace(record, latency=latency(middle * (1 + noise * at) for at in (-1, 1, -0.5, 0.5, 0.2, -0.2, 0)))


class TestNextSize:
    @pytest.mark.parametrize(
        ("found", "multiple", "expected"),
        [
            (crossed(384, 640), 16, 496),
            (crossed(384, 640), 112, 448),
            (crossed(384, 420), 4, 496),  # sharp, by a power law between 384 and 640
            (crossed(390, 420), 16, 496),
            (crossed(384, 640), 512, 512),
            (crossed(385, 500), 128, None),  # no multiple inside
            (crossed(None, 640), 16, 368),  # the middle of 224 and 640 is 379; 384 is measured
            (crossed(500, None), 16, 720),
            (crossed(None, None, 500, known=False), 16, 496),  # between 384 and 640, the sizes around it
            (crossed(None, None, None), 16, None),
            (crossed(None, None, None, known=False), 16, None),
        ],
    )
    def test_it_halves_the_interval_in_log(self, found: Crossover, multiple: int, expected: int | None) -> None:
        assert next_size(found, multiple, SIDES) == expected

    def test_it_ends(self) -> None:
        measured = set(SIDES)
        while (side := next_size(crossed(384, 640), 16, measured)) is not None:
            assert 384 < side < 640
            assert side not in measured
            measured.add(side)
        assert measured == {*SIDES, *range(400, 640, 16)}

    def test_bisection_finds_a_known_crossing(self) -> None:
        sides, true = list(SIDES), 570.0
        for _ in range(10):
            lo, hi = max(s for s in sides if s <= true), min(s for s in sides if s > true)
            side = next_size(crossed(lo, hi, true), 16, sides)
            if side is None:
                break
            sides.append(side)
        assert hi / lo <= GAP
        assert len(sides) <= len(SIDES) + 3


class TestWanted:
    def test_a_size_between_those_where_the_sign_is_sure(self) -> None:
        table = frame([noisy(model, side, 0.2) for model in ("vig_t", "deit_t") for side in SIDES])
        (one,) = wanted(table)
        found = crossover(table, "vig_t parallel", "deit_t")
        assert found.px_lo is not None
        assert found.px_hi is not None
        assert found.px_lo < one.side < found.px_hi
        assert all(one.side % spec(model).multiple == 0 for model in ("vig_t", "deit_t"))
        like = table.set_index("case_id").loc[list(one.like)]
        assert list(like["model"]) == ["vig_t", "deit_t"]
        assert set(like["height"]) == {384}
        assert isinstance(one, Wanted)

    def test_a_sharp_crossover_wants_nothing(self) -> None:
        table = frame([noisy(model, side, 0.0001) for model in ("vig_t", "deit_t") for side in GRID])
        assert wanted(table) == []

    def test_a_size_that_one_has_is_wanted_and_one_that_failed_is_not(self) -> None:
        records: list[Any] = [noisy(model, side, 0.2) for model in ("vig_t", "deit_t") for side in SIDES]
        (one,) = wanted(frame(records))
        assert wanted(frame([*records, noisy("vig_t", one.side, 0.2)]))[0].side == one.side
        (other,) = wanted(frame([*records, failed("oom", "why", model="vig_t", side=one.side)]))
        assert other.side != one.side

    def test_only_against_attention(self) -> None:
        table = frame([noisy(model, side, 0.2) for model in ("vig_t", "vrwkv_t") for side in SIDES])
        assert pairs(table) == []
        assert wanted(table) == []
