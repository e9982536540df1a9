"""Gated linear attention in chunks: exact, any N, memory linear in N, both directions in one pass.

Inside a chunk the score of a pair of tokens is damped by the product of the decays between them. Taking
that product as exp(L_i) · exp(-L_j) overflows (ViG's gates have no lower bound), so no decay is ever
divided by. The chunk is folded instead: blocks of 1, 2, 4, ... tokens are joined in pairs. At each join
the queries of one block meet the keys of the other, both already damped up to the common border by
products of decays, all in [0, 1]. After the last join the queries are damped as they read the state at
the chunk's edge, and the keys as they write it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from vbench.kernels.gla import cost
from vbench.kernels.gla.shapes import check
from vbench.kernels.shapes import Direction, accumulator

from vbench.errors import ShapeError

CHUNK = 64  # tokens; a power of two
GROUP = 32  # chunks handled together, so that a group's temporaries stay in cache


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
    chunk: int = CHUNK,
    group: int = GROUP,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, chunkwise form (Yang et al. 2024, arXiv:2312.06635, section 4).

    Arguments, results and errors are those of `reference.gla`; besides:

    Args:
        chunk: tokens a chunk, a power of two.
        group: chunks a group. Inputs are read in place, a group at a time; nothing is flipped.
    """
    check(q, k, v, g, direction, state)
    if chunk < 1 or chunk & (chunk - 1) or group < 1:
        raise ShapeError(f"chunk is a power of two and group at least 1; got {chunk} and {group}")
    if q.is_meta:
        return cost.on_meta(q, k, v, direction, "chunkwise")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    gates = list(g) if direction == "both" else [g]
    return attend(q, k, v, gates, direction, scale=scale, state=state, chunk=chunk, group=group)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: list[Tensor],
    direction: Direction,
    *,
    scale: float,
    state: Tensor | None,
    bonus: Tensor | None = None,
    chunk: int = CHUNK,
    group: int = GROUP,
) -> tuple[Tensor, Tensor]:
    """What `gla` computes, and what operators do whose tokens read a state before they write to it.

    Arguments and results are those of `gla`, but for:

    Args:
        gates: Float[B H N D] for each direction, or one for all.
        bonus: Float[H D]; if given, a token reads each state as it is before the token's own decay and its own
            k and v, and itself once, with k times this factor.
    """
    dtype = accumulator(q)
    reversed_ = {"forward": [False], "reverse": [True], "both": [False, True]}[direction]
    spans = list(_spans(int(q.shape[2]), chunk, group))  # int: under a trace, sizes are tensors

    # Pass 1: what each chunk adds to the state and how much of the state it keeps, then the states.
    added: list[list[Tensor]] = [[] for _ in reversed_]
    kept: list[list[Tensor]] = [[] for _ in reversed_]
    for span in spans:
        keys, values = _tile(k, span, dtype), _tile(v, span, dtype)
        for i, (decay, reverse) in enumerate(zip(_decays(gates, span, reversed_, dtype), reversed_, strict=True)):
            damped, passed = _damp(keys, decay, reverse)
            added[i] += (damped.mT @ values).unbind(2)
            kept[i] += passed.mT.unbind(2)
    if state is None:
        initial = [torch.zeros_like(added[0][0])] * len(reversed_)
    else:
        initial = list(state.to(dtype)) if direction == "both" else [state.to(dtype)]
    carried = [_carry(*each) for each in zip(added, kept, initial, reversed_, strict=True)]

    # Pass 2: what each token reads, from its own chunk by scores and from the rest by the states.
    out: list[Tensor] = []
    done = 0
    for span in spans:
        queries = _tile(q, span, dtype) * scale
        decays = _decays(gates, span, reversed_, dtype)
        scores, reads = _scores(queries, _tile(k, span, dtype), decays, reversed_, bonus)
        states = [torch.stack(entering[done : done + span.chunks], dim=2) for entering, _ in carried]
        o = scores @ _tile(v, span, dtype) + torch.cat(reads, dim=-1) @ torch.cat(states, dim=-2)
        out.append(o.flatten(2, 3)[:, :, : span.stop - span.start].to(q.dtype))
        done += span.chunks
    last = [s for _, s in carried]
    return torch.cat(out, dim=2), torch.stack(last) if direction == "both" else last[0]


