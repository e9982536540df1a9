"""minGRU's recurrence, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vbench.kernels.blocks import blocks
from vbench.kernels.machine_code import Array, array, machine_code, recomputed
from vbench.kernels.mingru import scan
from vbench.kernels.mingru.gates import coefficients
from vbench.kernels.shapes import Direction, accumulator


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, recurrent form (Feng et al. 2024, arXiv:2410.01201, section 3.1), compiled.

    Arguments, results and errors are those of `reference.mingru`. Gradients are those of `scan.mingru`.
    """

    def run(a: Tensor, b: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype, reverse = accumulator(a), direction == "reverse"
        B, N, C = a.shape
        h = a.new_zeros(B, C, dtype=dtype)
        if state is not None:
            h.copy_(state)
        out = a.new_empty(B, N, C)
        for block in blocks(N, reverse):
            keep, feed = coefficients(a[:, block], b[:, block], dtype)
            feed = feed.contiguous()
            _walk(array(keep, dtype), feed.numpy(), h.numpy(), reverse)
            out[:, block] = feed
        return out, h

    return recomputed(run, partial(scan.mingru, direction=direction), (a, b), state)


@machine_code
def _walk(keep: Array, feed: Array, h: Array, reverse: bool) -> None:
    """Write every state over its feed, and the last one into h: (B, N, C), (B, N, C), (B, C)."""
    B, N, C = keep.shape
    for b in range(B):
        last = h[b]
        for step in range(N):
            t = N - 1 - step if reverse else step
            kept, fed = keep[b, t], feed[b, t]
            for c in range(C):
                last[c] = kept[c] * last[c] + fed[c]
                fed[c] = last[c]
