"""The matrix LSTM, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial
from math import exp

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vbench.kernels.machine_code import Array, array, machine_code, recomputed, rows
from vbench.kernels.mlstm import chunkwise
from vbench.kernels.mlstm.readout import EPS, normalise
from vbench.kernels.mlstm.shapes import Memory, memory
from vbench.kernels.shapes import Direction, accumulator


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
) -> tuple[Tensor, Memory]:
    """The matrix LSTM, recurrent form (Beck et al. 2024, arXiv:2405.04517, equations 15 to 21), compiled.

    Arguments, results and errors are those of `reference.mlstm`. Gradients are those of `chunkwise.mlstm`.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale

    def run(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: Memory) -> tuple[Tensor, Memory]:
        dtype = accumulator(q)
        num = torch.zeros_like(v, dtype=dtype, memory_format=torch.contiguous_format)
        den = q.new_zeros(q.shape[:3], dtype=dtype)
        m_t = torch.empty_like(den)
        C, n, m = (x.detach().clone(memory_format=torch.contiguous_format) for x in state)
        queries, keys, values = (rows(array(x, dtype), 2) for x in (q, k.to(dtype) * factor, v))
        inputs, forgets = (rows(array(x, torch.float64), 1) for x in (i, logsigmoid(f.double())))
        _walk(
            *(queries, keys, values, inputs, forgets),
            *(rows(C.numpy(), 2), rows(n.numpy(), 1), rows(m.numpy(), 0)),
            *(rows(num.numpy(), 2), rows(den.numpy(), 1), rows(m_t.numpy(), 1)),
            reverse=direction == "reverse",
        )
        return normalise(num, den, m_t, eps).to(q.dtype), (C, n, m)

    again = partial(chunkwise.mlstm, direction=direction, scale=scale, eps=eps)
    return recomputed(run, again, (q, k, v, i, f), memory(q, v, state))


@machine_code
def _walk(
    q: Array,
    k: Array,
    v: Array,
    i: Array,
    log_f: Array,
    C: Array,
    n: Array,
    m: Array,
    num: Array,
    den: Array,
    m_t: Array,
    reverse: bool,
) -> None:
    """Add what each token reads of C to num and of n to den, store each m_t, and leave the last state in C, n and m.

    q, k: (R, N, D), v, num: (R, N, E), i, log_f, den, m_t: (R, N), C: (R, D, E), n: (R, D), m: (R,)
    """
    R, N, D = q.shape
    E = v.shape[2]
    for r in range(R):
        s, keys = C[r], n[r]
        for step in range(N):
            t = N - 1 - step if reverse else step
            value, o = v[r, t], num[r, t]
            m_t[r, t] = max(log_f[r, t] + m[r], i[r, t])  # rounded here; it cancels in h
            forget = exp(log_f[r, t] + m[r] - m_t[r, t])
            feed = exp(i[r, t] - m_t[r, t])
            m[r] = m_t[r, t]
            for c in range(D):
                query = q[r, t, c]
                keep, key = s.dtype.type(forget), s.dtype.type(feed) * k[r, t, c]
                keys[c] = keep * keys[c] + key
                den[r, t] += query * keys[c]
                for e in range(E):
                    s[c, e] = keep * s[c, e] + key * value[e]
                    o[e] += query * s[c, e]
