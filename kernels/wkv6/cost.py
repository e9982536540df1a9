"""Work of WKV6 in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused import cost as fused
from vbench.kernels.gla import cost as gla


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself, an outer product and a read-out a token and direction, key_dim ·
            value_dim each; the bonus is elementwise. No form executes fewer. "quadratic" has one score matrix for both
            directions. Any other form does the same as gla's form of its name, with the bonus as the diagonal.
    """
    if form in fused.FORMS:
        return fused.macs(fused.call("wkv6", form, batch, heads, tokens, key_dim, value_dim, directions))
    sizes = {"batch": batch, "heads": heads, "tokens": tokens, "key_dim": key_dim, "value_dim": value_dim}
    if form == "quadratic":
        state = key_dim * value_dim
        return batch * heads * (tokens * tokens * (key_dim + value_dim) + directions * tokens * state)
    return gla.macs(form, **sizes, directions=directions)


def elementwise_flops(
    form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int, directions: int
) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: "algorithm" and "reference": a token's decay is an exponential of key_dim and damps the state
            (key_dim · value_dim); its bonus is three products of key_dim, and adds a value. "quadratic": a pair is
            two differences, an exponential and a product of key_dim. "chunkwise" is gla's, with one decay for both
            directions, no damped query where the folding starts, and a bonus on the diagonal.
    """
    D, E, joined = key_dim, value_dim, (directions - 1) * value_dim
    if form in fused.FORMS:
        return fused.elementwise_flops(fused.call("wkv6", form, batch, heads, tokens, D, E, directions))
    if form in ("algorithm", "reference", "compiled"):
        return batch * heads * tokens * (directions * (D * E + 4 * D + 2 * E) + joined)
    if form == "quadratic":
        return batch * heads * tokens * D * (4 * tokens + 3 + 2 * directions)
    sizes = {"batch": batch, "heads": heads, "tokens": tokens, "key_dim": D, "value_dim": E}
    as_gla = gla.elementwise_flops("chunkwise", **sizes, directions=directions)
    return as_gla + batch * heads * tokens * D * (2 - 2 * directions)
