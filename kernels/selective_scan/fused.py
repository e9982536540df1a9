"""The selective scan in Triton: all walks of a call in the same launches, and its gradient. The kernels: passes.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.kernels.fused.launch import cdiv, ceiling, check_reach, device_name, launch, power_of_two, stored
from vbench.kernels.fused.layout import with_dense_rows
from vbench.kernels.fused.scans import affine, affine_nothing, carry
from vbench.kernels.fused.tiling import check_supported
from vbench.kernels.selective_scan import chunking, gradient, orders, passes
from vbench.kernels.selective_scan.chunking import Chunking
from vbench.kernels.shapes import Direction

WALKS = {"forward": (1, 1), "reverse": (1, 0), "both": (2, 1), "cross": (4, 2)}  # how many, and how many run ahead


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    z: Tensor | None = None,
    softplus: bool = True,
    direction: Direction = "forward",
    width: int | None = None,
    state: Tensor | None = None,
    form: str = "fused",
) -> tuple[Tensor, Tensor]:
    """The selective scan on CUDA (Gu & Dao 2023, arXiv:2312.00752, section 3.3.2).

    Arguments, results and errors are those of `reference.selective_scan`. Besides:

    Args:
        form: "fused" works in chunks of tokens, "fused_recurrent" takes all tokens in order, in one launch. Their
            gradient is the same.

    Raises: UnsupportedError for float64, for a device that the kernels do not run on, and for too many tokens.
    """
    check_supported(f"selective_scan {form}", u, delta, B, C, *([] if z is None else [z]))
    orders.check(direction, width, int(u.shape[-2]))
    one = WALKS[direction][0] == 1
    walks = [x.unsqueeze(0) if one else x for x in (delta, A.float(), B, C, D.float(), delta_bias.float())]
    before = None if state is None else state.float().unsqueeze(0) if one else state.float()
    train = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (u, delta, A, B, C, D, delta_bias, z, state)
    )
    mapped = u if direction == "both" else u.unsqueeze(0)
    o, final, _ = _forward(mapped, *walks, z, before, softplus, direction, width or 0, train, form == "fused_recurrent")
    return o, final.squeeze(0) if one else final


def _rows(x: Tensor) -> Tensor:
    """x (…, N, S) as kernels read it: each token's numbers are dense and, if 16 divides S, lie where they are loaded
    together. It is copied if they do not: B and C of a model are parts of a projection, and much smaller than u."""
    apart = x.shape[-1] % 16 == 0 and any(side % 16 for side in (x.storage_offset(), *x.stride()[:-1]))
    return x.contiguous() if apart else with_dense_rows(x)


def _strides(name: str, x: Tensor) -> dict[str, Any]:
    """A (walks, B, G, N, ·) view as kernel arguments: itself and its strides, 0 for a walk if all have the same."""
    walk = 0 if x.shape[0] == 1 else x.stride(0)
    strides = dict(zip("bgn", x.stride()[1:], strict=False))
    return {_NAMES.get(name, name): x, f"{name}_w": walk, **{f"{name}_{dim}": side for dim, side in strides.items()}}


_NAMES = {"d": "delta", "w": "written", "r": "read", "m": "mixed"}  # of the tensor, by the names of its strides


def _given(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, z: Tensor | None
) -> dict[str, Any]:
    """The inputs of a call as kernel arguments."""
    args = {**_strides("u", u), **_strides("d", delta), **_strides("w", B), **_strides("r", C)}
    return args | {"rates": A.contiguous(), "skip": D.contiguous(), "bias": bias.contiguous()} | _gate(z)


def _gate(z: Tensor | None) -> dict[str, Any]:
    return {"z": z, **{f"z_{dim}": 0 if z is None else z.stride(i) for i, dim in enumerate("bgn")}}


def _sizes(delta: Tensor, width: int, how: Chunking) -> dict[str, Any]:
    _, batch, groups, N, C = delta.shape
    found = {"N": N, "C": C, "width": width, "length": how.length, "chunks": how.chunks}
    return found | {"batch": batch, "groups": groups}


def _constants(direction: str, softplus: bool, states: int, steps: int, how: Chunking) -> dict[str, Any]:
    walks, ahead = WALKS[direction]
    found = {"WALKS": walks, "AHEAD": ahead, "CROSS": direction == "cross", "SOFTPLUS": softplus, "STATES": states}
    return found | {"PADDED": power_of_two(states), "STEPS": steps, "WIDTH": how.channels}


def _summaries(
    x: Tensor, delta: Tensor, A: Tensor, mixed: Tensor, bias: Tensor, z: Tensor | None,
    softplus: bool, direction: str, width: int, how: Chunking, *, gradient: bool = False,
) -> Tensor | None:  # fmt: skip
    """What the chunks before it hand to each chunk, float32 (2, lines, chunks, S · C); None if there is only one."""
    if how.chunks == 1:
        return None
    (walks, ahead), (_, batch, groups, _, C), S = WALKS[direction], delta.shape, A.shape[-1]
    lines = batch * groups
    found = x.new_empty(2, walks * lines, how.chunks, S * C, dtype=torch.float32)
    args = {**_strides("x", x), **_strides("d", delta), **_strides("m", mixed), **_gate(z)}
    args |= {"rates": A.contiguous(), "bias": bias.contiguous(), "found": found, "size": found.stride(0)}
    constants = {"GRADIENT": gradient, **_constants(direction, softplus, S, chunking.steps(S), how)}
    grid = walks * lines, cdiv(C, how.channels), how.chunks
    launch(passes.summary_kernel, grid, args | _sizes(delta, width, how), constants, warps=how.warps)
    return carry(found, (walks - ahead if gradient else ahead) * lines, affine, affine_nothing)


def _empty(u: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Room for numbers of each token (B, G, N, C), laid out as (B, N, G · C): the next layer reads them so."""
    _, B, G, N, C = u.shape
    return u.new_empty(B, N, G, C, dtype=dtype).transpose(1, 2)


