"""Figures, from records alone: what is drawn, what is written on it, and that nothing covers anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import legible
import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from command import vbench
from fakes import HOST, failed, latency, make_record, of_case
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from vbench.errors import UsageError
from vbench.models.registry import MODELS
from vbench.plan import GRID
from vbench.reports.figures import draw, marks, papers
from vbench.reports.figures.accuracy_cost import front
from vbench.reports.figures.places import ARROW
from vbench.reports.figures.style import CONTRAST, MM, Drawn, Look, NotDrawnError, Options, contrast, ink, save
from vbench.reports.figures.table import FIGURES
from vbench.reports.labels import Labels
from vbench.reports.runs import table_of_folders
from vbench.results.frame import frame, of_folders
from vbench.results.published import efficiency
from vbench.results.store import Record, Store

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "figures"
RECORDS = ROOT / "results" / "cpu"
SIDES = (224, 512, 1024, 2048)
LOOKS = (("resolution", "slides"), ("crossover", "dark"), ("paper:vim", "dark"))
GPU = {**HOST, "device": "cuda", "device_name": "a test GPU"}


def complete(model: str, side: int, mode: str = "parallel", factor: float = 1.0, **changes: Any) -> Record:
    """A record with everything that any figure shows, its costs `factor` times those of `make_record`."""
    record = make_record(model, side, mode)
    assert record.work
    assert record.latency
    assert record.throughput
    assert record.memory
    tokens = record.work["tokens"]
    work = {
        "macs": int(factor * record.work["macs"]),
        "flops_total": int(2.1 * factor * record.work["macs_executed"]),
        "intensity": 30 * factor + side / 40,
        "state_bytes": int(49152 * factor),
    }
    values: dict[str, Any] = {
        "work": {**record.work, **work},
        "latency": latency(factor * ms for ms in record.latency["samples_ms"]),
        "throughput": {**record.throughput, "images_per_s": record.throughput["images_per_s"] / factor},
        "memory": {**record.memory, "peak_bytes": int(record.memory["peak_bytes"] * (1 + factor * tokens / 4000))},
        "energy": {"net_j_per_image": 0.01 * factor * tokens, "gross_j_per_image": 0.02 * factor * tokens},
    }
    return replace(record, **{**values, **changes})


def step(model: str, side: int, factor: float) -> Record:
    """A record of a training step at batch 8."""
    record = complete(model, side, factor=factor)
    assert record.latency
    assert record.memory
    ms = record.latency["samples_ms"]
    parts = {"forward": ms, "backward": [2.2 * one for one in ms], "update": [20.0] * len(ms)}
    whole = {**latency(3.2 * one + 20 for one in ms), "batch": 8, "parts_ms": parts}
    trained = replace(record, latency=whole, throughput=None, memory={**record.memory, "batch": 8}, energy=None)
    return of_case(trained, phase="train", batch=8)


def some() -> list[Record]:
    """Three models in inference, two of them in both modes, DeiT until it runs out of memory; and training."""
    found = [
        complete("vig_t", side, mode, 1 + (mode == "recurrent")) for side in SIDES for mode in ("parallel", "recurrent")
    ]
    found += [complete("vrwkv_t", side, mode, 1.6) for side in SIDES for mode in ("parallel",)]
    found += [complete("deit_t", side, factor=1.2 if side > 400 else 0.3) for side in SIDES[:3]]
    found.append(failed("oom", "out of memory", model="deit_t", side=2048))
    return found + [step(model, side, 1 + n) for n, model in enumerate(("vig_t", "deit_t")) for side in SIDES[:3]]


@cache
def table() -> pd.DataFrame:
    return frame(some()).assign(peak_flops_per_s=1e11, peak_bytes_per_s=8e9)


@cache
def drawn(name: str, look: str = "paper") -> Drawn:
    """A figure of the records above; of those of a GPU, as papers' figures show no others' time."""
    with draw.looking(look):
        return draw.draw(name, gpu_table() if name.startswith("paper:") else table(), Options())


@cache
def gpu_table() -> pd.DataFrame:
    models = ("vig_t", "vrwkv_t", "deit_t", "deit_s", "vision_gru_t")
    found = [complete(model, side, host=GPU) for model in models for side in (512, 1024, 1248)]
    return frame([of_case(record, device="cuda") for record in found])


def texts(axis: Axes, gid: str) -> list[str]:
    return [text.get_text() for text in axis.texts if text.get_gid() == gid]


class TestEachFigure:
    @pytest.mark.parametrize("name", FIGURES)
    def test_axes_have_names_and_units(self, name: str) -> None:
        for axis in drawn(name).figure.axes:
            labels = [axis.get_xlabel(), axis.get_ylabel()]
            assert any(labels), name
            assert all("(" in label or "per image" in label or "log10" in label for label in labels if label), labels

    @pytest.mark.parametrize(("name", "look"), [*((name, "paper") for name in FIGURES), *LOOKS])
    def test_text_is_legible_and_covers_nothing(self, name: str, look: str) -> None:
        with draw.looking(look):
            figure = drawn(name, look).figure
            assert legible.small(figure, figure.get_figwidth() * MM) == []
            assert legible.faults(figure) == []

    @pytest.mark.parametrize("name", FIGURES)
    def test_a_golden_image_guards_it(self, name: str, tmp_path: Path) -> None:
        """What is drawn must be equal; how it looks, where the same matplotlib drew the image: others set text anew."""
        figure, stem = drawn(name).figure, GOLDEN / name.replace(":", "-")
        if os.environ.get("VBENCH_REFRESH"):
            small(figure, stem.with_suffix(".png"))
            stem.with_suffix(".json").write_text(json.dumps(contents(figure), indent=1) + "\n")
        assert contents(figure) == json.loads(stem.with_suffix(".json").read_text())
        assert stem.with_suffix(".png").stat().st_size < 60_000
        if same_matplotlib(stem.with_suffix(".png")):
            small(figure, tmp_path / "now.png")
            assert changed(stem.with_suffix(".png"), tmp_path / "now.png") < ALIKE

    @pytest.mark.parametrize("name", [name for name, entry in FIGURES.items() if not entry.alone])
    def test_what_records_lack_is_said_with_what_measures_it(self, name: str, tmp_path: Path) -> None:
        nothing = frame([failed("error", "why", side=side) for side in (224, 512)])
        bare = nothing.assign(macs=pd.NA, status="unsupported") if name != "resolution" else nothing.iloc[:0]
        with pytest.raises(UsageError, match=rf"^{name} is not drawn: .*measure it by: vbench sweep"):
            draw.write(draw.Request((name,), strict=True), bare, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("name", "format_"), [("resolution", "svg"), ("throughput", "pdf"), ("paper:vim", "png")])
    def test_equal_records_give_equal_bytes(self, name: str, format_: str, tmp_path: Path) -> None:
        rows = gpu_table() if name.startswith("paper:") else table()
        files, _ = draw.write(draw.Request((name,), formats=(format_,)), rows, tmp_path)
        assert [path.name for path in files] == [f"{name.replace(':', '-')}.{suffix}" for suffix in (format_, "txt")]
        with draw.looking("paper"):
            save(drawn(name).figure, tmp_path / f"again.{format_}")
        assert files[0].read_bytes() == (tmp_path / f"again.{format_}").read_bytes()
        assert files[1].read_text() == draw.caption(name, rows, drawn(name))


ALIKE = 0.004  # of the blocks of an image may differ: a curve is more
BLOCK = 5  # px
WRITTEN = (None, "ratio", "wall", "value", "from")  # gids of texts that say more than a name
INSET = "_indicate_inset"  # the frame of an inset, which is no bar; a rectangle in matplotlib 3.9 alone


def small(figure: Figure, path: Path) -> None:
    with draw.looking("paper"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=50)


def same_matplotlib(path: Path) -> bool:
    """Whether an image was drawn by this minor version, which it names itself."""
    (drawn_by,) = re.findall(rb"Matplotlib version(\d+\.\d+)\.", path.read_bytes())
    return matplotlib.__version__.startswith(f"{drawn_by.decode()}.")


def contents(figure: Figure) -> list[Any]:
    """What a figure's panels hold, wherever text was put: the data of curves, how they look, and what is written."""
    return [
        {
            "labels": [axis.get_title(loc="left"), axis.get_xlabel(), axis.get_ylabel()],
            "scales": [axis.get_xscale(), axis.get_yscale()],
            "curves": sorted(
                [str(line.get_color()), str(line.get_marker()), str(line.get_linestyle())]
                + [f"{x:.4g} {y:.4g}" for x, y in line.get_xydata()]
                for line in axis.get_lines()
            ),
            "bands": len(axis.collections),
            "bars": [
                f"{bar.get_width():.4g}"
                for bar in axis.patches
                if isinstance(bar, Rectangle) and bar.get_label() != INSET
            ],
            "texts": sorted(text.get_text() for text in axis.texts if text.get_gid() in WRITTEN and text.get_text()),
        }
        for axis in figure.axes
    ]


