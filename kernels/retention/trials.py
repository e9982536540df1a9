"""Inputs on which the forms of retention are compared."""

from __future__ import annotations

from functools import partial

import torch
from torch import Generator, Tensor

from vbench.kernels.trials import Inputs, Trial, standard_normal

B, H, D, E = 2, 3, 16, 24

# Log decays of the heads.
DECAYS = {
    "typical": (-0.0317, -0.0078, -0.00195),  # as in ViR
    "open": (0.0, -1e-6, -1e-3),  # the state keeps all or nearly all
    "closed": (-0.5, -8.0, -200.0),  # the state keeps nearly nothing
}


def draw(N: int, generator: Generator, *, decays: tuple[float, ...]) -> Inputs:
    """q, k, v ~ N(0, 1), and the given log decay for each of the H heads."""
    normal = standard_normal(generator)
    g = torch.tensor(decays, dtype=torch.float64)
    return {"q": normal(B, H, N, D), "k": normal(B, H, N, D), "v": normal(B, H, N, E), "g": g}


def _initial(inputs: Inputs) -> Tensor:
    return inputs["q"].new_zeros(B, H, D, E)


TRIALS = tuple(
    Trial(f"{name} decays", "forward", partial(draw, decays=decays), {"q": 2, "k": 2, "v": 2}, initial=_initial)
    for name, decays in DECAYS.items()
)
