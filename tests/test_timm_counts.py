"""The MACs of models of timm against two counts that share no code with ours.

The first is made here, from the shapes of what a model calls in Python: convolutions, linear layers, products,
attention. The ledger sees the same pass below torch's dispatcher. They must agree within 0.1 %.

The second is what timm lists (`timm_listed.csv`): `infer_gmacs` and `param_count` of
results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv in huggingface/pytorch-image-models at commit 7479d451, of
2024. fvcore counted them, to two decimals. It counts norms too, which are no MACs: 2 an element for a norm over the
batch, which is not folded into a convolution there, and 5 for the others. We add these to ours before we compare.
"""

from __future__ import annotations

import csv
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vbench.flops.count import enter, work_of
from vbench.plan import Sweep, plan

with (Path(__file__).parent / "timm_listed.csv").open(encoding="utf-8") as file:
    LISTED = list(csv.DictReader(file))


class Shapes(TorchFunctionMode):
    """MACs and norms of whatever is called within, from the shapes of operands and results alone."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0
        self.norms = 0  # as fvcore counts them

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = getattr(func, "__name__", "").strip("_")
        if name in PRODUCTS:
            self.macs += PRODUCTS[name](out, *args, **kwargs)
        elif name in NORMS:
            self.norms += NORMS[name](*args, **kwargs)
        return out


def convolution(out: Tensor, x: Tensor, weight: Tensor, *rest: Any, **options: Any) -> int:
    """Each value of the result reads one filter."""
    return out.numel() * weight[0].numel()


def linear(out: Tensor, x: Tensor, weight: Tensor, *rest: Any, **options: Any) -> int:
    return out.numel() * weight.shape[-1]


def matmul(out: Tensor, a: Tensor, b: Tensor, **options: Any) -> int:
    """The sides of the result times the side that goes."""
    return out.numel() * a.shape[-1]


def baddbmm(out: Tensor, added: Tensor, a: Tensor, b: Tensor, **options: Any) -> int:
    return out.numel() * a.shape[-1]


def einsum(out: Tensor, equation: str, *operands: Tensor) -> int:
    """Two operands: all letters once."""
    words = equation.replace(" ", "").partition("->")[0].split(",")
    assert len(words) == len(operands) == 2
    sides = dict(pair for word, x in zip(words, operands, strict=True) for pair in zip(word, x.shape, strict=True))
    return prod(sides.values())


def attention(out: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> int:
    """Scores, and what they weigh."""
    return prod(out.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])


PRODUCTS = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    "linear": linear,
    **dict.fromkeys(("matmul", "mm", "bmm"), matmul),
    "baddbmm": baddbmm,
    "einsum": einsum,
    "scaled_dot_product_attention": attention,
}


def batch_norm(
    x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False, *_: Any, **__: Any
) -> int:
    each = 5 if training else 2
    return x.numel() * (each if weight is not None else each - 1)


def other_norm(x: Tensor, shape: Any, weight: Any = None, *rest: Any, **options: Any) -> int:
    return x.numel() * (4 if weight is None else 5)


NORMS = {"batch_norm": batch_norm, "layer_norm": other_norm, "group_norm": other_norm}


@pytest.mark.parametrize("row", LISTED, ids=lambda row: row["model"])
def test_macs_are_those_of_two_other_counts(row: dict[str, str]) -> None:
    side = int(row["side"])
    case = plan(Sweep((f"timm/{row['model']}",), ((side, side),), ("parallel",), (1,)))[0]
    with Shapes() as shapes:
        found = enter(case)
    work = work_of(case, found)
    assert work["unknown"] == {}
    assert work["macs"] == work["macs_matmul"] == work["macs_executed"]
    assert work["macs"] == pytest.approx(shapes.macs, rel=1e-3)
    assert round(work["params"] / 1e6, 2) == pytest.approx(float(row["params_m"]), abs=0.0101)
    listed = float(row["gmacs"])
    assert (work["macs"] + shapes.norms) / 1e9 == pytest.approx(listed, abs=0.0055)


def test_the_list_is_of_more_than_forty_models_of_twenty_five_families() -> None:
    assert len({row["model"] for row in LISTED}) == len(LISTED) >= 40
    assert len({row["family"] for row in LISTED}) >= 25


def test_the_count_by_shapes_is_by_hand() -> None:
    x, weight = torch.zeros(2, 8, 4, 4), torch.zeros(6, 4, 3, 3)
    with Shapes() as shapes:
        torch.nn.functional.conv2d(x, weight, padding=1, groups=2)
    assert shapes.macs == 2 * 6 * 16 * 36
    with Shapes() as shapes:
        torch.einsum("bchw,cd->bdhw", x, torch.zeros(8, 5))
        x.flatten(2) @ x.flatten(2).mT
        torch.nn.functional.layer_norm(x, (4,))
    assert (shapes.macs, shapes.norms) == (2 * 16 * 8 * 5 + 2 * 8 * 8 * 16, 4 * x.numel())
