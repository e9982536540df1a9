"""Calls of operators as the models make them: sizes, inputs in the models' memory layout, and the least they cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.kernels.entry import bound
from vbench.kernels.registry import operator, truth
from vbench.kernels.selective_scan.orders import row_of
from vbench.kernels.trials import Inputs, tensors


@dataclass(frozen=True, slots=True)
class Maker:
    """Draws tensors from N(0, 1) for one call: its sizes, its type, its device and a generator there."""

    batch: int
    tokens: int
    dtype: torch.dtype
    device: torch.device
    generator: Generator

    def normal(self, *size: int, dtype: torch.dtype | None = None) -> Tensor:
        wanted = dtype or self.dtype
        return torch.randn(*size, generator=self.generator, device=self.device, dtype=torch.float32).to(wanted)

    def heads(self, heads: int, *dims: int) -> list[Tensor]:
        """(B, H, N, dim) for each of `dims`, as views of one projection (B, N, H · Σ dim)."""
        whole = self.normal(self.batch, self.tokens, heads * sum(dims))
        parts = whole.split([heads * dim for dim in dims], dim=-1)
        return [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in parts]


@dataclass(frozen=True, slots=True)
class Width:
    """An operator at the width of a model.

    `draw` makes the arguments from a `Maker` and the `dims`. `options` are keywords of the call, and `chosen` makes
    more of them from the number of tokens. `batch_dims` names the dimension of an argument that counts images; an
    argument without one is not in it.
    """

    model: str
    sizes: str  # "H=3 D=32 E=64"
    draw: Callable[..., Inputs]
    dims: tuple[int, ...]
    batch_dims: Mapping[str, int]
    options: Mapping[str, Any] = field(default_factory=dict)
    chosen: Callable[[int], Mapping[str, Any]] = lambda tokens: {}

    def inputs(self, *, batch: int, tokens: int, dtype: str, device: str, seed: int = 0) -> Inputs:
        """Random arguments in the order of the call, with typical gates."""
        where = torch.device(device)
        generator = torch.Generator(where).manual_seed(seed)
        return self.draw(Maker(batch, tokens, getattr(torch, dtype), where, generator), *self.dims)

    def keywords(self, inputs: Inputs) -> dict[str, Any]:
        """The keywords of a call with these inputs, without tensors."""
        return {**self.options, **self.chosen(next(iter(inputs.values())).shape[-2])}

    def call(self, function: Callable[..., Any], inputs: Inputs) -> Any:
        """What a form makes of these inputs."""
        return function(**inputs, **self.keywords(inputs))

    def rows(self, inputs: Inputs) -> int:
        """What `tuning.pick` looks up: batch · heads for (B, H, N, D), the batch for (B, N, C)."""
        return math.prod(next(iter(inputs.values())).shape[:-2])

    def first(self, inputs: Inputs) -> Inputs:
        """The arguments of a call with the first image only."""
        return {
            name: x.narrow(self.batch_dims[name], 0, 1) if name in self.batch_dims else x for name, x in inputs.items()
        }


def _gla(make: Maker, heads: int, key_dim: int, value_dim: int) -> Inputs:
    q, k, v = make.heads(heads, key_dim, key_dim, value_dim)
    g = make.normal(make.batch, make.tokens, 2 * heads * key_dim, dtype=torch.float32)
    g = F.logsigmoid(g.unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)).div_(16)
    return {"q": q, "k": k, "v": v, "g": g}


def _wkv6(make: Maker, heads: int, dim: int) -> Inputs:
    r, k, v, g = (make.heads(heads, dim)[0] for _ in range(4))
    u = make.normal(heads, dim)
    return {"r": r, "k": k, "v": v, "g": -(g.float() - 3).exp(), "u": u}


def _mlstm(make: Maker, heads: int, dim: int) -> Inputs:
    q, k, v = (make.heads(heads, dim)[0] for _ in range(3))
    i, f = (make.normal(make.batch, make.tokens, heads).transpose(1, 2) for _ in range(2))
    # Queries and keys that lean to one side keep the normaliser from zero, where no form has digits.
    return {"q": 1 + q / 2, "k": 1 + k / 2, "v": v, "i": i / 10, "f": f + 4.5}


def _retention(make: Maker, heads: int, dim: int) -> Inputs:
    q, k, v = make.heads(heads, dim, dim, dim)
    lost = torch.logspace(-5, -9, heads, base=2.0, dtype=torch.float32, device=make.device)  # as in ViR
    return {"q": q, "k": k, "v": v, "g": torch.log1p(-lost)}


def _linear(make: Maker, heads: int, dim: int) -> Inputs:
    q, k = (F.elu(x).add_(1) for x in make.heads(heads, dim, dim))
    (v,) = make.heads(heads, dim)
    turned = (
        torch.stack((y, -x), dim=-1).flatten(-2) for x, y in (x.unflatten(-1, (-1, 2)).unbind(-1) for x in (q, k))
    )
    return dict(zip(("q", "k", "v", "q_norm", "k_norm"), (*turned, v, q, k), strict=True))


def _mingru(make: Maker, channels: int) -> Inputs:
    a, b = make.normal(make.batch, make.tokens, 2 * channels).chunk(2, dim=-1)
    return {"a": a, "b": b}


def _wkv(make: Maker, channels: int) -> Inputs:
    k, v = (make.normal(make.batch, make.tokens, channels) for _ in range(2))
    w, u = (make.normal(channels, dtype=torch.float32).div_(make.tokens) for _ in range(2))
    return {"k": k, "v": v, "w": w, "u": u}


def _selective(make: Maker, channels: int, states: int, rank: int, directions: int) -> Inputs:
    """The inputs as the models have them: B and C are parts of one projection, and Vim's gate is half of another."""
    walks, size = (directions,), (make.batch, 1, make.tokens)
    gated = directions == 2
    small = make.normal(*walks, *size, rank + 2 * states)
    _, B, C = small.split([rank, states, states], dim=-1)
    steps = torch.linspace(
        math.log(1e-3), math.log(1e-1), channels, device=make.device
    ).exp()  # as both are initialised
    rates = -torch.arange(1.0, states + 1, device=make.device).expand(*walks, 1, channels, states).contiguous()
    inputs = {
        "u": make.normal(*(walks if gated else ()), *size, channels),
        "delta": make.normal(*walks, *size, channels) / 2,
        "A": rates,
        "B": B,
        "C": C,
        "D": torch.ones(*walks, 1, channels, device=make.device),
        "delta_bias": steps.expm1().log().expand(*walks, 1, channels).contiguous(),
    }
    if gated:
        inputs["z"] = make.normal(make.batch, make.tokens, 2 * channels)[..., channels:].unsqueeze(1)
    return inputs


