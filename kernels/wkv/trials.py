"""Inputs on which the forms of Bi-WKV are compared."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Generator, Tensor

from vbench.kernels.trials import Inputs, Trial, standard_normal
from vbench.kernels.wkv.sums import initial

B, C = 2, 24
TOKENS, RELEASED = {"k": 1, "v": 1}, {"reading": "kernel"}

# The decay a step, from numbers of N(0, 1), and the size of the keys.
REGIMES = {
    "typical": (lambda x: 0.02 * x, 1.0),  # as in a trained model
    "growing": (lambda x: -0.2 * x.abs(), 1.0),  # weights grow with the distance
    "fading": (lambda x: 4 * x.abs(), 1.0),  # only neighbours count
    "large keys": (lambda x: 0.1 * x, 60.0),  # the exponentials of the keys overflow
}


def _draw(N: int, generator: Generator, *, decay: Any, size: float) -> Inputs:
    normal = standard_normal(generator)
    return {"k": size * normal(B, N, C), "v": normal(B, N, C), "w": decay(normal(C)), "u": normal(C)}


def _initial(inputs: Inputs) -> Tensor:
    return initial(inputs["k"], inputs["k"].dtype)


TRIALS = (
    *(
        Trial(f"both, {name}", "both", partial(_draw, decay=decay, size=size), TOKENS, {"reading": "paper"}, _initial)
        for name, (decay, size) in REGIMES.items()
    ),
    Trial("both, as released", "both", partial(_draw, decay=lambda x: 0.02 * x, size=1.0), TOKENS, RELEASED),
)
