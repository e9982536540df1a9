"""Weighted sums that cannot overflow, and how the published and the released Bi-WKV read them.

A sum Σ_i e^{x_i} z_i, once with z = v and once with z = 1, is kept as three numbers (a, b, p): p is the
greatest x_i, a·e^p the first sum, b·e^p the second. They lie in the first dimension: Float[3 B ... C].
A token is the sum (v, 1, k) of itself alone.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

EPSILON = 1e-6  # added to the denominator, in units of e^p, by the released kernels
NEVER = -1e38  # the exponent of an empty sum
SEGMENTS = 32  # of a sequence in the released kernels


def empty(k: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum over no token: Float[B N C] -> Float[3 B C]."""
    nothing = k.new_zeros(3, k.shape[0], k.shape[2], dtype=dtype)
    nothing[2] = NEVER
    return nothing


def initial(k: Tensor, dtype: torch.dtype) -> Tensor:
    """The state of both directions before any token: Float[B N C] -> Float[2 3 B C]."""
    return empty(k, dtype).expand(2, -1, -1, -1)


def tokens(k: Tensor, v: Tensor) -> Tensor:
    """Each token as a sum: Float[B ... C], Float[B ... C] -> Float[3 B ... C]."""
    return torch.stack((v, torch.ones_like(v), k))


def damp(x: Tensor, cost: Tensor) -> Tensor:
    """x · e^{-cost}: Float[3 B ... C] -> Float[3 B ... C]."""
    return torch.cat((x[:2], x[2:] - cost))


def join(*parts: Tensor) -> Tensor:
    """The sum of sums: Float[3 B ... C] each -> Float[3 B ... C]."""
    p = reduce(torch.maximum, (x[2] for x in parts))
    weighted = (x[:2] * (x[2] - p).exp() for x in parts)
    return torch.cat((reduce(torch.add, weighted), p[None]))


def gather(x: Tensor, cost: Tensor) -> Tensor:
    """At every target, the sum of all sources, each damped by its cost: Float[3 B ... S C], Float[T S C] ->
    Float[3 B ... T C]. A source with an infinite cost is left out.
    """
    a, b, exponents = x.unsqueeze(-3).unbind(0)
    exponents = exponents - cost
    p = exponents.amax(-2, keepdim=True)
    weights = (exponents - p if torch.is_grad_enabled() else exponents.sub_(p)).exp_()
    return torch.stack(((weights * a).sum(-2), (weights * b).sum(-2), p.squeeze(-2)))


def costs(w: Tensor, targets: Tensor, sources: Tensor, u: Tensor | None = None) -> Tensor:
    """The cost between two positions, w(|t-i|-1); -u between a position and itself: Float[C], Int[T], Int[S], Float[C]
    -> Float[T S C].
    """
    gap = (targets[:, None] - sources).unsqueeze(-1)
    way = (gap.abs() - 1) * w
    return way if u is None else torch.where(gap == 0, -u, way)


def read(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The quotient of the two sums: Float[3 B ... C] -> Float[B ... C]."""
    return (x[0] / (x[1] + EPSILON)).to(dtype)


def segment(tokens_: int) -> int:
    """Tokens in a segment of the released kernels; the last segments may be short or missing."""
    return -(-tokens_ // SEGMENTS)


def excess(x: Tensor, w: Tensor) -> Tensor:
    """x · (1 - e^w): the factor's size is added to the exponent, its sign multiplies: Float[3 B ... C], Float[C]."""
    grown = w.relu()  # 1 - e^w is e^grown times a factor in (-1, 1)
    factor = (-grown).expm1() - w.clamp_max(0).expm1()
    size = factor.detach().abs().clamp_min(1e-30).log()  # no gradient: it cancels in the product
    return torch.cat((x[:2] * (factor * (-size).exp()), x[2:] + (size + grown)))


def released(past: Tensor, future: Tensor, inside: Tensor, growing: Tensor, own: Tensor, w: Tensor) -> Tensor:
    """The sum that the released kernels read at each token t of the segment that starts at t0.

    Their past is e^{-w}(past - inside) + inside, their future e^{-w} future + (1 - e^w) growing.

    Args, all but the last Float[3 B N C]:
        past, future: the published sums.
        inside: the part of `past` from the own segment.
        growing: Σ_{t0 < i <= t} e^{k_i + w(t-i)} z_i.
        own: the token itself with its bonus.
        w: (C,).
    """
    at = torch.arange(past.shape[2], device=past.device)
    place = at % segment(past.shape[2])
    carried = damp(past[:, :, at - place], (place + 1).unsqueeze(-1) * w)
    return join(carried, inside, damp(future, w), own, excess(growing, w))
