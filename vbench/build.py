"""A case as what it is measured with: a model and its input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vbench.models import create
from vbench.plan import Case

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def build(case: Case) -> nn.Module:
    """The model of a cell, with random weights, on torch's current default device."""
    return create(case.model, (case.height, case.width), case.mode, form=case.form)


def images(case: Case, batch: int, device: torch.device) -> Tensor:
    """A batch of noise of the cell's size and dtype: (batch, 3, height, width)."""
    import torch

    return torch.randn(batch, 3, case.height, case.width, device=device, dtype=getattr(torch, case.dtype))
