"""minGRU's recurrence, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from vbench.kernels.machine_code import Array, Strides, flat, machine_code, recomputed
from vbench.kernels.mingru import scan
from vbench.kernels.shapes import Direction, accumulator
from vbench.kernels.threads import least_items, shares, split
from vbench.kernels.vector_math import exp_negative, widened

CHANNELS = 16  # the fewest of a thread: what a cache fetches at a time


def mingru(
    a: Tensor, b: Tensor, *, direction: Direction = "forward", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """minGRU, recurrent form (Feng et al. 2024, arXiv:2410.01201, section 3.1), compiled.

    Arguments, results and errors are those of `reference.mingru`. Gradients are those of `scan.mingru`.
    """

    def run(a: Tensor, b: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = accumulator(a)
        B, N, C = a.shape
        h, out = a.new_zeros(B, C, dtype=dtype), a.new_empty(B, N, C, dtype=dtype)
        if state is not None:
            h.copy_(state)
        parts = shares(B, -(-C // CHANNELS))
        a, b = (x if x.stride(2) == 1 else x.contiguous() for x in (a, b))
        work = partial(_walk, *flat(a), *flat(b), h.numpy(), out.numpy(), parts, direction == "reverse")
        split(work, B * parts, least_items(20 * N * C // parts))  # a gate takes about as long as 20 products
        return out.to(a.dtype), h

    return recomputed(run, partial(scan.mingru, direction=direction), (a, b), state)


@machine_code
def _walk(
    a: Array,
    a_strides: Strides,
    b: Array,
    b_strides: Strides,
    state: Array,
    out: Array,
    parts: int,
    reverse: bool,
    first: int,
    stop: int,
) -> None:
    """Every state, and the last one in `state`, for parts [first, stop) of the channels of all images.

    a, b: Float[B N C], flat, neighbours side by side; state: Float[B C], out: Float[B N C].
    """
    _, N, C = out.shape
    zero, half, one = state.dtype.type(0), state.dtype.type(0.5), state.dtype.type(1)
    for item in range(first, stop):
        image, part = item // parts, item % parts
        left, right = C * part // parts, C * (part + 1) // parts
        h = state[image, left:right].copy()
        for step in range(N):
            t = N - 1 - step if reverse else step
            at = image * a_strides[0] + t * a_strides[1] + left
            candidates = a[at : at + len(h)]
            at = image * b_strides[0] + t * b_strides[1] + left
            gates = b[at : at + len(h)]
            found = out[image, t, left:right]
            for c in range(len(h)):
                x, z = widened(candidates[c]), widened(gates[c])
                # keep = sigmoid(-z), feed = sigmoid(z) · g(x): exponents of at most 0, and one quotient for all three
                small, below = exp_negative(-abs(z)), exp_negative(zero if x > zero else x)  # NaN stays
                p, q = one + small, one + below
                both = one / (p * q)
                large = q * both
                small *= large
                keep, open_ = (large, small) if z < 0 else (small, large)
                candidate = x + half if x > 0 else below * p * both
                h[c] = keep * h[c] + open_ * candidate
                found[c] = h[c]
        state[image, left:right] = h
