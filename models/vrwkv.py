"""Vision-RWKV: backbones on the attention of RWKV, in both raster directions (Duan et al. 2024, arXiv:2403.02308).

An image becomes h × w tokens in raster order. Each block has a spatial mix, in which every token reads all others by a
linear recurrence, and a channel mix. Both first mix a token with its four neighbours, taking a quarter of the channels
from each. VRWKV's recurrence is Bi-WKV, with one decay a channel. VRWKV6's recurrence has a state of 64 × 64 a head,
and decays that depend on the token, as in RWKV-6.

    B batch, C channels, H heads, N tokens, L blocks

Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.kernels.shapes import accumulator
from vbench.kernels.wkv.shapes import Reading
from vbench.models.layers import (
    Backbone,
    classifier,
    drop_path_rates,
    init_linear,
    resize_table,
    shrunk,
    to_map,
    to_tokens,
)

PATCH = 16
HEAD = 64  # channels a head of VRWKV6
MIX_RANK, DECAY_RANK = 32, 64  # of VRWKV6's low-rank adjustments


class VisionRWKV(Backbone):
    """What VRWKV and VRWKV6 share: everything except the spatial mix.

    Args:
        image_size: (height, width) in px. It is padded with zeros to multiples of 16, at the bottom and at the right.
            The position table is made for this size.
        spatial_mix: makes a block's spatial mix from the block's number and the grid.
        dim: C. depth: L.
        heads: groups of channels that are shifted alike, by a quarter to each neighbour: 1 in VRWKV, H in VRWKV6.
        layer_scale: initial scale of both branches in post-norm blocks; None for pre-norm blocks, which have no scale.
        key_norm: norms after the operator and inside the channel mix (only in VRWKV-L).
        head_dim: inner width of a classifier of two layers (only in VRWKV-L); None for one linear layer.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: tiny 0,
            small 0.3, base 0.5, large 0.1).
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        spatial_mix: Callable[[int, tuple[int, int]], nn.Module],
        *,
        dim: int,
        depth: int,
        heads: int,
        layer_scale: float | None,
        key_norm: bool = False,
        head_dim: int | None = None,
        num_classes: int,
        drop_path_rate: float,
    ) -> None:
        super().__init__(image_size, head_dim or dim, num_classes)
        self.grid = shrunk(image_size, PATCH)
        self.backbone = Trunk(dim, self.grid)
        for i, rate in enumerate(drop_path_rates(drop_path_rate, depth)):
            att = spatial_mix(i, self.grid)
            ffn = ChannelMix(dim, i, depth, heads, self.grid, key_norm)
            self.backbone.layers.append(Block(dim, att, ffn, i == 0, layer_scale, rate))
        self.head: nn.Module
        if head_dim is None:
            self.CLASSIFIER = "head.fc"
            self.head = nn.ModuleDict({"fc": classifier(dim, num_classes)})
        else:
            self.CLASSIFIER = "head.2"
            self.head = nn.Sequential(nn.Linear(dim, head_dim), nn.Tanh(), classifier(head_dim, num_classes))
        self.apply(init_linear)

    def forward_features(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.backbone(x)

    def pool(self, features: Tensor) -> Tensor:
        pooled = features.mean(dim=1)
        return self.head[:2](pooled) if isinstance(self.head, nn.Sequential) else pooled

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        return [to_map(self.forward_features(x), self.grid)]

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        heads = [key for key in state if key.startswith("head.")]
        if heads and not any(key.startswith("backbone.") for key in state):  # as in the dense-prediction code
            state = {key if key in heads else f"backbone.{key}": value for key, value in state.items()}
        if (table := "backbone.pos_embed") in state:
            state = {**state, table: resize_table(state[table], self.grid)}
        return state


class VRWKV(VisionRWKV):
    """VRWKV, with Bi-WKV.

    Args, besides those of `VisionRWKV`:
        form: the algorithm of the operator, a key of `kernels.OPS["wkv"]`.
        reading: "paper" computes Bi-WKV as in the paper, "kernel" as in the released CUDA code, with which the
            published weights were trained and tested. They differ by the decay of one step, 1/N of it.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depth: int,
        layer_scale: float | None,
        key_norm: bool,
        head_dim: int | None,
        form: str,
        reading: Reading = "paper",
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            image_size,
            lambda i, grid: BiWKV(dim, i, depth, grid, key_norm, form, reading),
            dim=dim,
            depth=depth,
            heads=1,
            layer_scale=layer_scale,
            key_norm=key_norm,
            head_dim=head_dim,
            num_classes=num_classes,
            drop_path_rate=drop_path_rate,
        )


class VRWKV6(VisionRWKV):
    """VRWKV6, with WKV6 in heads of 64 channels.

    Args, besides those of `VisionRWKV`:
        form: the algorithm of the operator, a key of `kernels.OPS["wkv6"]`.
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        dim: int,
        depth: int,
        layer_scale: float | None,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(
            image_size,
            lambda i, grid: WKV6(dim, i, depth, grid, form),
            dim=dim,
            depth=depth,
            heads=dim // HEAD,
            layer_scale=layer_scale,
            num_classes=num_classes,
            drop_path_rate=drop_path_rate,
        )


class Trunk(nn.Module):
    """Patches, positions, blocks and a last norm: (B, 3, height, width) -> (B, N, C)."""

    def __init__(self, dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, grid[0] * grid[1], dim))
        self.patch_embed = nn.ModuleDict({"projection": nn.Conv2d(3, dim, PATCH, stride=PATCH)})
        self.layers = nn.ModuleList()
        self.ln1 = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % PATCH or width % PATCH:
            x = F.pad(x, (0, -width % PATCH, 0, -height % PATCH))
        x = to_tokens(self.patch_embed["projection"](x)) + self.pos_embed
        for layer in self.layers:
            x = layer(x)
        return self.ln1(x)