def changed(one: Path, other: Path) -> float:
    """The share of blocks whose mean colour differs by more than a tenth. Blocks, as antialiasing is not the point."""
    means = []
    for path in (one, other):
        pixels = matplotlib.image.imread(path)[..., :3]
        height, width = (size // BLOCK * BLOCK for size in pixels.shape[:2])
        blocks = pixels[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3)
        means.append(blocks.mean(axis=(1, 3)))
    assert means[0].shape == means[1].shape, "the figure's size has changed"
    return float((np.abs(means[0] - means[1]).max(axis=-1) > 0.1).mean())


@pytest.mark.parametrize("name", ["resolution", "throughput"])
def test_a_lost_curve_is_seen_by_the_golden_images(name: str, tmp_path: Path) -> None:
    if not same_matplotlib(GOLDEN / f"{name}.png"):
        pytest.skip("another matplotlib drew the images")
    figure = drawn(name).figure
    for line in (line for axis in figure.axes for line in axis.get_lines() if "vrwkv" in str(line.get_label())):
        line.set_visible(False)
    small(figure, tmp_path / "now.png")
    for line in figure.findobj(Line2D):
        line.set_visible(True)
    assert changed(GOLDEN / f"{name}.png", tmp_path / "now.png") > ALIKE


def test_every_one_of_many_models_is_named() -> None:
    models = ("vig_t", "vig_s", "vrwkv_t", "vrwkv6_t", "vil2_t", "vision_gru_t", "deit_t", "deit_s", "swin_t")
    rows = frame([complete(model, side, factor=1 + n / 30) for n, model in enumerate(models) for side in SIDES])
    with draw.looking("paper"):
        figure = draw.draw("resolution", rows, Options()).figure
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()] == sorted(
        models, key=lambda model: (MODELS[model].family, model)
    )


