"""The literal table of operators and their forms. Listing it imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from vbench.errors import UnsupportedError

if TYPE_CHECKING:
    from vbench.kernels.trials import Trial

Mode = Literal["parallel", "recurrent"]
FLOATS = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Form:
    """One algorithm for an operator.

    `target` is the function, "module:name", imported when it is first asked for. `mode` says how it
    walks the tokens: all at once ("parallel"), or one by one with a state of fixed size ("recurrent").
    `summary` says in a line how it works, for who reads this table. An `elementwise` form has no matrix
    products, so that a counter of these does not see its work. A form runs on some `devices` and takes some
    `dtypes`, and may need a `package`; `missing` says what it lacks.
    """

    target: str
    mode: Mode
    summary: str
    elementwise: bool = False
    devices: tuple[str, ...] = ("cpu", "cuda")
    dtypes: tuple[str, ...] = FLOATS
    package: str | None = None
    told: bool = False


def _triton(target: str, how: str, *, elementwise: bool = False) -> dict[str, Form]:
    """The two forms made of Triton's kernels."""
    rest: dict[str, Any] = {"devices": ("cuda",), "dtypes": FLOATS[1:], "package": "triton", "elementwise": elementwise}
    return {
        "fused": Form(target, "parallel", f"{how}, Triton", told=True, **rest),
        "fused_recurrent": Form(target, "recurrent", "one launch, one token a step, Triton", told=True, **rest),
    }


def _machine_code(target: str, *, elementwise: bool = False) -> dict[str, Form]:
    """The recurrence compiled by numba."""
    how = "one token a step, in machine code by numba"
    form = Form(target, "recurrent", how, devices=("cpu",), package="numba", elementwise=elementwise)
    return {"compiled": form}


# The first form of a mode that can run on a device is that mode's default there.
OPS: dict[str, dict[str, Form]] = {
    "gla": {
        **_triton("vbench.kernels.gla.fused:gla", "three launches, both directions at once"),
        "chunkwise": Form("vbench.kernels.gla.chunkwise:gla", "parallel", "chunks of 64 tokens, memory linear in N"),
        "quadratic": Form("vbench.kernels.gla.quadratic:gla", "parallel", "all pairs of tokens, work quadratic in N"),
        "reference": Form("vbench.kernels.gla.reference:gla", "recurrent", "one token a step, state in float32"),
        **_machine_code("vbench.kernels.gla.compiled:gla"),
    },
    "wkv": {
        **_triton(
            "vbench.kernels.wkv.fused:wkv", "tiles of tokens in registers, at most three launches", elementwise=True
        ),
        "scan": Form(
            "vbench.kernels.wkv.scan:wkv", "parallel", "chunks of chunks of 8, memory linear in N", elementwise=True
        ),
        "quadratic": Form(
            "vbench.kernels.wkv.quadratic:wkv", "parallel", "all pairs of tokens, work quadratic in N", elementwise=True
        ),
        "reference": Form(
            "vbench.kernels.wkv.reference:wkv", "recurrent", "one token a step, state in float32", elementwise=True
        ),
        **_machine_code("vbench.kernels.wkv.compiled:wkv", elementwise=True),
    },
    "wkv6": {
        **_triton("vbench.kernels.wkv6.fused:wkv6", "three launches, both directions at once"),
        "chunkwise": Form("vbench.kernels.wkv6.chunkwise:wkv6", "parallel", "chunks of 64 tokens, memory linear in N"),
        "quadratic": Form("vbench.kernels.wkv6.quadratic:wkv6", "parallel", "all pairs of tokens, work quadratic in N"),
        "reference": Form("vbench.kernels.wkv6.reference:wkv6", "recurrent", "one token a step, state in float32"),
        **_machine_code("vbench.kernels.wkv6.compiled:wkv6"),
    },
    "mlstm": {
        **_triton("vbench.kernels.mlstm.fused:mlstm", "three launches"),
        "chunkwise": Form(
            "vbench.kernels.mlstm.chunkwise:mlstm", "parallel", "chunks of 64 tokens, memory linear in N"
        ),
        "quadratic": Form(
            "vbench.kernels.mlstm.quadratic:mlstm", "parallel", "all pairs of tokens, work quadratic in N"
        ),
        "reference": Form("vbench.kernels.mlstm.reference:mlstm", "recurrent", "one token a step, state in float32"),
        **_machine_code("vbench.kernels.mlstm.compiled:mlstm"),
    },
    "retention": {
        **_triton("vbench.kernels.retention.fused:retention", "three launches"),
        "chunkwise": Form(
            "vbench.kernels.retention.chunkwise:retention", "parallel", "chunks of 64 tokens, memory linear in N"
        ),
        "quadratic": Form(
            "vbench.kernels.retention.quadratic:retention", "parallel", "all pairs of tokens, work quadratic in N"
        ),
        "reference": Form(
            "vbench.kernels.retention.reference:retention", "recurrent", "one token a step, state in float32"
        ),
        **_machine_code("vbench.kernels.retention.compiled:retention"),
    },
    "softmax_retention": {
        "suffix": Form(
            "vbench.kernels.softmax_retention.suffix:softmax_retention",
            "parallel",
            "pairs up to the token, one sum of all after it; work quadratic in N",
        ),
        "quadratic": Form(
            "vbench.kernels.softmax_retention.quadratic:softmax_retention",
            "parallel",
            "all pairs of tokens, work quadratic in N",
        ),
    },
    "mingru": {
        **_triton(
            "vbench.kernels.mingru.fused:mingru",
            "tiles of tokens in registers, at most three launches",
            elementwise=True,
        ),
        "scan": Form(
            "vbench.kernels.mingru.scan:mingru",
            "parallel",
            "chunks of 8 tokens, of chunks, in linear space",
            elementwise=True,
        ),
        "quadratic": Form(
            "vbench.kernels.mingru.quadratic:mingru",
            "parallel",
            "all pairs of tokens, work quadratic in N",
            elementwise=True,
        ),
        "reference": Form(
            "vbench.kernels.mingru.reference:mingru",
            "recurrent",
            "one token a step, state in float32",
            elementwise=True,
        ),
        **_machine_code("vbench.kernels.mingru.compiled:mingru", elementwise=True),
    },
}


