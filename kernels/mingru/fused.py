"""minGRU in Triton: at most three launches, one for a recurrent walk. The kernels: passes.py, `fused.scans`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused.launch import cdiv, check_reach, launch, stored
from vbench.kernels.fused.scans import WIDTH, affine, affine_nothing, carry
from vbench.kernels.fused.tiling import Tiling, check_supported, strided, tiling
from vbench.kernels.mingru import cost, passes
from vbench.kernels.shapes import Direction


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None, form: str = "fused"
) -> tuple[Tensor, Tensor]:
    """minGRU on CUDA (a scan of affine maps: Martin & Cundy 2018, arXiv:1709.04057, section 2).

    Arguments, results and errors are those of `reference.mingru`. Besides:

    Args:
        form: "fused" works in tiles of tokens, "fused_recurrent" takes all tokens in order, in one launch. Their
            gradient is the same.

    Raises: UnsupportedError for float64, for a device that the kernels do not run on, and for too many tokens.
    """
    check_supported(f"mingru {form}", a, b)
    state = None if state is None else state.float()
    return _forward(a, b, state, direction == "reverse", form == "fused_recurrent")


def _summaries(x: Tensor, b: Tensor, gradient: bool, back: bool, how: Tiling) -> Tensor | None:
    """What the chunks before it hand to each chunk, float32 (2, B, chunks, C); None if there is only one chunk."""
    B, N, C = b.shape
    if how.tiles == 1:
        return None
    found = b.new_empty(2, B, how.tiles, C, dtype=torch.float32)
    args = {**strided("x", x), **strided("b", b), "found": found, "N": N, "C": C, "chunks": how.tiles, "batch": B}
    constants = {"GRADIENT": gradient, "BACK": back, **how.constants, "WIDTH": WIDTH}
    launch(passes.summary_kernel, (B, cdiv(C, WIDTH), how.tiles), args, constants, warps=how.rows)
    return carry(found, B, affine, affine_nothing)


@torch.library.custom_op("vbench::mingru_fused", mutates_args=())
def _forward(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool, sequential: bool) -> tuple[Tensor, Tensor]:
    (B, N, C), how = a.shape, tiling("mingru", a, sequential=sequential)
    check_reach("mingru fused", a, b)
    h, final = a.new_empty(B, N, C, dtype=stored(a)), a.new_empty(B, C, dtype=torch.float32)
    args = {**strided("a", a), **strided("b", b), "state": None if state is None else state.contiguous()}
    args |= {"h": h, "final": final, "N": N, "C": C}
    constants, columns = {"BACK": reverse, **how.constants, "WIDTH": WIDTH}, cdiv(C, WIDTH)
    if how.sequential:
        launch(passes.recurrent_kernel, (B, columns), args | {"tiles": how.tiles}, constants, warps=how.rows)
    else:
        args |= {"carried": _summaries(a, b, False, reverse, how), "chunks": how.tiles, "batch": B}
        launch(passes.apply_kernel, (B, columns, how.tiles), args, constants, warps=how.rows)
    return h.to(a.dtype), final


@torch.library.custom_op("vbench::mingru_fused_backward", mutates_args=())
def _backward(
    dh: Tensor, dfinal: Tensor | None, a: Tensor, b: Tensor, h: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, N, C = a.shape
    how = tiling("mingru", a, gradient=True)
    da, db = (torch.empty_like(h, dtype=stored(h)) for _ in range(2))
    dstate = a.new_empty(B, C, dtype=torch.float32)
    carried = _summaries(dh, b, True, not reverse, how)
    args = {**strided("a", a), **strided("b", b), **strided("dh", dh), "h": h}
    args |= {"initial": None if state is None else state.contiguous()}
    args |= {"state": None if dfinal is None else dfinal.contiguous(), "carried": carried}
    args |= {"da": da, "db": db, "final": dstate, "N": N, "C": C, "chunks": how.tiles, "batch": B}
    constants = {"BACK": not reverse, **how.constants, "WIDTH": WIDTH}
    launch(passes.gradient_kernel, (B, cdiv(C, WIDTH), how.tiles), args, constants, warps=how.rows)
    return da.to(a.dtype), db.to(a.dtype), dstate


@_forward.register_fake
def _(a: Tensor, b: Tensor, state: Tensor | None, reverse: bool, sequential: bool) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape[0], a.shape[2], dtype=torch.float32)


@_backward.register_fake
def _(
    dh: Tensor, dfinal: Tensor | None, a: Tensor, b: Tensor, h: Tensor, state: Tensor | None, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(h), torch.empty_like(h), a.new_empty(a.shape[0], a.shape[2], dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    a, b, state, ctx.reverse, _ = inputs
    ctx.save_for_backward(a, b, output[0], state)


def _gradient(ctx: Any, dh: Tensor | None, dfinal: Tensor | None) -> tuple[Tensor | None, ...]:
    a, b, h, state = ctx.saved_tensors
    da, db, dstate = _backward(torch.zeros_like(h) if dh is None else dh, dfinal, a, b, h, state, ctx.reverse)
    return da, db, None if state is None else dstate, None, None


_forward.register_autograd(_gradient, setup_context=_save)


@register_flop_formula([torch.ops.vbench.mingru_fused])
def _flops(a: Any, b: Any, state: Any, reverse: bool, sequential: bool, **_: Any) -> int:
    form = "fused_recurrent" if sequential else "fused"
    return 2 * cost.macs(form, batch=a[0], tokens=a[1], channels=a[2])


@register_flop_formula([torch.ops.vbench.mingru_fused_backward])
def _flops_backward(dh: Any, *_: Any, **__: Any) -> int:
    return 2 * cost.macs("fused", batch=dh[0], tokens=dh[1], channels=dh[2])
