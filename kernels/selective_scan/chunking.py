"""How the Triton forms of the selective scan are cut into chunks of tokens, and the work of their kernels."""

from __future__ import annotations

from dataclasses import dataclass

from vbench.kernels.fused.launch import cdiv, power_of_two
from vbench.kernels.fused.tiling import carry_joins
from vbench.kernels.fused.tuning import pick

GRADIENT_TOKENS = 16  # of a chunk of the gradient, which finds the states before a block anew for each block
HELD = 32  # numbers that a lane keeps of the tokens that it takes at a time, a state each
LANES = 32  # channels a warp


@dataclass(frozen=True, slots=True)
class Chunking:
    """`chunks` of `length` tokens, a program each, of `warps` · 32 channels; one walks all tokens if there is one."""

    chunks: int
    length: int
    warps: int

    @property
    def channels(self) -> int:
        """Channels of a program."""
        return LANES * self.warps


def chunking(tokens: int, rows: int, device: str = "any", *, sequential: bool = False) -> Chunking:
    """How a call with u (…, N, C) is cut, by the tuning table; `rows` is the product of the dimensions before N."""
    choice = pick("selective_scan", tokens, rows, device)
    if sequential or choice.sequential or tokens <= choice.chunk:
        return Chunking(1, tokens, choice.warps)
    return Chunking(cdiv(tokens, choice.chunk), choice.chunk, choice.warps)


def gradient_chunking(tokens: int) -> Chunking:
    """How a gradient is cut."""
    return Chunking(cdiv(tokens, GRADIENT_TOKENS), GRADIENT_TOKENS, 1)


def steps(states: int) -> int:
    """Tokens that a program takes at a time, and whose inputs it loads at once: B and C fill registers."""
    return max(1, min(4, HELD // power_of_two(states)))


def gradient_steps(states: int) -> int:
    """As `steps`, in the gradient's kernel, which keeps half as much: with more, Triton 3.6 spills at 16 states."""
    return max(1, min(4, HELD // 2 // power_of_two(states)))


def macs(form: str, batch: int, groups: int, tokens: int, channels: int, states: int, directions: int) -> int:
    """MACs of "fused" or "fused_recurrent", in the chunks that the tuning table has for any device.

    A token and channel writes and reads each state, and has the skip. In more than one chunk, states are written twice,
    and those between chunks are joined. A program takes `steps` tokens at a time, the last of a chunk too.
    """
    how = _usual(form, batch, groups, tokens, directions)
    if how.chunks == 1:
        walked = _whole(tokens, states)
        return batch * groups * channels * directions * walked * (2 * states + 1)
    walked = (how.chunks - 1) * _whole(how.length, states)
    walked += _whole(tokens - (how.chunks - 1) * how.length, states)
    joined = (carry_joins(how.chunks) + how.chunks) * states
    return batch * groups * channels * directions * (walked * (3 * states + 1) + joined)


def gradient_macs(batch: int, groups: int, tokens: int, channels: int, states: int, directions: int) -> int:
    """MACs of the gradient. Both scans are summed up, and each state has seven a token: it is found, its gradient is
    read, and both are weighed in the sums. Before a block, the states since the chunk's start are found again."""
    how, block = gradient_chunking(tokens), gradient_steps(states)
    blocks = cdiv(how.length, block)
    again = how.chunks * (block * blocks * (blocks - 1) // 2 + blocks * (block - 1))
    joined = 2 * (how.chunks * _whole(how.length, states) + carry_joins(how.chunks) + how.chunks)
    walked = how.chunks * blocks * block
    whole = states * (again + 7 * walked + (joined if how.chunks > 1 else 0)) + 2 * walked
    return batch * groups * channels * directions * whole


def elementwise_flops(
    form: str, batch: int, groups: int, tokens: int, channels: int, states: int, directions: int, z: bool
) -> int:
    """Pointwise FLOPs beside `macs`, without masked tokens: those of the recurrence, where decays and steps are found
    once more in more than one chunk, with a sum of the steps; and, of each chunk, what it keeps of a state."""
    how = _usual(form, batch, groups, tokens, directions)
    token = 5 + 3 * states
    once = tokens * (directions * token + directions - 1 + (5 if z else 0))
    again = tokens * (token + 1) + how.chunks * 2 * states
    return batch * groups * channels * (once + (directions * again if how.chunks > 1 else 0))


def _usual(form: str, batch: int, groups: int, tokens: int, directions: int) -> Chunking:
    rows = batch * groups * (2 if directions == 2 else 1)  # "both" alone has a u for each walk
    return chunking(tokens, rows, sequential=form == "fused_recurrent")


def _whole(tokens: int, states: int) -> int:
    """Tokens rounded up to whole steps."""
    return cdiv(tokens, steps(states)) * steps(states)