@dataclass(frozen=True, slots=True)
class _Span:
    """Tokens [start, stop) taken as chunks of `length` tokens; the last may be ragged."""

    start: int
    stop: int
    length: int

    @property
    def chunks(self) -> int:
        return -(-(self.stop - self.start) // self.length)


def _spans(tokens: int, chunk: int, group: int) -> Iterator[_Span]:
    whole = tokens - tokens % chunk
    for start in range(0, whole, chunk * group):
        yield _Span(start, min(start + chunk * group, whole), chunk)
    if whole < tokens:  # a tail is one chunk of the next power of two, so that a short one costs little
        yield _Span(whole, tokens, 1 << (tokens - whole - 1).bit_length())


def _tile(x: Tensor, span: _Span, dtype: torch.dtype) -> Tensor:
    """Float[B H N X] -> Float[B H chunks length X]. Missing tokens are zeros: no key, no decay."""
    x = x[:, :, span.start : span.stop]
    if missing := span.chunks * span.length - (span.stop - span.start):
        x = pad(x, (0, 0, 0, missing))
    tile: Tensor = x.unflatten(2, (span.chunks, span.length)).to(dtype, memory_format=torch.contiguous_format)
    return tile


def _decays(gates: list[Tensor], span: _Span, reversed_: list[bool], dtype: torch.dtype) -> list[Tensor]:
    """Float[B H chunks length D] for each direction."""
    decays = [_tile(g, span, dtype).exp() for g in gates]
    return decays * (len(reversed_) // len(decays))


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The earlier and the later block of each pair: Float[... blocks m X] -> 2 × Float[... blocks/2 m X]."""
    early, late = x.unflatten(-3, (-1, 2)).unbind(-3)
    return early, late


def _damp(keys: Tensor, decay: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """Keys damped to the edge of the chunk where the state leaves, and the decay of the whole chunk.

    keys, decay: Float[B H n L D] -> Float[B H n L D], Float[B H n 1 D]
    """
    keys, decay = keys.unsqueeze(-2), decay.unsqueeze(-2)
    while keys.shape[-3] > 1:
        (k_early, k_late), (d_early, d_late) = _halves(keys), _halves(decay)
        keys = torch.cat((k_early, k_late * d_early) if reverse else (k_early * d_late, k_late), dim=-2)
        decay = d_early * d_late
    return keys.squeeze(-3), decay.squeeze(-3)


def _scores(
    queries: Tensor, keys: Tensor, decays: list[Tensor], reversed_: list[bool], bonus: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Damped scores inside each chunk, and the queries damped from the edge where each state enters.

    queries, keys, decays: Float[B H n L D] -> Float[B H n L L], a Float[B H n L D] for each direction.
    Forward scores fill the lower triangle, reverse ones the upper; the diagonal counts once for each, or is
    the bonus.
    """
    if bonus is None:
        scores = (queries * keys).sum(-1, keepdim=True) * len(decays)
        reads = [queries * d for d in decays]
    else:
        scores = (queries * keys * bonus.to(keys.dtype)[:, None, None]).sum(-1, keepdim=True)
        reads = [queries] * len(decays)
    scores = scores.unsqueeze(-1)
    each = [
        (q.unsqueeze(-2), keys.unsqueeze(-2), d.unsqueeze(-2), reverse)
        for q, d, reverse in zip(reads, decays, reversed_, strict=True)
    ]
    while scores.shape[-3] > 1:
        joined = []
        s_early, s_late = _halves(scores)
        lower = upper = None
        for q, k, d, reverse in each:
            (q_early, q_late), (k_early, k_late), (d_early, d_late) = _halves(q), _halves(k), _halves(d)
            if reverse:
                upper = q_early @ k_late.mT
                q_early, k_late = q_early * d_late, k_late * d_early
            else:
                lower = q_late @ k_early.mT
                q_late, k_early = q_late * d_early, k_early * d_late
            wider = torch.cat((q_early, q_late), dim=-2), torch.cat((k_early, k_late), dim=-2)
            joined.append((*wider, d_early * d_late, reverse))
        upper = torch.zeros_like(s_early) if upper is None else upper
        lower = torch.zeros_like(s_early) if lower is None else lower
        scores = torch.cat((torch.cat((s_early, upper), -1), torch.cat((lower, s_late), -1)), dim=-2)
        each = joined
    return scores.squeeze(-3), [q.squeeze(-3) for q, *_ in each]


def _carry(added: list[Tensor], kept: list[Tensor], state: Tensor, reverse: bool) -> tuple[list[Tensor], Tensor]:
    """The state that enters each chunk, and the last one: S' = kept · S + added, chunk by chunk."""
    entering = [state] * len(added)
    for i in reversed(range(len(added))) if reverse else range(len(added)):
        entering[i] = state
        state = torch.addcmul(added[i], kept[i], state)
    return entering, state
