"""The matrix LSTM, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad

from vbench.kernels.blocks import blocks, exporting, scanned, turned
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
    """The matrix LSTM, recurrent form (Beck et al. 2024, arXiv:2405.04517, equations 15 to 21).

        m_t = max(log σ(f_t) + m_{t-1}, i_t)
        α_t = exp(log σ(f_t) + m_{t-1} - m_t)      β_t = exp(i_t - m_t)
        C_t = α_t C_{t-1} + β_t scale · k_t v_t^T
        n_t = α_t n_{t-1} + β_t scale · k_t
        h_t = C_t^T q_t / (max(|n_t · q_t|, e^-m_t) + eps)

    where t - 1 is the token before t in the direction of travel. The stabiliser m is the row maximum of the
    parallel form. h depends on m only through eps.

    Args:
        q, k: (B, H, N, D), k unscaled.
        v: (B, H, N, E).
        i, f: (B, H, N) input and forget gates before their exponential and sigmoid.
        direction: which way the state travels, "forward" or "reverse".
        scale: factor of k; D**-0.5 if None.
        eps: added to the normaliser, which is scaled by e^-m.
        state: (C, n, m) of shapes (B, H, D, E), (B, H, D), (B, H) before the first token that the direction
            meets; C = 0, n = 0, m = -inf if None.

    Returns: h (B, H, N, E) in q.dtype, and the final state, in float32 (float64 for float64 inputs).
    Raises: ShapeError if the inputs do not agree, and for direction "both".
    """
    dtype = accumulator(q)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    C, n, m = memory(q, v, state)
    S = torch.cat((C, n.unsqueeze(-1)), dim=-1)  # n is the memory of one more value, which is always 1
    reverse = direction == "reverse"
    if exporting():
        items = (q.to(dtype), k.to(dtype) * scale, v.to(dtype), i.double(), logsigmoid(f.double()))
        (S, m), (sums, m_t) = scanned(_step, (S, m), (*items[:3], *(x.unsqueeze(-1) for x in items[3:])), -2, reverse)
        h = normalise(sums[..., :-1], sums[..., -1], m_t.squeeze(-1), eps).to(q.dtype)
        return h, (S[..., :-1], S[..., -1], m)
    out = []
    for block in blocks(q.shape[2], reverse):
        m_t, forget, feed, m = _gates(i[:, :, block], f[:, :, block], m, reverse)
        rows = q[:, :, block].to(dtype).unsqueeze(-2).unbind(2)  # of Float[B H 1 D]
        columns = (k[:, :, block].to(dtype) * (scale * feed).unsqueeze(-1)).unsqueeze(-1).unbind(2)  # of Float[B H D 1]
        values = pad(v[:, :, block].to(dtype), (0, 1), value=1.0).unsqueeze(-2).unbind(2)  # of Float[B H 1 E+1]
        kept = forget[..., None, None].unbind(2)  # of Float[B H 1 1]
        read = []
        for t in turned(range(len(rows)), reverse):
            S = torch.addcmul(kept[t] * S, columns[t], values[t])
            read.append(rows[t] @ S)
        sums = torch.cat(turned(read, reverse), dim=2)
        out.append(normalise(sums[..., :-1], sums[..., -1], m_t, eps).to(q.dtype))
    return torch.cat(turned(out, reverse), dim=2), (S[..., :-1], S[..., -1], m)


def _gates(i: Tensor, f: Tensor, m: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m_t, α_t and β_t of each token, Float[B H N], and the last m.

    m may be rounded, because it cancels in h. The exponents use the rounded m, in float64.
    """
    dtype = m.dtype
    i, log_f = i.double(), logsigmoid(f.double())
    inputs, forgets = i.unbind(2), log_f.unbind(2)
    before = [m] * len(inputs)
    after = [m] * len(inputs)
    for t in turned(range(len(inputs)), reverse):
        before[t] = m
        m = after[t] = torch.maximum(forgets[t] + m, inputs[t]).to(dtype)
    m_t = torch.stack(after, dim=2)
    forget = (log_f + torch.stack(before, dim=2) - m_t).exp()
    return m_t, forget.to(dtype), (i - m_t).exp().to(dtype), m


def _step(memory: tuple[Tensor, Tensor], item: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """One token, for an export; the gates, log σ of the forget gate, are Float[B H 1] in float64."""
    (S, m), (q, k, v, i, log_f) = memory, item
    top = torch.maximum(log_f.squeeze(-1) + m, i.squeeze(-1)).to(m.dtype)
    forget = (log_f.squeeze(-1) + m - top).exp().to(m.dtype)[..., None, None]
    feed = (i.squeeze(-1) - top).exp().to(m.dtype).unsqueeze(-1)
    S = torch.addcmul(forget * S, (k * feed).unsqueeze(-1), pad(v, (0, 1), value=1.0).unsqueeze(-2))
    return (S, top), ((q.unsqueeze(-2) @ S).squeeze(-2), top.unsqueeze(-1).clone())
