"""Work of Bi-WKV in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.fused.tiling import cut, joins
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import segment

WALKS = ("reference", "compiled")  # forms that take one token a step
CHUNK = 8  # tokens of `scan`
SHORT = 256  # tokens, of which a rest would cost as many calls as all others
FALLBACK = {"fused": "scan", "fused_recurrent": "reference"}  # the forms that serve the reading "kernel"


def chunk_of(tokens: int) -> int:
    """Tokens a chunk of `scan`, in the published reading: 8, or in a short sequence 5 to 16 that leave no rest."""
    lengths = (CHUNK, *range(2 * CHUNK, CHUNK // 2, -1)) if tokens <= SHORT else ()
    return next((length for length in lengths if tokens % length == 0), CHUNK)


def macs(form: str, *, batch: int, tokens: int, channels: int, reading: Reading = "paper") -> int:
    """MACs of one call.

    Every sum has a numerator and a denominator, so a token that is added to a sum costs two MACs a channel.
    All of them are elementwise, so a counter of matrix products sees none. Exponentials, maxima and the
    quotient are no MACs.

    Args:
        form: "algorithm" is the recurrence itself, in either reading: a token is added to two sums in two directions.
            For any other form, the MACs that it executes. "fused" and "fused_recurrent" join sums, in the tiles that
            the tuning table has for any device.
    """
    added = 2 * batch * channels
    S, segments = segment(tokens), -(-tokens // segment(tokens))
    if reading == "kernel":
        form = FALLBACK.get(form, form)
    if form == "algorithm":
        added_to = 2 * tokens
    elif form in WALKS:  # besides, the sums inside a segment, and the growing ones without its first token
        added_to = 2 * tokens if reading == "paper" else 4 * tokens - segments
    elif form == "quadratic":
        added_to = tokens * tokens * (1 if reading == "paper" else 2)
    elif form == "fused":  # two directions, and past, future and token
        how = cut("wkv", batch, tokens)
        added_to = 2 * (joins("wkv", batch, tokens) + how.tiles * how.rows * how.steps)
    elif form == "fused_recurrent":  # the future twice, the past, and the three together
        added_to = 5 * tokens
    elif reading == "kernel":
        added_to = 2 * _carried(tokens) + segments * (_carried(S) + _carried(S - 1))
    else:
        chunk = chunk_of(tokens)
        parts = [(tokens // chunk, chunk), (1, tokens % chunk)]
        added_to = sum(n * L * (L + 4) + 2 * _carried(n) for n, L in parts if n * L)
    return added * added_to


def _carried(n: int) -> int:
    """Sources that the scan adds up for the sums entering n tokens."""
    if n <= 2 * CHUNK:
        return (n + 1) ** 2
    whole, rest = divmod(n, CHUNK)
    found = whole * CHUNK * (CHUNK + 2) + _carried(whole)
    return found + (_carried(rest) if rest else 0)


def elementwise_flops(form: str, *, batch: int, tokens: int, channels: int, reading: Reading = "paper") -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: "algorithm" and "reference" walk in two directions, with 8 a token and channel for the greatest exponent
            and two weights, and join past, future and token by 21, quotient included. In any other
            form, a token that is added to a sum (two MACs) has an exponent that is damped, compared and subtracted,
            and an exponential of it.
    """
    numbers = batch * tokens * channels
    if reading == "kernel":
        form = FALLBACK.get(form, form)
    if form == "algorithm" or (form in WALKS and reading == "paper"):
        return 37 * numbers
    if form in WALKS:  # two more walks, and five sums to join
        return 73 * numbers
    executed = macs(form, batch=batch, tokens=tokens, channels=channels, reading=reading)
    table = tokens * (tokens + 2) * channels if form == "quadratic" else 0  # what a pair costs, once for all images
    return 2 * executed + 2 * numbers + table
