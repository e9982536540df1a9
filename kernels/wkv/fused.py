"""Bi-WKV in Triton: both directions in the same launches, and its gradient. The kernels: passes.py, `fused.scans`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused.launch import cdiv, ceiling, check_reach, launch, stored
from vbench.kernels.fused.scans import WIDTH, aged_nothing, carry, sums, sums_nothing
from vbench.kernels.fused.tiling import Tiling, check_supported, strided, tiling
from vbench.kernels.registry import computation
from vbench.kernels.wkv import cost, passes
from vbench.kernels.wkv.shapes import Reading


def wkv(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    *,
    reading: Reading = "paper",
    state: Tensor | None = None,
    form: str = "fused",
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV on CUDA (Duan et al. 2024, arXiv:2403.02308, section 3).

    Arguments, results and errors are those of `reference.wkv`. Besides:

    Args:
        reading: "kernel" is computed by the form in `cost.FALLBACK`, because no kernel here has the sums of a segment
            with growing weights.
        form: "fused" works in tiles of tokens, "fused_recurrent" takes all tokens in order, there and back, in one
            launch. Their gradient is the same.

    Raises: UnsupportedError for float64, for a device that the kernels do not run on, and for too many tokens.
    """
    check_supported(f"wkv {form}", k, v)
    if reading == "kernel":
        return computation("wkv", cost.FALLBACK[form])(k, v, w, u, reading=reading)
    train = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (k, v, w, u, state))
    state = None if state is None else state.float()
    y, final, *_ = _forward(k, v, w.float(), u.float(), state, train, form == "fused_recurrent")
    return y, final


def _launched(x: Tensor, how: Tiling) -> dict[str, Any]:
    B, N, C = x.shape
    return {"N": N, "C": C, "chunks": how.tiles, "batch": B}


def _summaries(keys: Tensor, values: Tensor, y: Tensor | None, w: Tensor, how: Tiling) -> Tensor | None:
    """What the other chunks hand to each chunk from both sides, float32 (5 or 7, 2 B, chunks, C); None if there is only
    one chunk."""
    if how.tiles == 1:
        return None
    B, _, C = keys.shape
    found = keys.new_empty(5 if y is None else 7, 2 * B, how.tiles, C, dtype=torch.float32)
    args = {**strided("k", keys), **strided("v", values), "y": y, "w": w, "found": found, "size": found.stride(0)}
    grid = B, cdiv(C, WIDTH), how.tiles
    launch(passes.summary_kernel, grid, args | _launched(keys, how), {**how.constants, "WIDTH": WIDTH}, warps=how.rows)
    return carry(found, B, sums, sums_nothing if y is None else aged_nothing, w)


