"""The selective scan in Triton, interpreted: all walks, states, gates and gradients, and what compilers see of them.

Triton is interpreted in a process that was started for it: `test_fused` starts one on this file and others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mutants import changed, passes_at_once, show
from torch import Generator, Tensor
from torch.utils.flop_counter import FlopCounterMode

from vbench.errors import ShapeError, UnsupportedError
from vbench.kernels.fused.tuning import Choice
from vbench.kernels.registry import interpreted, operator, trials
from vbench.kernels.selective_scan import chunking, cost
from vbench.kernels.shapes import Direction
from vbench.kernels.trials import hand_off, relative

triton, tl = pytest.importorskip("triton"), pytest.importorskip("triton.language")

FORMS = ("fused", "fused_recurrent")
inside = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 tokens, so that few make many."""
    monkeypatch.setattr(chunking, "pick", lambda *_: Choice(chunk=4, warps=1))
    monkeypatch.setattr(chunking, "GRADIENT_TOKENS", 4)


@dataclass(frozen=True, slots=True)
class Case:
    """A call: its sizes, and which of its options it has."""

    direction: Direction
    states: int
    tokens: int = 10  # no multiple of a chunk
    width: int | None = None
    groups: int = 1
    gated: bool = False
    softplus: bool = True
    starts: bool = True  # with a state
    images: int = 1

    def __str__(self) -> str:
        gate = "-gated" if self.gated else ""
        return f"{self.direction}-S{self.states}-N{self.tokens}{gate}"

    def draw(self, channels: int = 5) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of the call in float64, and its other keywords."""
        generator = Generator().manual_seed(self.tokens)
        walks = {"both": (2,), "cross": (4,)}.get(self.direction, ())
        size = self.images, self.groups, self.tokens

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        delta, bias = normal(*walks, *size, channels) - 2, 0.3 * normal(*walks, self.groups, channels)
        found = {
            "u": normal(*(walks if self.direction == "both" else ()), *size, channels),
            "delta": delta if self.softplus else delta.exp(),
            "A": -(1 + 3 * normal(*walks, self.groups, channels, self.states).abs()),
            "B": normal(*walks, *size, self.states),
            "C": normal(*walks, *size, self.states),
            "D": normal(*walks, self.groups, channels),
            "delta_bias": bias if self.softplus else bias.abs(),
        }
        found |= {"z": normal(*size[:2], self.tokens, channels)} if self.gated else {}
        found |= {"state": normal(*walks, *size[:2], channels, self.states)} if self.starts else {}
        return found, {"direction": self.direction, "softplus": self.softplus, "width": self.width}


# Every direction, with and without a gate, a state and a softplus. Between them they have one state, some, and sixteen.
GRADIENTS = (
    Case("forward", 5, tokens=5, groups=2, gated=True, softplus=False),
    Case("reverse", 1, tokens=6, starts=False),
    Case("both", 16, tokens=6, gated=True),
    Case("cross", 1, tokens=6, width=2),
)
# More chunks, and columns that end inside one.
VALUES = (
    Case("reverse", 5),
    Case("both", 1, tokens=5, images=2, groups=2, starts=False),
    Case("cross", 3, tokens=9, width=3, gated=True),
)


def call(case: Case, form: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    tensors, options = case.draw()
    found: tuple[Tensor, Tensor] = operator("selective_scan", form)(
        **{name: x.to(dtype) for name, x in tensors.items()}, **options
    )
    return found


def gradients(case: Case, form: str, dtype: torch.dtype, *, of_state: bool = True) -> dict[str, Tensor]:
    """The output, the last states, and the gradients of all tensors by both."""
    tensors, options = case.draw()
    x = {name: value.to(dtype).requires_grad_() for name, value in tensors.items()}
    o, final = operator("selective_scan", form)(**x, **options)
    generator = Generator().manual_seed(0)
    weights = [torch.randn(each.shape, generator=generator, dtype=torch.float64) for each in (o, final)]
    loss = (o.double() * weights[0]).sum() + of_state * (final.double() * weights[1]).sum()
    grads = torch.autograd.grad(loss, list(x.values()))
    return {"o": o.detach(), "final": final.detach(), **dict(zip(x, grads, strict=True))}


@inside
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_values_and_gradients_are_the_references(case: Case) -> None:
    wanted = gradients(case, "reference", torch.float64)
    for name, found in gradients(case, "fused", torch.float32).items():
        assert found.dtype == torch.float32
        assert found.shape == wanted[name].shape
        assert relative(found, wanted[name]) < 3e-6, name


@inside
@pytest.mark.parametrize("case", VALUES, ids=str)
def test_values_are_the_references(case: Case) -> None:
    for found, wanted in zip(call(case, "fused", torch.float32), call(case, "reference", torch.float64), strict=True):
        assert relative(found, wanted) < 2e-6


@inside
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_one_launch_is_the_reference(case: Case) -> None:
    wanted = call(case, "reference", torch.float64)
    for found, known in zip(call(case, "fused_recurrent", torch.float32), wanted, strict=True):
        assert relative(found, known) < 2e-6


@inside
def test_one_token_and_the_output_alone() -> None:
    case = Case("both", 3, tokens=1, gated=True)
    wanted = gradients(case, "reference", torch.float64, of_state=False)
    for name, found in gradients(case, "fused_recurrent", torch.float32, of_state=False).items():
        assert relative(found, wanted[name]) < 3e-6, name
    for found, known in zip(
        call(Case("cross", 1, 1, 1), "fused", torch.float32),
        call(Case("cross", 1, 1, 1), "reference", torch.float64),
        strict=True,
    ):
        assert relative(found, known) < 1e-6


@inside
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_rounded_once(dtype: torch.dtype) -> None:
    case = Case("cross", 2, tokens=6, width=3, gated=True) if dtype == torch.float16 else Case("both", 2, tokens=6)
    tensors, options = case.draw()
    rounded = {name: x.to(dtype) for name, x in tensors.items()}
    wanted, last = operator("selective_scan", "reference")(**{key: x.double() for key, x in rounded.items()}, **options)
    o, final = operator("selective_scan", "fused")(**rounded, **options)
    assert o.dtype == dtype
    assert relative(o, wanted) < 1.1 * relative(wanted.to(dtype), wanted)
    assert relative(final, last) < 1e-6


@inside
@pytest.mark.parametrize("delta", [-1e4, -30.0, -12.0, 30.0, 1e4])
def test_extreme_steps_stay_exact(delta: float) -> None:
    tensors, options = Case("forward", 2, tokens=3).draw()
    tensors |= {"delta": torch.full_like(tensors["delta"], delta), "state": 0 * tensors["state"]}
    found, _ = operator("selective_scan", "fused")(**{name: x.float() for name, x in tensors.items()}, **options)
    tensors = {name: x.float().double() for name, x in tensors.items()}
    wanted, _ = operator("selective_scan", "reference")(**tensors, **options)
    skipped = tensors["D"][:, None] * tensors["u"]
    assert relative(found, wanted) < 2e-6
    if delta == -12:  # what is left of a small step is right too
        tensors["D"].zero_()
        found, _ = operator("selective_scan", "fused")(**{name: x.float() for name, x in tensors.items()}, **options)
        assert relative(found, wanted - skipped) < 2e-6


@inside
def test_a_sequence_can_be_split() -> None:
    trial = next(trial for trial in trials("selective_scan") if trial.name == "reverse, typical steps")
    inputs = trial.draw(7, Generator().manual_seed(0))
    inputs = {name: x.float()[:1] if name in trial.token_dims else x.float() for name, x in inputs.items()}
    wanted, final = trial.run(operator("selective_scan", "reference"), {key: x.double() for key, x in inputs.items()})
    o, state = hand_off(trial, operator("selective_scan", "fused"), inputs, 5)
    assert isinstance(state, Tensor)
    assert isinstance(final, Tensor)
    assert relative(o, wanted) < 2e-6
    assert relative(state, final) < 2e-6


@inside
def test_strided_views_give_the_same_and_inputs_are_left_alone() -> None:
    tensors, options = Case("both", 16, tokens=5, gated=True).draw()
    plain = {name: x.float() for name, x in tensors.items()}
    views = {name: x.mT.contiguous().mT for name, x in plain.items() if x.ndim > 3}
    parts = torch.cat((plain["B"], plain["C"], plain["u"]), dim=-1).split([16, 16, 5], dim=-1)  # of one projection
    views |= dict(zip(("B", "C", "u"), parts, strict=True))
    assert not any(view.is_contiguous() for view in views.values())
    o, final = operator("selective_scan", "fused")(**plain, **options)
    for found, known in zip(operator("selective_scan", "fused")(**plain | views, **options), (o, final), strict=True):
        assert torch.equal(found, known)
    assert all(torch.equal(x, tensors[name].float()) for name, x in plain.items())


@inside
def test_launches() -> None:
    from vbench.kernels.fused.launch import recording

    long, short, square = Case("both", 8, tokens=12), Case("both", 1, tokens=4), Case("cross", 1, tokens=9, width=3)
    for case, form, launches in (
        (short, "fused", 1),
        (long, "fused", 3),
        (square, "fused", 4),
        (replace(square, tokens=3), "fused", 1),
        (square, "fused_recurrent", 1),
    ):
        with recording() as found:
            call(case, form, torch.float32)
        assert len(found) == launches
    with recording() as found:
        gradients(long, "fused", torch.float32)
    assert [each.kernel.fn.__name__ for each in found[3:]] == [
        *["summary_kernel", "carry_kernel"] * 2,
        "gradient_kernel",
    ]
    sizes = {x.numel() for each in found for x in each.args.values() if isinstance(x, Tensor)}
    assert max(sizes) == 2 * 2 * 3 * 8 * 5  # two numbers of each state of each chunk and walk, and half of all tokens'


@inside
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # in opcheck itself
def test_operators_are_registered_whole() -> None:
    operator("selective_scan", "fused")  # registers
    for case, train in ((Case("both", 1, tokens=1, gated=True), True), (Case("cross", 1, 1, 1), False)):
        x, options = case.draw(channels=2)
        given = {name: value.float().requires_grad_(train) for name, value in x.items()}
        given["u"] = given["u"] if case.direction == "both" else given["u"].unsqueeze(0)
        tensors = [given.get(name) for name in ("u", "delta", "A", "B", "C", "D", "delta_bias", "z", "state")]
        rest = (True, case.direction, options["width"] or 0, train, not train)
        tests = {} if train else {"test_utils": ("test_schema", "test_faketensor")}  # a gradient is never sequential
        torch.library.opcheck(torch.ops.vbench.selective_scan_fused.default, (*tensors, *rest), **tests)


@inside
@pytest.mark.parametrize("form", FORMS)
def test_models_with_them_are_exported_and_counted(form: str) -> None:
    class Tiny(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Any:
            return operator("selective_scan", form)(*inputs, direction="both")[0]

    tensors, _ = Case("both", 2, tokens=6, starts=False).draw()
    inputs = tuple(x.float() for x in tensors.values())
    assert "vbench.selective_scan_fused" in str(torch.export.export(Tiny(), inputs).graph)
    with FlopCounterMode(display=False) as counter:
        operator("selective_scan", form)(*inputs, direction="both")
    sizes = {"batch": 1, "groups": 1, "tokens": 6, "channels": 5, "states": 2, "directions": 2}
    assert counter.get_total_flops() == 2 * cost.macs(form, **sizes)


WALKED: list[int] = []  # tokens that were met
JOINED: list[int] = []  # rows of elements that were joined


def counted_steps(raw: Any, bias: Any, inside: Any, softplus: Any) -> Any:
    """`tiles.steps_of` without a softplus, counted."""
    WALKED.append(len(raw))
    out = ()
    for i in tl.static_range(len(raw)):
        out = out + (tl.where(inside[i], raw[i] + bias, 0.0),)  # noqa: RUF005 - Triton knows no other way
    return out


def counted_joins(x: Any, y: Any, w: Any) -> Any:
    """`scans.affine`, counted."""
    JOINED.append(int(y[1].shape[0]))
    return (x[0] * y[0], x[1] * y[0] + y[1])


@inside
def test_macs_are_what_the_kernels_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from vbench.kernels.selective_scan import fused, passes

    monkeypatch.setattr(passes, "steps_of", triton.jit(counted_steps))
    monkeypatch.setattr(fused, "affine", triton.jit(counted_joins))
    case = Case("both", 5, tokens=10, starts=False, softplus=False)
    for form in FORMS:
        WALKED.clear(), JOINED.clear()
        call(case, form, torch.float32)
        sizes = {"batch": 1, "groups": 1, "tokens": 10, "channels": 1, "states": 5, "directions": 2}
        if form == "fused":  # half of the walks are summaries; what enters each chunk of a walk is found there
            done = sum(WALKED) // 2 * (3 * 5 + 1) + (sum(JOINED) + 2 * 3) * 5
        else:
            done = sum(WALKED) * (2 * 5 + 1)
        assert cost.macs(form, **sizes) == done


@pytest.mark.parametrize("form", FORMS)
def test_without_a_device_shapes_are_counted(form: str) -> None:
    tensors, options = Case("cross", 3, tokens=12, width=4, gated=True).draw()
    with FlopCounterMode(display=False) as counter:
        o, final = operator("selective_scan", form)(**{name: x.to("meta") for name, x in tensors.items()}, **options)
    assert o.shape == tensors["u"].shape
    assert final.shape == tensors["state"].shape
    sizes = {"batch": 1, "groups": 1, "tokens": 12, "channels": 5, "states": 3, "directions": 4}
    assert counter.get_total_flops() == 2 * cost.macs(form, **sizes)
    assert cost.macs(form, **sizes) >= cost.macs("algorithm", **sizes)


def test_what_kernels_do_not_take_is_refused() -> None:
    tensors, options = Case("forward", 1).draw()
    for form in FORMS:
        with pytest.raises(UnsupportedError, match="not float64" if interpreted() else "not"):
            operator("selective_scan", form)(**tensors, **options)
        single = {name: x.float() for name, x in tensors.items()}
        if not interpreted():
            with pytest.raises(UnsupportedError, match="runs on cuda, not on cpu"):
                operator("selective_scan", form)(**single, **options)
        else:
            with pytest.raises(ShapeError, match="width is for direction 'cross' alone"):
                operator("selective_scan", form)(**single, **options | {"width": 2})


# Faults of the kernels: the direction of a trial that shows one, and what is replaced.
MUTANTS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "none": ("cross", ()),
    "decay of the previous token": ("forward", (("steps[j][None, :] * a) * h", "steps[j // 2][None, :] * a) * h"),)),
    "B and C exchanged": (
        "forward",
        (
            ("writes = numbers_of(written,", "found = numbers_of(written,"),
            ("reads = numbers_of(", "writes = numbers_of("),
            ("found = numbers_of(written,", "reads = numbers_of(written,"),
        ),
    ),
    "skip counted once": ("cross", (("+ passed * us[j]", "+ passed * us[j] * (WALK == 0)"),)),
    "directions swapped": ("forward", (("WALK < AHEAD", "WALK >= AHEAD"),)),
    "step without bias": ("forward", ((", shift, inside, SOFTPLUS)", ", 0.0, inside, SOFTPLUS)"),)),
    "column order wrong": ("cross", (("N, width, STEPS, CROSS)", "N, N // width, STEPS, CROSS)"),)),
    "mean for sum": ("both", (("y += before[j]", "y = (y + before[j]) / 2"),)),
}


@inside
@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from vbench.kernels.selective_scan import fused, passes

    direction, changes = MUTANTS[name]
    monkeypatch.setattr(fused, "passes", changed(passes, changes, tmp_path))
    for size in ("B", "G"):  # one image and one group show it
        monkeypatch.setattr(f"vbench.kernels.selective_scan.trials.{size}", 1)
    show("selective_scan", direction, monkeypatch)
    for form in FORMS:
        assert passes_at_once("selective_scan", form) == (name == "none"), form
