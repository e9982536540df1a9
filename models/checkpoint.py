"""Published weights into our modules: unwrap, adapt, compare, and only then load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from vbench.errors import CheckpointError

_WRAPPERS = ("model_ema", "model", "module", "state_dict")  # in order of preference: averaged weights first


def load(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """See `vbench.models.load_published`."""
    state = _adapter(model)(_unwrap(state_dict))
    own = model.state_dict()
    found = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "misshapen": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(found.values()):
        parts = [f"{word}: {', '.join(keys)}" for word, keys in found.items() if keys]
        raise CheckpointError(f"not the weights of this {type(model).__name__}; {'; '.join(parts)}")
    model.load_state_dict(state)


def _adapter(model: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """How this model's published tensors become its own: position tables resized, old keys renamed.

    Our backbones bring a method `adapt_published`; timm keeps a `checkpoint_filter_fn` beside each family.
    """
    own: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = getattr(model, "adapt_published", None)
    if own is not None:
        return own
    family = getattr(import_module(type(model).__module__), "checkpoint_filter_fn", None)
    return (lambda state: dict(family(state, model))) if family else (lambda state: state)


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    state: Any = state_dict
    for wrapper in _WRAPPERS:
        if isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
            break
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"these entries are no tensors: {', '.join(strange)}")
    return {key.removeprefix("module."): value for key, value in state.items()}
