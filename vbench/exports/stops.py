"""What stops an export: an operator, or a line of the model's code, found in what torch raises."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from vbench.errors import ExportError, first_line

OPERATOR = re.compile(
    r"\b((?:aten|prims|torchvision|vbench|higher_order)(?:\.|::)\w+)"  # in any message
    r"|op='((?:\w+\.)*\w+)'"  # as ONNX's exporter names it
    r"|\A(\w+\.\w+)\.\w+$",  # all of a first line, as torch does
    re.MULTILINE,
)
CODE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')
FIXED = re.compile(r"specialized it to be a constant \((\d+)\)")
LIBRARIES = ("torch", "torchgen", "onnx", "onnxscript", "onnx_ir", "sympy")  # whose lines are not the model's
HERE = Path(__file__).resolve().parent


def refused(target: str, error: BaseException) -> ExportError:
    """The error of ours for what a target has raised; `stopped_by` names the cause as far as that tells it."""
    causes = list(_causes(error))
    deepest = causes[-1]
    texts = [str(each) for each in reversed(causes)]
    stopped_by = next(filter(None, (find(text) for find in (_operator, _code) for text in texts)), None)
    stopped_by = stopped_by or _line(deepest)
    words = first_line(deepest, named=True)
    if sides := FIXED.findall(texts[0]):
        words = f"the model takes one size: as it is traced, it fixes sides to {' and '.join(sides)} px"
    found = ExportError(f"{target} stops at {stopped_by}: {words}" if stopped_by else f"{target}: {words}")
    found.stopped_by = stopped_by
    return found


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, then what it says it comes from."""
    while error is not None:
        yield error
        error = error.__cause__


def _operator(text: str) -> str | None:
    """The operator that a message names: "aten.cummax.default" -> "aten.cummax"."""
    match = OPERATOR.search(text)
    return next(filter(None, match.groups())).replace("::", ".") if match else None


def _code(text: str) -> str | None:
    """The last line of the model's own code that a message shows."""
    own = [match for match in CODE.findall(text) if not set(LIBRARIES) & set(Path(match[0]).parts)]
    return f"{Path(own[-1][0]).name}:{own[-1][1]}, in {own[-1][2]}" if own else None


def _line(error: BaseException) -> str | None:
    """The last line of the model's own code that the error has passed: "my_net.py:12, in forward"."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.parent != HERE and not set(LIBRARIES) & set(file.parts) and file.suffix == ".py":
            return f"{file.name}:{frame.lineno}, in {frame.name}"
    return None
