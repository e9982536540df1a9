"""VisionGRU: a hierarchical backbone on two minGRUs a block (Yin et al. 2024, arXiv:2412.18178).

Each of four stages has half the map and twice the channels of the last. A block has a 3×3 depthwise convolution, two
minGRUs, one in raster order and one in reverse, and a two-layer MLP.

    B batch, C channels of a stage, h × w its map, N = h · w tokens

Parameter names are those of the published code.
"""

from __future__ import annotations

import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from vbench.kernels import operator
from vbench.kernels.shapes import Direction
from vbench.models.layers import Backbone, ChannelNorm, classifier, drop_path_rates, init_linear, shrunk, to_tokens

EXPANSION = 2  # size of the state, in C
MLP_RATIO = 4
OUTER_EPS = 1e-6  # of norms after convolutions; norms in blocks have torch's 1e-5


class VisionGRU(Backbone):
    """VisionGRU in its version for segmentation, which takes any image size; at 224 px it equals the classifier.

    Where paper and code differ, this follows the code. The paper mentions position embeddings, the code has none; the
    paper prints the candidate without g, the code has it.

    Args:
        image_size: (height, width) in px, of any size; each halving rounds up.
        dim: C of the first stage. depths: blocks of each stage.
        form: the algorithm of the operator, a key of `kernels.OPS["mingru"]`.
        num_classes: 0 for a model without classifier.
        drop_path_rate: stochastic depth of the last block in training; it grows linearly from 0 (published: none).
    """

    CLASSIFIER = "fc"

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
        self.tokenizer = Tokenizer(dim)
        self.snake_gru = Stages(dim, depths, form, drop_path_rate)
        self.fc = classifier(self.num_features, num_classes)
        self.apply(init_linear)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.feature_maps(x)[-1]

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        self.check(x)
        return self.snake_gru(self.tokenizer(x))

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Remove the prefixes that torch.compile and the segmentation wrapper put before keys."""
        return {key.removeprefix("_orig_mod.").removeprefix("backbone.vig."): value for key, value in state.items()}


class Tokenizer(nn.Module):
    """Two convolutions, to 1/4 of the image: (B, 3, height, width) -> (B, C, h, w)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, dim // 2, 3, stride=2, padding=1)
        self.norm1 = ChannelNorm(dim // 2, eps=OUTER_EPS)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        self.norm2 = ChannelNorm(dim, eps=OUTER_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(self.conv1(x)))
        return self.norm2(self.conv2(x))


class Stages(nn.Module):
    """Four stages of blocks with convolutions between them: (B, C, h, w) -> the map of each stage."""

    def __init__(self, dim: int, depths: tuple[int, int, int, int], form: str, drop_path_rate: float) -> None:
        super().__init__()
        dims = [dim << stage for stage in range(len(depths))]
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.layers = nn.ModuleList(
            nn.Sequential(*(Block(C, form, next(rates)) for _ in range(depth)))
            for C, depth in zip(dims, depths, strict=True)
        )
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(C, 2 * C, 3, stride=2, padding=1) for C in dims[:-1])
        self.norm1, self.norm2, self.norm3 = (ChannelNorm(2 * C, eps=OUTER_EPS) for C in dims[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        halvings = ((self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3))
        for stage, blocks in enumerate(self.layers):
            if stage:
                conv, norm = halvings[stage - 1]
                x = norm(conv(x))
            x = blocks(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            maps.append(x)
        return maps


class Block(nn.Module):
    """u = conv(LN(x)); y = x + minGRU₁(u) + minGRU₂(u), in opposite directions; y + MLP(LN(y)).

    (B, h, w, C) -> (B, h, w, C)
    """

    def __init__(self, dim: int, form: str, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.dw_conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.min_gru_1 = MinGRU(dim, "forward", form)
        self.min_gru_2 = MinGRU(dim, "reverse", form)
        self.norm2 = nn.LayerNorm(dim)
        self.projection1 = nn.Linear(dim, MLP_RATIO * dim)
        self.projection2 = nn.Linear(MLP_RATIO * dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        u = to_tokens(self.dw_conv(self.norm(x).permute(0, 3, 1, 2)))
        x = x + self.drop_path((self.min_gru_1(u) + self.min_gru_2(u)).view(x.shape))
        return x + self.drop_path(self.projection2(F.gelu(self.projection1(self.norm2(x)))))


class MinGRU(nn.Module):
    """minGRU over all tokens in one direction, with a state of 2C: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, direction: Direction, form: str) -> None:
        super().__init__()
        self.direction = direction
        self.mingru = operator("mingru", form)
        self.to_hidden_and_gate = nn.Linear(dim, 2 * EXPANSION * dim, bias=False)
        self.to_out = nn.Linear(EXPANSION * dim, dim, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        a, b = self.to_hidden_and_gate(u).chunk(2, dim=-1)
        h, _ = self.mingru(a, b, direction=self.direction)
        return self.to_out(h)
