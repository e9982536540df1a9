"""What the models share: a stem, a body of their own, and a head. At 64 px: 98,384 MACs and 482 parameters."""

from __future__ import annotations

from torch import Tensor, nn


class Base(nn.Module):
    """(B, 3, H, W) -> (B, 10). The body gets (B, 8, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 10)

    def body(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(self.stem(x)).mean((2, 3)))
        return found


def tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return x.flatten(2).transpose(1, 2)


def image(x: Tensor, like: Tensor) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W)."""
    return x.transpose(1, 2).reshape(like.shape)
