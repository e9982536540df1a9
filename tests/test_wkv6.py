"""WKV6: every form against the released kernel's results, its relation to gla, and what is refused."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from weights import Golden

from vbench.errors import ShapeError
from vbench.kernels import default_form, forms, operator
from vbench.kernels.trials import relative
from vbench.kernels.wkv6 import cost
from vbench.kernels.wkv6.reference import wkv6

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


@pytest.mark.parametrize("decay", [0.0, 1e-6, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_extreme_decays_stay_exact_in_float32(decay: float, direction: str) -> None:
    x = draw(200, decay)
    wanted, last = wkv6(*x, direction=direction)
    for form in FORMS:
        o, state = operator("wkv6", form)(*(t.float() for t in x), direction=direction)
        assert relative(o, wanted) < 3e-6
        assert relative(state, last) < 3e-6


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


def test_what_does_not_agree_is_refused() -> None:
    r, k, v, g, u = draw(5)
    for form in FORMS:
        call = operator("wkv6", form)
        with pytest.raises(ShapeError, match=r"r \(1, 2, 5, 16\), k \(1, 2, 5, 15\)"):
            call(r, k[..., 1:], v, g, u)
        with pytest.raises(ShapeError, match=r"state \(1, 2, 16, 24\)"):
            call(r, k, v, g, u, direction="both", state=torch.zeros(1, 2, 16, 24))
        with pytest.raises(ShapeError, match="'forward', 'reverse' or 'both'"):
            call(r, k, v, g, u, direction="backward")


def test_default_forms() -> None:
    assert default_form("wkv6", "parallel") == "chunkwise"
    assert default_form("wkv6", "recurrent") == "reference"


@pytest.mark.parametrize("tokens", [1, 64, 196, 300])
def test_executed_macs_are_those_of_the_matrix_products(tokens: int) -> None:
    """The bonus's dot products are elementwise in the chunkwise form and are added."""
    x = [t.float() for t in draw(tokens)]
    sizes = {"batch": 1, "heads": 2, "tokens": tokens, "key_dim": 16, "value_dim": 24}
    padded = tokens - tokens % 64 + (1 << (tokens % 64 - 1).bit_length() if tokens % 64 else 0)
    with FlopCounterMode(display=False) as counter:
        operator("wkv6", "chunkwise")(*x, direction="both")
    wanted = cost.macs("chunkwise", **sizes, directions=2)
    assert counter.get_total_flops() // 2 + 2 * padded * 16 == wanted
    assert cost.macs("algorithm", **sizes, directions=2) == 2 * tokens * 4 * 16 * 24
