"""ViG: vision backbones on bidirectional gated linear attention (Liao et al. 2024, arXiv:2405.18425).

An image becomes h × w tokens in raster order. Each block mixes them with one state that walks forward and one that
walks backward, beside a 3×3 depthwise convolution. The classifier reads the mean of the tokens. ViG has twelve blocks
at 1/16 of the image, ViG-H has four stages from 1/4 to 1/32.

    B batch, C channels, H heads, N tokens, D = C/2H key and E = C/H value dimension of a head

Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.models.layers import (
    Backbone,
    ChannelNorm,
    Pyramid,
    classifier,
    drop_path_rates,
    halving,
    init_linear,
    named,
    normed_classifier,
    quartering,
    resize_table,
    shrunk,
    to_map,
    to_tokens,
)

DEPTH = 12
GATE_RANK = 16
GATE_NORMALISER = 16  # log decay = logsigmoid(·) / 16, so that the state decays slowly
EPS = 1e-6  # of RMS norms; layer norms have torch's 1e-5


class ViG(Backbone):
    """The plain ViG: one stage at 1/16 of the image.

    Args:
        image_size: (height, width) in px; at least 7 each. The position table is made for this size.
        dim: C. heads: H. mlp_dim: inner width of the SwiGLU.
        silu: SiLU after the depthwise convolution and before the output projection (only in ViG-T).
        form: the algorithm of the operator, a key of `kernels.OPS["gla"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: 0, 0.2,
            0.5).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        heads: int,
        mlp_dim: int,
        silu: bool,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, dim, num_classes)
        # Two overlapping convolutions, to 1/8 and then 1/16 of the image.
        stem = nn.Sequential(
            nn.Conv2d(3, dim // 2, 9, stride=8, padding=1),
            ChannelNorm(dim // 2),
            nn.SiLU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            ChannelNorm(dim),
        )
        self.patch_embed = named({"proj": stem})
        self.grid = ((image_size[0] - 7) // 16 + 1, (image_size[1] - 7) // 16 + 1)
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], dim))
        self.blocks = nn.ModuleList(
            Block(dim, heads, mlp_dim, self.grid, silu, form, rate) for rate in drop_path_rates(drop_path_rate, DEPTH)
        )
        self.norm = nn.RMSNorm(dim, eps=EPS)
        self.head = classifier(dim, num_classes)
        self.apply(_init)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check(x)
        x = to_tokens(self.patch_embed(x)) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(dim=1)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        return [to_map(self.forward_features(x), self.grid)]

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        if "pos_embed" in state:
            state = {**state, "pos_embed": resize_table(state["pos_embed"], self.grid)}
        return state


class ViGH(Pyramid):
    """ViG-H: four stages at 1/4 to 1/32 of the image. Heads have D = 16 and E = 32 in all of them.

    Args:
        image_size: (height, width) in px, of any size; each halving rounds up.
        dim: C of the first stage. heads: H of the first stage. Both double from stage to stage.
        depths: blocks of each stage. mlp_dims: inner width of the SwiGLU in each stage.
        form: the algorithm of the operator, a key of `kernels.OPS["gla"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: 0.2, 0.3,
            0.6).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depths: tuple[int, int, int, int],
        heads: int,
        mlp_dims: tuple[int, int, int, int],
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, quartering(dim), 8 * dim, num_classes)
        self.grid = shrunk(image_size, 4)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList(
            Stage(
                dim << s,
                heads << s,
                mlp_dim,
                shrunk(self.grid, 2**s),
                form,
                [next(rates) for _ in range(depth)],
                last=s == len(depths) - 1,
            )
            for s, (depth, mlp_dim) in enumerate(zip(depths, mlp_dims, strict=True))
        )
        self.classifier = normed_classifier(self.num_features, num_classes)
        self.apply(_init)


class Block(nn.Module):
    """y = x + Mixer(RMS(x)); y + MLP(RMS(y)).  (B, N, C) -> (B, N, C)."""

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, grid: tuple[int, int], silu: bool, form: str, drop_path: float
    ) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(dim, eps=EPS)
        self.attn = Mixer(dim, heads, grid, silu, 4, form)  # 4: the released code halves the mean in evaluation
        self.mlp_norm = nn.RMSNorm(dim, eps=EPS)
        self.mlp = SwiGLU(dim, mlp_dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.attn_norm(x)))
        return x + self.drop_path(self.mlp(self.mlp_norm(x)))


