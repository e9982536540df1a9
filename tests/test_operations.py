"""Operations of torch and torchvision that vision models use, each held to a figure computed by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from packaging.version import Version
from test_flops import Call
from torch import Tensor, nn
from users_nets.base import Base

from vbench.flops import count as counting
from vbench.flops import tables
from vbench.flops.formulas import FORMULAS
from vbench.flops.ledger import ALGEBRA, BOXES, DRAWN, INTEGERS, Ledger
from vbench.flops.products import BESIDE, OF_TORCH, PRODUCTS
from vbench.plan import Case

LONG = torch.long


def enter(function: Callable[[Tensor], Any], *shape: int, device: str = "meta") -> Ledger:
    with torch.device(device):
        return Ledger(Call(function)).enter(torch.rand(shape))


def work(function: Callable[[Tensor], Any], *shape: int, device: str = "meta") -> tuple[int, int]:
    """MACs and pointwise FLOPs, of operations that are all known."""
    ledger = enter(function, *shape, device=device)
    assert ledger.unknown == {}
    total = ledger.total()
    return total.macs_executed, total.flops_elementwise


def integers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=LONG)


@pytest.mark.parametrize(
    "function",
    [
        # views
        lambda x: torch.view_as_real(torch.view_as_complex(torch.stack([x, x], -1))),
        lambda x: x.as_strided((3, 2), (1, 3)),
        lambda x: x.unfold(1, 2, 1),
        lambda x: x.movedim(0, 1).unflatten(0, (3, 1)).swapaxes(0, 1).mT,
        lambda x: torch.tensor_split(x, 2, 1),
        lambda x: x.diagonal(),
        # moved
        lambda x: x.roll(1, 0),
        lambda x: x.flip(0),
        lambda x: x.rot90(),
        lambda x: (x.tril(), x.triu()),
        lambda x: x.repeat_interleave(2, 0),
        lambda x: (x.repeat(2, 1), x.tile(2), torch.hstack([x, x])),
        lambda x: x.take(integers(4)),
        lambda x: x.take_along_dim(integers(2, 1), 1),
        lambda x: x.masked_fill(x > 0, 0.0),
        torch.diag_embed,
        lambda x: torch.block_diag(x, x),
        lambda x: x.scatter(1, integers(2, 1), 1.0),
        lambda x: x.index_fill(0, integers(1), 1.0),
        lambda x: torch.slice_scatter(x, x[:, :1], 1, 0, 1),
        lambda x: torch.select_scatter(x, x[0], 0, 1),
        lambda x: torch.diagonal_scatter(x, x[0, :2]),
        lambda x: F.pixel_shuffle(x.reshape(1, 6, 1, 1)[:, :4], 2),
        lambda x: F.pixel_unshuffle(x.reshape(1, 1, 2, 3)[..., :2], 2),
        lambda x: F.channel_shuffle(x.reshape(1, 6, 1, 1), 2),
        lambda x: F.unfold(x[None, None], 2),
        lambda x: F.pad(x[None, None], (1, 1, 1, 1), "constant", 1.0),
        lambda x: F.pad(x[None, None], (1, 1, 1, 1), "reflect"),
        lambda x: F.pad(x[None, None], (1, 1, 1, 1), "replicate"),
        lambda x: F.pad(x[None, None], (1, 1, 1, 1), "circular"),
        lambda x: F.pad(x[None, None, None], (1, 1, 1, 1, 0, 0), "reflect"),
        lambda x: F.pad(x[None, None, None], (1, 1, 1, 1, 1, 1), "replicate"),
        lambda x: F.interpolate(x[None], 6, mode="nearest"),
        lambda x: F.interpolate(x[None, None, None], (2, 4, 6), mode="nearest"),
        lambda x: [F.interpolate(y, scale_factor=2, mode="nearest-exact") for y in (x[None], x[None, None])],
        lambda x: F.interpolate(x[None, None, None], scale_factor=2, mode="nearest-exact"),
        lambda x: F.max_unpool2d(x[None, None], integers(1, 1, 2, 3), 2),
        lambda x: F.embedding(integers(2, 3), x),
        lambda x: (torch.tril_indices(3, 3), torch.triu_indices(3, 3), torch.linspace(0, 1, 4), torch.eye(3)),
        lambda x: torch.empty_permuted((2, 3), (1, 0)),
        # compared, selected
        lambda x: (x.sort(), x.topk(2), x.argsort(), x.kthvalue(1), x.median(1), x.mode(1)),
        lambda x: (torch.searchsorted(x, x), torch.bucketize(x, x[0])),
        lambda x: (x.nan_to_num(), x.isnan(), x.isneginf(), (x > 0).logical_not()),
        lambda x: (torch.isin(x, x), x.signbit(), x.heaviside(x), x.count_nonzero()),
        lambda x: (x.argmax() ^ x.argmin()) << 1,
        # random numbers
        lambda x: (torch.rand(2), torch.rand_like(x), torch.randn(2), torch.randn_like(x), torch.randperm(3)),
        lambda x: (torch.randint(3, (2,)), torch.randint_like(x, 3), torch.bernoulli(x), x.multinomial(2)),
        lambda x: (x.clone().uniform_(), x.clone().normal_(), x.clone().exponential_(), torch.normal(0.0, 1.0, (2,))),
    ],
)
def test_no_arithmetic(function: Callable[[Tensor], Any]) -> None:
    assert work(function, 2, 3) == (0, 0)


def batch_norm(x: Tensor, *, training: bool) -> Tensor:
    return F.batch_norm(x, torch.ones(3), torch.ones(3), training=training)


def solved(x: Tensor) -> Tensor:
    return torch.linalg.solve(x, torch.empty(3, 2))


def triangular(x: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(x, torch.empty(3, 2), upper=True)


def bags(x: Tensor, **options: Any) -> Tensor:
    return F.embedding_bag(integers(2, 3), x, **options)


@pytest.mark.parametrize(
    ("function", "shape", "macs", "flops"),
    [
        # a function, or an operation, of each element
        *((function, (2, 3), 0, 6) for function in (torch.erf, torch.erfc, torch.erfinv, torch.acos, torch.atanh)),
        *((function, (2, 3), 0, 6) for function in (torch.sinc, torch.lgamma, torch.logit, torch.frac, torch.i0)),
        *((function, (2, 3), 0, 6) for function in (F.celu, F.selu, F.elu, F.hardshrink, F.softshrink, F.logsigmoid)),
        *((function, (2, 3), 0, 6) for function in (F.relu6, F.hardsigmoid, F.softplus, torch.special.ndtri)),
        *((lambda x, f=f: f(x, x), (2, 3), 0, 6) for f in (torch.hypot, torch.atan2, torch.fmax, torch.copysign)),
        (lambda x: F.threshold(x, 0.1, 0.0), (2, 3), 0, 6),
        (lambda x: F.prelu(x, torch.empty(3)), (2, 3), 0, 6),
        (F.rrelu, (2, 3), 0, 6),
        (F.hardswish, (2, 3), 0, 2 * 6),
        (F.silu, (2, 3), 0, 2 * 6),
        (F.glu, (2, 4), 0, 2 * 4),
        (F.mish, (2, 3), 0, 3 * 6),
        (F.tanhshrink, (2, 3), 0, 2 * 6),
        (F.softsign, (2, 3), 0, 3 * 6),
        (lambda x: torch.lerp(x, x, 0.5), (2, 3), 0, 3 * 6),
        (lambda x: torch.addcmul(x, x, x), (2, 3), 0, 2 * 6),
        (lambda x: torch.xlogy(x, x), (2, 3), 0, 2 * 6),
        (lambda x: torch.logaddexp(x, x), (2, 3), 0, 4 * 6),
        (lambda x: F.dropout(x, 0.5, training=True), (2, 3), 0, 2 * 6),
        (lambda x: torch.linalg.cross(x, x), (2, 3), 0, 3 * 6),
        (lambda x: torch.outer(x, x), (3,), 0, 9),
        (lambda x: torch.addr(torch.empty(3, 3), x, x), (3,), 0, 2 * 9),
        (lambda x: torch.hann_window(8), (1,), 0, 3 * 8),
        # softmax and norms
        (lambda x: F.softmin(x, 1), (2, 3), 0, 6 * 6),
        (lambda x: F.gumbel_softmax(x, dim=1), (2, 3), 0, 6 * 4 + 6 * 5),  # -log(drawn), the sum, the temperature
        (lambda x: F.rms_norm(x, (3,)), (2, 3), 0, 3 * 6 + 2 * 2),  # square, mean, product; a sum and a root a row
        (lambda x: F.layer_norm(x, (3,)), (2, 3), 0, 7 * 6),
        (lambda x: F.group_norm(x, 2), (2, 4, 5), 0, 7 * 40),
        (F.instance_norm, (2, 4, 5), 0, 7 * 40),
        (lambda x: batch_norm(x, training=False), (2, 3, 4), 0, 4 * 24),
        (lambda x: batch_norm(x, training=True), (2, 3, 4), 0, 7 * 24),
        (lambda x: F.normalize(x, dim=1), (2, 3), 0, 2 * 6 + 2 + 6),
        (lambda x: torch._weight_norm(x, torch.empty(2, 1), 0), (2, 3), 0, 4 * 6),
        # sums and orders
        (lambda x: x.nansum(), (2, 3), 0, 6),
        (lambda x: x.aminmax(), (2, 3), 0, 2 * 6),
        (lambda x: x.norm(), (2, 3), 0, 2 * 6),
        (lambda x: torch.dist(x, x), (2, 3), 0, 3 * 6),
        (lambda x: x.renorm(2, 0, 1.0), (2, 3), 0, 3 * 6),
        (lambda x: x.var(), (2, 3), 0, 4 * 6),
        (lambda x: x.logsumexp(1), (2, 3), 0, 4 * 6),
        (lambda x: x.logcumsumexp(1), (2, 3), 0, 4 * 6),
        (lambda x: (x.cummax(1), x.cummin(1), x.cumprod(1)), (2, 3), 0, 3 * 6),
        (lambda x: x.trace(), (3, 4), 0, 3),
        (lambda x: x.histc(4), (2, 3), 0, 3 * 6),
        (lambda x: x.index_reduce(0, integers(2), x, "prod"), (2, 3), 0, 6),
        (lambda x: x.scatter(1, integers(2, 1), x, reduce="add"), (2, 3), 0, 2),
        (lambda x: x.put(integers(4), x.flatten()[:4], accumulate=True), (2, 3), 0, 4),
        (lambda x: F.fold(x, (3, 3), 2), (1, 4, 4), 0, 16),
        (lambda x: bags(x, mode="sum"), (5, 4), 0, 6 * 4),
        (lambda x: bags(x, mode="mean"), (5, 4), 0, 6 * 4 + 2 * 4),
        (lambda x: bags(x, mode="sum", per_sample_weights=torch.empty(2, 3)), (5, 4), 0, 2 * 6 * 4),
        # windows; those of 5 to 3 are of 2, 3 and 2
        (lambda x: F.adaptive_avg_pool1d(x, 3), (1, 2, 5), 0, 2 * 7),
        (lambda x: F.adaptive_avg_pool2d(x, 3), (1, 2, 5, 5), 0, 2 * 7 * 7),
        (lambda x: F.adaptive_avg_pool3d(x, 3), (1, 2, 5, 5, 6), 0, 2 * 7 * 7 * 6),
        (lambda x: F.adaptive_max_pool1d(x, 3), (1, 2, 5), 0, 2 * 7),
        (lambda x: F.adaptive_max_pool2d(x, 3), (1, 2, 5, 5), 0, 2 * 7 * 7),
        (lambda x: F.adaptive_max_pool3d(x, 3), (1, 2, 5, 5, 6), 0, 2 * 7 * 7 * 6),
        (lambda x: F.max_pool1d(x, 2), (1, 2, 8), 0, 2 * 8),
        (lambda x: F.max_pool2d(x, 2, return_indices=True), (1, 2, 8, 8), 0, 4 * 32),
        (lambda x: F.max_pool3d(x, 2), (1, 2, 4, 4, 4), 0, 8 * 16),
        (lambda x: F.avg_pool1d(x, 2), (1, 2, 8), 0, 2 * 8),
        (lambda x: F.avg_pool3d(x, 2), (1, 2, 4, 4, 4), 0, 8 * 16),
        (lambda x: F.fractional_max_pool2d(x, 2, output_size=3), (1, 2, 8, 8), 0, 4 * 18),
        # between pixels
        (lambda x: F.interpolate(x, 8, mode="linear"), (1, 2, 4), 0, 4 * 16),
        (lambda x: F.interpolate(x, 8, mode="bilinear"), (1, 2, 4, 4), 0, 8 * 128),
        (lambda x: F.interpolate(x, 8, mode="bicubic"), (1, 2, 4, 4), 0, 32 * 128),
        (lambda x: F.interpolate(x, 4, mode="trilinear"), (1, 1, 2, 2, 2), 0, 16 * 64),
        (lambda x: F.affine_grid(x, [2, 1, 4, 5], align_corners=False), (2, 2, 3), 2 * 4 * 5 * 2 * 3, 0),
        (lambda x: F.affine_grid(x, [2, 1, 3, 4, 5], align_corners=False), (2, 3, 4), 2 * 3 * 4 * 5 * 3 * 4, 0),
        # products
        (lambda x: torch.mv(x, torch.empty(3)), (2, 3), 6, 0),
        (lambda x: torch.dot(x, x), (3,), 3, 0),
        (lambda x: torch.einsum("bchw,dc->bdhw", x, torch.empty(4, 3)), (1, 3, 2, 2), 4 * 3 * 4, 0),
        (lambda x: torch.einsum("bn,bm->bnm", x, x), (2, 3), 0, 2 * 9),
        (lambda x: F.conv2d(x, torch.empty(4, 3, 3, 3), padding="same"), (1, 3, 8, 8), 64 * 4 * 27, 0),
        (lambda x: F.conv_transpose2d(x, torch.empty(3, 4, 2, 2), stride=2), (1, 3, 4, 4), 16 * 3 * 16, 0),
        (lambda x: torch.conv_tbc(x, torch.empty(3, 4, 5), torch.empty(5), 1), (6, 2, 4), 6 * 2 * 5 * 12, 0),
        (lambda x: torch.linalg.matrix_power(x, 3), (3, 3), 2 * 27, 0),
        # linear algebra: 2/3 n³, n³/3, n² a right-hand side and triangle
        (torch.linalg.lu_factor, (2, 3, 3), 0, 2 * 18),
        (torch.linalg.det, (3, 3), 0, 18 + 3),
        (torch.linalg.inv, (3, 3), 0, 54),
        (torch.linalg.cholesky, (3, 3), 0, 9),
        (solved, (3, 3), 0, 18 + 2 * 9 * 2),
        (triangular, (3, 3), 0, 9 * 2),
        (lambda x: torch.cholesky_solve(torch.empty(3, 2), x), (3, 3), 0, 2 * 9 * 2),
        (torch.linalg.qr, (4, 3), 0, 54 + 54),
        (lambda x: torch.linalg.qr(x, "r"), (4, 3), 0, 54),
        (lambda x: torch.linalg.householder_product(x, torch.empty(3)), (4, 3), 0, 54),
        (lambda x: torch.ormqr(x, torch.empty(3), torch.empty(4, 2)), (4, 3), 0, 4 * 4 * 2 * 3 - 2 * 2 * 9),
        # losses
        (lambda x: F.mse_loss(x, x), (2, 3), 0, 3 * 6),
        (lambda x: F.mse_loss(x, x, reduction="none"), (2, 3), 0, 2 * 6),
        (lambda x: F.smooth_l1_loss(x, x), (2, 3), 0, 5 * 6),
        (lambda x: F.cross_entropy(x, integers(2)), (2, 3), 0, 5 * 6 + 2),
        (lambda x: F.binary_cross_entropy_with_logits(x, x), (2, 3), 0, 8 * 6),
    ],
)
def test_by_hand(function: Callable[[Tensor], Any], shape: tuple[int, ...], macs: int, flops: int) -> None:
    assert work(function, *shape) == (macs, flops)


# Of torchvision


def test_a_deformable_convolution_is_a_convolution_and_its_taps() -> None:
    ops = pytest.importorskip("torchvision").ops
    weight, offset = torch.empty(8, 2, 3, 3, device="meta"), torch.empty(1, 18, 4, 4, device="meta")
    taps = 4 * 9 * 16  # of 4 channels, at 9 places of a filter, for 16 values
    macs = 8 * 16 * 2 * 9
    assert work(lambda x: ops.deform_conv2d(x, offset, weight), 1, 4, 6, 6) == (macs, 8 * taps)
    mask = torch.empty(1, 9, 4, 4, device="meta")
    assert work(lambda x: ops.deform_conv2d(x, offset, weight, mask=mask), 1, 4, 6, 6) == (macs, 9 * taps)


def test_regions_and_boxes() -> None:
    ops = pytest.importorskip("torchvision").ops
    regions = torch.zeros(3, 5, device="meta")
    four = 3 * 2 * 4 * 4  # samples of 4 bins of 2 channels of 3 regions
    assert work(lambda x: ops.roi_align(x, regions, 2, sampling_ratio=2), 1, 2, 8, 8) == (0, four * 9)
    unknown = enter(lambda x: ops.roi_align(x, regions, 2), 1, 2, 8, 8).unknown
    assert set(unknown) == {"torchvision.roi_align"}  # its samples follow from the size of a region
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [9, 9, 12, 12], [0, 0, 1, 1]])
    ledger = enter(lambda x: ops.nms(boxes, x, 0.5), 4, device="cpu")
    assert (ledger.total().flops_elementwise, ledger.notes) == (12 * 6, [BOXES])


# Of the CPU alone: a real pass takes shorter ways


def test_a_recurrent_layer_counts_the_same_on_a_real_pass() -> None:
    for kind, gates in ((nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)):
        for options in ({}, {"bidirectional": True, "num_layers": 2}):
            torch.manual_seed(0)
            layer = kind(6, 5, **options)
            image = torch.rand(7, 2, 6)
            real = Ledger(layer).enter(image)
            shaped = Ledger(layer.to("meta")).enter(image.to("meta"))
            assert real.unknown == shaped.unknown == {}
            inputs = 6 + 5 if not options else 2 * (6 + 5) + 2 * (10 + 5)
            assert real.total().macs_matmul == shaped.total().macs_matmul == 14 * gates * 5 * inputs
            assert real.total().flops_elementwise == shaped.total().flops_elementwise


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_layer_of_a_transformer_counts_the_same_on_a_real_pass(activation: str, *, norm_first: bool) -> None:
    """torch runs a whole layer as one operation there, in 256 tokens of the case of lartpang/MethodsCmp#1."""
    options = {"activation": activation, "norm_first": norm_first, "batch_first": True}
    layer = nn.TransformerEncoderLayer(16, 4, 32, **options).eval()
    image = torch.rand(1, 256, 16)
    real = Ledger(Call(layer.forward)).enter(image)  # a layer with hooks does not
    assert {op for _, op, _ in real.entries} == {"aten._transformer_encoder_layer_fwd"}
    shaped = Ledger(layer.to("meta")).enter(image.to("meta"))
    assert real.unknown == shaped.unknown == {}
    macs = 256 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 256 * 256 * 16
    assert real.total().macs_matmul == shaped.total().macs_matmul == macs
    assert real.total().flops_elementwise == shaped.total().flops_elementwise