class TestResolution:
    def test_it_has_four_labelled_panels(self) -> None:
        figure = drawn("resolution").figure
        labels = [axis.get_ylabel() for axis in figure.axes]
        assert labels == [
            "GMACs per image",
            "Peak memory (MiB), batch 1",
            "Latency (ms), batch 1",
            "ImageNet-1K top-1 (%)",
        ]
        shown = {line.get_label(): list(np.asarray(line.get_ydata())) for line in figure.axes[2].get_lines()}
        assert shown["vig_t parallel"] == pytest.approx([98.0, 512.0, 2048.0, 8192.0])
        assert len(shown["deit_t"]) == 3

    def test_ratios_are_those_of_the_values_at_their_ends(self) -> None:
        rows = table()[table()["phase"] == "infer"]
        for axis, column in zip(
            drawn("resolution").figure.axes, ("macs", "peak_memory_bytes", "latency_ms"), strict=False
        ):
            known = rows[rows["mode"] == "parallel"].set_index(["model", "height"])[column]
            sides = [side for side in (512, 1024, 2048) if not pd.isna(known.get(("deit_t", side)))]
            expected = [marks.times(known["deit_t", side] / known["vig_t", side]) for side in sides]
            shown = texts(axis, "ratio")
            assert set(shown) <= set(expected), column
            assert {text for text in expected if float(text[:-1]) > 1.15} <= set(shown), column

    def test_there_is_no_ratio_to_what_ran_out_of_memory(self) -> None:
        _, memory, latency_, _ = drawn("resolution").figure.axes[:4]
        assert len(texts(memory, "ratio")) <= len(texts(latency_, "ratio")) == 2
        assert "Latency at 2048 px: no ratio, deit_t: out of memory." in drawn("resolution").notes

    def test_the_caption_gives_ratios_with_their_intervals(self) -> None:
        lines = [note for note in drawn("resolution").notes if note.startswith("Latency at 1024 px")]
        assert len(lines) == 1
        value, low, high = map(float, re.findall(r"\d+\.\d+", lines[0]))
        assert low < value < high

    def test_a_named_pair_replaces_the_chosen_one(self) -> None:
        with draw.looking("paper"):
            found = draw.draw("resolution", table(), Options(at=(1024,), baseline="vrwkv_t", subject="vig_t recurrent"))
        assert found.notes[0].startswith("Ratios: vrwkv_t over vig_t recurrent")
        with draw.looking("paper"), pytest.raises(UsageError, match="no 'swin_t'; they have deit_t parallel, vig_t"):
            draw.draw("resolution", table(), Options(baseline="swin_t"))

    def test_a_curve_ends_at_a_wall_that_says_why(self) -> None:
        named = [texts(axis, "name") for axis in drawn("resolution").figure.axes[:4]]
        assert ["deit_t: out of memory" in names for names in named] == [False, True, True, False]
        slow = frame([make_record("deit_t", 224), failed("timeout", "slow", model="deit_t", side=512)])
        with draw.looking("paper"):
            assert texts(draw.draw("resolution", slow, Options()).figure.axes[2], "name") == ["deit_t: time-out"]

    def test_in_a_legend_a_cross_says_why(self) -> None:
        models = ("vig_t", "vig_s", "vrwkv_t", "vil2_t", "vision_gru_t", "deit_s", "swin_t", "vim_t")
        rows = [complete(model, side) for model in models for side in (224, 512)]
        rows += [complete("deit_t", 224), failed("oom", "full", model="deit_t", side=512)]
        with draw.looking("paper"):
            (legend,) = draw.draw("throughput", frame(rows), Options()).figure.legends
        assert [text.get_text() for text in legend.get_texts()][-1] == "out of memory"
        assert legend.legend_handles[-1].get_marker() == "x"  # type: ignore[union-attr]

    def test_a_crossing_is_shown_closer(self) -> None:
        rows = frame(
            [complete(model, side, factor=f) for model, f in (("vig_t", 1.4), ("deit_t", 1.0)) for side in GRID]
        )
        with draw.looking("paper"):
            figure = draw.draw("resolution", rows, Options()).figure
        insets = [axis.child_axes for axis in figure.axes[:4]]
        assert [len(inset) for inset in insets] == [0, 0, 1, 0]
        low, high = insets[2][0].get_xlim()
        assert 490 < low < 512  # DeiT-T takes less time up to 512 px, ViG-T from 640 px on: they cross at 560
        assert 640 < high < 670

    def test_accuracy_is_hollow_and_titled_as_published(self) -> None:
        axis = drawn("resolution").figure.axes[3]
        assert "published, not measured" in axis.get_title(loc="left")
        assert {line.get_markerfacecolor() for line in axis.get_lines()} == {"white"}
        assert {line.get_label(): max(np.asarray(line.get_xdata())) for line in axis.get_lines()} == {
            "vig_t": 1024,
            "vrwkv_t": 1024,
            "deit_t": 1024,
        }

    def test_curves_of_two_devices_are_never_joined(self) -> None:
        rows = frame([make_record(side=224), make_record(side=512), make_record(side=1024, host=GPU)])
        with draw.looking("paper"):
            lines = draw.draw("resolution", rows, Options()).figure.axes[2].get_lines()
        assert sorted(len(np.asarray(line.get_xdata())) for line in lines) == [1, 2]
        assert {str(line.get_label()) for line in lines} == {"vig_t a test CPU", "vig_t a test GPU"}

    def test_the_committed_picture_is_that_of_its_records(self, tmp_path: Path) -> None:
        draw.write(draw.Request(("resolution",), formats=("png",)), of_folders([RECORDS]), tmp_path)
        assert (tmp_path / "resolution.txt").read_text() == (RECORDS / "resolution.txt").read_text()
        if same_matplotlib(RECORDS / "resolution.png"):
            assert changed(tmp_path / "resolution.png", RECORDS / "resolution.png") < ALIKE


