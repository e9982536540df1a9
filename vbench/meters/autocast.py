"""Autocast as users enter it: around each call, so that every call casts the weights again."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vbench.errors import UnsupportedError, first_line
from vbench.plan import Case


class UnderAutocast(nn.Module):
    """`with torch.autocast(...): module(image)`.

    Autocast keeps what it has cast of a weight until the block ends. The block is one call: a call casts each weight
    once, and none finds the casts of an earlier call.

    Args:
        kind: of the device, "cpu" or "cuda".
        dtype: of what enters products.

    Raises: UnsupportedError if torch has no such autocast here, with its reason.
    """

    def __init__(self, module: nn.Module, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self._kind, self._dtype = module, kind, dtype
        if reason := refusal(kind, dtype):
            raise UnsupportedError(reason)
        # Torch says so of layer norm on the CPU. It is part of what autocast costs there, and known.
        warnings.filterwarnings("ignore", message="Mismatch dtype between input and weight")

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast(self._kind, self._dtype):
            found: Tensor = self.module(image)
        return found


def under(case: Case, module: nn.Module) -> nn.Module:
    """The module, under the autocast that a cell asks for if it does. Raises: UnsupportedError, as `UnderAutocast`."""
    if case.autocast is None:
        return module
    return UnderAutocast(module, torch.device(case.device).type, getattr(torch, case.autocast))


def refusal(kind: str, dtype: torch.dtype) -> str | None:
    """Why torch has no autocast to this type on this kind of device; None if it has. Where it has none it may warn."""
    why = ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with torch.autocast(kind, dtype):
                if torch.is_autocast_enabled(kind):
                    return None
        except RuntimeError as error:
            why = first_line(error)
    why = why or "; ".join(" ".join(str(one.message).split()) for one in said) or "torch leaves it off"
    return f"no autocast to {str(dtype).removeprefix('torch.')} on {kind}: {why}"