def test_attention_of_several_heads_counts_the_same_on_a_real_pass() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.attention(x, x, x, need_weights=False)[0]

    model, image = Alone().eval(), torch.rand(2, 10, 16)
    real = Ledger(model).enter(image)
    assert {op for _, op, _ in real.entries} == {"aten._native_multi_head_attention"}
    shaped = Ledger(model.to("meta")).enter(image.to("meta"))
    macs = 20 * 4 * 16 * 16 + 2 * 2 * 10 * 10 * 16
    assert real.total().macs_matmul == shaped.total().macs_matmul == macs
    softmax, biases = 20 * 16 + 4 * 20 * 10 * 5, 20 * 3 * 16
    assert real.total().flops_elementwise == softmax
    assert shaped.total().flops_elementwise == softmax + biases  # added apart from the product


# What is said


def test_integers_are_no_floating_point_numbers() -> None:
    def places(x: Tensor) -> Any:
        rows = torch.arange(6, device=x.device)
        return (rows[:, None] - rows[None]) * 2 + 1

    ledger = enter(places, 1)
    assert (ledger.total().flops_total, ledger.unknown, ledger.notes) == (0, {}, [INTEGERS])
    assert work(lambda x: places(x) * 0.5, 1) == (0, 36)
    assert work(lambda x: (x > 0).sum(), 2, 3) == (0, 0)
    assert enter(lambda x: x + 1, 2, 3).notes == []


