"""Inputs on which the forms of WKV6 are compared."""

from __future__ import annotations

from functools import partial

from torch import Generator, Tensor

from vbench.kernels.shapes import Direction
from vbench.kernels.trials import Inputs, Trial, standard_normal

B, H, D, E = 2, 3, 16, 24

# The mean of ω, of which -exp is the log decay: as at Vision-RWKV's initialisation, almost none, and shut.
DECAYS = {"typical": -3.0, "open": -12.0, "closed": 3.0}


def _draw(N: int, generator: Generator, *, decay: float) -> Inputs:
    normal = standard_normal(generator)
    g = -(decay + normal(B, H, N, D)).exp()
    return {"r": normal(B, H, N, D), "k": normal(B, H, N, D), "v": normal(B, H, N, E), "g": g, "u": normal(H, D)}


def _initial(inputs: Inputs, *, direction: Direction) -> Tensor:
    pair = (2,) if direction == "both" else ()
    return inputs["r"].new_zeros(*pair, len(inputs["r"]), H, D, E)


def _trials(direction: Direction) -> list[Trial]:
    return [
        Trial(
            f"{direction}, {name} gates",
            direction,
            partial(_draw, decay=decay),
            {"r": 2, "k": 2, "v": 2, "g": 2},
            {"direction": direction},
            partial(_initial, direction=direction),
        )
        for name, decay in DECAYS.items()
    ]


TRIALS = (*_trials("forward"), *_trials("reverse"), *_trials("both"))
