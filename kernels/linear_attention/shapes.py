"""The shapes of linear attention, and its summary; `reference.linear_attention` says what each tensor is."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.shapes import Shapes, accumulator

EPS = 1e-6
Summary = tuple[Tensor, Tensor, Tensor]  # S, z, n

SHAPES = Shapes(
    inputs={"q": "B H N D", "k": "B H N D", "v": "B H N E"},
    optional={"q_norm": "B H N D", "k_norm": "B H N D"},
    output="B H N E",
    state=("B H D E", "B H D", ""),
)


def others(q: Tensor, v: Tensor, state: Summary | None) -> Summary:
    """The summary of other tokens, in the type that sums are kept in; of no token if None: S = 0, z = 0, n = 0."""
    dtype = accumulator(q)
    if state is not None:
        S, z, n = state
        return S.to(dtype), z.to(dtype), n.to(dtype)
    B, H, _, D = q.shape
    return (
        q.new_zeros(B, H, D, v.shape[-1], dtype=dtype),
        q.new_zeros(B, H, D, dtype=dtype),
        q.new_zeros((), dtype=dtype),
    )
