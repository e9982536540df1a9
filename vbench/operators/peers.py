"""Functions that are timed beside the operators: attention at the same width, the published log-space minGRU, the plain
and the log-space selective scan, kernels of other libraries that are installed, and any function that a user names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vbench import kernels
from vbench.errors import UnknownModelError, UsageError
from vbench.kernels.entry import bound
from vbench.kernels.registry import OPS
from vbench.kernels.trials import Inputs
from vbench.models import external
from vbench.options import shown

Call = Callable[[], Any]  # returns the output, or a tuple that begins with it
Build = Callable[[Inputs, Mapping[str, Any]], Call]


@dataclass(frozen=True, slots=True)
class Peer:
    """A function of another project that computes an operator, or something in its place.

    `build` makes a call of an operator's inputs and options; `same` says whether it computes the same function, so
    that its output can be checked; `growth` is the power of N with which its time is expected to grow. `holds` tells
    of a call's inputs the bytes that it needs at once, where these are many.
    """

    name: str
    op: str
    build: Build
    same: bool = True
    growth: int = 1
    package: str | None = None
    device: str | None = None  # the only kind that it runs on
    holds: Callable[[Inputs], int] | None = None

    def missing(self, device: str) -> str | None:
        """Why it cannot run here, or None."""
        if self.package and not _installed(self.package):
            return f"{self.name} needs the package {self.package}, which is not installed"
        if self.device and not device.startswith(self.device):
            return f"{self.name} runs on {self.device}, not on {device}"
        return None


def _installed(package: str) -> bool:
    """Whether a package is there. In a checkout, `kernels` may be a folder of ours, beside `vbench`."""
    found = find_spec(package)
    return found is not None and found.origin != kernels.__file__


def peers(op: str, named: Mapping[str, str]) -> list[Peer]:
    """The peers of an operator; `named` has the user's, "module:function" by operator."""
    own = [Peer(named[op], op, partial(_of_user, op, named[op]))] if op in named else []
    return [Peer("sdpa", op, _sdpa, same=False, growth=2), *(peer for peer in _PEERS if peer.op == op), *own]


def parse_peers(texts: list[str]) -> dict[str, str]:
    """["gla=package.module:function"] -> {"gla": "package.module:function"}. Raises: UsageError."""
    targets: dict[str, str] = {}
    for text in texts:
        op, _, target = text.partition("=")
        module, _, name = target.partition(":")
        if op not in OPS or not module or not name:
            raise UsageError(
                f"--peer: '{shown(text)}' is not OPERATOR=module:function with an operator of {', '.join(OPS)}"
            )
        if op in targets:
            raise UsageError(f"--peer: {op} has two; give one a call")
        targets[op] = target
    return targets


def resolve(target: str) -> Callable[..., Any]:
    """The function that "module:function" names, found by the same rule as a user's model: see `external.load`.

    Raises: UsageError if there is none.
    """
    try:
        return external.load(target)
    except UnknownModelError as error:
        raise UsageError(f"--peer: {error}") from None


def _of_user(op: str, target: str, inputs: Inputs, options: Mapping[str, Any]) -> Call:
    return bound(op, resolve(target), inputs, options)


def _sdpa(inputs: Inputs, _: Mapping[str, Any]) -> Call:
    """Softmax attention over as many tokens, with three heads of 64 as in DeiT-T, by the kernel that torch picks."""
    first = next(iter(inputs.values()))
    batch, tokens = first.shape[-4] if first.ndim > 3 else first.shape[0], first.shape[-2]
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
    return partial(log_space, *inputs.values(), **options)


def naive_scan(a: Tensor, b: Tensor) -> Tensor:
    """h_t = a_t · h_{t-1} + b_t, token by token, from what is there for all tokens: 2 × Float[B N C S] -> the same."""
    h, states = torch.zeros_like(a[:, 0]), []
    for keep, feed in zip(a.unbind(1), b.unbind(1), strict=True):
        h = keep * h + feed
        states.append(h)
    return torch.stack(states, dim=1)


