"""The scans in Triton, interpreted: minGRU and Bi-WKV, their gradients, and what compilers see of them.

Triton is interpreted in a process that was started for it: `test_fused` starts one on this file.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.errors import UnsupportedError
from vbench.kernels.fused.tuning import Choice
from vbench.kernels.registry import interpreted, operator, trials, truth
from vbench.kernels.trials import Inputs, Trial, cast, hand_off, relative, tensors

triton, tl = pytest.importorskip("triton"), pytest.importorskip("triton.language")

SCANS = ("mingru", "wkv")
FORMS = ("fused", "fused_recurrent")
# Those that differ most; all are for `vbench kernels check`.
HARD = {"mingru": ("forward, long memory", "reverse, wide gates"), "wkv": ("both, growing", "both, large keys")}
CALLS = [(op, trial) for op in SCANS for trial in trials(op) if trial.name in HARD[op]]
inside = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")


def name(value: Any) -> str:
    return value.name.replace(", ", "-").replace(" ", "-") if isinstance(value, Trial) else str(value)


def draw(trial: Trial, tokens: int) -> Inputs:
    return trial.draw(tokens, torch.Generator().manual_seed(tokens))


def one_image(trial: Trial, tokens: int) -> Inputs:
    """The first of its two images, for half of the programs."""
    return {key: x[:1] if x.ndim == 3 else x for key, x in draw(trial, tokens).items()}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 tokens, so that few make many."""
    monkeypatch.setattr("vbench.kernels.fused.tiling.pick", lambda *_: Choice(chunk=32, warps=16))


@inside
@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_they_are_the_reference(op: str, trial: Trial) -> None:
    for form, tokens in (("fused", 70), ("fused_recurrent", 11)):
        inputs = cast(draw(trial, tokens), torch.float32)
        before = {key: value.clone() for key, value in inputs.items()}
        wanted, state = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
        o, found = trial.run(operator(op, form), inputs)
        assert o.dtype == found.dtype == torch.float32
        assert relative(o, wanted) < 2e-6
        assert relative(found, state) < 2e-6
        assert all(torch.equal(inputs[key], before[key]) for key in inputs)


@inside
@pytest.mark.parametrize("op", SCANS)
@pytest.mark.parametrize("tokens", [1, 5, 64, 65])
def test_any_number_of_tokens(op: str, tokens: int) -> None:
    trial = trials(op)[-2]
    inputs = cast(one_image(trial, tokens), torch.float32)
    wanted, state = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
    for form in FORMS if tokens < 9 else FORMS[:1]:
        o, found = trial.run(operator(op, form), inputs)
        assert relative(o, wanted) < 2e-6
        assert relative(found, state) < 2e-6


@inside
@pytest.mark.parametrize("op", SCANS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(op: str, dtype: torch.dtype) -> None:
    trial = trials(op)[0]
    for form, tokens in (("fused", 33), ("fused_recurrent", 9)):
        inputs = cast(one_image(trial, tokens), dtype)
        wanted, state = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
        best = relative(trial.run(operator(op, "scan"), inputs)[0], wanted)
        o, found = trial.run(operator(op, form), inputs)
        assert o.dtype == dtype
        assert relative(o, wanted) < 1.1 * best
        assert relative(found, state) < 1e-6


@inside
@pytest.mark.parametrize("trial", [trials("mingru")[1], trials("mingru")[4], trials("wkv")[1]], ids=name)
def test_a_sequence_can_be_split(trial: Trial) -> None:
    op = "wkv" if trial.direction == "both" else "mingru"
    for form, tokens, at in (("fused", 40, 35), ("fused_recurrent", 7, 3)):
        inputs = cast(one_image(trial, tokens), torch.float32)
        wanted, final = trial.run(operator(op, truth(op)), cast(inputs, torch.float64))
        o, state = hand_off(trial, operator(op, form), inputs, at)
        assert relative(o, wanted) < 2e-6
        for found, known in zip(tensors(state), tensors(final), strict=True):
            assert relative(found, known) < 2e-6


@inside
@pytest.mark.parametrize("op", SCANS)
def test_strided_views_give_the_same(op: str) -> None:
    trial = trials(op)[0]
    inputs = cast(draw(trial, 40), torch.float32)
    x, y, *rest = inputs.values()
    halves = torch.cat((x, y), dim=-1).chunk(2, dim=-1)
    crossed = tuple(t.mT.contiguous().mT for t in (x, y))
    plain, _ = operator(op, "fused")(*inputs.values(), **trial.options)
    for views in (halves, crossed):
        assert not views[0].is_contiguous()
        assert torch.equal(operator(op, "fused")(*views, *rest, **trial.options)[0], plain)


def _gradients(op: str, form: str, trial: Trial, inputs: Inputs, state: Tensor) -> tuple[Tensor, ...]:
    leaves = [x.clone().requires_grad_() for x in (*inputs.values(), state)]
    o, final = trial.run(operator(op, form), dict(zip(inputs, leaves[:-1], strict=True)), leaves[-1])
    generator = torch.Generator().manual_seed(0)
    loss = sum((x.double() * torch.randn(x.shape, generator=generator, dtype=torch.float64)).sum() for x in (o, final))
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, leaves)


