"""minGRU as a scan in linear space: exact, any N, memory linear in N, few steps.

A run of tokens acts on the state as h -> keep · h + feed, and two runs in a row act as one such pair again:
(keep₂ · keep₁, keep₂ · feed₁ + feed₂). So the tokens are cut into chunks of 8, walked side by side; the pairs of
whole chunks are a shorter sequence of the same kind, which is scanned in the same way; and a second walk through the
chunks starts from the states that enter them. There is no logarithm, no quotient and no difference: keep is in [0, 1]
and feed is positive, so no digit is lost and nothing overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from vbench.kernels.blocks import Output, exporting, turned
from vbench.kernels.mingru.cost import CHUNK, GROUP, span_of
from vbench.kernels.mingru.gates import coefficients
from vbench.kernels.shapes import Direction, accumulator


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None, group: int = GROUP
) -> tuple[Tensor, Tensor]:
    """minGRU, parallel form (a scan of affine maps: Martin & Cundy 2018, arXiv:1709.04057, section 2).

    Arguments, results and errors are those of `reference.mingru`; besides:

    Args:
        group: how many numbers are handled together, so that temporaries stay in cache. Inputs are read in place, a
            group of tokens at a time; nothing is flipped.
    """
    dtype = accumulator(a)
    B, N, C = map(int, a.shape)  # int: under a trace, sizes are tensors
    h = a.new_zeros(B, C, dtype=dtype) if state is None else state.to(dtype)
    reverse = direction == "reverse"
    span = N if exporting() else span_of(B, C, group)
    out = Output(a, (B, N, C), 1, a.dtype)
    for start in turned(range(0, N, span), reverse):
        block = slice(start, start + span)
        states = scan_pairs(*coefficients(a[:, block], b[:, block], dtype), h, reverse)
        h = states[:, 0 if reverse else -1]
        out.put(start, states)
    return out.whole(), h.clone()


def scan_pairs(keep: Tensor, feed: Tensor, h: Tensor, reverse: bool) -> Tensor:
    """Every state after h: keep, feed Float[B N C], h Float[B C] -> Float[B N C]. `feed` may be written to."""
    N = int(keep.shape[1])
    if N <= 2 * CHUNK:
        return _walk(keep.unsqueeze(1), feed.unsqueeze(1), h.unsqueeze(1), reverse).squeeze(1)
    if missing := -N % CHUNK:  # tokens that keep all and add nothing
        keep, feed = pad(keep, (0, 0, 0, missing), value=1.0), pad(feed, (0, 0, 0, missing))
    keep, feed = keep.unflatten(1, (-1, CHUNK)), feed.unflatten(1, (-1, CHUNK))  # Float[B n CHUNK C]
    ends = scan_pairs(*_join(keep, feed, reverse), h, reverse)
    entering = (ends[:, 1:], h.unsqueeze(1)) if reverse else (h.unsqueeze(1), ends[:, :-1])
    return _walk(keep, feed, torch.cat(entering, dim=1), reverse).flatten(1, 2)[:, :N]


def _walk(keep: Tensor, feed: Tensor, h: Tensor, reverse: bool) -> Tensor:
    """The state after each token: keep, feed Float[B n L C], h Float[B n C] -> Float[B n L C]."""
    keeps, states = keep.unbind(2), list(feed.unbind(2))
    for t in turned(range(len(keeps)), reverse):
        if torch.is_grad_enabled():
            h = states[t] = torch.addcmul(states[t], keeps[t], h)
        else:  # in place: nothing reads the feed again
            h = states[t].addcmul_(keeps[t], h)
    return torch.stack(states, dim=2) if torch.is_grad_enabled() else feed


def _join(keep: Tensor, feed: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The pair that has the effect of all tokens of a chunk, for each chunk: 2 × Float[B n L C] -> 2 × Float[B n C]."""
    keeps, feeds = keep.unbind(2), feed.unbind(2)
    first, *rest = turned(range(len(keeps)), reverse)
    joined, fed = keeps[first], feeds[first]
    for t in rest:
        joined, fed = joined * keeps[t], torch.addcmul(feeds[t], keeps[t], fed)
    return joined, fed
