"""Work of linear attention in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused.layout import tile
from vbench.kernels.fused.tuning import pick

ROWS = 128  # queries whose scores are held at a time by the quadratic form


def macs(
    form: str,
    *,
    batch: int,
    heads: int,
    tokens: int,
    key_dim: int,
    value_dim: int,
    q_norm: bool = False,
    k_norm: bool = False,
) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is one summary and its read-out: a token writes and reads key_dim · value_dim numbers, and
            is added to the sum of keys and read from it. All forms but "quadratic" and "fused" do just this.
            "quadratic" has a score and a weighted value a pair, another score a pair where the normaliser has queries
            of its own, and the summary that it returns. "fused" does it in whole tiles, in the chunks that the tuning
            table has for any device: masked tokens and channels count, and each tile of values has a normaliser.
    """
    if form == "fused":
        padded, D, E = _padded(batch * heads, tokens), _whole(key_dim, 32), _whole(value_dim, 64)
        return batch * heads * padded * D * (2 * E + 1 + E // tile(value_dim, 64))
    write = key_dim * (value_dim + 1)
    if form != "quadratic":
        return batch * heads * tokens * 2 * write
    pair = key_dim + value_dim + (key_dim if q_norm else 0)
    return batch * heads * tokens * (tokens * pair + write)


def elementwise_flops(
    form: str,
    *,
    batch: int,
    heads: int,
    tokens: int,
    key_dim: int,
    value_dim: int,
    q_norm: bool = False,
    k_norm: bool = False,
) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: all add ε and divide what a token read; "quadratic" besides sums the scores of a token, and "fused" the
            summaries of its chunks, and that of other tokens.
    """
    token = 1 + value_dim + (tokens if form == "quadratic" else 0)
    summaries = key_dim * (value_dim + 1) * _chunks(batch * heads, tokens) if form == "fused" else 0
    return batch * heads * (tokens * token + summaries)


def _length(rows: int, tokens: int) -> int:
    """Tokens of a chunk of "fused": a short sequence is one chunk of the next power of two."""
    return min(pick("linear_attention", tokens, rows).chunk, max(16, 1 << (tokens - 1).bit_length()))


def _chunks(rows: int, tokens: int) -> int:
    return -(-tokens // _length(rows, tokens))


def _padded(rows: int, tokens: int) -> int:
    return _chunks(rows, tokens) * _length(rows, tokens)


def _whole(size: int, most: int) -> int:
    """A dimension rounded up to whole tiles."""
    step = tile(size, most)
    return -(-size // step) * step
