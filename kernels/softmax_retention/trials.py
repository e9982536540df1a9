"""Inputs on which the forms of softmax retention are compared."""

from __future__ import annotations

from functools import partial

from torch import Generator

from vbench.kernels.retention.trials import DECAYS, draw
from vbench.kernels.trials import Inputs, Trial


def _negative(N: int, generator: Generator) -> Inputs:
    """Logits of about -200. The last token has no token after it, and its own weight must not vanish."""
    inputs = draw(N, generator, decays=DECAYS["open"])
    inputs["q"] = inputs["q"].abs() * -16
    inputs["k"] = inputs["k"].abs() * 5
    return inputs


TRIALS = (
    *(
        Trial(f"{name} decays", "both", partial(draw, decays=decays), {"q": 2, "k": 2, "v": 2})
        for name, decays in DECAYS.items()
    ),
    Trial("negative logits", "both", _negative, {"q": 2, "k": 2, "v": 2}),
)
