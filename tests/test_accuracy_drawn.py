"""Measured accuracy in figures, on the page, in answers and in claims: from rows of `vbench eval` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from eval_rows import first, like, write
from fakes import make_record
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from vbench.reports import claims as claims_report
from vbench.reports import panels
from vbench.reports.figures import draw
from vbench.reports.figures.style import Drawn, Options
from vbench.reports.series import series_of
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.answers import answers
from vbench.results.claim_accuracy import MATCH, bound_of, by_predictions
from vbench.results.claims import Claim, claims
from vbench.results.frame import frame
from vbench.results.known import ways

SIDES = (224, 512, 1024)
CLAIMS = {claim.id: claim for claim in claims()}


def measured(folder: Path, **asked: Any) -> list[MeasuredAccuracy]:
    """ViG-T and DeiT-T at three sizes on the same thousand images."""
    base = {side: first(count, 1000) for side, count in zip(SIDES, (720, 650, 380), strict=True)}
    write(folder, {("deit_t", side): right for side, right in base.items()}, **asked)
    return write(folder, {("vig_t", side): like(right, 90, 20) for side, right in base.items()}, **asked)


def table() -> pd.DataFrame:
    return frame([make_record(model, side) for model in ("vig_t", "deit_t") for side in SIDES])


def drawn(name: str, rows: Sequence[MeasuredAccuracy]) -> Drawn:
    with draw.looking("paper"):
        return draw.draw(name, table(), Options(at=(512,), accuracy=tuple(rows)))


def points(lines: Sequence[Line2D], *, filled: bool) -> set[float]:
    """The y values of the points whose markers are filled, or hollow."""
    found: set[float] = set()
    for line in lines:
        face = line.get_markerfacecolor()
        if line.get_marker() in ("o", "s") and (to_hex(face) != "#ffffff") is filled and len(line.get_xdata()):
            found |= {round(float(value), 6) for value in np.atleast_1d(np.asarray(line.get_ydata(), dtype=float))}
    return found


class TestFigures:
    def test_measured_is_filled_with_its_interval_and_published_hollow_beside(self, tmp_path: Path) -> None:
        rows = measured(tmp_path)
        found = drawn("resolution", rows)
        axis = found.figure.axes[3]
        assert points(axis.get_lines(), filled=True) == {row.top1 for row in rows}
        assert {77.2, 72.2, 75.9, 66.1, 57.8, 37.1} <= points(axis.get_lines(), filled=False)
        ends = [segment for bars in axis.collections for segment in getattr(bars, "get_segments", list)()]
        drawn_ends = {(round(float(a[1]), 6), round(float(b[1]), 6)) for a, b in ends}
        assert drawn_ends == {(round(row.top1_lo, 6), round(row.top1_hi, 6)) for row in rows}
        notes = " ".join(found.notes)
        assert "filled is what was measured on a test set (labels imagenet), 1,000 images" in notes
        assert "Measured accuracy at 1024 px, image by image: vig_t +7.00 points over deit_t" in notes
        assert (
            "At 1024 px vig_t has 45.00 % (41.94–48.10) top-1 of 1,000 images of a test set, 12.80 points below"
            in notes
        )
        assert "none was measured" not in notes

    def test_without_measured_rows_nothing_changes(self, tmp_path: Path) -> None:
        found = drawn("resolution", write(tmp_path, {("vig_t", 224): first(1, 1000)}, checkpoint="random"))
        assert points(found.figure.axes[3].get_lines(), filled=True) == set()
        assert "none was measured here" in " ".join(found.notes)
        assert found.figure.axes[3].get_title(loc="left") == "(d) Accuracy as published, not measured"

    def test_accuracy_against_cost_takes_measured_rows(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("vig_t", 224): first(990, 1000)})
        axis = drawn("accuracy-cost", rows).figure.axes[0]
        assert 99.0 in points(axis.get_lines(), filled=True)
        assert 77.2 in points(axis.get_lines(), filled=False)
        steps = [line for line in axis.get_lines() if line.get_drawstyle() == "steps-post"]
        assert max(np.asarray(steps[0].get_ydata(), dtype=float)) == 99.0  # the front takes it

    def test_two_ways_of_measuring_are_two_curves(self, tmp_path: Path) -> None:
        measured(tmp_path)
        rows = write(tmp_path, {("vig_t", side): first(500, 1000) for side in (512, 224)}, crop_pct=1.0)
        found = {name: [row.height for row in own] for name, own in ways(rows, "vig_t")}
        assert found == {"vig_t crop 0.875": [224, 512, 1024], "vig_t crop 1.0": [224, 512]}
        assert [name for name, _ in ways(rows, "deit_t")] == ["deit_t"]

    @pytest.mark.parametrize("name", ["paper:vig", "paper:vil", "paper:vision_gru"])
    def test_figures_of_papers_have_ours_beside_theirs(self, name: str, tmp_path: Path) -> None:
        rows = write(tmp_path, {(model, 224): first(705, 1000) for model in ("vig_t", "vil2_t", "vision_gru_t")})
        found = drawn(name, rows)
        assert any(70.5 in np.atleast_1d(line.get_ydata()) for axis in found.figure.axes for line in axis.get_lines())
        assert "filled is what was measured" in " ".join(found.notes)


def test_the_page_and_the_answers_have_measured_accuracy(tmp_path: Path) -> None:
    rows = measured(tmp_path)
    points = panels.accuracies(series_of(table()), rows)
    assert panels.accuracy_title(points)[0] == "Accuracy, measured and published"
    ours = [of for of in points if not of["published"]]
    assert sorted(value for of in ours for value in of["top1"]) == sorted(row.top1 for row in rows)
    assert "1,000 images of a test set" in " ".join(ours[0]["said"][0])
    said = [answer.text for answer in answers(table(), rows) if answer.kind == "accuracy"]
    assert len(said) == 6
    assert json.dumps(points)


class TestClaims:
    def test_the_bound_is_the_printed_difference_less_half_its_digits(self) -> None:
        least = {name: bound_of(CLAIMS[name]) for name in CLAIMS if CLAIMS[name].quantity == "accuracy"}
        assert {name: bound and round(bound.least, 6) for name, bound in least.items()} == {
            "vig-abstract-accuracy": 20.65,
            "vig-small-accuracy": -MATCH,
            "vrwkv-accuracy": 9.6,
            "vil-accuracy-per-flop": None,
        }

    @pytest.mark.parametrize(
        ("name", "gained", "verdict"),
        [
            ("vig-abstract-accuracy", 2500, "holds"),
            ("vig-abstract-accuracy", 2070, "open"),
            ("vig-abstract-accuracy", 1500, "does not hold"),
            ("vrwkv-accuracy", 1500, "holds"),
            ("vrwkv-accuracy", 500, "does not hold"),
        ],
    )
    def test_a_claim_in_points_is_judged_by_the_interval(
        self, name: str, gained: int, verdict: str, tmp_path: Path
    ) -> None:
        found = judged(CLAIMS[name], gained, tmp_path)
        assert found.verdict == verdict
        assert found.fair
        assert found.fair.lo is not None
        assert found.fair.hi is not None
        assert found.fair.value == pytest.approx(gained / 100)
        assert found.fair.lo < gained / 100 < found.fair.hi
        assert "10,000 images of a test set" in found.reason
        assert len(found.case_ids) == 2
        assert bool(found.undecided) == (verdict == "open")

    @pytest.mark.parametrize(
        ("changed", "verdict"),
        [((10, 10), "holds"), ((500, 530), "open"), ((0, 300), "does not hold"), ((900, 0), "holds")],
    )
    def test_matching_is_no_more_than_half_a_point_below(
        self, changed: tuple[int, int], verdict: str, tmp_path: Path
    ) -> None:
        base = first(8000, 10000)
        rows = write(tmp_path, {("deit_b", 224): base, ("vig_s", 224): like(base, *changed)})
        assert by_predictions(CLAIMS["vig-small-accuracy"], rows).verdict == verdict

    def test_without_rows_the_printed_values_are_quoted(self, tmp_path: Path) -> None:
        claim = CLAIMS["vig-abstract-accuracy"]
        alone = write(tmp_path / "a", {("vig_t", 1024): first(60, 100), ("deit_t", 224): first(60, 100)})
        random = write(tmp_path / "b", {(m, 1024): first(60, 100) for m in ("vig_t", "deit_t")}, checkpoint="random")
        for rows in ([], alone, random):
            found = by_predictions(claim, rows)
            assert found.verdict == "not measurable here"
            assert "57.8 % of vig_t" in found.reason
            assert "'vbench eval --models vig_t,deit_t --res 1024' measures it" in found.reason

    def test_vbench_claims_reads_them_from_a_run(self, tmp_path: Path) -> None:
        base = first(4000, 10000)
        write(tmp_path, {("deit_t", 1024): base, ("vig_t", 1024): like(base, 2500, 0)})
        (found,) = [one for one in claims_report.judged([tmp_path]) if one.claim.id == "vig-abstract-accuracy"]
        assert found.verdict == "holds"


def judged(claim: Claim, gained: int, folder: Path) -> Any:
    assert claim.baseline
    base = first(4000, 10000)
    rows = write(folder, {(claim.baseline, claim.res): base, (claim.subject, claim.res): like(base, gained, 0)})
    return by_predictions(replace(claim), rows)
