"""No launch of an operator leaves CUDA's grid or the 32 bits of a whole number: very long sequences, large batches.

The operators' host code runs on fake tensors; nothing is allocated, and no kernel runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton")

from kernel_ranges import faults
from toy_kernels import double, far

from vbench.errors import UnsupportedError
from vbench.kernels.fused import operator as matrix
from vbench.kernels.fused.launch import GRID_MAX, REACH_MAX, Launch, check_grid, observed
from vbench.kernels.linear_attention import fused as linear_attention
from vbench.kernels.mingru import fused as mingru
from vbench.kernels.registry import operator
from vbench.kernels.selective_scan import fused as selective_scan
from vbench.kernels.trials import tensors
from vbench.kernels.wkv import fused as wkv
from vbench.operators.calls import WIDTHS, Width
from vbench.operators.compile import triton_forms

HOST = {
    str(each._opoverload): each._init_fn
    for each in (
        *(matrix.matrix_state, matrix.matrix_state_gradients),
        *(wkv._forward, wkv._backward, mingru._forward, mingru._backward),
        *(selective_scan._forward, selective_scan._backward, linear_attention._forward),
    )
}
LARGEST = {"gla": (12, 32, 64), "wkv": (1024,), "wkv6": (12, 64), "mlstm": (4, 384), "retention": (16, 64)}
LARGEST |= {"mingru": (208,)}  # of vig_b, vrwkv_l, vrwkv6_b, vil_b, vir_l and vision_gru_b
LARGEST |= {"selective_scan": (1536, 16, 48, 2), "linear_attention": (24, 32)}  # of vim_b and mlla_b
CALLS = [(op, form) for op in WIDTHS for form in triton_forms(op)]


class Host(TorchDispatchMode):
    """Runs the operators' own code on fake tensors, where torch would only ask for shapes."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if (host := HOST.get(str(func))) is None:
            return func(*args, **(kwargs or {}))
        with self:
            return host(*args, **(kwargs or {}))


def launches(op: str, form: str, width: Width, batch: int, tokens: int) -> list[Launch]:
    """What a call and its gradient launch, in bfloat16."""
    found: list[Launch] = []
    with FakeTensorMode(), observed(found.append), Host():
        inputs = width.inputs(batch=batch, tokens=tokens, dtype="bfloat16", device="cpu")
        x = {name: value.detach().requires_grad_() for name, value in inputs.items()}
        o, state = width.call(operator(op, form), x)
        loss = sum(part.float().sum() for part in (o, *tensors(state)) if part.requires_grad)
        torch.autograd.grad(loss, list(x.values()), allow_unused=True)
    return found


def largest(op: str) -> Width:
    return replace(WIDTHS[op][0], dims=LARGEST[op])


def longest(width: Width) -> int:
    """Tokens of an image: as many as the grid of a gradient takes in chunks of 16, or as offsets of 32 bits reach."""
    with FakeTensorMode():
        one = width.inputs(batch=1, tokens=64, dtype="bfloat16", device="cpu")
    step = max(max(x.stride(-2), x.shape[1:].numel() // 64) for x in one.values() if x.ndim > 2)
    return min(16 * GRID_MAX, REACH_MAX // step - 300)


def least(op: str) -> int:
    """Launches of a call and its gradient; torch computes that of linear attention."""
    return 1 if op == "linear_attention" else 2


def of(found: list[Launch]) -> list[str]:
    return [line for launch in found for line in faults(launch)]


@pytest.mark.parametrize(("op", "form"), CALLS)
def test_very_long_sequences_at_the_widths_of_models(op: str, form: str) -> None:
    for width in (*WIDTHS[op], largest(op)):
        found = launches(op, form, width, 1, longest(width))
        assert len(found) >= least(op)
        assert of(found) == []


@pytest.mark.parametrize(("op", "form"), CALLS)
def test_large_batches(op: str, form: str) -> None:
    found = launches(op, form, largest(op), 2**17, 196)
    assert len(found) >= least(op)
    assert of(found) == []


def test_vil_b_s8_at_7744_px() -> None:
    """Its states have 147,840 numbers a chunk: by 32 bits the carry counted no further than 14,525 chunks."""
    assert of(launches("mlstm", "fused", WIDTHS["mlstm"][1], 1, 968**2)) == []


def test_too_many_tokens_are_refused_in_words() -> None:
    for op, form in CALLS:
        with pytest.raises(UnsupportedError, match="counts the numbers of an image in 32 bits"):
            launches(op, form, largest(op), 1, 2**24)
    check_grid(double, (2**30, GRID_MAX, GRID_MAX))
    for grid in ((1, GRID_MAX + 1), (1, 1, 70_000)):
        with pytest.raises(UnsupportedError, match=r"double would need \d+ programs"):
            check_grid(double, grid)


def toy(grid: tuple[int, ...], wide: bool = False, repeats: int = 1) -> Launch:
    return Launch(far, grid, {"x": torch.zeros(1), "step": 40_000, "repeats": repeats}, {"WIDE": wide}, 4, 1)


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (toy((50_000,)), None),
        (toy((60_000,)), r"far, toy_kernels.py:\d+: 32 bits for a number between 0 and 2,399,960,000"),
        (toy((60_000,), wide=True), None),
        (toy((2**31, 1), wide=True), "far: 2,147,483,648 programs in x of the grid"),
        (toy((1, 70_000)), "far: 70,000 programs in y of the grid"),
        (toy((1, 1, 65_535)), None),
        (toy((1, 1, 65_536)), "far: 65,536 programs in z of the grid"),
        (toy((1,), repeats=40), r"far, toy_kernels.py:\d+: a 32-bit offset of which nothing is known"),
    ],
)
def test_planted_faults_are_caught(launch: Launch, said: str | None) -> None:
    found = faults(launch)
    assert len(found) == (said is not None)
    assert all(re.fullmatch(str(said), line) for line in found)
