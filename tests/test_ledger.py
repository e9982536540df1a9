"""The ledger's counts of single operations, held to figures computed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from math import log2
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_flops import Call
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry, register_flop_formula

from vbench.flops import count as counting
from vbench.flops.formulas import COMPLEX_ARITHMETIC
from vbench.flops.ledger import CAUSAL, TRANSFORMS, Kind, Ledger
from vbench.flops.second import not_counted
from vbench.flops.tables import COMPLEX, PER_INPUT, PER_OUTPUT
from vbench.kernels import OPS, operator
from vbench.plan import Case
from vbench.reports import modules
from vbench.reports.work import notes
from vbench.results.counters import Baseline, CountedCell, read, to_text

COMPLEX64 = torch.complex64
LONG = torch.long


def enter(function: Callable[[Tensor], Any], *shape: int, dtype: torch.dtype = torch.float32) -> Ledger:
    with torch.device("meta"):
        return Ledger(Call(function)).enter(torch.empty(shape, dtype=dtype))


def work(function: Callable[[Tensor], Any], *shape: int, dtype: torch.dtype = torch.float32) -> tuple[int, int]:
    """MACs and pointwise FLOPs, of operations that are all known."""
    ledger = enter(function, *shape, dtype=dtype)
    assert ledger.unknown == {}
    total = ledger.total()
    assert total.macs_executed == total.macs_matmul == total.macs_algorithm
    return total.macs_matmul, total.flops_elementwise


# Complex numbers


def test_a_complex_product_is_four_real_ones() -> None:
    other = torch.empty(2, 3, dtype=COMPLEX64, device="meta")
    for function, macs in (
        (lambda x: x @ other.mT, 2 * 3 * 2),  # mm
        (lambda x: x @ other.mH, 2 * 3 * 2),  # conjugated first, which moves bytes
        (lambda x: torch.addmm(x[:, :2], x, other.mT), 2 * 3 * 2),
        (lambda x: torch.einsum("ij,kj->ik", x, other), 2 * 3 * 2),
        (lambda x: x[None] @ other.mT[None], 2 * 3 * 2),  # bmm
        (lambda x: torch.baddbmm(x[None, :, :2], x[None], other.mT[None]), 2 * 3 * 2),
        (lambda x: x @ other[0], 2 * 3),  # mv
        (lambda x: torch.vdot(x[0], other[0]), 3),
    ):
        assert work(function, 2, 3, dtype=COMPLEX64) == (4 * macs, 0)


def test_a_complex_projection_behind_a_real_convolution_is_52_6_million_macs() -> None:
    """A convolution of 3 channels to 8, and 8 complex channels to 32, at 224 px: 1.204 M and 4 · 12.845 M."""

    def model(image: Tensor) -> Tensor:
        channels = F.conv2d(image, torch.empty(8, 3, 1, 1)).flatten(2).mT.to(COMPLEX64)
        return channels @ torch.empty(8, 32, dtype=COMPLEX64)

    pixels = 224 * 224
    assert work(model, 1, 3, 224, 224) == (pixels * 3 * 8 + 4 * pixels * 8 * 32, 0)


def test_a_complex_convolution_is_the_three_real_ones_that_torch_makes_of_it() -> None:
    """(Wr + Wi)(xr + xi) saves the fourth; the sums that it costs are pointwise work."""
    weight = torch.empty(4, 3, 3, 3, dtype=COMPLEX64, device="meta")
    ledger = enter(lambda x: F.conv2d(x, weight), 1, 3, 8, 8, dtype=COMPLEX64)
    assert ledger.unknown == {}
    assert ledger.total(Kind.MATRIX).calls == 3
    assert ledger.total().macs_matmul == 3 * 36 * 4 * 3 * 9
    inputs, weights, outputs = 3 * 64, 4 * 3 * 9, 4 * 36
    ends = outputs + 2 * outputs + (2 + 1) * outputs  # c - a - b, a - b, times i and the sum with a real number
    assert ledger.total().flops_elementwise == inputs + weights + ends


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        (lambda x: x * x, 6),
        (lambda x: x * x.real, 2),
        (lambda x: x.real * x, 2),
        (lambda x: x * 2.0, 2),
        (lambda x: x * 2j, 6),
        (lambda x: x.real * 2j, 2),
        (lambda x: x + x, 2),
        (lambda x: x - x.imag, 1),
        (lambda x: x / x, 11),
        (lambda x: x.real / x, 11),
        (lambda x: x / 2, 2),
        (lambda x: torch.addcmul(x, x, x), 8),
        (lambda x: x**2, 6),
        (lambda x: -x, 2),
        (lambda x: x.sum(), 2),
        (lambda x: x.abs(), 4),
        (lambda x: x.exp(), 5),
        (lambda x: torch.polar(x.real, x.imag), 4),
        (lambda x: torch.view_as_complex(torch.view_as_real(x)), 0),
        (lambda x: torch.complex(x.real, x.imag).conj().clone(), 0),
    ],
)
def test_pointwise_work_on_complex_numbers(function: Callable[[Tensor], Any], flops: int) -> None:
    assert work(function, 2, 3, dtype=COMPLEX64) == (0, 6 * flops)


def test_a_complex_function_without_a_figure_is_unknown() -> None:
    assert set(enter(torch.tanh, 2, 3, dtype=COMPLEX64).unknown) == {"aten.tanh"}
    assert set(COMPLEX) <= {*PER_OUTPUT, *PER_INPUT}
    assert set(COMPLEX_ARITHMETIC) <= set(PER_OUTPUT)


# Transforms


def test_a_transform_is_five_n_log_n() -> None:
    assert work(torch.fft.fft, 3, 8, dtype=COMPLEX64) == (0, 3 * 5 * 8 * 3)
    assert work(torch.fft.fft2, 3, 8, 4, dtype=COMPLEX64) == (0, 3 * 5 * 32 * 5)
    assert work(torch.fft.rfft2, 3, 8, 4) == (0, 3 * 5 * 32 * 5 // 2)
    assert work(lambda x: torch.fft.irfft(x, n=8), 3, 5, dtype=COMPLEX64) == (0, 3 * 5 * 8 * 3 // 2)
    assert work(torch.fft.rfft, 1, 14) == (0, round(2.5 * 14 * log2(14)))
    assert work(torch.fft.fft, 3, 1, dtype=COMPLEX64) == (0, 0)
    assert enter(torch.fft.rfft, 1, 14).notes == [TRANSFORMS]


# Attention


def test_causal_attention_needs_the_pairs_up_to_each_token_and_executes_all() -> None:
    def attend(q: Tensor, keys: int) -> Tensor:
        return F.scaled_dot_product_attention(q, torch.empty(1, 2, keys, 3), torch.empty(1, 2, keys, 5), is_causal=True)

    for queries, keys, pairs in ((4, 4, 1 + 2 + 3 + 4), (4, 2, 1 + 2 + 2 + 2), (2, 4, 1 + 2)):
        ledger = enter(lambda q, keys=keys: attend(q, keys), 1, 2, queries, 3)
        total = ledger.total()
        assert total.macs_executed == total.macs_matmul == 2 * queries * keys * (3 + 5)
        assert total.macs_algorithm == 2 * pairs * (3 + 5)
        assert ledger.notes == [CAUSAL]
    plain = enter(lambda q: F.scaled_dot_product_attention(q, q, q), 1, 2, 4, 3)
    assert plain.total().macs_algorithm == plain.total().macs_executed == 2 * 4 * 4 * 6
    assert plain.notes == []


# A recurrence


def test_no_recurrent_form_is_a_product_of_matrices() -> None:
    q, v, g = (torch.empty(1, 2, 8, width, device="meta") for width in (4, 6, 4))
    for op, forms in OPS.items():
        assert all(form.elementwise for form in forms.values() if form.mode == "recurrent"), op
    for form, kind in (("reference", "macs_elementwise"), ("chunkwise", "macs_matmul")):
        function = operator("gla", form)
        total = Ledger(Call(lambda x, function=function: function(x, x, v, g))).enter(q).total()
        assert total.macs_executed == getattr(total, kind) >= 2 * 8 * 2 * 4 * 6


# Operations that were unknown


def sampled(x: Tensor, mode: str = "bilinear") -> Tensor:
    return F.grid_sample(x, torch.empty(1, 5, 6, 2), mode=mode, align_corners=False)


def bilinear(x: Tensor) -> Tensor:
    return F.bilinear(x, torch.empty(2, 4), torch.empty(5, 3, 4))


@pytest.mark.parametrize(
    ("function", "shape", "macs", "flops"),
    [
        (lambda x: torch.addbmm(torch.empty(2, 2), x, x.mT), (4, 2, 3), 4 * 2 * 3 * 2, 0),
        (bilinear, (2, 3), 2 * 5 * 3 * 4 + 2 * 5 * 4, 0),  # with the weight, then with the second input
        (lambda x: torch.cdist(x, x), (2, 30, 3), 2 * 30 * 30 * (3 + 2), 2 * 2 * 180 + 180 + 2 * 1800),
        (lambda x: torch.cdist(x, x), (2, 5, 3), 0, 2 * 25 * (3 * 3 + 1)),
        (lambda x: torch.cdist(x, x, p=1), (2, 5, 3), 0, 2 * 25 * 3 * 3),
        (lambda x: torch.zeros(2, 3).scatter_add(1, torch.zeros(2, 3, dtype=LONG), x), (2, 3), 0, 6),
        (lambda x: torch.zeros(9, 3).index_add(0, torch.zeros(2, dtype=LONG), x), (2, 3), 0, 6),
        (lambda x: torch.zeros(9, 3).index_put((torch.zeros(2, dtype=LONG),), x, accumulate=True), (2, 3), 0, 6),
        (lambda x: torch.zeros(9, 3).index_put((torch.zeros(2, dtype=LONG),), x), (2, 3), 0, 0),
        (lambda x: torch.zeros(4, 3).scatter_reduce(0, torch.zeros(2, 3, dtype=LONG), x, "amax"), (2, 3), 0, 6),
        (lambda x: torch.zeros(4, 3).scatter_reduce(0, torch.zeros(2, 3, dtype=LONG), x, "mean"), (2, 3), 0, 6 + 12),
        (lambda x: torch.unsafe_chunk(x, 2, 1), (2, 4), 0, 0),
        (sampled, (1, 2, 8, 8), 0, 8 * 2 * 30),
        (lambda x: sampled(x, mode="bicubic"), (1, 2, 8, 8), 0, 32 * 2 * 30),
        (lambda x: sampled(x, mode="nearest"), (1, 2, 8, 8), 0, 0),
        # Half of 8 px: tents of 4 px reach 3, 4, 4 and 3 of them; 8 rows, and then 4 columns.
        (lambda x: F.interpolate(x, (4, 4), mode="bilinear", antialias=True), (1, 2, 8, 8), 0, 2 * 2 * 14 * (8 + 4)),
        # Cubics of 8 px reach 5, 7, 7 and 5.
        (lambda x: F.interpolate(x, (4, 4), mode="bicubic", antialias=True), (1, 2, 8, 8), 0, 2 * 2 * 24 * (8 + 4)),
    ],
)
def test_operations_by_hand(function: Callable[[Tensor], Any], shape: tuple[int, ...], macs: int, flops: int) -> None:
    assert work(function, *shape) == (macs, flops)


def test_a_product_of_integers_is_one_of_macs() -> None:
    other = torch.empty(8, 16, dtype=torch.int8, device="meta")
    assert work(lambda x: torch._int_mm(x, other), 32, 8, dtype=torch.int8) == (32 * 8 * 16, 0)


def test_an_antialiased_resize_has_the_taps_that_it_has() -> None:
    """A bright pixel shows in each result that it has a weight in."""
    for mode, taps in (("bilinear", 14), ("bicubic", 24)):
        line = torch.eye(8)[:, None, None]  # 8 images, one bright pixel in each
        found = F.interpolate(line, (1, 4), mode=mode, antialias=True)
        most = int((found != 0).sum())
        assert taps - 8 <= most <= taps  # a tap at the end of a kernel may weigh nothing


def test_cells_of_lstm_and_gru_fused_or_not() -> None:
    for kind, gates, each in ((nn.LSTMCell, 4, 13), (nn.GRUCell, 3, 10)):
        with torch.device("meta"):
            cell = kind(4, 5)
        total = (ledger := Ledger(cell).enter(torch.empty(2, 4, device="meta"))).total()
        assert ledger.unknown == {}
        assert (total.macs_matmul, total.flops_elementwise) == (2 * gates * 5 * (4 + 5), 2 * 5 * each)
    fused, bias = torch.ops.aten._thnn_fused_lstm_cell, torch.empty(20, device="meta")
    assert work(lambda x: fused(x, x, torch.empty(2, 5), bias, bias), 2, 20) == (0, 2 * 5 * 13)


def test_what_has_no_formula_stays_unknown() -> None:
    assert set(enter(torch.linalg.svd, 5, 3).unknown) == {"aten._linalg_svd"}


# A formula of a user's own


@torch.library.custom_op("vbench_ledger::mix", mutates_args=())
def mix(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@mix.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@pytest.fixture
def formula() -> Iterator[Callable[..., None]]:
    """Registers a formula for `mix`, or for another operation, and takes it away again."""
    before = dict(flop_registry)

    def register(function: Callable[..., Any], packet: Any = torch.ops.vbench_ledger.mix) -> None:
        register_flop_formula(packet)(function)

    yield register
    for packet in [packet for packet in flop_registry if packet not in before]:
        del flop_registry[packet]


def mixed(x: Tensor) -> Any:
    return mix(x, torch.empty(3, 4)) + 1


def test_a_registered_formula_is_asked(formula: Callable[..., None]) -> None:
    assert set(enter(mixed, 2, 3).unknown) == {"vbench_ledger.mix"}
    formula(lambda x, weight, out_shape=None: 2 * x[0] * x[1] * weight[1] + 1)
    ledger = enter(mixed, 2, 3)
    total = ledger.total()
    assert ledger.unknown == {}
    assert ledger.coverage == 1.0
    assert (total.macs_matmul, total.macs_algorithm) == (2 * 3 * 4, 2 * 3 * 4)
    assert total.flops_elementwise == 1 + 8  # the odd one, and the sum
    assert total.bytes_min == 4 * (6 + 12 + 8)
    assert ledger.registered == {"vbench_ledger.mix": 49}
    assert ledger.notes == ["vbench_ledger.mix: 49 FLOPs by the formula registered for it"]
    assert ledger.total(Kind.OPERATOR).calls == 1


def test_our_tables_come_before_a_registered_formula(formula: Callable[..., None]) -> None:
    for packet in (torch.ops.aten.add, torch.ops.aten.linear, torch.ops.aten.cat):
        formula(lambda *_, **__: 10**9, packet)
    assert work(lambda x: torch.cat([F.linear(x + 1, torch.empty(4, 3))]), 2, 3) == (2 * 3 * 4, 6)
    formula(lambda x, *_, **__: 2 * x[0], torch.ops.aten._linalg_svd)  # in no table of ours
    assert enter(torch.linalg.svd, 5, 3).total().macs_matmul == 5


def test_a_formula_that_fails_is_named(formula: Callable[..., None]) -> None:
    formula(lambda x: 1)
    with pytest.raises(ValueError, match=r"formula registered for vbench_ledger.mix failed: TypeError: "):
        enter(mixed, 2, 3)


def test_a_formula_below_zero_is_refused(formula: Callable[..., None]) -> None:
    formula(lambda *_, **__: -2)
    with pytest.raises(ValueError, match=r"gave -2; it must give 0 or more"):
        enter(mixed, 2, 3)


# Models


class Pooling(nn.Module):
    """No product, and no weight."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2).mean((2, 3))