class TestOthers:
    def test_the_front_holds_what_nothing_beats(self) -> None:
        points = np.array([[3.0, 70.0], [1.0, 60.0], [2.0, 75.0], [2.0, 74.0], [4.0, 75.0], [5.0, 80.0]])
        assert front(points).tolist() == [[1.0, 60.0], [2.0, 75.0], [5.0, 80.0]]

    def test_accuracy_is_set_against_the_costs_asked_for(self) -> None:
        with draw.looking("paper"):
            figure = draw.draw("accuracy-cost", table(), Options(costs=("energy_j_per_image",))).figure
        assert [axis.get_xlabel() for axis in figure.axes] == ["Energy (J/image)"]

    def test_modes_shows_no_model_with_one(self) -> None:
        labels = {str(line.get_label()) for line in drawn("modes").figure.axes[0].get_lines()}
        assert labels == {"vig_t parallel", "vig_t recurrent"}
        single = table()[table()["mode"] == "parallel"]
        with draw.looking("paper"), pytest.raises(NotDrawnError, match="no model has rows in both modes"):
            draw.draw("modes", single, Options())

    def test_without_a_roof_the_roofline_is_not_drawn(self) -> None:
        bare = table().assign(peak_flops_per_s=pd.NA)
        with draw.looking("paper"), pytest.raises(NotDrawnError, match=r"carry no peaks of the device.*a new sweep"):
            draw.draw("roofline", bare, Options())

    def test_rows_under_no_roof_are_left_out_and_counted(self) -> None:
        deit = table()["model"] == "deit_t"
        peaks, dtypes = table()["peak_flops_per_s"].mask(deit), table()["dtype"].mask(deit, "bfloat16")
        rows = table().assign(peak_flops_per_s=peaks, dtype=dtypes)
        with draw.looking("paper"):
            found = draw.draw("roofline", rows, Options())
        assert not any("deit_t" in str(line.get_label()) for line in found.figure.axes[0].get_lines())
        assert "3 rows are not drawn: no peaks were measured on their device in their dtype." in found.notes

    def test_the_roofline_divides_work_by_time(self) -> None:
        found = drawn("roofline")
        row = table()[(table()["model"] == "deit_t") & (table()["phase"] == "infer")].iloc[0]
        line = found.figure.axes[0].get_lines()[0]
        assert line.get_ydata()[0] == pytest.approx(row["flops_total"] / row["latency_ms"] * 1e3 / 1e9)  # type: ignore[index]
        assert any("float32 100 GFLOP/s, 8.0 GB/s" in note for note in found.notes)

    def test_crossovers_are_those_of_the_frame(self) -> None:
        from vbench.results.scaling import crossover

        rows = table()[(table()["status"] == "ok") & (table()["phase"] == "infer")]
        px = crossover(rows, "vig_t parallel", "deit_t").px
        assert px is not None
        said = [text.get_text() for text in drawn("crossover").figure.axes[1].texts]
        assert f"vig_t from {px:.0f} px" in said

    def test_training_shows_steps_of_training_alone(self) -> None:
        step_time, parts, _ = drawn("training").figure.axes
        assert step_time.get_ylabel() == "Time of a training step (ms), batch 8"
        assert len(parts.patches) == 2 * 3
        rows = table()[(table()["phase"] == "train") & (table()["height"] == 1024)].set_index("model")
        widths = [bar.get_width() for bar in parts.patches[:3]]  # type: ignore[attr-defined]
        assert widths == pytest.approx([rows.loc["deit_t", f"{part}_ms"] for part in ("forward", "backward", "update")])