def interpreted() -> bool:
    """Whether Triton's kernels are interpreted here, on the CPU: slow, but with the arithmetic of the device."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _installed(package: str) -> bool:
    """Asked once: forms ask at every call, and looking for a package takes as long as a kernel."""
    return find_spec(package) is not None


def missing(op: str, form: str, device: str = "cpu", dtype: str | None = None) -> str | None:
    """Why `form` cannot run on a device ("cpu", "cuda:0") with inputs of `dtype` (of any, if None), or None."""
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
    """The name of the form that serves `mode` of operator `op` on a device unless another is asked for.

    It is the first of the table that is made for that kind of device; an interpreted one never is.

    Raises: UnsupportedError if the operator has no form of that mode.
    """
    kind = device.partition(":")[0]
    for name in forms(op, device, mode):
        if kind in OPS[op][name].devices:
            return name
    raise UnsupportedError(f"{op} has no {mode} form; it has {', '.join(OPS[op])}")


def truth(op: str) -> str:
    """The form that the others of `op` are held to: "reference", or "quadratic" where there is no recurrence."""
    return "reference" if "reference" in OPS[op] else "quadratic"


def operator(op: str, form: str) -> Callable[..., Any]:
    """The function that computes operator `op` by `form`: always the same one for the same form.

    It raises ShapeError if its inputs do not agree, and computes nothing of meta tensors (see `entry`).

    Raises: UnsupportedError if there is no such form.
    """
    from vbench.kernels.entry import enter

    return enter(op, form, _function(op, form))


def computation(op: str, form: str) -> Callable[..., Any]:
    """The form itself, without the checks: it computes on the meta device too.

    Raises: UnsupportedError if there is no such form.
    """
    function = _function(op, form)
    return partial(function, form=form) if OPS[op][form].told else function


def _function(op: str, form: str) -> Callable[..., Any]:
    if form not in OPS[op]:
        raise UnsupportedError(f"{op} has no form '{form}'; it has {', '.join(OPS[op])}")
    module, _, name = OPS[op][form].target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def trials(op: str) -> tuple[Trial, ...]:
    """Inputs on which the forms of `op` are held against each other."""
    found: tuple[Trial, ...] = import_module(f"vbench.kernels.{op}.trials").TRIALS
    return found
