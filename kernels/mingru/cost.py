"""Work of minGRU's recurrence in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused.tiling import cut, joins

CHUNK = 8  # tokens of `scan`
GROUP = 1 << 17  # numbers that a temporary of `scan` holds, so that it stays in cache
GATES = 7  # pointwise FLOPs of `gates.coefficients`, a token and channel


def span_of(batch: int, channels: int, group: int) -> int:
    """Tokens of a group of `scan`: whole chunks of whole chunks, so that only the last group need be padded."""
    return max(1, group // (batch * channels * CHUNK**2)) * CHUNK**2


def macs(form: str, *, batch: int, tokens: int, channels: int, group: int = GROUP) -> int:
    """MACs of one call, in one direction.

    Args:
        form: "algorithm" is the recurrence itself, elementwise: one MAC, keep · h + feed, a token and channel.
            "quadratic" counts every pair of tokens. "scan" counts its walks, on all levels. "fused" counts its folds
            and walks, in the tiles that the tuning table has for any device. Sigmoids, the product z · g(a) and
            products of two gates are not MACs.
        group: as in `scan.mingru`.
    """
    if form in ("algorithm", "reference", "compiled", "fused_recurrent"):
        return batch * tokens * channels
    if form == "quadratic":
        return batch * tokens * tokens * channels
    if form == "fused":
        return batch * channels * joins("mingru", batch, tokens)
    span = span_of(batch, channels, group)
    return batch * channels * (tokens // span * scan_steps(span) + scan_steps(tokens % span))


def scan_steps(tokens: int) -> int:
    """Tokens and chunks that `scan` steps over: all but the first of each chunk, the chunks, and all again."""
    if tokens <= 2 * CHUNK:
        return tokens
    chunks = -(-tokens // CHUNK)
    return chunks * (2 * CHUNK - 1) + scan_steps(chunks)


def elementwise_flops(form: str, *, batch: int, tokens: int, channels: int, group: int = GROUP) -> int:
    """Pointwise FLOPs of one call, in one direction, beside its `macs`.

    Args:
        form: all take 7 a token and channel for keep and feed, which is all of "algorithm" and "reference".
            "quadratic" has running sums of logarithms, and a difference and an exponential a pair. "scan" joins
            the gates of a chunk, a product for all its tokens but one, on all levels. "fused" has a product for
            each MAC, and in more than one tile finds keep and feed twice.
        group: as in `scan.mingru`.
    """
    gates = GATES * tokens
    if form in ("algorithm", "reference", "compiled", "fused_recurrent"):
        return batch * channels * gates
    if form == "fused":
        how = cut("mingru", batch, tokens)
        padded = how.tiles * how.rows * how.steps
        return batch * channels * (GATES * padded * (1 if how.tiles == 1 else 2) + joins("mingru", batch, tokens))
    if form == "quadratic":
        return batch * channels * (gates + 4 * tokens + 2 * tokens * tokens)
    span = span_of(batch, channels, group)
    return batch * channels * (gates + tokens // span * scan_joins(span) + scan_joins(tokens % span))


def scan_joins(tokens: int) -> int:
    """Products of two gates that `scan` takes."""
    if tokens <= 2 * CHUNK:
        return 0
    chunks = -(-tokens // CHUNK)
    return chunks * (CHUNK - 1) + scan_joins(chunks)