def _outputs(k: Tensor, train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the final state, and for z and the ages of the state's exponents, which are empty unless `train`."""
    B, N, C = k.shape
    final = k.new_empty(2, 3, B, C, dtype=torch.float32)
    z, ages = (k.new_empty(shape if train else 0, dtype=torch.float32) for shape in ((B, N, C), (2, B, C)))
    return final, z, ages


@torch.library.custom_op("vbench::wkv_fused", mutates_args=())
def _forward(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None, train: bool, sequential: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (B, N, C), how = k.shape, tiling("wkv", k, sequential=sequential)
    check_reach("wkv fused", k, v)
    w, u = w.contiguous(), u.contiguous()
    final, z, ages = _outputs(k, train)
    y = k.new_empty(B, N, C, dtype=stored(k))
    args = {**strided("k", k), **strided("v", v), "w": w, "u": u}
    args |= {"state": None if state is None else state.contiguous(), "y": y, "final": final, "N": N, "C": C, "batch": B}
    args |= {"logs": z if train else None, "ages": ages if train else None}
    columns = cdiv(C, WIDTH)
    if how.sequential:
        futures = w.new_empty(5, B, how.tiles, C)
        args |= {"futures": futures, "size": futures.stride(0), "tiles": how.tiles}
        constants, most = {**how.constants, "WIDTH": WIDTH}, ceiling(how.rows)  # without it Triton 3.7 spills on sm_80
        launch(passes.recurrent_kernel, (B, columns), args, constants, warps=how.rows, registers=most)
    else:
        args |= _entering(_summaries(k, v, None, w, how)) | {"chunks": how.tiles}
        launch(passes.apply_kernel, (B, columns, how.tiles), args, {**how.constants, "WIDTH": WIDTH}, warps=how.rows)
    return y.to(k.dtype), final, z, ages


def _entering(carried: Tensor | None) -> dict[str, Any]:
    return {"carried": carried, "size": 0 if carried is None else carried.stride(0)}


@_forward.register_fake
def _(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor | None, train: bool, sequential: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return k.new_empty(k.shape), *_outputs(k, train)


@torch.library.custom_op("vbench::wkv_fused_backward", mutates_args=())
def _backward(
    dy: Tensor, entering: Tensor | None, k: Tensor, v: Tensor, w: Tensor, u: Tensor, y: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dk, dv, dw, du and what leaves the gradient's sums, float32 (7, 2, B, C); `entering` (2, 3, B, C) enters them."""
    how, (B, _, C) = tiling("wkv", k, gradient=True), k.shape
    w, u = w.contiguous(), u.contiguous()
    dk, dv = (torch.empty_like(y, dtype=stored(y)) for _ in range(2))
    leaving = w.new_empty(7, 2, B, C)
    dw, du = w.new_empty(2, B, how.tiles, C)
    args = {**strided("k", k), **strided("v", v), **strided("dy", dy), "y": y, "z": z, "w": w, "u": u}
    args |= {"state": None if entering is None else entering.contiguous()}
    args |= _entering(_summaries(z, dy, y, w, how))
    args |= {"dk": dk, "dv": dv, "dw": dw, "du": du, "final": leaving} | _launched(k, how)
    launch(
        passes.gradient_kernel, (B, cdiv(C, WIDTH), how.tiles), args, {**how.constants, "WIDTH": WIDTH}, warps=how.rows
    )
    return dk.to(k.dtype), dv.to(k.dtype), dw.sum((0, 1)), du.sum((0, 1)), leaving


@_backward.register_fake
def _(
    dy: Tensor, entering: Tensor | None, k: Tensor, v: Tensor, w: Tensor, u: Tensor, y: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, _, C = k.shape
    return torch.empty_like(y), torch.empty_like(y), torch.empty_like(w), torch.empty_like(u), w.new_empty(7, 2, B, C)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    k, v, w, u, state, *_ = inputs
    y, final, z, ages = output
    ctx.mark_non_differentiable(z, ages)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(k, v, w, u, state, y, final, z, ages)


def _gradient(ctx: Any, dy: Tensor | None, dfinal: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    k, v, w, u, state, y, final, z, ages = ctx.saved_tensors
    dy = torch.zeros_like(y) if dy is None else dy
    entering = None
    if dfinal is not None:  # final a and b are e^(-p) times sums over all tokens; each enters from the other end
        entering = torch.stack((dfinal[:, 0], -dfinal[:, 1], -final[:, 2]), dim=1).flip(0)
    dk, dv, dw, du, leaving = _backward(dy, entering, k, v, w, u, y, z)
    dstate = None
    if state is not None:
        _, key, age, a, b, old_a, old_b = leaving.flip(1).unbind()
        weight = (key - w * age + state[:, 2]).exp()
        da, db = weight * a, -weight * b
        dstate = torch.stack((da, db, state[:, 0] * da + state[:, 1] * db), dim=1)
        dw = dw - (weight * (state[:, 0] * old_a - state[:, 1] * old_b)).sum((0, 1))
    if dfinal is not None:  # the final exponents are one token's each, or the initial state's
        extra = dfinal[:, 2] - dfinal[:, 0] * final[:, 0] - dfinal[:, 1] * final[:, 1]
        N = k.shape[1]
        dw = dw - (ages * extra).sum((0, 1))
        of_token = torch.where(ages < N, extra, 0)
        last = ages.long().clamp(max=N - 1)
        grown = torch.zeros_like(z)
        for at, part in zip((N - 1 - last[0], last[1]), of_token, strict=True):
            grown = grown.scatter_add(1, at.unsqueeze(1), part.unsqueeze(1))
        dk = dk + grown.to(dk.dtype)
        if dstate is not None:
            dstate[:, 2] += torch.where(ages < N, 0, extra)
    return dk, dv, dw, du, dstate, None, None


_forward.register_autograd(_gradient, setup_context=_save)


@register_flop_formula([torch.ops.vbench.wkv_fused])
def _flops(k: Any, v: Any, w: Any, u: Any, state: Any, train: bool, sequential: bool, **_: Any) -> int:
    form = "fused_recurrent" if sequential else "fused"
    return 2 * cost.macs(form, batch=k[0], tokens=k[1], channels=k[2])


@register_flop_formula([torch.ops.vbench.wkv_fused_backward])
def _flops_backward(dy: Any, *_: Any, **__: Any) -> int:
    return 2 * 2 * cost.macs("fused", batch=dy[0], tokens=dy[1], channels=dy[2])
