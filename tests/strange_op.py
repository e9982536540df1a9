"""An operation that no table knows. Here it is registered once, however often the tests that use it are imported."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("vbench_test::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return 2 * x


@double.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)
