"""Our backbones in timm's registry: after `register_timm`, `timm.create_model` builds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from timm.models import FeatureInfo, register_model
from torch import Tensor, nn

from vbench.errors import UsageError
from vbench.models.layers import Backbone
from vbench.models.registry import MODELS, create

PREFIX = "vbench_"


def register_timm() -> list[str]:
    """Enter every backbone of the table into timm's registry as `vbench_NAME`; return these names.

    Then `timm.create_model("vbench_vig_t", img_size=384, num_classes=10, drop_path_rate=0.1)` works, and so do
    `features_only=True` with `out_indices`, `mode="recurrent"`, `form` and the options of the model's class.
    Calling it again changes nothing. Weights are loaded by `load_published`.
    """
    names = [name for name, row in MODELS.items() if row.operator]
    for name in names:
        if not timm.is_model(PREFIX + name):
            register_model(_entry(name))
    return [PREFIX + name for name in names]


def _entry(name: str) -> Callable[..., nn.Module]:
    """The function that timm calls to build a model of our table."""

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        *,
        img_size: int | tuple[int, int] = 224,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        **options: Any,
    ) -> nn.Module:
        if pretrained:
            raise UsageError(f"{name}: no weights come with vbench; leave out pretrained and call load_published")
        model: Any = create(name, img_size, **options)
        height, width = model.image_size
        model.pretrained_cfg = {  # timm's data and checkpoint helpers read it
            "architecture": PREFIX + name,
            "input_size": (3, height, width),
            "num_classes": model.num_classes,
            "classifier": model.CLASSIFIER,
        }
        if not features_only:
            return model
        with torch.device("meta"):  # gives the shapes of the maps; nothing is computed
            twin: Any = create(name, img_size, **options)
            maps = twin.feature_maps(torch.empty(1, 3, height, width))
        return FeatureMaps(model, maps, tuple(range(len(maps)) if out_indices is None else out_indices))

    entry.__name__ = entry.__qualname__ = PREFIX + name
    return entry


class FeatureMaps(nn.Module):
    """A backbone that returns its stage maps, as timm's `features_only` models do.

    Args:
        model: the backbone; its classifier is removed.
        maps: what its `feature_maps` returns; only their shapes are read.
        out_indices: the stages to return; negative ones count from the coarsest.
    """

    def __init__(self, model: Backbone, maps: list[Tensor], out_indices: tuple[int, ...]) -> None:
        super().__init__()
        model.reset_classifier(0)
        self.model = model
        self.out_indices = out_indices
        stages = [
            {"num_chs": m.shape[1], "reduction": round(model.image_size[0] / m.shape[2]), "module": f"stage{i}"}
            for i, m in enumerate(maps)
        ]
        self.feature_info = FeatureInfo(stages, tuple(range(len(maps))[i] for i in out_indices))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, height, width) -> a map (B, C, h, w) of each stage in `out_indices`."""
        maps = self.model.feature_maps(x)
        return [maps[i] for i in self.out_indices]
