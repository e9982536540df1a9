"""The selective scan in linear space: exact, any N, memory linear in N, few steps.

A run of tokens acts on each number of the state as h -> keep · h + feed, as in minGRU, and minGRU's scan joins and
walks such pairs here too. keep and feed have S numbers a token and channel, so they are made for a group of tokens at a
time, read, and forgotten; for a gradient they are made again. Nothing is divided by a decay, so a strong one is exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from vbench.kernels.blocks import Output, exporting, scanned, turned
from vbench.kernels.mingru.scan import scan_pairs
from vbench.kernels.selective_scan.cost import GROUP, span_of
from vbench.kernels.selective_scan.orders import Walk, side_by_side, walks
from vbench.kernels.shapes import Direction, accumulator

GROUPS = {"cpu": GROUP, "cuda": 1 << 24}  # numbers that a temporary holds; a CPU keeps them in its cache


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
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The selective scan, parallel form (a scan of affine maps: Gu & Dao 2023, arXiv:2312.00752, section 3.3.2).

    Arguments, results and errors are those of `reference.selective_scan`; besides:

    Args:
        group: how many numbers are handled together; if None, what suits the device. Inputs are read in place, a group
            of tokens at a time, but for walks along columns, whose tokens are copied into their order.
    """
    dtype = accumulator(u)
    room = GROUPS.get(u.device.type, GROUP) if group is None else group
    found = list(walks(direction, width, u, delta, A, B, C, D, delta_bias, state))
    together = exporting() and len(found) > 1
    done = _together(found, dtype, softplus, room) if together else (_walk(w, dtype, softplus, room) for w in found)
    total, ends = None, []
    for y, h in done:
        total = y if total is None else total + y
        ends.append(h)
    assert total is not None
    o = total if z is None else total * F.silu(z.to(dtype))
    return o.to(u.dtype), ends[0] if len(ends) == 1 else torch.stack(ends)


def _together(found: Sequence[Walk], dtype: torch.dtype, softplus: bool, room: int) -> Iterator[tuple[Tensor, Tensor]]:
    """What `_walk` gives for each, from one walk over the groups of all: a graph has its operations once."""
    read, last = _walk(side_by_side(found), dtype, softplus, room)
    for walk, y, h in zip(found, read.chunk(len(found), dim=1), last.chunk(len(found), dim=1), strict=True):
        yield walk.back(y), h


def _walk(walk: Walk, dtype: torch.dtype, softplus: bool, room: int) -> tuple[Tensor, Tensor]:
    """One walk: y Float[B G N C] with the skip, tokens in the caller's order, and the last h Float[B G C S]."""
    tokens = tuple(walk.ordered(x) for x in (walk.u, walk.delta, walk.B, walk.C))
    A, D, bias = (x.to(dtype) for x in (walk.A, walk.D, walk.delta_bias))
    batch, groups, N, channels = map(int, walk.u.shape)  # int: under a trace, sizes are tensors
    states = int(A.shape[-1])
    h = A.new_zeros(batch, groups, channels, states) if walk.state is None else walk.state.to(dtype)
    span = span_of(batch * groups * channels * states, room)
    if exporting() and span < N:
        y, h = _exported(tokens, A, D, bias, h, softplus, walk.reverse, span)
        return walk.restored(y), h
    out = Output(h, (batch, groups, N, channels), 2, dtype)
    for start in turned(range(0, N, span), walk.reverse):
        part = tuple(x[:, :, start : start + span] for x in tokens)
        arguments: tuple[Any, ...] = (*part, A, D, bias, h, softplus, walk.reverse)
        if torch.is_grad_enabled():  # what a group makes is made again for its gradient, and never kept for all tokens
            y, h = checkpoint(_group, *arguments, use_reentrant=False, preserve_rng_state=False)
        else:
            y, h = _group(*arguments)
        out.put(start, y)
    return walk.restored(out.whole()), h


def _group(
    u: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    D: Tensor,
    bias: Tensor,
    h: Tensor,
    softplus: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """Some tokens, which a walk meets after the state h: y Float[B G n C], and the state after them."""
    fed = u.to(h.dtype)
    step = delta.to(h.dtype) + bias.unsqueeze(-2)
    step = F.softplus(step) if softplus else step
    y, h = _read(step, step * fed, B.to(h.dtype), C.to(h.dtype), A, h, reverse)
    return torch.addcmul(y, D.unsqueeze(-2), fed), h


def _read(
    step: Tensor, fed: Tensor, B: Tensor, C: Tensor, A: Tensor, h: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """What the tokens read, Float[B G n C], and the state after them. step, fed: δ and δ · u, Float[B G n C]."""
    shape = (*map(int, step.shape), int(A.shape[-1]))
    flat = (shape[0] * shape[1], shape[2], shape[3] * shape[4])
    keep = (step.unsqueeze(-1) * A.unsqueeze(-3)).exp()  # Float[B G n C S]
    feed = fed.unsqueeze(-1) * B.unsqueeze(-2)  # Float[B G n C S]
    states = scan_pairs(keep.reshape(flat), feed.reshape(flat), h.reshape(flat[0], flat[2]), reverse)
    last = states[:, 0 if reverse else -1].reshape(h.shape).clone(memory_format=torch.contiguous_format)
    states = states.view(shape)
    y = states.squeeze(-1) * C if shape[-1] == 1 else (states @ C.unsqueeze(-1)).squeeze(-1)
    return y, last


def _exported(
    tokens: tuple[Tensor, ...],
    A: Tensor,
    D: Tensor,
    bias: Tensor,
    h: Tensor,
    softplus: bool,
    reverse: bool,
    span: int,
) -> tuple[Tensor, Tensor]:
    """A walk of many groups as one operation of a graph, a group a step."""
    N = int(tokens[0].shape[2])
    u, delta, B, C = (x.to(h.dtype) for x in tokens)
    step = delta + bias.unsqueeze(-2)
    step = F.softplus(step) if softplus else step
    items = tuple(  # tokens that are missing have a step of 0: they keep all and add nothing
        pad(x, (0, 0, 0, -N % span)).unflatten(2, (-1, span)) for x in (step, step * u, B, C)
    )

    def some(state: Tensor, item: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        step, fed, B, C = item
        y, last = _read(step, fed, B, C, A, state, reverse)
        return last, y

    h = h.clone(memory_format=torch.contiguous_format)  # a loop's state has the same strides before and after a step
    h, y = scanned(some, h, items, 2, reverse)
    return torch.addcmul(y.flatten(2, 3)[:, :, :N], D.unsqueeze(-2), u), h
