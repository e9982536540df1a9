"""Bi-WKV as a scan over chunks of chunks: exact, any N, memory and work linear in N.

Inside a chunk every token takes the softmax over all tokens of the chunk and over two more, one before it and
one behind it: the sums of everything outside, which are tokens like any other (`sums.py`). What a chunk hands on
is again such a token, with a decay of w·L a step, so the sums that enter the chunks are found by the same scan
over L times fewer tokens. No loop is longer than the logarithm of N, except over the groups that bound the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vbench.kernels.blocks import exporting
from vbench.kernels.shapes import accumulator
from vbench.kernels.wkv.cost import CHUNK, chunk_of
from vbench.kernels.wkv.shapes import Reading
from vbench.kernels.wkv.sums import costs, empty, gather, initial, read, released, segment, tokens

WEIGHTS = {"cpu": 2**17, "cuda": 2**22}  # held at a time; a CPU keeps them in its cache


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, *, reading: Reading = "paper", state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Bidirectional WKV (Duan et al. 2024, arXiv:2403.02308, section 3), scan form.

    Arguments, results and errors are those of `reference.wkv`.
    """
    dtype = accumulator(k)
    w, u = w.to(dtype), u.to(dtype)
    entering = initial(k, dtype) if state is None else state.to(dtype)
    return (_published if reading == "paper" else _released)(k, v, w, u, entering)


