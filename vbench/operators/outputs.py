"""Whether a call of an operator is right: its first image against the recurrence in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vbench.kernels.registry import OPS, operator

if TYPE_CHECKING:
    from torch import Tensor

    from vbench.kernels.trials import Inputs
    from vbench.operators.calls import Width

BOUNDS = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}  # of an output's relative error, for our forms


def wanted(op: str, width: Width, inputs: Inputs) -> Tensor:
    """The first image's output in float64, by the first parallel form that needs torch only."""
    import torch

    best = next(name for name, form in OPS[op].items() if form.package is None and form.mode == "parallel")
    first = {name: x.double() for name, x in width.first(inputs).items()}
    with torch.no_grad():
        o, _ = width.call(operator(op, best), first)
    return o  # type: ignore[no-any-return]


def error_of(found: Any, right: Tensor) -> float:
    """The relative error of the first image of what a call returned; infinite if its shape is another."""
    from vbench.kernels.trials import relative

    o = found[0] if isinstance(found, tuple) else found
    return relative(o[:1], right) if o.shape[1:] == right.shape[1:] else math.inf


def why_wrong(error: float, bound: float) -> str | None:
    """What is said of a call whose output is off by more than `bound`, or is not a number; None if it is right."""
    return None if error <= bound else f"its output is off by {error:.1e}, more than {bound:.0e}: no time is given"