@inside
@pytest.mark.parametrize(("op", "trial"), CALLS, ids=name)
def test_gradients_are_the_references(op: str, trial: Trial) -> None:
    assert trial.initial is not None
    images = one_image if trial.name == "both, large keys" else draw  # another of Bi-WKV sums over images
    for tokens, form in ((1, "fused_recurrent"), (40, "fused")):
        inputs = cast(images(trial, tokens), torch.float32)
        state = torch.randn(trial.initial(inputs).shape, generator=torch.Generator().manual_seed(1)).abs()
        wanted = _gradients(op, truth(op), trial, cast(inputs, torch.float64), state.double())
        rounding = _gradients(op, "scan", trial, inputs, state)
        for found, known, plain in zip(_gradients(op, form, trial, inputs, state), wanted, rounding, strict=True):
            assert relative(found, known) < max(3e-5, 2 * relative(plain, known))


@inside
def test_gradients_of_the_output_alone() -> None:
    for op in SCANS:
        inputs = cast(one_image(trials(op)[0], 20), torch.float32)
        found, wanted = (
            torch.autograd.grad(
                operator(op, form)(*(x := [t.to(dtype).requires_grad_() for t in inputs.values()]))[0].square().sum(), x
            )
            for form, dtype in (("fused", torch.float32), (truth(op), torch.float64))
        )
        for pair in zip(found, wanted, strict=True):
            assert relative(*pair) < 1e-5


@inside
@pytest.mark.parametrize("decay", [-100.0, 0.0, 100.0])
@pytest.mark.parametrize("keys", [1.0, 1e3])
def test_extreme_weights_stay_exact(decay: float, keys: float) -> None:
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(1, 70, 8, generator=generator) for _ in range(2))
    w, u = decay * torch.rand(8, generator=generator), torch.randn(8, generator=generator)
    x = (keys * k, v, w, u)
    wanted, _ = operator("wkv", "reference")(*(t.double() for t in x))
    y, state = operator("wkv", "fused")(*x)
    assert torch.isfinite(state).all()
    assert relative(y, wanted) < 5e-6  # an exponent is a key and an age: nothing drifts, growing or not


@inside
def test_the_released_reading_is_served_by_the_forms_that_have_it() -> None:
    trial = next(trial for trial in trials("wkv") if trial.options.get("reading") == "kernel")
    for form, other, tokens in (("fused", "scan", 40), ("fused_recurrent", "reference", 9)):
        inputs = cast(one_image(trial, tokens), torch.float32)
        o, _ = trial.run(operator("wkv", form), inputs)
        assert torch.equal(o, trial.run(operator("wkv", other), inputs)[0])


@inside
def test_the_table_may_ask_for_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.kernels.fused.tiling.pick", lambda *_: Choice(32, 16, sequential=True))
    for op in SCANS:
        trial = trials(op)[0]
        inputs = cast(draw(trial, 6), torch.float32)
        o, _ = trial.run(operator(op, "fused"), inputs)
        assert torch.equal(o, trial.run(operator(op, "fused_recurrent"), inputs)[0])


