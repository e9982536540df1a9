"""ViR: vision retention networks (Hatamizadeh et al. 2023, arXiv:2310.19731).

An image becomes P = h × w patches in raster order, followed by a class token, which the classifier reads. Blocks mix
the N = P + 1 tokens by retention. Retention is causal: a token sees those before it, so the class token sees all
patches. In recurrent mode the whole network walks the image in short runs of tokens and carries one state a layer.

    B batch, C channels, H heads, N tokens, D = C/H dimension of a head

Parameter names are those of the released code (github.com/anom63931/ViR), which has no weights. By default that code
computes another function, the operator "softmax_retention", which is not causal: a token also reads later tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import OPS, operator
from vbench.kernels.blocks import exporting
from vbench.kernels.shapes import State
from vbench.models.layers import MLP, Backbone, classifier, drop_path_rates, resize_table, to_map, to_tokens

EPS = 1e-6
BAND = 64  # tokens that recurrent mode takes at once
LAYER_SCALE = 1e-5
DECAY_BITS = 24  # bits of a float32's mantissa: a decay in [1/2, 1) has no more

Carried = tuple[Tensor, Tensor, State | None]  # factor of each of a block's two branches, and the operator's state


class ViR(Backbone):
    """The plain ViR: one stage.

    Args:
        image_size: (height, width) in px, at least `patch` each. Sides are cut down to multiples of `patch`, at the
            bottom and at the right. The position table is made for this size.
        op: "retention", as in the paper, or "softmax_retention", the released code's default.
        dim: C. depth: blocks. heads: H. patch: side of a patch in px.
        form: the algorithm of the operator, a key of `kernels.OPS[op]`. With a recurrent one the whole network is
            recurrent: apart from the image and the position table, its memory does not grow with N.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (released script: 0.2).
    """

    decay: Tensor

    def __init__(
        self,
        image_size: tuple[int, int],
        *,
        op: str,
        dim: int,
        depth: int,
        heads: int,
        patch: int,
        form: str,
        num_classes: int = 1000,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(image_size, dim, num_classes)
        self.patch_embed = PatchEmbed(dim, patch)
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        patches = self.grid[0] * self.grid[1]
        self.band = BAND if OPS[op][form].mode == "recurrent" else patches
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, patches, dim))
        rates = drop_path_rates(drop_path_rate, depth)
        self.blocks = nn.ModuleList(Block(dim, heads, op, form, rate) for rate in rates)
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.head = classifier(dim, num_classes)
        # Decays are kept as integers: these are exact, and `model.to(torch.bfloat16)` does not round them to 1.
        self.register_buffer("decay", torch.tensor([int(x * 2**DECAY_BITS) for x in decays(heads)]), persistent=False)
        self.apply(_init)
        nn.init.normal_(self.cls_token, std=0.02)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:
        return torch.cat(list(self.runs(x)), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        for features in self.runs(x):
            last = features[:, -1:]
        return self.forward_head(last)

    def runs(self, x: Tensor) -> Iterator[Tensor]:
        """Yield normalised tokens (B, n, C), run by run; in parallel mode, one run of all tokens.

        Each run passes through all layers before the next run is cut from the image. Raises: ShapeError, as `check`.
        """
        self.check(x)
        B, patches = x.shape[0], self.grid[0] * self.grid[1]
        g = (self.decay.double() / 2**DECAY_BITS).log()
        carried: list[Carried | None] = [None] * len(self.blocks)
        at_once = x.is_meta or exporting()  # nothing is computed on meta; an export would unroll the runs
        band = patches if at_once else self.band
        for start in range(0, patches, band):
            stop = min(start + band, patches)
            tokens = self.patch_embed(x, start, stop) + self.pos_embed[:, start:stop]
            if stop == patches:
                tokens = torch.cat((tokens, self.cls_token.expand(B, -1, -1)), dim=1)
            for i, block in enumerate(self.blocks):
                tokens, carried[i] = block(tokens, g, carried[i])
            yield self.norm(tokens)

    def pool(self, features: Tensor) -> Tensor:
        return features[:, -1]

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        return [to_map(self.forward_features(x)[:, :-1], self.grid)]

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Unflatten the patch weights, drop `pre_logits`, resize the position table.

        A table with as many tokens as the grid stays unchanged, even if it was made for another grid, as published.
        """
        state = {key: value for key, value in state.items() if "pre_logits" not in key}
        kernel, table = state.get("patch_embed.proj.weight"), state.get("pos_embed")
        own = self.patch_embed.proj.weight
        if kernel is not None and kernel.ndim < 4 and kernel.numel() == own.numel():
            state["patch_embed.proj.weight"] = kernel.reshape(own.shape)
        if table is not None and table.shape[1] != self.pos_embed.shape[1]:
            state["pos_embed"] = resize_table(table, self.grid, antialias=True)
        return state


