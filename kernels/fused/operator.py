"""Family A as one operator of torch's: `vbench::matrix_state`, with shapes, FLOPs and gradients that torch can ask for.

The four operators are four policies of it (`gla`, `wkv6`, `retention`, `mlstm`: each its own `fused.py`).
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
from vbench.kernels.fused.launch import can_run, device_name
from vbench.kernels.fused.policy import Policy
from vbench.kernels.fused.tuning import chunk_of, pick
from vbench.kernels.fused.walk import walk
from vbench.kernels.registry import missing

GRADIENT_CHUNK = {"vector": 16, "head": 32, "gate": 32}  # more tokens a chunk do not fit the registers
GRADIENT_WARPS = 4


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
    decay: str,
    exclusive: bool,
    direction: str,
    query_scale: float,
    key_scale: float,
    eps: float,
    op: str,
    form: str,
) -> list[Tensor]:
    """An operator with a matrix state, by Triton kernels.

        S_t = decay_t S_{t-1} + key_scale · k_t v_t^T      o_t = query_scale · S_t^T q_t

    Args:
        q, k: (B, H, N, D). v: (B, H, N, E). Views with any strides; o is computed in the type of q.
        gates, inputs, bonus: as `chunks.attend` takes them; `inputs` make it stable.
        state: what is carried in: none, or all of what is carried out.
        decay, exclusive: the fields of a `Policy`. direction: "forward", "reverse" or "both".
        op, form: by which the tuning table is asked for chunk and warps, here and not by the caller, so that who traces
            a call need not follow.

    Returns: o (B, H, N, E); and what is carried out, in float32: (directions · B · H, D · E), and with `inputs`
        (B · H, D) and (B · H,).
    Raises: UnsupportedError if the form cannot run on q.
    """
    chunk, warps = choose(op, form, q)
    policy = Policy(decay, exclusive, inputs is not None)  # type: ignore[arg-type]
    scales = {"query_scale": query_scale, "key_scale": key_scale, "eps": eps}
    rest = {**scales, "inputs": inputs, "bonus": bonus, "state": tuple(state)}
    if chunk:
        o, final = attend(q, k, v, gates, policy, direction, chunk=chunk, warps=warps, **rest)  # type: ignore[arg-type]
    else:
        o, final = walk(q, k, v, gates, policy, direction, **rest)  # type: ignore[arg-type]
    return [o, *final]


@matrix_state.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, inputs: Tensor | None, *rest: Any) -> list[Tensor]:
    B, H, _, D = q.shape
    E = v.shape[-1]
    ways = 2 if rest[4] == "both" else 1
    o = q.new_empty(B, q.shape[2], H, E).transpose(1, 2)
    final = [q.new_empty(ways * B * H, D * E, dtype=torch.float32)]
    if inputs is not None:
        final += [q.new_empty(B * H, D, dtype=torch.float32), q.new_empty(B * H, dtype=torch.float32)]
    return [o, *final]


@register_flop_formula(torch.ops.vbench.matrix_state)
def _flops(
    q: Any,
    k: Any,
    v: Any,
    gates: Any,
    inputs: Any,
    bonus: Any,
    state: Any,
    decay: str,
    exclusive: bool,
    direction: str,
    query_scale: float,
    key_scale: float,
    eps: float,
    op: str,
    form: str,
    **_: Any,
) -> int:
    policy = Policy(decay, exclusive, inputs is not None)  # type: ignore[arg-type]
    sizes = dict(zip(("batch", "heads", "tokens", "key_dim"), q, strict=True))
    chunk = chunk_of(op, form, q[2], q[0] * q[1])
    call = cost.Call(**sizes, value_dim=v[3], directions=2 if direction == "both" else 1, chunk=chunk)
    return 2 * cost.macs(policy, call)


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
    decay: str,
    exclusive: bool,
    direction: str,
    query_scale: float,
    key_scale: float,
    eps: float,
) -> list[Tensor]:
    """Gradients of what `matrix_state` takes: q, k, v, gates, inputs and bonus if there are any, and the state."""
    policy = Policy(decay, exclusive, inputs is not None)  # type: ignore[arg-type]
    found = gradients(
        o_grad,
        tuple(x.contiguous() for x in final_grad),
        q,
        k,
        v,
        gates,
        policy,
        direction,  # type: ignore[arg-type]
        chunk=GRADIENT_CHUNK[decay],
        warps=GRADIENT_WARPS,
        query_scale=query_scale,
        key_scale=key_scale,
        inputs=inputs,
        bonus=bonus,
        eps=eps,
        state=tuple(state),
    )
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
    (B, H, _, D), E = q.shape, v.shape[-1]
    ways = 2 if rest[3] == "both" else 1
    found = [x.new_empty(B, x.shape[2], H, x.shape[3]).transpose(1, 2) for x in (q, k, v)]
    found += [x.new_empty(x.shape) for x in (gates, inputs, bonus) if x is not None]
    found.append(q.new_empty(ways * B * H, D * E, dtype=torch.float32))
    if inputs is not None:
        found += [q.new_empty(B * H, D, dtype=torch.float32), q.new_empty(B * H, dtype=torch.float32)]
    return found


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *tensors, state, decay, exclusive, direction, query_scale, key_scale, eps, _, _ = inputs
    ctx.save_for_backward(*tensors, *state)
    ctx.settings = (decay, exclusive, direction, query_scale, key_scale, eps)
    ctx.set_materialize_grads(True)


def _backward(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    q, k, v, gates, inputs, bonus, *state = ctx.saved_tensors
    o_grad, *final_grad = grads
    found = matrix_state_gradients(
        o_grad,
        final_grad,
        q,
        k,
        v,
        gates,
        inputs,
        bonus,
        state,
        *ctx.settings,
    )
    places = iter(found)
    named = [next(places) if x is not None else None for x in (q, k, v, gates, inputs, bonus)]
    rest = list(places)
    return (*named, rest if state else [], *[None] * 8)


matrix_state.register_autograd(_backward, setup_context=_save)
