"""Who takes part in a bench of an operator, forms and peers, and how long a call of one will take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from vbench.kernels.registry import OPS, missing, operator

if TYPE_CHECKING:
    from vbench.devices.base import Call, Device
    from vbench.kernels.trials import Inputs
    from vbench.operators.bench import Plan
    from vbench.operators.calls import Width

SLOW_S = 1.0  # a call that takes longer is not called again to warm it up, and has few samples
SHORT, LONGER = 64, 8  # tokens of the first call of one that was never timed, and the factor to the next


@dataclass(slots=True)
class Contestant:
    """A form or a peer: how its calls are made, and what is known of their time so far."""

    name: str
    peer: bool
    build: Callable[[Inputs, Mapping[str, Any]], Call]
    same: bool  # whether it computes the operator, so that its output can be checked
    growth: int  # the power of the tokens with which its time should grow
    absent: str | None  # why it cannot run here
    holds: Callable[[Inputs], int] | None = None  # the bytes that a call holds at once, if they are many
    once: bool = False  # whether a call takes so long that one is enough
    seen: tuple[float, float] | None = None  # (work, seconds) of the last call that was timed

    @property
    def who(self) -> dict[str, Any]:
        """Its keys in a row."""
        return {"form": self.name, "peer": self.peer}

    def work(self, tokens: int, batch: int) -> float:
        """What the time of a call should be proportional to."""
        return float(batch * tokens**self.growth)

    def expected_s(self, tokens: int, batch: int) -> float | None:
        """The seconds of one call, from the last one that was timed; None before the first."""
        return None if self.seen is None else self.seen[1] * self.work(tokens, batch) / self.seen[0]

    def too_much(self, inputs: Inputs, tokens: int, batch: int, limit_s: float, device: Device) -> str | None:
        """Why a call with these inputs is not made, as far as that can be foretold."""
        expected, held = self.expected_s(tokens, batch), self.holds(inputs) if self.holds else 0
        if expected is not None and expected > limit_s:
            return f"one call would take about {expected:.2g} s, by the last one; --limit-s is {limit_s:g}"
        if held and not device.fits(held):
            return f"one call would hold {held / 2**30:.1f} GiB; {device.free_bytes() / 2**30:.1f} GiB are free"
        return None


def contestants(plan: Plan, op: str) -> list[Contestant]:
    """All forms that were asked for, and all peers."""
    from vbench.operators.peers import peers

    forms = []
    for form in (form for form in OPS[op] if form in plan.forms):
        build, growth = _caller(op, operator(op, form)), 2 if form == "quadratic" else 1
        forms.append(Contestant(form, False, build, True, growth, missing(op, form, plan.device, plan.dtype)))
    return forms + [
        Contestant(peer.name, True, peer.build, peer.same, peer.growth, peer.missing(plan.device), peer.holds)
        for peer in peers(op, plan.peers)
    ]


def foretold(
    one: Contestant, inputs: Inputs, tokens: int, batch: int, width: Width, plan: Plan, device: Device
) -> str | None:
    """Why a contestant is not called with these inputs: it would take too long, or hold too much; None if it is.

    One that was never timed is first called on ever longer sequences, as long as each is worth its time. So a form
    whose work is quadratic is not called on a long sequence to find out that it takes an hour. What raises here
    raises again in the call that counts.
    """
    lengths = takewhile(lambda length: length < tokens, (SHORT * LONGER**step for step in count()))
    for length in [] if one.seen else lengths:
        try:
            short = width.inputs(batch=batch, tokens=length, dtype=plan.dtype, device=plan.device)
            if one.too_much(short, length, batch, plan.limit_s, device):
                break
            _time(one, one.build(short, width.keywords(short)), length, batch, device)
        except Exception:
            break
    return one.too_much(inputs, tokens, batch, plan.limit_s, device)


def _time(one: Contestant, call: Call, tokens: int, batch: int, device: Device) -> None:
    first = one.seen is None  # it may have compiled something
    seconds, _ = timed(call, device)
    if first or seconds <= SLOW_S:
        seconds, _ = timed(call, device)
    one.seen = one.work(tokens, batch), seconds


def timed(call: Call, device: Device) -> tuple[float, Any]:
    """The seconds of one call, and what it returned."""
    begin = device.now()
    o = call()
    device.wait()
    return max(device.now() - begin, 1e-7), o


def _caller(op: str, function: Callable[..., Any]) -> Callable[[Inputs, Mapping[str, Any]], Call]:
    from vbench.kernels.entry import bound

    return partial(bound, op, function)
