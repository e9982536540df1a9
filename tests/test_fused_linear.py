"""Linear attention in Triton, interpreted: chunks, summaries, gradients, and what compilers see of it.

Triton is interpreted in a process that was started for it: `test_fused` starts one on this file and others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mutants import changed, passes_at_once
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.errors import UnsupportedError
from vbench.kernels.fused.tuning import Choice
from vbench.kernels.linear_attention import cost
from vbench.kernels.registry import interpreted, operator, trials
from vbench.kernels.trials import Inputs, Trial, cast, relative

triton, tl = pytest.importorskip("triton"), pytest.importorskip("triton.language")

OP = "linear_attention"
FORMS = ("fused", "fused_recurrent")
SIZES = (("fused", 70), ("fused", 32), ("fused", 1), ("fused_recurrent", 9))
inside = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 32 tokens, so that few make many; for the formulas too. Two heads: a third shows no more."""
    for module in ("fused", "cost"):
        monkeypatch.setattr(f"vbench.kernels.{OP}.{module}.pick", lambda *_: Choice(chunk=32, warps=4))
    monkeypatch.setattr(f"vbench.kernels.{OP}.trials.H", 2)


def draw(trial: Trial, tokens: int, dtype: torch.dtype = torch.float32) -> Inputs:
    return cast(trial.draw(tokens, torch.Generator().manual_seed(tokens)), dtype)


def summary(inputs: Inputs) -> tuple[Tensor, ...]:
    """Of some other tokens."""
    generator = torch.Generator().manual_seed(1)
    B, H, _, D = inputs["q"].shape
    S, z = (torch.rand(B, H, D, *rest, generator=generator) for rest in ((inputs["v"].shape[-1],), ()))
    return S, 5 * z, torch.tensor(7.0)


def doubled(state: tuple[Tensor, ...] | None) -> Any:
    return state and tuple(part.double() for part in state)


@inside
@pytest.mark.parametrize("trial", trials(OP), ids=lambda trial: trial.name.replace(" ", "-"))
def test_they_are_the_reference(trial: Trial) -> None:
    for form, tokens in SIZES:
        inputs = draw(trial, tokens)
        before = {name: x.clone() for name, x in inputs.items()}
        for state in (None, summary(inputs)):
            wanted, known = trial.run(operator(OP, "reference"), cast(inputs, torch.float64), doubled(state))
            o, found = trial.run(operator(OP, form), inputs, state)
            assert o.dtype == found[0].dtype == torch.float32
            for pair in zip((o, *found), (wanted, *known), strict=True):
                assert relative(*pair) < 1e-6, (form, tokens)
        assert all(torch.equal(inputs[name], before[name]) for name in inputs)


@inside
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype: torch.dtype) -> None:
    trial = trials(OP)[-1]
    for form, tokens in SIZES:
        inputs = draw(trial, tokens, dtype)
        wanted, known = trial.run(operator(OP, "reference"), cast(inputs, torch.float64))
        o, found = trial.run(operator(OP, form), inputs)
        assert o.dtype == dtype
        assert relative(o, wanted) < 1.1 * relative(wanted.to(dtype), wanted)
        assert all(relative(*pair) < 1e-6 for pair in zip(found, known, strict=True))


@inside
@pytest.mark.parametrize("dims", [(48, 80), (5, 19), (96, 16)], ids=str)
def test_heads_of_several_tiles_as_views_of_one_projection(dims: tuple[int, int]) -> None:
    """Of masked tiles too; the normaliser has features of its own."""
    D, E = dims
    generator = torch.Generator().manual_seed(D)
    whole = torch.randn(2, 40, 2 * (4 * D + E), generator=generator)
    parts = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in whole.split([2 * D] * 4 + [2 * E], dim=-1))
    q, k, q_norm, k_norm, v = parts
    x = {"q": q, "k": k, "v": v, "q_norm": q_norm.abs(), "k_norm": k_norm.abs()}
    assert not v.is_contiguous()
    wanted, known = operator(OP, "reference")(**cast(x, torch.float64))
    for form in FORMS:
        o, found = operator(OP, form)(**x)
        for pair in zip((o, *found), (wanted, *known), strict=True):
            assert relative(*pair) < 1e-6
    turned = {name: value.mT.contiguous().mT for name, value in x.items()}  # whose rows are not dense
    assert torch.equal(operator(OP, "fused")(**turned)[0], operator(OP, "fused")(**x)[0])


