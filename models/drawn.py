"""Random weights by which every branch of a model matters: as first initialised, some are scaled down to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


def weights(model: nn.Module, generator: Generator) -> dict[str, Tensor]:
    """A state dict of random weights: N(0, 1/fan_in) for matrices and kernels, U[0.1, 1) for vectors.

    Tables that no training changes, buffers of several dimensions, stay as they are.
    """
    import torch

    state = {}
    tables = {key for key, value in model.named_buffers() if value.ndim > 1}
    for key, value in model.state_dict().items():
        fresh = torch.empty_like(value)
        if not value.is_floating_point() or key in tables:
            fresh.copy_(value)
        elif value.ndim < 2:
            fresh.uniform_(0.1, 1.0, generator=generator)
        else:
            fresh.normal_(std=(value.numel() / value.shape[0]) ** -0.5, generator=generator)
        state[key] = fresh
    return state