def test_a_convention_is_named_where_it_is_used() -> None:
    assert enter(lambda x: x + torch.rand_like(x), 2, 3).notes == [DRAWN]
    assert enter(lambda x: x.uniform_(), 2, 3).notes == [DRAWN]
    assert enter(torch.linalg.inv, 3, 3).notes == [ALGEBRA]


def test_what_is_iterated_until_it_is_good_is_unknown() -> None:
    for function in (torch.linalg.svdvals, torch.linalg.eigvals, torch.linalg.eigvalsh, torch.matrix_exp):
        assert len(enter(function, 4, 4).unknown) >= 1


def test_the_marks_of_a_profiler_are_no_work() -> None:
    def marked(x: Tensor) -> Tensor:
        with torch.profiler.record_function("a part"):
            return x + 1

    assert work(marked, 2, 3) == (0, 6)


@pytest.mark.skipif(Version(torch.__version__) < Version("2.15"), reason="an older torch lacks it")
def test_a_scaled_product_with_a_sum_has_the_work_of_the_product() -> None:
    one = torch.ones((), device="meta")
    weight = torch.empty(16, 64, device="meta", dtype=torch.float8_e4m3fn).T

    def product(x: Tensor) -> Tensor:
        base = torch.empty(32, 16, device="meta", dtype=torch.bfloat16)
        scaled = x.to(torch.float8_e4m3fn)
        return torch.ops.aten._scaled_addmm(base, scaled, weight, [one], [0], [0], [one], [0], [0])

    assert work(product, 32, 64)[0] == 32 * 64 * 16


