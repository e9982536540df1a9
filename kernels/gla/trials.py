"""Inputs on which the forms of gated linear attention are compared."""

from __future__ import annotations

from functools import partial

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, H, D, E = 2, 2, 8, 12

# What the log decays are multiplied by: about 0.96 a token as at ViG's initialisation, none, and shut.
GATES = {"typical": 0.05, "open": 1e-6, "closed": 8.0}


def _draw(N: int, generator: Generator, *, direction: Direction, gates: float) -> Inputs:
    normal = standard_normal(generator)
    pair = (2,) if direction == "both" else ()
    g = -gates * normal(*pair, B, H, N, D).abs()
    return {"q": normal(B, H, N, D), "k": normal(B, H, N, D), "v": normal(B, H, N, E), "g": g}


def _initial(inputs: Inputs) -> Tensor:
    return inputs["q"].new_zeros(*inputs["g"].shape[:-2], D, E)


def _trials(direction: Direction) -> list[Trial]:
    return [
        Trial(
            f"{direction}, {name} gates",
            direction,
            partial(_draw, direction=direction, gates=gates),
            {"q": 2, "k": 2, "v": 2, "g": -2},
            {"direction": direction},
            _initial,
        )
        for name, gates in GATES.items()
    ]


TRIALS = (*_trials("forward"), *_trials("reverse"), *_trials("both"))
