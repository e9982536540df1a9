"""Work of gated linear attention in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused import cost as fused

CHUNKS = (64, 32, 16)  # tokens; powers of two
FILLED = 1.15  # a longer chunk is taken if filling up the last one makes at most this much more of the tokens


def chunk_of(tokens: int) -> int:
    """Tokens a chunk of `chunkwise`, a power of two: few chunks, of which the last one has few tokens missing."""
    whole = 1 << (tokens - 1).bit_length()  # one chunk for all
    filled = {chunk: -(-tokens // chunk) * chunk for chunk in CHUNKS if chunk <= whole}
    return next((chunk for chunk in filled if filled[chunk] <= FILLED * min(filled.values())), whole)


def macs(
    form: str,
    *,
    batch: int,
    heads: int,
    tokens: int,
    key_dim: int,
    value_dim: int,
    directions: int,
    chunk: int | None = None,
) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself, an outer product and a read-out a token, key_dim · value_dim each;
            no form executes fewer. For any other form, the products that it executes. The elementwise products of
            decays are not MACs.
    """
    state = key_dim * value_dim
    if form in fused.FORMS:
        return fused.macs(fused.call("gla", form, batch, heads, tokens, key_dim, value_dim, directions))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * directions * 2 * state
    if form == "quadratic":  # every pair, and the final state
        return batch * heads * directions * (tokens * tokens * (key_dim + value_dim) + tokens * state)
    chunks, length = _tiles(tokens, chunk)
    triangle = length * (length - 1) // 2 * key_dim  # scores off the diagonal, one direction
    within = directions * triangle + length * key_dim + length * length * value_dim
    return batch * heads * chunks * (within + directions * 2 * length * state)


def elementwise_flops(
    form: str,
    *,
    batch: int,
    heads: int,
    tokens: int,
    key_dim: int,
    value_dim: int,
    directions: int,
    chunk: int | None = None,
) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: "algorithm" and "reference": a token's decay is an exponential of key_dim, damps the state (key_dim ·
            value_dim) and its query is scaled. "quadratic": a pair is a difference, an exponential and a product of
            key_dim. "chunkwise": folding a chunk damps half the keys and half the queries at each of log₂ chunk joins.
    """
    D, E, joined = key_dim, value_dim, (directions - 1) * value_dim
    if form in fused.FORMS:
        return fused.elementwise_flops(fused.call("gla", form, batch, heads, tokens, D, E, directions))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (directions * (2 * D + D * E) + joined)
    if form == "quadratic":
        return batch * heads * tokens * (directions * D * (3 * tokens + 5) + D + joined)
    chunks, length = _tiles(tokens, chunk)
    folded = length * (length.bit_length() - 1) + length - 1  # half the queries and keys a join; decays
    way = D * (2 * length + folded) + 2 * D * E  # an exponential, a damped query; the state that is carried
    return batch * heads * chunks * (directions * way + length * (D + 1 + joined))


def _tiles(tokens: int, chunk: int | None) -> tuple[int, int]:
    """(chunks, tokens a chunk); the last chunk is filled up."""
    length = chunk or chunk_of(tokens)
    return -(-tokens // length), length
