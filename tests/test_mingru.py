"""minGRU: every form against the published operator, at the ends of its range, and its cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from weights import Golden, weight

from vbench.kernels import forms, operator
from vbench.kernels.mingru import cost, scan
from vbench.kernels.trials import relative

FORMS = forms("mingru")
DIRECTIONS = ("forward", "reverse")


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("memory", "factor"), [("short", 1), ("long", 8)])
def test_matches_the_published_operator(form: str, memory: str, factor: int) -> None:
    arrays = Golden("mingru_op").arrays
    into, back = weight("to_hidden_and_gate.weight", (96, 24)), weight("to_out.weight", (24, 48))
    into[48:] *= factor
    for dtype, bound, state_bound in ((torch.float64, 1e-12, 1e-4), (torch.float32, 1e-6, 1e-4)):
        a, b = (arrays["x"].to(dtype) @ into.to(dtype).mT).chunk(2, dim=-1)
        h, last = operator("mingru", form)(a, b)
        assert relative(h @ back.to(dtype).mT, arrays[f"out64_{memory}"]) < bound
        assert relative(last.unsqueeze(1), arrays[f"last_hidden_{memory}"]) < state_bound  # float32, by logarithms
        turned, first = operator("mingru", form)(a.flip(1), b.flip(1), direction="reverse")
        assert relative(turned.flip(1), h) < bound
        assert relative(first, last) < bound


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_scan_keeps_its_digits_over_long_sequences(direction: str) -> None:
    for mean in (-4.0, 0.0, 4.0):
        a, b = normal(1, 20_000, 4), mean + normal(1, 20_000, 4, seed=1)
        wanted, _ = operator("mingru", "reference")(a, b, direction=direction)
        h, _ = scan.mingru(a.float(), b.float(), direction=direction)
        assert ((h - wanted) / wanted).abs().max() < 3e-6


@settings(max_examples=40, deadline=None)
@given(group=st.integers(1, 3000), tokens=st.integers(1, 700), direction=st.sampled_from(DIRECTIONS))
def test_the_group_never_matters(group: int, tokens: int, direction: str) -> None:
    a, b, state = normal(1, tokens, 2), normal(1, tokens, 2, seed=1), normal(1, 2, seed=2)
    wanted, final = operator("mingru", "reference")(a, b, direction=direction, state=state)
    h, last = scan.mingru(a, b, direction=direction, state=state, group=group)
    assert relative(h, wanted) < 1e-13
    assert relative(last, final) < 1e-13


class Updates(TorchDispatchMode):
    """Counts the numbers that come out of multiply-add operations."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.addcmul.default:
            self.total += out.numel()
        return out


@pytest.mark.parametrize("tokens", [1, 16, 17, 64, 196, 700])
def test_macs_are_the_updates_that_the_forms_dispatch(tokens: int) -> None:
    x = normal(2, tokens, 4)
    for form in ("scan", "reference"):
        with Updates() as updates:
            operator("mingru", form)(x, x)
        assert updates.total == cost.macs(form, batch=2, tokens=tokens, channels=4)
    with Updates() as updates:
        scan.mingru(x, x, group=1024)
    assert updates.total == cost.macs("scan", batch=2, tokens=tokens, channels=4, group=1024)
    assert cost.macs("algorithm", batch=2, tokens=tokens, channels=4) == 8 * tokens
    assert cost.macs("quadratic", batch=2, tokens=tokens, channels=4) == 8 * tokens**2
