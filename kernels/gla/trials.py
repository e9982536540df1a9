"""Inputs on which the forms of gated linear attention are compared."""

from __future__ import annotations

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, in_every_direction, standard_normal

B, H, D, E = 2, 2, 8, 12

# The factor of the log decays. Typical is a decay of about 0.96 a token, as at ViG's initialisation.
GATES = {"typical gates": 0.05, "open gates": 1e-6, "closed gates": 8.0}


def _draw(N: int, generator: Generator, *, direction: Direction, regime: float) -> Inputs:
    normal = standard_normal(generator)
    pair = (2,) if direction == "both" else ()
    g = -regime * normal(*pair, B, H, N, D).abs()
    return {"q": normal(B, H, N, D), "k": normal(B, H, N, D), "v": normal(B, H, N, E), "g": g}


def _initial(inputs: Inputs, *, direction: Direction) -> Tensor:
    return inputs["q"].new_zeros(*inputs["g"].shape[:-2], D, E)


TRIALS = in_every_direction(("forward", "reverse", "both"), GATES, _draw, {"q": 2, "k": 2, "v": 2, "g": -2}, _initial)
