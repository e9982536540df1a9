"""Retention, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from vbench.kernels.machine_code import Array, array, machine_code, recomputed, rows
from vbench.kernels.retention import chunkwise
from vbench.kernels.shapes import accumulator


def retention(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, *, scale: float | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Retention, recurrent form (Sun et al. 2023, arXiv:2307.08621, equation 1, with real decays), compiled.

    Arguments, results and errors are those of `reference.retention`. Gradients are those of
    `chunkwise.retention`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = accumulator(q)
        B, H, _, D = q.shape
        o = torch.zeros_like(v, dtype=dtype, memory_format=torch.contiguous_format)
        s = q.new_zeros(B, H, D, v.shape[-1], dtype=dtype)
        if state is not None:
            s.copy_(state)
        lost = array(g.double().expm1().repeat(B), dtype)  # more digits than the decay has, where it is near 1
        queries, keys, values = (rows(array(x, dtype), 2) for x in (q.to(dtype) * factor, k, v))
        _walk(queries, keys, values, lost, rows(s.numpy(), 2), rows(o.numpy(), 2))
        return o.to(q.dtype), s

    return recomputed(run, partial(chunkwise.retention, scale=scale), (q, k, v, g), state)


@machine_code
def _walk(q: Array, k: Array, v: Array, lost: Array, state: Array, out: Array) -> None:
    """Add to `out` what each token reads, and leave the last state in `state`.

    q, k: (R, N, D), v, out: (R, N, E), lost: (R,), state: (R, D, E)
    """
    R, N, D = q.shape
    E = v.shape[2]
    for r in range(R):
        s, less = state[r], lost[r]
        for t in range(N):
            value, o = v[r, t], out[r, t]
            for c in range(D):
                query, key = q[r, t, c], k[r, t, c]
                for e in range(E):
                    s[c, e] = (s[c, e] + less * s[c, e]) + key * value[e]
                    o[e] += query * s[c, e]
