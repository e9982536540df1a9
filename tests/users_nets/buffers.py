"""Tensors that no factory of torch's has made, or that are made without a device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from users_nets.base import Base

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)


def table() -> Tensor:
    return torch.from_numpy(np.sin(np.arange(8, dtype=np.float32))[None, :, None, None])


class Table(Base):
    """A position table made by numpy, kept as a buffer: wingedsheep/transformer#4 and most sine tables."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", table(), persistent=False)

    def body(self, x: Tensor) -> Tensor:
        return x + self.table


class Tables:
    """Not a module: nothing moves it."""

    def __init__(self) -> None:
        self.rows = [table()]


class Apart(Base):
    """A table in an object of the user's own, and one that is a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.tables, self.plain = Tables(), table()

    def body(self, x: Tensor) -> Tensor:
        return (x + self.tables.rows[0]) * self.plain


class Normalised(Base):
    """A constant of the module, made when it is imported."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - MEAN)


class Positions(Base):
    """`torch.arange` without a device."""

    def body(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[-1]).to(x.dtype)


class Constants(Base):
    """A tensor from Python's numbers in the forward pass, and a number that is read from a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.times = torch.tensor(2, device="cpu")

    def body(self, x: Tensor) -> Tensor:
        return int(self.times) * x * torch.tensor([1.0, 2.0] * 4).view(1, 8, 1, 1)
