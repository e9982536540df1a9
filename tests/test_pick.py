"""`vbench pick`: three budgets worked by hand from the committed records; what an answer says of what it left out."""

from __future__ import annotations

import csv
import itertools
import json
from collections import defaultdict
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import legible
import numpy as np
import pytest
from eval_rows import first, like, write
from fakes import HOST, failed, latency, make_record, of_case
from typer.testing import CliRunner

import vbench
from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.reports import pick as reporting
from vbench.reports.figures import draw
from vbench.reports.figures.pick import pareto
from vbench.reports.figures.style import MM
from vbench.results import pick
from vbench.results.frame import frame
from vbench.results.known import Accuracies, gaps, of_one_set, usable
from vbench.results.pick import Pick
from vbench.results.store import Record

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "results" / "cpu"
GPU = {**HOST, "device": "cuda", "device_name": "a test GPU"}
MEASURED = ("memory", "latency", "throughput")
Cell = tuple[str, str, int]  # model, mode, side


@cache
def by_hand() -> dict[Cell, dict[str, float]]:
    """Latency, throughput and memory of the committed cells, from the lines of the file: medians over launches."""
    lines = [json.loads(line) for line in (RECORDS / "records.jsonl").read_text("utf-8").splitlines()]
    launches: dict[Cell, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in lines:
        if line["status"] == "ok":
            case = line["case"]
            launches[case["model"], case["mode"], case["height"]][line["launch"]] = line  # the newest counts
    found = {}
    for cell, own in launches.items():  # not every launch measures everything
        memory, times, speeds = ([line[key] for line in own.values() if line[key]] for key in MEASURED)
        peaks = sorted((one["peak_bytes"], one["weights_bytes"]) for one in memory)
        peak, weights = peaks[(len(peaks) - 1) // 2]
        rates = [(one["batch"], one["images_per_s"]) for one in speeds]
        found[cell] = {
            "latency_ms": median(median(one["samples_ms"]) for one in times),
            "throughput": median(rate for batch, rate in rates if batch == rates[0][0]),
            "batch": rates[0][0],
            "memory_gb": peak / 1e9,
            "memory_gb_at_batch": (weights + (peak - weights) * rates[0][0]) / 1e9,
        }
    return found


@cache
def printed() -> dict[tuple[str, int], float]:
    """Published top-1 of ViG-T and DeiT-T: their READMEs at 224 px, and ViG's figure above."""
    found = {}
    for row in csv.DictReader((ROOT / "results" / "published" / "accuracy.csv").read_text("utf-8").splitlines()):
        own = (row["how"], row["variant"]) == ("readme", "") and row["eval_res"] == "224"
        figure = row["how"] == "figure-digitised" and row["eval_res"] != "224"
        if row["model"] in ("vig_t", "deit_t") and row["train_res"] == "224" and (own or figure):
            found[row["model"], int(row["eval_res"])] = float(row["top1"])
    return found


def answer(budget: dict[str, float], **more: Any) -> Pick:
    (found,) = pick.pick(pick_table(), pick.parse(budget), Accuracies(), **more)
    return found


@cache
def pick_table() -> Any:
    return vbench.read(RECORDS)


def gap(name: str, begin: int, end: int) -> float:
    """The middle of the widest gap between the costs of the committed cells, of those so far from the smallest."""
    values = sorted(costs[name] for costs in by_hand().values())[begin:end]
    low, high = max(itertools.pairwise(values), key=lambda pair: pair[1] / pair[0])
    return float((low * high) ** 0.5)


def above(side: int) -> int:
    """A limit in ms that ViG-T in recurrent mode surely meets at this size."""
    table = pick_table()
    own = table[(table["model"] == "vig_t") & (table["mode"] == "recurrent") & (table["height"] == side)]
    return int(own["latency_ms_hi"].iloc[0]) + 1


@pytest.mark.parametrize("which", ["fast", "fast and small", "many images and small"])
def test_the_committed_records_answer_a_budget_as_worked_by_hand(which: str) -> None:
    cells, tops = by_hand(), printed()
    budget = {
        "fast": {"latency_ms": gap("latency_ms", 0, 4)},
        "fast and small": {"latency_ms": gap("latency_ms", 4, 12), "memory_gb": gap("memory_gb", 2, 8)},
        "many images and small": {"throughput": gap("throughput", -6, -1), "memory_gb": gap("memory_gb", 8, 20)},
    }[which]
    fit: list[tuple[float, float, Cell]] = []
    for (model, mode, side), costs in cells.items():
        memory = costs["memory_gb_at_batch" if "throughput" in budget else "memory_gb"]
        fits = costs["latency_ms"] <= budget.get("latency_ms", np.inf)
        fits &= costs["throughput"] >= budget.get("throughput", 0) and memory <= budget.get("memory_gb", np.inf)
        for name in ("latency_ms", "throughput"):  # so far from the limit that no interval matters
            assert abs(costs[name] / budget.get(name, np.inf) - 1) > 0.1
        if fits and (model, side) in tops:
            first_cost = costs["latency_ms"] if "latency_ms" in budget else -costs["throughput"]
            fit.append((-tops[model, side], first_cost, (model, mode, side)))
    top, _, (model, mode, side) = min(fit)
    found = answer(budget)
    assert found.best
    row = found.best.row
    assert (row["model"], row["mode"], row["height"]) == (model, mode, side)
    assert found.best.accuracy.value == -top
    assert found.best.meets == "yes"
    assert not found.best.accuracy.measured
    same = {(one.row["model"], one.row["mode"], one.row["height"]) for one, _ in found.alike}
    assert same == {cell for value, _, cell in fit if value == top} - {(model, mode, side)}
    assert len(found.candidates) == len([cell for cell in cells if (cell[0], cell[2]) in tops])


def test_sizes_without_a_published_accuracy_are_said() -> None:
    tops = printed()
    lacking = [cell for cell in by_hand() if (cell[0], cell[2]) not in tops]
    out = {why: (count, which) for why, count, which in answer({"latency_ms": 70.0}).left_out}
    sides = {model: sorted({side for name, _, side in lacking if name == model}) for model in ("deit_t", "vig_t")}
    which = "; ".join(f"{model} {', '.join(map(str, own))}" for model, own in sides.items())
    assert out["no accuracy known"] == (len(lacking), which)
    assert out["unsupported"][0] == len(pick_table()) - len(by_hand())
    fits = [one for one in answer({"latency_ms": 70.0}).candidates if one.meets != "no"]
    assert sum(count for count, _ in out.values()) + len(fits) == len(pick_table())


def test_a_limit_within_an_interval_is_open() -> None:
    """The limit is the latency of ViG-T at 384 px itself: more accurate than the pick, if it meets it."""
    limit = by_hand()["vig_t", "recurrent", 384]["latency_ms"]
    found = answer({"latency_ms": limit})
    assert found.best
    assert (found.best.row["height"], found.best.meets) == (224, "yes")
    assert [(one.row["height"], one.meets) for one in found.hopeful] == [(384, "open")]
    lo, hi = (found.hopeful[0].costs["latency_ms"].lo, found.hopeful[0].costs["latency_ms"].hi)
    assert lo is not None
    assert hi is not None
    assert lo < limit < hi
    assert any(
        "if it meets the budget, which is open: vig_t recurrent at 384 px" in s for s in reporting.sentences(found)
    )
    only = answer({"latency_ms": limit}, within=pick.parse_sizes("384"))
    table = pick_table()
    sure = table[(table["height"] == 384) & (table["latency_ms_hi"] <= limit)]  # none beats what surely meets it
    assert only.best
    assert only.best.row["model"] == ("deit_t" if "deit_t" in set(sure["model"]) else "vig_t")


def test_nothing_on_the_front_is_beaten() -> None:
    found = answer({"latency_ms": 70.0, "memory_gb": 0.03})
    points = [(-o.accuracy.value, *(c.value for c in o.costs.values())) for o in found.candidates]
    for one, point in zip(found.candidates, points, strict=True):
        beaten = any(all(a <= b for a, b in zip(p, point, strict=True)) and p != point for p in points)
        assert one.front is not beaten


def records(**host: Any) -> list[Record]:
    found = [make_record(model, side, **host) for model in ("vig_t", "deit_t") for side in (224, 384, 512)]
    return [*found, failed("oom", "out of memory", model="deit_t", side=768, **host)]


class TestMeasured:
    def test_measured_comes_before_published_and_says_so(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(900, 1000)})
        (found,) = pick.pick(frame(records()), {"latency_ms": 1e6}, Accuracies(rows))
        assert found.best
        assert (found.best.row["model"], found.best.accuracy.value) == ("deit_t", 90.0)
        assert found.best.accuracy.lo < 90.0 < found.best.accuracy.hi
        assert {one.row["model"]: one.accuracy.measured for one in found.candidates if one.size == "224"} == {
            "deit_t": True,
            "vig_t": False,
        }
        assert "A measured and a published accuracy compare only if both are of one data set." in found.notes

    def test_where_images_are_shared_mcnemar_decides_and_not_the_overlap(self, tmp_path: Path) -> None:
        base = first(600, 1000)
        write(tmp_path / "b", {("vig_t", 224): like(base, 60, 40), ("vig_t", 512): like(base, 40, 38)})
        rows = write(tmp_path / "b", {("deit_t", 224): base, ("deit_t", 384): first(300, 1000)})
        table = frame(
            [record for record in records() if (record.case["model"], record.case["height"]) != ("vig_t", 384)]
        )
        small = table[~((table["model"] == "deit_t") & (table["height"] == 512))]
        (found,) = pick.pick(small, {"latency_ms": 1e6}, Accuracies(rows))
        assert found.best
        assert found.best.name == "vig_t at 224 px"
        assert [one.name for one, _ in found.alike] == ["deit_t at 224 px"]  # 60 images against 40
        assert found.alike[0][1].startswith("McNemar, 1,000 images: -2.00 points")
        large = next(one for one in found.candidates if one.name == "vig_t at 512 px")  # 20 images against 2
        assert large.accuracy.overlaps(found.best.accuracy)

    def test_what_mcnemar_tells_apart_is_no_runner_up(self, tmp_path: Path) -> None:
        base = first(600, 1000)
        rows = write(tmp_path, {("vig_t", 224): like(base, 20, 0), ("deit_t", 224): base})
        small = frame([make_record("vig_t", 224), make_record("deit_t", 224)])
        (found,) = pick.pick(small, {"latency_ms": 1e6}, Accuracies(rows))
        assert found.best
        assert found.best.row["model"] == "vig_t"
        assert found.alike == ()
        for row in rows:
            row.predictions.unlink()
        (found,) = pick.pick(small, {"latency_ms": 1e6}, Accuracies(rows))
        assert [why for _, why in found.alike] == ["the intervals overlap"]

    def test_random_weights_count_for_nothing(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(990, 1000)}, checkpoint="random")
        assert usable(rows) == []
        assert not Accuracies(rows).of("deit_t", 224, 224).measured  # type: ignore[union-attr]

    def test_the_dtype_of_the_row_comes_first(self, tmp_path: Path) -> None:
        write(tmp_path, {("deit_t", 224): first(900, 1000)}, dtype="bfloat16")
        known = Accuracies(write(tmp_path, {("deit_t", 224): first(800, 1000)}))
        found = [known.of("deit_t", 224, 224, dtype) for dtype in ("bfloat16", "float32")]
        assert [one.value for one in found if one] == [90.0, 80.0]

    def test_top5_has_measured_ones_alone(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(0, 1000)})
        (found,) = pick.pick(frame(records()), {"latency_ms": 1e6}, Accuracies(rows, "top5"))
        assert [(one.name, one.accuracy.value) for one in found.candidates] == [("deit_t at 224 px", 90.0)]

    def test_one_of_several_data_sets_must_be_named(self, tmp_path: Path) -> None:
        write(tmp_path, {("deit_t", 224): first(9, 10)}, dataset="v2")
        rows = write(tmp_path, {("deit_t", 224): first(8, 10)})
        with pytest.raises(UsageError, match="choose one of: --data v2 --labels imagenet; --data a test set"):
            of_one_set(rows)
        assert [row.top1 for row in of_one_set(rows, "v2")] == [90.0]
        with pytest.raises(UsageError, match="no accuracy of --data v3 --labels any"):
            of_one_set(rows, "v3")

    def test_a_gap_above_the_published_error_is_said(self, tmp_path: Path) -> None:
        """DeiT-T at 224 px is printed as 72.2, so to 0.05; at 384 px it was read off a curve as 71.3 ± 0.2."""
        rows = write(tmp_path, {("deit_t", 224): first(7224, 10000), ("deit_t", 384): first(7106, 10000)})
        assert gaps(rows) == []
        rows = write(tmp_path, {("deit_t", 224): first(7226, 10000), ("deit_t", 384): first(6900, 10000)})
        said = [gap.text for gap in gaps(rows)]
        assert len(said) == 2
        assert (
            "0.06 points above the published 72.2 ± 0.05 % (arXiv:2012.12877), which lies within the measured"
            in said[0]
        )
        assert (
            "2.30 points below the published 71.3 ± 0.25 % (arXiv:2405.18425), which lies outside the measured"
            in said[1]
        )


