"""minGRU as a scan in linear space: exact, any N, memory linear in N, few steps.

A run of tokens acts on the state as h -> keep · h + feed, and two runs in a row act as one such pair again:
(keep₂ · keep₁, keep₂ · feed₁ + feed₂). So the tokens are cut into chunks of 8, walked side by side; the pairs of
whole chunks are a shorter sequence of the same kind, scanned in turn; and a second walk through the chunks
starts from the states that enter them. Nothing is a logarithm, nothing is divided or subtracted: keep is
in [0, 1] and feed is positive, so no digit is lost and nothing overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from vbench.kernels.mingru import cost
from vbench.kernels.mingru.gates import coefficients
from vbench.kernels.mingru.shapes import CHUNK, GROUP, check, span_of
from vbench.kernels.shapes import Direction, accumulator


def mingru(
    a: Tensor,
    b: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
    group: int = GROUP,
) -> tuple[Tensor, Tensor]:
    """minGRU, parallel form (a scan of affine maps: Martin & Cundy 2018, arXiv:1709.04057, section 2).

    Arguments, results and errors are those of `reference.mingru`; besides:

    Args:
        group: numbers handled together, so that temporaries are few and in cache. Inputs are read in place, a
            group of tokens at a time; nothing is flipped.
    """
    check(a, b, direction, state)
    if a.is_meta:
        return cost.on_meta(a, "scan")
    dtype = accumulator(a)
    B, N, C = map(int, a.shape)  # int: under a trace, sizes are tensors
    h = a.new_zeros(B, C, dtype=dtype) if state is None else state.to(dtype)
    reverse = direction == "reverse"
    span = span_of(B, C, group)
    starts = range(0, N, span)
    out: list[Tensor] = [h] * len(starts)
    for i in _order(len(starts), reverse):
        block = slice(starts[i], starts[i] + span)
        states = _scan(*coefficients(a[:, block], b[:, block], dtype), h, reverse)
        h = states[:, 0 if reverse else -1]
        out[i] = states.to(a.dtype)
    return torch.cat(out, dim=1), h.clone()


def _scan(keep: Tensor, feed: Tensor, h: Tensor, reverse: bool) -> Tensor:
    """Every state after h: keep, feed Float[B N C], h Float[B C] -> Float[B N C]."""
    N = int(keep.shape[1])
    if N <= 2 * CHUNK:
        return torch.stack(_walk(keep.unbind(1), feed.unbind(1), h, reverse), dim=1)
    if missing := -N % CHUNK:  # tokens that keep all and add nothing
        keep, feed = pad(keep, (0, 0, 0, missing), value=1.0), pad(feed, (0, 0, 0, missing))
    keeps, feeds = (x.unflatten(1, (-1, CHUNK)).unbind(2) for x in (keep, feed))  # CHUNK of Float[B n C]
    ends = _scan(*_join(keeps, feeds, reverse), h, reverse)
    entering = (ends[:, 1:], h.unsqueeze(1)) if reverse else (h.unsqueeze(1), ends[:, :-1])
    states = _walk(keeps, feeds, torch.cat(entering, dim=1), reverse)
    return torch.stack(states, dim=2).flatten(1, 2)[:, :N]


def _walk(keeps: tuple[Tensor, ...], feeds: tuple[Tensor, ...], h: Tensor, reverse: bool) -> list[Tensor]:
    """The state after each token."""
    states = [h] * len(keeps)
    for t in _order(len(keeps), reverse):
        h = torch.addcmul(feeds[t], keeps[t], h)
        states[t] = h
    return states


def _join(keeps: tuple[Tensor, ...], feeds: tuple[Tensor, ...], reverse: bool) -> tuple[Tensor, Tensor]:
    """The one pair that acts as these tokens do together."""
    first, *rest = _order(len(keeps), reverse)
    keep, feed = keeps[first], feeds[first]
    for t in rest:
        keep, feed = keep * keeps[t], torch.addcmul(feeds[t], keeps[t], feed)
    return keep, feed


def _order(count: int, reverse: bool) -> range:
    return range(count - 1, -1, -1) if reverse else range(count)
