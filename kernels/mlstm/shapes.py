"""The shapes of the matrix LSTM, and the state before the first token; `reference.mlstm` says what each tensor is.

One direction a call: ViL alternates them block by block.
"""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.shapes import Shapes, accumulator

Memory = tuple[Tensor, Tensor, Tensor]  # C, n, m

SHAPES = Shapes(
    inputs={"q": "B H N D", "k": "B H N D", "v": "B H N E", "i": "B H N", "f": "B H N"},
    output="B H N E",
    state=("B H D E", "B H D", "B H"),
    option="direction",
    choices=("forward", "reverse"),
)


def memory(q: Tensor, v: Tensor, state: Memory | None) -> Memory:
    """The state to begin with, in the type that sums are kept in; empty if None: C = 0, n = 0, m = -inf."""
    dtype = accumulator(q)
    if state is not None:
        C, n, m = state
        return C.to(dtype), n.to(dtype), m.to(dtype)
    B, H, _, D = q.shape
    return (
        q.new_zeros(B, H, D, v.shape[-1], dtype=dtype),
        q.new_zeros(B, H, D, dtype=dtype),
        q.new_full((B, H), float("-inf"), dtype=dtype),
    )
