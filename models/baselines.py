"""Attention baselines, and any other model of timm."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from torch import Tensor, nn

from vbench.errors import UnknownModelError, UnsupportedError, first_line
from vbench.models import sized
from vbench.models.layers import pixels, resize_table
from vbench.models.naming import TIMM, did_you_mean


def check_name(name: str) -> None:
    """Raise UnknownModelError, with the nearest names, unless timm has a model `name`."""
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models(), TIMM) or "see timm.list_models()"
        raise UnknownModelError(f"timm {timm.__version__} has no model '{name}': {hint}")


def timm_model(
    image_size: tuple[int, int], *, name: str, num_classes: int = 1000, drop_path_rate: float | None = None
) -> nn.Module:
    """Build timm's model `name` for an image size, with timm's own random weights.

    Args:
        image_size: (height, width) in px. A model that takes any size is built without it.
        drop_path_rate: None for timm's default.

    Raises: UnknownModelError if timm has no such model; UnsupportedError if it cannot be built for this size.
    """
    check_name(name)
    build = partial(timm.create_model, name, num_classes=num_classes, drop_path_rate=drop_path_rate)
    try:
        model, _ = sized.call(build, {}, [("img_size", sized.as_values(image_size))])
    except (AssertionError, ValueError) as error:
        why = first_line(error) if str(error) else type(error).__name__
        raise UnsupportedError(f"timm/{name} cannot take {pixels(image_size)}: {why}") from error
    assert isinstance(model, nn.Module)
    return model


def size_of(name: str) -> tuple[int, int] | None:
    """(height, width) at which timm's model `name` was trained; None if timm does not say."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return sized.as_size(config.input_size) if config else None


def deit3(
    image_size: tuple[int, int], *, name: str, num_classes: int = 1000, drop_path_rate: float | None = None
) -> nn.Module:
    """DeiT-III (arXiv:2204.07118) as the authors of Vision-LSTM trained it for comparison (arXiv:2406.04303).

    It is timm's plain ViT with layer scales, and with positions for patches but not for the class token. Their
    positions are fixed sines; here they are a learned table of the same size.

    Args:
        image_size: (height, width) in px, multiples of 16.
        name: timm's name of the ViT.
    """
    model: Any = timm.create_model(
        name,
        img_size=image_size,
        init_values=1e-4,
        no_embed_class=True,
        num_classes=num_classes,
        drop_path_rate=drop_path_rate,
    )
    grid = (image_size[0] // 16, image_size[1] // 16)
    model.adapt_published = partial(_rename_deit3, grid)
    return model


def _rename_deit3(grid: tuple[int, int], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename their keys to timm's, and resize their position table to this grid."""
    names = {"pos_embed.embed": "pos_embed", "cls_tokens.tokens": "cls_token", "head.0": "norm", "head.1": "head"}
    renamed = {}
    for key, value in state.items():
        old = next((old for old in names if key == old or key.startswith(f"{old}.")), None)
        renamed[key if old is None else names[old] + key.removeprefix(old)] = value
    if (table := renamed.get("pos_embed")) is not None:
        renamed["pos_embed"] = resize_table(table.flatten(1, -2), grid)
    return renamed