@torch.library.custom_op("vbench::selective_scan_fused", mutates_args=())
def _forward(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, z: Tensor | None,
    state: Tensor | None, softplus: bool, direction: str, width: int, train: bool, sequential: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """o, the final states (walks, B, G, C, S), and the sum before the gate if `train`, else nothing.

    u (1 or 2, B, G, N, C); delta and all after it but z lead with the walks.
    """
    (walks, batch, groups, N, channels), S = delta.shape, A.shape[-1]
    how = chunking.chunking(N, u.shape[:-2].numel(), device_name(u.device), sequential=sequential)
    u, delta, B, C = with_dense_rows(u), with_dense_rows(delta), _rows(B), _rows(C)
    z = None if z is None else with_dense_rows(z)
    check_reach("selective_scan fused", *(x[0] for x in (u, delta, B, C)), *([] if z is None else [z]))
    keep = train and z is not None
    o, final = _empty(u, stored(u)), u.new_empty(walks, batch, groups, channels, S, dtype=torch.float32)
    total = _empty(u, torch.float32) if keep or (walks > 1 and o.dtype != torch.float32) else o
    carried = _summaries(u, delta, A, B, bias, None, softplus, direction, width, how)
    args = _given(u, delta, A, B, C, D, bias, z) | {"state": None if state is None else state.contiguous()}
    args |= {"carried": carried, "size": 0 if carried is None else carried.stride(0)}
    args |= {"total": total, "o": o, "final": final} | _sizes(delta, width, how)
    constants = _constants(direction, softplus, S, chunking.steps(S), how) | {"KEEP": keep}
    grid = batch * groups, cdiv(channels, how.channels), how.chunks
    one_launch = how.chunks == 1 or direction != "cross"  # chunks of rows are not chunks of columns
    for first, stride, count in ((0, 1, walks),) if one_launch else ((0, 2, 2), (1, 2, 2)):
        chosen = {"FIRST": first, "STRIDE": stride, "COUNT": count}
        launch(passes.apply_kernel, grid, args, chosen | constants, warps=how.warps, registers=ceiling(how.warps))
    return o.to(u.dtype), final, total if keep else u.new_empty(0, dtype=torch.float32)


@_forward.register_fake
def _(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, bias: Tensor, z: Tensor | None,
    state: Tensor | None, softplus: bool, direction: str, width: int, train: bool, sequential: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    walks, batch, groups, _, channels = delta.shape
    final = u.new_empty(walks, batch, groups, channels, A.shape[-1], dtype=torch.float32)
    total = _empty(u, torch.float32) if train and z is not None else u.new_empty(0, dtype=torch.float32)
    return _empty(u), final, total


@torch.library.custom_op("vbench::selective_scan_fused_backward", mutates_args=())
def _backward(
    do: Tensor, dfinal: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    bias: Tensor, z: Tensor | None, state: Tensor | None, total: Tensor, softplus: bool, direction: str, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of u, delta, A, B, C, D, bias, z and the state, shaped as these; that of an absent z is empty."""
    (walks, batch, groups, N, channels), S = delta.shape, A.shape[-1]
    how, lines = chunking.gradient_chunking(N), walks * batch * groups
    u, delta, B, C, do = with_dense_rows(u), with_dense_rows(delta), _rows(B), _rows(C), with_dense_rows(do)
    z = None if z is None else with_dense_rows(z)
    check_reach("selective_scan fused", *(x[0] for x in (u, delta, B, C)), do, *([] if z is None else [z]))
    settings = softplus, direction, width, how
    past = _summaries(u, delta, A, B, bias, None, *settings)
    future = _summaries(do.unsqueeze(0), delta, A, C, bias, z, *settings, gradient=True)
    columns = cdiv(channels, how.channels)

    def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return u.new_empty(shape, dtype=dtype)

    shared = u.shape[0] != walks  # all walks read the same u, and their gradients are added
    du = room(walks, batch, N, groups, channels, dtype=torch.float32 if shared else stored(u))
    ddelta = room(walks, batch, N, groups, channels, dtype=stored(delta))
    dB, dC = (room(columns, walks, batch, N, groups, S) for _ in range(2))
    dz = None if z is None else _empty(u, stored(z))
    drates = room(lines, how.chunks, S * channels) if past is None else past[0]
    dskip, dbias = (room(lines, how.chunks, channels) for _ in range(2))
    dstate = room(walks, batch, groups, channels, S)
    args = _given(u, delta, A, B, C, D, bias, z)
    args |= {"do": do, **{f"o_{dim}": do.stride(i) for i, dim in enumerate("bgn")}, "total": total}
    args |= {"state": None if state is None else state.contiguous(), "past": past, "future": future}
    args |= {"entering": None if dfinal is None else dfinal.contiguous(), "size": 0 if past is None else past.stride(0)}
    args |= {"du": du, "ddelta": ddelta, "dwritten": dB, "dread": dC, "dz": dz, "drates": drates, "dskip": dskip}
    args |= {"dbias": dbias, "leaving": dstate} | _sizes(delta, width, how)
    constants = _constants(direction, softplus, S, chunking.gradient_steps(S), how)
    grid = lines, columns, how.chunks
    launch(gradient.gradient_kernel, grid, args, constants, warps=how.warps, registers=ceiling(how.warps))
    found = du.sum(0, keepdim=True) if shared else du
    by_group = [x.view(walks, batch, groups, how.chunks, *shape).sum((1, 3)) for x, shape in (
        (drates, (S, channels)), (dskip, (channels,)), (dbias, (channels,))
    )]  # fmt: skip
    return (
        found.transpose(2, 3).to(u.dtype),
        ddelta.transpose(2, 3).to(delta.dtype),
        by_group[0].mT,
        dB.sum(0).transpose(2, 3).to(B.dtype),
        dC.sum(0).transpose(2, 3).to(C.dtype),
        by_group[1],
        by_group[2],
        room(0) if dz is None or z is None else dz.to(z.dtype),
        dstate,
    )


@_backward.register_fake
def _(
    do: Tensor, dfinal: Tensor | None, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor,
    bias: Tensor, z: Tensor | None, state: Tensor | None, total: Tensor, softplus: bool, direction: str, width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    walks, batch, groups, N, channels = delta.shape

    def tokens(x: Tensor, leading: int) -> Tensor:
        return x.new_empty(leading, batch, N, groups, x.shape[-1]).transpose(2, 3)

    S = A.shape[-1]
    return (
        tokens(u, u.shape[0]),
        tokens(delta, walks),
        A.new_empty(walks, groups, S, channels).mT,
        tokens(B, walks),
        tokens(C, walks),
        torch.empty_like(D, memory_format=torch.contiguous_format),
        torch.empty_like(bias, memory_format=torch.contiguous_format),
        u.new_empty(0, dtype=torch.float32) if z is None else _empty(u, z.dtype),
        A.new_empty(walks, batch, groups, channels, S),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.softplus, ctx.direction, ctx.width, _, _ = inputs
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[2])


def _gradient(ctx: Any, do: Tensor | None, dfinal: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    u, *rest, z, state, total = ctx.saved_tensors
    do = torch.zeros_like(_empty(u)) if do is None else do
    *found, dz, dstate = _backward(do, dfinal, u, *rest, z, state, total, ctx.softplus, ctx.direction, ctx.width)
    return *found, None if z is None else dz, None if state is None else dstate, *[None] * 5


_forward.register_autograd(_gradient, setup_context=_save)


@register_flop_formula([torch.ops.vbench.selective_scan_fused])
def _flops(u: Any, delta: Any, A: Any, *rest: Any, **_: Any) -> int:
    walks, batch, groups, tokens, channels = delta
    form = "fused_recurrent" if rest[-1] else "fused"
    return 2 * chunking.macs(form, batch, groups, tokens, channels, A[-1], walks)


@register_flop_formula([torch.ops.vbench.selective_scan_fused_backward])
def _flops_backward(do: Any, dfinal: Any, u: Any, delta: Any, A: Any, *_: Any, **__: Any) -> int:
    walks, batch, groups, tokens, channels = delta
    return 2 * chunking.gradient_macs(batch, groups, tokens, channels, A[-1], walks)
