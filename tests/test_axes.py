"""Rows that differ in one setting are never joined: two curves, two exponents and a lint line, for every consumer."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fakes import HOST, latency, make_record, of_case

from vbench.reports import exponents as growth
from vbench.reports import html, paper_tables, tables
from vbench.reports.figures import draw
from vbench.reports.figures.style import Options
from vbench.reports.figures.table import FIGURES
from vbench.reports.payload import payload
from vbench.reports.runs import Run
from vbench.reports.series import series_of
from vbench.results import scaling
from vbench.results.answers import answers
from vbench.results.axes import AXES, EQUAL, PARTS, SETTING, SUBJECT, differing, said, unusual
from vbench.results.claim_verdicts import judge
from vbench.results.claims import claims
from vbench.results.compare import compare, run_of
from vbench.results.frame import COLUMNS, frame
from vbench.results.history import history, runs_of
from vbench.results.lint import unfair
from vbench.results.store import Record

SIDES = (224, 512, 1024)
CASES: dict[str, tuple[Any, Any]] = {  # of each axis that parts curves, two values; of `batch_asked` it is the batch
    "device": ("cuda:0", "cuda:1"),
    "dtype": ("float32", "bfloat16"),
    "phase": ("infer", "train"),
    "backend": ("eager", "compile"),
    "layout": ("nchw", "nhwc"),
    "reparam": ("no", "yes"),
    "attention": ("fused", "unfused"),
    "batch_asked": ("knee", 8),
}
ELSEWHERE = {"device_name": ("a test GPU", "another GPU"), "threads": (1, 4)}
GPU = {**HOST, "device": "cuda:0", "device_name": "a test GPU"}


def varied(record: Record, name: str, place: int) -> Record:
    """The record with the first or the second value of an axis; all else is equal."""
    if name in CASES:
        value = CASES[name][place]
        if name == "attention":
            return of_case(record, attention=value) if record.case["attention"] else record
        return of_case(record, **{"batch" if name == "batch_asked" else name: value})
    value = ELSEWHERE[name][place]
    if name == "device_name":
        return replace(record, host={**record.host, "device_name": value})
    # A launch under other conditions replaces the old one of a case, so these are of two sizes.
    return replace(record, protocol={**record.protocol, "threads": value})


def complete(model: str, side: int, mode: str = "parallel", factor: float = 1.0) -> Record:
    """A record on a GPU with all that a figure or a table shows."""
    record = make_record(model, side, mode, host=GPU)
    assert record.work
    assert record.latency
    tokens = record.work["tokens"]
    samples = [factor * ms for ms in record.latency["samples_ms"]]
    parts = dict.fromkeys(("forward", "backward", "update"), samples)
    work = {"flops_total": 10_200_000 * tokens, "intensity": 30 + side / 40, "state_bytes": 49152}
    record = replace(
        record,
        work={**record.work, **work},
        latency={**latency(samples), "parts_ms": parts},
        energy={"net_j_per_image": 0.01 * tokens, "gross_j_per_image": 0.02 * tokens},
    )
    return of_case(record, device="cuda:0")


@cache
def records(name: str, phase: str = "infer") -> tuple[Record, ...]:
    """Two models at three sizes, one in both modes, under the two values of an axis."""
    models = [("vig_t", "parallel"), ("vig_t", "recurrent"), ("deit_t", "parallel")]
    found = [
        varied(of_case(complete(model, side, mode, 1 + place), phase=phase), name, place)
        for model, mode in models
        for side in SIDES
        for place in range(2)
    ]
    if name == "threads":  # told apart by another field of the case: the same one has but one row
        found = [replace(one, case_id=f"{one.case_id}-{one.protocol['threads']}") for one in found]
    return tuple({one.case_id + str(one.host["device_name"]): one for one in found}.values())


@cache
def table(name: str, phase: str = "infer") -> pd.DataFrame:
    return frame(records(name, phase))


def subjects(name: str) -> set[tuple[str, str]]:
    """(model, mode) that this axis can part: attention is none of a model with an operator of ours."""
    every = {("vig_t", "parallel"), ("vig_t", "recurrent"), ("deit_t", "parallel")}
    return {("deit_t", "parallel")} if name == "attention" else every


def test_each_axis_that_parts_curves_is_tried_here() -> None:
    assert set(CASES) | set(ELSEWHERE) == set(PARTS)
    assert set(SETTING) | {"attention"} == set(PARTS)
    assert set(SUBJECT) & set(SETTING) == set()
    assert {name for name, axis in AXES.items() if axis.source} <= set(COLUMNS)
    assert set(PARTS) - {"batch_asked"} <= set(EQUAL)


@pytest.mark.parametrize("name", PARTS)
class TestEachAxisThatPartsCurves:
    def test_the_lint_says_a_line(self, name: str) -> None:
        column = "batch_policy" if name == "batch_asked" else name
        assert any(line.startswith(f"rows differ in {column}: ") for line in unfair(table(name)))

    def test_curves_are_two_and_their_labels_differ(self, name: str) -> None:
        found = series_of(table(name))
        counts = Counter((one.model, one.mode) for one in found)
        assert all(counts[who] == 2 for who in subjects(name))
        assert len({one.label for one in found}) == len(found)
        assert all(one.cells["side"].is_unique for one in found)

    def test_exponents_are_two_of_three_sizes_each(self, name: str) -> None:
        found = scaling.exponents(table(name), ("latency_ms",))
        counts = Counter(zip(found["model"], found["mode"], strict=True))
        assert all(counts[who] == 2 for who in subjects(name))
        assert set(found["points"]) == {3}
        assert name in [str(column.header) for column in growth.to_rich(found).columns]

    def test_crossovers_stand_within_one(self, name: str) -> None:
        found = scaling.crossovers(table(name))
        assert set(found["sizes"]) == {3}
        if name in SETTING:
            assert found.groupby(["a", "b"]).size().max() <= 2
            assert found["reading"].is_unique

    def test_answers_name_it(self, name: str) -> None:
        said_ = [answer.text for answer in answers(table(name)) if answer.kind != "crossover"]
        assert len(said_) == len(set(said_))

    def test_each_table_tells_rows_apart(self, name: str) -> None:
        who = [row[:3] for row in tables.rows(table(name))]
        assert len(who) == len(table(name))
        if name != "batch_asked":  # which has a column of its own
            assert len(set(who)) == len(who)

    def test_each_table_for_a_paper_is_of_one(self, name: str) -> None:
        made, _ = paper_tables.make(table(name))
        for kind, grids in made.items():
            if kind in ("full", "work") or (kind == "batch" and name == "batch_asked"):
                continue  # every row; of no device; a column a batch
            if name in SETTING:
                assert len({grid.settings[name] for grid in grids}) == len(grids), kind
                assert len(grids) == 2 or name == "phase", kind  # of which a table may show one
            for grid in grids:
                rows = [tuple(cell.text for cell in row) for block in grid.blocks for row in block.rows]
                assert len(rows) == len(set(rows)), kind

    def test_the_page_has_two_curves_and_a_column(self, name: str) -> None:
        rows = table(name)
        runs = [Run("run", list(records(name)))]
        found = payload(runs, rows)
        labels = [curve["label"] for curve in found["curves"]]
        assert len(labels) == len(set(labels))
        points = [*zip(found["rows"]["curve"], found["rows"]["height"], found["rows"]["width"], strict=True)]
        drawn = [point for point in points if point[0] is not None]
        assert len(drawn) == len(set(drawn))
        if name in SETTING:
            (setting,) = [one for one in found["settings"] if one["key"] == name]
            assert len(setting["values"]) == 2
        assert AXES[name].column in found["rows"]
        assert html.page(runs, rows, answers(rows))

    def test_claims_are_judged_within_one(self, name: str) -> None:
        for claim in claims():
            found = judge(claim, table(name))
            for ours in (found.stated, found.fair):
                assert ours is None or len(ours.case_ids) <= 4
                if ours is not None and claim.unit == "linear" and ours.case_ids:
                    assert len(ours.case_ids) == len(SIDES)

    def test_stored_runs_and_histories_keep_them_apart(self, name: str) -> None:
        if name in ("device_name", "threads"):
            pytest.skip("of another machine, or other conditions: another run")
        run = run_of(records(name), "run")
        found = compare(run, run)
        what = Counter((finding.cell, finding.what) for finding in found.findings)
        assert set(what.values()) == {1}
        series = history(runs_of(records(name), "run"))
        assert len({one.cell for one in series}) == len(series) == len(table(name))


@pytest.mark.parametrize(
    ("name", "figure"), [*(("device", one) for one in FIGURES), *((one, "throughput") for one in PARTS)]
)
def test_no_figure_joins_two(name: str, figure: str) -> None:
    """All figures of two devices; of the other axes one figure, as all take their curves from `series_of`."""
    rows = table(name, "train" if FIGURES[figure].phase == "train" else "infer")
    rows = rows.assign(peak_flops_per_s=1e11, peak_bytes_per_s=8e9)  # without a roof there is no roofline
    with draw.looking("paper"):
        found = draw.draw(figure, rows, Options())
    for axis in found.figure.axes:
        if axis.get_xlabel().startswith("Image side (px)"):
            for line in axis.get_lines():
                sides = np.asarray(line.get_xdata(), dtype=float).tolist()
                assert len(set(sides)) in (1, len(sides)), axis.get_title(loc="left")  # a wall stands at one
    if name in EQUAL and name != "phase":
        assert f"rows differ in {name}: " in " ".join(draw.caption(figure, rows, found).split())


def test_two_gpus_of_one_name_give_two_lines_in_each_measured_panel() -> None:
    rows = table("device")
    with draw.looking("paper"):
        work, memory, time, _ = draw.draw("resolution", rows, Options()).figure.axes[:4]
    assert len(work.get_lines()) == 2  # counted: of no device
    for axis in (memory, time):
        labels = [str(line.get_label()) for line in axis.get_lines() if str(line.get_label())[0] != "_"]
        assert sorted(labels) == sorted(
            f"{who} {gpu}" for who in ("vig_t parallel", "vig_t recurrent", "deit_t") for gpu in CASES["device"]
        )


def test_a_device_that_its_name_tells_is_not_said_twice() -> None:
    found = [of_case(make_record(), device="cuda:0"), make_record(host={**HOST, "device_name": "a test GPU"})]
    rows = frame(found).assign(device=["cpu", "cuda:0"])
    assert differing(rows, PARTS) == ["device_name"]
    assert {one.label for one in series_of(rows)} == {"vig_t a test CPU", "vig_t a test GPU"}


def test_the_ratio_is_of_one_device() -> None:
    """The slower GPU's attention is never the baseline of the faster one's subject."""
    with draw.looking("paper"):
        notes = draw.draw("resolution", table("device"), Options(at=(1024,))).notes
    assert notes[0].split(",")[0].count("cuda:0") == 2


def test_values_in_words() -> None:
    assert [said("threads", 4), said("batch_asked", "knee"), said("dtype", "float16"), said("form", "scan")] == [
        "4 threads",
        "batch knee",
        "float16",
        "scan",
    ]
    usual = {"device": "cuda:0", "dtype": "float32", "phase": "infer", "backend": "eager", "layout": "nchw"}
    assert unusual({**usual, "attention": None}) == []
    assert unusual({**usual, "device": "cuda:1", "attention": "unfused"}) == ["cuda:1", "unfused"]
    assert unusual({**usual, "reparam": "no"}) == []
    assert unusual({**usual, "reparam": "yes"}) == ["reparam yes"]
