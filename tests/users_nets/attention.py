"""Attention whose queries, keys and values are not alike. At 64 px there are 256 tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from users_nets.base import Base, image, tokens


class Wide(Base):
    """Values that are wider than queries.

    apple/coreai-torch#117, pytorch/pytorch#196461, an answer in Dao-AILab/flash-attention#1541
    """

    heads = False

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 16), nn.Linear(16, 8)

    def body(self, x: Tensor) -> Tensor:
        parts = [project(tokens(x)) for project in (self.q, self.k, self.v)]
        if self.heads:
            return image(self.o(F.scaled_dot_product_attention(*(part[:, None] for part in parts))[:, 0]), x)
        return image(self.o(F.scaled_dot_product_attention(*parts)), x)


class WideHeads(Wide):
    """The same in four dimensions, as fused kernels want them."""

    heads = True


class Grouped(Base):
    """Four heads of queries to two of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.o = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def body(self, x: Tensor) -> Tensor:
        q = self.q(tokens(x)).unflatten(-1, (4, 4)).transpose(1, 2)
        k, v = self.kv(tokens(x)).unflatten(-1, (2, 2, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return image(self.o(y.transpose(1, 2).flatten(2)), x)


class Shared(Base):
    """Four windows of queries to the same sixteen keys, which are broadcast."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.zeros(1, 1, 16, 8))

    def body(self, x: Tensor) -> Tensor:
        q = tokens(x).reshape(-1, 1, 64, 8)
        return image(F.scaled_dot_product_attention(q, self.memory, self.memory).reshape(x.shape[0], -1, 8), x)
