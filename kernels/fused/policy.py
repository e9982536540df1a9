"""What tells the operators of family A apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Policy:
    """How a matrix state decays, is fed and is read.

    `decay` is a "vector" of log decays a token, the log of one number a "head", or a "gate" a token, before its
    sigmoid. `exclusive`: a token reads the state before its own decay and its own k and v, and itself once by a
    bonus; else it reads itself in every direction. `stable`: k is weighted by the exponential of an input gate, and
    what is read is normalised.
    """

    decay: Literal["vector", "head", "gate"]
    exclusive: bool = False
    stable: bool = False