class Looking(nn.Module):
    """No arithmetic at all."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0, 0]


class Mixing(nn.Module):
    """An operation of a user's own, with a formula of its author's."""

    def forward(self, x: Tensor) -> Any:
        return mix(x[0, 0], x[0, 1])


def cell(model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr("vbench.models.baselines.timm_model", lambda *_, **__: model())
    return Case("timm/strange", 8, 8, "parallel", None, 1, "float32", "cpu")


@pytest.mark.parametrize(("model", "flops"), [(Pooling, 3 * 16 * 4 + 3 * 16), (Looking, 0)])
def test_a_model_without_products_counts_zero(
    model: type[nn.Module], flops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cell(model, monkeypatch)
    found = dict(counting.count_in_full({"case": asdict(case), "depth": 2}))
    work = found["work"]
    assert (work["macs"], work["macs_executed"], work["bytes_min"], work["params"]) == (0, 0, 0, 0)
    assert work["flops_elementwise"] == work["flops_total"] == flops
    assert work["intensity"] is None
    assert found["second_count"]["agree"] in (True, None)
    shown = {"model": "strange", "height": 8, "width": 8, "modules": found["modules"]}
    assert modules.to_rich(shown).row_count == len(found["modules"]) + 1


def test_a_cell_without_operations_is_written_and_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fields = asdict(cell(Looking, monkeypatch))
    bare = CountedCell(
        "strange 8 parallel", {key: fields[key] for key in ("model", "height", "width")}, {"macs": 0}, {}, {}
    )
    file = tmp_path / "counters.json"
    file.write_text(to_text(Baseline({}, (bare,), {})))
    assert read(file).cells == (bare,)


def test_fvcore_is_not_asked_about_a_registered_formula(
    formula: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    formula(lambda x, weight, out_shape=None: 2 * x[0] * x[1] * weight[1])
    found = dict(counting.count_in_full({"case": asdict(cell(Mixing, monkeypatch)), "depth": None}))
    assert found["work"]["macs_matmul"] == 8 * 8 * 8
    assert found["second_count"] == not_counted("fvcore does not know vbench_ledger.mix")


def test_notes_are_said_once_or_with_their_size() -> None:
    one = {"height": 32, "width": 32, "notes": ["a", "b"]}
    other = {"height": 64, "width": 32, "notes": ["a", "c"]}
    assert notes([one]) == ["a", "b"]
    assert notes([one, other]) == ["a", "32x32: b", "64x32: c"]
    assert notes([{**one, "notes": []}]) == []