def gradients(form: str, trial: Trial, inputs: Inputs, state: tuple[Tensor, ...] | None) -> list[Tensor]:
    """Of a random sum over the output and all of the summary; without a state, over the output alone."""
    x = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    given = state and tuple(part.clone().requires_grad_() for part in state)
    o, final = trial.run(operator(OP, form), x, given)
    generator = torch.Generator().manual_seed(0)
    outputs = (o, *final) if state else (o,)
    loss = sum((y.double() * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    return list(torch.autograd.grad(loss, [*x.values(), *(given or ())]))


@inside
@pytest.mark.parametrize("trial", [trials(OP)[0], trials(OP)[1], trials(OP)[-1]], ids=lambda trial: trial.name)
def test_gradients_are_the_references(trial: Trial) -> None:
    for form, tokens in (("fused", 40), ("fused_recurrent", 5)):
        inputs = draw(trial, tokens)
        for state in (None, summary(inputs)):
            wanted = gradients("reference", trial, cast(inputs, torch.float64), doubled(state))
            for found, known in zip(gradients(form, trial, inputs, state), wanted, strict=True):
                assert found.dtype == torch.float32
                assert relative(found, known) < 3e-6


@inside
def test_launches_and_what_they_store() -> None:
    from vbench.kernels.fused.launch import recording

    trial = trials(OP)[-1]
    for form, tokens, launches in (("fused", 32, 2), ("fused", 70, 2), ("fused_recurrent", 70, 1)):
        with recording() as found:
            trial.run(operator(OP, form), draw(trial, tokens))
        assert len(found) == launches
    with recording() as found:
        trial.run(operator(OP, "fused"), draw(trial, 320))
    assert found[0].args["S"].shape == (2, 2, 10, 16, 24)  # a summary a chunk
    assert found[0].grid == (4, 1, 10)


@inside
def test_the_table_may_ask_for_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"vbench.kernels.{OP}.fused.pick", lambda *_: Choice(32, 4, sequential=True))
    trial = trials(OP)[0]
    inputs = draw(trial, 6)
    o, _ = trial.run(operator(OP, "fused"), inputs)
    assert torch.equal(o, trial.run(operator(OP, "fused_recurrent"), inputs)[0])


@inside
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # in opcheck itself
def test_torch_can_ask_the_operator_for_shapes_and_gradients() -> None:
    operator(OP, "fused")  # registers
    x = draw(trials(OP)[-1], 3)
    one_head = [x[name][:1, :1].clone().requires_grad_() for name in ("q", "k", "v", "q_norm", "k_norm")]
    state = [torch.rand(1, 1, *rest, requires_grad=True) for rest in ((16, 24), (16,))]
    for sequential in (False, True):
        given = (*one_head, *state, torch.tensor(2.0, requires_grad=True), 1e-3, sequential)
        torch.library.opcheck(torch.ops.vbench.linear_attention_fused.default, given)


class Layer(torch.nn.Module):
    """The operator as a part of something."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.op = operator(OP, form)

    def forward(self, *x: Tensor) -> Tensor:
        o: Tensor = self.op(*x)[0]
        return 2 * o.transpose(1, 2).flatten(2)


@inside
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
@pytest.mark.parametrize("form", FORMS)
def test_it_is_exported_and_compiled_whole(form: str) -> None:
    torch.compiler.reset()
    inputs = [x[:1, :1].clone().requires_grad_() for x in draw(trials(OP)[0], 6).values()]
    assert "vbench.linear_attention_fused" in str(torch.export.export(Layer(form), tuple(inputs)).graph)
    found, wanted = (
        layer(*inputs) for layer in (torch.compile(Layer(form), fullgraph=True, backend="aot_eager"), Layer(form))
    )
    assert torch.equal(found, wanted)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (found, wanted)), strict=True)
    assert all(relative(*pair) < 1e-6 for pair in pairs)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_device_shapes_are_counted(form: str) -> None:
    inputs, call = draw(trials(OP)[-1], 196), operator(OP, form)  # imports the formulas
    with FlopCounterMode(display=False) as counter:
        o, state = call(**{name: x.to("meta") for name, x in inputs.items()})
    assert o.shape == inputs["v"].shape
    assert [tuple(part.shape) for part in state] == [(2, 2, 16, 24), (2, 2, 16), ()]
    sizes = {"batch": 2, "heads": 2, "tokens": 196, "key_dim": 16, "value_dim": 24}
    assert counter.get_total_flops() == 2 * cost.macs(form, **sizes) >= 2 * cost.macs("algorithm", **sizes)


MULTIPLIED: list[int] = []  # MACs of products of tiles


def counted(x: Any, rows: Any, step: Any, columns: Any, WIDTH: Any, stop: Any) -> Any:
    """`parts.tile_of`, whose numbers are counted."""
    MULTIPLIED.append(int(rows.shape[0]) * int(columns.shape[0]))
    mask = ((rows >= 0) & (rows < stop))[:, None] & (columns < WIDTH)[None, :]
    return tl.load(x + rows[:, None] * step + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@inside
def test_macs_are_what_the_kernels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the tiles that are read: one of values meets one of keys, one of queries a state's, and sums each alone."""
    from vbench.kernels.linear_attention import passes

    monkeypatch.setattr(passes, "tile_of", triton.jit(counted))
    D, E, tokens = 40, 80, 70  # two tiles of 32 by three of 32, and three chunks of 32
    q, k, v = (torch.rand(1, 1, tokens, dim) for dim in (D, D, E))
    MULTIPLIED.clear()
    operator(OP, "fused")(q, k, v)
    assert set(MULTIPLIED) == {32 * 32}
    gathered, read = 3 * 6 * 2 + 3 * 2, 3 * 3 * 2 * 2  # keys, values and weights; queries and weights
    assert len(MULTIPLIED) == gathered + read
    products, sums = 32 * 32 * 32 * (3 * 6 + 3 * 3 * 2), 32 * 32 * (3 * 2 + 3 * 3 * 2)
    assert cost.macs("fused", batch=1, heads=1, tokens=tokens, key_dim=D, value_dim=E) == products + sums


def test_what_kernels_do_not_take_is_refused() -> None:
    x = torch.zeros(1, 1, 5, 4)
    for form in FORMS:
        with pytest.raises(UnsupportedError, match="not float64" if interpreted() else "not"):
            operator(OP, form)(x.double(), x.double(), x.double())
        if not interpreted():
            with pytest.raises(UnsupportedError, match="runs on cuda, not on cpu"):
                operator(OP, form)(x, x, x)


MUTANTS: dict[str, tuple[tuple[str, str], ...]] = {
    "none": (),
    "mean for sum": (
        ("tl.sum(weights, 0)", "tl.sum(weights, 0) / N"),
        ("sums += tl.load(", "sums += 1 / N * tl.load("),
    ),
    "q and k exchanged": (("tile_of(k + b * k_b", "tile_of(k_norm + b * k_b"), ("tl.load(k + t", "tl.load(k_norm + t")),
    "turned normaliser": (
        ("tile_of(q_norm, t, w_n", "tile_of(q, t, q_n"),
        ("tl.load(q_norm + t * x_n", "tl.load(q + t * q_n"),
    ),
    "a token left out": (("t < stop", "t < stop - 1"), ("range(0, N)", "range(0, N - 1)"), ("stop)", "stop - 1)")),
}


@inside
@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from vbench.kernels.linear_attention import fused, passes

    monkeypatch.setattr(fused, "passes", changed(passes, MUTANTS[name], tmp_path))
    for size in ("B", "H"):  # one image and one head show it
        monkeypatch.setattr(f"vbench.kernels.linear_attention.trials.{size}", 1)
    monkeypatch.setattr("vbench.verify.checks.trials", lambda op: trials(op)[-1:])  # with a normaliser of its own
    for form in FORMS:
        assert passes_at_once(OP, form) == (name == "none"), form
