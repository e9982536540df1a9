"""Vim: Vision Mamba, backbones on Mamba's selective scan in both directions (Zhu et al. 2024, arXiv:2401.09417).

An image becomes M = h × w patches in raster order. The class token stands in the middle of them, at place M // 2, and
the classifier reads it alone. A block is an RMS norm and a mixer: a causal convolution and a selective scan in each
direction, with weights of their own for everything between the two projections. There is no MLP.

    B batch, T = M + 1 tokens, C channels, D = 2C inner channels, S = 16 states a channel, R = C / 16 rank of the steps

Parameter names are those of the published checkpoints. Their names of models say "final_pool_mean", but nothing is
averaged while there is a class token.
"""

from __future__ import annotations

from math import log
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.errors import UsageError
from vbench.kernels import operator
from vbench.kernels.shapes import accumulator
from vbench.models.layers import Backbone, classifier, drop_path_rates, resize_table, to_map, to_tokens

PATCH = 16
STATES = 16  # S
TAPS = 4  # tokens that the causal convolution reads
EPS = 1e-5
STEPS = (0.001, 0.1)  # between them lie the initial steps of the forward scan

Positions = Literal["released", "aligned"]


class Vim(Backbone):
    """Vim with the class token in the middle: one stage at 1/16 of the image, or 1/8 with overlapping patches.

    Args:
        image_size: (height, width) in px, at least 16 each. What does not fill a step of `stride` is cut off, at the
            bottom and at the right. The position table is made for this size.
        dim: C. depth: blocks.
        stride: distance of the 16 × 16 patches: 16 or 8 px.
        form: the algorithm of the operator, a key of `kernels.OPS["selective_scan"]`.
        positions: how a position table of another grid is resized on loading, see `resize_positions`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: tiny 0,
            small 0.05, both with stride 8: 0).

    Raises: UsageError if there is no such rule of positions.
    """

    PUBLISHED_ENTRY = "model"

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depth: int,
        stride: int = PATCH,
        form: str,
        positions: Positions = "released",
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, dim, num_classes)
        if positions not in ("released", "aligned"):
            raise UsageError(f"positions is 'released' or 'aligned', not {positions!r}")
        self.positions = positions
        h, w = ((side - PATCH) // stride + 1 for side in image_size)
        self.grid = (h, w)
        self.middle = h * w // 2  # the place of the class token
        projection = nn.Conv2d(3, dim, PATCH, stride=stride)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, h * w + 1, dim))
        self.layers = nn.ModuleList(Block(dim, depth, form, rate) for rate in drop_path_rates(drop_path_rate, depth))
        self.norm_f = RMSNorm(dim, eps=EPS)
        self.head = classifier(dim, num_classes)
        _lecun_normal(projection)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.get_classifier()(self.norm_f(self._tokens(x)[:, self.middle]))  # no other token is read

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm_f(self._tokens(x))

    def pool(self, features: Tensor) -> Tensor:
        return features[:, self.middle]

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """One map of the patches after the last block, not normalised, as in the published dense-prediction code."""
        patches = self._without_class(self._tokens(x)).to(x.dtype)
        return [to_map(patches, self.grid)]

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Resize the position table, unless it has as many rows as this model's."""
        table = state.get("pos_embed")
        if table is not None and table.shape[1] != self.pos_embed.shape[1]:
            state = {**state, "pos_embed": resize_positions(table, self.grid, self.positions)}
        return state

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, T, C), after the last block.

        The sum of all branches is at least in float32, also in a model of a half type, as published.

        Raises: ShapeError, as `check`.
        """
        self.check(x)
        patches = to_tokens(self.patch_embed["proj"](x))
        ahead, after = patches[:, : self.middle], patches[:, self.middle :]
        x = torch.cat((ahead, self.cls_token.expand(x.shape[0], -1, -1), after), dim=1)
        x = (x + self.pos_embed).to(accumulator(x))
        for layer in self.layers:
            x = layer(x)
        return x

    def _without_class(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, M, C)."""
        return torch.cat((tokens[:, : self.middle], tokens[:, self.middle + 1 :]), dim=1)


def resize_positions(table: Tensor, grid: tuple[int, int], positions: Positions) -> Tensor:
    """The position table (1, side² + 1, C) of a square grid, resized to another grid: (1, grid[0] · grid[1] + 1, C).

    Bicubic. "released" is the rule of the published code, which fine-tunes at other sizes with it. It keeps row 0 and
    takes the other rows for the grid, as if the class token stood in front. So the patches before the class token are
    one place off, and the class token's row is blurred with its neighbours. "aligned" takes the class token's row out
    of the middle, resizes the others, and puts it back into the new middle.

    A table of no square is returned unchanged.
    """
    own = 0 if positions == "released" else (table.shape[1] - 1) // 2
    row, others = table[:, own : own + 1], torch.cat((table[:, :own], table[:, own + 1 :]), dim=1)
    others = resize_table(others, grid)
    place = 0 if positions == "released" else others.shape[1] // 2
    return torch.cat((others[:, :place], row, others[:, place:]), dim=1)


