"""The second counter: where it sees all products it agrees or it does not; elsewhere it has no opinion, and says why.

The first five models are those of public reports on fvcore and other counters: fused attention (MzeroMiko/VMamba#296,
NVlabs/MambaVision#21), nn.MultiheadAttention (lartpang/MethodsCmp#1), an LSTM (meta-pytorch/tnt#624), padding="same"
(cli99/flops-profiler#7), a function of autograd (OpenGVLab/VideoMamba#18).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fakes import make_record
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from vbench.flops import count as counting
from vbench.flops.second import _can_multiply, second_count
from vbench.plan import Case
from vbench.reports.work import second_lines
from vbench.results.frame import frame

pytest.importorskip("fvcore")


class Base(nn.Module):
    """A stem of 16 x 16 tokens, 98,304 MACs at 64 px, and a head of 80."""

    def __init__(self, c: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, c, 4, 4), nn.Linear(c, classes)

    def body(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


class Sdpa(Base):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 24), nn.Linear(8, 8)

    def body(self, x: Tensor) -> Tensor:
        q, k, v = (t[:, None] for t in self.qkv(x.flatten(2).transpose(1, 2)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.o(y).transpose(1, 2).reshape(x.shape)


class Encoder(Base):
    def __init__(self) -> None:
        super().__init__(c=16)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2)

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.enc(x.flatten(2).transpose(1, 2))
        return y.transpose(1, 2).reshape(x.shape)


class Lstm(Base):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 4, batch_first=True, bidirectional=True)

    def body(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        y, _ = self.rnn(x.permute(0, 2, 3, 1).reshape(b * h, w, c))
        return y.reshape(b, h, w, c).permute(0, 3, 1, 2)


class Same(Base):
    def __init__(self) -> None:
        super().__init__()
        self.dw = nn.Conv2d(8, 8, 7, groups=8, padding="same")

    def body(self, x: Tensor) -> Tensor:
        return self.dw(x)


class Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.einsum("bchw,dc->bdhw", x, w)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return torch.einsum("bdhw,dc->bchw", g, w), torch.einsum("bdhw,bchw->dc", g, x)


class Function(Base):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8))

    def body(self, x: Tensor) -> Tensor:
        return Mix.apply(x, self.w)


class Gru(Lstm):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 4, batch_first=True, bidirectional=True)


class Batched(Base):
    """`addbmm`, which fvcore lacks."""

    def body(self, x: Tensor) -> Tensor:
        rows = x.flatten(2)
        return torch.addbmm(rows[0], torch.bmm(rows, rows.mT), rows).reshape(x.shape)


class Broadcast(Base):
    """A weight for each of four heads of an image: fvcore takes the batch of the first operand."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 2))

    def body(self, x: Tensor) -> Tensor:
        return (self.w @ x.flatten(2).reshape(1, 4, 2, 256)).reshape(x.shape)


class Einsums(Base):
    """Products of elements, which fvcore takes for half as many MACs."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8))

    def body(self, x: Tensor) -> Tensor:
        for _ in range(100):
            x = torch.einsum("bchw,c->bchw", x, self.w)
        return x


class Complex(Base):
    """A mixing of frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64))

    def body(self, x: Tensor) -> Tensor:
        y = torch.fft.rfft2(x).permute(0, 2, 3, 1) @ self.w
        return torch.fft.irfft2(y.permute(0, 3, 1, 2))


class Vector(Base):
    """A product with a vector, for which fvcore's formula fails."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(256))

    def body(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = x + (x.flatten(2) @ self.w)[..., None, None]
        return x


class Unused(Base):
    """A second head that runs in vain, as auxiliary classifiers do: a trace leaves it out."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Conv2d(8, 8, 3, padding=1)

    def body(self, x: Tensor) -> Tensor:
        self.aux(x)
        return x


@torch.jit.script
def mixed_if_square(x: Tensor, w: Tensor) -> Tensor:
    if x.shape[2] == x.shape[3]:
        return torch.matmul(x.flatten(2).transpose(1, 2), w).transpose(1, 2).reshape(x.shape)
    return x


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 8))

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = mixed_if_square(x, self.w)
        return y