class TestPapers:
    def test_the_printed_ratios_of_vig_come_out_of_its_printed_values(self) -> None:
        """The test of the digitised table: all nine within 2 % a value, and of what rounding hides."""
        with draw.looking("paper"):
            work, memory, time, accuracy = draw.draw("paper:vig", table().iloc[:0], Options()).figure.axes[:4]
        shown = [*texts(work, "ratio"), *texts(memory, "ratio"), *texts(time, "ratio")]
        shown += [text for inset in memory.child_axes for text in texts(inset, "ratio")]
        rows = [row for row in efficiency() if row.metric.startswith("ratio_deit_over_vig") and row.how == "table"]
        assert len(rows) == len(shown) == 8
        for ratio, printed in zip(sorted(shown, key=number), sorted(row.value for row in rows), strict=True):
            assert number(ratio) == pytest.approx(printed, rel=0.04, abs=0.05)
        assert texts(accuracy, "ratio") == ["20.7 points"]

    def test_the_reproduction_ratio_is_ours_over_the_printed(self) -> None:
        ours = gpu_table().set_index(["model", "height"])["macs"]["vig_t", 1024] / 1e9
        printed = papers.printed.of_model(papers.VIG, "vig_t", "flops_g")[1024.0]
        (line,) = [note for note in drawn("paper:vig").notes if "work of ViG-T" in note]
        assert f"{ours / printed:.2f} at 1024 px" in line
        assert any("latency per image of DeiT-T" in note for note in drawn("paper:vig").notes)
        assert not any("memory of" in note for note in drawn("paper:vig").notes)

    def test_what_was_measured_on_a_cpu_is_no_gpus_time(self) -> None:
        with draw.looking("paper"):
            found = draw.draw("paper:vig", table(), Options())
        hollow = [{line.get_markerfacecolor() for line in axis.get_lines()} for axis in found.figure.axes[:3]]
        assert len(hollow[0]) > 1
        assert hollow[2] == {"white"}
        assert any(
            note.startswith("Our latency per image is not drawn: it was measured on a CPU") for note in found.notes
        )

    def test_vim_and_vision_gru_show_the_printed_values(self) -> None:
        work = drawn("paper:vision_gru").figure.axes[1]
        assert {"432.3", "151.9", "24.6", "25.6"} <= {text.get_text() for text in work.texts}
        assert texts(drawn("paper:vim").figure.axes[0], "ratio") == ["2.8×"]
        assert texts(drawn("paper:vim").figure.axes[1], "wall") == ["DeiT-Ti: out of memory, as printed"]

    @pytest.mark.parametrize("name", [name for name in FIGURES if name.startswith("paper:")])
    def test_axes_begin_at_zero_or_above_and_letters_at_a(self, name: str) -> None:
        axes = drawn(name).figure.axes
        assert min(low for axis in axes for low in axis.get_ylim()) >= 0
        letters = [axis.get_title(loc="left")[:3] for axis in axes if axis.get_title(loc="left").startswith("(")]
        assert letters == [f"({letter})" for letter in "abcd"[: len(letters)]]

    def test_what_lies_beyond_the_papers_range_is_left_out_and_said(self) -> None:
        rows = gpu_table().assign(peak_memory_bytes=3e10 * (gpu_table()["height"] / 512))
        with draw.looking("paper"):
            found = draw.draw("paper:vig", rows, Options())
        memory = found.figure.axes[1]
        assert memory.get_ylim() == (0, 25)
        assert "↑ ViG-T, ours: 3 points" in texts(memory, marks.CLIPPED)
        assert "Outside the paper's range, so not drawn: our memory of ViG-T at 512, 1024, 1248 px." in found.notes
        assert not any(str(line.get_marker()) in "oxsv*" and line.get_linestyle() == "-" for line in memory.get_lines())

    def test_no_line_joins_an_inset_and_its_source(self) -> None:
        with draw.looking("paper"):
            memory = draw.draw("paper:vig", table().iloc[:0], Options()).figure.axes[1]
        assert memory.child_axes
        joined = [one for one in memory.get_children() if type(one).__name__ == "InsetIndicator"]
        assert not any(line.get_visible() for one in joined for line in one.connectors)  # type: ignore[attr-defined]


