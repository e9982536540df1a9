"""The walk of a matrix state along the tokens of a tile, with a part of the state in the processor's registers.

A state of D × E numbers is cut into blocks of `ROWS` × `COLUMNS` numbers, as many as fit into the registers beside what
one token needs. A block takes all tokens of a tile in order, then comes the next block. LLVM's vectoriser cannot find
this from loops over arrays, so the instructions are given to it: vectors of the processor's width.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from vbench.kernels.machine_code import Array, machine_code
from vbench.kernels.registers import REGISTERS, WHOLE, WIDTH, Vectors

ROWS = REGISTERS // 4  # of a block
_VECTORS = 2  # registers of a row
COLUMNS = _VECTORS * WIDTH // 4  # of float32; a block of float64 has as many, in twice the registers


def _walk(before: bool, lost: bool) -> Any:
    """The function that takes one block along the tokens.

    Args:
        before: a token reads the state before it writes.
        lost: what the state keeps is given as what it loses, keep - 1, which has more digits where keep is near 1.
    """

    @intrinsic
    def walk(context, state, at, stride, q, k, keep, row, step, v, column, out, width, tokens):  # type: ignore[no-untyped-def]
        """state[at + r·stride + e]: the block. q, k, keep[t·step + row + r], v, out[t·width + column + e]: the tokens.

        A token: out[e] += Σ_r q[r]·S[r, e] and S[r, e] = keep[r]·S[r, e] + k[r]·v[e], in this order or in the other.
        """

        def generate(target: Any, builder: Any, signature: Any, arguments: Any) -> None:
            by = Vectors(target, builder, state.dtype)
            s, s_at, s_stride, qs, ks, keeps, first, tile_step, vs, e_at, outs, v_step, count = by.values(
                signature.args, arguments
            )
            vectors = COLUMNS // by.lanes
            held, homes = [], []
            for r in range(ROWS):
                for n in range(vectors):
                    index = builder.add(s_at, builder.mul(s_stride, WHOLE(r)))
                    homes.append(by.place(s, builder.add(index, WHOLE(n * by.lanes))))
                    held.append(cgutils.alloca_once(builder, by.type))  # LLVM makes it a register
                    builder.store(by.load(homes[-1]), held[-1])
            with cgutils.for_range(builder, count) as loop:
                token = builder.add(builder.mul(loop.index, tile_step), first)
                across = builder.add(builder.mul(loop.index, v_step), e_at)
                spots = [builder.add(across, WHOLE(n * by.lanes)) for n in range(vectors)]
                value = [by.load(by.place(vs, spot)) for spot in spots]
                o = [by.load(by.place(outs, spot)) for spot in spots]
                for r in range(ROWS):
                    here = builder.add(token, WHOLE(r))
                    query, key, kept = (by.number(base, here) for base in (qs, ks, keeps))
                    for n in range(vectors):
                        register = held[r * vectors + n]
                        old = builder.load(register)
                        new = by.fma(key, value[n], by.fma(kept, old, old) if lost else by.times(kept, old))
                        builder.store(new, register)
                        o[n] = by.fma(query, old if before else new, o[n])
                for spot, found in zip(spots, o, strict=True):
                    by.store(found, by.place(outs, spot))
            for register, home in zip(held, homes, strict=True):
                by.store(builder.load(register), home)

        given = (state, at, stride, q, k, keep, row, step, v, column, out, width, tokens)
        return types.void(*(each if isinstance(each, types.Array) else types.int64 for each in given)), generate

    return walk


walk = _walk(before=False, lost=False)
walk_lost = _walk(before=False, lost=True)
walk_before = _walk(before=True, lost=False)


@machine_code
def padded(size: int, unit: int) -> int:
    """The size, filled up to whole units."""
    return -(-size // unit) * unit


@machine_code
def columns_of(part: int, parts: int, width: int) -> tuple[int, int]:
    """The first column of one of `parts` parts of a state, and how many columns it has: whole blocks but at the end."""
    blocks = padded(width, COLUMNS) // COLUMNS
    left = blocks * part // parts * COLUMNS
    return left, min(width, blocks * (part + 1) // parts * COLUMNS) - left


@machine_code
def load_state(state: Array, head: int, rows: int, width: int, left: int, columns: int) -> Array:
    """Columns of a head's state, of Float[heads · rows · width], as a matrix of whole blocks filled up with zeros."""
    s = np.zeros((padded(rows, ROWS), padded(columns, COLUMNS)), state.dtype)
    for c in range(rows):
        for e in range(columns):
            s[c, e] = state[(head * rows + c) * width + left + e]
    return s


@machine_code
def store_state(s: Array, state: Array, head: int, rows: int, width: int, left: int, columns: int) -> None:
    """Write back what `load_state` made."""
    for c in range(rows):
        for e in range(columns):
            state[(head * rows + c) * width + left + e] = s[c, e]


@machine_code
def load_part(state: Array, item: int, parts: int, rows: int, width: int) -> Array:
    """As `load_state`, of the columns of part item % parts of head item // parts."""
    left, columns = columns_of(item % parts, parts, width)
    return load_state(state, item // parts, rows, width, left, columns)


@machine_code
def store_part(s: Array, state: Array, item: int, parts: int, rows: int, width: int) -> None:
    """Write back what `load_part` made."""
    left, columns = columns_of(item % parts, parts, width)
    store_state(s, state, item // parts, rows, width, left, columns)


@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _product(q: Array, k: Array, factor: Array) -> Any:
    found = q.dtype.type(0)
    for c in range(len(factor)):
        found += q[c] * k[c] * factor[c]
    return found


@machine_code
def read_itself(q: Array, k: Array, factor: Array, v: Array, o: Array) -> None:
    """Add to o what each token reads of itself: Σ_c q·k·factor times v. This sum alone is taken in any order."""
    for t in range(len(q)):
        own, value, place = _product(q[t], k[t], factor), v[t], o[t]
        for e in range(len(place)):
            place[e] += own * value[e]


@numba.njit(fastmath={"contract", "reassoc"}, error_model="numpy")  # type: ignore[untyped-decorator]
def product(x: Array, y: Array) -> Any:
    """Σ x · y, taken in any order."""
    found = x.dtype.type(0)
    for c in range(len(x)):
        found += x[c] * y[c]
    return found
