"""Attention baselines, and whatever else a user wants beside them, by way of timm."""

from __future__ import annotations

from difflib import get_close_matches

import timm
from torch import nn

from vbench.errors import UnknownModelError, UnsupportedError


def check_name(name: str) -> None:
    """Raise UnknownModelError, with the nearest names, unless timm has a model `name`."""
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(f'timm/{n}' for n in near)}?" if near else "see timm.list_models()"
        raise UnknownModelError(f"timm {timm.__version__} has no model '{name}': {hint}")


def timm_model(
    image_size: tuple[int, int], *, name: str, num_classes: int = 1000, drop_path_rate: float | None = None
) -> nn.Module:
    """timm's model of that name, built for that size with timm's own random weights.

    Args:
        image_size: (height, width) in px. A model that takes any size is built as it is.

    Raises: UnknownModelError; UnsupportedError if timm refuses to build it at this size.
    """
    check_name(name)
    model: nn.Module
    options = {"num_classes": num_classes, "drop_path_rate": drop_path_rate}
    try:
        model = timm.create_model(name, img_size=image_size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm.create_model(name, **options)
    except (AssertionError, ValueError) as error:
        size = "x".join(map(str, image_size))
        raise UnsupportedError(f"timm cannot build {name} at {size} px: {error}") from error
    return model
