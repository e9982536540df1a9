"""The states between chunks: S' = keep · S + feed, chunk after chunk, for many channels side by side.

One program carries a block of channels. What it loads does not depend on what it carries, so a group of chunks is
loaded at once and only the multiply-adds wait for each other.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from vbench.kernels.fused.launch import cdiv, ceiling, launch, power_of_two

GROUP = 16  # chunks whose loads are under way together
BLOCK = 128  # channels of a program
LARGE = 2**16  # channels of a row; beyond it, Triton 3.7 spills 8 B on sm_100 unless the ceiling of registers is stated


@triton.jit
def carry_kernel(
    feed,  # [rows chunks SIZE], what a chunk adds; becomes the state after the chunk
    keep,  # [rows chunks KEPT], what a chunk keeps; or the log of that, and the peak of what it adds
    peaks,  # [rows chunks] the peak of the state after the chunk, or None
    initial, initial_tail, initial_peak,  # [rows SIZE-TAIL], [rows TAIL] and [rows], or None
    final, final_tail, final_peak,  # likewise
    chunks,
    ahead,  # rows that walk forward; the rows after them walk in reverse
    SIZE: tl.constexpr,
    TAIL: tl.constexpr,  # how many of the channels, the last ones, are a tensor of their own outside
    KEPT: tl.constexpr,  # one for every SHARE channels, in float32; or 1: logs in float64
    SHARE: tl.constexpr,
    GROUP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64)
    step = tl.where(row < ahead, 1, -1)
    first = tl.where(row < ahead, 0, chunks - 1).to(tl.int64)  # chunks · SIZE may pass 2^31
    feed += row * chunks * SIZE
    keep += row * chunks * KEPT * (2 if peaks is not None else 1)

    s = tl.zeros((BLOCK,), tl.float32)
    head = SIZE - TAIL
    if initial is not None:
        s = tl.load(initial + row * head + at, mask=at < head, other=0.0)
        if TAIL > 0:
            s += tl.load(initial_tail + row * TAIL + at - head, mask=(at >= head) & (at < SIZE), other=0.0)
    if peaks is not None:
        peaks += row * chunks
        m = tl.full((), float("-inf"), tl.float64)
        if initial_peak is not None:
            m = tl.load(initial_peak + row).to(tl.float64)

    for start in range(0, chunks, GROUP):
        fed = ()
        kept = ()
        for i in tl.static_range(GROUP):
            c = first + step * (start + i)
            inside = start + i < chunks
            fed = fed + (tl.load(feed + c * SIZE + at, mask=at < SIZE * inside, other=0.0),)
            if SHARE > 0:
                kept = kept + (tl.load(keep + c * KEPT + at // SHARE, mask=at < SIZE * inside, other=1.0),)
            else:
                kept = kept + (tl.load(keep + c * (2 if peaks is not None else 1), mask=inside, other=0.0),)
        for i in tl.static_range(GROUP):
            c = first + step * (start + i)
            inside = start + i < chunks
            if SHARE > 0:
                s = kept[i] * s + fed[i]
            elif peaks is None:
                s = tl.exp(kept[i].to(tl.float32)) * s + fed[i]
            else:  # s is relative to e^m, and what a chunk adds to a peak of its own
                peak = tl.load(keep + c * 2 + 1, mask=inside, other=float("-inf"))
                before = kept[i] + m
                m = tl.maximum(before, peak).to(tl.float32).to(tl.float64)
                s = tl.exp((before - m).to(tl.float32)) * s + tl.exp((peak - m).to(tl.float32)) * fed[i]
                tl.store(peaks + c, m.to(tl.float32), mask=start + i < chunks * (tl.program_id(1) == 0))
            tl.store(feed + c * SIZE + at, s, mask=at < SIZE * inside)
    tl.store(final + row * head + at, s, mask=at < head)
    if TAIL > 0:
        tl.store(final_tail + row * TAIL + at - head, s, mask=(at >= head) & (at < SIZE))
    if peaks is not None:
        tl.store(final_peak + row, m.to(tl.float32))


def carry(
    feed: Tensor,
    keep: Tensor,
    peaks: Tensor | None,
    initial: tuple[Tensor, ...],
    final: tuple[Tensor, ...],
    *,
    ahead: int,
) -> None:
    """Turn what each chunk adds to a state into the state after it, in place.

        S_c = keep_c · S_{c-1} + feed_c         forward, and from the last chunk on in reverse

    Args:
        feed: Float[rows chunks SIZE], float32; afterwards the state after each chunk.
        keep: Float[rows chunks KEPT] in float32, each for SIZE / KEPT channels in a row; or logs, Float64[rows chunks];
            or, where there are `peaks`, Float64[rows chunks 2]: the log, and the exponent that `feed` is relative to.
        peaks: Float[rows chunks], to be filled with the exponent that each state is relative to; or None.
        initial: the state before the first chunk, shaped as `final`; () for zeros (and a peak of -inf).
        final: to be filled with the last state: Float[rows SIZE]; with peaks, three tensors: Float[rows SIZE-TAIL],
            Float[rows TAIL] and the peaks Float[rows].
        ahead: how many rows walk forward; the others walk in reverse.
    """
    rows, chunks, size = feed.shape
    tail = final[1].shape[-1] if len(final) > 1 else 0
    logs = keep.dtype is not feed.dtype
    block = min(BLOCK, power_of_two(size))
    before: tuple[Tensor | None, ...] = initial or (None, None, None)
    warps = max(1, block // (64 if peaks is None else 32))  # peaks take registers too
    launch(
        carry_kernel,
        (rows, cdiv(size, block)),
        {
            "feed": feed,
            "keep": keep,
            "peaks": peaks,
            "initial": before[0],
            "initial_tail": before[1] if tail else None,
            "initial_peak": before[2] if peaks is not None else None,
            "final": final[0],
            "final_tail": final[1] if tail else None,
            "final_peak": final[2] if peaks is not None else None,
            "chunks": chunks,
            "ahead": ahead,
        },
        {
            "SIZE": size,
            "TAIL": tail,
            "KEPT": 1 if logs else keep.shape[-1],
            "SHARE": 0 if logs else size // keep.shape[-1],
            "GROUP": min(GROUP if peaks is None else GROUP // 2, power_of_two(chunks)),
            "BLOCK": block,
        },
        warps=warps,
        registers=ceiling(warps) if size > LARGE else None,
    )