# The tables

TABLES = (
    *(tables.PER_OUTPUT, tables.PER_INPUT, tables.WINDOWS, tables.VIEWS, tables.MOVES, tables.RANDOM),
    *(PRODUCTS, FORMULAS),
)
NAMES = set().union(*TABLES)
TODAY = pytest.mark.skipif(Version(torch.__version__) < Version("2.14"), reason="an older torch lacks some operations")


def test_no_operation_is_in_two_tables() -> None:
    assert sum(map(len, TABLES)) == len(NAMES)
    assert set(BESIDE) <= set(PRODUCTS)
    assert set(tables.LOSSES) <= set(FORMULAS)


def explicit() -> Iterator[str]:
    """The operations of torch that it does not make of others, without the underscore of in-place ones."""
    of_others: dict[str, bool] = {}
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        base = name.partition(".")[0].removesuffix("_")
        if namespace == "aten" and not name.endswith("out"):
            made = torch._C._dispatch_has_kernel_for_dispatch_key(full, "CompositeImplicitAutograd")
            of_others[base] = of_others.get(base, True) and made
    yield from (base for base, made in of_others.items() if not made)


OF_TORCHVISION = {"deform_conv2d", "nms", "ps_roi_align", "roi_align"}
SINCE = {"2.15": {"_scaled_addmm"}}  # operations that an older torch lacks


