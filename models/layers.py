"""Pieces that backbones really share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def resize_table(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """A square position table (1, N, C) resampled to grid: (1, grid[0] · grid[1], C).

    Bicubic in float32, half-pixel centres, no antialiasing; unchanged where the grid already fits.
    """
    side = int(table.shape[1] ** 0.5)
    if (side, side) == grid or side * side != table.shape[1]:
        return table
    image = table.float().transpose(1, 2).unflatten(2, (side, side))
    image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False)
    return image.flatten(2).transpose(1, 2).to(table.dtype)