def number(text: str) -> float:
    return float(text.rstrip("×"))


LABELS = {"vig_t": "ViG-T", "deit_t": "DeiT-T"}


class TestLabels:
    @pytest.mark.parametrize("name", ["resolution", "training", "crossover", "ratios", "paper:vig"])
    def test_they_stand_for_models_in_picture_and_caption(self, name: str) -> None:
        rows = gpu_table() if name.startswith("paper:") else table()
        with draw.looking(Look(labels=Labels(LABELS))):
            found = draw.draw(name, rows, Options())
            caption = draw.caption(name, rows, found)
        found.figure.draw_without_rendering()
        seen = [text.get_text() for text in found.figure.findobj(Text) if text.get_visible()]  # type: ignore[attr-defined]
        assert not any(model in text for text in [*seen, caption] for model in LABELS)
        assert any("ViG-T" in text for text in seen)
        assert any("DeiT-T" in text for text in seen)

    def test_a_label_replaces_the_name_that_a_paper_prints(self) -> None:
        with draw.looking(Look(labels=Labels({"vim_t": "Vim of ours"}))):
            figure = draw.draw("paper:vim", table().iloc[:0], Options()).figure
        assert {name for axis in figure.axes for name in texts(axis, "name")} == {"DeiT-Ti", "Vim of ours"}

    def test_they_are_checked_against_the_records_and_what_papers_print(self) -> None:
        request = draw.Request(("paper:vim",))
        asked = draw.labelled(request, table().iloc[:0], "vim_t=Vim")
        assert asked.look.labels("vim_t") == "Vim"
        with pytest.raises(UsageError, match="--labels: the records have no model 'vim_t'"):
            draw.labelled(draw.Request(("resolution",)), table(), "vim_t=Vim")


