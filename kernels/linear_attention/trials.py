"""Inputs on which the forms of linear attention are compared."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Generator

from vbench.kernels.linear_attention.shapes import Summary, others
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, H, D, E = 2, 3, 16, 24


def _draw(N: int, generator: Generator, *, turned: bool, size: float) -> Inputs:
    """Features as of MLLA: ELU + 1 of N(0, 1), times `size`. v ~ N(0, 1).

    With `turned` those are the normaliser's, and the numerator's differ from them in sign, number by number.
    """
    normal = standard_normal(generator)
    q, k = (size * (F.elu(normal(B, H, N, D)) + 1) for _ in "qk")
    inputs = {"q": q, "k": k, "v": normal(B, H, N, E)}
    if not turned:
        return inputs
    return {**inputs, "q": q * normal(B, H, N, D), "k": k * normal(B, H, N, D), "q_norm": q, "k_norm": k}


def _one_token(N: int, generator: Generator) -> Inputs:
    """The key of one token is a thousand times as large as all others."""
    inputs = _draw(N, generator, turned=True, size=1.0)
    for name in ("k", "k_norm"):
        inputs[name][:, :, N // 2 : N // 2 + 1] *= 1e3
    return inputs


def _initial(inputs: Inputs) -> Summary:
    return others(inputs["q"], inputs["v"], None)


_TOKENS = {"q": -2, "k": -2, "v": -2}
_TURNED = {**_TOKENS, "q_norm": -2, "k_norm": -2}
TRIALS = (
    Trial("usual features", "both", partial(_draw, turned=False, size=1.0), _TOKENS, {}, _initial, pooled=True),
    # q' · mean of k' is about as large as ε
    Trial("small features", "both", partial(_draw, turned=False, size=2e-4), _TOKENS, {}, _initial, pooled=True),
    Trial("one large key", "both", _one_token, _TURNED, {}, _initial, pooled=True),
    Trial("turned features", "both", partial(_draw, turned=True, size=1.0), _TURNED, {}, _initial, pooled=True),
)