STEM, HEAD = 98_304, 80


@pytest.mark.parametrize(
    ("model", "macs", "unseen"),
    [
        (Sdpa, 1_212_496, "scaled_dot_product_attention"),
        (Encoder, 5_439_648, "_native_multi_head_attention"),
        (Lstm, 196_688, "lstm"),
        (Same, 198_736, "_convolution_mode"),
        (Function, 114_768, "PythonOp.Mix"),
        (Gru, STEM + HEAD + 256 * 2 * 3 * 4 * (8 + 4), "gru"),
        (Batched, STEM + HEAD + 2 * 8 * 8 * 256, "addbmm"),
        (Broadcast, STEM + HEAD + 4 * 2 * 2 * 256, "leaves out the broadcasting of matmul"),
        (Einsums, STEM + HEAD, "counts einsum by its letters"),
        (Complex, STEM + HEAD + 4 * 16 * 9 * 64, "counts a complex product as a real one"),
        (Vector, STEM + HEAD + 4 * 8 * 256, "matmul"),
        (Unused, STEM + HEAD + 256 * 64 * 9, "aux"),
        (Scripted, STEM + HEAD + 256 * 64, "CallFunction"),
    ],
)
def test_it_abstains_from_what_it_cannot_see(
    model: type[nn.Module], macs: int, unseen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = count(model, monkeypatch)
    assert found["work"]["macs"] == found["work"]["macs_matmul"] == macs
    assert found["work"]["unknown"] == {}
    opinion = found["second_count"]
    assert (opinion["macs_fvcore"], opinion["agree"]) == (None, None)
    assert unseen in opinion["reason"]
    assert "counters_disagree" not in frame([make_record(second_count=opinion)]).iloc[0]["flags"]


def case(model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setattr("vbench.models.baselines.timm_model", lambda *_, **__: model().eval())
    return Case("timm/strange", 64, 64, "parallel", None, 1, "float32", "cpu")


def count(model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return dict(counting.count_in_full({"case": asdict(case(model, monkeypatch)), "depth": None}))


class Busy(Base):
    """Operations without products that fvcore has no formula for, a shared module, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.idle, self.norm = nn.Conv2d(8, 8, 1), nn.Linear(8, 8), nn.InstanceNorm2d(8)
        self.register_buffer("table", torch.zeros(4, 8))

    def body(self, x: Tensor) -> Tensor:
        x = self.mix(F.gelu(self.mix(x))) + x
        x = F.hardswish(F.pad(x, (1, 1, 1, 1), mode="reflect")[..., 1:-1, 1:-1]) * torch.sigmoid(x)
        x = F.max_pool2d(self.norm(x), 3, 1, 1).clamp_min(-3).add_(1).softmax(1)
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bicubic")
        x = torch.where(x > 0, x, -x).roll(1, 2).unfold(2, 16, 1)[:, :, 0].transpose(2, 3).flip(2)
        x = x + F.embedding(torch.arange(4, device=x.device), self.table).sum(0)[:, None, None]
        x = F.normalize(x, dim=1).repeat_interleave(2, 2)[:, :, ::2].square().cumsum(1)
        return x + torch.rand_like(x) + F.one_hot(torch.arange(8, device=x.device), 8).float().sum(1)[:, None, None]


class Matrices(Base):
    """`mm` by its own name."""

    def body(self, x: Tensor) -> Tensor:
        rows = x[0].flatten(1)
        return torch.mm(torch.mm(rows, rows.t()), rows).reshape(x.shape)


@dataclass
class Output:
    logits: Tensor
    extras: dict[str, Tensor]


class Outputs(Base):
    """What a trace cannot return: an object with a dict."""

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        return Output(self.head(x.mean((2, 3))), {"squares": x.flatten(2) @ x.flatten(2).mT})


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        (Busy, STEM + HEAD + 2 * 256 * 64),
        (Matrices, STEM + HEAD + 2 * 8 * 8 * 256),
        (Outputs, STEM + HEAD + 8 * 8 * 256),
    ],
)
def test_it_votes_where_it_sees_all_products(
    model: type[nn.Module], macs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = count(model, monkeypatch)
    assert found["work"]["macs_matmul"] == macs
    assert found["second_count"] == {"macs_fvcore": macs, "agree": True, "reason": None}


class Wide(Base):
    """Buffers made from numpy, in float64 as it makes them, which enter a product."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.eye(8, dtype=torch.float64))

    def body(self, x: Tensor) -> Tensor:
        return torch.matmul(x.flatten(2).transpose(1, 2)[0], self.mix).t().reshape(x.shape)


def test_a_model_with_buffers_of_another_type_is_counted_by_both(monkeypatch: pytest.MonkeyPatch) -> None:
    found, macs = count(Wide, monkeypatch), STEM + HEAD + 8 * 8 * 256
    assert found["work"]["macs_matmul"] == macs
    assert found["second_count"] == {"macs_fvcore": macs, "agree": True, "reason": None}


@pytest.fixture
def wrong() -> Iterator[None]:
    """The first counter takes a convolution for twice what it is."""
    convolution = torch.ops.aten.convolution
    right = flop_registry[convolution]
    flop_registry[convolution] = lambda *args, **kwargs: 2 * right(*args, **kwargs)
    yield
    flop_registry[convolution] = right


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("model", [Base, Busy, Matrices])
def test_a_wrong_formula_is_still_found(model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    opinion = count(model, monkeypatch)["second_count"]
    assert opinion["agree"] is False
    assert opinion["reason"] is None
    assert "counters_disagree" in frame([make_record(second_count=opinion)]).iloc[0]["flags"]


def test_what_it_does_not_see_explains_no_count_above_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = case(Sdpa, monkeypatch)
    assert second_count(asked, 100_000)["agree"] is False
    assert second_count(asked, 163_920) == {"macs_fvcore": 163_920, "agree": True, "reason": None}


@pytest.mark.parametrize(
    ("kind", "can"),
    [
        *((f"aten::{name}", True) for name in ("lstm", "mv", "baddbmm", "cdist", "bilinear", "_trilinear", "inner")),
        *((f"aten::{name}", True) for name in ("scaled_dot_product_attention", "_native_multi_head_attention")),
        *((f"aten::{name}", True) for name in ("_no_such_operation", "linalg_matrix_power", "tensordot", "gru_cell")),
        ("torchvision::deform_conv2d", True),
        ("mine::scan", True),
        ("prim::PythonOp.Mix", True),
        ("prim::CallFunction", True),
        *((f"aten::{name}", False) for name in ("add", "add_", "mul", "gelu", "softmax", "silu_", "layer_norm", "pad")),
        *((f"aten::{name}", False) for name in ("mean", "flip", "view_as_complex", "fft_rfft2", "uniform_", "square")),
        *((f"aten::{name}", False) for name in ("hardtanh", "_weight_norm", "linalg_inv", "sort", "one_hot", "outer")),
        ("torchvision::nms", False),
        ("torchvision::roi_align", False),
    ],
)
def test_which_operations_can_multiply(kind: str, *, can: bool) -> None:
    assert _can_multiply(kind) is can


def test_the_reason_is_said_once() -> None:
    lstm = {"fvcore_reason": "fvcore does not know lstm"}
    assert second_lines([lstm, lstm, {"fvcore_reason": None}]) == ["no second count: fvcore does not know lstm"]


def test_what_it_leaves_out_is_said() -> None:
    work = {"fvcore_reason": None, "macs_fvcore": 90, "macs_executed": 100, "macs_elementwise": 10}
    assert second_lines([work, {**work, "macs_fvcore": 100, "macs_elementwise": 0}]) == [
        "fvcore counts products of matrices alone: 10.0% of the MACs executed are elementwise"
    ]
    assert second_lines([{**work, "macs_elementwise": 0}, {**work, "macs_fvcore": None}]) == []
