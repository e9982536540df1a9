"""The literal table of operators and their forms. Listing it imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from vbench.devices import KINDS
from vbench.errors import UnsupportedError

if TYPE_CHECKING:
    from vbench.kernels.trials import Trial

Mode = Literal["parallel", "recurrent"]
FLOATS = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Form:
    """One algorithm for an operator: the function named after the operator, in the module named after the form.

    Attributes:
        mode: "parallel" takes all tokens at once, "recurrent" one by one with a state of fixed size.
        summary: how it works, in a line.
        elementwise: it has no products of two matrices, so that its MACs are outside of those. No recurrent form has: a
            step updates the state by an outer product and reads it by a vector.
        devices, dtypes: what it runs on, and what types it takes.
        package: what must be installed for it.
        module: another module, whose function serves several forms and takes the form's name as the keyword `form`.
    """

    mode: Mode
    summary: str
    elementwise: bool = False
    devices: tuple[str, ...] = tuple(KINDS)
    dtypes: tuple[str, ...] = FLOATS
    package: str | None = None
    module: str | None = None


def _triton(how: str, *, elementwise: bool = False) -> dict[str, Form]:
    """The two forms made of Triton's kernels."""
    rest: dict[str, Any] = {"devices": ("cuda",), "dtypes": FLOATS[1:], "package": "triton", "module": "fused"}
    return {
        "fused": Form("parallel", f"{how}, Triton", elementwise=elementwise, **rest),
        "fused_recurrent": Form("recurrent", "one launch, one token a step, Triton", elementwise=True, **rest),
    }


def _recurrent() -> dict[str, Form]:
    """The recurrence, compiled by numba and by torch."""
    how = "one token a step, in machine code by numba"
    return {
        "compiled": Form("recurrent", how, devices=("cpu",), package="numba", elementwise=True),
        "reference": Form("recurrent", "one token a step, by torch, state in float32", elementwise=True),
    }


_CHUNKS, _PAIRS = "chunks of up to 64 tokens, memory linear in N", "all pairs of tokens, work quadratic in N"
_TILES = "tiles of tokens in registers, at most three launches"
_CHUNKWISE = {"chunkwise": Form("parallel", _CHUNKS), "quadratic": Form("parallel", _PAIRS)}

# The first form of a mode that can run on a device is that mode's default there.
OPS: dict[str, dict[str, Form]] = {
    "gla": {**_triton("three launches, both directions at once"), **_CHUNKWISE, **_recurrent()},
    "wkv": {
        **_triton(_TILES, elementwise=True),
        "scan": Form("parallel", "chunks of chunks of 8, memory linear in N", elementwise=True),
        "quadratic": Form("parallel", _PAIRS, elementwise=True),
        **_recurrent(),
    },
    "wkv6": {**_triton("three launches, both directions at once"), **_CHUNKWISE, **_recurrent()},
    "mlstm": {**_triton("three launches"), **_CHUNKWISE, **_recurrent()},
    "retention": {**_triton("three launches"), **_CHUNKWISE, **_recurrent()},
    "softmax_retention": {
        "suffix": Form("parallel", "pairs up to the token, one sum of all after it; work quadratic in N"),
        "quadratic": Form("parallel", _PAIRS),
    },
    "mingru": {
        **_triton(_TILES, elementwise=True),
        "scan": Form("parallel", "chunks of 8 tokens, of chunks, in linear space", elementwise=True),
        "quadratic": Form("parallel", _PAIRS, elementwise=True),
        **_recurrent(),
    },
    "linear_attention": {
        **_triton("chunks are summed up and then read, two launches"),
        "summary": Form("parallel", "two products of matrices, memory linear in N"),
        "quadratic": Form("parallel", _PAIRS),
        **_recurrent(),
    },
    "selective_scan": {
        **_triton("chunks of tokens, three launches, one more for a map", elementwise=True),
        "scan": Form("parallel", "groups of tokens, each in chunks of 8, memory linear in N", elementwise=True),
        "quadratic": Form("parallel", _PAIRS, elementwise=True),
        **_recurrent(),
    },
}


def interpreted() -> bool:
    """Whether Triton's kernels are interpreted here, on the CPU. This is slow; the arithmetic is the device's."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed(package: str) -> bool:
    """Cached: a search for a package takes as long as a kernel, and forms ask at every call."""
    return find_spec(package) is not None


def missing(op: str, form: str, device: str = "cpu", dtype: str | None = None) -> str | None:
    """Why `form` cannot run on a device ("cpu", "cuda:0") with inputs of `dtype` (None: any); None if it can."""
    about = OPS[op][form]
    kind = device.partition(":")[0]
    if about.package and not _installed(about.package):
        return f"{op} {form} needs the package {about.package}, which is not installed"
    if kind not in about.devices and not (about.package == "triton" and interpreted()):
        return f"{op} {form} runs on {' or '.join(about.devices)}, not on {kind}"
    if dtype is not None and dtype not in about.dtypes:
        return f"{op} {form} takes {', '.join(about.dtypes)}, not {dtype}"
    return None


def forms(op: str, device: str = "cpu", mode: Mode | None = None, dtype: str | None = None) -> list[str]:
    """The names of the forms of `op` that can run here, in the table's order."""
    return [
        name for name, form in OPS[op].items() if mode in (None, form.mode) and missing(op, name, device, dtype) is None
    ]


def default_form(op: str, mode: Mode, device: str = "cpu") -> str:
    """The form that serves `mode` of operator `op` on a device, unless the user names another.

    It is the first in the table that is made for this kind of device. An interpreted form is never the default.

    Raises: UnsupportedError if the operator has no form of that mode.
    """
    kind = device.partition(":")[0]
    for name in forms(op, device, mode):
        if kind in OPS[op][name].devices:
            return name
    raise UnsupportedError(f"{op} has no {mode} form; it has {', '.join(OPS[op])}")


def exportable_form(op: str, mode: Mode) -> str:
    """The form of an operator that is exported: the first one of the mode that is made of torch's operations alone.

    Raises: UnsupportedError if there is none.
    """
    for name, form in OPS[op].items():
        if form.mode == mode and form.package is None:
            return name
    raise UnsupportedError(f"{op} has no {mode} form made of torch's operations; it has {', '.join(OPS[op])}")


def truth(op: str) -> str:
    """The form that all others of `op` must agree with: "reference", or "quadratic" if there is no recurrence."""
    return "reference" if "reference" in OPS[op] else "quadratic"


def operator(op: str, form: str) -> Callable[..., Any]:
    """The function that computes operator `op` by `form`. Every call returns the same function.

    The function raises ShapeError if its inputs do not agree. For meta tensors it returns shapes only (see `entry`).

    Raises: UnsupportedError if there is no such form.
    """
    from vbench.kernels.entry import enter

    return enter(op, form, _function(op, form))


def computation(op: str, form: str) -> Callable[..., Any]:
    """The form itself, without the checks of `operator`. It also runs its operations on the meta device.

    Raises: UnsupportedError if there is no such form.
    """
    function = _function(op, form)
    return partial(function, form=form) if OPS[op][form].module else function


def _function(op: str, form: str) -> Callable[..., Any]:
    if form not in OPS[op]:
        raise UnsupportedError(f"{op} has no form '{form}'; it has {', '.join(OPS[op])}")
    return getattr(import_module(f"vbench.kernels.{op}.{OPS[op][form].module or form}"), op)


def trials(op: str) -> tuple[Trial, ...]:
    """Inputs on which the forms of `op` are compared."""
    return import_module(f"vbench.kernels.{op}.trials").TRIALS