@TODAY
def test_every_name_is_one_of_torch() -> None:
    known = {full.partition("::")[2].partition(".")[0].removesuffix("_") for full in _every_name()}
    named = {name for name in NAMES | tables.MADE_OF_PRODUCTS if not name.endswith("_copy")}
    newer = {name for first, names in SINCE.items() if Version(torch.__version__) < Version(first) for name in names}
    assert named - known == OF_TORCHVISION | newer


def _every_name() -> list[str]:
    return [full for full in torch._C._dispatch_get_all_op_names() if full.startswith("aten::")]


# Operations that no forward pass of a vision model has: of other formats of tensors, of other devices, of training.
ELSEWHERE = (
    *("backward", "_foreach_", "_fused_adagrad", "_fused_adam", "_fused_sgd", "_amp_", "grad", "optim"),
    *("sparse", "coo", "csr", "_spdiags", "_spsolve", "hspmm", "sspaddmm", "coalesce", "to_dense", "_nnz", "dense_dim"),
    *("nested", "jagged", "padded_tensor", "_padded", "values", "^indices$", "_indices$"),
    *("mkldnn", "cudnn", "miopen", "mps", "vulkan", "xnnpack", "cslt", "nnpack", "^_triton", "fbgemm"),
    *("quantiz", "^q_", "qscheme", "qparams", "_observer", "int4", "dyn_quant", "^_make_per_", "^_empty_"),
    *("_ctc_loss", "multi_margin", "multilabel", "^_test_", "^_foobar", "dirichlet", "_philox", "_dim[IV]$"),
    *(
        "_jvp$",
        "_gather_stats",
        "_update_stats",
        "_fill_mem_eff",
        "_flash_attention",
        "_fused_sdp_choice",
        "_histogramdd",
    ),
    *("from_file", "record_stream", "shallow_copy", "hash_tensor", "_dep_token", "_same_feature_meta", "slice_inverse"),
    *("indices_copy", "_fused_moving_avg_obs_fq_helper_functional", "_compute_linear_combination"),
)
# What iterates until the numbers are good enough. It is named as unknown.
UNKNOWN = {
    *("_linalg_eigh", "_linalg_eigvals", "_linalg_svd", "linalg_eig", "linalg_lstsq", "linalg_matrix_exp"),
    *("linalg_matrix_sqrth", "linalg_pinv", "linalg_polar"),
}


