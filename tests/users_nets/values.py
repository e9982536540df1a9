"""Forward passes that read values."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from users_nets.base import Base, tokens


class Prune(Base):
    """Tokens by a mask: facebookresearch/fvcore#137 and #150 have the like."""

    def body(self, x: Tensor) -> Tensor:
        t = tokens(x)[0]
        return t[t.mean(-1) > 0].sum(0)[None, :, None, None] + x


class Branch(Base):
    def body(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Numpy(Base):
    def body(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sort(x.detach().cpu().numpy(), -1))


class Chosen(Base):
    def body(self, x: Tensor) -> Tensor:
        t = tokens(x)[0]
        at = torch.nonzero(t[:, 0] > 0)[:, 0]
        return x + t.index_select(0, at).mean()


class Looped(Base):
    def body(self, x: Tensor) -> Tensor:
        for factor in x.abs().amax((0, 2, 3)).tolist():
            x = x * (1 if factor > 0 else 2)
        return x


class Doubled(torch.autograd.Function):
    """An operation of a user's own, by numpy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(2 * x.numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * 2


class Custom(Base):
    def body(self, x: Tensor) -> Tensor:
        found: Tensor = Doubled.apply(x)
        return found


@torch.library.custom_op("users_nets::thrice", mutates_args=())
def thrice(x: Tensor) -> Tensor:
    return 3 * x


class Library(Base):
    """An operation that is registered without a function for tensors without data."""

    def body(self, x: Tensor) -> Tensor:
        return thrice(x)


class OnlyHere(Base):
    """It refuses devices that it does not know."""

    def forward(self, x: Tensor) -> Tensor:
        assert x.device.type in ("cpu", "cuda"), f"no kernel for {x.device.type}"
        return super().forward(x)


@lru_cache
def steps(side: int) -> Tensor:
    return torch.arange(side, dtype=torch.float32)


class Memo(Branch):
    """A table without a device that the module keeps."""

    def body(self, x: Tensor) -> Tensor:
        return super().body(x + steps(x.shape[-1]))


NET = Branch()


def once() -> nn.Module:
    """One model for all calls."""
    return NET
