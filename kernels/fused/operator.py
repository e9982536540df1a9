"""`vbench::matrix_state`: the operators with a matrix state as one operator of torch, with shapes, FLOPs and gradients.

`gla`, `wkv6`, `retention` and `mlstm` are four policies of it; each has its own `fused.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from vbench.errors import UnsupportedError
from vbench.kernels.fused import cost
from vbench.kernels.fused.chunks import attend
from vbench.kernels.fused.gradient import gradients
from vbench.kernels.fused.launch import can_run, check_reach, device_name
from vbench.kernels.fused.layout import dense, empty_state
from vbench.kernels.fused.policy import POLICIES, Operands
from vbench.kernels.fused.tuning import chunk_of, pick
from vbench.kernels.fused.walk import walk
from vbench.kernels.registry import missing
from vbench.kernels.shapes import Direction, State

GRADIENT_CHUNK = {"vector": 16, "head": 32, "gate": 32}  # more tokens a chunk do not fit the registers
GRADIENT_WARPS = 4


def run(
    op: str,
    form: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    inputs: Tensor | None = None,
    bonus: Tensor | None = None,
    *,
    state: State | None,
    direction: Direction = "forward",
    query_scale: float = 1.0,
    key_scale: float = 1.0,
    eps: float = 0.0,
) -> tuple[Tensor, Any]:
    """A fused form of an operator: its output and its final state, shaped as `state`.

    Arguments are those of `policy.Operands`, except the state, which has the shapes that the operator declares.

    Raises: UnsupportedError if the form cannot run on q.
    """
    (B, H, _, D), E = q.shape, v.shape[-1]
    parts = () if state is None else state if isinstance(state, tuple) else (state,)
    before = [x.float().contiguous().view(rows) for x, rows in zip(parts, ((-1, D * E), (-1, D), (-1,)), strict=False)]
    scales = (query_scale, key_scale, eps)
    o, *final = matrix_state(q, k, v, gates, inputs, bonus, before, direction, *scales, op, form)
    matrix = final[0].view(*((2,) if direction == "both" else ()), B, H, D, E)
    return o, (matrix, final[1].view(B, H, D), final[2].view(B, H)) if final[1:] else matrix


def choose(op: str, form: str, q: Tensor) -> tuple[int, int]:
    """(chunk, warps) of `matrix_state` for a call with queries q (B, H, N, D).

    Raises: UnsupportedError if `form` cannot run on q.
    """
    reason = missing(op, form, "cuda" if can_run(q) else q.device.type, str(q.dtype).removeprefix("torch."))
    if reason:
        raise UnsupportedError(reason)
    device = device_name(q.device)
    rows = q.shape[0] * q.shape[1]
    return chunk_of(op, form, q.shape[2], rows, device), pick(op, q.shape[2], rows, device).warps


@torch.library.custom_op("vbench::matrix_state", mutates_args=())
def matrix_state(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    inputs: Tensor | None,
    bonus: Tensor | None,
    state: Sequence[Tensor],
    direction: str,
    query_scale: float,
    key_scale: float,
    eps: float,
    op: str,
    form: str,
) -> list[Tensor]:
    """An operator with a matrix state, by Triton kernels; arguments are those of `policy.Operands`.

    Chunk and warps are looked up here, by `op` and `form`, so that a trace does not see the look-up.

    Returns: o (B, H, N, E) in the type of q, and the final state, as `state` in `policy.Operands`.
    Raises: UnsupportedError if the form cannot run on q, or not on so many tokens.
    """
    chunk, warps = choose(op, form, q)
    check_reach(f"{op} {form}", q, k, v, *([gates[0]] if gates.ndim == 5 else [gates] if gates.ndim == 4 else []))
    x = _operands(op, direction, q, k, v, gates, inputs, bonus, query_scale, key_scale, eps, state)
    o, final = attend(x, chunk, warps) if chunk else walk(x)
    return [o, *final]


def _operands(op: str, direction: str, *given: Any) -> Operands:
    *rest, state = given
    return dense(Operands(POLICIES[op], direction, *rest, tuple(state)))  # type: ignore[arg-type,call-arg]


@matrix_state.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, inputs: Tensor | None, *rest: Any) -> list[Tensor]:
    B, H, N, _ = q.shape
    final = empty_state(q, v, 2 if rest[2] == "both" else 1, stable=inputs is not None)
    return [q.new_empty(B, N, H, v.shape[-1]).transpose(1, 2), *final]


@register_flop_formula(torch.ops.vbench.matrix_state)
def _flops(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
    direction, op, form = rest[4], *rest[-2:]
    B, H, N, D = q
    return 2 * cost.macs(cost.call(op, form, B, H, N, D, v[3], 2 if direction == "both" else 1))


@torch.library.custom_op("vbench::matrix_state_gradients", mutates_args=())
def matrix_state_gradients(
    o_grad: Tensor,
    final_grad: Sequence[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    inputs: Tensor | None,
    bonus: Tensor | None,
    state: Sequence[Tensor],
    direction: str,
    query_scale: float,
    key_scale: float,
    eps: float,
    op: str,
) -> list[Tensor]:
    """Gradients of the tensors that `matrix_state` takes: q, k, v, gates, inputs and bonus if given, and the state."""
    x = _operands(op, direction, q, k, v, gates, inputs, bonus, query_scale, key_scale, eps, state)
    entering = tuple(part.contiguous() for part in final_grad)
    found = gradients(x, o_grad, entering, GRADIENT_CHUNK[x.policy.decay], GRADIENT_WARPS)
    named = [found[name] for name in ("q", "k", "v", "gates", "inputs", "bonus") if name in found]
    return [*named, *found["state"]]


@matrix_state_gradients.register_fake
def _(
    o_grad: Tensor,
    final_grad: Sequence[Tensor],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Tensor,
    inputs: Tensor | None,
    bonus: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    found = [x.new_empty(x.shape[0], x.shape[2], x.shape[1], x.shape[3]).transpose(1, 2) for x in (q, k, v)]
    found += [x.new_empty(x.shape) for x in (gates, inputs, bonus) if x is not None]
    return [*found, *empty_state(q, v, 2 if rest[1] == "both" else 1, stable=inputs is not None)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, state, direction, query_scale, key_scale, eps, op, _ = inputs
    ctx.save_for_backward(*tensors, *state)
    ctx.settings = (direction, query_scale, key_scale, eps, op)
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    tensors, state = ctx.saved_tensors[:6], ctx.saved_tensors[6:]
    found = iter(matrix_state_gradients(grads[0], grads[1:], *tensors, state, *ctx.settings))
    named = [next(found) if x is not None else None for x in tensors]
    rest = list(found)
    return (*named, rest if state else [], *[None] * 6)


matrix_state.register_autograd(_backward, setup_context=_save)