class TestCosts:
    def test_memory_of_a_gpu_is_exact_and_of_a_cpu_decided_by_value(self) -> None:
        (on_gpu,) = pick.pick(
            frame([of_case(r, device="cuda") for r in records(host=GPU)]), {"memory_gb": 1.0}, Accuracies()
        )
        (on_cpu,) = pick.pick(frame(records()), {"memory_gb": 1.0}, Accuracies())
        assert on_gpu.best
        assert on_cpu.best
        exact, by_value = (found.best.costs["memory_gb"] for found in (on_gpu, on_cpu) if found.best)
        assert exact.lo == exact.hi == exact.value
        assert by_value.lo is by_value.hi is None
        assert (exact.meets, by_value.meets) == ("yes", "yes")
        assert any("no interval is known" in note for note in on_cpu.notes)
        assert not any("no interval is known" in note for note in on_gpu.notes)

    def test_latency_without_an_interval_is_open_below_the_limit_and_no_above(self) -> None:
        table = frame([make_record("vig_t", latency=latency([100.0, 101.0]))])
        for limit, meets in ((200.0, "open"), (50.0, "no")):
            (found,) = pick.pick(table, {"latency_ms": limit}, Accuracies())
            assert found.candidates[0].meets == meets
        said = reporting.sentences(pick.pick(table, {"latency_ms": 200.0}, Accuracies())[0])
        assert "Whether it meets the budget is open" in said[0]
        assert said[1].startswith("Its measurement is doubtful: few_samples")

    def test_each_device_has_its_answer(self) -> None:
        both = [*records(), *(of_case(record, device="cuda") for record in records(host=GPU))]
        found = pick.pick(frame(both), {"latency_ms": 1e6}, Accuracies())
        assert [one.device for one in found] == ["a test CPU", "a test GPU"]
        assert all(one.best for one in found)

    def test_what_is_left_out_is_counted_by_why(self) -> None:
        wrong = make_record("vrwkv_t", 224, outputs={"nonfinite": 3, "reason": "3 of 9 outputs"})
        (found,) = pick.pick(frame([*records(), wrong]), {"energy_j": 1.0}, Accuracies())
        counts = {why: count for why, count, _ in found.left_out}
        assert counts == {
            "energy not measured": 6,
            "oom": 1,
            "timed calls of vrwkv_t returned numbers that are not finite": 1,
        }
        assert found.best is None
        assert found.candidates == ()

    @pytest.mark.parametrize("text", ["0", "x", "", "512x", "300:200", "1:2:3", "99999999", "-5", "512x512x512"])
    def test_bad_sizes_are_one_line(self, text: str) -> None:
        with pytest.raises(UsageError, match="is neither a size nor a range"):
            pick.parse_sizes(text)

    def test_sizes_are_ranges_of_both_sides(self) -> None:
        within = pick.parse_sizes("224:512,1024x2048")
        assert [within(*size) for size in ((224, 512), (300, 300), (512, 513), (1024, 2048), (2048, 1024))] == [
            *(True, True, False, True, False)
        ]