class Block(nn.Module):
    """A spatial and a channel mix, (B, N, C) -> (B, N, C).

    A pre-norm block normalises the input of a mix, a post-norm block the output, with a scale. The first block also
    normalises its own input.
    """

    def __init__(
        self, dim: int, att: nn.Module, ffn: nn.Module, first: bool, layer_scale: float | None, drop_path: float
    ) -> None:
        super().__init__()
        self.post_norm = layer_scale is not None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale))
            self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale))
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.ln0 = nn.LayerNorm(dim) if first else nn.Identity()
        self.att = att
        self.ffn = ffn
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ln0(x)
        if self.post_norm:
            x = x + self.drop_path(self.gamma1 * self.ln1(self.att(x)))
            return x + self.drop_path(self.gamma2 * self.ln2(self.ffn(x)))
        x = x + self.drop_path(self.att(self.ln1(x)))
        return x + self.drop_path(self.ffn(self.ln2(x)))


class BiWKV(nn.Module):
    """The spatial mix of VRWKV (section 3.2 of the paper): (B, N, C) -> (B, N, C)."""

    def __init__(
        self, dim: int, block: int, depth: int, grid: tuple[int, int], key_norm: bool, form: str, reading: Reading
    ) -> None:
        super().__init__()
        self.grid, self.reading = grid, reading
        self.wkv = operator("wkv", form)
        late, early = block / (depth - 1), 1 - block / depth
        rank = torch.arange(dim) / dim
        self.spatial_decay = nn.Parameter(-5 + 8 * _rise(dim, late))
        self.spatial_first = nn.Parameter(torch.full((dim,), 0.3).log() + 0.5 * _zigzag(dim))
        self.spatial_mix_k = nn.Parameter((rank**early)[None, None])
        self.spatial_mix_v = nn.Parameter((rank**early + 0.3 * late)[None, None])
        self.spatial_mix_r = nn.Parameter((rank ** (early / 2))[None, None])
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.key_norm = nn.LayerNorm(dim) if key_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        N, dtype = x.shape[1], accumulator(x)
        shifted = q_shift(x, self.grid, 1)
        k = self.key(torch.lerp(shifted, x, self.spatial_mix_k))
        v = self.value(torch.lerp(shifted, x, self.spatial_mix_v))
        r = self.receptance(torch.lerp(shifted, x, self.spatial_mix_r))
        w, u = self.spatial_decay.to(dtype) / N, self.spatial_first.to(dtype) / N
        y, _ = self.wkv(k, v, w, u, reading=self.reading)
        return self.output(r.sigmoid() * self.key_norm(y))


