"""The selective scan, one token a step, in machine code on the CPU.

A tile of tokens is read from where it lies, some channels at a time; steps, skips and the gate are computed in it. The
states of one vector of channels after the other take its tokens, and stay in registers meanwhile.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from vbench.kernels.machine_code import Array, Strides, array, flat, machine_code, recomputed
from vbench.kernels.registers import wide_vectors
from vbench.kernels.selective_scan import orders, scan
from vbench.kernels.shapes import Direction, accumulator
from vbench.kernels.state_lanes import held, lanes, walk_lanes
from vbench.kernels.threads import least_items, shares, split
from vbench.kernels.token_tiles import TOKENS, Spot, read, tile, write
from vbench.kernels.vector_math import log1p_of_exp, sigmoid

CHANNELS = 64  # of a tile: its steps, its inputs and its outputs stay in the first cache
LOG2E = 1.4426950408889634
LINEAR = 20  # softplus(x) is x beyond, as torch has it
STEP = 40  # multiplications that take as long as the step, the skip and the gate of a token and channel
STATE = 12  # and as a state's exponential


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    *,
    z: Tensor | None = None,
    softplus: bool = True,
    direction: Direction = "forward",
    width: int | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The selective scan, recurrent form (Gu & Dao 2023, arXiv:2312.00752, algorithm 2), compiled.

    Arguments, results and errors are those of `reference.selective_scan`. Gradients are those of
    `scan.selective_scan`.
    """
    orders.check(direction, width, int(u.shape[-2]))
    how: dict[str, Any] = {"direction": direction, "width": width, "softplus": softplus}
    inputs = (u, delta, A, B, C, D, delta_bias)
    if z is None:
        return recomputed(partial(_run, None, **how), partial(scan.selective_scan, **how), inputs, state)

    def run(*given: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        u, delta, A, B, C, D, bias, z = given
        return _run(z, u, delta, A, B, C, D, bias, state=state, **how)

    def again(*given: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        *inputs, z = given
        return scan.selective_scan(*inputs, z=z, state=state, **how)

    return recomputed(run, again, (*inputs, z), state)


def _run(
    z: Tensor | None,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    delta_bias: Tensor,
    state: Tensor | None,
    *,
    direction: Direction,
    width: int | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    dtype = accumulator(u)
    W = {"both": 2, "cross": 4}.get(direction, 1)
    several = W > 1
    if not several:
        u, delta, A, B, C, D, delta_bias = (x.unsqueeze(0) for x in (u, delta, A, B, C, D, delta_bias))
        state = None if state is None else state.unsqueeze(0)
    elif direction == "cross":
        u = u.unsqueeze(0).expand(W, *u.shape)
    _, batch, groups, N, channels = u.shape
    states = A.shape[-1]
    side, count = lanes(dtype.itemsize), held(states)
    room = -(-states // count) * count
    blocks = -(-channels // side)

    def vectors(x: Tensor) -> Tensor:
        """[... C S] -> [... blocks room side], filled up with zeros."""
        x = torch.nn.functional.pad(x, (0, room - states, 0, blocks * side - channels))
        return x.unflatten(-2, (blocks, side)).mT.contiguous()

    rates = vectors(A.to(dtype) * LOG2E)
    h = rates.new_zeros(W, batch, groups, blocks, room, side) if state is None else vectors(state.to(dtype))
    out = u.new_empty(batch, N, groups, channels, dtype=dtype).transpose(1, 2)  # groups side by side
    gate = u[0] if z is None else z
    parts = shares(batch * groups, blocks)
    tensors = (*flat(u), *flat(delta), *flat(B), *flat(C), *flat(gate), *flat(out))
    numbers = rates.flatten(2).numpy(), array(D, dtype), array(delta_bias, dtype), h.flatten(1, 2).flatten(2).numpy()
    sizes, columns = (groups, N, channels, states, room, side, parts), 0 if width is None else width
    options = columns, direction == "reverse", softplus, z is not None
    work = partial(_walk, *tensors, *numbers, (0,) * count, sizes, *options)
    split(work, batch * groups * parts, least_items(W * N * channels * (STEP + STATE * room) // parts))
    last = h.mT.flatten(-3, -2)[..., :channels, :states]
    return out.to(u.dtype), (last if several else last[0]).contiguous()


@machine_code
def _walk(
    u: Array,
    u_strides: Strides,
    delta: Array,
    delta_strides: Strides,
    B: Array,
    B_strides: Strides,
    C: Array,
    C_strides: Strides,
    z: Array,
    z_strides: Strides,
    out: Array,
    out_strides: Strides,
    rates: Array,
    D: Array,
    bias: Array,
    state: Array,
    count: tuple[int, ...],
    sizes: tuple[int, int, int, int, int, int, int],
    columns: int,
    backwards: bool,
    softplus: bool,
    gated: bool,
    first: int,
    stop: int,
) -> None:
    """The sum of all walks, gated, and the last states, for parts [first, stop) of the channels of all groups.

    u, delta: Float[W B G N C], B, C: Float[W B G N S], z, out: Float[B G N C], all flat; D, bias: Float[W G C];
    rates: [W G blocks · room · side], state: [W B · G blocks · room · side], as `walk_lanes` takes them.

    Args:
        count: as in `walk_lanes`.
        sizes: G, N, C, S; the states with those that fill up; the channels of a vector; the parts of a group.
        columns: tokens in a row of the map, if every other walk goes along columns; else 0.
        backwards: whether a single walk is.
    """
    (G, N, channels, S, room, side, parts), one = sizes, state.dtype.type(1)
    W, lines, length = state.shape
    writes, reads = tile(room, one), tile(room, one)
    steps, feeds = tile(CHANNELS, one), tile(CHANNELS, one)
    y, gate = tile(CHANNELS, one), tile(CHANNELS, one)
    for item in range(first, stop):
        line, part = item // parts, item % parts
        b, g = line // G, line % G
        blocks = length // (room * side)
        left, right = blocks * part // parts * side, min(channels, blocks * (part + 1) // parts * side)
        for w in range(W):
            reverse = w >= W // 2 if W > 1 else backwards
            way = b, g, N, columns * (w % 2), reverse
            own, size = u[w * u_strides[0] :], delta[w * delta_strides[0] :]
            wrote, asked = B[w * B_strides[0] :], C[w * C_strides[0] :]
            for done in range(0, N, TOKENS):
                n = min(TOKENS, N - done)
                _gather(wrote, B_strides[1:], way, done, 0, S, writes[:n])
                _gather(asked, C_strides[1:], way, done, 0, S, reads[:n])
                for c in range(left, right, CHANNELS):
                    some = min(CHANNELS, right - c)
                    _gather(own, u_strides[1:], way, done, c, some, feeds[:n])
                    _gather(size, delta_strides[1:], way, done, c, some, steps[:n])
                    _prepare(steps[:n], feeds[:n], y[:n], D[w, g, c : c + some], bias[w, g, c : c + some], softplus)
                    for lane in range(0, some, side):
                        base = (c + lane) * room
                        for s in range(0, room, len(count)):
                            walk_lanes(
                                count,
                                state,
                                (w * lines + line) * length + base + s * side,
                                rates,
                                (w * G + g) * length + base + s * side,
                                writes,
                                reads,
                                room,
                                s,
                                steps,
                                feeds,
                                y,
                                CHANNELS,
                                lane,
                                n,
                            )
                    last = gated and w == W - 1
                    if last and w > 0:
                        _gather(out, out_strides, way, done, c, some, gate[:n])
                        _add(y[:n], gate[:n], some)
                    if last:
                        _gather(z, z_strides, way, done, c, some, gate[:n])
                        _shut(y[:n], gate[:n], some)
                    _scatter(y[:n], out, out_strides, way, done, c, some, w > 0 and not last)


Way = tuple[int, int, int, int, bool]  # image, group, tokens, those of a row if the walk is along columns, reverse


@machine_code
def _run_from(place: int, way: Way) -> tuple[Spot, int]:
    """The token at a place of a walk, the way to the next one, and how many tokens lie in line from it on."""
    b, g, N, columns, reverse = way
    place = N - 1 - place if reverse else place
    if columns == 0:
        return (b, g, place, -1 if reverse else 1), place + 1 if reverse else N - place
    rows = N // columns
    row, column = place % rows, place // rows
    return (b, g, row * columns + column, -columns if reverse else columns), row + 1 if reverse else rows - row


@machine_code
def _gather(x: Array, strides: Strides, way: Way, place: int, left: int, width: int, tile: Array) -> None:
    """Read the tokens from a place of the walk on, as many as the tile has rows."""
    i = 0
    while i < len(tile):
        spot, n = _run_from(place + i, way)
        read(x, strides, spot, left, width, tile.dtype.type(1), tile[i : i + n])
        i += n


@machine_code
def _scatter(tile: Array, out: Array, strides: Strides, way: Way, place: int, left: int, width: int, add: bool) -> None:
    """Write them, or add them to what is there."""
    i = 0
    while i < len(tile):
        spot, n = _run_from(place + i, way)
        write(tile[i : i + n], out, strides, spot, left, width, tile.dtype.type(1), add)
        i += n


@machine_code
def _prepare(step: Array, feed: Array, y: Array, D: Array, bias: Array, softplus: bool) -> None:
    """From delta and u of a tile: δ in place of delta, δ · u in place of u, and D · u in y."""
    wide_vectors()
    zero, most = D.dtype.type(0), D.dtype.type(LINEAR)
    for i in range(len(step)):
        delta, u, skip = step[i], feed[i], y[i]
        for c in range(len(D)):
            x, own = delta[c] + bias[c], u[c]
            if softplus:
                smooth = (x if x > zero else zero) + log1p_of_exp(-abs(x))
                x = x if x > most else smooth
            delta[c] = x
            u[c] = x * own
            skip[c] = D[c] * own


@machine_code
def _add(y: Array, x: Array, width: int) -> None:
    for i in range(len(y)):
        to, of = y[i], x[i]
        for c in range(width):
            to[c] += of[c]


@machine_code
def _shut(y: Array, z: Array, width: int) -> None:
    """y · SiLU(z)."""
    wide_vectors()
    for i in range(len(y)):
        to, gate = y[i], z[i]
        for c in range(width):
            to[c] *= gate[c] * sigmoid(gate[c])