@TODAY
def test_the_tables_have_the_operations_of_forward_passes() -> None:
    of_torch = {str(packet).partition(".")[2] for packet in OF_TORCH}
    lacking = {name for name in explicit() if not any(re.search(each, name) for each in ELSEWHERE)}
    assert {name for name in lacking - NAMES - of_torch if "_polynomial_" not in name} == UNKNOWN


# Models whose operations no table had: views of complex numbers (GFNet, FNO), a table resized at run time
# (facebookresearch/dinov2), a random mask (MAE), a normed weight; and one without products (sovrasov/flops-counter
# issues 48 and 84)


class Views(Base):
    def body(self, x: Tensor) -> Tensor:
        pair = torch.view_as_complex(torch.stack([x, x], -1))
        return torch.view_as_real(pair)[..., 0]


class Antialias(Base):
    def body(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True)


class Mask(Base):
    def body(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        keep = torch.argsort(torch.rand(t.shape[:2], device=x.device), 1)[:, : t.shape[1] // 4]
        return torch.gather(t, 1, keep[..., None].expand(-1, -1, t.shape[2])).mean(1)[:, :, None, None]


class Weight(Base):
    def __init__(self) -> None:
        super().__init__()
        self.c = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3, padding=1))

    def body(self, x: Tensor) -> Tensor:
        return self.c(x)