def log_space_scan(a: Tensor, b: Tensor) -> Tensor:
    """The same by cumulative sums of logarithms (Heinsen 2023, arXiv:2311.06281), positive and negative b apart."""
    sums = a.log().cumsum(1)
    rising, falling = ((x.clamp_min(0).log() - sums).logcumsumexp(1) for x in (b, -b))
    return (sums + rising).exp() - (sums + falling).exp()


def _whole(scan: Callable[[Tensor, Tensor], Tensor], inputs: Inputs, options: Mapping[str, Any]) -> Call:
    """The selective scan of one group in both directions, with decays and inputs of all tokens, channels and states at
    once, by a scan of these. The second direction has flipped inputs."""
    u, delta, B, C = (inputs[name][:, :, 0] for name in ("u", "delta", "B", "C"))
    A, D, bias = (inputs[name][:, 0].to(u.dtype) for name in ("A", "D", "delta_bias"))

    def one(way: int) -> Tensor:
        own, size, write, read = (x[way].flip(1) if way else x[way] for x in (u, delta, B, C))
        step = F.softplus(size + bias[way])
        states = scan((step.unsqueeze(-1) * A[way]).exp(), (step * own).unsqueeze(-1) * write.unsqueeze(-2))
        y = (states @ read.unsqueeze(-1)).squeeze(-1) + D[way] * own
        return y.flip(1) if way else y

    return lambda: (one(0) + one(1)).unsqueeze(1) * F.silu(inputs["z"])


def _states(count: int) -> Callable[[Inputs], int]:
    """The bytes of so many numbers for each token, channel and state."""

    def held(inputs: Inputs) -> int:
        return count * inputs["u"][0].nbytes * inputs["A"].shape[-1]

    return held


def _mamba(of: Callable[[], Any], inputs: Inputs, _: Mapping[str, Any]) -> Call:
    """Two calls, the second on flipped inputs, and the gate on their sum: that function has one direction."""
    function = of().selective_scan_fn
    u, delta = (inputs[name][:, :, 0].mT.contiguous() for name in ("u", "delta"))  # Float[2 B C N]
    B, C = (inputs[name].mT.contiguous() for name in ("B", "C"))  # Float[2 B 1 S N]
    A, D, bias = (inputs[name][:, 0].float() for name in ("A", "D", "delta_bias"))

    def one(way: int) -> Tensor:
        tokens = (x[way].flip(-1) if way else x[way] for x in (u, delta, B, C))
        own, size, write, read = (x.contiguous() for x in tokens)
        y = _out(function(own, size, A[way], write, read, D[way], delta_bias=bias[way], delta_softplus=True))
        return y.flip(-1) if way else y

    return lambda: (one(0) + one(1)).mT.unsqueeze(1) * F.silu(inputs["z"])


def _mamba_of_hub() -> Any:
    """The kernels of kernels-community/mamba-ssm, which the package `kernels` downloads from the Hugging Face Hub."""
    return import_module("kernels").get_kernel("kernels-community/mamba-ssm")


def _tokens_first(x: Tensor) -> Tensor:
    """(B, H, N, D) -> (B, N, H, D), as these libraries have it, in one piece."""
    return x.transpose(1, 2).contiguous()


def _fla_gla(name: str, inputs: Inputs, _: Mapping[str, Any]) -> Call:
    """Two calls, the second on flipped inputs: the library has no call for both directions."""
    function = getattr(import_module("fla.ops.gla"), name)
    q, k, v, ahead, back = map(_tokens_first, (inputs["q"], inputs["k"], inputs["v"], *inputs["g"]))

    def call() -> Tensor:
        forward = _out(function(q, k, v, ahead))
        reverse = _out(function(q.flip(1), k.flip(1), v.flip(1), back.flip(1)))
        return (forward + reverse.flip(1)).transpose(1, 2)

    return call


