"""What several backbones share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from vbench.errors import ShapeError
from vbench.kernels.shapes import accumulator


class Backbone(nn.Module, ABC):
    """The methods that users of timm expect of a backbone.

    A family implements `forward_features` (normalised tokens or map), `pool` (the input of its classifier) and
    `feature_maps`. `CLASSIFIER` is the path of its last linear layer, `num_features` the inputs of that layer.
    `PUBLISHED_ENTRY` is the entry of a training snapshot that is loaded first, if the authors test another one than the
    averaged weights.
    """

    CLASSIFIER = "head"
    PUBLISHED_ENTRY: str | None = None

    def __init__(self, image_size: tuple[int, int], num_features: int, num_classes: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.num_features = num_features
        self.num_classes = num_classes

    @abstractmethod
    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, height, width) -> tokens (B, N, C), or the last stage's map (B, C, h, w).

        Raises: ShapeError, as `check`.
        """

    @abstractmethod
    def pool(self, features: Tensor) -> Tensor:
        """The result of `forward_features` -> (B, num_features)."""

    @abstractmethod
    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, height, width) -> the map (B, C, h, w) of each stage, from fine to coarse."""

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """The result of `forward_features` -> logits (B, num_classes), or the classifier's input (B, num_features)."""
        pooled = self.pool(features)
        return pooled if pre_logits else self.get_classifier()(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.get_submodule(self.CLASSIFIER)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one with `num_classes` outputs; with 0 the model returns (B, num_features).

        Raises: ValueError if `global_pool` is given: the model pools as it was published.
        """
        if global_pool is not None:
            raise ValueError(f"{type(self).__name__} pools as published; global_pool={global_pool!r} is not possible")
        old = next(self.parameters())
        parent, _, name = self.CLASSIFIER.rpartition(".")
        fresh = classifier(self.num_features, num_classes).to(old.device, old.dtype)
        setattr(self.get_submodule(parent), name, fresh)
        self.num_classes = num_classes

    def check(self, x: Tensor) -> None:
        """Raise ShapeError if the image does not have the size that the model was built for."""
        if tuple(x.shape[-2:]) != self.image_size:
            built, given = pixels(self.image_size), pixels(tuple(x.shape[-2:]))
            raise ShapeError(f"this {type(self).__name__} was built for {built} px; the image has {given}")


class Pyramid(Backbone):
    """What ViG-H and VMamba share: a stem, stages, a norm, the mean over the last map, and a linear layer.

    A family makes `layers`, the stages: each takes a map, and returns it mixed, and mixed and halved; and `classifier`,
    by `normed_classifier`.

    Args:
        patch_embed: the stem, (B, 3, height, width) -> (B, C, h, w).
    """

    CLASSIFIER = "classifier.head"
    layers: nn.ModuleList
    classifier: nn.ModuleDict

    def __init__(
        self, image_size: tuple[int, int], patch_embed: nn.Module, num_features: int, num_classes: int
    ) -> None:
        super().__init__(image_size, num_features, num_classes)
        self.patch_embed = patch_embed

    def forward_features(self, x: Tensor) -> Tensor:
        return self.classifier["norm"](self.feature_maps(x)[-1])

    def pool(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """(B, 3, height, width) -> each stage's map before it is halved, and before the classifier's norm."""
        self.check(x)
        return maps_of(self.patch_embed(x), self.layers)

    def adapt_published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return adapt_vmamba(state)


def maps_of(x: Tensor, stages: nn.ModuleList) -> list[Tensor]:
    """The maps of stages that each return their map, and what the next one takes."""
    maps: list[Tensor] = []
    for stage in stages:
        mixed, x = stage(x)
        maps.append(mixed)
    return maps


def pixels(image_size: tuple[int, ...]) -> str:
    """(height, width) as messages print it: "224x224"."""
    return "x".join(map(str, image_size))


def classifier(features: int, classes: int) -> nn.Module:
    """The last linear layer, initialised by `init_linear`; the identity for 0 classes, as in timm."""
    if classes == 0:
        return nn.Identity()
    layer = nn.Linear(features, classes)
    init_linear(layer)
    return layer


def normed_classifier(features: int, classes: int) -> nn.ModuleDict:
    """A norm over the channels of a map, and the last linear layer."""
    return nn.ModuleDict({"norm": ChannelNorm(features), "head": classifier(features, classes)})


def init_linear(module: nn.Module) -> None:
    """Initialise a linear layer: weights from N(0, 0.02), cut off at ±2, bias 0. Other modules stay unchanged."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def drop_path_rates(last: float, depth: int) -> list[float]:
    """The rate of each block's stochastic depth: it grows linearly from 0 to `last`."""
    return [last * i / max(depth - 1, 1) for i in range(depth)]


def shrunk(sides: tuple[int, int], by: int) -> tuple[int, int]:
    """The sides of a map that is `by` times smaller, rounded up."""
    return -(-sides[0] // by), -(-sides[1] // by)


def to_tokens(image: Tensor) -> Tensor:
    """A map as tokens in raster order: (B, C, h, w) -> (B, h · w, C)."""
    return image.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens in raster order as a map: (B, h · w, C) -> (B, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


class MLP(nn.Module):
    """fc2(GELU(fc1(x))).  (…, C) -> (…, C)."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def named(modules: dict[str, nn.Module]) -> nn.Sequential:
    """A sequence of modules under their published names. Published numbers also count permutations, which we omit."""
    return nn.Sequential(OrderedDict(modules))


def quartering(dim: int) -> nn.Sequential:
    """The stem of VMamba and ViG-H, two convolutions of stride 2: (B, 3, height, width) -> (B, dim, ⌈·/4⌉, ⌈·/4⌉)."""
    return named(
        {
            "0": nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            "2": ChannelNorm(dim // 2),
            "4": nn.GELU(),
            "5": nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            "7": ChannelNorm(dim),
        }
    )


def halving(dim: int) -> nn.Sequential:
    """What lies between stages of VMamba and ViG-H: (B, dim, h, w) -> (B, 2 · dim, ⌈h/2⌉, ⌈w/2⌉)."""
    return named({"1": nn.Conv2d(dim, 2 * dim, 3, stride=2, padding=1), "3": ChannelNorm(2 * dim)})


_OLD_NAMES = (  # of VMamba's first code
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"^(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^(norm|head)\.", r"classifier.\1."),
)


def adapt_vmamba(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Older files of VMamba and ViG-H under the later names, and matrices for their 1×1 convolutions."""
    return {
        _later_name(key): value.flatten(1) if value.ndim == 4 and value.shape[2:] == (1, 1) else value
        for key, value in state.items()
    }


def _later_name(key: str) -> str:
    for old, new in _OLD_NAMES:
        renamed = re.sub(old, new, key)
        if renamed != key:
            return renamed
    return key


def resize_table(table: Tensor, grid: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """A square position table (1, N, C) resized to a grid: (1, grid[0] · grid[1], C).

    A table that is no square is returned unchanged.
    """
    side = int(table.shape[1] ** 0.5)
    if side * side != table.shape[1]:
        return table
    return resize_map(table.unflatten(1, (side, side)), grid, antialias=antialias).flatten(1, 2)


def resize_map(table: Tensor, grid: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """A position table (1, h, w, C) resized to a grid: (1, *grid, C).

    Bicubic, with half-pixel centres, at least in float32. A table that already fits is returned unchanged.
    """
    if tuple(table.shape[1:3]) == grid:
        return table
    image = table.to(accumulator(table)).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    return image.permute(0, 2, 3, 1).to(table.dtype)
