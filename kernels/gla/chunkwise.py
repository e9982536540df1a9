"""Gated linear attention in chunks: exact, any N, memory linear in N, both directions in one pass.

Inside a chunk the score of a pair of tokens is damped by the product of the decays between them. Taking
that product as exp(L_i) · exp(-L_j) overflows (ViG's gates have no lower bound), so nothing is divided by a
decay. The chunk is folded instead: blocks of 1, 2, 4, ... tokens are joined in pairs. At each join
the queries of one block meet the keys of the other, both already damped up to the common border by
products of decays, all in [0, 1]. After the last join the queries are damped as they read the state at
the chunk's edge, and the keys as they write it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from vbench.errors import ShapeError
from vbench.kernels.blocks import Output, Span, carry, exporting, spans
from vbench.kernels.gla.cost import chunk_of
from vbench.kernels.shapes import Direction, accumulator

GROUP = 96  # chunks of all heads handled together, so that a group's temporaries stay in cache


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    state: Tensor | None = None,
    chunk: int | None = None,
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Gated linear attention, chunkwise form (Yang et al. 2024, arXiv:2312.06635, section 4).

    Arguments, results and errors are those of `reference.gla`; besides:

    Args:
        chunk: tokens a chunk, a power of two; `cost.chunk_of` the tokens if None.
        group: chunks a group; if None, as many as GROUP allows for all heads. Inputs are read in place, a group at
            a time; nothing is flipped.
    """
    if chunk and chunk & (chunk - 1):
        raise ShapeError(f"chunk is a power of two; got {chunk}")
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
    chunk: int | None = None,
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """What `gla` computes. With `bonus`, also operators whose tokens read a state before they write to it.

    Arguments and results are those of `gla`, except:

    Args:
        gates: Float[B H N D] for each direction, or one for all.
        bonus: Float[H D]; if given, a token reads each state as it is before the token's own decay and its own
            k and v, and itself once, with k times this factor.
    """
    dtype = accumulator(q)
    B, H, N, D = (int(side) for side in q.shape)  # int: under a trace, sizes are tensors
    E = int(v.shape[-1])
    ways = {"forward": (False,), "reverse": (True,), "both": (False, True)}[direction]  # whether each is reverse
    if state is None:
        states = [q.new_zeros(B, H, D, E, dtype=dtype)] * len(ways)
    else:
        states = list(state.to(dtype)) if direction == "both" else [state.to(dtype)]
    cut = spans(N, chunk_of(N) if chunk is None else chunk, group, GROUP // (B * H), padded=True)
    out = Output(v, (B, H, N, E), 2, dtype)

    # First direction: what tokens read from their own chunk, in all directions, and from the first state.
    later: list[tuple[Span, Tensor, Tensor, Tensor, Tensor]] = []
    for span in reversed(cut) if ways[0] else cut:
        queries, keys, values = _tile(q, span, dtype, scale), _tile(k, span, dtype), _tile(v, span, dtype)
        own = (queries * keys).view(B, H, -1, D)
        own = own.sum(-1) * len(ways) if bonus is None else (own * bonus.to(dtype).unsqueeze(1)).sum(-1)
        scores = _diagonal(own.view(-1, span.length), both=len(ways) == 2)
        decays = [_tile(g, span, dtype).exp_() for g in gates] * (len(ways) // len(gates))
        folded = []
        for decay, reverse in zip(decays, ways, strict=True):
            reads = queries * decay if bonus is None else queries.clone()
            if exporting():
                reads, writes, kept, met = _folded(reads, keys, decay, reverse)
                scores = scores + met
            else:
                reads, writes, kept = _fold(reads, keys.clone(), decay, scores, reverse)
            folded.append((reads, writes.mT @ values, kept))
        del queries, keys, decays, decay, reads, writes  # the states of a short sequence are as large
        entering, states[0] = _carry(*folded[0][1:], states[0], ways[0])
        o = torch.baddbmm(scores @ values, folded[0][0], entering)
        if len(ways) == 1:
            out.put(span.start, _untile(o, span, B, H))
        later += [(span, o, *each) for each in folded[1:]]
        del values, scores, folded, entering

    # Second direction: what tokens read from the other state.
    while later:
        span, o, reads, added, kept = later.pop()
        entering, states[1] = _carry(added, kept, states[1], ways[1])
        out.put(span.start, _untile(torch.baddbmm(o, reads, entering), span, B, H))
    return out.whole().to(q.dtype), torch.stack(states) if direction == "both" else states[0]


def _tile(x: Tensor, span: Span, dtype: torch.dtype, factor: float = 1.0) -> Tensor:
    """Float[B H N X] times a factor -> Float[B·H·chunks length X]. Missing tokens are zeros: no key, no decay."""
    x = x[:, :, span.start : span.stop].to(dtype)
    if missing := span.chunks * span.length - (span.stop - span.start):
        x = pad(x, (0, 0, 0, missing))
    x = x.unflatten(2, (span.chunks, span.length))
    # With `out`, one pass writes the tiles; autograd does not support it.
    made = (
        (x * factor).contiguous()
        if torch.is_grad_enabled() or exporting()
        else torch.mul(x, factor, out=x.new_empty(x.shape))
    )
    return made.flatten(0, 2)


def _diagonal(own: Tensor, *, both: bool) -> Tensor:
    """Scores of tokens with themselves, Float[b L] -> Float[b L L]; if `both`, other entries are to be written."""
    if exporting():
        return own.diag_embed()
    scores = (own.new_empty if both else own.new_zeros)(*own.shape, own.shape[-1])
    scores.diagonal(dim1=1, dim2=2).copy_(own)
    return scores


def _untile(x: Tensor, span: Span, batch: int, heads: int) -> Tensor:
    """What `_tile` made, Float[B·H·chunks length X] -> Float[B H tokens X]."""
    return x.view(batch, heads, -1, x.shape[-1])[:, :, : span.stop - span.start]


def _fold(queries: Tensor, keys: Tensor, decay: Tensor, scores: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Join the blocks of each chunk in pairs, and write the damped scores of their tokens.

    queries, keys, decay: Float[b L D]; scores: Float[b L L]. Its lower triangle is written, in reverse the upper one.
    Without gradients, queries and keys are written to.

    Returns: queries damped from the edge where the state enters, keys damped to the edge where it leaves,
        both Float[b L D], and the decay of the whole chunk, Float[b D].
    """
    b, length, D = queries.shape
    to, of = (0, 1) if reverse else (1, 0)  # block `to` of a pair reads block `of`
    size = 1
    while size < length:
        queries, keys = queries.view(-1, 2, size, D), keys.view(-1, 2, size, D)  # b·pairs 2 size D
        halves = decay.view(-1, 2, 1, D).unbind(1)
        met = torch.bmm(queries.select(1, to), keys.select(1, of).mT).view(b, -1, size, size)
        blocks = scores.view(b, -1, 2, size, length // (2 * size), 2, size).select(5, of).select(2, to)
        blocks.diagonal(dim1=1, dim2=3).copy_(met.movedim(1, -1))
        queries, keys = _damp(queries, to, halves[of]), _damp(keys, of, halves[to])
        decay = halves[0] * halves[1]
        size *= 2
    return queries.view(b, length, D), keys.view(b, length, D), decay.view(b, D)


def _folded(queries: Tensor, keys: Tensor, decay: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`_fold` for an export, which takes no writes into views: the scores, Float[b L L], come last; 0 elsewhere."""
    queries, keys, decay = queries.unsqueeze(2), keys.unsqueeze(2), decay.unsqueeze(2)
    scores = queries.new_zeros(*queries.shape[:2], 1, 1)
    while queries.shape[1] > 1:
        (early_q, late_q), (early_k, late_k), (early, late), (above, below) = (
            x.unflatten(1, (-1, 2)).unbind(2) for x in (queries, keys, decay, scores)
        )
        met = early_q @ late_k.mT if reverse else late_q @ early_k.mT
        corners = (met, torch.zeros_like(met)) if reverse else (torch.zeros_like(met), met)
        scores = torch.cat((torch.cat((above, corners[0]), -1), torch.cat((corners[1], below), -1)), -2)
        if reverse:
            queries, keys = torch.cat((early_q * late, late_q), 2), torch.cat((early_k, late_k * early), 2)
        else:
            queries, keys = torch.cat((early_q, late_q * early), 2), torch.cat((early_k * late, late_k), 2)
        decay = early * late
    return queries.squeeze(1), keys.squeeze(1), decay.flatten(1), scores.squeeze(1)


def _damp(x: Tensor, block: int, decay: Tensor) -> Tensor:
    """One block of each pair damped: Float[n 2 size D], Float[n 1 D] -> Float[n 2 size D]."""
    if torch.is_grad_enabled():  # autograd keeps x for the gradient of a product
        x = x.clone()
    x.select(1, block).mul_(decay)
    return x


def _carry(added: Tensor, kept: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """As `blocks.carry`: added Float[B·H·chunks D E], kept Float[B·H·chunks D] -> as added, and Float[B H D E]."""
    size = (*state.shape[:2], -1)
    entering, state = carry(added.unflatten(0, size), kept.unsqueeze(-1).unflatten(0, size), state, reverse)
    return entering.flatten(0, 2), state
