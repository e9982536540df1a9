"""Work of softmax retention in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.retention.cost import causal_pairs

ROWS = 128  # queries whose scores are held at a time


def macs(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is what no form can avoid: a score and a weighted value for each pair of a query
            and a key that is not after it. The others count the products that these forms execute. Sums of
            values and the decay's elementwise products are not MACs.
    """
    pairs = {
        "algorithm": tokens * (tokens + 1) // 2,
        "suffix": causal_pairs(tokens, ROWS),
        "quadratic": tokens * tokens,
    }[form]
    return batch * heads * pairs * (key_dim + value_dim)


def elementwise_flops(form: str, *, batch: int, heads: int, tokens: int, key_dim: int, value_dim: int) -> int:
    """Pointwise FLOPs of one call, beside its `macs`: queries scaled, scores damped, their softmax, sums of values.

    Args:
        form: "algorithm" and "suffix" take a pair's product, maximum, difference, exponential and sum, up to the token
            or its block's end, and four of value_dim a token for all that is beyond. "quadratic" takes the product
            and a softmax (five) of all pairs. Tables of decays cost three an entry, once for all images.
    """
    scaled, beyond = tokens * key_dim, 4 * tokens * value_dim
    if form == "quadratic":
        return heads * (batch * (6 * tokens**2 + scaled) + 3 * tokens**2)
    pairs = tokens * (tokens + 1) // 2 if form == "algorithm" else causal_pairs(tokens, ROWS)
    return heads * (batch * (5 * pairs + scaled + beyond) + 3 * min(ROWS, tokens) * tokens)
