"""Every form of every operator: one function, divisible anywhere, causal where it says so, differentiable.

What is particular to an operator is in a file of its own.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.errors import ShapeError, UnsupportedError
from vbench.kernels import OPS, default_form, forms, operator
from vbench.kernels.entry import Work, shapes_of, work
from vbench.kernels.gla.cost import chunk_of
from vbench.kernels.registry import trials, truth
from vbench.kernels.trials import Inputs, Trial, cast, hand_off, relative, tensors

BOUND = {torch.float64: 1e-11, torch.float32: 5e-6, torch.bfloat16: 2e-2}
# Where a token belongs is seen best in float64; fewer lengths show how other types are rounded.
SIZES = [*product([torch.float64], [1, 63, 64, 65, 150]), *product([torch.float32, torch.bfloat16], [1, 65, 150])]
CALLS = [(op, trial) for op in OPS for trial in trials(op)]
FORMS = [(op, form, trial) for op, trial in CALLS for form in forms(op) if form != truth(op)]


def name(value: Any) -> str:
    return value.name.replace(", ", "-").replace(" ", "-") if isinstance(value, Trial) else str(value)


def draw(trial: Trial, tokens: int, seed: int = 0) -> Inputs:
    return trial.draw(tokens, torch.Generator().manual_seed(1000 * seed + tokens))


@lru_cache(maxsize=len(SIZES))  # of a trial, whose forms come one after the other
def reference(op: str, number: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Any]:
    """What the form that all others are held to gives for the inputs of a trial, once they are rounded to a type."""
    trial = trials(op)[number]
    return trial.run(operator(op, truth(op)), cast(cast(draw(trial, tokens), dtype), torch.float64))


def work_of(op: str, form: str, trial: Trial, inputs: Inputs) -> Work:
    shapes = shapes_of(op)
    choice = str(trial.options.get(shapes.option, shapes.choices[0]))
    return work([x.shape for x in inputs.values()], op, form, choice)


@pytest.mark.parametrize(("op", "form", "trial"), FORMS, ids=name)
def test_every_form_is_the_reference(op: str, form: str, trial: Trial) -> None:
    for dtype, tokens in SIZES:
        inputs = cast(draw(trial, tokens), dtype)
        wanted, wanted_state = reference(op, trials(op).index(trial), tokens, dtype)
        o, state = trial.run(operator(op, form), inputs)
        assert o.dtype == dtype
        assert o.shape == wanted.shape
        assert relative(o, wanted) < BOUND[dtype], (tokens, dtype)
        for found, known in zip(tensors(state), tensors(wanted_state), strict=True):
            assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert found.shape == known.shape
            assert relative(found, known) < min(BOUND[dtype], 1e-5), (tokens, dtype)


@pytest.mark.parametrize(("op", "trial"), [call for call in CALLS if call[1].divisible], ids=name)
@settings(max_examples=5, deadline=None)
@given(tokens=st.integers(2, 140), at=st.floats(0, 1), seed=st.integers(0, 9))
def test_a_sequence_can_be_split_anywhere(op: str, trial: Trial, tokens: int, at: float, seed: int) -> None:
    inputs = draw(trial, tokens, seed)
    for form in forms(op):
        whole, final = trial.run(operator(op, form), inputs)
        o, state = hand_off(trial, operator(op, form), inputs, 1 + int(at * (tokens - 2)))
        assert relative(o, whole) < 1e-11
        for found, known in zip(tensors(state), tensors(final), strict=True):
            assert relative(found, known) < 1e-11


@pytest.mark.parametrize(
    ("op", "trial"), [call for call in CALLS if call[1].initial and not call[1].divisible], ids=name
)
def test_walks_that_cannot_be_split_begin_with_a_state(op: str, trial: Trial) -> None:
    inputs = draw(trial, 90)
    _, start = trial.run(operator(op, truth(op)), inputs)
    wanted, final = trial.run(operator(op, truth(op)), inputs, start)
    for form in forms(op):
        o, state = trial.run(operator(op, form), inputs, start)
        assert relative(o, wanted) < 1e-11
        assert relative(o, trial.run(operator(op, form), inputs)[0]) > 1e-3
        for found, known in zip(tensors(state), tensors(final), strict=True):
            assert relative(found, known) < 1e-11


@pytest.mark.parametrize(("op", "trial"), [call for call in CALLS if call[1].one_way], ids=name)
def test_a_direction_sees_no_token_beyond_its_own(op: str, trial: Trial) -> None:
    inputs, N, at = draw(trial, 90), 90, 50
    kept = slice(None, at) if trial.direction == "forward" else slice(at, None)
    changed = {key: value.clone() for key, value in inputs.items()}
    for key, dim in trial.token_dims.items():
        beyond = (at, N - at) if trial.direction == "forward" else (0, at)
        changed[key].narrow(dim, *beyond).mul_(0.5)
    for form in forms(op):
        before, _ = trial.run(operator(op, form), inputs)
        after, _ = trial.run(operator(op, form), changed)
        assert relative(after[..., kept, :], before[..., kept, :]) < 1e-12
        assert relative(after, before) > 1e-6


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_strided_views_give_the_same(op: str, trial: Trial) -> None:
    inputs = draw(trial, 70)
    views = {key: value.mT.contiguous().mT if value.ndim > 1 else value for key, value in inputs.items()}
    assert any(not view.is_contiguous() for view in views.values())
    for form in forms(op):
        before = {key: value.clone() for key, value in views.items()}
        o, _ = trial.run(operator(op, form), views)
        assert relative(o, trial.run(operator(op, form), inputs)[0]) < 1e-12
        assert all(torch.equal(before[key], views[key]) for key in views), "an input was written to"


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_gradients_are_the_references(op: str, trial: Trial) -> None:
    inputs = draw(trial, 70)
    grads: dict[str, tuple[Tensor, ...]] = {}
    for form in forms(op):
        x = {key: value.clone().requires_grad_() for key, value in inputs.items()}
        state = trial.initial(x) if trial.initial else None
        o, s = trial.run(operator(op, form), x, state)
        loss = (o * o.detach().cos()).sum() + sum(part.sin().sum() for part in tensors(s) if part.requires_grad)
        grads[form] = torch.autograd.grad(loss, list(x.values()))
    for form in forms(op):
        for found, wanted in zip(grads[form], grads[truth(op)], strict=True):
            assert relative(found, wanted) < 1e-9, form


@pytest.mark.parametrize("op", list(OPS))
def test_the_references_gradient_is_the_derivative(op: str) -> None:
    for trial in trials(op)[:1] + trials(op)[-1:]:
        inputs = {key: value.requires_grad_() for key, value in draw(trial, 3).items()}

        def call(*values: Tensor, trial: Trial = trial, names: tuple[str, ...] = tuple(inputs)) -> Tensor:
            return trial.run(operator(op, truth(op)), dict(zip(names, values, strict=True)))[0]

        assert torch.autograd.gradcheck(call, tuple(inputs.values()), fast_mode=True)


@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_meta_tensors_answer_with_shapes_and_cost(op: str, trial: Trial) -> None:
    inputs = cast(draw(trial, 70), torch.float32)
    for form in forms(op):
        real, real_state = trial.run(operator(op, form), inputs)
        with FlopCounterMode(display=False) as counter:
            o, state = trial.run(operator(op, form), {key: value.to("meta") for key, value in inputs.items()})
        assert o.is_meta
        assert (o.shape, o.dtype) == (real.shape, real.dtype)
        for found, known in zip(tensors(state), tensors(real_state), strict=True):
            assert (found.shape, found.dtype) == (known.shape, known.dtype)
        assert counter.get_total_flops() == 2 * work_of(op, form, trial, inputs).macs > 0


@pytest.mark.parametrize("op", list(OPS))
def test_the_forms_of_an_operator_have_one_signature(op: str) -> None:
    def shared(form: str) -> list[inspect.Parameter]:
        return list(inspect.signature(operator(op, form)).parameters.values())

    wanted = shared(truth(op))
    for form in forms(op):
        assert shared(form)[: len(wanted)] == wanted, form


# What each form refuses, with what words


@pytest.mark.parametrize(("op", "form"), [(op, form) for op in OPS for form in forms(op)])
def test_shapes_that_do_not_agree_are_named(op: str, form: str) -> None:
    trial = trials(op)[0]
    inputs = draw(trial, 5)
    for key, x in inputs.items():
        short = x.narrow(max(0, x.ndim - 2), 1, x.shape[max(0, x.ndim - 2)] - 1)
        with pytest.raises(ShapeError, match=re.escape(f"{key} {tuple(short.shape)}")):
            trial.run(operator(op, form), {**inputs, key: short})
    with pytest.raises(ShapeError, match=f"{op}.*N > 0"):
        trial.run(operator(op, form), draw(trial, 0))
    if trial.initial:
        _, state = trial.run(operator(op, form), inputs)
        parts = tuple(part[None] for part in tensors(state))
        told = " ".join(str(tuple(part.shape)) for part in parts)
        with pytest.raises(ShapeError, match=re.escape(f"state {told}")):
            trial.run(operator(op, form), inputs, parts if isinstance(state, tuple) else parts[0])
        wrong = tensors(state)[0] if isinstance(state, tuple) else tensors(state)
        with pytest.raises(ShapeError, match=f"{op}.*state"):
            trial.run(operator(op, form), inputs, wrong)


@pytest.mark.parametrize(("op", "form"), [(op, form) for op in OPS for form in forms(op) if shapes_of(op).option])
def test_what_cannot_be_chosen_is_refused(op: str, form: str) -> None:
    shapes, inputs = shapes_of(op), draw(trials(op)[0], 5).values()
    several = " or ".join((", ".join(map(repr, shapes.choices[:-1])), repr(shapes.choices[-1])))
    for other in ("sideways", *({"both"} - set(shapes.choices))):
        with pytest.raises(ShapeError, match=f"{op}: {shapes.option} is {several}, not '{other}'"):
            operator(op, form)(*inputs, **{shapes.option: other})


@pytest.mark.parametrize("form", forms("wkv"))
def test_the_released_reading_takes_no_state(form: str) -> None:
    inputs = draw(trials("wkv")[0], 5)
    _, state = operator("wkv", form)(*inputs.values())
    with pytest.raises(ShapeError, match="'kernel' takes no state"):
        operator("wkv", form)(*inputs.values(), reading="kernel", state=state)


@pytest.mark.parametrize("op", ["gla", "mlstm", "retention"])
def test_a_chunk_or_a_group_of_nothing_is_refused(op: str) -> None:
    inputs = draw(trials(op)[0], 5).values()
    for option in ("chunk", "group"):
        with pytest.raises(ShapeError, match="at least 1"):
            operator(op, "chunkwise")(*inputs, **{option: 0})
    if op == "gla":
        with pytest.raises(ShapeError, match="power of two"):
            operator(op, "chunkwise")(*inputs, chunk=48)


def test_a_form_is_always_the_same_function_and_takes_its_inputs_by_name_too() -> None:
    for op in OPS:
        trial = trials(op)[0]
        inputs = draw(trial, 5)
        for form in forms(op):
            call = operator(op, form)
            assert call is operator(op, form)
            found, _ = call(**inputs, **trial.options)
            assert torch.equal(found, trial.run(call, inputs)[0])
            with pytest.raises(TypeError, match="missing"):
                call(**dict(list(inputs.items())[1:]))
    with pytest.raises(UnsupportedError, match="no form 'fast'"):
        operator("gla", "fast")


DEFAULTS = {
    "gla": ("chunkwise", "compiled"),
    "wkv": ("scan", "compiled"),
    "wkv6": ("chunkwise", "compiled"),
    "mlstm": ("chunkwise", "compiled"),
    "retention": ("chunkwise", "compiled"),
    "softmax_retention": ("suffix", None),
    "mingru": ("scan", "compiled"),
    "selective_scan": ("scan", "compiled"),
    "linear_attention": ("summary", "compiled"),
}


@pytest.mark.parametrize("op", list(OPS))
def test_default_forms(op: str) -> None:
    parallel, recurrent = DEFAULTS[op]
    assert default_form(op, "parallel") == parallel
    if recurrent:
        assert default_form(op, "recurrent") == recurrent
    else:
        with pytest.raises(UnsupportedError, match="no recurrent form"):
            default_form(op, "recurrent")


# The ends of the range


def scaled(key: str, factor: float) -> Callable[[Inputs], None]:
    """One argument made so large, on average."""
    return lambda x: x.update({key: x[key] * (factor / x[key].abs().mean())})


def filled(key: str, value: float) -> Callable[[Inputs], None]:
    return lambda x: x.update({key: torch.full_like(x[key], value)})


def one_closed(key: str, dim: int) -> Callable[[Inputs], None]:
    """One shut gate among open ones, from which on a running sum of log decays would lose its digits."""

    def change(x: Inputs) -> None:
        x[key].select(dim, 40).fill_(-5e3)

    return change


def weights(decay: float, keys: float) -> Callable[[Inputs], None]:
    return lambda x: x.update({"w": decay * (50 * x["w"]).abs(), "k": keys * x["k"]})


def gates(value: float) -> Callable[[Inputs], None]:
    return lambda x: x.update({"a": 15 * x["a"], "b": value + x["b"]})


EXTREMES = [
    *(("gla", scaled("g", decay), 3e-6) for decay in (0.0, 1e-6, 1.0, 30.0, 1e4)),
    ("gla", one_closed("g", -2), 1e-6),
    *(("wkv6", scaled("g", decay), 3e-6) for decay in (0.0, 1e-6, 1.0, 30.0, 1e4)),
    ("mlstm", one_closed("f", -1), 1e-6),
    *((op, filled("g", g), 2e-6) for op in ("retention", "softmax_retention") for g in (0.0, -1e-6, -1.0, -1e4, -1e30)),
    # growing weights have the digits of the greatest exponent
    *(
        ("wkv", weights(decay, keys), 5e-6 if decay >= 0 else 2e-4)
        for decay, keys in product((-100.0, -1.0, 0.0, 1e-6, 1.0, 100.0), (1.0, 1e3))
    ),
    *(("selective_scan", filled("delta", delta), 1e-5) for delta in (-1e4, -30.0, -10.0, 1.0, 20.0, 1e4)),
    *(("selective_scan", scaled("A", rate), 1e-5) for rate in (1e-6, 1e3, 1e30)),
    *(("linear_attention", scaled(key, size), 2e-6) for key, size in (("q", 1e-6), ("k", 1e6), ("v", 1e6))),
    *(("mingru", gates(gate), 1e-5) for gate in (-1e4, -90.0, -20.0, 20.0, 90.0, 1e4)),
]


@pytest.mark.parametrize(("op", "change", "bound"), EXTREMES)
def test_extremes_stay_exact_in_float32(op: str, change: Callable[[Inputs], None], bound: float) -> None:
    """In each direction once. minGRU begins with a state, for what is shut off from the start is all but 0."""
    for trial in {each.direction: each for each in reversed(trials(op)) if each.initial or "soft" in op}.values():
        inputs = draw(trial, 200)
        change(inputs)
        inputs = cast(inputs, torch.float32)
        start = torch.linspace(0.1, 2, 48).view(2, 24) if op == "mingru" else None
        wanted, wanted_state = trial.run(operator(op, truth(op)), cast(inputs, torch.float64), start)
        for form in forms(op):
            o, state = trial.run(operator(op, form), inputs, start)
            assert relative(o, wanted) < bound, (form, trial.name)
            for found, known in zip(tensors(state), tensors(wanted_state), strict=True):
                assert torch.isfinite(found).all()
                assert relative(found, known) < max(bound, 1e-5), (form, trial.name)


# Chunks, groups, and what is counted

CUT = {"gla": ("chunkwise", [1, 2, 16, 64, 128]), "mlstm": ("chunkwise", None), "retention": ("chunkwise", None)}


@pytest.mark.parametrize("op", list(CUT))
@settings(max_examples=20, deadline=None)
@given(data=st.data(), group=st.integers(1, 5), tokens=st.integers(1, 200))
def test_chunk_and_group_never_matter(op: str, data: st.DataObject, group: int, tokens: int) -> None:
    form, allowed = CUT[op]
    chunk = data.draw(st.sampled_from(allowed) if allowed else st.integers(1, 130))
    trial = data.draw(st.sampled_from([each for each in trials(op) if "typical" in each.name]))
    inputs = draw(trial, tokens)
    wanted, final = trial.run(operator(op, truth(op)), inputs)
    o, state = operator(op, form)(*inputs.values(), **trial.options, chunk=chunk, group=group)
    for found, known in zip((o, *tensors(state)), (wanted, *tensors(final)), strict=True):
        assert relative(found, known) < 1e-12


MATRIX_FORMS = [
    ("gla", "chunkwise"),
    ("wkv6", "chunkwise"),
    *product(("mlstm", "retention"), ("chunkwise", "quadratic")),
    *product(("softmax_retention",), ("suffix", "quadratic")),
    *product(("linear_attention",), ("summary", "quadratic")),
]


@pytest.mark.parametrize("tokens", [1, 64, 197, 300, 1100])
@pytest.mark.parametrize(("op", "form"), MATRIX_FORMS)
def test_executed_macs_are_those_of_the_matrix_products(op: str, form: str, tokens: int) -> None:
    """The formula against a count of what the form really dispatches.

    The dot products on the diagonal are elementwise in the chunks of gla and wkv6, and are added; so are, in linear
    attention, the sum of keys and what "summary" reads of it.
    """
    for trial in {(each.direction, len(each.token_dims)): each for each in trials(op)}.values():
        inputs = cast(draw(trial, tokens), torch.float32)
        with FlopCounterMode(display=False) as counter:
            trial.run(operator(op, form), inputs)
        B, H, _, D = next(iter(inputs.values())).shape
        padded = -(-tokens // chunk_of(tokens)) * chunk_of(tokens)
        diagonal = B * H * padded * D if op in ("gla", "wkv6") else 0
        if op == "linear_attention":
            diagonal = B * H * tokens * D * (2 if form == "summary" else 1)
        found = work_of(op, form, trial, inputs)
        assert counter.get_total_flops() // 2 + diagonal == found.macs, trial.name
        if form == default_form(op, "parallel"):
            assert found.macs >= found.macs_algorithm


HEADS = {"batch": 1, "heads": 3, "tokens": 196, "key_dim": 32, "value_dim": 64}
CHANNELS = {"batch": 1, "tokens": 196, "channels": 192}
BY_HAND = {
    "gla": ({**HEADS, "directions": 2}, 196 * 3 * 2 * 2 * 32 * 64),
    "wkv6": ({**HEADS, "directions": 2}, 196 * 3 * 2 * 2 * 32 * 64),
    "mlstm": (HEADS, 196 * 3 * 2 * (32 * 64 + 32)),
    "retention": (HEADS, 196 * 3 * 2 * 32 * 64),
    "softmax_retention": (HEADS, 196 * 197 // 2 * 3 * (32 + 64)),
    "wkv": (CHANNELS, 196 * 4 * 192),
    "mingru": (CHANNELS, 196 * 192),
    "selective_scan": (
        {"batch": 1, "groups": 1, "tokens": 196, "channels": 384, "states": 16, "directions": 2},
        196 * 384 * 2 * (2 * 16 + 1),
    ),
    "linear_attention": (HEADS, 196 * 3 * 2 * (32 * 64 + 32)),
}


@pytest.mark.parametrize("op", list(OPS))
def test_the_algorithm_is_counted_by_hand_and_the_reference_does_no_more(op: str) -> None:
    macs, (sizes, wanted) = import_module(f"vbench.kernels.{op}.cost").macs, BY_HAND[op]
    assert macs("algorithm", **sizes) == wanted
    if "reference" in OPS[op]:
        assert macs("reference", **sizes) == wanted