class Stage(nn.Module):
    """Blocks of ViG-H and a halving: (B, C, h, w) -> the blocks' map (B, C, h, w), and it halved (B, 2C, ⌈h/2⌉, ⌈w/2⌉).

    The `last` stage does not halve: it returns its map twice.
    """

    def __init__(
        self, dim: int, heads: int, mlp_dim: int, grid: tuple[int, int], form: str, drop_paths: list[float], last: bool
    ) -> None:
        super().__init__()
        self.grid = grid
        self.blocks = nn.Sequential(*(StageBlock(dim, heads, mlp_dim, grid, form, rate) for rate in drop_paths))
        self.downsample = named({}) if last else halving(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mixed = to_map(self.blocks(to_tokens(x)), self.grid)
        return mixed, self.downsample(mixed)


class StageBlock(nn.Module):
    """y = x + Mixer(LN(x)); y + MLP(LN(y)).  (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, grid: tuple[int, int], form: str, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.op = Mixer(dim, heads, grid, False, 2, form)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwiGLU(dim, mlp_dim, ("fc1", "fc2"))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.op(self.norm(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Mixer(nn.Module):
    """Bidirectional gated linear attention beside a local branch (section 3 of the paper).

    All projections read u, the output of the depthwise convolution; u is also the local branch. The outputs of the two
    directions are added, and divided by 2 in training and by `divisor` in evaluation.
    """

    def __init__(self, dim: int, heads: int, grid: tuple[int, int], silu: bool, divisor: int, form: str) -> None:
        super().__init__()
        self.heads, self.grid, self.divisor = heads, grid, divisor
        self.gla = operator("gla", form)
        self.act = nn.SiLU() if silu else nn.Identity()
        self.in_proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False), self.act)
        self.qkv_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.gk_proj = nn.Sequential(nn.Linear(dim, GATE_RANK, bias=False), nn.Linear(GATE_RANK, dim))
        self.g_proj = nn.Linear(dim, dim)
        self.g_norm = nn.RMSNorm(dim // heads, eps=EPS)
        self.l_norm = nn.RMSNorm(dim // heads, eps=EPS)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        C, H = x.shape[-1], self.heads
        u = to_tokens(self.in_proj(to_map(x, self.grid)))

        q, k, v = self.qkv_proj(u).split([C // 2, C // 2, C], dim=-1)
        q, k, v = (t.unflatten(-1, (H, -1)).transpose(1, 2) for t in (q, k, v))  # B H N ·
        gates = self.gk_proj(u).unflatten(-1, (2, H, -1)).permute(2, 0, 3, 1, 4)  # 2 B H N D
        gates = F.logsigmoid(gates if gates.dtype == torch.float64 else gates.float()).div_(GATE_NORMALISER)
        scale = q.shape[-1] ** -0.5 / (2 if self.training else self.divisor)
        o, _ = self.gla(q, k, v, gates, direction="both", scale=scale)

        local = self.l_norm(u.unflatten(-1, (H, -1)))  # B N H E
        mix = torch.lerp(local, self.g_norm(o.transpose(1, 2)), self.g_proj(u).sigmoid().unflatten(-1, (H, -1)))
        return self.o_proj(self.act(mix.flatten(-2)))


class SwiGLU(nn.Module):
    """down(SiLU(z) · u), where z and u are the halves of one projection.  (B, N, C) -> (B, N, C).

    `names` are the names of the two projections.
    """

    def __init__(self, dim: int, mlp_dim: int, names: tuple[str, str] = ("gate_proj", "down_proj")) -> None:
        super().__init__()
        self.names = names
        self.add_module(names[0], nn.Linear(dim, 2 * mlp_dim, bias=False))
        self.add_module(names[1], nn.Linear(mlp_dim, dim, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        up, down = map(self.get_submodule, self.names)
        z, u = up(x).chunk(2, dim=-1)
        return down(F.silu(z).mul_(u))


def _init(module: nn.Module) -> None:
    """The released initialisation: `init_linear`, and in the mixer Xavier with gain 2**-2.5."""
    init_linear(module)
    if isinstance(module, Mixer):
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight, gain=2**-2.5)
