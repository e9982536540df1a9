"""Make published tensors fit a model: rename older keys, resize position tables, by the rule of the model's family."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from inspect import signature
from typing import Any

import timm
from timm.models import model_entrypoint
from torch import Tensor, nn

State = dict[str, Tensor]
Rule = Callable[[State], State]

_BUILD = "build_model_with_cfg"  # what every family of timm calls to build a model; it is told the family's rule


def rule(model: nn.Module) -> Rule | None:
    """The rule of a model's family; None if it has none.

    Our backbones have it as a method, `adapt_published`. timm's families hand theirs, with arguments of the variant, to
    the function that builds a model. A class of another package may have a `checkpoint_filter_fn` in its module.
    """
    own: Rule | None = getattr(model, "adapt_published", None)
    if own is not None:
        return own
    about = getattr(model, "pretrained_cfg", None)
    architecture = about.get("architecture") if isinstance(about, dict) else None
    family = timm_rule(architecture) if isinstance(architecture, str) and timm.is_model(architecture) else None
    family = family or getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    return None if family is None else lambda state: dict(_call(family, state, model))


def timm_rule(architecture: str) -> Callable[..., Any] | None:
    """The function by which timm adapts published weights to an architecture, with its arguments; None if it has none.

    The entry point is called up to the point where it would build the model; nothing is built.
    """
    with _stopped(), suppress(Exception):
        try:
            model_entrypoint(architecture)(pretrained=False)
        except _Stopped as stopped:
            return stopped.rule
    return None


class _Stopped(BaseException):
    """The end of an entry point. `rule`: what it wanted to adapt weights with."""

    def __init__(self, rule: Callable[..., Any] | None) -> None:
        super().__init__()
        self.rule = rule


@contextmanager
def _stopped() -> Iterator[None]:
    """Within this block, timm's entry points end in `_Stopped` where they would build; in other threads they build."""
    build, here = getattr(timm.models, _BUILD), threading.get_ident()

    def stop(*args: Any, pretrained_filter_fn: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        if threading.get_ident() == here:
            raise _Stopped(pretrained_filter_fn)
        return build(*args, pretrained_filter_fn=pretrained_filter_fn, **kwargs)

    homes = [m for m in list(sys.modules.values()) if getattr(m, "__dict__", {}).get(_BUILD) is build]
    try:
        for home in homes:
            setattr(home, _BUILD, stop)
        yield
    finally:
        for home in homes:
            setattr(home, _BUILD, build)


def _call(family: Callable[..., Any], state: State, model: nn.Module) -> Any:
    """Call a rule of timm's; those of some families do not take the model."""
    try:
        signature(family).bind(state, model)
    except TypeError:
        return family(state)
    return family(state, model)


def whole(state: State) -> State:
    """A state whose weights that were trained as magnitude and direction (weight_norm) are one tensor again."""
    found = dict(state)
    for key in state:
        for length, direction in ((".original0", ".original1"), ("_g", "_v")):
            base = key.removesuffix(length)
            if base == key or base + direction not in state:
                continue
            g, v = found.pop(key), found.pop(base + direction)
            axes = [axis for axis, size in enumerate(g.shape) if size == 1]
            found[base.replace(".parametrizations.", ".")] = v * (g / v.norm(dim=axes, keepdim=True))
    return found