class TestTwoMachines:
    """Their curves stand beside each other, each with the name of its machine."""

    @pytest.fixture
    def two(self, tmp_path: Path) -> list[Path]:
        """Runs of two machines, whose devices have one name."""
        for name, cores in (("old", 4), ("new", 64)):
            with Store(tmp_path / name) as store:
                for model, side in product(("vig_t", "deit_t"), (224, 1024)):
                    store.append(complete(model, side, factor=4 / cores, host={**HOST, "cpu_count": cores}))
        return [tmp_path / "old", tmp_path / "new"]

    def test_the_records_of_one_do_not_stand_in_for_those_of_the_other(self, two: list[Path]) -> None:
        assert set(table_of_folders(two)["device_name"]) == {"a test CPU [old]", "a test CPU [new]"}
        assert len(table_of_folders(two)) == 8
        assert set(table_of_folders([two[0], two[0]])["device_name"]) == {"a test CPU"}
        assert set(table_of_folders([two[0], two[0] / "none"])["device_name"]) == {"a test CPU"}

    @pytest.mark.parametrize("name", ["resolution", "throughput", "ratios"])
    def test_every_curve_names_its_machine(self, two: list[Path], name: str) -> None:
        with draw.looking():
            figure = draw.draw(name, table_of_folders(two), Options()).figure
        panel = {"resolution": 2}.get(name, 0)
        named = texts(figure.axes[panel], "name") or [text for text, *_ in legible.keys(figure)]
        assert {f"vig_t a test CPU [{machine}]" for machine in ("old", "new")} <= set(named)
        assert len(named) == len(set(named))

    def test_the_command_draws_both(self, two: list[Path], tmp_path: Path) -> None:
        done = vbench("figures", "throughput", *map(str, two), "-o", str(tmp_path / "out"))
        assert done.returncode == 0, done.stderr
        caption = (tmp_path / "out" / "throughput.txt").read_text()
        assert "a test CPU [new]" in caption
        assert "a test CPU [old]" in caption


class TestLooks:
    def test_no_curve_is_too_light_to_be_seen(self) -> None:
        for look, ground in (("paper", 1.0), ("dark", 0.01)):
            with draw.looking(look):
                colours = (
                    {
                        str(line.get_color())
                        for name in FIGURES
                        for axis in drawn(name).figure.axes
                        for line in axis.get_lines()
                    }
                    if look == "paper"
                    else {ink("#000000"), ink("#332288")}
                )
            assert min(contrast(colour, ground) for colour in colours) >= CONTRAST

    @pytest.mark.parametrize(("width", "columns"), [(80.0, 1), (120.0, 2), (170.0, 2)])
    def test_panels_without_room_beside_each_other_stand_below(self, width: float, columns: int) -> None:
        with draw.looking(Look(width_mm=width)):
            figure = draw.draw("resolution", table(), Options()).figure
        assert figure.get_figwidth() * MM == pytest.approx(width)
        lefts = {round(axis.get_position().x0, 2) for axis in figure.axes[:4]}
        assert len(lefts) == columns

    def test_an_arrow_has_a_length_and_a_loss_another_look_than_a_win(self) -> None:
        for axis in drawn("paper:vmamba").figure.axes:
            (text,) = [text for text in axis.texts if text.get_gid() == "ratio"]
            lost = float(text.get_text()[:-1]) < 1
            assert (text.get_fontstyle() == "italic") is lost
            (arrow,) = [one for one in axis.texts if one.get_gid() == ARROW]
            assert (arrow.arrow_patch.get_linestyle() != "-") is lost  # type: ignore[attr-defined]
        for name in FIGURES:
            for axis in drawn(name).figure.axes:
                for arrow in [one for one in axis.texts if one.get_gid() == ARROW]:
                    ends = axis.transData.transform([arrow.xy, arrow.xyann])  # type: ignore[attr-defined]
                    assert np.ptp(ends[:, 1]) * 72 / axis.figure.dpi >= marks.LEAST


