"""WKV6 by Triton kernels: three launches in chunks, both directions at once; or one that walks."""

from __future__ import annotations

from torch import Tensor

from vbench.kernels.fused.operator import matrix_state
from vbench.kernels.shapes import Direction
from vbench.kernels.wkv6 import cost
from vbench.kernels.wkv6.shapes import check


def wkv6(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """WKV6, fused form (Yang et al. 2024, arXiv:2312.06635, section 4, for the decays of RWKV-6), on CUDA.

    Arguments, results and errors are those of `reference.wkv6`, but for float64, which it does not take.

    Raises besides: UnsupportedError for tensors that Triton cannot run on here.
    """
    return _call(r, k, v, g, u, direction, state, "fused")


def wkv6_recurrent(
    r: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    u: Tensor,
    *,
    direction: Direction = "forward",
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """WKV6, fused recurrent form: one launch, one token a step.

    Arguments, results and errors are those of `wkv6` here.
    """
    return _call(r, k, v, g, u, direction, state, "fused_recurrent")


def _call(
    r: Tensor, k: Tensor, v: Tensor, g: Tensor, u: Tensor, direction: Direction, state: Tensor | None, form: str
) -> tuple[Tensor, Tensor]:
    check(r, k, v, g, u, direction, state)
    if r.is_meta:
        return cost.on_meta(r, k, v, direction, form)
    bonus = (u * (direction != "reverse")).contiguous()
    before = [] if state is None else [state.float().flatten(-2).contiguous().view(-1, r.shape[3] * v.shape[3])]
    o, s = matrix_state(r, k, v, g, None, bonus, before, "vector", True, direction, 1.0, 1.0, 0.0, "wkv6", form)
    pair = (2,) if direction == "both" else ()
    return o, s.view(*pair, *r.shape[:2], r.shape[3], v.shape[3])
