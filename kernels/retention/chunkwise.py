"""Retention in chunks: exact, any N, memory linear in N, the states of a group of chunks in one product.

The decay between two tokens depends on their distance alone, so a few small tables, all of numbers in
[0, 1], damp everything: scores inside a chunk, keys up to its end, queries from its start, and what each
chunk of a group adds to the states of the chunks after it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vbench.kernels.blocks import Output, spans
from vbench.kernels.retention import cost
from vbench.kernels.retention.damping import damping
from vbench.kernels.shapes import accumulator


def retention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    state: Tensor | None = None,
    chunk: int = cost.CHUNK,
    group: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Retention, chunkwise form (Sun et al. 2023, arXiv:2307.08621, equation 7, with real decays).

    Arguments, results and errors are those of `reference.retention`; besides:

    Args:
        chunk: tokens a chunk, at least 1.
        group: chunks a group, at least 1; `cost.group_of` all heads if None. Inputs are read in place, a group at
            a time.
    """
    dtype = accumulator(q)
    B, H, N, D = (int(side) for side in q.shape)  # int: under a trace, sizes are tensors
    E = int(v.shape[-1])
    scale = D**-0.5 if scale is None else scale
    s = q.new_zeros(B, H, D, E, dtype=dtype) if state is None else state.to(dtype)

    L = min(chunk, N)
    at = torch.arange(L, device=q.device)
    within = (scale * damping(g, at[:, None] - at, dtype)).unsqueeze(1)  # H 1 L L
    since_start = (scale * damping(g, at[:, None] + 1, dtype)).unsqueeze(1)  # H 1 L 1
    until_end = damping(g, L - 1 - at[:, None], dtype).unsqueeze(1)  # H 1 L 1

    out = Output(q, (B, H, N, E), 2, q.dtype)
    for span in spans(N, chunk, group, cost.group_of(B * H)):
        queries, keys, values = (span.tile(x, dtype) for x in (q, k, v))
        chunks, length = span.chunks, span.length
        added = (keys * until_end[:, :, L - length :]).mT @ values  # B H n D E
        step = torch.arange(chunks + 1, device=q.device)
        carry = damping(g, length * (step[:, None] - step), dtype)  # H n+1 n+1
        states = carry @ torch.cat((s.unsqueeze(2), added), dim=2).flatten(-2)
        states = states.unflatten(-1, (D, E))  # before each chunk, and after the last
        o = (queries @ keys.mT * within[:, :, :length, :length]) @ values
        o = o + (queries * since_start[:, :, :length]) @ states[:, :, :-1]
        out.put(span.start, o.flatten(2, 3))
        s = states[:, :, -1].clone()
    return out.whole(), s
