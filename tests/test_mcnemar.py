"""Two models on the same images: the exact test, the interval of the difference, and what is said of them."""

from __future__ import annotations

from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from eval_rows import first, like, write
from scipy.optimize import minimize_scalar
from scipy.special import xlogy

from vbench.commands.pick import accuracy
from vbench.errors import UsageError
from vbench.results.accuracy import predictions as file_of
from vbench.results.mcnemar import compare, exact, interval


def test_the_exact_p_is_the_sum_of_the_tails() -> None:
    """Two tails of a fair coin, added up by hand."""
    for only_a, only_b in [(0, 0), (1, 0), (3, 3), (12, 2), (2, 12), (30, 17)]:
        n, least = only_a + only_b, min(only_a, only_b)
        tail = sum(comb(n, k) for k in range(least + 1)) / 2**n
        assert exact(only_a, only_b) == pytest.approx(min(1.0, 2 * tail))


def score_by_search(only_a: int, only_b: int, images: int, delta: float) -> float:
    """The score statistic, with the likeliest shares under a difference of delta found by a search."""

    def unlikely(share_b: float) -> float:
        rest = 1 - 2 * share_b - delta
        return float(-xlogy(only_a, share_b + delta) - xlogy(only_b, share_b) - xlogy(images - only_a - only_b, rest))

    low, high = max(0.0, -delta), (1 - delta) / 2
    share = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return float((only_a - only_b - images * delta) / np.sqrt(images * (2 * share + delta - delta**2)))


@pytest.mark.parametrize(("only_a", "only_b", "images"), [(12, 2, 50), (3, 9, 40), (152, 85, 2000), (0, 4, 30)])
def test_the_ends_of_the_interval_are_where_the_score_test_turns(only_a: int, only_b: int, images: int) -> None:
    lo, hi = interval(only_a, only_b, images)
    assert score_by_search(only_a, only_b, images, lo) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_search(only_a, only_b, images, hi) == pytest.approx(-1.959964, abs=2e-3)
    assert interval(only_b, only_a, images) == pytest.approx((-hi, -lo), abs=1e-9)


def test_the_interval_covers_the_difference() -> None:
    """Every table of 25 images, by its chance: the interval covers the true difference in about 95 % of them."""
    images = 25
    tables = [(a, b) for a, b in product(range(images + 1), repeat=2) if a + b <= images]
    ends = np.array([interval(a, b, images) for a, b in tables])
    for share_a, share_b in ((0.1, 0.1), (0.3, 0.1), (0.25, 0.2)):
        chance = [
            comb(images, a)
            * comb(images - a, b)
            * share_a**a
            * share_b**b
            * (1 - share_a - share_b) ** (images - a - b)
            for a, b in tables
        ]
        covered = (ends[:, 0] <= share_a - share_b) & (share_a - share_b <= ends[:, 1])
        assert 0.93 < float(np.dot(chance, covered)) < 0.985


def test_no_difference_and_nothing_but_difference_have_intervals() -> None:
    assert interval(0, 0, 500)[0] < 0 < interval(0, 0, 500)[1]
    assert interval(50, 0, 50)[1] == 1.0
    assert interval(0, 50, 50)[0] == -1.0
    with pytest.raises(ValueError, match="images"):
        interval(3, 3, 5)


