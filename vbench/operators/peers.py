"""What the operators are timed beside: attention at the same width, the published log-space minGRU, other libraries'
kernels where they are installed, and whatever function a user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vbench.errors import UnknownModelError, UsageError
from vbench.kernels.registry import OPS
from vbench.kernels.trials import Inputs
from vbench.models import external

Call = Callable[[], Any]  # returns the output, or a tuple that begins with it
Build = Callable[[Inputs, Mapping[str, Any]], Call]


@dataclass(frozen=True, slots=True)
class Peer:
    """A way to compute an operator, or to do without it, that is not ours.

    `build` makes a call of an operator's inputs and options; `same` says whether it computes the same function, so
    that its output can be checked; `growth` is the power of N with which its time is expected to grow.
    """

    name: str
    op: str
    build: Build
    same: bool = True
    growth: int = 1
    package: str | None = None
    device: str | None = None  # the only kind that it runs on

    def missing(self, device: str) -> str | None:
        """Why it cannot run here, or None."""
        if self.package and find_spec(self.package) is None:
            return f"{self.name} needs the package {self.package}, which is not installed"
        if self.device and not device.startswith(self.device):
            return f"{self.name} runs on {self.device}, not on {device}"
        return None


def peers(op: str, named: Mapping[str, str]) -> list[Peer]:
    """The peers of an operator; `named` has the user's, "module:function" by operator."""
    found = [Peer("sdpa", op, _sdpa, same=False, growth=2), *(peer for peer in _PEERS if peer.op == op)]
    if op in named:
        found.append(Peer(named[op], op, _of_user(named[op])))
    return found


def parse_peers(texts: list[str]) -> dict[str, str]:
    """["gla=package.module:function"] -> {"gla": "package.module:function"}. Raises: UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        op, _, target = text.partition("=")
        module, _, name = target.partition(":")
        if op not in OPS or not module or not name:
            raise UsageError(f"--peer: '{text}' is not OPERATOR=module:function with an operator of {', '.join(OPS)}")
        if op in found:
            raise UsageError(f"--peer: {op} has two; give one a call")
        found[op] = target
    return found


def resolve(target: str) -> Callable[..., Any]:
    """The function that "module:function" names, found by the same rule as a user's model: see `external.load`.

    Raises: UsageError if there is none.
    """
    try:
        return external.load(target)
    except UnknownModelError as error:
        raise UsageError(f"--peer: {error}") from None


def _of_user(target: str) -> Build:
    def build(inputs: Inputs, options: Mapping[str, Any]) -> Call:
        function = resolve(target)
        return lambda: function(*inputs.values(), **options)

    return build


def _sdpa(inputs: Inputs, _: Mapping[str, Any]) -> Call:
    """Softmax attention as DeiT-T has it, three heads of 64, over as many tokens; fused as torch picks."""
    first = next(iter(inputs.values()))
    batch, tokens = first.shape[0], first.shape[-2]
    qkv = torch.randn(batch, tokens, 3, 3, 64, device=first.device).to(first.dtype)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    return lambda: F.scaled_dot_product_attention(q, k, v)


def log_space(a: Tensor, b: Tensor, *, direction: str = "forward") -> Tensor:
    """minGRU by cumulative sums of logarithms (Heinsen 2023, arXiv:2311.06281; Feng et al. 2024, arXiv:2410.01201,
    appendix B.2): what published code runs. Arguments as of our mingru; returns h alone."""
    if direction == "reverse":
        return log_space(a.flip(1), b.flip(1)).flip(1)
    log_keep, log_z = -F.softplus(b), -F.softplus(-b)
    log_candidate = torch.where(a >= 0, (F.relu(a) + 0.5).log(), -F.softplus(-a))
    sums = log_keep.cumsum(1)
    return (sums + (log_z + log_candidate - sums).logcumsumexp(1)).exp()


def _log_space(inputs: Inputs, options: Mapping[str, Any]) -> Call:
    return lambda: log_space(*inputs.values(), **options)


def _tokens_first(x: Tensor) -> Tensor:
    """(B, H, N, D) -> (B, N, H, D), as these libraries have it, in one piece."""
    return x.transpose(1, 2).contiguous()


def _fla_gla(name: str) -> Build:
    def build(inputs: Inputs, _: Mapping[str, Any]) -> Call:
        """Two calls, and flips for the second: the library has no bidirectional one."""
        function = getattr(import_module("fla.ops.gla"), name)
        q, k, v, ahead, back = map(_tokens_first, (inputs["q"], inputs["k"], inputs["v"], *inputs["g"]))

        def call() -> Tensor:
            forward = _out(function(q, k, v, ahead))
            reverse = _out(function(q.flip(1), k.flip(1), v.flip(1), back.flip(1)))
            return (forward + reverse.flip(1)).transpose(1, 2)

        return call

    return build


def _fla_simple(name: str) -> Build:
    def build(inputs: Inputs, _: Mapping[str, Any]) -> Call:
        function = getattr(import_module("fla.ops.simple_gla"), name)
        q, k, v = map(_tokens_first, (inputs["q"], inputs["k"], inputs["v"]))
        g = inputs["g"].float().expand(*q.shape[:2], -1).contiguous()
        return lambda: _out(function(q, k, v, g)).transpose(1, 2)

    return build


def _fla_rwkv6(name: str) -> Build:
    def build(inputs: Inputs, _: Mapping[str, Any]) -> Call:
        function = getattr(import_module("fla.ops.rwkv6"), name)
        r, k, v, g = map(_tokens_first, (inputs["r"], inputs["k"], inputs["v"], inputs["g"]))
        u = inputs["u"]
        none = torch.zeros_like(u)  # a token reads itself once

        def call() -> Tensor:
            forward = _out(function(r, k, v, g, u, scale=1.0))
            reverse = _out(function(r.flip(1), k.flip(1), v.flip(1), g.flip(1), none, scale=1.0))
            return (forward + reverse.flip(1)).transpose(1, 2)

        return call

    return build


def _fla_hgrn(name: str) -> Build:
    def build(inputs: Inputs, _: Mapping[str, Any]) -> Call:
        """The gates are the caller's in that library, and part of the time here, as they are of ours."""
        function = getattr(import_module("fla.ops.hgrn"), name)
        a, b = inputs["a"], inputs["b"]

        def call() -> Tensor:
            fed = b.sigmoid() * (F.relu(a) + a.clamp(max=0).sigmoid())
            return _out(function(fed, F.logsigmoid(-b)))

        return call

    return build


