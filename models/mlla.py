"""MLLA: a hierarchical backbone on normalised linear attention in Mamba's block (Han et al. 2024, arXiv:2405.16605).

Each of four stages has half the map and twice the channels of the last. In a block, every token reads one summary of
all tokens of the map; nothing decays, and no token comes before another. Places are told by rotations of queries and
keys, and by depthwise convolutions. Recurrent mode gathers the summary token by token, and then reads it.

    B batch, C channels of a stage, H = C/32 heads, h × w its map, N = h · w tokens

Maps lie in memory channel by channel of one place (B, h, w, C). Parameter names are those of the published code
(github.com/LeapLabTHU/MLLA). Its classifier takes squares alone; this takes any size, as its backbone for detection.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.kernels.shapes import accumulator
from vbench.models.layers import MLP, Backbone, classifier, drop_path_rates, init_linear, maps_of, shrunk

HEAD_DIM = 32
MLP_RATIO = 4
WIDENED = 4  # by the stem and between stages, before a convolution of 1×1
BASE = 10000.0  # of the angles
TABLE = "rope.rotations"  # the end of the keys of tables of angles


class MLLA(Backbone):
    """MLLA, which its authors later call MILA.

    Args:
        image_size: (height, width) in px, of any size; each halving rounds up. Tables of angles are made for this
            size: a larger map turns its last rows and columns further.
        dim: C of the first stage, a multiple of 32. depths: blocks of each stage.
        form: the algorithm of the operator, a key of `kernels.OPS["linear_attention"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: 0.2 for T,
            0.3 for S, 0.5 for B).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depths: tuple[int, int, int, int],
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, 8 * dim, num_classes)
        self.grid = shrunk(image_size, 4)
        self.patch_embed = Stem(dim)
        rates, last = iter(drop_path_rates(drop_path_rate, sum(depths))), len(depths) - 1
        self.layers = nn.ModuleList(
            Stage(dim << s, shrunk(self.grid, 1 << s), form, [next(rates) for _ in range(depth)], halved=s < last)
            for s, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(self.num_features)
        self.head = classifier(self.num_features, num_classes)
        self.apply(init_linear)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.feature_maps(x)[-1].permute(0, 2, 3, 1).flatten(1, 2))

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(dim=1)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, height, width) -> each stage's map (B, C, h, w), before it is halved and before the last norm."""
        self.check(x)
        return maps_of(self.patch_embed(x), self.layers)

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the model's own tables of angles in place of those for another size, or where there are none."""
        tables = {key: table for key, table in self.state_dict().items() if key.endswith(TABLE)}
        other = {key: table for key, table in tables.items() if key not in state or state[key].shape != table.shape}
        return {**state, **other}


class ConvLayer(nn.Module):
    """A convolution, a batch norm if `norm`, and a ReLU if `relu`.  (B, C, h, w) -> (B, features, ⌈h/s⌉, ⌈w/s⌉)."""

    def __init__(
        self,
        channels: int,
        features: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, features, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(features) if norm else nn.Identity()
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Stem(nn.Module):
    """Convolutions to 1/4 of the image: (B, 3, height, width) -> (B, C, h, w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half, wide = dim // 2, WIDENED * dim
        self.conv1 = ConvLayer(3, half, 3, stride=2)
        self.conv2 = nn.Sequential(ConvLayer(half, half, 3), ConvLayer(half, half, 3, relu=False))
        self.conv3 = nn.Sequential(ConvLayer(half, wide, 3, stride=2), ConvLayer(wide, dim, 1, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv3(x + self.conv2(x))


class Halving(nn.Module):
    """Half the map, twice the channels: (B, C, h, w) -> (B, 2C, ⌈h/2⌉, ⌈w/2⌉)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        wide = 2 * WIDENED * dim
        self.conv = nn.Sequential(
            ConvLayer(dim, wide, 1, bias=True, norm=False),
            ConvLayer(wide, wide, 3, stride=2, groups=wide, bias=True, norm=False),
            ConvLayer(wide, 2 * dim, 1, bias=True, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Stage(nn.Module):
    """Blocks, and half the map for the next stage: (B, C, h, w) -> the same shape, (B, 2C, ⌈h/2⌉, ⌈w/2⌉).

    The last stage has no next one, and gives its map twice.
    """

    def __init__(self, dim: int, grid: tuple[int, int], form: str, rates: list[float], *, halved: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(dim, grid, form, rate) for rate in rates))
        self.downsample = Halving(dim) if halved else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x, self.downsample(x)


class Block(nn.Module):
    """Mamba's block with linear attention in place of the scan, then an MLP (figure 3).

        x = x + DW₁(x)      u = SiLU(DW(W_in LN(x)))      x = x + W_o (Attention(u) ⊙ SiLU(W_g LN(x)))
        x = x + DW₂(x)      x = x + MLP(LN(x))

    (B, h, w, C) -> (B, h, w, C)
    """

    def __init__(self, dim: int, grid: tuple[int, int], form: str, drop_path: float) -> None:
        super().__init__()
        self.cpe1 = Depthwise(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, dim)
        self.act_proj = nn.Linear(dim, dim)
        self.dwc = Depthwise(dim)
        self.attn = Attention(dim, grid, form)
        self.out_proj = nn.Linear(dim, dim)
        self.cpe2 = Depthwise(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, MLP_RATIO * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.cpe1(x)
        y = self.norm1(x)
        u = F.silu(self.dwc(self.in_proj(y)))
        x = x + self.drop_path(self.out_proj(self.attn(u) * F.silu(self.act_proj(y))))
        x = x + self.cpe2(x)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Depthwise(nn.Conv2d):
    """A depthwise convolution of 3×3: (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Linear attention over the whole map, and a depthwise convolution of its values.

    The values are the input itself. Queries and keys are ELU + 1 of projections. Those of the numerator are turned by
    their place, those of the normaliser are not, so that it is positive.

    (B, h, w, C) -> (B, h, w, C)
    """

    def __init__(self, dim: int, grid: tuple[int, int], form: str) -> None:
        super().__init__()
        self.op = operator("linear_attention", form)
        self.qk = nn.Linear(dim, 2 * dim)
        self.lepe = Depthwise(dim)
        self.rope = RoPE(dim, grid)

    def forward(self, v: Tensor) -> Tensor:
        q, k = (F.elu(self.qk(v)) + 1).chunk(2, dim=-1)
        turned = self.rope(q), self.rope(k)
        o, _ = self.op(*map(_heads, (*turned, v)), q_norm=_heads(q), k_norm=_heads(k))
        return o.transpose(1, 2).reshape(v.shape) + self.lepe(v)


def _heads(x: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, H, N, 32)."""
    return x.flatten(1, 2).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)


class RoPE(nn.Module):
    """Turns each pair of channels by an angle that grows with its row, or with its column: (B, h, w, C), same shape.

    The pairs are those of all C channels, before these are split into heads; rows turn the first half of them. It is
    computed in float32, or in float64 for float64, under autocast too.
    """

    rotations: Tensor

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("rotations", rotations(dim, grid))

    def forward(self, x: Tensor) -> Tensor:
        dtype = accumulator(x)
        a, b = x.to(dtype).unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = self.rotations.to(dtype).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)


def rotations(dim: int, grid: tuple[int, int]) -> Tensor:
    """Cosine and sine of the angle of each place and pair of channels: Float[h, w, dim / 2, 2], float32 as published.

    Angles are y · θ_m in the first dim/4 pairs and x · θ_m in the others, with θ_m = 10000^(-m / (dim / 4)).
    """
    pairs = dim // 4
    theta = 1 / BASE ** (torch.arange(pairs) / pairs)
    rows, columns = (torch.arange(side).unsqueeze(-1) * theta for side in grid)
    angles = torch.cat((rows[:, None].expand(*grid, pairs), columns[None].expand(*grid, pairs)), dim=-1)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)
