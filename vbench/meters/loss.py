"""The loss of a training step, whatever a model returns: logits, maps, tokens, or lists and mappings of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn, view_as_real

from vbench.errors import UnsupportedError
from vbench.meters.outputs import tensors_of

Kind = Literal["cross-entropy", "mean"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss in float32, a scalar: its kind, and of what it is: "the output", "logits", "3 outputs".

    Any step of the optimiser changes a cross-entropy. A mean may stay, as that of a softmax.
    """

    value: Tensor
    kind: Kind
    of: str


def loss_of(output: Any, images: int, labels: Callable[[Tensor], Tensor]) -> Loss:
    """The loss of what a model returned.

    It is cross-entropy of the field or item `logits`, if there is one, or else of the only floating-point tensor, if
    that is (images, classes). Of anything else it is the mean of all floating-point outputs, each as large as another.

    Args:
        images: in the batch.
        labels: makes the labels (images,) for logits (images, classes), on their device.

    Raises: UnsupportedError if there is nothing to take a loss of, or if no gradient flows back from it.
    """
    try:
        found = [each for each in tensors_of(output) if each.numel() and _is_real(each)]
    except TypeError as error:
        raise UnsupportedError(f"no training: {error}") from None
    if not found:
        raise UnsupportedError(f"no training: {_kind(output)} without floating-point numbers has no loss")
    logits, name = _logits(output), "logits"
    if logits is None and len(found) == 1:
        logits, name = found[0], "the output"
    if logits is not None and _are_logits(logits, images):
        loss = Loss(F.cross_entropy(logits.float(), labels(logits)), "cross-entropy", name)
    else:
        mean = sum(_as_real(each).float().mean() for each in found) / len(found)
        assert isinstance(mean, Tensor)
        loss = Loss(mean, "mean", f"{len(found)} outputs" if len(found) > 1 else "the output")
    if not loss.value.requires_grad:
        raise UnsupportedError("no training: the outputs have no gradient; the model detaches them, or uses no_grad")
    return loss


def _logits(output: Any) -> Tensor | None:
    """The tensor that is called `logits`, in a mapping, a named tuple or a dataclass."""
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return found if isinstance(found, Tensor) else None


def _are_logits(logits: Tensor, images: int) -> bool:
    """Whether this is (images, classes); one class has no cross-entropy."""
    return logits.is_floating_point() and logits.ndim == 2 and len(logits) == images and logits.shape[1] > 1


def _is_real(x: Tensor) -> bool:
    return x.is_floating_point() or x.is_complex()


def _as_real(x: Tensor) -> Tensor:
    return view_as_real(x.resolve_conj()) if x.is_complex() else x


def _kind(output: Any) -> str:
    return f"an output ({type(output).__name__})"


def ready_to_train(model: nn.Module) -> list[nn.Parameter]:
    """Put a model in train(), and return the parameters that learn. Raises: UnsupportedError if there are none."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        frozen = sum(weight.numel() for weight in model.parameters())
        why = f"all {frozen:,} parameters are frozen (requires_grad is False)" if frozen else "it has no parameters"
        raise UnsupportedError(f"no training: the model learns nothing, for {why}")
    model.train()  # by itself: a `train` that freezes norms often returns nothing
    return weights
