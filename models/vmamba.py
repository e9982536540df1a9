"""VMamba: a hierarchical backbone on selective scans in four directions (Liu et al. 2024, arXiv:2401.10166).

Each of four stages has half the map and twice the channels of the last. A block scans its map along rows, along
columns, and both backwards, each with projections of its own, and adds the four results. No table of positions.

    B batch, C channels of a stage, h × w its map, D channels inside a block, R rank of the steps, S states of a channel

`VMamba` is the released design: S = 1, no gate, an MLP in each block. `VMambaV0` is the first, which the authors call
vanilla: S = 16, a gate, no MLP. Maps lie in memory channel by channel of one place (B, h, w, C) inside the stages.
Parameter names are those of the published code.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.kernels.shapes import accumulator
from vbench.models.layers import (
    MLP,
    ChannelNorm,
    Pyramid,
    drop_path_rates,
    halving,
    init_linear,
    named,
    normed_classifier,
    quartering,
    shrunk,
)

Depths = tuple[int, int, int, int]

WALKS = 4
MLP_RATIO = 4
STEPS = (0.001, 0.1)  # between which the steps lie at the start of training
V0_RATIO, V0_STATES = 2, 16


class _FourStages(Pyramid):
    """What both designs share: stages of blocks, a norm, the mean over the map, and a linear layer.

    Args:
        grid: (down, across) of the first stage.
        patch_embed: (B, 3, height, width) -> (B, dim, *grid).
        block: makes a block (B, h, w, C) -> (B, h, w, C) from C and its rate of stochastic depth.
        between: makes from C what lies between two stages, (B, C, h, w) -> (B, 2C, ⌈h/2⌉, ⌈w/2⌉).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        grid: tuple[int, int],
        dim: int,
        depths: Depths,
        patch_embed: nn.Module,
        block: Callable[[int, float], nn.Module],
        between: Callable[[int], nn.Module],
        num_classes: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__(image_size, patch_embed, 8 * dim, num_classes)
        self.grid = grid
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList(
            Stage(
                [block(dim << s, next(rates)) for _ in range(depth)],
                named({}) if s == len(depths) - 1 else between(dim << s),
            )
            for s, depth in enumerate(depths)
        )
        self.classifier = normed_classifier(self.num_features, num_classes)
        self.apply(init_linear)


