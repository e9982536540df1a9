"""How the operators with a matrix state differ, and the operands of one call."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from vbench.kernels.shapes import Direction


@dataclass(frozen=True, slots=True)
class Policy:
    """How a matrix state decays, is fed and is read.

    Attributes:
        decay: a "vector" of log decays a token, one log decay a "head", or a "gate" a token, before its sigmoid.
        exclusive: a token reads the state before its own decay and its own k and v, and itself once, by a bonus.
            Otherwise it reads itself in every direction.
        stable: k is weighted by the exponential of an input gate, and the output is normalised.
    """

    decay: Literal["vector", "head", "gate"]
    exclusive: bool = False
    stable: bool = False


POLICIES = {
    "gla": Policy("vector"),
    "wkv6": Policy("vector", exclusive=True),
    "retention": Policy("head"),
    "mlstm": Policy("gate", stable=True),
}


@dataclass(frozen=True, slots=True)
class Operands:
    """The operands of one call.

        S_t = decay_t S_{t-1} + key_scale · k_t v_t^T      o_t = query_scale · S_t^T q_t

    Attributes:
        q, k: (B, H, N, D). v: (B, H, N, E). Views with any strides.
        gates: (B, H, N, D) log decays, (2, B, H, N, D) for two directions with gates of their own, (H,) log
            decays, or (B, H, N) before the sigmoid, as `policy.decay` says.
        direction: "both" for vector decays alone.
        inputs: (B, H, N) input gates, if `policy.stable`.
        bonus: (H, D), if `policy.exclusive`.
        eps: is added to the normaliser, if `policy.stable`.
        state: (directions · B · H, D · E) float32; also (B · H, D) and (B · H,) if `policy.stable`. () for zeros.
    """

    policy: Policy
    direction: Direction
    q: Tensor
    k: Tensor
    v: Tensor
    gates: Tensor
    inputs: Tensor | None = None
    bonus: Tensor | None = None
    query_scale: float = 1.0
    key_scale: float = 1.0
    eps: float = 0.0
    state: tuple[Tensor, ...] = ()

    @property
    def both(self) -> bool:
        return self.direction == "both"

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """B, H, N, D, E."""
        B, H, N, D = self.q.shape
        return B, H, N, D, self.v.shape[-1]

    @property
    def ways(self) -> dict[str, bool]:
        """The directions, as kernels take them."""
        return {"FORWARD": self.direction != "reverse", "REVERSE": self.direction != "forward"}

    def mirrored(self, o_grad: Tensor, final_grad: tuple[Tensor, ...]) -> Operands:
        """The operator whose states are the gradients of these states. Its keys are these queries, met in reverse."""
        opposite: dict[Direction, Direction] = {"forward": "reverse", "reverse": "forward", "both": "both"}
        turned = replace(self, direction=opposite[self.direction], q=self.k, k=self.q, v=o_grad, state=final_grad)
        return replace(turned, query_scale=self.key_scale, key_scale=self.query_scale)
