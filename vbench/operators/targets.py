"""How near machine code should come to the floor, and what keeps an operator from it.

The targets are of one thread and of `TOKENS` tokens. Beside a floor that counts bytes and products of matrices, a
recurrence has pointwise arithmetic: what that takes at least is found from the operations that a call has and from the
rates that one core reaches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vbench.kernels.entry import bound, shapes_of, work
from vbench.kernels.registry import operator, truth

if TYPE_CHECKING:
    from vbench.operators.bench import Plan
    from vbench.operators.calls import Width

TOKENS = 16384
FORM = "compiled"
TARGETS = {"gla": 3.0, "mingru": 4.0, "wkv": 10.0, "wkv6": 4.0, "mlstm": 4.0, "retention": 4.0}  # times the floor
FASTER = {"selective_scan": ("naive scan", 10.0)}  # a peer, and how many times as fast it should be

COUNTED = 8, 16  # tokens of the calls whose exponentials are counted
TRANSCENDENTAL = {  # operations of torch that take an exponential or a logarithm of each number
    *("exp", "exp2", "expm1", "log", "log1p", "logaddexp", "sigmoid", "silu", "softplus", "tanh"),
    *("log_sigmoid_forward", "logcumsumexp"),
}


def of(row: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The target of a row, and if it is not of a peer the figure that it is about: {} if there is none.

    Returns: "target", the most times the floor; or "target_peer" and "target_faster".
    """
    alike = (row["tokens"], row["batch"], row["dtype"], row["device"], plan.threads) == (TOKENS, 1, "float32", "cpu", 1)
    if not alike or row["form"] != FORM:
        return {}
    if row["op"] in FASTER:
        peer, times = FASTER[row["op"]]
        return {"target_peer": peer, "target_faster": times}
    return {"target": TARGETS[row["op"]]} if row["op"] in TARGETS else {}


def arithmetic(op: str, width: Width, tokens: int, flops_per_s: float) -> dict[str, float]:
    """What one core needs at least for the arithmetic of a call of one image in machine code.

    Returns: "exponentials" of the call and its other "operations", MACs and pointwise ones; "exponentials_per_s",
        measured now; "exponentials_ms" at that rate; "operations_ms", each in the time of a MAC at `flops_per_s`.
    """
    from vbench.operators.exponentials import exponentials_per_s  # compiles, and so needs numba

    few, more = (_exponentials(op, width, length) for length in COUNTED)
    each = (more - few) / (COUNTED[1] - COUNTED[0])  # of a token; what a call has once is left out
    inputs = {name: x.to("meta") for name, x in _inputs(width, tokens).items()}
    options = width.keywords(inputs)
    declared = shapes_of(op)
    choice = options.get(declared.option, declared.choices[0])
    done = work([x.shape for x in inputs.values()], op, FORM, choice)
    exponentials = each * tokens
    operations = done.macs + done.flops_elementwise - exponentials  # a value of a function is a pointwise one
    rate = exponentials_per_s()
    return {
        "exponentials": exponentials,
        "operations": operations,
        "exponentials_per_s": rate,
        "exponentials_ms": 1e3 * exponentials / rate,
        "operations_ms": 1e3 * 2 * operations / flops_per_s,
    }


def _inputs(width: Width, tokens: int) -> dict[str, torch.Tensor]:
    return width.inputs(batch=1, tokens=tokens, dtype="float32", device="cpu")


def _exponentials(op: str, width: Width, tokens: int) -> int:
    """The exponentials and logarithms that the recurrence takes in one call."""
    inputs = _inputs(width, tokens)
    counter = _Counter()
    with counter:
        bound(op, operator(op, truth(op)), inputs, width.keywords(inputs))()
    return counter.found


class _Counter(TorchDispatchMode):
    """Counts the numbers that transcendental functions of torch return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__.rstrip("_")
        if name in TRANSCENDENTAL:
            first = returned[0] if isinstance(returned, tuple) else returned
            self.found += first.numel()
        return returned
