"""A case as what it is measured with: a model and its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vbench.errors import UnsupportedError
from vbench.models import MODELS, create
from vbench.plan import Case

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def build(case: Case) -> nn.Module:
    """The model of a cell, with random weights, on torch's current default device; in training no path is dropped.

    Raises: UnsupportedError if its attention is to be unfused and timm computes it otherwise, or if it has none.
    """
    import torch

    # timm's Swin drops paths in training unless told otherwise; a cost is that of all paths.
    ours = case.model in MODELS
    options = {"drop_path_rate": 0.0} if case.phase == "train" and ours else {}
    model = create(case.model, (case.height, case.width), case.mode, form=case.form, **options)
    if case.attention == "unfused" and not unfuse(model):
        raise UnsupportedError(f"{case.model} has no attention that timm can compute unfused")
    return model.to(memory_format=torch.channels_last) if case.layout == "nhwc" else model


def images(case: Case, batch: int, device: torch.device) -> Tensor:
    """A batch of noise of the cell's size, dtype and layout: (batch, 3, height, width)."""
    import torch

    noise = torch.randn(batch, 3, case.height, case.width, device=device, dtype=getattr(torch, case.dtype))
    return noise.to(memory_format=torch.channels_last) if case.layout == "nhwc" else noise


def unfuse(model: nn.Module) -> bool:
    """Have timm's attention compute its scores whole; True if the model has such attention."""
    found = False
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - a plain attribute, which nn.Module's types do not know
            found = True
    return found


def attention_of(model: nn.Module) -> str | None:
    """How timm's attention is computed in a model: "fused", "unfused", both, or None if there is none."""
    kinds = {"fused" if module.fused_attn else "unfused" for module in model.modules() if hasattr(module, "fused_attn")}
    return "+".join(sorted(kinds)) or None


def replace_function(model: nn.Module, old: Callable[..., Any], new: Callable[..., Any]) -> None:
    """Give every module of `model` that holds the function `old` the function `new` in its place."""
    for module in model.modules():
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)
