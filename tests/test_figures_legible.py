"""Figures of two, eight and twenty models: no text covers anything, and all of it can be read in print."""

from __future__ import annotations

from functools import cache

import legible
import pandas as pd
import pytest
from fakes import failed, make_record, of_case
from matplotlib.figure import Figure
from test_figures import GPU, SIDES, complete, step

from vbench.models.registry import MODELS
from vbench.reports.figures import draw, marks, places
from vbench.reports.figures.style import Look, Options, ink
from vbench.reports.figures.table import FIGURES
from vbench.reports.series import series_of
from vbench.results.frame import frame

FIRST = ("vig_t", "deit_t", "vrwkv_t", "swin_t", "vim_t", "vision_gru_t", "deit_s", "vmamba_t")
ORDER = (*FIRST, *(name for name in MODELS if name not in FIRST))
COUNTS = (2, 8, 20)
NARROW_MM = 80.0
BOTH = ("vig_t", "vrwkv_t")  # models with rows in both modes


@cache
def records(count: int) -> pd.DataFrame:
    """Models whose curves lie close together, of a GPU; two of them in both modes, one until it runs out of memory."""
    found = []
    for number, model in enumerate(ORDER[:count]):
        factor = 1 + number / 30
        sides = SIDES[:3] if model == "deit_t" else SIDES
        found += [complete(model, side, factor=factor, host=GPU) for side in sides]
        found += [complete(model, side, "recurrent", 2 * factor, host=GPU) for side in sides if model in BOTH]
        found += [step(model, side, factor) for side in SIDES[:3]]
    found.append(failed("oom", "out of memory", model="deit_t", side=2048, host=GPU))
    rows = frame([of_case(record, device="cuda") for record in found])
    return rows.assign(peak_flops_per_s=1e11, peak_bytes_per_s=8e9)


def figure_of(name: str, count: int, width_mm: float | None = None, font: str = "sans") -> Figure:
    with draw.looking(Look(width_mm=width_mm, font=font)):
        return draw.draw(name, records(count), Options()).figure


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_covers_anything(name: str, count: int) -> None:
    assert legible.faults(figure_of(name, count)) == []


@pytest.mark.parametrize("count", [2, 20])  # with names at ends, and in a legend
@pytest.mark.parametrize("name", FIGURES)
def test_in_a_narrow_column_text_is_as_large_and_covers_nothing(name: str, count: int) -> None:
    figure = figure_of(name, count, NARROW_MM)
    assert figure.get_figwidth() * 25.4 == pytest.approx(NARROW_MM)
    assert legible.small(figure, NARROW_MM) == []
    assert legible.faults(figure) == []


class TestTheChecks:
    """Each sees a fault that is planted in a figure without one."""

    def figure(self) -> Figure:
        return figure_of("throughput", 2)

    def test_text_on_text(self) -> None:
        figure = self.figure()
        one, other, *_ = [text for text in figure.axes[0].texts if text.get_gid() == "name"]
        one.xy, one.xyann = other.xy, other.xyann  # type: ignore[attr-defined]
        assert f"'{one.get_text()}' is on '{other.get_text()}'" in legible.faults(figure)

    def test_ticks_on_ticks(self) -> None:
        figure = self.figure()
        figure.axes[0].set_xticks([224, 225], ["224", "225"])
        assert "'224' is on '225'" in legible.faults(figure)

    def test_text_on_a_marker_and_on_a_curve(self) -> None:
        figure = self.figure()
        (line, *_) = figure.axes[0].get_lines()
        (x, y), (next_x, next_y) = line.get_xydata()[:2]
        marks.note(figure.axes[0], "planted", (x, y), (0, 0))
        assert any(fault.startswith("'planted' is on a marker") for fault in legible.faults(figure))
        marks.note(figure.axes[0], "between", ((x * next_x) ** 0.5, (y * next_y) ** 0.5), (0, 0))
        assert any(fault.startswith("'between' is on the curve") for fault in legible.faults(figure))

    def test_text_on_an_axis_and_off_the_sheet(self) -> None:
        figure = self.figure()
        marks.note(figure.axes[0], "planted", (0.0, 0.5), (0, 0), xycoords="axes fraction", ha="center")
        figure.axes[0].set_title("long" * 40)
        assert {"'planted' is on an axis", f"'{'long' * 40}' leaves the sheet"} <= set(legible.faults(figure))

    def test_text_that_is_too_small_in_print(self) -> None:
        assert legible.small(figure_of("resolution", 2), NARROW_MM)

    def test_names_that_are_written_anywhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(places.Taken, "free", lambda *_: True)
        assert legible.faults(figure_of("paper:vim", 2))


@pytest.mark.parametrize("name", ["resolution", "accuracy-cost"])
def test_serif_letters_are_legible_too(name: str) -> None:
    figure = figure_of(name, 8, NARROW_MM, "serif")
    assert {text.get_fontname() for text in figure.axes[0].texts} <= {"STIXGeneral"}
    assert figure.axes[0].title.get_fontname() == "STIXGeneral"
    assert legible.small(figure, NARROW_MM) == []
    assert legible.faults(figure) == []


def test_names_stand_in_the_order_of_the_curves_ends() -> None:
    for axis in figure_of("resolution", 2).axes[:3]:
        names = [text for text in axis.texts if text.get_gid() == "name"]
        assert len(names) >= 2
        ends = [text.xy[1] for text in names]  # type: ignore[attr-defined]
        heights = [places.extent(axis.figure, text).y0 for text in names]  # type: ignore[arg-type]
        by_end = sorted(range(len(names)), key=ends.__getitem__)
        assert by_end == sorted(range(len(names)), key=heights.__getitem__)


def test_panels_of_sizes_share_their_range_and_ticks() -> None:
    for count in COUNTS:
        axes = figure_of("resolution", count).axes[:4]
        assert len({axis.get_xlim() for axis in axes}) == 1
        assert len({tuple(label.get_text() for label in axis.get_xticklabels()) for axis in axes}) == 1


def of_family(family: str) -> list[str]:
    return [name for name, row in MODELS.items() if row.family == family]


OF_ONE = [f"timm/net_{number:02}" for number in range(20)]
TWENTIES = {
    "of all families": list(ORDER[:20]),
    "of two families": [*of_family("vil"), *of_family("vmamba")],
    "of three families": [*of_family("vir"), *of_family("vrwkv"), *of_family("vim")],
    "of few models each": [*of_family("mlla"), *of_family("swin"), *of_family("deit"), *of_family("vig"), "vim_t"],
    "of timm": OF_ONE,
}


@pytest.mark.parametrize("models", TWENTIES.values(), ids=TWENTIES)
def test_twenty_curves_look_different(models: list[str]) -> None:
    found = [make_record(model) for model in models] + [make_record(model, mode="recurrent") for model in BOTH]
    with draw.looking():
        curves = [(one.label, ink(one.colour), one.marker, one.line) for one in series_of(frame(found))]
    assert len(curves) >= len(models) + 1
    assert legible.alike(curves) == []


def test_curves_of_four_machines_look_different() -> None:
    hosts = [{**GPU, "device_name": f"GPU {number}"} for number in range(4)]
    found = [complete(model, 512, host=host) for model in ("vig_t", "deit_t") for host in hosts]
    with draw.looking():
        curves = [(one.label, ink(one.colour), one.marker, one.line) for one in series_of(frame(found))]
    assert len({name for name, *_ in curves}) == 8
    assert legible.alike(curves) == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_legend_shows_what_tells_its_curves_apart(name: str) -> None:
    assert legible.alike(legible.keys(figure_of(name, 20))) == []
