"""Times that were measured in turns, as figures show them: their marks, their bars, and bands of crossovers."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from fakes import make_record
from matplotlib.collections import LineCollection

from vbench.reports.figures import draw
from vbench.reports.figures.style import Options
from vbench.reports.payload import payload
from vbench.results.frame import frame

SIDES = (224, 384, 640, 1024)


def table() -> pd.DataFrame:
    """vig_t over deit_t is 25 / √tokens; in turns at 384 and 640 px, ± 5 %."""
    found = frame([make_record(model, side) for model in ("vig_t", "deit_t") for side in SIDES])
    for side in (384, 640):
        mine, theirs = ((found["model"] == model) & (found["height"] == side) for model in ("vig_t", "deit_t"))
        over = 25 / (side / 16)
        paired = {found.loc[theirs, "case_id"].item(): [over, over / 1.05, over * 1.05, 4, 900]}
        found.loc[mine, "latency_paired"] = json.dumps(paired)
    return found


def test_filled_marks_were_measured_in_turns_and_hollow_ones_were_not() -> None:
    with draw.looking("paper"):
        (axis,) = draw.draw("ratios", table(), Options()).figure.axes
    marks = {
        line.get_markerfacecolor(): list(line.get_xdata()) for line in axis.get_lines() if line.get_marker() == "o"
    }
    assert sorted(marks.values()) == [[224, 1024], [384, 640]]
    assert marks["white"] == [224, 1024]
    (bars,) = (each for each in axis.collections if isinstance(each, LineCollection))
    heights = {segment[0][0]: segment[1][1] / segment[0][1] for segment in bars.get_segments()}
    assert heights[384.0] == pytest.approx(1.05**2)


@pytest.mark.parametrize(("name", "place"), [("ratios", 0), ("resolution", 2)])
def test_the_interval_of_a_crossover_is_a_band(name: str, place: int) -> None:
    with draw.looking("paper"):
        drawn = draw.draw(name, table(), Options())
    bands = [each.get_paths()[0].get_extents() for each in drawn.figure.axes[place].collections if each.get_alpha()]
    (band,) = (each for each in bands if (each.y0, each.y1) == (0, 1))
    assert 370 < band.x0 < 400 < band.x1 < 430
    assert any("needs less time a call than deit_t: from 400 px up (between" in note for note in drawn.notes)


def test_the_page_knows_how_a_ratio_was_measured_and_its_interval() -> None:
    found = payload([], table())
    assert [found["curves"][curve["nearest"]]["label"] for curve in found["curves"] if curve["nearest"] is not None]
    heights = {table()["height"][row] for row, *_ in found["turns"]}
    assert heights == {384, 640}
    for *_, value, lo, hi, blocks in found["turns"]:
        assert blocks == 4
        assert (lo, hi) == pytest.approx((value / 1.05, value * 1.05), rel=1e-4)
