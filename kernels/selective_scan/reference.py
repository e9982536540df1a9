"""The selective scan, one token a step: the definition. All other forms must agree with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vbench.kernels.blocks import blocks, exporting, scanned, turned
from vbench.kernels.selective_scan.orders import Walk, walks
from vbench.kernels.shapes import Direction, accumulator


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
) -> tuple[Tensor, Tensor]:
    """The selective scan, recurrent form (Gu & Dao 2023, arXiv:2312.00752, algorithm 2 and equation 2a).

        δ_t = softplus(delta_t + delta_bias)
        h_t = exp(δ_t A) h_{t-1} + (δ_t u_t) B_t^T      y_t = h_t C_t + D u_t      o_t = y_t · SiLU(z_t)

    where t - 1 is the token before t on the walk. A token's own input enters undecayed and is read at once.

        forward, reverse   one walk, from the first or the last token on
        both               one walk each way, forward first, each with inputs of its own; y is the sum of the two
                           (Vim: Zhu et al. 2024, arXiv:2401.09417)
        cross              four walks over one map of tokens, which lie row by row: along rows, along columns, and
                           both backwards; y is the sum of the four (VMamba: Liu et al. 2024, arXiv:2401.10166)

    Every tensor has its tokens in the same order for each walk: nothing is flipped or copied by the caller.

    Args:
        u: (B, G, N, C) input; (2, B, G, N, C) for "both".
        delta: (B, G, N, C) step before bias and softplus; it leads with 2 for "both" and with 4 for "cross", as do
            all tensors below but z.
        A: (G, C, S) rate of decay, A < 0.
        B, C: (B, G, N, S) what a token writes with and reads with; shared by the channels of a group.
        D: (G, C) the skip's weight.
        delta_bias: (G, C) added to delta.
        z: (B, G, N, C) gate of the sum of all walks; None: no gate.
        softplus: whether δ is softplus(delta + delta_bias), or delta + delta_bias itself.
        direction: which walks there are.
        width: tokens in a row of the map; needed by "cross" alone.
        state: (B, G, C, S) h before the first token of the walk; zeros if None.

    Returns: o (B, G, N, C) in u.dtype, and the last h of each walk, shaped as `state`, in float32 (float64 for
        float64 inputs).
    Raises: ShapeError if the inputs do not agree, or if `width` does not divide N.
    """
    dtype = accumulator(u)
    total, ends = None, []
    for walk in walks(direction, width, u, delta, A, B, C, D, delta_bias, state):
        y, h = _walk(walk, dtype, softplus)
        total = y if total is None else total + y
        ends.append(h)
    assert total is not None
    o = total if z is None else total * F.silu(z.to(dtype))
    return o.to(u.dtype), ends[0] if len(ends) == 1 else torch.stack(ends)


def _walk(walk: Walk, dtype: torch.dtype, softplus: bool) -> tuple[Tensor, Tensor]:
    """One walk: y Float[B G N C] with the skip, tokens in the caller's order, and the last h Float[B G C S]."""
    u, delta, B, C = (walk.ordered(x) for x in (walk.u, walk.delta, walk.B, walk.C))
    A, D, bias = (x.to(dtype) for x in (walk.A, walk.D, walk.delta_bias))
    h = u.new_zeros(*u.shape[:2], *A.shape[1:], dtype=dtype) if walk.state is None else walk.state.to(dtype)
    step = delta.to(dtype) + bias.unsqueeze(-2)
    step = F.softplus(step) if softplus else step
    if exporting():
        items = (step, step * u.to(dtype), B.to(dtype), C.to(dtype))
        h, y = scanned(lambda state, item: _step(A, state, item), h, items, -2, walk.reverse)
    else:
        out = []
        for block in blocks(u.shape[2], walk.reverse):
            rates = step[:, :, block].unsqueeze(-1).unbind(2)  # of Float[B G C 1]
            fed = (step[:, :, block] * u[:, :, block].to(dtype)).unsqueeze(-1).unbind(2)  # of Float[B G C 1]
            written = B[:, :, block].to(dtype).unsqueeze(-2).unbind(2)  # of Float[B G 1 S]
            read = C[:, :, block].to(dtype).unsqueeze(-1).unbind(2)  # of Float[B G S 1]
            ys = []
            for t in turned(range(len(rates)), walk.reverse):
                h = torch.addcmul((rates[t] * A).exp() * h, fed[t], written[t])
                ys.append(h @ read[t])
            out.append(torch.stack(turned(ys, walk.reverse), dim=2).squeeze(-1))
        y = torch.cat(turned(out, walk.reverse), dim=2)
    return walk.restored(torch.addcmul(y, D.unsqueeze(-2), u.to(dtype))), h


def _step(A: Tensor, h: Tensor, item: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """One token, for an export."""
    step, fed, B, C = item
    h = torch.addcmul((step.unsqueeze(-1) * A).exp() * h, fed.unsqueeze(-1), B.unsqueeze(-2))
    return h, (h @ C.unsqueeze(-1)).squeeze(-1)
