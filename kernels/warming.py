"""A form in machine code, compiled before anything is measured."""

from __future__ import annotations

import torch

from vbench.kernels.registry import OPS, operator, trials
from vbench.kernels.trials import cast


def warm(op: str, form: str, dtype: torch.dtype) -> None:
    """Have numba compile all loops that a form runs on inputs of one type, or load them; other forms need nothing.

    Whoever times a form, or the memory of a model, calls this before: the compiler takes seconds and tens of MiB. A
    model that mixes types may need loops that are compiled at its first call.
    """
    if OPS[op][form].package != "numba":
        return
    generator, seen = torch.Generator(), list[object]()
    for trial in trials(op):
        inputs = cast(trial.draw(2, generator), dtype)
        kind = trial.options, {name: x.shape for name, x in inputs.items()}
        if kind not in seen:
            seen.append(kind)
            with torch.inference_mode():
                trial.run(operator(op, form), inputs)