_QKVG = {"q": 0, "k": 0, "v": 0, "g": 1}
_RKVG = {"r": 0, "k": 0, "v": 0, "g": 0}
_LSTM = {"q": 0, "k": 0, "v": 0, "i": 0, "f": 0}
_TURNED = {"q": 0, "k": 0, "v": 0, "q_norm": 0, "k_norm": 0}
_TWO = {"u": 1, "delta": 1, "B": 1, "C": 1, "z": 0}
_FOUR = {"u": 0, "delta": 1, "B": 1, "C": 1}
_FORWARD, _BOTH, _CROSS = {"direction": "forward"}, {"direction": "both"}, {"direction": "cross"}


def _row(tokens: int) -> dict[str, Any]:
    return {"width": row_of(tokens)}


# The first width of an operator is the one that is timed; all are compiled.
WIDTHS: dict[str, tuple[Width, ...]] = {
    "gla": (
        Width("vig_t", "H=3 D=32 E=64", _gla, (3, 32, 64), _QKVG, _BOTH),
        Width("vig_h_t", "H=3 D=16 E=32", _gla, (3, 16, 32), _QKVG, _BOTH),
    ),
    "wkv": (Width("vrwkv_t", "C=192", _wkv, (192,), {"k": 0, "v": 0}),),
    "wkv6": (Width("vrwkv6_t", "H=3 D=E=64", _wkv6, (3, 64), _RKVG, _BOTH),),
    "mlstm": (
        Width("vil_t, vil2_t", "H=4 D=E=96", _mlstm, (4, 96), _LSTM, _FORWARD),
        Width("vil_b, vil2_b", "H=4 D=E=384", _mlstm, (4, 384), _LSTM, _FORWARD),
    ),
    "retention": (Width("vir_*, at 192 channels", "H=3 D=E=64", _retention, (3, 64), {"q": 0, "k": 0, "v": 0}),),
    "linear_attention": (Width("mlla_t", "H=2 D=E=32", _linear, (2, 32), _TURNED),),
    "mingru": (
        Width("vision_gru_t", "C=144", _mingru, (144,), {"a": 0, "b": 0}, _FORWARD),
        Width("vision_gru_b", "C=208", _mingru, (208,), {"a": 0, "b": 0}, _FORWARD),
    ),
    "selective_scan": (
        Width("vim_t", "C=384 S=16", _selective, (384, 16, 12, 2), _TWO, _BOTH),
        Width("vmamba_t", "C=96 S=1", _selective, (96, 1, 6, 4), _FOUR, _CROSS, _row),
        Width("vmamba_t", "C=768 S=1", _selective, (768, 1, 48, 4), _FOUR, _CROSS, _row),
    ),
}


@dataclass(frozen=True, slots=True)
class Floor:
    """The least that a call must move and compute: every input read once, every result written once, and the
    multiplications of the recurrence itself."""

    bytes: int
    flops: int

    def ms(self, copy_bytes_per_s: float, gemm_flops_per_s: float) -> float:
        """The larger of the two times, at the rates that the device reaches."""
        return 1e3 * max(self.bytes / copy_bytes_per_s, self.flops / gemm_flops_per_s)


def floor(op: str, inputs: Inputs, options: Mapping[str, Any]) -> Floor:
    """The floor of one call; computes nothing."""
    meta = {name: x.to("meta") for name, x in inputs.items()}
    with FlopCounterMode(display=False) as counter:
        o, state = bound(op, operator(op, truth(op)), meta, options)()
    moved = sum(x.numel() * x.element_size() for x in (*meta.values(), o, *tensors(state)))
    return Floor(moved, counter.get_total_flops())
