"""The form in which a re-parameterised backbone is deployed: its branches, or its norms, merged into convolutions.

RepVGG (arXiv:2101.03697), MobileOne, FastViT, GhostNetV3, RepViT and others train with branches that one convolution
replaces afterwards. Their modules say how, by a method of one of three names. `timm.utils.reparameterize_model` reads
the same names, but leaves out the model itself, and takes a layer that is called `fuse` for a method.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from inspect import Parameter, signature
from typing import Any

import torch
from torch import nn

from vbench.errors import UnsupportedError

METHODS = ("fuse", "reparameterize", "switch_to_deploy")  # the first that a module has is called


def deployed(model: nn.Module, name: str) -> nn.Module:
    """The model in its deployed form, in eval(); the model itself is changed. One that has this form already keeps it.

    Args:
        name: of the model, for messages.

    Raises: UnsupportedError if no module of it has such a method. Whatever a method raises.
    """
    if not _mergeable(model):
        raise UnsupportedError(f"{name} has no deployed form: none of its modules has a method {' or '.join(METHODS)}")
    where = next((weight.device for weight in model.parameters()), torch.get_default_device())
    with torch.no_grad(), where:  # methods make new layers on the default device
        model.eval()  # norms are merged with their running statistics
        merged = _merged(model, {})
        merged.eval()
    return merged


def parameters_deployed(model: nn.Module) -> int | None:
    """The number of parameters of a model's deployed form; None if it has none, or has that form. It is not changed.

    Args:
        model: on the meta device, where a copy has no data.
    """
    if not _mergeable(model):
        return None
    try:
        other = deployed(deepcopy(model), "")
    except Exception:  # a method that cannot run here: nothing is known of that form
        return None
    return None if _shapes(other) == _shapes(model) else sum(weight.numel() for weight in other.parameters())


def _mergeable(model: nn.Module) -> bool:
    return any(_method(module) for module in model.modules())


def _merged(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """What a module becomes, with all below it. A module that is used twice is merged once, into one; see `known`."""
    if module in known:
        return known[module]
    found = method() if (method := _method(module)) else None
    merged = known[module] = found if isinstance(found, nn.Module) else module
    for name, child in list(merged._modules.items()):
        if child is not None:
            setattr(merged, name, _merged(child, known))
    return merged


def _method(module: nn.Module) -> Callable[[], Any] | None:
    """The method that merges a module; None if it has none that can be called without arguments."""
    for name in METHODS:
        method = getattr(type(module), name, None)  # of its class: an attribute may be a layer that fuses features
        if callable(method) and not any(map(_is_needed, list(signature(method).parameters.values())[1:])):
            bound: Callable[[], Any] = getattr(module, name)
            return bound
    return None


def _is_needed(about: Parameter) -> bool:
    """Whether a method wants this argument, so that it does something else: it fuses what it is given."""
    return about.kind is Parameter.VAR_POSITIONAL or (
        about.default is Parameter.empty and about.kind is not Parameter.VAR_KEYWORD
    )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}
