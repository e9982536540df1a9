"""Models that take their shape, or their count, from the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from users_nets.base import Base

SEEN: list[tuple[int, int]] = []  # sizes of the real images that the models below have passed


class Lazy(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.LazyConv2d(8, 1), nn.LazyLinear(10)

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.mix(x)
        return found


class Grows(Base):
    """It makes a layer in its first call."""

    late: nn.Module

    def body(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Conv2d(x.shape[1], 8, 1)
        found: Tensor = self.late(x)
        return found


class Compiled(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.compile(nn.Conv2d(8, 8, 1), fullgraph=True)

    def body(self, x: Tensor) -> Tensor:
        found: Tensor = self.mix(x)
        return found


class Paired(Base):
    """It normalises over the batch, so it takes no single image."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(F.batch_norm(self.stem(x).mean((2, 3)), None, None, training=True))
        return found


class Coarse(nn.Module):
    """Attention over tokens of 32 px, without a kernel. It leaves the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 32, 32), nn.Linear(8, 10)

    def mix(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)
        return ((t @ t.mT).softmax(-1) @ t).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.cpu()
        SEEN.append((x.shape[2], x.shape[3]))
        found: Tensor = self.head(self.mix(self.stem(x)))
        return found


class OnMeta(Coarse):
    """The same, without a need for values."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.mix(self.stem(x)))
        return found


class Windows(Coarse):
    """Attention in windows of 7 x 7 tokens; a smaller map is one window."""

    def mix(self, x: Tensor) -> Tensor:
        side = min(7, *x.shape[2:])
        x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
        parts = x.unfold(2, side, side).unfold(3, side, side).flatten(4)  # B, C, rows, columns, tokens
        t = parts.permute(0, 2, 3, 4, 1)
        return ((t @ t.mT).softmax(-1) @ t).mean((1, 2, 3))


class Pruned(Coarse):
    """Its work depends on the values."""

    def mix(self, x: Tensor) -> Tensor:
        t = x.flatten(2).transpose(1, 2)[0]
        t = t[t[:, 0] > t[:, 1]]
        return (t @ t.mT @ t).mean(0, keepdim=True)
