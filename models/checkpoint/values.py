"""Whether the values of a checkpoint can be a model's weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from torch import Tensor

from vbench.errors import CheckpointError, first_line
from vbench.models.checkpoint.adapt import State
from vbench.models.checkpoint.read import is_plain
from vbench.models.checkpoint.unwrap import is_counter
from vbench.models.checkpoint.words import listed

_WITHOUT_VALUES: dict[str, Callable[[Tensor], bool]] = {
    "without data (meta)": lambda value: value.is_meta,
    "quantised": lambda value: value.is_quantized,
    "nested": lambda value: value.is_nested,
    "sparse": lambda value: not is_plain(value),
}


def check_plain(state: State) -> None:
    """Raise CheckpointError for tensors that do not have a value at every place."""
    for word, is_one in _WITHOUT_VALUES.items():
        if found := [key for key, value in state.items() if is_one(value)]:
            raise CheckpointError(f"{len(found)} of its tensors are {word}; save them as dense ones: {listed(found)}")


def check_values(state: State, own: State, parameters: Collection[str]) -> list[str]:
    """Say which types are converted to the model's.

    Args:
        state, own: the tensors of the checkpoint and of the model, by the same names and of the same shapes.
        parameters: names of the model's parameters. A buffer may hold what is not finite where the model's does.

    Raises: CheckpointError for complex or integer weights of a model that has real ones, and the like; for weights that
        are not finite in the model's type.
    """
    if strange := {key: value for key, value in state.items() if not _takes(key, own[key], value)}:
        kinds = Counter(f"{_type(value)}, not {_type(own[key])}" for key, value in strange.items())
        counted = "; ".join(f"{n} {kind}" for kind, n in kinds.items())
        raise CheckpointError(f"{len(strange)} of its tensors are of another kind ({counted}): {listed(strange)}")
    counts = {key: _not_finite(value, own[key]) for key, value in state.items()}
    if found := {key: n for key, n in counts.items() if n and (key in parameters or _is_finite(own[key]))}:
        raise CheckpointError(
            f"{sum(found.values())} values in {len(found)} of its tensors are NaN or infinite: {listed(found)}"
        )
    casts = Counter((_type(v), _type(own[key])) for key, v in state.items() if v.dtype != own[key].dtype)
    return [f"converted {n} tensors from {was} to {now}" for (was, now), n in casts.items()]


def _takes(key: str, own: Tensor, value: Tensor) -> bool:
    """Whether the values are of the kind of the model's tensor; a float may stand for a whole number."""
    if _kind(own) == "integer" and _kind(value) == "float":
        whole = value.double()
        return is_counter(key) or bool((whole == whole.round()).all())
    return _kind(own) == _kind(value)


def _kind(value: Tensor) -> str:
    if value.is_complex():
        return "complex"
    return "float" if value.is_floating_point() else "integer"


def _not_finite(value: Tensor, own: Tensor) -> int:
    """How many values are NaN or infinite in the model's type."""
    if _kind(own) == "integer":
        return 0
    try:
        return int((~value.to(own.dtype).isfinite()).sum())
    except RuntimeError as error:
        raise CheckpointError(f"torch cannot convert {_type(value)} to {_type(own)}: {first_line(error)}") from None


def _is_finite(own: Tensor) -> bool:
    return own.is_meta or bool(own.isfinite().all())


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
