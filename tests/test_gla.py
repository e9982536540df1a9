"""Gated linear attention: every form against the published kernel's results, and against the recurrence."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from weights import GOLDEN

from vbench.errors import ShapeError, UnsupportedError
from vbench.kernels import default_form, forms, operator
from vbench.kernels.gla import chunkwise, cost

DIRECTIONS = ("forward", "reverse", "both")
BOUND = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def inputs(
    shape: tuple[int, int, int, int],
    value_dim: int = 24,
    dtype: torch.dtype = torch.float64,
    decay: float = 0.1,
) -> dict[str, Tensor]:
    B, H, N, D = shape
    generator = torch.Generator().manual_seed(N)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    g = -decay * draw(2, B, H, N, D).abs()
    values = {"q": draw(B, H, N, D), "k": draw(B, H, N, D), "v": draw(B, H, N, value_dim), "g": g}
    return {key: value.to(dtype) for key, value in values.items()}


def run(form: str, x: dict[str, Tensor], direction: str, **options: object) -> tuple[Tensor, Tensor]:
    gate = {"forward": x["g"][0], "reverse": x["g"][1], "both": x["g"]}[direction]
    o, s = operator("gla", form)(x["q"], x["k"], x["v"], gate, direction=direction, **options)
    return o, s


with np.load(GOLDEN / "gla_bidir_op.npz") as _file:
    PUBLISHED = json.loads(str(_file["manifest"]))["cases"]


@pytest.mark.parametrize(("form", "case"), list(product(forms("gla"), PUBLISHED)))
def test_matches_the_published_operator(form: str, case: str) -> None:
    with np.load(GOLDEN / "gla_bidir_op.npz") as file:
        x = {name: torch.from_numpy(file[f"{case}_{name}"]) for name in ("q", "k", "v", "lf", "lb", "of", "ob")}
    x["g"] = torch.stack((x["lf"], x["lb"]))
    wanted = {"forward": x["of"], "reverse": x["ob"], "both": x["of"].double() + x["ob"].double()}
    for direction in DIRECTIONS:
        o, _ = run(form, x, direction)
        assert relative(o, wanted[direction]) < 1e-6


@pytest.mark.parametrize("dtype", list(BOUND), ids=str)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 16), (2, 3, 63, 8), (1, 2, 64, 32), (2, 1, 65, 16), (1, 2, 300, 16)], ids=str
)
def test_chunkwise_is_the_recurrence(shape: tuple[int, int, int, int], direction: str, dtype: torch.dtype) -> None:
    x = inputs(shape, dtype=dtype)
    exact = {key: value.double() for key, value in x.items()}
    o, s = run("chunkwise", x, direction)
    wanted_o, wanted_s = run("reference", exact, direction)
    assert o.dtype == dtype
    assert s.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert o.shape == wanted_o.shape
    assert s.shape == wanted_s.shape
    assert relative(o, wanted_o) < BOUND[dtype]
    assert relative(s, wanted_s) < max(BOUND[dtype] * (dtype != torch.bfloat16), 1e-5 * (dtype == torch.bfloat16))


@pytest.mark.parametrize("decay", [0.0, 1e-6, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_extreme_gates_stay_exact_in_float32(decay: float, direction: str) -> None:
    x = inputs((1, 2, 200, 16), decay=decay)
    wanted, _ = run("reference", x, direction)
    for form in forms("gla"):
        o, s = run(form, {key: value.float() for key, value in x.items()}, direction)
        assert torch.isfinite(o).all()
        assert torch.isfinite(s).all()
        assert relative(o, wanted) < 3e-6


def test_one_closed_gate_among_open_ones_costs_no_digits() -> None:
    x = inputs((1, 1, 128, 8), decay=1e-3)
    x["g"][:, :, :, 40] = -5e3  # a running sum of log decays would lose its digits from here on
    wanted, _ = run("reference", x, "both")
    o, _ = run("chunkwise", {key: value.float() for key, value in x.items()}, "both")
    assert relative(o, wanted) < 1e-6


def test_both_directions_take_and_give_their_states() -> None:
    x = inputs((2, 2, 70, 8))
    state = torch.randn(2, 2, 2, 8, 24, dtype=torch.float64)
    for form in forms("gla"):
        o, s = run(form, x, "both", state=state)
        forward = operator("gla", form)(x["q"], x["k"], x["v"], x["g"][0], direction="forward", state=state[0])
        backward = operator("gla", form)(x["q"], x["k"], x["v"], x["g"][1], direction="reverse", state=state[1])
        assert relative(o, forward[0] + backward[0]) < 1e-12
        assert relative(s, torch.stack((forward[1], backward[1]))) < 1e-12


@settings(max_examples=20, deadline=None)
@given(chunk=st.sampled_from([1, 2, 16, 64, 128]), group=st.integers(1, 5), tokens=st.integers(1, 200))
def test_chunk_and_group_never_matter(chunk: int, group: int, tokens: int) -> None:
    x = inputs((1, 1, tokens, 4), value_dim=4)
    wanted, final = run("reference", x, "both")
    o, s = run("chunkwise", x, "both", chunk=chunk, group=group)
    assert relative(o, wanted) < 1e-12
    assert relative(s, final) < 1e-12


def test_strided_views_are_read_in_place() -> None:
    x = inputs((2, 3, 130, 8))
    fused = torch.cat([x[name].transpose(1, 2).flatten(2) for name in "qkv"], dim=-1)
    views = fused.split([24, 24, 72], dim=-1)
    q, k, v = (view.unflatten(-1, (3, -1)).transpose(1, 2) for view in views)
    assert not q.is_contiguous()
    o, _ = chunkwise.gla(q, k, v, x["g"], direction="both")
    assert relative(o, run("reference", x, "both")[0]) < 1e-12


def test_shapes_that_do_not_agree_are_named() -> None:
    x = inputs((1, 2, 5, 4))
    for form in forms("gla"):
        with pytest.raises(ShapeError, match=r"q \(1, 2, 5, 4\), k \(1, 2, 5, 3\)"):
            operator("gla", form)(x["q"], x["k"][..., :3], x["v"], x["g"], direction="both")
        with pytest.raises(ShapeError, match="'forward', 'reverse' or 'both'"):
            operator("gla", form)(x["q"], x["k"], x["v"], x["g"], direction="backward")
        with pytest.raises(ShapeError, match=r"state \(1, 2, 3, 4\)"):
            run(form, x, "forward", state=torch.zeros(1, 2, 3, 4))
    with pytest.raises(ShapeError, match="power of two"):
        run("chunkwise", x, "both", chunk=48)
    with pytest.raises(UnsupportedError, match="no form 'fast'"):
        operator("gla", "fast")


def test_default_forms() -> None:
    assert default_form("gla", "parallel") == "chunkwise"
    assert default_form("gla", "recurrent") == "reference"


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("tokens", [1, 64, 196, 300])
def test_executed_macs_are_those_of_the_matrix_products(tokens: int, direction: str) -> None:
    """The formula against a count of what the form really dispatches; the diagonal's dot products are
    elementwise there and are added."""
    x = inputs((2, 3, tokens, 8), value_dim=16, dtype=torch.float32)
    with FlopCounterMode(display=False) as counter:
        run("chunkwise", x, direction)
    padded = tokens - tokens % 64 + (1 << (tokens % 64 - 1).bit_length() if tokens % 64 else 0)
    sizes = {"batch": 2, "heads": 3, "tokens": tokens, "key_dim": 8, "value_dim": 16}
    directions = 2 if direction == "both" else 1
    wanted = cost.macs("chunkwise", **sizes, directions=directions)
    assert counter.get_total_flops() // 2 + 2 * 3 * padded * 8 == wanted


def test_meta_tensors_answer_with_shapes_and_cost() -> None:
    x = {key: value.to("meta") for key, value in inputs((1, 3, 196, 32), value_dim=64).items()}
    for form in forms("gla"):
        with FlopCounterMode(display=False) as counter:
            o, s = run(form, x, "both")
        assert o.shape == (1, 3, 196, 64)
        assert s.shape == (2, 1, 3, 32, 64)
        wanted = cost.macs(form, batch=1, heads=3, tokens=196, key_dim=32, value_dim=64, directions=2)
        assert counter.get_total_flops() == 2 * wanted
    assert cost.macs("algorithm", batch=1, heads=3, tokens=196, key_dim=32, value_dim=64, directions=2) == 24_576 * 196