def _mlstm_kernels(inputs: Inputs, _: Mapping[str, Any]) -> Call:
    module = import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk")
    q, k, v, i, f = (inputs[name].contiguous() for name in ("q", "k", "v", "i", "f"))
    return lambda: module.mlstm_chunkwise__xl_chunk(q, k, v, i, f)


def _out(found: Any) -> Tensor:
    """The output of a call that may return a state beside it."""
    o: Tensor = found[0] if isinstance(found, tuple) else found
    return o


_FLA = {"package": "fla", "device": "cuda"}
_PEERS = (
    Peer("log_space", "mingru", _log_space),
    Peer("fla chunk_gla x2", "gla", _fla_gla("chunk_gla"), **_FLA),  # type: ignore[arg-type]
    Peer("fla fused_recurrent_gla x2", "gla", _fla_gla("fused_recurrent_gla"), **_FLA),  # type: ignore[arg-type]
    Peer("fla chunk_simple_gla", "retention", _fla_simple("chunk_simple_gla"), **_FLA),  # type: ignore[arg-type]
    Peer("fla chunk_rwkv6 x2", "wkv6", _fla_rwkv6("chunk_rwkv6"), **_FLA),  # type: ignore[arg-type]
    Peer("fla fused_recurrent_rwkv6 x2", "wkv6", _fla_rwkv6("fused_recurrent_rwkv6"), **_FLA),  # type: ignore[arg-type]
    Peer("fla chunk_hgrn", "mingru", _fla_hgrn("chunk_hgrn"), **_FLA),  # type: ignore[arg-type]
    Peer("mlstm_kernels xl_chunk", "mlstm", _mlstm_kernels, package="mlstm_kernels", device="cuda"),
)
