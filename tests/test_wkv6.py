"""WKV6: every form against the released kernel's results, its relation to gla, and what is refused."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from weights import Golden

from vbench.kernels import forms, operator
from vbench.kernels.trials import relative

FORMS = forms("wkv6")
DIRECTIONS = ("forward", "reverse", "both")
PUBLISHED = Golden("wkv6_op").arrays
CASES = sorted({key.partition("_")[0] for key in PUBLISHED})


def draw(N: int, decay: float = 0.1, D: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(N)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    r, k, v, g = normal(1, 2, N, D), normal(1, 2, N, D), normal(1, 2, N, 24), -decay * normal(1, 2, N, D).abs()
    return [r, k, v, g, normal(2, D)]


@pytest.mark.parametrize(("form", "case"), list(product(FORMS, CASES)))
def test_matches_the_released_operator(form: str, case: str) -> None:
    r, k, v, omega = (PUBLISHED[f"{case}_{name}"].unflatten(-1, (-1, 64)).transpose(1, 2) for name in "rkvw")
    x = (r, k, v, -omega.exp(), PUBLISHED[f"{case}_u"])  # -exp(ω) was taken in float32, all else in float64
    for dtype, bound in {torch.float64: 5e-8, torch.float32: 1e-6}.items():
        o, _ = operator("wkv6", form)(*(t.to(dtype) for t in x), direction="both")
        assert relative(o.transpose(1, 2).flatten(2), PUBLISHED[f"{case}_y"]) < bound


@pytest.mark.parametrize("form", FORMS)
def test_neighbours_read_each_other_undamped_and_the_bonus_counts_once(form: str) -> None:
    r, k, v, g, u = draw(2, 50.0)
    scores = torch.einsum("bhtd,bhid->bhti", r, k)
    own = torch.einsum("bhtd,bhtd,hd->bht", r, k, u).unsqueeze(-1) * v
    ahead, back = scores[..., 1:, :1] * v[..., :1, :], scores[..., :1, 1:] * v[..., 1:, :]
    wanted = {
        "forward": own + torch.cat((torch.zeros_like(ahead), ahead), dim=2),
        "reverse": torch.cat((back, torch.zeros_like(back)), dim=2),
        "both": own + torch.cat((back, ahead), dim=2),
    }
    for direction in DIRECTIONS:
        assert relative(operator("wkv6", form)(r, k, v, g, u, direction=direction)[0], wanted[direction]) < 1e-14


@pytest.mark.parametrize("form", FORMS)
def test_states_are_those_of_gla(form: str) -> None:
    r, k, v, g, u = draw(70)
    for direction in ("forward", "reverse"):
        _, wanted = operator("gla", "reference")(r, k, v, g, direction=direction)
        _, state = operator("wkv6", form)(r, k, v, g, u, direction=direction)
        assert relative(state, wanted) < 1e-13