class TestCommand:
    def test_files_and_exit_codes(self, tmp_path: Path) -> None:
        run = lambda *words: CliRunner().invoke(app, ["pick", str(RECORDS), *words])  # noqa: E731
        limit = above(224)
        done = run("--latency-ms", str(limit), "--res", "224:1024", "-o", str(tmp_path / "new"))
        assert done.exit_code == 0, done.output
        assert f"latency ≤ {limit} ms: vig_t recurrent at 224 px, top-1 77.2 % (published)" in done.output
        names = sorted(file.name for file in (tmp_path / "new").iterdir())
        assert names == [f"pick.{suffix}" for suffix in ("csv", "json", "md", "pdf", "png", "txt")]
        rows = list(csv.DictReader((tmp_path / "new" / "pick.csv").read_text().splitlines()))
        assert (rows[0]["model"], rows[0]["size (px)"]) == ("vig_t recurrent", "384")
        (found,) = json.loads((tmp_path / "new" / "pick.json").read_text())
        best = next(one for one in found["candidates"] if one["role"] == "best")
        assert best["case_id"] == found["best"]
        assert "| **best** | **vig_t recurrent** | 224 |" in (tmp_path / "new" / "pick.md").read_text()
        done = run("--latency-ms", "1")
        assert done.exit_code == 1
        assert "nothing fits" in done.output

    def test_python_gives_the_same_and_adds_rows_of_eval(self, tmp_path: Path) -> None:
        write(tmp_path, {("vig_t", 2048): first(990, 1000)})
        table = vbench.pick(RECORDS, latency_ms=1e5, data_rows=[tmp_path])
        assert tuple(table.loc[0, ["model", "height", "role", "accuracy_is"]]) == (
            *("vig_t", 2048, "best", "measured, float32"),
        )
        assert next(iter(table.attrs["answers"].values()))[0].endswith("ms.")
        assert vbench.pick(RECORDS, latency_ms=1.0)["role"].isin(["best"]).sum() == 0
        with pytest.raises(UsageError, match=r"^latency_ms: 0 is not"):
            vbench.pick(RECORDS, latency_ms=0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a budget: --latency-ms, --throughput, --memory-gb, --energy-j"),
        (["--latency-ms", "nan"], "--latency-ms: nan is not"),
        (["--latency-ms", "1e999"], "--latency-ms: inf is not"),
        (["--memory-gb", "-4"], "--memory-gb: -4 is not a positive number"),
        (["--latency-ms", "9", "--metric", "f1"], "--metric: 'f1' is not one of top1, top5"),
        (["--latency-ms", "9", "--res", "9x"], "--res: '9x' is neither a size nor a range"),
        (["--latency-ms", "9", "--res", "2000"], "no row is of inference at a size that was asked for"),
        (["--latency-ms", "9", "--data-rows", "/nowhere"], "/nowhere is no folder"),
        (["--latency-ms", "9", "--data", "v2"], "there are: none"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, ["pick", str(RECORDS), *words])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


@pytest.mark.parametrize("measured", [False, True], ids=["published", "measured"])
def test_the_figure_is_legible(measured: bool, tmp_path: Path) -> None:
    right = {("vig_t", side): first(count, 1000) for side, count in ((224, 770), (384, 775), (512, 750), (1024, 570))}
    rows = write(tmp_path, right) if measured else []
    slow = by_hand()["vig_t", "recurrent", 384]["throughput"] / 2
    budget = pick.parse({"latency_ms": float(above(384)), "throughput": slow, "memory_gb": 0.2})
    (found,) = pick.pick(pick_table(), budget, Accuracies(rows))
    with draw.looking("paper"):
        drawn = pareto(found)
        figure = drawn.figure
        (legend,) = figure.legends
        assert {text.get_text() for text in legend.get_texts()} == {
            "Pareto front",
            *(one.label for one in found.candidates),
        }
        assert not any(legend.get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)
        for axis in figure.axes:
            assert next(text.get_text()[0] for text in axis.texts if text.get_gid() == "limit") in "≤≥"
        assert legible.faults(figure) == []
        assert legible.small(figure, figure.get_figwidth() * MM) == []
        bars = [container for axis in figure.axes for container in axis.containers]
        assert bool(bars) is measured
    assert "vig_t recurrent at 384 px" in drawn.notes[0]
