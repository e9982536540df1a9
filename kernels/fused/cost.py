"""Work of the operators with a matrix state: multiply-accumulates in matrix products, and pointwise FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

from vbench.kernels.fused.layout import tile
from vbench.kernels.fused.policy import POLICIES, Policy
from vbench.kernels.fused.tuning import chunk_of

FORMS = ("fused", "fused_recurrent")


@dataclass(frozen=True, slots=True)
class Call:
    """Sizes of one call; `chunk` is 0 if one launch walks all tokens."""

    policy: Policy
    batch: int
    heads: int
    tokens: int
    key_dim: int
    value_dim: int
    directions: int
    chunk: int

    @property
    def chunks(self) -> int:
        return -(-self.tokens // self.length)

    @property
    def length(self) -> int:
        """Tokens of a chunk: a short sequence is one chunk of the next power of two."""
        return min(self.chunk, max(16, 1 << (self.tokens - 1).bit_length()))


def call(
    op: str, form: str, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int
) -> Call:
    """A call of one of the `FORMS` of an operator, in the chunks that the tuning table has for any device."""
    chunk = chunk_of(op, form, tokens, batch * heads)
    return Call(POLICIES[op], batch, heads, tokens, key_dim, value_dim, directions, chunk)


def macs(call: Call) -> int:
    """MACs of one call, in whole tiles: masked tokens and channels count too.

    In chunks of L, scores are D · L² for each tile of values, times log₂ L if a decay is a vector. The values that they
    weigh are E · L². The states are D · E · L, written and read in each direction.
    """
    if not call.chunk:
        values = call.value_dim + call.policy.stable  # the normaliser is one value more
        return call.batch * call.heads * call.tokens * call.directions * 2 * call.key_dim * values
    D, E = _whole(call.key_dim, 32), _whole(call.value_dim, 64)
    L = call.length
    levels = L.bit_length() - 1 if call.policy.decay == "vector" else 1
    scores = levels * L * L * D * (E // tile(call.value_dim, 64))
    states = call.directions * 2 * L * D * E
    normaliser = L * D * (E // tile(call.value_dim, 64)) if call.policy.stable else 0
    return call.batch * call.heads * call.chunks * (scores + L * L * E + states + normaliser)


def elementwise_flops(call: Call) -> int:
    """Pointwise FLOPs of one call, beside its `macs`, without masked tokens and tiles.

    A decay is an exponential. If it is a vector, each level of the fold damps a token's queries and keys, and has two
    running products in each direction. If it is a number, a pair has a difference, an exponential and two products. A
    state decays once a chunk (or once a token).
    """
    D, E, N = call.key_dim, call.value_dim, call.tokens
    normaliser = E + 11 if call.policy.stable else 0  # a quotient, two exponentials of the stabiliser, the divisor
    if not call.chunk:
        token = call.directions * (D * E + 2 * D) + normaliser
    elif call.policy.decay == "vector":
        levels = call.length.bit_length() - 1
        gates = 1 if call.policy.exclusive else call.directions  # both directions of such an operator share decays
        token = gates * (2 * D + levels * 3 * D) + levels * 2 * D + call.directions * 2 * D
    else:
        token = 4 * call.length + 4 * D + normaliser
    carried = 2 * call.directions * D * E * (call.chunks if call.chunk else 0)
    return call.batch * call.heads * (N * token + carried)


def _whole(size: int, most: int) -> int:
    """A dimension rounded up to whole tiles."""
    step = tile(size, most)
    return -(-size // step) * step