class RMSNorm(nn.RMSNorm):
    """RMS norm of a sum that is kept in float32: (B, T, C) in float32 -> (B, T, C) in the type of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps).to(self.weight.dtype)


class Block(nn.Module):
    """y = x + Mixer(RMS(x)).  (B, T, C) -> (B, T, C)."""

    def __init__(self, dim: int, depth: int, form: str, drop_path: float) -> None:
        super().__init__()
        self.mixer = Mixer(dim, depth, form)
        self.norm = RMSNorm(dim, eps=EPS)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mixer(self.norm(x)))


class Mixer(nn.Module):
    """The mean of a forward and a backward Mamba (algorithm 1 of the paper): (B, T, C) -> (B, T, C).

    Both read the same projection and the same gate. The names of the backward weights end in "_b". Tokens keep their
    places: the backward convolution looks ahead, and the backward scan walks from the last token. `depth`, the number
    of blocks, scales the initial output projection.
    """

    def __init__(self, dim: int, depth: int, form: str) -> None:
        super().__init__()
        self.scan = operator("selective_scan", form)
        inner, self.rank = 2 * dim, -(-dim // 16)
        rates = torch.arange(1, STATES + 1, dtype=torch.float32).log().repeat(inner, 1)
        self.A_log, self.A_b_log = nn.Parameter(rates), nn.Parameter(rates.clone())
        self.D, self.D_b = nn.Parameter(torch.ones(inner)), nn.Parameter(torch.ones(inner))
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d, self.conv1d_b = (nn.Conv1d(inner, inner, TAPS, groups=inner) for _ in range(2))
        self.x_proj, self.x_proj_b = (nn.Linear(inner, self.rank + 2 * STATES, bias=False) for _ in range(2))
        self.dt_proj, self.dt_proj_b = (nn.Linear(self.rank, inner) for _ in range(2))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._init(depth)

    def _init(self, depth: int) -> None:
        """The released values, where they are not torch's.

        Steps are log-uniform in `STEPS` in the forward scan. In the backward scan they are ln 2: the released code
        leaves their bias at 0.
        """
        nn.init.uniform_(self.dt_proj.bias, log(STEPS[0]), log(STEPS[1]))
        with torch.no_grad():
            step = self.dt_proj.bias.exp()
            self.dt_proj.bias.copy_(step + (-torch.expm1(-step)).log())  # softplus gives the step again
            self.out_proj.weight.div_(depth**0.5)
        nn.init.zeros_(self.dt_proj_b.bias)

    def forward(self, x: Tensor) -> Tensor:
        a, z = self.in_proj(x).chunk(2, dim=-1)
        u = self.convolved(a)
        delta, B, C = self.selected(u)
        A = -torch.stack((self.A_log, self.A_b_log)).to(accumulator(x)).exp()
        D = torch.stack((self.D, self.D_b))
        bias = torch.stack((self.dt_proj.bias, self.dt_proj_b.bias))
        u, delta, A, B, C = (t.unsqueeze(-3) for t in (u, delta, A, B, C))  # one group of channels
        y, _ = self.scan(u, delta, A, B, C, D.unsqueeze(1), bias.unsqueeze(1), z=z.unsqueeze(1), direction="both")
        return self.out_proj(y.squeeze(1)) / 2

    def convolved(self, a: Tensor) -> Tensor:
        """SiLU of the causal convolution of each direction: (B, T, D) -> (2, B, T, D).

        One depthwise convolution makes both: its channels are those of the forward direction, which see 3 tokens
        before, and those of the backward direction, which see 3 tokens ahead by a mirrored kernel.
        """
        T, D, more = a.shape[1], a.shape[2], TAPS - 1
        seen = a.new_empty(a.shape[0], T + more, 2 * D)
        seen[:, :more, :D] = 0
        seen[:, more:, :D] = a
        seen[:, :T, D:] = a
        seen[:, T:, D:] = 0
        weight = torch.cat((self.conv1d.weight, self.conv1d_b.weight.flip(-1)))
        bias = torch.cat([conv.bias for conv in (self.conv1d, self.conv1d_b) if conv.bias is not None])
        rows = seen.transpose(1, 2).unsqueeze(2)  # a map of one row, whose channels lie side by side in memory
        u = F.conv2d(rows, weight.unsqueeze(2), bias, groups=2 * D).squeeze(2).transpose(1, 2)
        return F.silu(u, inplace=True).unflatten(-1, (2, D)).permute(2, 0, 1, 3)

    def selected(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the token: steps before their bias (2, B, T, D), and B and C, both (2, B, T, S)."""
        size = u.shape[1:3]
        down = torch.stack((self.x_proj.weight, self.x_proj_b.weight)).mT
        up = torch.stack((self.dt_proj.weight, self.dt_proj_b.weight)).mT
        step, B, C = torch.bmm(u.flatten(1, 2), down).split([self.rank, STATES, STATES], dim=-1)
        return torch.bmm(step, up).unflatten(1, size), B.unflatten(1, size), C.unflatten(1, size)


def _lecun_normal(conv: nn.Conv2d) -> None:
    """Weights from a normal distribution of variance 1/fan_in, cut off at two deviations; bias 0."""
    inputs = conv.weight[0].numel()
    std = inputs**-0.5 / 0.87962566103423978  # the deviation of a normal distribution that is cut off so
    nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