class TestCompare:
    def test_two_models_meet_at_every_size_and_p_is_adjusted(self, tmp_path: Path) -> None:
        base = first(600, 1000)
        rows = write(tmp_path, {("deit_t", 224): base, ("deit_t", 512): base, ("deit_t", 768): base})
        rows = write(tmp_path, {("vig_t", 224): like(base, 40, 20), ("vig_t", 512): like(base, 60, 10)})
        small, large = compare(rows, "vig_t", "deit_t")
        assert [(one.only_a, one.only_b, one.both, one.neither) for one in (small, large)] == [
            (40, 20, 580, 360),
            (60, 10, 590, 340),
        ]
        assert small.difference == pytest.approx(2.0)
        assert small.lo < 2.0 < small.hi
        assert small.accuracies == (62.0, 60.0)
        assert small.p_all == pytest.approx(small.p)  # the larger of two keeps its p
        assert large.p_all == pytest.approx(2 * large.p)
        assert small.verdict == large.verdict == "vig_t is better"
        assert compare(rows, "deit_t", "vig_t")[0].difference == pytest.approx(-2.0)

    def test_top5_counts_the_five(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(0, 100), ("vig_t", 224): first(95, 100)})
        (one,) = compare(rows, "vig_t", "deit_t", "top5")
        assert (one.only_a, one.only_b, one.both) == (10, 0, 90)  # every tenth is not among deit_t's five

    def test_only_shared_images_count_and_the_others_are_said(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(50, 100), ("vig_t", 224): first(60, 80)})
        (one,) = compare(rows, "vig_t", "deit_t")
        assert one.images == 80
        assert (one.only_a, one.only_b) == (10, 0)
        assert one.notes == ("20 images of deit_t at 224 px are left out: vig_t has no prediction of them",)

    def test_other_preprocessing_is_said(self, tmp_path: Path) -> None:
        write(tmp_path, {("deit_t", 224): first(50, 100)}, crop_pct=1.0, dtype="bfloat16")
        rows = write(tmp_path, {("vig_t", 224): first(50, 100)})
        (one,) = compare(rows, "vig_t", "deit_t")
        assert one.notes == ("vig_t and deit_t differ in dtype float32 and bfloat16, crop_pct 0.875 and 1.0",)
        assert one.verdict == "not told apart"
        assert one.p == 1.0

    def test_the_row_with_most_in_common_is_met(self, tmp_path: Path) -> None:
        write(tmp_path, {("deit_t", 224): first(50, 100)}, crop_pct=1.0)
        write(tmp_path, {("deit_t", 224): first(40, 100)}, crop_pct=0.9)
        rows = write(tmp_path, {("vig_t", 224): first(50, 100)}, crop_pct=0.9)
        (one,) = compare(rows, "vig_t", "deit_t")
        assert one.b.crop_pct == 0.9

    def test_what_cannot_be_compared_is_one_line(self, tmp_path: Path) -> None:
        rows = write(tmp_path, {("deit_t", 224): first(50, 100), ("vig_t", 512): first(50, 100)})
        with pytest.raises(UsageError, match=r"no accuracy of vil_t .* models with one: deit_t, vig_t"):
            compare(rows, "vig_t", "vil_t")
        with pytest.raises(UsageError, match="share no size"):
            compare(rows, "vig_t", "deit_t")


def test_damaged_predictions_are_one_line(tmp_path: Path) -> None:
    rows = write(tmp_path, {("deit_t", 224): first(50, 100), ("vig_t", 224): first(50, 100)})
    file = file_of(tmp_path, "vig_t-224-")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"vig_t-224-.parquet: the predictions of vig_t cannot be read") as found:
        compare(rows, "vig_t", "deit_t")
    assert "\n" not in str(found.value)
    file.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        compare(rows, "vig_t", "deit_t")


def test_other_labels_of_the_same_images_are_refused(tmp_path: Path) -> None:
    rows = write(tmp_path, {("deit_t", 224): first(50, 100), ("vig_t", 224): first(50, 100)})
    file = file_of(tmp_path, "vig_t-224-")
    table = pd.read_parquet(file)
    table.loc[7, "label"] += 1
    table.to_parquet(file, index=False)
    with pytest.raises(UsageError, match=r"have different labels for 1 images, as 00007.png: imagenet and imagenet"):
        compare(rows, "vig_t", "deit_t")


def test_the_command_prints_each_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {("deit_t", 224): first(600, 1000), ("vig_t", 224): first(650, 1000)})
    accuracy("vig_t,deit_t", [tmp_path])
    said = capsys.readouterr().out
    assert "65.00       60.00       +5.00" in said
    assert "vig_t is better" in said
    with pytest.raises(UsageError, match="not two models"):
        accuracy("vig_t", [tmp_path])
