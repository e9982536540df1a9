"""Bi-WKV, one token a step, in machine code on the CPU."""

from __future__ import annotations

from functools import partial
from math import exp

import torch
from torch import Tensor

from vbench.kernels.machine_code import Array, array, machine_code, recomputed
from vbench.kernels.wkv import reference, scan
from vbench.kernels.wkv.shapes import Reading


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, *, reading: Reading = "paper", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV (Duan et al. 2024, arXiv:2403.02308, section 3), recurrent form, compiled.

    Arguments, results and errors are those of `reference.wkv`. Gradients are those of `scan.wkv`.
    """

    run, again = partial(reference.by_walks, _walk, reading=reading), partial(scan.wkv, reading=reading)
    return recomputed(run, again, (k, v, w, u), state)


def _walk(k: Tensor, v: Tensor, w: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The sums that enter each token, and the last: Float[B N C], Float[3 B C] -> Float[3 B N C], Float[3 B C]."""
    dtype = w.dtype
    entering, last = k.new_empty(3, *k.shape, dtype=dtype), state.clone(memory_format=torch.contiguous_format)
    peaks = array(state[2], torch.float64).copy()  # as in the reference: a decay repeats N times
    keys, values, decay = array(k, dtype), array(v, dtype), array(w, torch.float64)
    _add(keys, values, decay, peaks, last.numpy(), entering.numpy(), reverse)
    last[2] = torch.from_numpy(peaks)
    return entering, last


@machine_code
def _add(k: Array, v: Array, decay: Array, peaks: Array, state: Array, entering: Array, reverse: bool) -> None:
    """Store the sums that enter each token in `entering`, and leave the last ones in `state` and `peaks`.

    k, v: (B, N, C), decay: (C,), peaks: (B, C), state: (3, B, C), entering: (3, B, N, C)
    """
    B, N, C = v.shape
    one = v.dtype.type(1)
    for b in range(B):
        num, den, p = state[0, b], state[1, b], peaks[b]
        for step in range(N):
            t = N - 1 - step if reverse else step
            key, value = k[b, t], v[b, t]
            above, below, exponent = entering[0, b, t], entering[1, b, t], entering[2, b, t]
            for c in range(C):
                above[c], below[c], exponent[c] = num[c], den[c], p[c]
                lead = key[c] - (p[c] - decay[c])  # how far the token's exponent lies above the sum's
                p[c] = key[c] if lead > 0 else p[c] - decay[c]
                weight = exp(v.dtype.type(-abs(lead)))  # of the smaller exponent; the weight of the greater one is 1
                keep, add = (weight, one) if lead > 0 else (one, weight)
                num[c] = keep * num[c] + add * value[c]
                den[c] = keep * den[c] + add
