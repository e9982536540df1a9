"""Work of the selective scan in multiply-accumulates (MACs)."""

from __future__ import annotations

from vbench.kernels.mingru.cost import CHUNK, scan_joins, scan_steps
from vbench.kernels.selective_scan import chunking

FUSED = ("fused", "fused_recurrent")  # whose work `chunking` counts
STEPWISE = ("algorithm", "reference", "compiled")
GROUP = 1 << 17  # numbers that a temporary of `scan` holds on a CPU, so that it stays in cache
STEP = 5  # pointwise FLOPs of a token and channel: bias, exponential, sum and logarithm of the step, and δ · u
DECAY = 2  # of a token, channel and state: δ · A and its exponential
GATE = 5  # of a token and channel


def span_of(numbers: int, group: int) -> int:
    """Tokens of a group of `scan`, if a token has so many numbers: whole chunks of whole chunks, or the most that are
    walked one by one."""
    return group // (numbers * CHUNK**2) * CHUNK**2 or 2 * CHUNK


def macs(
    form: str,
    *,
    batch: int,
    groups: int,
    tokens: int,
    channels: int,
    states: int,
    directions: int,
    z: bool = False,
    group: int = GROUP,
) -> int:
    """MACs of one call.

    Args:
        form: "algorithm" is the recurrence itself: a token and channel writes and reads `states` numbers, and has the
            skip. "quadratic" writes every pair of tokens. "scan" counts its walks, on all levels, in groups as on a
            CPU. Decays, steps, products of decays and the gate are not MACs.
        group: as in `scan.selective_scan`.
    """
    if form in FUSED:
        return chunking.macs(form, batch, groups, tokens, channels, states, directions)
    lines = batch * groups * channels * directions
    if form in STEPWISE:
        return lines * tokens * (2 * states + 1)
    if form == "quadratic":
        return lines * tokens * (tokens * states + states + 1)
    span = span_of(batch * groups * channels * states, group)
    steps = tokens // span * scan_steps(span) + scan_steps(tokens % span)
    return lines * (steps * states + tokens * (states + 1))


def elementwise_flops(
    form: str,
    *,
    batch: int,
    groups: int,
    tokens: int,
    channels: int,
    states: int,
    directions: int,
    z: bool = False,
    group: int = GROUP,
) -> int:
    """Pointwise FLOPs of one call, beside its `macs`.

    Args:
        form: all take, a walk, token and channel, four for the step (bias, exponential, sum, logarithm) and one for
            δ · u; three a state: δ · A, its exponential, and the product that a MAC leaves of decay · h + δ · u · B;
            and the sum of the walks. A gate takes five a token and channel. "quadratic" has running sums of steps, and
            a difference a pair, with a product and an exponential a state. "scan" joins the decays of a chunk, a
            product for all its tokens but one, on all levels.
        group: as in `scan.selective_scan`.
    """
    if form in FUSED:
        return chunking.elementwise_flops(form, batch, groups, tokens, channels, states, directions, z)
    lines = batch * groups * channels
    beside = lines * tokens * (directions - 1 + (GATE if z else 0))
    token = STEP + states * (DECAY + 1)
    if form in STEPWISE:
        return lines * directions * tokens * token + beside
    if form == "quadratic":
        return lines * directions * tokens * (STEP + states + 1 + tokens * (1 + DECAY * states)) + beside
    span = span_of(batch * groups * channels * states, group)
    joins = tokens // span * scan_joins(span) + scan_joins(tokens % span)
    return lines * directions * (tokens * token + joins * states) + beside
