"""Linear attention in Triton: chunks are summed up and then read, or one launch walks twice. The kernels: passes.py.

The gradient is products of matrices with the same summary and its gradient, which torch's library computes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused.launch import (
    cdiv,
    ceiling,
    check_reach,
    device_name,
    launch,
    power_of_two,
    precision,
    threefold,
)
from vbench.kernels.fused.layout import empty_output, tile, with_dense_rows
from vbench.kernels.fused.tiling import check_supported
from vbench.kernels.fused.tuning import pick
from vbench.kernels.linear_attention import cost, passes
from vbench.kernels.linear_attention.shapes import EPS, Summary, others

STATE = 2048  # numbers of a walk's tile of S


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    q_norm: Tensor | None = None,
    k_norm: Tensor | None = None,
    eps: float = EPS,
    state: Summary | None = None,
    form: str = "fused",
) -> tuple[Tensor, Summary]:
    """Linear attention on CUDA (Katharopoulos et al. 2020, arXiv:2006.16236, equation 5).

    Arguments, results and errors are those of `reference.linear_attention`. Besides:

    Args:
        form: "fused" takes tokens in chunks, "fused_recurrent" one after another, in one launch. Their gradient is
            the same.

    Raises: UnsupportedError for float64, for a device that the kernels do not run on, and for too many tokens.
    """
    q_norm, k_norm = q if q_norm is None else q_norm, k if k_norm is None else k_norm
    check_supported(f"linear_attention {form}", q, k, v, q_norm, k_norm)
    S, z, n = others(q, v, state)
    o, *summary = _forward(q, k, v, q_norm, k_norm, S, z, n, eps, form == "fused_recurrent")
    return o, (summary[0], summary[1], n + int(q.shape[2]))


@torch.library.custom_op("vbench::linear_attention_fused", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, q_norm: Tensor, k_norm: Tensor, S: Tensor, z: Tensor, n: Tensor, eps: float,
    sequential: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """o, S and z of these and the other tokens, whose summary is given."""
    q, k, v, q_norm, k_norm = (with_dense_rows(x) for x in (q, k, v, q_norm, k_norm))
    check_reach("linear_attention fused", q, k, v, q_norm, k_norm)
    B, H, N, _ = q.shape
    choice = pick("linear_attention", N, B * H, device_name(q.device))
    o, n = empty_output(q, v.shape[-1]), n + N
    if sequential or choice.sequential:
        S, z = _walk(q, k, v, q_norm, k_norm, S, z, n, o, eps)
    else:
        L = min(choice.chunk, power_of_two(N, 16))
        own, sums = _gathered(k, v, k_norm, L, choice.warps)
        S, z = S + own, z + sums
        _read(q, q_norm, S, z, n, o, eps, L, choice.warps)
    return o.to(q.dtype), S, z


def _strides(x: Tensor, name: str) -> dict[str, int]:
    return {f"{name}_{dim}": x.stride(i) for i, dim in enumerate("bhn")}


def _gathered(k: Tensor, v: Tensor, k_norm: Tensor, L: int, warps: int) -> tuple[Tensor, Tensor]:
    """S (B, H, D, E) and z (B, H, D) of all tokens."""
    (B, H, N, D), E = k.shape, v.shape[-1]
    BD, BE, chunks = tile(D, 32), tile(E, 64), cdiv(N, L)
    S = k.new_empty(B, H, chunks, D, E, dtype=torch.float32)
    z = k.new_empty(B, H, chunks, D, dtype=torch.float32)
    args: dict[str, Any] = {"k": k, "k_norm": k_norm, "v": v, "S": S, "z": z, "N": N, "H": H, "chunks": chunks}
    args |= _strides(k, "k") | _strides(k_norm, "w") | _strides(v, "v")
    grid = B * H, cdiv(D, BD) * cdiv(E, BE), chunks
    _launch(passes.gather_kernel, grid, args, k, {"D": D, "E": E, "L": L, "BD": BD, "BE": BE}, warps)
    return (S[:, :, 0], z[:, :, 0]) if chunks == 1 else (S.sum(2), z.sum(2))


def _read(
    q: Tensor, q_norm: Tensor, S: Tensor, z: Tensor, n: Tensor, o: Tensor, eps: float, L: int, warps: int
) -> None:
    """Fill o with what all tokens read."""
    (B, H, N, D), E = q.shape, S.shape[-1]
    BD, BE = tile(D, 32), tile(E, 64)
    args: dict[str, Any] = {"q": q, "q_norm": q_norm, "S": S, "z": z, "n": n, "o": o, "eps": eps, "N": N, "H": H}
    args |= _strides(q, "q") | _strides(q_norm, "w") | _strides(o, "o")
    grid = B * H, cdiv(E, BE), cdiv(N, L)
    _launch(passes.read_kernel, grid, args, q, {"D": D, "E": E, "L": L, "BD": BD, "BE": BE}, warps)


def _launch(
    kernel: Any, grid: tuple[int, ...], args: dict[str, Any], like: Tensor, sizes: dict[str, int], warps: int
) -> None:
    """Launch a kernel whose products are those of inputs of this type."""
    registers = ceiling(warps) if threefold(like) else None
    launch(kernel, grid, args, {**sizes, "PRECISION": precision(like)}, warps=warps, registers=registers)


def _walk(
    q: Tensor, k: Tensor, v: Tensor, q_norm: Tensor, k_norm: Tensor, S: Tensor, z: Tensor, n: Tensor, o: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill o; S and z of these and the other tokens."""
    (B, H, N, D), E = q.shape, v.shape[-1]
    BD = power_of_two(D, 16)
    BE = min(power_of_two(E, 16), max(16, STATE // BD))
    S, z = S.contiguous(), z.contiguous()
    final, final_sums = torch.empty_like(S), torch.empty_like(z)
    args: dict[str, Any] = {"q": q, "q_norm": q_norm, "k": k, "k_norm": k_norm, "v": v, "S": S, "z": z, "n": n, "o": o}
    args |= {"final": final, "final_sums": final_sums, "eps": eps, "N": N, "H": H}
    args |= _strides(q, "q") | _strides(q_norm, "x") | _strides(k, "k") | _strides(k_norm, "w")
    args |= _strides(v, "v") | _strides(o, "o")
    grid = B * H, cdiv(E, BE)
    launch(passes.walk_kernel, grid, args, {"D": D, "E": E, "BD": BD, "BE": BE}, warps=min(4, max(1, BD * BE // 256)))
    return final, final_sums


@_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, q_norm: Tensor, k_norm: Tensor, S: Tensor, z: Tensor, n: Tensor, eps: float,
    sequential: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    B, H, N, _ = q.shape
    o = q.new_empty(B, N, H, v.shape[-1]).transpose(1, 2)
    return o, S.new_empty(S.shape), z.new_empty(z.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, _, _, n, ctx.eps, _ = inputs
    ctx.save_for_backward(*tensors, n, *output[1:])


def _gradient(ctx: Any, do: Tensor, dS: Tensor, dz: Tensor) -> tuple[Tensor | None, ...]:
    """With g_t = do_t / (q'_t · z + n ε), and the gradient of that divisor -g_t · o_t.

    dS = Σ_t q_t g_t^T      dq_t = S g_t      dk_t = dS v_t      dv_t = dS^T k_t      dq'_t = -(q_t · dq_t / divisor) z
    """
    *tensors, n, S, z = ctx.saved_tensors
    q, k, v, q_norm, k_norm = (x.float() for x in tensors)
    divisor = (q_norm * z.unsqueeze(-2)).sum(-1, keepdim=True) + ctx.eps * (n + q.shape[2])
    g = do.float() / divisor
    dq = g @ S.mT
    dS = dS + q.mT @ g
    by_divisor = -(q * dq).sum(-1, keepdim=True) / divisor
    dz = dz + (by_divisor * q_norm).sum(2)
    found = dq, v @ dS.mT, k @ dS, by_divisor * z.unsqueeze(-2), dz.unsqueeze(2).expand_as(k_norm)
    of_inputs = [x.to(like.dtype) for x, like in zip(found, tensors, strict=True)]
    return *of_inputs, dS, dz, ctx.eps * by_divisor.sum(), None, None


_forward.register_autograd(_gradient, setup_context=_save)


@register_flop_formula([torch.ops.vbench.linear_attention_fused])
def _flops(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    form = "fused_recurrent" if rest[-1] else "fused"
    B, H, N, D = q
    return 2 * cost.macs(form, batch=B, heads=H, tokens=N, key_dim=D, value_dim=v[3])
