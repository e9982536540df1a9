"""ViL, Vision-LSTM, in both of its versions (Alkin et al. 2024, arXiv:2406.04303).

An image becomes h × w tokens in raster order. Each block runs a matrix LSTM over them: even blocks from the top left,
odd blocks from the bottom right. The classifier reads the first and the last token. Version 2 has biases, a 3×3
convolution instead of a causal one along the sequence, and concatenates the two tokens instead of averaging them.
Weights after 400 epochs (-e400) have the same architecture.

    B batch, d channels, E = 2d inner channels, H = 4 heads of D = E/4, N tokens

Parameter names are those of the published class.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.models.layers import Backbone, classifier, resize_map, to_map, to_tokens

HEADS = 4  # for every width
BLOCK = 4  # channels that a headwise projection mixes with each other
PATCH = 16
SIDES = ("rowwise_from_top_left", "rowwise_from_bot_right")  # version 2 keeps its blocks in pairs

Version = Literal[1, 2]


class ViL(Backbone):
    """Both versions: one stage at 1/16 (or 1/8) of the image.

    Args:
        image_size: (height, width) in px, multiples of 16. The position table has a cell for 16 × 16 px.
        dim: d. depth: blocks of one direction; an even number in version 2.
        stride: distance of the 16 × 16 patches: 16 or 8 px.
        version: 1 or 2.
        form: the algorithm of the operator, a key of `kernels.OPS["mlstm"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of every block in training (published: T 0, S 0.05, B 0.2; T+ and S+ 0).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depth: int,
        stride: int = PATCH,
        version: Version,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, dim * version, num_classes)
        self.version = version
        self.patch_embed = PatchEmbed(dim, stride)
        self.grid = self.patch_embed.grid(image_size)
        self.pos_embed = PositionTable((image_size[0] // PATCH, image_size[1] // PATCH), dim)
        blocks = [Block(dim, self.grid, version, form, drop_path_rate, reverse=bool(j % 2)) for j in range(depth)]
        if version == 1:
            self.blocks = nn.ModuleList(blocks)
            self.legacy_norm: nn.Module = OffsetNorm(dim, 1e-5, bias=False)
            self.norm: nn.Module = nn.LayerNorm(dim, eps=1e-6)
        else:
            pairs = zip(blocks[::2], blocks[1::2], strict=True)
            self.blocks = nn.ModuleList(nn.ModuleDict(dict(zip(SIDES, pair, strict=True))) for pair in pairs)
            self.norm = OffsetNorm(dim, 1e-6, bias=True)
            self.legacy_norm = nn.LayerNorm(2 * dim, eps=1e-5)
        self.head = classifier(self.num_features, num_classes)
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=2e-5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self._tokens(x)
        ends = torch.stack((tokens[:, 0], tokens[:, -1]), dim=1)  # no other token is read
        return self.forward_head(self._normalised(ends))

    def forward_features(self, x: Tensor) -> Tensor:
        return self._normalised(self._tokens(x))

    def pool(self, features: Tensor) -> Tensor:
        first, last = features[:, 0], features[:, -1]
        if self.version == 1:
            return self.norm((first + last) / 2)
        return self.legacy_norm(torch.cat((first, last), dim=-1))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """One map, normalised as in the published feature mode: in version 1 by both norms."""
        features = self.forward_features(x)
        features = self.norm(features) if self.version == 1 else features
        return [to_map(features, self.grid)]

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, 3, height, width) -> (B, N, d), after the last block."""
        self.check(x)
        x = self.pos_embed(self.patch_embed(x)).flatten(1, 2)
        for module in self.blocks:
            for block in module.values() if isinstance(module, nn.ModuleDict) else (module,):
                x = block(x)
        return x

    def _normalised(self, tokens: Tensor) -> Tensor:
        return (self.legacy_norm if self.version == 1 else self.norm)(tokens)

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the keys of the published files to those of the class; resize the position table to this size."""
        state = {self._renamed(key): value for key, value in state.items() if "causal_mask" not in key}
        if (table := state.get("pos_embed.embed")) is not None and table.ndim == 4:
            cells = self.pos_embed.embed.shape
            state["pos_embed.embed"] = resize_map(table, (cells[1], cells[2]))
        return state

    def _renamed(self, key: str) -> str:
        """The class's name of a key in the published files."""
        final, pooled = ("legacy_norm", "norm") if self.version == 1 else ("norm", "legacy_norm")
        key = re.sub(r"^xlstm\.post_blocks_norm\.", f"{final}.", key)
        key = re.sub(r"^head\.0\.", f"{pooled}.", key)
        key = re.sub(r"^head\.1\.", "head.", key)
        if found := re.match(r"xlstm\.blocks\.(\d+)\.xlstm(_norm)?\.(.+)", key):
            j, norm, name = int(found[1]), found[2], found[3]
            if self.version == 2:
                name = re.sub(r"^conv1d\.", "conv.", name)
            block = f"{j}" if self.version == 1 else f"{j // 2}.{SIDES[j % 2]}"
            key = f"blocks.{block}.{'norm' if norm else 'layer'}.{name}"
        return key


class PatchEmbed(nn.Module):
    """Patches of 16 × 16 px, every `stride` px: (B, 3, height, width) -> (B, h, w, d)."""

    def __init__(self, dim: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, PATCH, stride=stride)
        nn.init.xavier_uniform_(self.proj.weight.flatten(1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        h, w = ((side - PATCH) // self.proj.stride[0] + 1 for side in image_size)
        return h, w

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class PositionTable(nn.Module):
    """Add a learned table: (B, h, w, d) -> (B, h, w, d). Resized if tokens are finer than its cells (stride 8)."""

    def __init__(self, grid: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.empty(1, *grid, dim))
        nn.init.trunc_normal_(self.embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + resize_map(self.embed, (int(x.shape[1]), int(x.shape[2])))


class OffsetNorm(nn.Module):
    """LayerNorm whose gain is 1 + weight."""

    bias: nn.Parameter | None

    def __init__(self, dim: int, eps: float, *, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, 1 + self.weight, self.bias, self.eps)


class HeadNorm(OffsetNorm):
    """Normalise each head of each token, then join the heads: (B, H, N, D) -> (B, N, H · D)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.transpose(1, 2), x.shape[-1:], eps=self.eps).flatten(2)
        gain = 1 + self.weight
        return x * gain if self.bias is None else torch.addcmul(self.bias, x, gain)


class Block(nn.Module):
    """y = x + layer(norm(x)).  (B, N, d) -> (B, N, d)."""

    def __init__(
        self, dim: int, grid: tuple[int, int], version: Version, form: str, drop_path: float, *, reverse: bool
    ) -> None:
        super().__init__()
        self.norm = OffsetNorm(dim, 1e-5, bias=version == 2)
        self.layer = Layer(dim, grid, version, form, reverse)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.layer(self.norm(x)))


class Layer(nn.Module):
    """A convolution and a matrix LSTM between two projections, with an output gate.  (B, N, d) -> (B, N, d).

    q and k read the convolved tokens, v reads the tokens before the convolution. With `reverse`, the LSTM walks from
    the last token to the first. Tokens keep their places; the convolution's kernel is mirrored instead.
    """

    def __init__(self, dim: int, grid: tuple[int, int], version: Version, form: str, reverse: bool) -> None:
        super().__init__()
        self.version = version
        inner, bias = 2 * dim, version == 2
        self.learnable_skip = nn.Parameter(torch.ones(inner))
        self.proj_up = nn.Linear(dim, 2 * inner, bias=bias)
        self.q_proj, self.k_proj, self.v_proj = (Headwise(inner, dim, bias) for _ in range(3))
        if version == 1:
            self.conv1d = CausalConv(inner, reverse)
        else:
            self.conv = ImageConv(inner, grid, reverse)
        self.mlstm_cell = Cell(inner, bias, form, reverse)
        self.proj_down = nn.Linear(inner, dim, bias=bias)
        nn.init.normal_(self.proj_up.weight, std=(2 / (5 * dim)) ** 0.5)
        nn.init.normal_(self.proj_down.weight, std=2 / dim**0.5)
        if bias:
            nn.init.zeros_(self.proj_up.bias)
            nn.init.zeros_(self.proj_down.bias)

    def forward(self, x: Tensor) -> Tensor:
        a, z = self.proj_up(x).chunk(2, dim=-1)
        c = F.silu(self.conv1d(a) if self.version == 1 else self.conv(a))
        h = self.mlstm_cell(self.q_proj(c), self.k_proj(c), self.v_proj(a))
        return self.proj_down(torch.addcmul(h, self.learnable_skip, c) * F.silu(z))


class Headwise(nn.Module):
    """A linear layer on blocks of 4 channels: (B, N, E) -> (B, N, E). The initial weights depend on `dim`, d."""

    bias: nn.Parameter | None

    def __init__(self, channels: int, dim: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels // BLOCK, BLOCK, BLOCK))  # block, output, input
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        nn.init.normal_(self.weight, std=(2 / (5 * dim)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bngi,goi->bngo", x.unflatten(-1, (-1, BLOCK)), self.weight).flatten(2)
        return y if self.bias is None else y + self.bias


class CausalConv(nn.Module):
    """Depthwise convolution over a token and the 3 that the LSTM meets before it: (B, N, E) -> (B, N, E)."""

    def __init__(self, channels: int, reverse: bool) -> None:
        super().__init__()
        self.reverse = reverse
        self.conv = nn.Conv1d(channels, channels, 4, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        weight, ahead = self.conv.weight, self.conv.kernel_size[0] - 1
        x = F.pad(x.transpose(1, 2), (0, ahead) if self.reverse else (ahead, 0))
        weight = weight.flip(-1) if self.reverse else weight
        return F.conv1d(x, weight, self.conv.bias, groups=self.conv.groups).transpose(1, 2)


class ImageConv(nn.Conv2d):
    """Depthwise 3×3 convolution; with `reverse`, its kernel is rotated by 180°: (B, N, E) -> (B, N, E)."""

    def __init__(self, channels: int, grid: tuple[int, int], reverse: bool) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.grid, self.reverse = grid, reverse

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.flip(-2, -1) if self.reverse else self.weight
        return to_tokens(F.conv2d(to_map(x, self.grid), weight, self.bias, padding=1, groups=self.groups))


class Cell(nn.Module):
    """Gates, the matrix LSTM and a norm of each head: q, k, v (B, N, E) -> (B, N, E)."""

    def __init__(self, channels: int, bias: bool, form: str, reverse: bool) -> None:
        super().__init__()
        self.mlstm = operator("mlstm", form)
        self.direction = "reverse" if reverse else "forward"
        self.igate = nn.Linear(3 * channels, HEADS)
        self.fgate = nn.Linear(3 * channels, HEADS)
        self.outnorm = HeadNorm(channels, 1e-5, bias=bias)
        nn.init.zeros_(self.igate.weight)
        nn.init.normal_(self.igate.bias, std=0.1)
        nn.init.zeros_(self.fgate.weight)
        with torch.no_grad():
            self.fgate.bias.copy_(torch.linspace(3, 6, HEADS))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        u = torch.cat((q, k, v), dim=-1)
        i, f = self.igate(u).transpose(1, 2), self.fgate(u).transpose(1, 2)  # B H N
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))  # B H N D
        h, _ = self.mlstm(q, k, v, i, f, direction=self.direction)
        return self.outnorm(h)