def decays(heads: int) -> list[float]:
    """Each head's decay per token: 1 - 2^-5 to 1 - 2^-9, in even steps of the exponent, as float32 numbers."""
    lost = torch.linspace(log(1 / 32), log(1 / 512), heads, dtype=torch.float32, device="cpu").exp()
    kept: list[float] = (1 - lost).tolist()
    return kept


class PatchEmbed(nn.Module):
    """Patches in raster order, each projected to C channels."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Patches [start, stop) of an image: (B, 3, height, width) -> (B, stop - start, C)."""
        p = self.proj.stride[0]
        h, w = int(x.shape[2]) // p, int(x.shape[3]) // p
        if stop - start == h * w:
            return to_tokens(self.proj(x))
        at = torch.arange(start, stop, device=x.device)
        patches = x[:, :, : h * p, : w * p].unflatten(3, (w, p)).unflatten(2, (h, p)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches[:, at // w, at % w].flatten(2), self.proj.weight.flatten(1), self.proj.bias)


class Block(nn.Module):
    """y = x + s1 · Retention(LN(x)); y + s2 · MLP(LN(y)).  (B, N, C) -> (B, N, C), and what the next run needs.

    g is (H,) log decays. `carried` is None before the first run. Stochastic depth draws in the first run which branches
    of which images are dropped, and the draw holds for all runs.
    """

    def __init__(self, dim: int, heads: int, op: str, form: str, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.retention = Retention(dim, heads, op, form)
        self.ls1 = LayerScale(dim)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, 4 * dim)
        self.ls2 = LayerScale(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, g: Tensor, carried: Carried | None) -> tuple[Tensor, Carried]:
        if carried is None:
            one = x.new_ones(x.shape[0], 1, 1)
            carried = self.drop_path(one), self.drop_path(one), None
        kept1, kept2, state = carried
        mixed, state = self.retention(self.norm1(x), g, state)
        x = torch.addcmul(x, self.ls1(kept1), mixed)
        x = torch.addcmul(x, self.ls2(kept2), self.mlp(self.norm2(x)))
        return x, (kept1, kept2, state)


class LayerScale(nn.Module):
    """A learned factor for each channel of a branch: the branch's factor (B, 1, 1) -> (B, 1, C)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), LAYER_SCALE))

    def forward(self, kept: Tensor) -> Tensor:
        return self.gamma * kept


class Retention(nn.Module):
    """Heads of retention between two projections, without gate, norm or rotation.

    x (B, N, C), g (H,) log decays, state before the first token -> (B, N, C), state after the last.
    """

    def __init__(self, dim: int, heads: int, op: str, form: str) -> None:
        super().__init__()
        self.heads = heads
        self.op = operator(op, form)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, g: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)  # B H N D
        o, state = self.op(q, k, v, g) if state is None else self.op(q, k, v, g, state=state)
        return self.out_proj(o.transpose(1, 2).flatten(2)), state


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