def _published(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    chunk = chunk_of(int(k.shape[1]))  # int: under a trace, sizes are tensors
    whole = int(k.shape[1]) // chunk * chunk
    parts = [tuple(x[:, :whole].unflatten(1, (-1, chunk)) for x in (k, v))] if whole else []
    if whole < k.shape[1]:  # the rest is one short chunk
        parts.append(tuple(x[:, whole:].unsqueeze(1) for x in (k, v)))
    lengths = [int(keys.shape[2]) for keys, _ in parts]

    # Pass 1: what each chunk hands on, backwards and forwards, and what enters it.
    leaving = []
    for (keys, values), length in zip(parts, lengths, strict=True):
        at = torch.arange(-1, length + 1, device=k.device)
        way = costs(w, at[:: length + 1], at[1:-1])
        leaving.append(torch.cat([gather(x, way) for x in _groups(keys, values, w.dtype)], dim=2).unbind(-2))
    ahead, back = state.unbind(0)
    before, behind = [], []
    for (_, x), length in zip(leaving, lengths, strict=True):
        entering, ahead = _carry(x, length * w, ahead, reverse=False)
        before.append(entering)
    for (x, _), length in zip(reversed(leaving), reversed(lengths), strict=True):
        entering, back = _carry(x, length * w, back, reverse=True)
        behind.append(entering)

    # Pass 2: what each token reads.
    y = []
    for (keys, values), length, early, late in zip(parts, lengths, before, reversed(behind), strict=True):
        at = torch.arange(-1, length + 1, device=k.device)
        way = costs(w, at[1:-1], at, u)
        edges = (_cut(entering.unsqueeze(-2), _group(keys), 2) for entering in (early, late))
        for x, first, last in zip(_groups(keys, values, w.dtype), *edges, strict=True):
            y.append(read(gather(torch.cat((first, x, last), dim=-2), way), k.dtype).flatten(1, 2))
    return torch.cat(y, dim=1), torch.stack((ahead, back))


def _group(x: Tensor) -> int:
    """How many chunks of x, Float[... n L C], to handle together; in an export all."""
    if exporting():
        return max(1, int(x.shape[-3]))
    others = int(x[..., 0, :, :].numel())
    return max(1, WEIGHTS.get(x.device.type, WEIGHTS["cpu"]) // (others * (int(x.shape[-2]) + 2)))


def _cut(x: Tensor, group: int, dim: int) -> Sequence[Tensor]:
    """Parts of `group` along a dimension; x itself if it is one: OpenVINO takes no split of an unknown length."""
    return (x,) if x.shape[dim] <= group else x.split(group, dim)


def _groups(keys: Tensor, values: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Float[B n L C], Float[B n L C] -> Float[3 B group L C] at a time."""
    group = _group(keys)
    for some, same in zip(_cut(keys, group, 1), _cut(values, group, 1), strict=True):
        yield tokens(some.to(dtype), same.to(dtype))


def _released(k: Tensor, v: Tensor, w: Tensor, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    B, N = int(k.shape[0]), int(k.shape[1])
    x = tokens(k.to(w.dtype), v.to(w.dtype))
    ahead, back = state.unbind(0)
    past, ahead = _carry(x, w, ahead, reverse=False)
    future, back = _carry(x, w, back, reverse=True)

    S = segment(N)
    missing = empty(k, w.dtype).unsqueeze(2).expand(-1, -1, -N % S, -1)
    segments = torch.cat((x, missing), dim=2).unflatten(2, (-1, S)).flatten(1, 2)
    start = empty(segments[2], w.dtype)
    inside, _ = _carry(segments, w, start, reverse=False)
    growing, grown = _carry(segments[:, :, 1:], -w, start, reverse=False)
    growing = torch.cat((growing, grown.unsqueeze(2)), dim=2)
    inside, growing = (each.unflatten(1, (B, -1)).flatten(2, 3)[:, :, :N] for each in (inside, growing))
    y = released(past, future, inside, growing, tokens(x[2] + u, x[0]), w)
    return read(y, k.dtype), torch.stack((ahead, back))


def _carry(x: Tensor, w: Tensor, state: Tensor, *, reverse: bool) -> tuple[Tensor, Tensor]:
    """The sums that enter each token, and the last: Float[3 B n C], Float[3 B C] -> Float[3 B n C], Float[3 B C]."""
    n = int(x.shape[2])
    if n <= 2 * CHUNK:
        borders = gather(_beside(state, x, reverse), _ways(w, n, reverse))
        return (borders[:, :, 1:], borders[:, :, 0]) if reverse else (borders[:, :, :-1], borders[:, :, -1])
    rest = n % CHUNK
    chunks, last = (x[:, :, rest:], x[:, :, :rest]) if reverse else (x[:, :, : n - rest], x[:, :, n - rest :])
    chunks = chunks.unflatten(2, (-1, CHUNK))
    ways = _ways(w, CHUNK, reverse)
    through, within = (ways[:1, :-1], ways[1:]) if reverse else (ways[-1:, 1:], ways[:-1])
    group = _group(chunks[2])
    leaving = torch.cat([gather(some, through) for some in _cut(chunks, group, 2)], dim=2).squeeze(-2)
    entering, state = _carry(leaving, CHUNK * w, state, reverse=reverse)
    groups = zip(_cut(entering, group, 2), _cut(chunks, group, 2), strict=True)
    entering = torch.cat([gather(_beside(edge, some, reverse), within).flatten(2, 3) for edge, some in groups], dim=2)
    if rest:
        end, state = _carry(last, w, state, reverse=reverse)
        entering = torch.cat((end, entering) if reverse else (entering, end), dim=2)
    return entering, state


def _beside(edge: Tensor, x: Tensor, reverse: bool) -> Tensor:
    """The entering sum before x, in reverse after it: Float[3 B ... C], Float[3 B ... n C] -> Float[3 B ... n+1 C]."""
    edge = edge.unsqueeze(-2)
    return torch.cat((x, edge) if reverse else (edge, x), dim=-2)


def _ways(w: Tensor, n: int, reverse: bool) -> Tensor:
    """Costs from the state and n tokens to the n + 1 borders around these: Float[C] -> Float[n+1 n+1 C]."""
    at = torch.arange(n + 1, device=w.device)
    gap = ((at - at[:, None]) if reverse else (at[:, None] - at)).unsqueeze(-1)
    return torch.where(gap < 0, torch.inf, gap * w)