class TestFiles:
    def test_all_draws_what_it_can_and_says_the_rest(self, tmp_path: Path) -> None:
        rows = table()[table()["phase"] == "infer"].assign(energy_j_per_image=pd.NA, energy_reason="no counter")
        names = ("throughput", "energy", "training")
        files, missing = draw.write(draw.Request(names, formats=("svg",)), rows, tmp_path)
        assert sorted(path.name for path in files) == ["throughput.svg", "throughput.txt"]
        assert len(missing) == 2
        assert "energy is not drawn: no row has energy_j_per_image (no counter)" in missing[0]
        assert "--phase train" in missing[1]

    def test_a_caption_states_the_conditions(self) -> None:
        text = draw.caption("resolution", table(), drawn("resolution"))
        whole = " ".join(text.split())
        for part in (
            "a test CPU",
            "float32",
            "torch 2.11.0",
            "memory_batch 1",
            "rigor quick",
            "backend eager",
            "oom: out of memory",
        ):
            assert part in whole, part
        assert max(map(len, text.splitlines())) <= draw.WIDTH

    def test_what_a_record_says_is_text(self, tmp_path: Path) -> None:
        hostile = {**HOST, "device_name": "$\\frac{1}$ \x1b[31m\nnext"}
        rows = frame([make_record(side=side, host=host) for side in (224, 512) for host in (HOST, hostile)])
        draw.write(draw.Request(("resolution",), formats=("png", "svg")), rows, tmp_path)
        text = (tmp_path / "resolution.txt").read_text()
        assert "\x1b" not in text
        assert "$\\frac{1}$ �[31m next" in " ".join(text.split())

    def test_a_folder_that_cannot_be_written_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot be written"):
            draw.write(draw.Request(("throughput",)), table(), tmp_path / "file")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["resolutoin", "."], "did you mean 'resolution'"),
            (["resolution"], "give the --out folder"),
            (["all"], "give the --out folder"),
            (["resolution,nothing", "."], "unknown figure 'nothing'"),
        ],
    )
    def test_a_request_that_cannot_be_met_is_said_in_a_line(self, words: list[str], message: str) -> None:
        with pytest.raises(UsageError, match=message) as found:
            draw.parse_words(words)
        assert "\n" not in str(found.value)

    def test_names_and_folders_are_told_apart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "energy").mkdir()
        assert draw.parse_words(["modes", "energy"]) == (("modes",), [Path("energy")])
        assert draw.parse_words(["all", "energy"]) == ((), [Path("energy")])
        assert draw.parse_words(["paper:vig"]) == (("paper:vig",), [])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"width": "wide"}, "--width 'wide': take column (84 mm), full (170 mm), or mm from 60 to 400"),
            ({"width": "20"}, "--width '20': take column"),
            ({"font": "comic"}, "--font 'comic' is not known; take one of sans, serif"),
            ({"style": "neon"}, "--style 'neon' is not known; take one of paper, slides, dark"),
            ({"formats": "gif"}, "--format: 'gif' is not one of png, pdf, svg"),
            ({"at": "512,big"}, "--at: 'big' is not a size in px"),
            ({"cost": "money"}, "--cost: 'money' is not one of macs"),
        ],
    )
    def test_options_are_checked(self, changes: dict[str, str], message: str) -> None:
        usual: dict[str, Any] = {"style": "paper", "formats": "png", "at": "512", "baseline": None, "subject": None}
        with pytest.raises(UsageError, match=re.escape(message)):
            draw.parse((), **{**usual, "cost": None, **changes})

    def test_rows_of_a_dtype_alone(self) -> None:
        rows = frame([make_record(), of_case(make_record(), dtype="bfloat16")])
        assert list(draw.of_dtype(rows, "bfloat16")["dtype"]) == ["bfloat16"]
        with pytest.raises(UsageError, match="--dtype: 'float16' is not one of bfloat16, float32"):
            draw.of_dtype(rows, "float16")

    def test_the_command_imports_no_torch(self, tmp_path: Path) -> None:
        code = (
            "import sys\nfrom vbench.commands.app import app\n"
            f"app(['figures', 'throughput', {str(RECORDS)!r}, '-o', {str(tmp_path)!r}], standalone_mode=False)\n"
            "sys.exit('torch' in sys.modules)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "throughput.pdf",
            "throughput.png",
            "throughput.txt",
        ]
