"""The matrix-state operators in Triton, interpreted: values, gradients, and what compilers see of them.

Triton is interpreted in a process that was started for it: `test_fused` starts one on this file. What every
trial of every operator gives is for `vbench kernels check`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.errors import UnsupportedError
from vbench.kernels.registry import interpreted, operator, trials, truth
from vbench.kernels.trials import Inputs, Trial, cast, relative, tensors

pytest.importorskip("triton")

OPS = ("gla", "wkv6", "mlstm", "retention")
BEYOND_A_CHUNK = {"gla": 33, "wkv6": 33, "mlstm": 65, "retention": 65}  # tokens
FORMS = ("fused", "fused_recurrent")
SIZES = (("fused", 40), ("fused_recurrent", 16))  # a step takes the interpreter as long as a chunk
inside = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")


def trial_of(op: str, name: str) -> Trial:
    return next(trial for trial in trials(op) if trial.name.endswith(name))


def draw(trial: Trial, tokens: int) -> Inputs:
    return cast(trial.draw(tokens, torch.Generator().manual_seed(tokens)), torch.float32)


def some(inputs: Inputs, images: int = 1, heads: int = 2) -> Inputs:
    """The first images and the last heads, for fewer programs: two of either show that none is mixed up.

    The gates of two directions have these in front of the images.
    """
    kept = slice(images), slice(-heads, None)
    return {name: x[:, *kept] if x.ndim == 5 else x[kept] if x.ndim > 2 else x[kept[1]] for name, x in inputs.items()}


def errors(op: str, form: str, trial: Trial, inputs: Inputs) -> list[float]:
    """Of the output and of each part of the state."""
    wanted, known = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
    o, state = trial.run(operator(op, form), inputs)
    return [relative(*pair) for pair in zip((o, *tensors(state)), (wanted, *tensors(known)), strict=True)]


@pytest.mark.skipif(interpreted(), reason="they run there")
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("form", FORMS)
def test_a_cpu_is_refused(op: str, form: str) -> None:
    trial = trials(op)[0]
    with pytest.raises(UnsupportedError, match=f"{op} {form} runs on cuda, not on cpu"):
        trial.run(operator(op, form), draw(trial, 8))


@inside
@pytest.mark.parametrize(("op", "tokens"), [(op, tokens) for op in OPS for tokens in (1, 5, BEYOND_A_CHUNK[op])])
def test_any_number_of_tokens(op: str, tokens: int) -> None:
    trial = trials(op)[-1]
    for form in FORMS if tokens < 17 else FORMS[:1]:
        inputs = draw(trial, tokens)
        assert max(errors(op, form, trial, some(inputs) if tokens > 1 else inputs)) < 3e-6


@inside
@pytest.mark.parametrize("op", OPS)
def test_float64_is_refused(op: str) -> None:
    trial = trials(op)[0]
    with pytest.raises(UnsupportedError, match="float64"):
        trial.run(operator(op, "fused"), cast(draw(trial, 8), torch.float64))


@inside
@pytest.mark.parametrize("op", ["gla", "wkv6"])
def test_shut_gates_beside_open_ones_lose_no_digit(op: str) -> None:
    """A decay of e^-30000 must not take those after it along, as a difference of running sums would."""
    trial = trial_of(op, "both, typical gates")
    for form, tokens in SIZES:
        inputs = draw(trial, tokens)
        g = inputs["g"]
        g[..., ::7, :] = -30.0
        g[..., 3::11, :] = -3e4
        g[..., 5::13, :] = 0.0
        assert max(errors(op, form, trial, some(inputs))) < 1e-6


@inside
def test_shut_forget_gates_beside_open_ones_lose_no_digit() -> None:
    trial = trial_of("mlstm", "reverse, typical gates")
    for form, tokens in SIZES:
        inputs = draw(trial, tokens)
        inputs["f"][..., ::7] = -3e4
        inputs["i"][..., 4::9] = 40.0
        assert max(errors("mlstm", form, trial, some(inputs))) < 2e-6


def wide(op: str, D: int, E: int, tokens: int) -> tuple[Trial, Inputs]:
    """Heads of several tiles, as strided views of one projection."""
    generator = torch.Generator().manual_seed(D)
    whole = torch.randn(1, tokens, 2 * (2 * D + E), generator=generator)
    q, k, v = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in whole.split([2 * D, 2 * D, 2 * E], dim=-1))
    narrow = trials(op)[-2]
    inputs = {**narrow.draw(tokens, generator)}
    if op == "mlstm":
        rest = {name: inputs[name][:1, :2].float() for name in ("i", "f")}
        return narrow, {"q": 1 + q / 2, "k": 1 + k / 2, "v": v, **rest}
    if op == "retention":
        return narrow, {"q": q, "k": k, "v": v, "g": torch.tensor([-0.03, -0.5])}
    g = -torch.rand((2, 1, 2, tokens, D) if op == "gla" else (1, 2, tokens, D), generator=generator)
    first = "q" if op == "gla" else "r"
    bonus = {"u": torch.randn(2, D, generator=generator)} if op == "wkv6" else {}
    return narrow, {first: q, "k": k, "v": v, "g": g, **bonus}


@inside
@pytest.mark.parametrize(
    ("op", "D", "E"), [("gla", 64, 16), ("wkv6", 48, 16), ("mlstm", 48, 96), ("retention", 16, 48)]
)
def test_heads_of_several_tiles_as_views_of_one_projection(op: str, D: int, E: int) -> None:
    for form, tokens in (("fused_recurrent", 8), ("fused", 20)):  # tiles, not chunks, are what matters here
        trial, inputs = wide(op, D, E, tokens)
        assert not inputs["v"].is_contiguous()
        before = {name: value.clone() for name, value in inputs.items()}
        assert max(errors(op, form, trial, inputs)) < 2e-6
        assert all(torch.equal(inputs[name], before[name]) for name in inputs)
    assert max(gradient_errors(op, trial, inputs)) < 1e-5


def gradients(op: str, form: str, trial: Trial, inputs: Inputs, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of a random sum over output and final state, by every input and by the state."""
    x = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    carried = tuple(part.clone().requires_grad_() for part in state)
    o, final = trial.run(operator(op, form), x, (carried if len(carried) > 1 else carried[0]) if carried else None)
    generator = torch.Generator().manual_seed(0)
    parts = (o, *tensors(final))
    weights = [torch.randn(part.shape, generator=generator, dtype=torch.float64) for part in parts]
    loss = torch.stack([(weight * part).sum() for weight, part in zip(weights, parts, strict=True)]).sum()
    return torch.autograd.grad(loss, [*x.values(), *carried], materialize_grads=True)