def _fla_simple(name: str, inputs: Inputs, _: Mapping[str, Any]) -> Call:
    function = getattr(import_module("fla.ops.simple_gla"), name)
    q, k, v = map(_tokens_first, (inputs["q"], inputs["k"], inputs["v"]))
    g = inputs["g"].float().expand(*q.shape[:2], -1).contiguous()
    return lambda: _out(function(q, k, v, g)).transpose(1, 2)


def _fla_rwkv6(name: str, inputs: Inputs, _: Mapping[str, Any]) -> Call:
    function = getattr(import_module("fla.ops.rwkv6"), name)
    r, k, v, g = map(_tokens_first, (inputs["r"], inputs["k"], inputs["v"], inputs["g"]))
    u = inputs["u"]
    zero = torch.zeros_like(u)  # so that a token reads itself in one direction only

    def call() -> Tensor:
        forward = _out(function(r, k, v, g, u, scale=1.0))
        reverse = _out(function(r.flip(1), k.flip(1), v.flip(1), g.flip(1), zero, scale=1.0))
        return (forward + reverse.flip(1)).transpose(1, 2)

    return call


def _fla_hgrn(name: str, inputs: Inputs, _: Mapping[str, Any]) -> Call:
    """That library leaves the gates to the caller; they are timed here, as they are in our forms."""
    function = getattr(import_module("fla.ops.hgrn"), name)
    a, b = inputs["a"], inputs["b"]

    def call() -> Tensor:
        fed = b.sigmoid() * (F.relu(a) + a.clamp(max=0).sigmoid())
        return _out(function(fed, F.logsigmoid(-b)))

    return call


def _mlstm_kernels(inputs: Inputs, _: Mapping[str, Any]) -> Call:
    module = import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk")
    q, k, v, i, f = (inputs[name].contiguous() for name in ("q", "k", "v", "i", "f"))
    return lambda: module.mlstm_chunkwise__xl_chunk(q, k, v, i, f)


def _out(returned: Any) -> Tensor:
    """The output of a call that may return a state beside it."""
    o: Tensor = returned[0] if isinstance(returned, tuple) else returned
    return o


_fla = partial(Peer, package="fla", device="cuda")
_PEERS = (
    Peer("log_space", "mingru", _log_space),
    _fla("fla chunk_gla x2", "gla", partial(_fla_gla, "chunk_gla")),
    _fla("fla fused_recurrent_gla x2", "gla", partial(_fla_gla, "fused_recurrent_gla")),
    _fla("fla chunk_simple_gla", "retention", partial(_fla_simple, "chunk_simple_gla")),
    _fla("fla chunk_rwkv6 x2", "wkv6", partial(_fla_rwkv6, "chunk_rwkv6")),
    _fla("fla fused_recurrent_rwkv6 x2", "wkv6", partial(_fla_rwkv6, "fused_recurrent_rwkv6")),
    _fla("fla chunk_hgrn", "mingru", partial(_fla_hgrn, "chunk_hgrn")),
    Peer("naive scan", "selective_scan", partial(_whole, naive_scan), holds=_states(6)),
    Peer("log-space scan", "selective_scan", partial(_whole, log_space_scan), holds=_states(14)),
    Peer(
        "mamba_ssm selective_scan_fn x2",
        "selective_scan",
        partial(_mamba, partial(import_module, "mamba_ssm.ops.selective_scan_interface")),
        package="mamba_ssm",
        device="cuda",
    ),
    Peer(
        "kernels-community mamba-ssm x2",
        "selective_scan",
        partial(_mamba, _mamba_of_hub),
        package="kernels",
        device="cuda",
    ),
    Peer("mlstm_kernels xl_chunk", "mlstm", _mlstm_kernels, package="mlstm_kernels", device="cuda"),
)
