"""Work of retention in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused import cost as fused

CHUNK = 64  # tokens; any number works
GROUP = 48  # chunks of all heads handled together, so that a group's temporaries stay in cache
ROWS = 128  # queries whose scores are held at a time by a quadratic form


def group_of(rows: int) -> int:
    """Chunks of a head that are handled together; `rows` is the number of heads in all images."""
    return max(1, GROUP // rows)


def causal_pairs(tokens: int, rows: int) -> int:
    """Pairs (query, key) that blocks of `rows` queries compute, each with all keys up to the block's end."""
    whole, tail = divmod(tokens, rows)
    return rows * rows * whole * (whole + 1) // 2 + tail * tokens


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself, an outer product and a read-out a token, key_dim · value_dim each;
            no form executes fewer. For any other form, the products that it executes. The elementwise products of
            decays are not MACs.
    """
    state, pair = key_dim * value_dim, key_dim + value_dim
    if form in fused.FORMS:
        return fused.macs(fused.call("retention", form, batch, heads, tokens, key_dim, value_dim, 1))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * 2 * state
    if form == "quadratic":  # scores and what they weigh, and the final state
        return batch * heads * (causal_pairs(tokens, ROWS) * pair + tokens * state)
    whole, tail = divmod(tokens, CHUNK)
    group = group_of(batch * heads)
    groups, rest = divmod(whole, group)
    within = (whole * CHUNK**2 + tail**2) * pair
    carried = groups * (group + 1) ** 2 + (rest + 1) ** 2 * bool(rest) + 4 * bool(tail)
    return batch * heads * (within + tokens * 2 * state + carried * state)


def elementwise_flops(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: "algorithm": a token damps the state (key_dim · value_dim) and scales its query. "reference" damps by
            what is lost, a product and a difference. "quadratic": a damped score a pair. "chunkwise" besides damps
            keys and queries to the chunk's edges. Tables of decays cost three an entry, once for all images.
    """
    D, E = key_dim, value_dim
    if form in fused.FORMS:
        return fused.elementwise_flops(fused.call("retention", form, batch, heads, tokens, D, E, 1))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (D * E * (1 if form == "algorithm" else 2) + D)
    if form == "quadratic":
        table = 3 * min(ROWS, tokens) * tokens
        return heads * (batch * (causal_pairs(tokens, ROWS) + 2 * tokens * D) + table)
    whole, tail = divmod(tokens, CHUNK)
    group = group_of(batch * heads)
    groups, rest = divmod(whole, group)
    tables = 4 * min(CHUNK, tokens) ** 2
    tables += 3 * (groups * (group + 1) ** 2 + (rest + 1) ** 2 * bool(rest) + 4 * bool(tail))
    return heads * (batch * (whole * CHUNK**2 + tail**2 + tokens * (2 * D + E)) + tables)