class WKV6(nn.Module):
    """The spatial mix of VRWKV6: (B, N, C) -> (B, N, C).

    The share of the neighbours in the input of w, k, v, r and g depends on the token, and so does the decay.
    """

    def __init__(self, dim: int, block: int, depth: int, grid: tuple[int, int], form: str) -> None:
        super().__init__()
        self.grid, self.heads = grid, dim // HEAD
        self.wkv6 = operator("wkv6", form)
        late, early = block / (depth - 1), 1 - block / depth
        rank = (torch.arange(dim) / dim)[None, None]
        self.time_maa_x = nn.Parameter(1 - rank**early)
        self.time_maa_w = nn.Parameter(1 - rank**early)
        self.time_maa_k = nn.Parameter(1 - rank**early)
        self.time_maa_v = nn.Parameter(1 - (rank**early + 0.3 * late))
        self.time_maa_r = nn.Parameter(1 - rank ** (early / 2))
        self.time_maa_g = nn.Parameter(1 - rank ** (early / 2))
        self.time_maa_w1 = nn.Parameter(_near_zero(dim, 5 * MIX_RANK))
        self.time_maa_w2 = nn.Parameter(_near_zero(5, MIX_RANK, dim))
        self.time_decay = nn.Parameter((-6 + 5 * _rise(dim, late))[None, None])
        self.time_decay_w1 = nn.Parameter(_near_zero(dim, DECAY_RANK))
        self.time_decay_w2 = nn.Parameter(_near_zero(DECAY_RANK, dim))
        first = late * (1 - torch.arange(dim) / (dim - 1)) + 0.1 * _zigzag(dim)
        self.time_faaaa = nn.Parameter(first.unflatten(0, (self.heads, HEAD)))
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.gate = nn.Linear(dim, dim, bias=False)
        self.output = nn.Linear(dim, dim, bias=False)
        self.ln_x = HeadNorm(self.heads, dim)

    def forward(self, x: Tensor) -> Tensor:
        away = q_shift(x, self.grid, self.heads) - x
        hidden = (torch.addcmul(x, away, self.time_maa_x) @ self.time_maa_w1).tanh().split(MIX_RANK, dim=-1)
        means = (self.time_maa_w, self.time_maa_k, self.time_maa_v, self.time_maa_r, self.time_maa_g)
        layers: tuple[Callable[[Tensor], Tensor], ...] = (self.decay, self.key, self.value, self.receptance, self.gate)
        g, k, v, r, gate = (
            layer(torch.addcmul(x, away, F.linear(h, up.mT, mean.flatten())))
            for layer, h, up, mean in zip(layers, hidden, self.time_maa_w2, means, strict=True)
        )
        r, k, v, g = (t.unflatten(-1, (self.heads, HEAD)).transpose(1, 2) for t in (r, k, v, g))  # B H N D
        o, _ = self.wkv6(r, k, v, g, self.time_faaaa, direction="both")
        return self.output(self.ln_x(o.transpose(1, 2)) * F.silu(gate))

    def decay(self, x: Tensor) -> Tensor:
        """The log decay of each token, -exp(ω): (B, N, C) -> (B, N, C), at least in float32."""
        omega = F.linear((x @ self.time_decay_w1).tanh(), self.time_decay_w2.mT, self.time_decay.flatten())
        return -omega.to(accumulator(x)).exp()


class HeadNorm(nn.GroupNorm):
    """GroupNorm over the channels of each head of a token: (B, N, H, D) -> (B, N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        normed = F.layer_norm(x, x.shape[-1:], eps=self.eps).flatten(2)
        return torch.addcmul(self.bias, normed, self.weight)


class ChannelMix(nn.Module):
    """σ(r) ∘ value(relu(key)²), where r and key read a token and its neighbours: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, block: int, depth: int, heads: int, grid: tuple[int, int], key_norm: bool) -> None:
        super().__init__()
        self.grid, self.heads = grid, heads
        mix = ((torch.arange(dim) / dim) ** (1 - block / depth))[None, None]
        self.spatial_mix_k = nn.Parameter(mix)
        self.spatial_mix_r = nn.Parameter(mix.clone())
        self.key = nn.Linear(dim, 4 * dim, bias=False)
        self.receptance = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(4 * dim, dim, bias=False)
        self.key_norm = nn.LayerNorm(4 * dim) if key_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shifted = q_shift(x, self.grid, self.heads)
        k = self.key(torch.lerp(shifted, x, self.spatial_mix_k)).relu().square()
        r = self.receptance(torch.lerp(shifted, x, self.spatial_mix_r))
        return r.sigmoid() * self.value(self.key_norm(k))


def q_shift(x: Tensor, grid: tuple[int, int], heads: int) -> Tensor:
    """Each token's neighbours: a quarter of each head's channels from the left, right, upper and lower one.

    (B, N, C) -> (B, N, C), tokens in raster order. Neighbours outside the image are zero.
    """
    D = int(x.shape[2]) // heads
    image = x.unflatten(1, grid).unflatten(-1, (heads, D))  # B h w H D
    left, right, upper, lower = (slice(i * D // 4, (i + 1) * D // 4) for i in range(4))
    shifted = torch.zeros_like(image)
    shifted[:, :, 1:, :, left] = image[:, :, :-1, :, left]
    shifted[:, :, :-1, :, right] = image[:, :, 1:, :, right]
    shifted[:, 1:, ..., upper] = image[:, :-1, ..., upper]
    shifted[:, :-1, ..., lower] = image[:, 1:, ..., lower]
    return shifted.flatten(3).flatten(1, 2)


def _rise(dim: int, late: float) -> Tensor:
    """From 0 to 1 over the channels (C,); `late`, 0 to 1 over the blocks, makes it steeper at the end."""
    return (torch.arange(dim) / (dim - 1)) ** (0.7 + 1.3 * late)


def _zigzag(dim: int) -> Tensor:
    """0, 1, -1, 0, 1, -1 ... over the channels (C,)."""
    return (torch.arange(dim) + 1) % 3 - 1


def _near_zero(*shape: int) -> Tensor:
    """Uniform random numbers in ±1e-4."""
    return torch.empty(shape).uniform_(-1e-4, 1e-4)