def gradient_errors(op: str, trial: Trial, inputs: Inputs, state: tuple[Tensor, ...] = ()) -> list[float]:
    exact = tuple(part.double() for part in state)
    wanted = gradients(op, truth(op), trial, cast(inputs, torch.float64), exact)
    found = gradients(op, "fused", trial, inputs, state)
    return [relative(*pair) for pair in zip(found, wanted, strict=True)]


@inside
@pytest.mark.parametrize(
    ("op", "name", "images"),  # of one head each; of one image, two heads
    [
        ("gla", "forward, typical gates", 1),
        ("gla", "both, closed gates", 1),
        ("wkv6", "reverse, typical gates", 2),
        ("wkv6", "both, closed gates", 1),
        ("mlstm", "forward, large gates", 1),
        ("mlstm", "reverse, closed gates", 1),
        ("retention", "open decays", 2),
    ],
)
def test_gradients_of_inputs_and_state(op: str, name: str, images: int) -> None:
    trial = trial_of(op, name)
    inputs = draw(trial, 35)  # three chunks of 16, two of 32
    heads = 3 - images
    inputs = some(inputs, images, heads)
    assert trial.initial is not None
    generator, dim = torch.Generator().manual_seed(1), 2 if trial.direction == "both" else 1  # of the heads
    shapes = [part.narrow(dim, 0, heads).shape for part in tensors(trial.initial(inputs))]
    state = tuple(torch.randn(shape, generator=generator) / 3 for shape in shapes)
    assert max(gradient_errors(op, trial, inputs, state)) < 3e-5


@inside
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which the check itself asks for
def test_torch_can_ask_the_operator_for_shapes_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    from vbench.kernels.fused import operator as family

    called: list[tuple[Any, ...]] = []
    real = family.matrix_state

    def spy(*arguments: Any) -> list[Tensor]:
        called.append(arguments)
        return real(*arguments)

    monkeypatch.setattr("vbench.kernels.fused.operator.matrix_state", spy)
    trial = trials("mlstm")[0]
    one_head = {name: x[:1, :1] for name, x in draw(trial, 5).items()}
    trial.run(operator("mlstm", "fused"), one_head)
    leaves = tuple(x.detach().requires_grad_() if isinstance(x, Tensor) else x for x in called[0])
    torch.library.opcheck(torch.ops.vbench.matrix_state.default, leaves)


class Layer(torch.nn.Module):
    """An operator as a part of something."""

    def __init__(self, op: str, trial: Trial) -> None:
        super().__init__()
        self.op, self.options = operator(op, "fused"), dict(trial.options)

    def forward(self, *x: Tensor) -> Tensor:
        o: Tensor = self.op(*x, **self.options)[0]
        return 2 * o.transpose(1, 2).flatten(2)


@inside
def test_it_is_exported_whole() -> None:
    trial = trial_of("gla", "both, typical gates")
    inputs = tuple(draw(trial, 20).values())
    exported = torch.export.export(Layer("gla", trial), inputs)
    assert "matrix_state" in str(exported.graph)
    assert torch.equal(exported.module()(*inputs), Layer("gla", trial)(*inputs))


@inside
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own
@pytest.mark.parametrize("op", ["gla", "mlstm"])
def test_it_is_compiled_whole_and_trained(op: str) -> None:
    torch.compiler.reset()
    trial = trials(op)[0]
    inputs = [x[:1, :1].clone().requires_grad_() for x in draw(trial, 18).values()]  # one head
    layer = Layer(op, trial)
    found = torch.compile(layer, fullgraph=True, backend="aot_eager")(*inputs)
    wanted = layer(*inputs)
    assert torch.equal(found, wanted)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), inputs) for y in (found, wanted)), strict=True)
    assert all(relative(*pair) < 1e-6 for pair in pairs)


@inside
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("form", FORMS)
def test_flops_are_those_of_the_stand_in(op: str, form: str) -> None:
    from vbench.kernels.fused.launch import recording

    trial = trials(op)[-1]
    inputs = draw(trial, 50)
    counted = []
    for device in ("cpu", "meta"):
        with FlopCounterMode(display=False) as counter, recording():
            trial.run(operator(op, form), {name: value.to(device) for name, value in inputs.items()})
        counted.append(counter.get_total_flops())
    assert counted[0] == counted[1] > 0
