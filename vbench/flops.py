"""Multiply-accumulates (MACs) of one image, by two counters. One MAC is two FLOPs.

The first counter watches every operator that a forward pass on the meta device dispatches
(`torch.utils.flop_counter`); attention is seen as its matrix products whether or not timm fuses it, and
our own operators by the formulas beside their kernels. The second (fvcore) reads a trace of a real pass,
with attention unfused.
"""

from __future__ import annotations

from typing import Any

from vbench.build import build
from vbench.kernels.registry import OPS
from vbench.models import spec
from vbench.plan import Case

SECOND_COUNT_LIMIT = 12_000_000_000  # MACs; fvcore has to execute the model to trace it


def count(case: Case) -> dict[str, Any]:
    """Work of one image, independent of the machine.

    Returns: `params`; `tokens` that enter the first block, None if not known; `macs`, what the recurrence or
        the attention itself needs, equal for all forms; `macs_executed`, what this cell's form does;
        `macs_elementwise`, the part of it that is no matrix product; `padding`, what the model pads, in words.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode, flop_registry

    with torch.device("meta"):
        model = build(case)
        image = torch.empty(1, 3, case.height, case.width)

    row = spec(case.model)
    formulas: dict[Any, Any] = {}
    needed = {"executed": 0, "algorithm": 0}  # FLOPs of the operator, as this form does it and as it must be done
    if row.operator:
        op = getattr(torch.ops.vbench, row.operator)
        formula = flop_registry[op]

        def both(*args: Any, out_shape: Any = None) -> int:
            executed = int(formula(*args))
            needed["executed"] += executed
            needed["algorithm"] += formula(*args[:-1], "algorithm")  # an operator's last argument is the form
            return executed

        formulas[op] = both
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(image)
    executed = int(counter.get_total_flops()) // 2
    algorithm = executed - needed["executed"] // 2 + needed["algorithm"] // 2
    elementwise = row.operator and case.form and OPS[row.operator][case.form].elementwise
    grid = row.grid(case.height, case.width)
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "tokens": grid[0] * grid[1] if grid else None,
        "macs": algorithm,
        "macs_executed": executed,
        "macs_elementwise": needed["executed"] // 2 if elementwise else 0,
        "padding": row.padding(case.height, case.width),
    }


def second_count(case: Case, macs: int) -> dict[str, Any]:
    """fvcore's opinion of `macs`, the matrix products of the first counter's `macs_executed`.

    Returns: `macs_fvcore`, or None and `reason`; `agree`, whether they differ by at most 1 %.
    """
    import logging

    import torch
    from fvcore.nn import FlopCountAnalysis

    def skip(reason: str) -> dict[str, Any]:
        return {"macs_fvcore": None, "agree": None, "reason": reason}

    if case.mode == "recurrent":
        return skip("fvcore counts matrix products; the step form's outer products are elementwise")
    if macs > SECOND_COUNT_LIMIT:
        return skip(f"fvcore executes what it counts; not done above {SECOND_COUNT_LIMIT / 1e9:g} GMACs")
    torch.manual_seed(0)
    model = build(case)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010 - a plain attribute, which nn.Module's types do not know
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad():
        counts = FlopCountAnalysis(model, torch.randn(1, 3, case.height, case.width)).by_operator()
    total = int(sum(counts[kind] for kind in ("conv", "linear", "addmm", "matmul", "bmm", "einsum")))
    return {"macs_fvcore": total, "agree": abs(total - macs) <= 0.01 * macs, "reason": None}
