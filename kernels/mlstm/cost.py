"""Work of the matrix LSTM in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused import cost as fused

CHUNK = 64  # tokens of a chunk of `chunkwise`, at most


def chunk_of(tokens: int) -> int:
    """Tokens a chunk of `chunkwise`: as many as leave no rest, if more than half of `CHUNK` do."""
    return next((length for length in range(CHUNK, CHUNK // 2, -1) if tokens % length == 0), CHUNK)


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """MACs of one call, in one direction.

    Args:
        form: "algorithm" is the recurrence itself: a token updates and reads C, key_dim · value_dim each, and n,
            key_dim each. For any other form, the products that it executes from an empty state. Gates, weights, and
            sums of scores or keys are not MACs.
    """
    state = key_dim * (value_dim + 1)
    if form in fused.FORMS:
        return fused.macs(fused.call("mlstm", form, batch, heads, tokens, key_dim, value_dim, 1))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * 2 * state
    fed = key_dim * value_dim  # n is fed by a sum of keys
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * tokens * (tokens * (key_dim + value_dim) + fed)
    chunk = chunk_of(tokens)
    whole, tail = divmod(tokens, chunk)
    pairs = whole * chunk**2 + tail**2
    return batch * heads * (pairs * (key_dim + value_dim) + tokens * (state + fed))


def elementwise_flops(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    The quotient that is read out costs value_dim and 11 more a token and head: two exponentials of the stabiliser
    with their bounds, and the divisor.

    Args:
        form: "algorithm" and "reference": a token damps C and n, scales its key, and has 9 for its gates.
            "quadratic": a pair is a sum, a maximum, a difference, an exponential, a product and a sum again.
            "chunkwise": a pair of a chunk is a sum, an exponential, a product and a sum; a chunk carries C and n.
    """
    D, E = key_dim, value_dim
    if form in fused.FORMS:
        return fused.elementwise_flops(fused.call("mlstm", form, batch, heads, tokens, D, E, 1))
    read = E + 11
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (D * (E + 1) + D + 9 + read)
    if form == "quadratic":
        return batch * heads * (tokens * (6 * tokens + 3 * D + 8 + read) + 2 * D * E)
    chunk = chunk_of(tokens)
    whole, tail = divmod(tokens, chunk)
    chunks, pairs = whole + bool(tail), whole * chunk**2 + tail**2
    token = 15 + 4 * D + E + 1 + read  # gates; keys scaled, fed and summed, queries damped; two sums joined
    return batch * heads * (4 * pairs + tokens * token + chunks * (2 * D * (E + 1) + 4))