class Spectral(Base):
    """The largest singular value by a vector on each side, as training has found them."""

    def __init__(self) -> None:
        super().__init__()
        self.c = torch.nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))

    def body(self, x: Tensor) -> Tensor:
        return self.c(x)


class Cayley(Base):
    """An orthogonal weight: (I + A)⁻¹ (I - A) of a skew A."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.Linear(8, 8, bias=False)
        self.c = torch.nn.utils.parametrizations.orthogonal(layer, orthogonal_map="cayley", use_trivialization=False)

    def body(self, x: Tensor) -> Tensor:
        return self.c(x.movedim(1, -1)).movedim(-1, 1)


class Whitening(Base):
    """Channels made independent: by the Cholesky factor of their covariance."""

    def body(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)
        factor = torch.linalg.cholesky(rows @ rows.mT / 256)
        return torch.linalg.solve_triangular(factor, rows, upper=False).reshape(x.shape)


class Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 16).flatten(1)[:, :10]


PLACES, MEAN = 256, 8 * 256


@pytest.mark.parametrize(
    ("model", "macs", "flops"),
    [
        (Views, 0, MEAN),
        (Antialias, 0, 2 * 8 * 30 * (16 + 8) + 8 * 64),  # lines of 16 have 30 taps
        (Mask, 0, 8 * 64 + 8),
        (Weight, PLACES * 576, 4 * 576 + MEAN),
        (Spectral, PLACES * 64 + 64 + 8, 64 + MEAN),  # W v, its product with u, and the quotient
        (Cayley, PLACES * 64, 64 + 2 * 64 + round(2 * 512 / 3) + 2 * 64 * 8 + MEAN),
        (Whitening, 8 * 8 * PLACES, 64 + round(512 / 3) + 64 * PLACES + MEAN),
    ],
)
def test_a_model_whose_operations_no_table_had(
    model: type[nn.Module], macs: int, flops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = count(model, monkeypatch)
    assert work["unknown"] == {}
    assert (work["macs"], work["flops_elementwise"]) == (98_304 + 80 + macs, flops)
    assert work["flops_total"] == 2 * work["macs"] + flops


def test_a_model_without_products(monkeypatch: pytest.MonkeyPatch) -> None:
    work = count(Pooled, monkeypatch)
    assert [work[key] for key in ("macs", "params", "bytes_min", "intensity", "flops_reason")] == [0, 0, 0, None, None]
    assert work["flops_total"] == work["flops_elementwise"] == 48 * 256


def count(model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("vbench.models.baselines.timm_model", lambda *_, **__: model().eval())
    return counting.count(Case("timm/strange", 64, 64, "parallel", None, 1, "float32", "cpu"))


def test_a_table_that_is_resized_at_run_time_is_known() -> None:
    name = "naflexvit_base_patch16_gap"
    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    work = counting.count(Case(f"timm/{name}", 384, 384, "parallel", None, 1, "float32", "cpu"))
    assert (work["unknown"], work["coverage"], work["flops_reason"]) == ({}, 1.0, None)
    assert work["flops_total"] > 2 * work["macs"] > 1e11