class VMamba(_FourStages):
    """The released VMamba. The authors name its variants by ratio and third depth: "s1l8" has D = C and 8 blocks.

    Args:
        image_size: (height, width) in px, of any size; each halving rounds up.
        dim: C of the first stage. depths: blocks of each stage.
        ratio: D in C, 1 or 2.
        form: the algorithm of the operator, a key of `kernels.OPS["selective_scan"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: 0.2 for T,
            0.3 for S, 0.6 for B, 0.5 for B-s1l20).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depths: Depths,
        ratio: int,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        def block(C: int, drop_path: float) -> nn.Module:
            return Block(C, ratio, form, drop_path)

        grid, stem = shrunk(image_size, 4), quartering(dim)
        super().__init__(image_size, grid, dim, depths, stem, block, halving, num_classes, drop_path_rate)


class VMambaV0(_FourStages):
    """The first VMamba, which the authors call vanilla.

    Args:
        image_size: (height, width) in px, at least 4 each. Patches of 4 × 4 px leave the rest of a side out; after
            that each halving rounds up.
        dim: C of the first stage. depths: blocks of each stage.
        form: the algorithm of the operator, a key of `kernels.OPS["selective_scan"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: 0.2 for T,
            0.3 for S, 0.6 for B).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depths: Depths,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        def block(C: int, drop_path: float) -> nn.Module:
            return BlockV0(C, form, drop_path)

        grid = (image_size[0] // 4, image_size[1] // 4)
        stem = named({"0": nn.Conv2d(3, dim, 4, stride=4), "2": ChannelNorm(dim)})
        super().__init__(image_size, grid, dim, depths, stem, block, Merging, num_classes, drop_path_rate)


class Stage(nn.Module):
    """Blocks and a halving: (B, C, h, w) -> the blocks' map (B, C, h, w), and it halved (B, 2C, ⌈h/2⌉, ⌈w/2⌉).

    The last stage has an empty `downsample`: it returns its map twice.
    """

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed = self.blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return mixed, self.downsample(mixed)


class Merging(nn.Module):
    """Four places of a map become one: (B, C, h, w) -> (B, 2C, ⌈h/2⌉, ⌈w/2⌉). Odd sides get zeros at their end."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        if h % 2 or w % 2:
            x = F.pad(x, (0, w % 2, 0, h % 2))
        x = x.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # B h/2 2 w/2 2 C
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)  # the lower of two places comes before the right one
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """y = x + SS2D(LN(x)); y + MLP(LN(y)).  (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, dim: int, ratio: int, form: str, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(dim, ratio * dim, 1, form)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, MLP_RATIO * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BlockV0(nn.Module):
    """x + SS2D(LN(x)), with a gate and a bias in the convolution.  (B, h, w, C) -> (B, h, w, C)."""

    def __init__(self, dim: int, form: str, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = SS2D(dim, V0_RATIO * dim, V0_STATES, form, gated=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.op(self.norm(x)))


class SS2D(nn.Module):
    """The 2D selective scan (section 4 of the paper): (B, h, w, C) -> (B, h, w, C).

        u = SiLU(conv(W_in x))      y = Σ_k scan_k(u)      o = W_out LN(y)

    The sum runs over the four walks. A projection acts on each place by itself, so one product makes the step, B and C
    of all walks from the map; the operator finds the order of each walk, and adds the results in place.

    Args:
        dim: C. inner: D. states: S.
        form: the algorithm of the operator.
        gated: the first design: LN(y) is multiplied by SiLU(z), where z is another half of W_in x, and the convolution
            has a bias.
    """

    def __init__(self, dim: int, inner: int, states: int, form: str, *, gated: bool = False) -> None:
        super().__init__()
        rank = -(-dim // 16)
        self.sizes = [rank, states, states]
        self.selective_scan = operator("selective_scan", form)
        self.x_proj_weight = nn.Parameter(torch.empty(WALKS, rank + 2 * states, inner))
        self.A_logs = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(WALKS * inner, 1))
        self.Ds = nn.Parameter(torch.ones(WALKS * inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(WALKS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(WALKS, inner))
        self.out_norm = nn.LayerNorm(inner)
        self.in_proj = nn.Linear(dim, 2 * inner if gated else inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=gated)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._init(inner, rank)

    def _init(self, inner: int, rank: int) -> None:
        """The released initialisation of the scan: steps between `STEPS`, even in their logarithm; A = -1, -2, … -S."""
        nn.init.uniform_(self.x_proj_weight, -(inner**-0.5), inner**-0.5)
        nn.init.uniform_(self.dt_projs_weight, -(rank**-0.5), rank**-0.5)
        nn.init.uniform_(self.dt_projs_bias, log(STEPS[0]), log(STEPS[1]))
        with torch.no_grad():
            self.dt_projs_bias.exp_().expm1_().log_()  # the inverse of softplus

    def forward(self, x: Tensor) -> Tensor:
        B, h, w, _ = x.shape
        inner = self.out_proj.in_features
        u, *gate = self.in_proj(x).split(inner, dim=-1)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2))).permute(0, 2, 3, 1).flatten(1, 2)  # B N D

        walks = F.linear(u, self.x_proj_weight.flatten(0, 1)).unflatten(-1, (WALKS, -1))
        step, written, read = walks.flatten(0, 1).transpose(0, 1).split(self.sizes, dim=-1)  # 4 B·N ·
        delta = step @ self.dt_projs_weight.transpose(1, 2)
        delta, written, read = (t.unflatten(1, (B, 1, h * w)) for t in (delta, written, read))  # 4 B 1 N ·

        A = -self.A_logs.to(accumulator(self.A_logs)).exp().view(WALKS, 1, inner, -1)
        skip, bias = (t.view(WALKS, 1, inner) for t in (self.Ds, self.dt_projs_bias))
        y, _ = self.selective_scan(u.unsqueeze(1), delta, A, written, read, skip, bias, direction="cross", width=w)

        y = self.out_norm(y.reshape(B, h, w, inner))
        return self.out_proj(y * F.silu(gate[0]) if gate else y)
