"""The matrix LSTM in chunks: exact, any N, memory linear in N, either direction without a flip.

The stabiliser of every token is known beforehand, from running sums and maxima of the gates alone. With it,
a chunk is three matrix products: its tokens' scores times its values, its queries times the state that
enters, and its keys times its values, which is what it adds to the state. All weights are exponentials of
numbers <= 0; the sums of log gates in them run over one chunk, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from vbench.kernels.blocks import Output, carry, exporting, spans
from vbench.kernels.mlstm.cost import chunk_of
from vbench.kernels.mlstm.readout import EPS, normalise
from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction, accumulator

GROUP = 48  # chunks of all heads handled together, so that the states of wide heads stay in cache


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    *,
    direction: Direction = "forward",
    scale: float | None = None,
    eps: float = EPS,
    state: Memory | None = None,
    chunk: int | None = None,
    group: int | None = None,
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, chunkwise form (Beck et al. 2025, arXiv:2503.14376).

    Arguments, results and errors are those of `reference.mlstm`; besides:

    Args:
        chunk: tokens a chunk; `cost.chunk_of` the tokens if None.
        group: chunks a group; if None, as many as GROUP allows for all heads. Inputs are read in place, a group at
            a time.
    """
    dtype, reverse = accumulator(q), direction == "reverse"
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    C, n, m = memory(q, v, state)
    i, log_f = i.double(), logsigmoid(f.double())
    stabilisers = _stabilisers(i, log_f, m, reverse).to(dtype)

    B, H, N, E = (int(side) for side in v.shape)  # int: under a trace, sizes are tensors
    out = Output(q, (B, H, N, E), 2, q.dtype)
    cut = spans(N, chunk_of(N) if chunk is None else chunk, group, GROUP // (B * H))
    for span in reversed(cut) if reverse else cut:
        m_t = span.tile(stabilisers)
        pair, read, feed, keep, m = _weights(span.tile(i), span.tile(log_f), m_t, m, reverse)
        queries, values = span.tile(q, dtype), span.tile(v, dtype)
        keys = span.tile(k, dtype) * scale

        fed = keys * feed.unsqueeze(-1)
        entering_C, C = carry(fed.mT @ values, keep[..., None, None], C, reverse)
        entering_n, n = carry(fed.sum(-2), keep.unsqueeze(-1), n, reverse)

        scores = queries @ keys.mT * pair
        reads = queries * read.unsqueeze(-1)
        num = scores @ values + reads @ entering_C
        den = scores.sum(-1) + (reads @ entering_n.unsqueeze(-1)).squeeze(-1)
        out.put(span.start, normalise(num, den, m_t, eps).flatten(2, 3))
    return out.whole(), (C, n, m)


def _stabilisers(i: Tensor, log_f: Tensor, m: Tensor, reverse: bool) -> Tensor:
    """m_t = max(m_0 + Σ_{u<=t} log_f_u, max_{j<=t} i_j + Σ_{j<u<=t} log_f_u) of every token: Float[B H N].

    The sums run over all tokens. Their rounding error is the same wherever m_t is used, and cancels.
    """
    if reverse:
        i, log_f = i.flip(2), log_f.flip(2)
    b = log_f.cumsum(2)
    m_t = b + torch.maximum(_highest(i - b), m.unsqueeze(-1))
    return m_t.flip(2) if reverse else m_t


def _highest(x: Tensor) -> Tensor:
    """The running maximum: Float[B H N] -> Float[B H N]. An export takes it in log N steps: ONNX has no cummax."""
    if not exporting():
        return x.cummax(2).values
    far = 1
    while far < x.shape[2]:
        x = torch.maximum(x, pad(x[..., :-far], (far, 0), value=-torch.inf))
        far *= 2
    return x


def _weights(
    i: Tensor, log_f: Tensor, m_t: Tensor, m: Tensor, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The weights of each pair of tokens in a chunk, and of the states at its edges, relative to e^m.

    i, log_f, m_t: Float[B H n L]; m: Float[B H], of the state that enters the group.

    Returns: pair Float[B H n L L], the weight of token j in what token t reads; read Float[B H n L], of the entering
        state in what t reads; feed Float[B H n L], of token j in the leaving state; keep Float[B H n], of the
        entering state in the leaving one; and the m of the state that leaves the group.
    """
    b = log_f.flip(3).cumsum(3).flip(3) if reverse else log_f.cumsum(3)
    total, leaving = (b[..., 0], m_t[..., 0]) if reverse else (b[..., -1], m_t[..., -1])
    edges = torch.cat((leaving, m.unsqueeze(2)) if reverse else (m.unsqueeze(2), leaving), dim=2)
    entering, m = (edges[..., 1:], edges[..., 0]) if reverse else (edges[..., :-1], edges[..., -1])
    at = torch.arange(b.shape[-1], device=b.device)
    unseen = at[:, None] > at if reverse else at[:, None] < at
    pair = ((b - m_t).unsqueeze(-1) + (i - b).unsqueeze(-2)).to(m.dtype).masked_fill(unseen, -torch.inf)
    read = b + entering.unsqueeze(-1) - m_t
    feed = (total - leaving).unsqueeze(-1) + i - b
    keep = total + entering - leaving
    return pair.exp(), read.to(m.dtype).exp(), feed.to(m.dtype).exp(), keep.to(m.dtype).exp(), m
