"""The selective scan: every form against the published operator, orders of tokens, memory, and its cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from weights import Golden

from vbench.errors import ShapeError
from vbench.exports import program
from vbench.kernels import forms, operator
from vbench.kernels.registry import trials
from vbench.kernels.selective_scan import cost, scan
from vbench.kernels.selective_scan.orders import row_of
from vbench.kernels.shapes import Direction
from vbench.kernels.state_lanes import MOST, held
from vbench.kernels.trials import relative, tensors

FORMS = forms("selective_scan")
PUBLISHED = Golden("selective_scan_op")
CASES = list(PUBLISHED.manifest["cases"])


def published(case: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """The inputs of a published case in float64, in our layout; the keywords; and the results."""
    x = {key.removeprefix(f"{case}_"): y for key, y in PUBLISHED.arrays.items() if key.startswith(f"{case}_")}
    about = PUBLISHED.manifest["cases"][case]
    groups = about["shape"]["G"]

    def tokens_last(y: Tensor) -> Tensor:
        """(B, D, T) -> (B, G, N, C)."""
        return y.double().unflatten(1, (groups, -1)).mT

    def of_channels(y: Tensor | None) -> Tensor:
        """(D, ...) -> (G, C, ...); zeros if there is none."""
        found = x["A"].new_zeros(len(x["A"])) if y is None else y
        return found.double().unflatten(0, (groups, -1))

    inputs = {
        "u": tokens_last(x["u"]),
        "delta": tokens_last(x["delta"]),
        "A": of_channels(x["A"]),
        "B": x["B"].double().mT,
        "C": x["C"].double().mT,
        "D": of_channels(x.get("D")),
        "delta_bias": of_channels(x.get("delta_bias")),
    }
    gate = {"z": tokens_last(x["z"])} if "z" in x else {}
    results = {key: tokens_last(x[key]) for key in ("y", "y_rev")}
    results |= {key: x[key].unflatten(1, (groups, -1)) for key in ("h", "h_rev")}
    return inputs, {"softplus": about["delta_softplus"], **gate}, results


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_matches_the_published_operator(form: str, case: str) -> None:
    inputs, options, wanted = published(case)
    for direction, turned in (("forward", ""), ("reverse", "_rev")):
        o, h = operator("selective_scan", form)(**inputs, **options, direction=direction)
        assert relative(o, wanted[f"y{turned}"]) < 1e-10
        assert relative(h, wanted[f"h{turned}"]) < 1e-10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["strong", "mixed", "weak"])
def test_strong_and_weak_decays_have_their_digits_in_float32(form: str, case: str) -> None:
    inputs, options, wanted = published(case)
    noise = PUBLISHED.manifest["cases"][case]["fp32_sequential_noise"] / PUBLISHED.manifest["cases"][case]["y_absmax"]
    inputs, options = (
        {key: y.float() if isinstance(y, Tensor) else y for key, y in x.items()} for x in (inputs, options)
    )
    o, _ = operator("selective_scan", form)(**inputs, **options)
    assert float((o - wanted["y"]).abs().max() / wanted["y"].abs().max()) < 10 * noise


def walks(count: int, tokens: int, states: int = 3) -> list[Tensor]:
    """delta, A, B, C, D and the bias of some walks over one image, one group, four channels."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*size: int) -> Tensor:
        return torch.randn(count, *size, generator=generator, dtype=torch.float64)

    A = -normal(1, 4, states).exp()
    return [
        normal(1, 1, tokens, 4),
        A,
        normal(1, 1, tokens, states),
        normal(1, 1, tokens, states),
        normal(1, 4),
        normal(1, 4),
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (3, 5), (40, 2), (5, 9)])
def test_four_walks_are_four_calls_on_tokens_put_in_order_by_hand(form: str, height: int, width: int) -> None:
    """Rows, columns, and both backwards (Liu et al. 2024, figure 2), and the gate once, on the sum."""
    call = operator("selective_scan", form)
    delta, A, B, C, D, bias = walks(4, height * width)
    u, z = delta[0].cos(), delta[1].sin()
    o, last = call(u, delta, A, B, C, D, bias, z=z, direction="cross", width=width)
    total, at = torch.zeros_like(u), torch.arange(height * width)
    orders = [at, at.view(height, width).T.reshape(-1)]
    for walk, order in enumerate((*orders, *(order.flip(0) for order in orders))):
        of_tokens = (x[..., order, :] for x in (u, delta[walk]))
        y, h = call(*of_tokens, A[walk], B[walk][:, :, order], C[walk][:, :, order], D[walk], bias[walk])
        total[:, :, order] += y
        assert relative(last[walk], h) < 1e-13
    assert relative(o, total * F.silu(z)) < 1e-13


@pytest.mark.parametrize("form", FORMS)
def test_two_walks_are_two_calls_and_the_gate_acts_once(form: str) -> None:
    call = operator("selective_scan", form)
    rest = walks(2, 37)
    u, z = rest[0].cos(), rest[0][0].sin()
    o, last = call(u, *rest, z=z, direction="both")
    each = [call(u[i], *(x[i] for x in rest), direction=way) for i, way in enumerate(("forward", "reverse"))]
    assert relative(o, (each[0][0] + each[1][0]) * F.silu(z)) < 1e-13
    assert all(relative(last[i], h) < 1e-13 for i, (_, h) in enumerate(each))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("direction", "width", "said"),
    [
        ("cross", None, "want a width that divides N; got width None, N 12"),
        ("cross", 5, "want a width that divides N; got width 5, N 12"),
        ("cross", 0, "want a width that divides N; got width 0, N 12"),
        ("both", 4, "width is for direction 'cross' alone; got width 4"),
    ],
)
def test_a_width_that_does_not_fit_is_refused(form: str, direction: Direction, width: int | None, said: str) -> None:
    rest = walks(4 if direction == "cross" else 2, 12)
    u = rest[0][0] if direction == "cross" else rest[0]
    with pytest.raises(ShapeError, match=said):
        operator("selective_scan", form)(u, *rest, direction=direction, width=width)


