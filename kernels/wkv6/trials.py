"""Inputs on which the forms of WKV6 are compared."""

from __future__ import annotations

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, in_every_direction, standard_normal

B, H, D, E = 2, 3, 16, 24

# The mean of ω. The log decay is -exp(ω). Typical is as at Vision-RWKV's initialisation.
DECAYS = {"typical gates": -3.0, "open gates": -12.0, "closed gates": 3.0}


def _draw(N: int, generator: Generator, *, direction: Direction, regime: float) -> Inputs:
    normal = standard_normal(generator)
    g = -(regime + normal(B, H, N, D)).exp()
    return {"r": normal(B, H, N, D), "k": normal(B, H, N, D), "v": normal(B, H, N, E), "g": g, "u": normal(H, D)}


def _initial(inputs: Inputs, *, direction: Direction) -> Tensor:
    pair = (2,) if direction == "both" else ()
    return inputs["r"].new_zeros(*pair, len(inputs["r"]), H, D, E)


TRIALS = in_every_direction(("forward", "reverse", "both"), DECAYS, _draw, {"r": 2, "k": 2, "v": 2, "g": 2}, _initial)