@inside
def test_launches() -> None:
    from vbench.kernels.fused.launch import recording

    for op in SCANS:
        trial = trials(op)[0]
        for form, tokens, launches in (("fused", 32, 1), ("fused", 33, 3), ("fused_recurrent", 40, 1)):
            with recording() as found:
                trial.run(operator(op, form), cast(draw(trial, tokens), torch.float32))
            assert len(found) == launches


@inside
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # in opcheck itself
def test_operators_are_registered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vbench.kernels.fused.tiling.pick", lambda *_: Choice(chunk=8, warps=4))
    x = [torch.randn(1, 3, 4, requires_grad=True) for _ in range(2)]
    w = [torch.randn(4, requires_grad=True) for _ in range(2)]
    state = torch.rand(2, 3, 1, 4, requires_grad=True)
    operator("mingru", "fused")(*x)  # registers
    operator("wkv", "fused")(*x, *w)
    mingru, wkv, check = torch.ops.vbench.mingru_fused, torch.ops.vbench.wkv_fused, torch.library.opcheck
    check(mingru.default, (*x, torch.randn(1, 4), False, False))
    check(wkv.default, (*x, *w, state, True, True))
    of_forward = ("test_schema", "test_faketensor")  # a gradient is never sequential
    check(mingru.default, (*x, torch.randn(1, 4), False, True), test_utils=of_forward)
    check(wkv.default, (*x, *w, state, True, False), test_utils=of_forward)


@inside
@pytest.mark.parametrize("op", SCANS)
@pytest.mark.parametrize("form", FORMS)
def test_models_with_them_are_exported_and_counted(op: str, form: str) -> None:
    class Tiny(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return operator(op, form)(*inputs)[0]

    inputs = tuple(cast(draw(trials(op)[0], 6), torch.float32).values())
    program = torch.export.export(Tiny(), inputs)
    assert f"vbench.{op}_fused" in str(program.graph)
    with FlopCounterMode(display=False) as counter:
        operator(op, form)(*inputs)
    cost = __import__(f"vbench.kernels.{op}.cost", fromlist=["cost"])
    B, N, C = inputs[0].shape
    assert counter.get_total_flops() == 2 * cost.macs(form, batch=B, tokens=N, channels=C)


@pytest.mark.parametrize("op", SCANS)
@pytest.mark.parametrize("form", FORMS)
def test_without_a_device_shapes_are_counted(op: str, form: str) -> None:
    cost = __import__(f"vbench.kernels.{op}.cost", fromlist=["cost"])
    inputs = [x.to("meta") for x in draw(trials(op)[0], 196).values()]
    call = operator(op, form)  # imports the formulas
    with FlopCounterMode(display=False) as counter:
        o, _ = call(*inputs)
    assert o.shape == inputs[0].shape
    B, N, C = o.shape
    assert counter.get_total_flops() == 2 * cost.macs(form, batch=B, tokens=N, channels=C)
    assert cost.macs(form, batch=B, tokens=N, channels=C) >= cost.macs("algorithm", batch=B, tokens=N, channels=C)


JOINED: list[int] = []  # rows of the elements that were joined


def counted(x: Any, y: Any, w: Any) -> Any:
    """`scans.affine`, counted."""
    JOINED.append(int(y[1].shape[0]))
    return (x[0] * y[0], x[1] * y[0] + y[1])


@inside
def test_joins_are_what_the_kernels_join(monkeypatch: pytest.MonkeyPatch) -> None:
    from vbench.kernels.fused import scans
    from vbench.kernels.mingru import cost, fused, passes

    watched = triton.jit(counted)
    JOINED.clear()
    for module in (scans, fused, passes):
        monkeypatch.setattr(module, "affine", watched)
    x = torch.zeros(1, 70, 32)
    fused.mingru(x, x)
    assert cost.macs("fused", batch=1, tokens=70, channels=1) == sum(JOINED)


def test_what_kernels_do_not_take_is_refused() -> None:
    x = torch.zeros(1, 5, 4)
    for form in FORMS:
        with pytest.raises(UnsupportedError, match="not float64" if interpreted() else "not"):
            operator("mingru", form)(x.double(), x.double())
        if not interpreted():
            with pytest.raises(UnsupportedError, match="runs on cuda, not on cpu"):
                operator("mingru", form)(x, x)