@pytest.mark.parametrize("states", [1, 3, 5, 16, 17, 33])
def test_machine_code_takes_any_number_of_states(states: int) -> None:
    """Those that no register is left for are taken in another pass, and the last pass is filled up."""
    rest = walks(4, 35, states)
    for dtype, bound in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        inputs = [x.to(dtype) for x in (rest[0][0].cos(), *rest)]
        wanted = operator("selective_scan", "reference")(*(x.double() for x in inputs), direction="cross", width=7)
        found = operator("selective_scan", "compiled")(*inputs, direction="cross", width=7)
        assert all(relative(*pair) < bound for pair in zip(found, wanted, strict=True))


def test_states_are_held_in_powers_of_two_that_waste_less_than_half() -> None:
    for states in range(1, 70):
        count = held(states)
        assert count <= MOST
        assert count & (count - 1) == 0
        assert -(-states // count) * count < 2 * states


def test_a_map_is_as_square_as_its_tokens_allow() -> None:
    assert {tokens: row_of(tokens) for tokens in (1, 2, 12, 13, 16, 133, 196)} == {
        **{1: 1, 2: 2, 12: 4, 13: 13},
        **{16: 4, 133: 19, 196: 14},
    }


class Seen(TorchDispatchMode):
    """The largest tensor that an operation makes, and the numbers that come out of multiply-add operations."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self.added, self.read = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            if isinstance(part, Tensor):
                self.most = max(self.most, part.numel())
        if func is torch.ops.aten.addcmul.default:
            self.added += out.numel()
        if func is torch.ops.aten.addcmul_.default:
            self.added += args[0].numel()
        if func is torch.ops.aten.bmm.default:
            self.read += args[0].numel() * args[1].shape[-1]
        return out


@pytest.mark.parametrize("form", ["scan", "compiled"])
@pytest.mark.parametrize("gradient", [False, True])
def test_nothing_has_a_number_for_every_token_channel_and_state(form: str, gradient: bool) -> None:
    N, C, S = 4096, 32, 16
    generator = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, 1, 1, N, C, generator=generator)
    B, c = torch.randn(2, 1, 1, N, S, generator=generator)
    A, D = -torch.ones(1, C, S), torch.ones(1, C)
    u.requires_grad_(gradient)
    with Seen() as seen, torch.set_grad_enabled(gradient):
        o, _ = operator("selective_scan", form)(u, delta, A, B, c, D, D)
        if gradient:
            torch.autograd.grad(o.sum(), u)
    assert N * C <= seen.most <= cost.GROUP < N * C * S


@pytest.mark.parametrize("tokens", [1, 16, 17, 64, 196])
@pytest.mark.parametrize(("direction", "states"), [("forward", 4), ("both", 2)])
def test_macs_are_what_the_forms_dispatch(tokens: int, direction: str, states: int) -> None:
    several = 2 if direction == "both" else 1
    inputs = walks(2, tokens, states)
    u = inputs[0].cos()
    if several == 1:
        u, *inputs = (x[0] for x in (u, *inputs))
    sizes = {"batch": 1, "groups": 1, "tokens": tokens, "channels": 4, "states": states, "directions": several}
    with torch.no_grad():
        for form in ("scan", "reference", "quadratic"):
            with Seen() as seen:
                operator("selective_scan", form)(u, *inputs, direction=direction)
            written = 4 * several * states * tokens**2 if form == "quadratic" else 0  # a product and a sum
            assert seen.added + seen.read + written == cost.macs(form, **sizes), form
        with Seen() as seen:
            scan.selective_scan(u, *inputs, direction=direction, group=2000)
        assert seen.added + seen.read == cost.macs("scan", **sizes, group=2000)


class Scan(nn.Module):
    def forward(self, *inputs: Tensor) -> Any:
        return scan.selective_scan(*inputs, direction="reverse", group=1)


def test_many_groups_are_exported_as_one_operation_that_holds_one_group() -> None:
    rest = walks(1, 300)
    inputs = tuple(x[0].float() for x in (rest[0].cos(), *rest))
    with torch.no_grad(), program.quiet():
        graph = torch.export.export(Scan(), inputs, strict=False)
    assert program.nodes(graph) < 200
    sizes = [node.meta["val"].numel() for node in graph.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    assert max(sizes) < 300 * 4 * 3
    for found, wanted in zip(graph.module()(*inputs), Scan()(*inputs), strict=True):
        assert relative(found, wanted) < 1e-6


def test_trials_have_every_direction_and_all_that_a_call_may_have() -> None:
    found = trials("selective_scan")
    assert {trial.direction for trial in found} == {"forward", "reverse", "both", "cross"}
    drawn = [trial.draw(12, torch.Generator().manual_seed(0)) for trial in found]
    assert {x["A"].shape[-1] for x in drawn} == {1, 4, 16}
    assert {trial.direction for trial, x in zip(found, drawn, strict=True) if "z" in x} == {"both", "cross"}
    assert any(trial.options.get("softplus") is False for trial in found)
    assert all(part.isfinite().all() for part in tensors(found[-1].run(operator("selective_scan", "scan"), drawn[-1])))
