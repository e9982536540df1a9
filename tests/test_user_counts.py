"""Models as users write them are counted, whether or not they run without data; each figure is by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from test_counters import Here
from torch import Tensor

from vbench.errors import UncountedError, UnsupportedError
from vbench.flops import count as flops
from vbench.flops import estimate, passes
from vbench.flops.autocast import attention
from vbench.flops.count import count_by_module, count_cells, count_in_full
from vbench.flops.extrapolation import extrapolated, polynomial
from vbench.flops.inside import count_inside
from vbench.flops.passes import BY_NUMPY, REAL
from vbench.flops.peak import prediction
from vbench.gate import counters
from vbench.jobs.launch import Ending
from vbench.jobs.memo import Memo
from vbench.plan import RIGORS, Case
from vbench.results import counters as baselines
from vbench.sweeps.prepare import Preparation

PLAIN = 98_384, 482  # MACs and parameters at 64 px of a model whose body has none
MIXED = 98_384 + 256 * 64, 482 + 72  # with a convolution of 1 x 1
TOKENS = 256


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test imports the models anew."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "users_nets"]:
        del sys.modules[name]


def case(name: str, height: int = 64, width: int | None = None, **axes: Any) -> Case:
    return Case(f"users_nets.{name}", height, width or height, "parallel", None, 1, "float32", "cpu", **axes)


LSTM = TOKENS * 2 * 8 * 32  # from the input and from the state, to four gates
ATTENTION = TOKENS * TOKENS
COUNTED = {  # MACs, parameters, and whether a real pass tells them
    "building:Rates": (147_536, 698, False),
    "building:Kept": (147_536, 698, False),
    "building:Widths": (98_384 + TOKENS * 2 * 72, 482 + 81 + 80, False),
    "building:Tied": (98_384 + TOKENS * 2 * 64, 482 + 64, False),
    "building:Recurrent": (98_384 + LSTM, 482 + 2 * 8 * 32 + 2 * 32, False),
    "building:Scripted": (*MIXED, False),
    "building:scripted": (*MIXED, False),
    "buffers:Table": (*PLAIN, False),
    "buffers:Apart": (*PLAIN, False),
    "buffers:Normalised": (*PLAIN, False),
    "buffers:Positions": (*PLAIN, False),
    "buffers:Constants": (*PLAIN, False),
    "attention:Wide": (1_491_024, 482 + 2 * 36 + 144 + 136, False),
    "attention:WideHeads": (1_491_024, 482 + 2 * 36 + 144 + 136, False),
    "attention:Grouped": (98_384 + TOKENS * 3 * 128 + 4 * ATTENTION * 8, 482 + 2 * 144 + 136, False),
    "attention:Shared": (98_384 + TOKENS * 16 * 16, 482 + 128, False),
    "values:Prune": (*PLAIN, True),
    "values:Branch": (*PLAIN, True),
    "values:Numpy": (*PLAIN, True),
    "values:Chosen": (*PLAIN, True),
    "values:Looped": (*PLAIN, True),
    "values:Custom": (*PLAIN, True),
    "values:Library": (*PLAIN, True),
    "values:OnlyHere": (*PLAIN, True),
    "values:Memo": (*PLAIN, True),
    "values:once": (*PLAIN, True),
    "shapes:Lazy": (*MIXED, False),
    "shapes:Grows": (*MIXED, False),
}


@pytest.mark.parametrize("name", COUNTED)
def test_a_model_that_runs_is_counted(name: str) -> None:
    macs, params, real = COUNTED[name]
    work = flops.count(case(name))
    assert (work["macs"], work["params"]) == (macs, params)
    assert (REAL in work["notes"]) is real
    assert (BY_NUMPY in work["notes"]) is (name in ("values:Numpy", "values:Custom"))
    assert ("users_nets.thrice" in work["unknown"]) is (name == "values:Library")


@pytest.mark.parametrize("name", ["building:Tied", "building:scripted", "values:Branch", "shapes:Grows"])
def test_the_modules_of_a_model_add_up_to_it(name: str) -> None:
    rows = count_by_module(case(name))
    assert sum(row["macs_executed"] for row in rows) == COUNTED[name][0]
    found = dict(count_in_full({"case": asdict(case(name)), "depth": 2}))
    assert found["modules"] == rows


def test_a_part_that_torch_compile_has_wrapped_runs_as_it_is_written() -> None:
    work = flops.count(case("shapes:Compiled"))
    assert (work["macs"], work["params"], work["notes"]) == (*MIXED, [])
    assert prediction(case("shapes:Compiled"))[0]


def test_a_weight_that_is_tied_is_read_once() -> None:
    tied, plain = (flops.count(case(name))["bytes_min"] for name in ("building:Tied", "buffers:Table"))
    assert tied - plain == 4 * (64 + 2 * 2 * TOKENS * 8)  # one weight; two products read and write all tokens


def test_what_is_counted_on_a_real_pass_is_the_same_each_time_and_in_a_process_that_has_counted_before() -> None:
    for name in ("values:Prune", "values:Memo", "values:once"):
        first, second = (flops.count(case(name)) for _ in range(2))
        assert first == second
    cells = [case("values:Memo"), case("values:Memo", 32)]
    parts = list(count_cells({"cases": [asdict(one) for one in cells]}))
    assert [dict(parts)[one.id]["work"]["macs"] for one in cells] == [98_384, 98_304 // 4 + 80]


@pytest.mark.parametrize("name", ["values:Branch", "building:Scripted", "building:scripted", "shapes:Lazy"])
def test_half_types_and_autocast_are_counted_whatever_the_pass(name: str) -> None:
    plain, half, mixed = (flops.count(replace(case(name), dtype=dtype)) for dtype in HALVES)
    assert plain["macs"] == half["macs"] == mixed["macs"] == COUNTED[name][0]
    assert half["bytes_min"] == plain["bytes_min"] // 2
    assert half["params"] == mixed["params"] == COUNTED[name][1]


HALVES: Any = ("float32", "bfloat16", "amp-bf16")


# Where one pass would not do


def test_a_model_that_takes_no_single_image_is_counted_from_several() -> None:
    work = flops.count(case("shapes:Paired"))
    assert (work["macs"], work["params"]) == PLAIN
    assert work["notes"] == ["extrapolated from real passes of 2, 4 and 6 noise images: the model takes no single one"]
    weights, image = 4 * (8 * 48 + 8 + 8 * 10 + 10), 4 * (3 * 64 * 64 + 8 * TOKENS + 8 + 10)
    assert work["bytes_min"] == weights + image


def seen() -> list[tuple[int, int]]:
    return list(import_module("users_nets.shapes").SEEN)


NUMBERS = ("params", "macs", "macs_executed", "flops_elementwise", "flops_total", "bytes_min", "coverage")


def test_a_large_image_is_extrapolated_and_the_row_says_so() -> None:
    large = case("shapes:Coarse", 704, 768)
    work, without = flops.count(large), flops.count(replace(large, model="users_nets.shapes:OnMeta"))
    tokens = 22 * 24
    assert work["macs"] == tokens * 32 * 32 * 24 + 2 * tokens * tokens * 8 + 80
    assert {key: work[key] for key in NUMBERS} == {key: without[key] for key in NUMBERS}
    assert (without["notes"], max(seen())) == ([], (352, 416))
    assert work["notes"] == [
        "extrapolated from real passes of one noise image of 64x128, 96x160, 128x192, 160x224, 192x256 px, which give "
        "just what is counted at 352x416 px: the model needs values"
    ]
    assert sum(row["macs_executed"] for row in count_by_module(large)) == work["macs"]
    inside = count_inside(large)
    assert inside["operations"] == count_inside(replace(large, model="users_nets.shapes:OnMeta"))["operations"]
    assert inside["notes"][0] == work["notes"][0]


def test_small_images_that_do_not_tell_of_a_large_one_are_not_believed() -> None:
    """Maps below 7 x 7 tokens are one window each, so they grow otherwise than larger ones."""
    work = flops.count(case("shapes:Windows", 672))
    assert work["macs"] == 441 * 32 * 32 * 24 + 9 * 2 * 49 * 49 * 8 + 80
    assert work["notes"] == [REAL]
    assert max(seen()) == (672, 672)


def test_work_that_would_take_too_long_to_count_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "LIMIT_S", 0.0)
    large, small = case("shapes:Pruned", 704), case("shapes:Pruned", 64)
    with pytest.raises(UncountedError, match="a real pass would take 0 s or more, and the counts of smaller images"):
        flops.count(large)
    assert max(seen()) < (704, 704)
    parts = dict(count_cells({"cases": [asdict(large), asdict(small)]}))
    assert list(parts[large.id]) == ["uncounted"]
    assert parts[large.id]["uncounted"].startswith("MACs not counted: the model needs values")
    assert parts[small.id]["work"]["macs"] > 0


def test_a_polynomial_is_exact_or_none() -> None:
    quartic = [3 * k**4 - k + 7 for k in range(5)]
    assert polynomial(quartic, 40) == 3 * 40**4 - 40 + 7
    assert polynomial([10, 14], Fraction(-1, 2)) == 8
    known = [{("entries", "a", "calls"): value} for value in (10, 14)]
    tell = partial(extrapolated, known, Fraction(-1, 2), check_at=2)
    assert tell(check={("entries", "a", "calls"): 18}) == {("entries", "a", "calls"): 8}
    assert tell(check={("entries", "a", "calls"): 19}) is None
    assert tell(check={("entries", "b", "calls"): 18}) is None
    odd = [{("entries", "a", "calls"): value} for value in (10, 13)]
    assert extrapolated(odd, Fraction(-1, 2), check={("entries", "a", "calls"): 16}, check_at=2) is None


# What fails, fails alone


def test_a_prediction_that_fails_takes_nothing_with_it() -> None:
    branch = case("values:Branch")
    (_, first), (_, found) = count_cells({"cases": [asdict(branch)]})
    work = found["work"]
    assert (work["macs"], work["predicted_peak_bytes"]) == (98_384, None)
    assert work["notes"][1].startswith("peak memory not predicted: ")
    assert first["work"] == work
    assert found["second_count"]["macs_fvcore"] == 98_384
    foreseen = dict(estimate.foresee({"case": asdict(branch)}))
    assert (foreseen["macs"], foreseen["peak_bytes"]) == (98_384, None)
    assert foreseen["unpredicted"] == work["notes"][1]
    rates = {"gemm_flops_per_s": 1e9, "operator_s": 1e-5, "copy_bytes_per_s": 1e12}
    guess = estimate.estimate(foreseen, rates, RIGORS["quick"])
    assert guess.call_s > 0
    assert guess.peak_bytes is None


def test_a_count_that_fails_leaves_the_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: Case) -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(estimate, "enter", fail)
    foreseen = dict(estimate.foresee({"case": asdict(case("buffers:Table"))}))
    assert foreseen["uncounted"] == "MACs not counted: ValueError: no such thing"
    assert foreseen["peak_bytes"] > 0
    assert "macs" not in foreseen


def test_why_a_cell_was_not_counted_is_not_remembered(tmp_path: Path) -> None:
    cell, asked = case("buffers:Table"), []

    class Fails:
        def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
            asked.append(job)
            return Ending("ok", None, {cell.id: {"uncounted": "because"}})

    for _ in range(2):
        known = Preparation([cell], Fails(), Memo(Fails(), "conditions", tmp_path))
        known._count([cell])
        assert known.count(cell) == {"uncounted": "because"}
    assert asked == ["count", "count"]


@pytest.mark.skipif(not timm.is_model("iformer_t"), reason=f"timm {timm.__version__} lacks it")
def test_timms_iformer_is_counted_and_predicted_in_plans_and_in_the_gate() -> None:
    """530,472,064 MACs: its values are wider than its queries."""
    cell = replace(case("", 224), model="timm/iformer_t", attention="fused")
    foreseen = dict(estimate.foresee({"case": asdict(replace(cell, device="cuda:0"))}))
    assert foreseen["macs"] == 530_472_064
    inside = count_inside(cell)
    assert inside["counts"]["macs"] == 530_472_064
    assert inside["notes"] == []
    whole, half = foreseen["peak_bytes"], prediction(replace(cell, dtype="bfloat16", device="cuda:0"))[0]
    assert whole == pytest.approx(inside["counts"]["predicted_peak_bytes"], rel=0.02)  # requests are rounded up
    assert half == pytest.approx(whole / 2, rel=0.05)


@pytest.mark.parametrize("name", ["attention:Wide", "attention:WideHeads", "attention:Grouped", "attention:Shared"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("phase", ["infer", "train"])
def test_memory_is_predicted_whatever_the_shapes_of_attention(name: str, dtype: Any, phase: Any) -> None:
    peak, why = prediction(replace(case(name, phase=phase), dtype=dtype, device="cuda:0"))
    assert why == []
    assert peak is not None
    assert peak > COUNTED[name][1] * (4 if dtype == "float32" else 2)


SHAPES = {  # of queries, keys and values
    "alike": ((2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 8)),
    "wide": ((2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 24)),
    "narrow": ((2, 4, 6, 8), (2, 4, 5, 8), (2, 4, 5, 4)),
    "shared heads": ((2, 4, 6, 8), (2, 1, 5, 8), (2, 1, 5, 8)),
    "one batch of keys": ((2, 4, 6, 8), (1, 4, 5, 8), (1, 4, 5, 8)),
    "three dimensions": ((2, 6, 8), (2, 5, 8), (2, 5, 16)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grouped", [False, True])
def test_attention_without_data_has_the_shape_of_torchs(
    shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype, grouped: bool
) -> None:
    q, k, v = (torch.randn(shape, dtype=dtype) for shape in shapes)
    wanted = F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped and len(shapes[0]) == 4)
    without: list[Tensor] = [x.to("meta") for x in (q, k, v)]
    found = attention(without[0], without[1], without[2], enable_gqa=grouped and len(shapes[0]) == 4)
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)


def test_a_pinned_kernel_refuses_shapes_that_it_does_not_take() -> None:
    def of(name: str) -> list[Tensor]:
        return [torch.empty(shape, dtype=torch.bfloat16, device="meta") for shape in SHAPES[name]]

    for kernel, name in (("flash", "wide"), ("efficient", "shared heads"), ("cudnn", "one batch of keys")):
        with pytest.raises(UnsupportedError, match=f"the kernel '{kernel}' does not take queries, keys and values of"):
            attention(*of(name), enable_gqa=name == "shared heads", kernel=kernel)
    assert attention(*of("wide"), kernel="cudnn").shape[-1] == 24
    assert attention(*of("shared heads"), enable_gqa=True, kernel="flash").shape == (2, 4, 6, 8)


def test_the_gate_holds_a_model_that_needs_a_real_pass_to_its_counts(tmp_path: Path) -> None:
    file = tmp_path / "counters.json"
    chosen = [case("values:Branch"), case("building:Rates"), case("attention:Wide")]
    assert counters.gate(file, Here(), cases=chosen, write=True).exit_code() == 0
    cells = {each.name.partition(" ")[0].partition(":")[2]: each for each in baselines.read(file).cells}
    assert {name: cell.counts["macs"] for name, cell in cells.items()} == {
        "Branch": 98_384,
        "Rates": 147_536,
        "Wide": 1_491_024,
    }
    assert [bool(cell.notes) for cell in cells.values()] == [True, False, False]
    assert (cells["Branch"].notes[0], cells["Branch"].counts["predicted_peak_bytes"]) == (REAL, None)
    again = counters.gate(file, Here())
    assert again.exit_code() == 0
    assert {finding.what for finding in again.findings if finding.verdict != "SAME"} <= {"predicted_peak_bytes"}
    assert list(again.facts["notes"]) == [cells["Branch"].name]
