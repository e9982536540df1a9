"""A model as a graph of torch.export, with an exportable form of its operators."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from vbench.errors import ExportError
from vbench.exports.stops import refused
from vbench.kernels.registry import OPS, exportable_form

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from vbench.plan import Case

NODES = 20_000  # of a graph; compilers take hours for a larger one


def exportable(case: Case) -> Case:
    """The cell by a form that can be exported, in place of one made of Triton's or numba's machine code.

    Raises: UnsupportedError, as `exportable_form`.
    """
    op, form = case.operator, case.form
    if op is None or form is None or OPS[op][form].package is None:
        return case
    return replace(case, form=exportable_form(op, case.mode))


def exported(model: nn.Module, batch: Tensor, *, dynamic: bool = False) -> ExportedProgram:
    """The graph of a model in evaluation, by torch.export, with its weights.

    Operators of ours that loop over chunks or tokens become one `scan` where the loop is long.

    Args:
        batch: an input, (B, 3, height, width). Its shape is the program's.
        dynamic: leave height and width open.

    Raises: ExportError, if torch.export does not take the model, or the graph has more than `NODES` nodes.
    """
    import torch

    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(model, (batch,), dynamic_shapes=(sides,) if dynamic else None, strict=False)
    except Exception as error:  # whatever a model, or torch, raises
        raise refused("torch.export", error) from error
    if (count := nodes(program)) > NODES:
        size = "x".join(str(int(side)) for side in batch.shape[2:])
        found = ExportError(f"the graph unrolls to {count:,} nodes at {size} px; the limit is {NODES:,}")
        found.stopped_by = f"a loop of {count:,} nodes"
        raise found
    return program


def nodes(program: ExportedProgram) -> int:
    """The operations of a graph and of the graphs inside it, which are the bodies of its loops."""
    import torch

    graphs = [each for each in program.graph_module.modules() if isinstance(each, torch.fx.GraphModule)]
    return sum(node.op == "call_function" for each in graphs for node in each.graph.nodes)


@contextmanager
def quiet() -> Iterator[None]:
    """Within, torch's exporters warn of nothing and log nothing but errors: what stops them is raised."""
    import logging

    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
